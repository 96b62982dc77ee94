"""What `live --save` writes beside the pictures, and what becomes of the run when the disk takes no more."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import runs
from ..errors import OutputError
from ..result_line import wall_time
from ..types import Result, Sink

log = logging.getLogger(__name__)


class Spare:
    """A sink that the run can do without: where it cannot write any more `what` has ended, and the others go on.

    Once something else among the `rest` has ended before, nothing is left to go on for: the error then ends the run.
    """

    def __init__(self, sink: Sink, what: str, rest: Iterable[Spare] = ()) -> None:
        self._sink, self._what, self._rest, self.name = sink, what, rest, sink.name
        self.error: OutputError | None = None

    def __enter__(self) -> Spare:
        try:
            self._sink.__enter__()
        except OutputError as error:
            self._lose(error)
        return self

    def write(self, result: Result) -> None:
        """Hand on, as long as it takes something."""
        if self.error is None:
            self._spared(self._sink.write, result)

    def idle(self) -> None:
        if self.error is None and hasattr(self._sink, "idle"):
            self._spared(self._sink.idle)

    def __exit__(self, *exc: Any) -> None:
        if self.error is None:
            try:
                self._sink.__exit__(*exc)
            except OutputError as error:
                self._lose(error)

    def _spared(self, call: Callable[..., None], *given: Any) -> None:
        try:
            call(*given)
        except OutputError as error:
            with suppress(OutputError):
                self._sink.__exit__(type(error), error, None)
            self._lose(error)

    def _lose(self, error: OutputError) -> None:
        self.error = error
        if any(one.error for one in self._rest if one._what != self._what):
            raise error
        log.warning("%s; %s has ended, the run goes on", error, self._what)


class Begun(Sink):
    """Writes `run.json` at the first result, so that a run that is killed can be told, and when it was.

    `about` is what stands in it; "started", the moment at which the time of results is 0, is added.
    """

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        self._folder, self._about = folder, about

    def write(self, result: Result) -> None:
        """Only the first counts."""
        if "started" not in self._about:
            frame = result.frame
            self._about["started"] = wall_time(frame.captured_ns - frame.time_ns)
            runs.begin(self._folder, self._about)

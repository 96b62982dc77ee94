"""Offline work on many files: each gets an annotated copy, all share the results, a bad one does not stop the rest."""

from __future__ import annotations

import collections
import logging
import os
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import plugins
from ..build import Analysis, file_kind, open_file
from ..drawing.overlay import overlay
from ..errors import CalmcamError, InputError, OutputError, SourceError, TruncatedError
from ..inputs import Input, stems
from ..manifest import Head
from ..media import COPIES
from ..report import Report
from ..run import Draw, Stop, run
from ..settings import Settings
from ..types import Result, Sink

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Options:
    """What part of each input is worked on, and what is made of it."""

    start: float | None = None  # s of media time; frames before are left out
    end: float | None = None  # s of media time
    stride: int = 1  # every n-th frame
    audio: bool = True  # copy it
    video: bool = True  # write annotated copies at all


@dataclass(eq=False)
class Outcome:
    """What became of one input."""

    number: int  # among the inputs, from 0
    path: Path
    name: str  # in results and tables: the file's, its whole path where several are called so
    output: Path | None = None  # the annotated copy
    error: CalmcamError | None = None
    report: Report = field(default_factory=Report)
    media: dict[str, object] = field(default_factory=dict)  # what it is, as `_Look` notes it
    summary: dict[str, object] = field(default_factory=dict)  # of both, for `run.json`

    def settle(self) -> None:
        """Sum up, and let go of the samples: there may be thousands of inputs."""
        self.summary = {"media": self.media, **self.report.summary()}
        del self.summary["ms"]
        self.report.spans_ms.clear()

    @property
    def complete(self) -> bool:
        """Whether all that can be had of it was had: of one that fails in its middle, what came before."""
        return self.report.frames > 0 and not self.report.stopped

    @property
    def partly(self) -> bool:
        """Whether it broke off, but what came before was good."""
        return isinstance(self.error, TruncatedError) and self.report.frames > 0


class _Look(Sink):
    """Notes in `media` the size of the first picture (px), pictures per second, and packets that no picture came of."""

    def __init__(self, source: Any, media: dict[str, object]) -> None:
        self._source, self._media = source, media

    def write(self, result: Result) -> None:
        if not self._media:
            height, width = result.frame.image.shape[:2]
            self._media |= {"width": width, "height": height, "fps": self._source.fps}

    def __exit__(self, *exc: object) -> None:
        self._media["damaged"] = getattr(self._source, "damaged", 0)


Counter = Callable[[int, Any], Sink]
"""Makes a sink that shows progress, of an input's number and its source (whose `frames` says how many)."""


class Annotation:
    """Inputs, and where their outputs go. Nothing is read or written until it is iterated."""

    def __init__(
        self, inputs: Sequence[Input], folder: Path, settings: Settings, options: Options, base: Path = Path()
    ) -> None:
        """Paths of `inputs` are relative to `base`."""
        self.inputs, self.folder, self.settings, self.options, self.base = inputs, folder, settings, options, base
        names = stems([item.path for item in inputs])
        called = collections.Counter(item.path.name for item in inputs)
        self._names = [str(item.path) if called[item.path.name] > 1 else item.path.name for item in inputs]
        self._outputs = [folder / f"{name}{_suffix(base / item.path)}" for name, item in zip(names, inputs, strict=True)]

    def check_outputs(self) -> None:
        """OutputError when an output would replace one of the inputs."""
        inputs = {os.path.realpath(self.base / item.path) for item in self.inputs}  # pathlib raises at a loop of links
        results = [self.folder / "results.jsonl", self.folder / "results.csv", self.folder / "run.json"]
        for path in [*self._outputs, *results]:
            if os.path.realpath(path) in inputs:
                raise OutputError(f"{path}: the output would replace the input; name another folder with -o")

    def outcome(self, number: int) -> Outcome:
        """Of input `number`, before anything became of it."""
        return Outcome(number, self.base / self.inputs[number].path, self._names[number])

    def outcomes(
        self, analysis: Analysis, results: Sink, stop: Stop, counter: Counter, finished: Container[int] = ()
    ) -> Iterator[Outcome]:
        """Work on every input in turn until `stop`, but for those whose numbers are `finished`.

        Failures of the machine, not of an input, are raised.
        """
        for number in range(len(self.inputs)):
            if stop.requested:
                return
            if number in finished:
                continue
            outcome, output = self.outcome(number), self._outputs[number]
            try:
                if self.inputs[number].problem:
                    raise SourceError(self.inputs[number].problem)
                part = {"start": self.options.start, "end": self.options.end, "stride": self.options.stride}
                source = open_file(outcome.path, **part)
                source.name = outcome.name
                notes = [counter(number, source), _Look(source, outcome.media)]
                sinks = [*notes, *self._copies(outcome.path, output), results]  # a line, when the copy has it
                run(
                    source,
                    analysis.stages(),
                    sinks,
                    live=False,
                    draw=self._draw(output, analysis.head),
                    stop=stop,
                    report=outcome.report,
                )
            except OutputError:
                raise
            except InputError as error:
                log.info("%s", outcome.path, exc_info=True)
                outcome.error = error.with_traceback(None)  # its frames hold pictures
            outcome.output = output if self.options.video and outcome.report.frames and output.exists() else None
            yield outcome

    def _draw(self, output: Path, head: Head) -> Draw | None:
        if not self.options.video:
            return None
        return overlay(self.settings, "clock" if output.suffix == ".mp4" else "", head.negative)

    def _copies(self, path: Path, output: Path) -> list[Sink]:
        if not self.options.video:
            return []
        if output.suffix != ".mp4":
            return [plugins.load("sinks", "pictures").Sink(output)]
        audio_from, part = path if self.options.audio else None, {"start": self.options.start, "end": self.options.end}
        return [plugins.load("sinks", "video").Sink(output, audio_from=audio_from, **part)]


def _suffix(path: Path) -> str:
    """Of the annotated copy: videos become MP4, pictures keep their format where a copy can have it."""
    if file_kind(str(path)) == "video":
        return ".mp4"
    return path.suffix.lower() if path.suffix.lower() in COPIES else ".jpg"

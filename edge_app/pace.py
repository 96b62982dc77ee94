"""Any source as a camera: its frames appear on the wall clock when their time has come."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Self

from .types import Frame, Source

_SECOND = 1_000_000_000


class Repeated:
    """A source of pictures that are there already, opened again at its end, for `frames` frames if given.

    Index and time go on growing.
    """

    live = False

    def __init__(self, source: Source, frames: int | None = None) -> None:
        self._source, self.name, self.frames = source, source.name, frames
        self._open = False

    def __enter__(self) -> Self:
        self._source.__enter__()
        self.fps = self._source.fps
        self._open = True
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self._source.__exit__(*exc)

    def stop(self) -> None:
        """End the iteration; safe from another thread and in a signal handler."""
        self._open = False
        self._source.stop()

    def __iter__(self) -> Iterator[Frame]:
        count = index_offset = time_offset = 0
        while self._open:
            last: Frame | None = None
            for frame in self._source:
                last = replace(frame, index=frame.index + index_offset, time_ns=frame.time_ns + time_offset)
                yield last
                count += 1
                if count == self.frames:
                    return
            if last is None:
                return
            index_offset, time_offset = last.index + 1, last.time_ns + round(_SECOND / (self.fps or 25))
            if self._open:
                self._source.__exit__(None, None, None)
                self._source.__enter__()


class Paced:
    """Emit the frames of `source` at their media time, or at `fps`; `captured_ns` is then the moment of emission.

    A frame is read before its time has come, so what reading costs does not delay it.
    """

    live = True

    def __init__(self, source: Source, fps: float | None = None) -> None:
        if fps is not None and fps <= 0:
            raise ValueError(f"expected fps > 0, got {fps}")
        self._source, self.name, self._fps = source, source.name, fps
        self._change = threading.Condition()
        self._open = False

    def __enter__(self) -> Self:
        self._source.__enter__()
        self.frames = self._source.frames
        self.fps = self._fps or self._source.fps
        self._open = True
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        self._source.__exit__(*exc)

    def stop(self) -> None:
        """End the iteration, also while it waits; safe from another thread and in a signal handler."""
        with self._change:
            self._open = False
            self._change.notify_all()
        self._source.stop()

    def __iter__(self) -> Iterator[Frame]:
        first_ns = started = 0
        for number, frame in enumerate(self._source):
            moment = frame.time_ns if self._fps is None else round(number * _SECOND / self._fps)
            if not number:
                first_ns, started = moment, time.monotonic_ns()
            if not self._wait_until(started + moment - first_ns):
                break
            yield replace(frame, time_ns=moment, captured_ns=time.monotonic_ns())

    def _wait_until(self, moment_ns: int) -> bool:
        """False when stopped before that moment of the monotonic clock."""
        with self._change:
            while self._open and (left := moment_ns - time.monotonic_ns()) > 0:
                self._change.wait(left / _SECOND)
            return self._open

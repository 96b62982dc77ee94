"""Any source as a camera: its frames appear on the wall clock when their time has come."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol, Self

from .types import Frame

_SECOND = 1_000_000_000
_ROUNDING = 1_000  # ns by which a time stamp may fall short of a whole second


class Source(AbstractContextManager, Protocol):
    """Where frames come from. Opened by `with`, may be opened again; `stop` ends the iteration from any thread."""

    live: bool  # frames come by themselves; those that are not taken in time are lost
    name: str
    fps: float | None
    frames: int | None  # that will come, as far as is known
    size: tuple[int, int] | None  # width and height in pixels of the first frame, as far as is known

    def __iter__(self) -> Iterator[Frame]: ...

    def stop(self) -> None: ...


class Paced:
    """Emit the frames of `source` at their media time, or at `fps`; `captured_ns` is then the moment of emission.

    A frame is read before its time has come, so what reading costs does not delay it. With `loop` the source is
    opened again at its end, and index and time go on growing; `seconds` ends the run.
    """

    live = True

    def __init__(self, source: Source, fps: float | None = None, seconds: float | None = None, *, loop: bool = False):
        if fps is not None and fps <= 0:
            raise ValueError(f"expected fps > 0, got {fps}")
        self._source, self._fps, self._seconds, self._loop = source, fps, seconds, loop
        self._change = threading.Condition()
        self._open = False

    def __enter__(self) -> Self:
        self._source.__enter__()
        self.name, self.size = self._source.name, self._source.size
        self.fps = self._fps or self._source.fps
        self.frames = self._expected_frames()
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
        first_ns: int | None = None
        started = time.monotonic_ns()
        for frame in self._frames():
            if first_ns is None:
                first_ns, started = frame.time_ns, time.monotonic_ns()
            moment = frame.time_ns - first_ns
            if self._seconds is not None and moment + _ROUNDING > self._seconds * _SECOND:
                break
            if not self._wait_until(started + moment):
                break
            yield replace(frame, captured_ns=time.monotonic_ns())

    def _frames(self) -> Iterator[Frame]:
        """The source's frames with the time at which each is to appear, over and over with `loop`."""
        number = index_offset = time_offset = 0
        while self._open:
            last: Frame | None = None
            for frame in self._source:
                moment = frame.time_ns + time_offset if self._fps is None else round(number * _SECOND / self._fps)
                last = replace(frame, index=frame.index + index_offset, time_ns=moment)
                yield last
                number += 1
            if not self._loop or last is None or not self._open:
                break
            index_offset = last.index + 1
            time_offset = last.time_ns + round(_SECOND / (self.fps or 25))
            self._reopen()

    def _reopen(self) -> None:
        self._source.__exit__(None, None, None)
        self._source.__enter__()
        if not self._open:  # stopped in between
            self._source.stop()

    def _wait_until(self, moment_ns: int) -> bool:
        """False when stopped before that moment of the monotonic clock."""
        with self._change:
            while self._open and (left := moment_ns - time.monotonic_ns()) > 0:
                self._change.wait(left / _SECOND)
            return self._open

    def _expected_frames(self) -> int | None:
        in_time = round(self._seconds * self.fps) if self._seconds is not None and self.fps else None
        in_source = None if self._loop else self._source.frames
        known = [count for count in (in_time, in_source) if count is not None]
        return min(known, default=None)

"""The one loop: source -> stages -> draw -> sinks. Live view, annotation and the benchmark are its arguments."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial

import numpy as np

from .background import Background
from .report import Report, Span
from .types import NO_FACES, Faces, Frame, Result, Sink, Source, Stage, Status

Work = tuple[Frame, Faces, dict[str, float]]
Draw = Callable[[Result], np.ndarray]
AHEAD = 3  # offline, frames that may wait between two threads: x264 works in bursts


class Stop:
    """A request to end a run in good order, from a signal handler or another thread."""

    def __init__(self) -> None:
        self.requested = False
        self._tell: list[Callable[[], None]] = []

    def __call__(self) -> None:
        self.requested = True
        for tell in tuple(self._tell):
            tell()

    @contextmanager
    def tells(self, callback: Callable[[], None]) -> Iterator[None]:
        """While open, `callback` is called when the stop is requested; it is not held any longer."""
        self._tell.append(callback)
        try:
            if self.requested:
                callback()
            yield
        finally:
            self._tell.remove(callback)


def run(
    source: Source,
    stages: Sequence[tuple[str, Stage]],
    sinks: Sequence[Sink],
    *,
    live: bool,
    draw: Draw | None = None,
    stop: Stop | None = None,
    report: Report | None = None,
) -> Report:
    """Push every frame of `source` through the named `stages` and into `sinks`; returns what happened.

    Live, the newest frame wins and the others are counted as dropped; otherwise no frame is lost. Source and first
    stage have a thread each, offline the other stages with the drawing too; sinks run in the caller's. The first
    failure anywhere ends the run and is raised here, after the sinks were closed; `report` then holds what came before.
    """
    report = Report() if report is None else report
    if stop and stop.requested:  # a source that is opened would forget it
        report.stopped = True
        return report
    clock = _Clock()

    def detect(frame: Frame) -> Work:
        return _through(stages[:1], (frame, NO_FACES, {"decode": frame.decode_ms}))

    def complete(work: Work) -> Result:
        frame, faces, spans = _through(stages[1:], work)
        return _drawn(Result(frame, faces, spans, clock.status(frame, newest.dropped, faces.device)), draw)

    with ExitStack() as stack:
        # A source that takes long to open must hear it, too; not while it is closed: Event.set() is not reentrant.
        with stop.tells(source.stop) if stop and hasattr(source, "stop") else nullcontext():
            frames = stack.enter_context(source)
        for sink in sinks:
            stack.enter_context(sink)
        newest = stack.enter_context(Background(frames, latest=live, size=1 if live else AHEAD))
        idle = partial(_idle, sinks) if live else None
        found = last = stack.enter_context(Background(newest, detect, size=1 if live else AHEAD, idle=idle))
        results: Iterable[Result] = map(complete, found)
        if not live:
            results = last = stack.enter_context(Background(found, complete, size=AHEAD))
        if stop:
            stack.enter_context(stop.tells(last.stop))
        started, before = time.perf_counter(), None
        report.live = live
        try:
            for result in results:
                _deliver(result, sinks, report)
                taken = result.frame.captured_ns
                if before is not None:
                    report.gaps += 1
                    report.gap_seconds += (taken - before) / 1e9
                before = taken
                if live and stop and stop.requested:
                    break
        finally:
            report.seconds += time.perf_counter() - started
            report.dropped += newest.dropped
            report.stopped |= bool(stop and stop.requested)
    return report


def _through(stages: Sequence[tuple[str, Stage]], work: Work) -> Work:
    frame, faces, spans = work
    for name, stage in stages:
        with Span(spans, name):
            faces = stage(frame, faces)
    return frame, faces, spans


def _drawn(result: Result, draw: Draw | None) -> Result:
    if draw is None:
        return result
    spans = dict(result.spans_ms)
    with Span(spans, "draw"):
        picture = draw(result)
    return replace(result, spans_ms=spans, picture=picture)


def _deliver(result: Result, sinks: Sequence[Sink], report: Report) -> None:
    spans = dict(result.spans_ms)
    for sink in sinks:
        with Span(spans, sink.name) if sink.name else nullcontext():
            sink.write(result)
    spans["age"] = (time.monotonic_ns() - result.frame.captured_ns) / 1e6
    report.add(spans)
    report.faces += len(result.faces)
    if result.faces.device:
        report.devices[result.faces.device] += 1
    report.labels.update(decision.label for decision in result.faces.decisions or ())


def _idle(sinks: Sequence[Sink]) -> None:
    for sink in sinks:
        if hasattr(sink, "idle"):
            sink.idle()


class _Clock:
    """Results per second over the last two seconds."""

    def __init__(self) -> None:
        self._times: deque[float] = deque()

    def status(self, frame: Frame, dropped: int, device: str) -> Status:
        now = time.perf_counter()
        self._times.append(now)
        while now - self._times[0] > 2.0:
            self._times.popleft()
        gaps = len(self._times) - 1
        fps = gaps / (now - self._times[0]) if gaps else 0.0
        return Status(fps, (time.monotonic_ns() - frame.captured_ns) / 1e6, dropped, device)


def drain(stages: Sequence[tuple[str, Stage]], frames: Iterable[Frame]) -> Iterator[tuple[Frame, Faces]]:
    """Frames through stages in the caller's thread: for one-off pictures and for measuring without overlap."""
    for frame in frames:
        frame, faces, _ = _through(stages, (frame, NO_FACES, {}))
        yield frame, faces

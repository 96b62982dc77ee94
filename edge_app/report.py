"""What a run did: counts and times, to be merged over runs and printed or written."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

KEEP = 4_096  # samples per span (32 kB); beyond that every second one is thrown away, and so on


class Span:
    """Add the wall milliseconds of a block to `spans[name]`."""

    def __init__(self, spans: dict[str, float], name: str) -> None:
        self._spans, self._name = spans, name

    def __enter__(self) -> None:
        self._begun = time.perf_counter()

    def __exit__(self, *exc: object) -> None:
        taken = (time.perf_counter() - self._begun) * 1e3
        self._spans[self._name] = self._spans.get(self._name, 0.0) + taken


@dataclass(eq=False)
class Report:
    """Counters of one or more runs. The one value that grows while a run goes on."""

    frames: int = 0
    dropped: int = 0
    faces: int = 0
    devices: Counter = field(default_factory=Counter)  # device -> frames it classified
    labels: Counter = field(default_factory=Counter)  # decided label -> faces
    spans_ms: dict[str, array] = field(default_factory=dict)  # stage -> wall ms per frame, float64
    seconds: float = 0.0  # wall time of the loop
    stopped: bool = False  # somebody asked it to stop
    live: bool = False  # frames came by themselves: their rate is that of the gaps between them
    gaps: int = 0  # live, from one frame to the next in the same run ...
    gap_seconds: float = 0.0  # ... and what they last together
    _strides: Counter = field(default_factory=Counter)  # span -> 2 ** this of its samples stand for one that is kept
    _seen: Counter = field(default_factory=Counter)  # span -> samples there were

    def add(self, spans_ms: Mapping[str, float]) -> None:
        """Count one frame with what its stages took."""
        self.frames += 1
        for name, ms in spans_ms.items():
            samples = self.spans_ms.setdefault(name, array("d"))
            self._seen[name] += 1
            if self._seen[name] % (1 << self._strides[name]) == 0:
                samples.append(ms)
            if len(samples) >= KEEP:
                del samples[::2]
                self._strides[name] += 1

    @property
    def fps(self) -> float:
        """Frames per second: live as they were taken, else of wall time; 0 while that is not known."""
        if self.live:
            return self.gaps / self.gap_seconds if self.gap_seconds else 0.0
        return self.frames / self.seconds if self.seconds else 0.0

    def percentiles(self, name: str) -> dict[str, float]:
        """p50, p95, p99 in ms of one span; NaN when it has no sample."""
        samples = self.spans_ms.get(name) or array("d", [float("nan")])
        return dict(zip(("p50", "p95", "p99"), np.percentile(samples, (50, 95, 99)).tolist(), strict=True))

    def merge(self, other: Report) -> Report:
        """A new report over both; seconds add up."""
        spans, strides = {}, Counter()
        for name in {**self.spans_ms, **other.spans_ms}:
            strides[name] = max(self._strides[name], other._strides[name])
            spans[name] = self._thinned(name, strides[name], 0) + other._thinned(name, strides[name], self._seen[name])
            if len(spans[name]) > KEEP:
                del spans[name][::2]
                strides[name] += 1
        return Report(
            self.frames + other.frames,
            self.dropped + other.dropped,
            self.faces + other.faces,
            self.devices + other.devices,
            self.labels + other.labels,
            spans,
            self.seconds + other.seconds,
            self.stopped or other.stopped,
            self.live or other.live,
            self.gaps + other.gaps,
            self.gap_seconds + other.gap_seconds,
            strides,
            self._seen + other._seen,
        )

    def _thinned(self, name: str, stride: int, before: int) -> array:
        """Every 2 ** `stride`-th sample of one span, counted on from the `before` samples of another report."""
        step = 1 << stride - self._strides[name]
        skipped = -((before >> self._strides[name]) + 1) % step
        return self.spans_ms.get(name, array("d"))[skipped::step]

    def summary(self) -> dict[str, object]:
        """Plain values for `run.json`."""
        return {
            "frames": self.frames,
            "dropped": self.dropped,
            "faces": self.faces,
            "devices": dict(self.devices),
            "labels": dict(self.labels),
            "seconds": round(self.seconds, 3),
            "fps": round(self.fps, 2),
            "stopped": self.stopped,
            "ms": {name: {p: round(ms, 3) for p, ms in self.percentiles(name).items()} for name in self.spans_ms},
        }

"""What the Hailo backend itself costs, on the double: python tests/doubles/bench_overhead.py [--frames N] [--json]

The double is set to 0.5 ms per face and a queue of 8 and computes nothing, so that what is measured is ours: CPU time
of the calling thread per frame with four faces (the double's own launching is in it), and, with a detector that keeps a
CPU busy, end-to-end time against the slower of the two. These are figures about our code and none about the chip.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1]), str(Path(__file__).parent)]

from hailo_world import world
from make_hef import add_hef
from small_model import write_model

from edge_app.backends.hailo import Backend
from edge_app.manifest import Manifest, read_manifest
from edge_app.run import run
from edge_app.tasks.face_expression import Classify
from edge_app.types import Faces, Frame, Result

FACES = 4


class Clip:
    """`count` frames with four faces each; `detect` keeps the CPU busy for `seconds`, or takes none."""

    live = False

    def __init__(self, count: int, seconds: float) -> None:
        self._count, self._seconds = count, seconds
        self._crops = np.zeros((FACES, 32, 32, 3), np.uint8)

    def __enter__(self) -> Iterator[Frame]:
        return (Frame(np.zeros((8, 8, 3), np.uint8), index, index) for index in range(self._count))

    def __exit__(self, *exc: object) -> None: ...

    def detect(self, frame: Frame, faces: Faces) -> Faces:
        _burn(self._seconds)
        return Faces(np.zeros((FACES, 4), np.float32), np.ones(FACES, np.float32), crops=self._crops)


class Nothing:
    name = "nothing"

    def __enter__(self) -> Nothing:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def write(self, result: Result) -> None: ...


def _burn(seconds: float) -> None:
    """Work that, as a detector's does, leaves the interpreter lock to others."""
    end = time.perf_counter() + seconds
    big = np.ones((256, 256), np.float32)
    while time.perf_counter() < end:
        np.sqrt(big, out=big)


def overhead(backend: Any, frames: int) -> dict[str, float]:
    """Median and 95th percentile of milliseconds per frame: the caller's CPU, and wall."""
    crops = np.zeros((FACES, 32, 32, 3), np.uint8)
    cpu, wall = [], []
    for _ in range(frames):
        begun, started = time.perf_counter(), time.thread_time()
        backend.infer(crops)
        cpu.append((time.thread_time() - started) * 1e3)
        wall.append((time.perf_counter() - begun) * 1e3)
    return {
        "cpu_ms_p50": float(np.median(cpu)),
        "cpu_ms_p95": float(np.percentile(cpu, 95)),
        "wall_ms_p50": float(np.median(wall)),
        "device_ms": FACES * world.latency_ms,
    }


def overlap(manifest: Manifest, backend: Any, frames: int, detect_ms: float) -> dict[str, float]:
    """Wall milliseconds per frame of detection alone, of classification alone and of both in one offline run."""
    classify = Classify(manifest, manifest.artifact("hailo8"), backend)

    def taken(seconds: float, classifies: bool) -> float:
        clip = Clip(frames, seconds)
        stages = [("detect", clip.detect), *([("classify", classify)] if classifies else [])]
        begun = time.perf_counter()
        run(clip, stages, [Nothing()], live=False)
        return (time.perf_counter() - begun) * 1e3 / frames

    detect, device = taken(detect_ms / 1e3, False), taken(0.0, True)
    both = taken(detect_ms / 1e3, True)
    return {"detect_ms": detect, "classify_ms": device, "both_ms": both, "ratio": both / max(detect, device)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=500)
    parser.add_argument("--detect-ms", type=float, default=2.0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    world.latency_ms, world.queue, world.execute = 0.5, 8, False
    with tempfile.TemporaryDirectory() as folder:
        manifest = add_hef(read_manifest(write_model(Path(folder) / "small") / "manifest.json"))
        backend = Backend(manifest.artifact("hailo8"))
        found = {
            "note": "taken on the double; says nothing about the chip",
            "overhead": overhead(backend, options.frames),
            "overlap": overlap(manifest, backend, options.frames, options.detect_ms),
        }
        backend.close()
    print(json.dumps(found, indent=None if options.json else 2))


if __name__ == "__main__":
    main()

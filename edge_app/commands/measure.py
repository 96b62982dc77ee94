"""What the benchmark measures: the one loop as it runs, each stage alone, the floor beneath it, start-up and memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from .. import plugins
from ..build import Analysis, open_source, source_kind
from ..drawing.overlay import Overlay
from ..errors import CalmcamError
from ..pace import Paced, Repeated
from ..report import Report, Span
from ..run import Draw, run
from ..settings import Settings
from ..types import NO_FACES, Faces, Frame, Result, Sink, Status


@dataclass(frozen=True, slots=True)
class Plan:
    """Which frames are measured."""

    source: str
    frames: int
    warm_up: int
    faces: int = 1  # of the synthetic source
    size: tuple[int, int] = (1280, 720)  # px, of the synthetic source

    def record(self, frames: int) -> dict[str, object]:
        """What was measured, `frames` of it; `faces` where it is known how many are in each."""
        return {"source": self.source, "frames": frames} | ({"faces": self.faces} if self.source == "synthetic" else {})

    def portion(self, frames: int) -> Repeated:
        """So many frames of the source, from its beginning."""
        width, height = self.size
        options = {"faces": self.faces, "width": width, "height": height}
        return Repeated(
            open_source(self.source, **(options if source_kind(self.source) == "synthetic" else {})), frames
        )


def as_it_runs(
    plan: Plan, analysis: Analysis, sinks: Sequence[Sink] = (), *, draw: Draw | None = None, paced: float | None = None
) -> tuple[Report, float]:
    """The report of a run over the plan's frames, and the CPU milliseconds of the whole process per frame.

    With `paced` the frames come at that rate and the newest wins, as live; otherwise as fast as they are taken.
    """
    portion = plan.portion(plan.frames)
    source = Paced(portion, fps=paced) if paced else portion
    begun = time.process_time()
    report = run(source, analysis.stages(), sinks, live=bool(paced), draw=draw)
    return report, (time.process_time() - begun) * 1e3 / max(report.frames, 1)


def warm_up(plan: Plan, analysis: Analysis) -> None:
    """Run the plan's first frames and forget them."""
    run(plan.portion(plan.warm_up), analysis.stages(), (), live=False)


def annotate(plan: Plan, analysis: Analysis) -> tuple[Report, float]:
    """As `as_it_runs`, drawing and encoding H.264 into a file that is thrown away."""
    with TemporaryDirectory() as folder:
        sink = plugins.load("sinks", "video").Sink(Path(folder) / "annotated.mp4")
        return as_it_runs(plan, analysis, [sink], draw=Overlay(status="clock"))


class Alone:
    """Stages one after the other in one thread, and beside them, frame by frame, the floor."""

    def __init__(self) -> None:
        self.report = Report()  # spans of each stage when nothing else runs
        self.analysis_ms: list[float] = []  # CPU per frame, all stages
        self.floor_ms: list[float] = []  # CPU per frame, bare detector and bare interpreter
        self.faces, self.floor_faces = 0, 0

    def measure(self, plan: Plan, analysis: Analysis, settings: Settings) -> None:
        """Go through the plan's frames; ours and the floor take turns in going first, then drawing and encoding."""
        bare_interpreter = plugins.load("backends", "litert").bare(analysis.artifact, threads=settings.threads)
        bare_detector = plugins.load("tasks", "face_detection").bare(analysis.detector.path, conf=settings.conf)
        stages, overlay = analysis.stages(), Overlay(status="clock")
        with ExitStack() as stack:
            frames = stack.enter_context(plan.portion(plan.warm_up + plan.frames))
            detect = stack.enter_context(bare_detector)
            folder = stack.enter_context(TemporaryDirectory())
            encoder = stack.enter_context(plugins.load("sinks", "video").Sink(Path(folder) / "annotated.mp4"))
            sides = partial(self._ours, stages), partial(self._floor, detect, bare_interpreter)
            for frame in frames:
                for side in sides if frame.index % 2 else reversed(sides):
                    side(frame)
                self._show(overlay, encoder, frame)
                if frame.index == plan.warm_up - 1:
                    self._forget()

    def _ours(self, stages: Sequence[tuple[str, Any]], frame: Frame) -> None:
        spans, faces = {"decode": frame.decode_ms}, NO_FACES
        begun = time.process_time()
        for name, stage in stages:
            with Span(spans, name):
                faces = stage(frame, faces)
        self.analysis_ms.append((time.process_time() - begun) * 1e3)
        self.faces += len(faces)
        self._last: tuple[Faces, dict[str, float]] = (faces, spans)

    def _floor(self, detect: Any, invoke: Any, frame: Frame) -> None:
        begun = time.process_time()
        found = detect(frame.image)
        invoke(found)
        self.floor_ms.append((time.process_time() - begun) * 1e3)
        self.floor_faces += found

    def _show(self, overlay: Draw, encoder: Sink, frame: Frame) -> None:
        faces, spans = self._last
        result = Result(frame, faces, spans, Status(0.0, 0.0, 0, faces.device))
        with Span(spans, "draw"):
            picture = overlay(result)
        with Span(spans, "encode"):
            encoder.write(replace(result, picture=picture))
        self.report.add(spans)

    def _forget(self) -> None:
        self.report, self.faces, self.floor_faces = Report(), 0, 0
        self.analysis_ms.clear()
        self.floor_ms.clear()


def bare_decoding(path: str, frames: int) -> float:
    """CPU milliseconds per frame of decoding a video with nothing around it."""
    done, begun = 0, time.process_time()
    for done, _ in enumerate(plugins.load("sources", "video").bare(Path(path)), 1):
        if done == frames:
            break
    return (time.process_time() - begun) * 1e3 / max(done, 1)


def decoding(plan: Plan) -> float:
    """CPU milliseconds per frame of the plan's source alone, opened once."""
    with plan.portion(plan.frames) as source:
        begun = time.process_time()
        done = sum(1 for _ in source)
        return (time.process_time() - begun) * 1e3 / max(done, 1)


def first_result(arguments: Sequence[str], repeats: int = 3) -> dict[str, float]:
    """Median seconds from the start of a `calmcam live` process to its first result, and its memory then, in MB."""
    seconds, memory = [], []
    command = [
        sys.executable,
        "-P",  # what lies in the current folder is not imported
        "-m",
        "edge_app",
        "live",
        "--config",
        os.devnull,  # its own, and not what else `live` shall do on this machine
        "--source",
        "synthetic",
        "--no-show",
        "--json",
        "--frames",
        "30",
    ]
    paths = [str(Path(__file__).parent.parent.parent), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    for _ in range(repeats):
        begun = time.perf_counter()
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen([*command, *arguments], text=True, env=environment, **pipes) as process:
            line = process.stdout.readline()
            seconds.append(time.perf_counter() - begun)
            memory.append(resident_mb(process.pid, peak=True))
            _, said = process.communicate()
        if process.returncode or not line.startswith("{"):
            raise CalmcamError(f"{' '.join(command[1:])}: exit code {process.returncode}: {said.strip()[-300:]}")
    return {"seconds": statistics.median(seconds), "memory_mb": max(memory)}


def resident_mb(pid: int | str = "self", *, peak: bool = False) -> float:
    """Resident memory of a process in MB (proc(5), VmRSS or VmHWM); NaN where there is none to read."""
    key = "VmHWM:" if peak else "VmRSS:"
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(key)), float("nan"))


def percentiles(samples: Sequence[float]) -> dict[str, float]:
    """p50, p95, p99 and mean."""
    p50, p95, p99 = np.percentile(samples, (50, 95, 99)).tolist()
    return {"p50": p50, "p95": p95, "p99": p99, "mean": float(np.mean(samples))}

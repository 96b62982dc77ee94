"""`calmcam benchmark`: latency and throughput of this machine, beside the floor that no program on it can go below."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from .. import runs
from ..build import Analysis, expression_model, source_kind
from ..drawing.overlay import Overlay
from ..errors import InputError, SettingsError, unknown
from ..settings import Settings
from . import measure
from .bench_tables import comparison_table, tables
from .console import echo_json
from .measure import Alone, Plan
from .options import MODEL_SETTINGS, ClockRange, as_flags, settings_options

COMPARABLE = ("variant", "threads", "detector", "device", "model")
ROUNDS = 3


@click.command()
@settings_options(*MODEL_SETTINGS)
@click.option("--source", default="synthetic", show_default=True, metavar="PLACE", help="Clip, or synthetic.")
@click.option(
    "--faces", type=click.IntRange(0, 64), default=1, show_default=True, help='Faces of the source "synthetic".'
)
@click.option("--size", default="1280x720", show_default=True, help="Pixels of the synthetic source.")
@click.option("--frames", type=click.IntRange(10), default=300, show_default=True, help="Frames that are measured.")
@click.option("--warm-up", type=click.IntRange(1), default=30, show_default=True, help="Frames before them.")
@click.option("--paced", type=ClockRange(0, min_open=True), help="Also as live, at so many frames per second.")
@click.option("--compare", metavar="A,B", help="Only this: variants (int8,float32) or values (threads=1,2) in turn.")
@click.option("--floor/--no-floor", default=True, help="Each stage alone, and the floor beside it.")
@click.option("--encode/--no-encode", default=True, help="Drawing and encoding.")
@click.option("--startup/--no-startup", default=True, help="Time to the first result of a fresh process.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def benchmark(settings: Settings, compare: str | None, as_json: bool, **options: Any) -> None:
    """Measure every stage, the whole, and the floor beneath it.

    The floor is MediaPipe's detector and the interpreter with nothing around them, on the same frames in the same run.
    """
    plan = Plan(options["source"], options["frames"], options["warm_up"], options["faces"], _size(options["size"]))
    if compare:
        found = _compared(settings, plan, compare)
    else:
        found = _measured(settings, plan, options)
    found = {"machine": machine(), "versions": runs.versions(), **found}
    if as_json:
        echo_json(found, indent=2)
    else:
        click.echo(comparison_table(found) if compare else tables(found))


def machine() -> dict[str, object]:
    """Processor, its cores, and how busy it is with other things (load averages of 1 and 5 minutes)."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith(("model name", "Model"))]
    load = [round(value, 2) for value in os.getloadavg()[:2]]
    cores = len(os.sched_getaffinity(0))
    return {"processor": named[0] if named else platform.machine(), "cores": cores, "load": load}


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal()) or not (16 <= int(width) <= 8192 and 16 <= int(height) <= 8192):
        raise InputError(f"--size {text!r}: expected WIDTHxHEIGHT in pixels such as 1280x720, each 16 to 8192")
    return int(width), int(height)


def _measured(settings: Settings, plan: Plan, options: Mapping[str, Any]) -> dict[str, object]:
    with Analysis(settings) as analysis:
        found: dict[str, Any] = {**analysis.record(), **plan.record(plan.frames)}
        measure.warm_up(plan, analysis)
        before = measure.resident_mb()
        report, cpu_ms = measure.as_it_runs(plan, analysis)
        found["analysis"] = {"fps": report.fps, "cpu_ms": cpu_ms, "faces": report.faces, "ms": _spans(report)}
        if options["paced"]:
            found["paced"] = _paced(plan, analysis, options["paced"])
        found["memory"] = {
            "before_mb": before,
            "after_mb": measure.resident_mb(),
            "peak_mb": measure.resident_mb(peak=True),
        }
        if options["encode"]:
            report, cpu_ms = measure.annotate(plan, analysis)
            found["annotate"] = {"fps": report.fps, "cpu_ms": cpu_ms, "ms": _spans(report)}
        if options["floor"] and analysis.artifact.path.suffix == ".tflite":
            found |= _beside_the_floor(plan, analysis, settings, found.get("annotate"))
    if options["startup"]:
        found["startup"] = measure.first_result(as_flags(settings))
    return found


def _spans(report: Any) -> dict[str, dict[str, float]]:
    return {name: measure.percentiles(samples) for name, samples in report.spans_ms.items()}


def _paced(plan: Plan, analysis: Analysis, fps: float) -> dict[str, object]:
    report, cpu_ms = measure.as_it_runs(plan, analysis, draw=Overlay(), paced=fps)
    ages = report.spans_ms.get("age", [])
    half = len(ages) // 2
    growth = statistics.median(ages[half:]) - statistics.median(ages[:half]) if half else 0.0
    spans = {"age": measure.percentiles(ages), "age_growth_ms": growth}
    return {"asked_fps": fps, "fps": report.fps, "dropped": report.dropped, "cpu_ms": cpu_ms, **spans}


def _beside_the_floor(
    plan: Plan, analysis: Analysis, settings: Settings, annotated: Mapping | None
) -> dict[str, object]:
    alone = Alone()
    alone.measure(plan, analysis, settings)
    ours, floor = statistics.median(alone.analysis_ms), statistics.median(alone.floor_ms)
    found: dict[str, Any] = {"alone_ms": _spans(alone.report)}
    found["floor"] = {
        "analysis_cpu_ms": ours,
        "floor_cpu_ms": floor,
        "ratio": ours / floor,
        "ratio_of_means": statistics.mean(alone.analysis_ms) / statistics.mean(alone.floor_ms),
        "faces": alone.faces,
        "floor_faces": alone.floor_faces,
    }
    if source_kind(plan.source) == "video":
        decode = {"cpu_ms": measure.decoding(plan), "bare_cpu_ms": measure.bare_decoding(plan.source, plan.frames)}
        found["floor"]["decode"] = decode
    if annotated:
        means = {name: spans["mean"] for name, spans in found["alone_ms"].items()}
        slowest = max(means, key=means.__getitem__)
        allowed = 1e3 / means[slowest]
        found["overlap"] = {
            "slowest_stage": slowest,
            "allowed_fps": allowed,
            "annotate_fps": annotated["fps"],
            "ratio": annotated["fps"] / allowed,
        }
    return found


def configurations(text: str, model: Any) -> list[dict[str, Any]]:
    """What `--compare` names: `int8,float32` are variants, `threads=1,2` values; SettingsError for unknown names."""
    key, found = "variant", []
    for part in text.split(","):
        named, equals, value = part.strip().rpartition("=")
        key = named.strip() if equals else key
        if key not in COMPARABLE:
            raise SettingsError(f"--compare: {unknown('key', key, COMPARABLE)}")
        if key == "threads" and not value.isdecimal():
            raise SettingsError(f"--compare threads: expected whole numbers, got {value!r}")
        if key == "variant":
            model.artifact(value)
        found.append({key: int(value) if key == "threads" else value})
    if len(found) < 2:
        raise SettingsError(f"--compare {text!r}: expected at least two things to compare, such as int8,float32")
    return found


def _compared(settings: Settings, plan: Plan, text: str) -> dict[str, object]:
    wanted = configurations(text, expression_model(settings.model))
    names = [" ".join(f"{key}={value}" for key, value in one.items()) for one in wanted]
    rounds: list[list[dict[str, float]]] = [[] for _ in wanted]
    share = Plan(plan.source, max(10, plan.frames // ROUNDS), plan.warm_up, plan.faces, plan.size)
    with ExitStack() as stack:
        engines = [stack.enter_context(Analysis(settings.merged(one))) for one in wanted]
        for engine in engines:
            measure.warm_up(share, engine)
        for _ in range(ROUNDS):
            for engine, kept in zip(engines, rounds, strict=True):
                kept.append(_one_turn(share, engine))
        records = [engine.record() for engine in engines]
    rows = [
        {"name": name, **record, "rounds": kept, **_ratios(kept, rounds[0])}
        for name, record, kept in zip(names, records, rounds, strict=True)
    ]
    return {"compare": rows, **plan.record(share.frames * ROUNDS)}


def _one_turn(plan: Plan, analysis: Analysis) -> dict[str, float]:
    report, cpu_ms = measure.as_it_runs(plan, analysis)
    spans = {name: statistics.median(report.spans_ms[name]) for name in ("detect", "classify")}
    return {"fps": report.fps, "cpu_ms": cpu_ms, **spans}


def _ratios(kept: Sequence[Mapping[str, float]], first: Sequence[Mapping[str, float]]) -> dict[str, object]:
    """Medians over the rounds, and per quantity the ratio to the first configuration round by round."""
    ratios = {key: [one[key] / other[key] for one, other in zip(kept, first, strict=True)] for key in kept[0]}
    medians = {key: statistics.median(one[key] for one in kept) for key in kept[0]}
    return {"median": medians, "ratio": {key: [min(r), statistics.median(r), max(r)] for key, r in ratios.items()}}

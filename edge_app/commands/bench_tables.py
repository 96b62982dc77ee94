"""The benchmark's findings as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

STAGES = ("decode", "detect", "crop", "classify", "track", "decide", "draw", "encode")


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns under their heads: the first to the left, the others to the right."""
    cells = [list(head), *([f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = []
    for row in cells:
        rest = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *rest]).rstrip())
    return "\n".join(lines)


def headline(found: Mapping[str, Any]) -> str:
    """The machine and what was measured on it."""
    machine, versions = found["machine"], found["versions"]
    return (
        f"{machine['processor']}, {machine['cores']} cores, load {machine['load'][0]}; "
        f"Python {versions['python']}, mediapipe {versions.get('mediapipe')}, LiteRT {versions.get('ai-edge-litert')}\n"
        f"{found['frames']} frames of {found['source']}" + (f", {found['faces']} face(s)" if "faces" in found else "")
    )


def tables(found: Mapping[str, Any]) -> str:
    """Everything that one configuration showed."""
    model, detector = found["model"], found["detector"]
    named = f"{model['name']} {model['variant']} on {found['device']}, {detector['file']}"
    parts = [f"{headline(found)}, {named}", _stages(found), _whole(found)]
    for key, tell in (
        ("floor", _floor),
        ("overlap", _overlap),
        ("paced", _paced),
        ("memory", _memory),
        ("startup", _startup),
    ):
        if key in found:
            parts.append(tell(found[key]))
    return "\n\n".join(parts[:3]) + "\n" + "\n".join(parts[3:])


def _stages(found: Mapping[str, Any]) -> str:
    runs = {"alone": found.get("alone_ms", {}), "as it runs": {**found["analysis"]["ms"]}}
    if "annotate" in found:
        late = {name: found["annotate"]["ms"][name] for name in ("draw", "encode")}
        runs["as it runs"] |= late
    rows = []
    for name in STAGES:
        if any(name in spans for spans in runs.values()):
            cells = [spans.get(name, {}).get(p, "") for spans in runs.values() for p in ("p50", "p95", "p99")]
            rows.append([name, *cells])
    head = ["wall ms per frame", *(f"{run} {p}" if p == "p50" else p for run in runs for p in ("p50", "p95", "p99"))]
    return table(head, rows)


def _whole(found: Mapping[str, Any]) -> str:
    rows = [["analysis", found["analysis"]["fps"], found["analysis"]["cpu_ms"]]]
    if "annotate" in found:
        rows.append(["analysis, draw, H.264", found["annotate"]["fps"], found["annotate"]["cpu_ms"]])
    return table(["end to end, stages overlapping", "frames/s", "CPU ms per frame, reading included"], rows)


def _floor(floor: Mapping[str, Any]) -> str:
    lines = [
        f"floor (bare detector and interpreter): {floor['floor_cpu_ms']:.2f} CPU ms per frame; analysis "
        f"{floor['analysis_cpu_ms']:.2f}, ratio {floor['ratio']:.2f} (of means {floor['ratio_of_means']:.2f}); "
        f"faces {floor['faces']} against {floor['floor_faces']}"
    ]
    if "decode" in floor:
        decode = floor["decode"]
        lines.append(f"floor of decoding: {decode['bare_cpu_ms']:.2f} CPU ms per frame; ours {decode['cpu_ms']:.2f}")
    return "\n".join(lines)


def _overlap(overlap: Mapping[str, Any]) -> str:
    return (
        f"overlap: {overlap['annotate_fps']:.1f} frames/s where the slowest stage alone ({overlap['slowest_stage']}) "
        f"allows {overlap['allowed_fps']:.1f}: ratio {overlap['ratio']:.2f}"
    )


def _paced(paced: Mapping[str, Any]) -> str:
    age = " ".join(f"{name} {paced['age'][name]:.1f}" for name in ("p50", "p95", "p99"))
    return (
        f"live at {paced['asked_fps']:g} fps: {paced['fps']:.1f} fps, frame age {age} ms, growth "
        f"{paced['age_growth_ms']:+.1f} ms, dropped {paced['dropped']}, {paced['cpu_ms']:.2f} CPU ms per frame"
    )


def _memory(memory: Mapping[str, float]) -> str:
    before, after = memory["before_mb"], memory["after_mb"]
    return f"memory: peak {memory['peak_mb']:.0f} MB; {before:.0f} MB after warm-up, {after:.0f} MB at the end"


def _startup(startup: Mapping[str, float]) -> str:
    return (
        f"start-up: first result of calmcam live after {startup['seconds']:.2f} s, with {startup['memory_mb']:.0f} MB"
    )


def comparison_table(found: Mapping[str, Any]) -> str:
    """Configurations side by side; ratios are to the first, as median and range over the rounds."""
    rows = []
    for row in found["compare"]:
        middle = row["median"]
        ratios = [
            f"{row['ratio'][key][1]:.2f} ({row['ratio'][key][0]:.2f}-{row['ratio'][key][2]:.2f})"
            for key in ("cpu_ms", "fps")
        ]
        cells = [middle["fps"], middle["cpu_ms"], middle["detect"], middle["classify"]]
        rows.append([f"{row['model']['name']} {row['name']}", *cells, *ratios])
    head = ["in turn, A B A B", "frames/s", "CPU ms/frame", "detect ms", "classify ms", "CPU ratio", "frames/s ratio"]
    return f"{headline(found)}\n\n{table(head, rows)}"

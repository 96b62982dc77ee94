"""One frame's result as plain values: a line of results.jsonl, and what other programs are told."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

import numpy as np

from .types import Faces, Result


def result_line(result: Result) -> dict[str, Any]:
    """One frame as plain values, as they stand in a line of results.jsonl.

    `time`, when the picture was taken, stands in those of cameras and streams; no file says it.
    """
    frame, faces = result.frame, result.faces
    order = range(len(faces)) if faces.ids is None else np.argsort(faces.ids, kind="stable")
    return {
        "frame": frame.index,
        "t": round(frame.time_ns / 1e9, 6),
        **({"time": wall_time(frame.captured_ns)} if frame.live else {}),
        "source": frame.source,
        "faces": [_face(faces, row) for row in order],
        "speed": {name: round(ms, 3) for name, ms in result.spans_ms.items()},
        "device": faces.device or result.status.device,
    }


def wall_time(monotonic_ns: int) -> str:
    """A moment of the monotonic clock as local time, ISO 8601 with its zone, to the millisecond."""
    ago = timedelta(microseconds=(time.monotonic_ns() - monotonic_ns) / 1000)
    return (datetime.now().astimezone() - ago).isoformat(timespec="milliseconds")


def _face(faces: Faces, row: int) -> dict[str, Any]:
    face: dict[str, Any] = {} if faces.ids is None else {"track_id": int(faces.ids[row])}
    face["box"] = dict(zip(("x1", "y1", "x2", "y2"), _rounded(faces.boxes[row], 2), strict=True))
    face["confidence"] = round(float(faces.scores[row]), 4)
    if faces.decisions is None:
        return face
    decision = faces.decisions[row]
    probs = {name: round(float(p), 4) for name, p in decision.probs.items()}
    face["expression"] = {"name": decision.label, "confidence": round(float(decision.confidence), 4), "probs": probs}
    face["unsure"] = decision.unsure
    if decision.unsure:
        face["why"] = decision.why
    if len(faces.heads) > 1:
        face["heads"] = {
            name: dict(zip(faces.labels[name], _rounded(values[row], 4), strict=True))
            for name, values in faces.heads.items()
        }
    return face


def _rounded(values: np.ndarray, digits: int) -> list[float]:
    return [round(value, digits) for value in values.tolist()]

"""The figures of a report card: rows of an evaluation counted up and judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..labels import CLIP
from ..report import Report
from . import metrics
from .evaluate import Row

NAMED = 100  # unreadable pictures that a card names; all are counted
NOT_FOUND = "not found"  # the answer column of faces that the detector did not find


class Tally:
    """Counts rows while they come; a picture costs its probabilities and nothing more."""

    def __init__(self, labels: Sequence[str], unsure_below: float, *, detect: bool) -> None:
        self.labels, self.unsure_below, self._detect = tuple(labels), unsure_below, detect
        self.unreadable: list[tuple[str, str]] = []  # name, why
        self._truth: list[int] = []
        self._clips: list[str] = []  # of frames of one clip, as `calmcam crop` cuts them, the same
        self._ready: list[np.ndarray] = []
        self._found: list[np.ndarray | None] = []
        self._times = Report()

    def __len__(self) -> int:
        return len(self._truth)

    def add(self, row: Row) -> None:
        """Count one picture."""
        if row.ready is None:
            self.unreadable.append((row.sample.name, row.problem))
            return
        self._truth.append(row.sample.truth)
        clip = CLIP.match(row.sample.name)
        self._clips.append(clip[1] if clip else row.sample.name)
        self._ready.append(row.ready)
        self._times.add(row.spans_ms)
        if self._detect:
            self._found.append(row.found)

    def card(self, new: Sequence[bool] = ()) -> dict[str, Any]:
        """Plain values for `report.json`. `ready` judges pictures taken as crops, `detect` the whole path or None.

        `new` (N,) says of which pictures nothing was learnt: where some are, each has `new`, accuracy and macro-F1 of those.
        """
        rows = np.flatnonzero(new) if any(new) and not all(new) else None
        return {
            "labels": list(self.labels),
            "pictures": len(self),
            "clips": len(set(self._clips)),  # a picture that is of none counts as one
            "unreadable": {"count": len(self.unreadable), "first": [list(item) for item in self.unreadable[:NAMED]]},
            "ready": self._judged(self._ready, rows),
            "detect": self._judged(self._found, rows) if self._detect else None,
            "ms_per_face": {name: self._times.percentiles(name) for name in self._times.spans_ms},
        }

    def _judged(self, probs: Sequence[np.ndarray | None], new: np.ndarray | None) -> dict[str, Any]:
        truth = np.array(self._truth, np.int64)
        judged = judge(truth, probs, self.labels, self.unsure_below, self._clips)
        if new is not None:
            each, clips = [probs[row] for row in new], [self._clips[row] for row in new]
            of = judge(truth[new], each, self.labels, self.unsure_below, clips)
            judged["new"] = {key: of[key] for key in ("n", "accuracy", "macro_f1")}
        return judged


def judge(
    truth: np.ndarray,
    probs: Sequence[np.ndarray | None],
    labels: Sequence[str],
    unsure_below: float,
    groups: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Score probabilities (C,) against `truth` (N,) class indices; None, a face not found, counts as an error.

    Accuracy, F1 and recall are over all N. Calibration, and whether something is decided, can only be said of the
    faces that were found. Intervals are 95 %, of whole `groups` (N,) where those name a picture's clip.
    """
    classes = len(labels)
    found = np.array([row is not None for row in probs], bool)
    values = np.array([row for row in probs if row is not None], np.float32).reshape(-1, classes)
    answers = np.full(len(truth), classes)
    answers[found] = metrics.answers(truth[found], values)
    missing = int((~found).sum())
    # the extra class is never the truth, so that it lowers recall and weighs nothing in the mean over classes
    columns = classes + bool(missing)
    matrix = metrics.confusion(truth, answers, columns)
    accuracy_interval, macro_f1_interval = metrics.intervals(truth, answers, columns, groups)
    return {
        "n": len(truth),
        "not_found": missing,
        "not_found_share": missing / max(1, len(truth)),
        "accuracy": _proportion(answers == truth, accuracy_interval),
        "macro_f1": {"value": metrics.macro_f1(matrix), "interval": list(macro_f1_interval)},
        "per_class": _per_class(matrix, labels),
        "confusion": {"answers": [*labels, NOT_FOUND][:columns], "truths": list(labels),
                      "matrix": matrix[:classes].tolist()},
        "calibration": _calibration(truth[found], values),
        "decided": _decided(truth[found], values, unsure_below, None if groups is None else np.array(groups)[found]),
    }  # fmt: skip


def _proportion(right: np.ndarray, interval: metrics.Interval) -> dict[str, Any]:
    hits, n = int(right.sum()), len(right)
    return {"value": hits / max(1, n), "interval": list(interval), "hits": hits, "n": n}


def _per_class(matrix: np.ndarray, labels: Sequence[str]) -> dict[str, Mapping[str, float]]:
    each = metrics.per_class(matrix)
    columns = zip(labels, each.precision, each.recall, each.f1, each.support, strict=False)  # the last is NOT_FOUND
    return {
        label: {"precision": float(p), "recall": float(r), "f1": float(f), "support": int(n)}
        for label, p, r, f, n in columns
    }


def _calibration(truth: np.ndarray, probs: np.ndarray) -> dict[str, Any]:
    bars = metrics.reliability(truth, probs)
    columns = {"confidence": bars.confidence, "accuracy": bars.accuracy, "count": bars.count}
    return {"ece": bars.ece, **{name: column.tolist() for name, column in columns.items()}}


def _decided(truth: np.ndarray, probs: np.ndarray, unsure_below: float, groups: np.ndarray | None) -> dict[str, Any]:
    """How many faces are decided, judged by confidence alone: pictures have no time, size or turn to go by."""
    sure = probs.max(axis=1, initial=0.0) >= unsure_below
    said, truth = probs.argmax(axis=1)[sure], truth[sure]
    interval, _ = metrics.intervals(truth, said, probs.shape[1], None if groups is None else groups[sure])
    return {
        "unsure_below": unsure_below,
        "share": float(sure.mean()) if len(sure) else 0.0,
        "accuracy": _proportion(said == truth, interval),
    }

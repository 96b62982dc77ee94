"""The stretches of a clip in which a face showed a certain expression, from a run's `results.jsonl`."""

from __future__ import annotations

import json
import logging
import math
import os
import shlex
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError, SettingsError, unknown
from .labels import index_of
from .runs import UNFINISHED

log = logging.getLogger(__name__)

LONGEST = 1.0  # s that one frame is taken to last, where the next comes later


@dataclass(frozen=True, slots=True)
class Moment:
    """One stretch; times in seconds as `results.jsonl` has them."""

    source: str
    label: str
    start: float
    end: float
    confidence: float  # mean of the expression's, over the frames that show it
    peak: float  # when it was largest
    weight: float  # how sure and how long, what moments are ranked by: confidence beyond chance, times seconds


def read_results(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a `results.jsonl`, one per frame; InputError for a file that is none."""
    try:
        with path.open("rb") as file:
            for number, text in enumerate(file, start=1):
                if not text.endswith(b"\n") and not _is_json(text):
                    log.warning("%s: its last line was cut off and is left out", path)
                    return
                line = json.loads(text)
                if not _is_result(line):
                    raise ValueError(f"line {number} is no result of a frame")
                yield line
    except (OSError, ValueError) as error:
        what = error.strerror if isinstance(error, OSError) else error
        there = os.path.exists(path)  # pathlib raises where a folder above is closed
        if not there and os.path.exists(path.with_name(UNFINISHED)):
            raise InputError(
                f"{path}: is not there yet, or was cut off; end the run that writes it, or where none does go on with it: "
                f"calmcam annotate --resume {shlex.quote(str(path.parent))}"
            ) from error
        if not there and os.path.isfile(cut := Path(f"{path}.part")):
            raise InputError(
                f"{path}: is not there yet, or was cut off; end the run that writes it, or where none does take the "
                f".part off the names in {cut.parent}"
            ) from error
        raise InputError(
            f"{path}: expected the results that calmcam annotate or live --save wrote, one JSON object per line ({what})"
        ) from error


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _is_result(line: Any) -> bool:
    try:
        said = [face["expression"] for face in line["faces"] if "expression" in face]
        figures = [line["t"], *(figure for one in said for figure in (one["confidence"], *one["probs"].values()))]
        named = all(isinstance(one["name"], str) for one in said)
        return named and isinstance(line["source"], str) and all(map(math.isfinite, figures))
    except (LookupError, TypeError, AttributeError):
        return False


def find(
    lines: Iterable[dict[str, Any]], label: str, *, gap: float = 1.0, least: float = 0.5, most: float = math.inf
) -> list[Moment]:
    """The moments in which some face is said to show `label`, best first.

    It may be named by an alias, or as it is drawn. A frame counts where the word that is said is the likeliest one and
    surer than by chance. Stretches at most `gap` seconds apart are one; longer ones than `most` seconds come apart, the
    surest part first; parts shorter than `least` seconds are left out. SettingsError for a label that the results do
    not know.
    """
    seen: dict[str, list[tuple[float, dict[str, float]]]] = defaultdict(list)  # source -> time, confidence by label
    labels: set[str] = set()
    for line in lines:
        sure: dict[str, float] = {}
        for face in line["faces"]:
            if "expression" not in face:
                continue
            expression = face["expression"]
            labels.update(expression["probs"])
            likeliest = expression["confidence"] >= max(expression["probs"].values(), default=0.0)
            if likeliest and not face.get("unsure", True):
                sure[expression["name"]] = max(expression["confidence"], sure.get(expression["name"], 0.0))
        seen[line["source"]].append((line["t"], sure))
    name = _named(label, labels)
    chance = 1 / max(len(labels), 1)
    moments = [
        _moment(source, name, part, most)
        for source, frames in seen.items()
        for stretch in _stretches([(t, sure.get(name, 0.0)) for t, sure in frames], chance, gap)
        for part in _parts(stretch, most)
    ]
    return sorted((one for one in moments if one.end - one.start > least - 1e-6), key=lambda one: -round(one.weight, 6))


def _named(label: str, labels: set[str]) -> str:
    """The one of the results' labels that is meant: by its name, by an alias, as it is drawn."""
    if not labels or label in labels:
        return label
    names = sorted(labels)
    if (place := index_of(label, names)) is None:
        raise SettingsError(unknown("label", label, names))
    return names[place]


def _stretches(frames: list[tuple[float, float]], chance: float, gap: float) -> Iterator[np.ndarray]:
    """The stretches of frames (time, confidence) above `chance`: (n, 4) each frame's start, end, confidence, weight."""
    times = [t for t, _ in frames]
    steps = [after - before for before, after in zip(times, times[1:], strict=False)]
    steps.append(statistics.median(steps) if steps else 0.0)
    lasts = [min(step, LONGEST) for step in steps]
    rows = [
        (t, round(t + last, 6), sure, (sure - chance) * last)
        for (t, sure), last in zip(frames, lasts, strict=True)
        if sure > chance
    ]
    hits = np.array(rows).reshape(-1, 4)
    pauses = np.flatnonzero(hits[1:, 0] - hits[:-1, 1] > gap + 1e-6)
    return (stretch for stretch in np.split(hits, pauses + 1) if len(stretch))


def _parts(stretch: np.ndarray, most: float) -> Iterator[np.ndarray]:
    """The frames of `stretch` (n, 4) that begin within `most` seconds: first the surest, then of what is left."""
    count, starts = len(stretch), stretch[:, 0]
    ends = np.searchsorted(starts, starts + most - 1e-6).clip(np.arange(count) + 1)
    sums = np.concatenate(([0.0], stretch[:, 3].cumsum()))
    left = [(0, count)]
    while left:
        low, high = left.pop()
        weights = sums[ends[low:high].clip(max=high)] - sums[low:high]
        first = low + int(weights.round(6).argmax())
        end = min(int(ends[first]), high)
        yield stretch[first:end]
        left += [rest for rest in ((end, high), (low, first)) if rest[0] < rest[1]]


def _moment(source: str, label: str, hits: np.ndarray, most: float) -> Moment:
    starts, ends, sure, weights = hits.T
    end = min(ends[-1], starts[0] + most)
    return Moment(source, label, *map(float, (starts[0], end, sure.mean(), starts[sure.argmax()], weights.sum())))

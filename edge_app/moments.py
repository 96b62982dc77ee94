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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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

    def within(self, most: float) -> Moment:
        """At most `most` seconds of it, around the peak."""
        if self.end - self.start <= most:
            return self
        start = min(max(self.start, self.peak - most / 2), self.end - most)
        return replace(self, start=start, end=start + most)

    @property
    def weight(self) -> float:
        """How sure and how long: what moments are ranked by."""
        return self.confidence * (self.end - self.start)


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
        figures = [line["t"], *(one["confidence"] for one in said)]
        named = all(isinstance(one["name"], str) and isinstance(one["probs"], dict) for one in said)
        return named and isinstance(line["source"], str) and all(map(math.isfinite, figures))
    except (LookupError, TypeError):
        return False


def find(
    lines: Iterable[dict[str, Any]], label: str, *, gap: float = 1.0, least: float = 0.5, most: float = math.inf
) -> list[Moment]:
    """The moments in which some face is said to show `label`, best first.

    It may be named by an alias, or as it is drawn. Stretches at most `gap` seconds apart are one; shorter ones than
    `least` seconds are left out, of longer ones `most` seconds around their peak are taken. SettingsError for a label
    that the results do not know.
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
            if not face.get("unsure", True):
                sure[expression["name"]] = max(expression["confidence"], sure.get(expression["name"], 0.0))
        seen[line["source"]].append((line["t"], sure))
    name = _named(label, labels)
    shown = {source: [(t, sure.get(name, 0.0)) for t, sure in frames] for source, frames in seen.items()}
    moments = [one.within(most) for source, frames in shown.items() for one in _stretches(source, name, frames, gap)]
    return sorted((one for one in moments if one.end - one.start > least - 1e-6), key=lambda one: -one.weight)


def _named(label: str, labels: set[str]) -> str:
    """The one of the results' labels that is meant: by its name, by an alias, as it is drawn."""
    if not labels or label in labels:
        return label
    names = sorted(labels)
    if (place := index_of(label, names)) is None:
        raise SettingsError(unknown("label", label, names))
    return names[place]


def _stretches(source: str, label: str, frames: list[tuple[float, float]], gap: float) -> Iterator[Moment]:
    times = [t for t, _ in frames]
    steps = [after - before for before, after in zip(times, times[1:], strict=False)]
    steps.append(statistics.median(steps) if steps else 0.0)
    hits = [(t, round(t + min(step, LONGEST), 6), sure) for (t, sure), step in zip(frames, steps, strict=True) if sure]
    while hits:
        count = next((i for i in range(1, len(hits)) if hits[i][0] - hits[i - 1][1] > gap + 1e-6), len(hits))
        stretch, hits = hits[:count], hits[count:]
        peak = max(stretch, key=lambda hit: hit[2])[0]
        mean = statistics.fmean(sure for _, _, sure in stretch)
        yield Moment(source, label, stretch[0][0], stretch[-1][1], mean, peak)

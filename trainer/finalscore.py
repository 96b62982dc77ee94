"""The one use of the test part: scores as it is, without pictures seen in training, and by FER+ majority.

The run remembers that its test part was used, and on which weights; weights that were trained on
afterwards are refused, so that nothing is ever selected on it.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edge_app.errors import InputError
from edge_app.files import whole
from edge_app.heads import probabilities
from edge_app.labels import canonical
from edge_app.manifest import Head, sha256
from edge_app.scoring import metrics

from . import ferplus
from .data import Part
from .parity import Logits
from .record import read_json, write_json

TEST, UNSEEN, MAJORITY = "test", "test without duplicates of train", "test, FER+ majority"
USED = "test_used.json"


@dataclass(frozen=True, eq=False)
class Scored:
    """One variant, head and set of pictures."""

    variant: str
    head: str
    split: str
    scores: metrics.Scores
    ece_before: float  # with temperature 1

    def entries(self) -> list[dict[str, object]]:
        """Rows of the manifest's `scores`."""
        found = self.scores
        rows = [
            ("accuracy", found.accuracy, found.accuracy_interval),
            ("macro_f1", found.macro_f1, found.macro_f1_interval),
            ("ece", found.ece, None),
        ]
        common = {"variant": self.variant, "head": self.head, "split": self.split, "n": found.n}
        return [
            {**common, "metric": metric, "value": round(value, 6)}
            | ({"interval": [round(end, 6) for end in interval]} if interval else {})
            for metric, value, interval in rows
        ]


def uses(run: Path, weights: Path) -> int:
    """How often the run's test part was used on these weights; InputError when it was used on others."""
    if not (run / USED).is_file():
        return 0
    used, digest = read_json(run / USED), sha256(weights)
    if (before := str(used.get("weights_sha256"))) != digest:
        raise InputError(
            f"{run}: the test part was used already, on weights {before[:12]}…, these are {digest[:12]}…; scoring "
            "again after more training would be selecting on it: export with --no-test, or train a new run"
        )
    return int(used.get("times", 1))


def claim(run: Path, weights: Path, part: Part) -> int:
    """Note that the run's test part is used on these weights, and which pictures it has, by hash, in `test.csv`.

    Returns how often that is by now. InputError when it was used on others before.
    """
    note, times = run / USED, uses(run, weights) + 1
    table, rows = run / "test.csv", io.StringIO(newline="")
    csv.writer(rows).writerows([("file", "sha256"), *zip(part.files, part.hashes, strict=True)])
    text = rows.getvalue().encode(errors="surrogateescape")
    if note.is_file() and table.is_file() and sorted(table.read_bytes().split()) != sorted(text.split()):
        raise InputError(f"{table}: the test part is not the one that was used before; give the data as they were")
    with whole(table) as unfinished:
        unfinished.write_bytes(text)
    write_json(note, {"weights_sha256": sha256(weights), "times": times})
    return times


def score_parts(
    variant: str,
    heads: Sequence[Head],
    logits: Logits,
    sets: Mapping[str, Mapping[str, np.ndarray]],
    groups: Sequence[str],
) -> list[Scored]:
    """Scores of every head on every set: {split: {head: truth (N,), -1 where the picture does not count}}.

    `groups` (N,) name what pictures of one person, session or clip share.
    """
    rows = []
    for split, truths in sets.items():
        for head in heads:
            known = truths[head.name] >= 0
            if not known.any():
                continue
            truth, values = truths[head.name][known], logits[head.name][known]
            warm = probabilities(head, values, softmax_inside=False)
            cold = probabilities(replace(head, temperature=1.0), values, softmax_inside=False)
            before = metrics.reliability(truth, cold).ece
            rows.append(Scored(variant, head.name, split, metrics.score(truth, warm, np.array(groups)[known]), before))
    return rows


def test_sets(
    part: Part, heads: Sequence[Head], seen: Collection[str], votes: Mapping[str, Path]
) -> dict[str, dict[str, np.ndarray]]:
    """The test part as it is, without the pictures whose sha256 is in `seen`, and with FER+ majorities as truth.

    `votes` holds the votes file of each head whose data have one.
    """
    known = np.array([digest in seen for digest in part.hashes], bool)
    sets = {TEST: dict(part.labels)}
    if known.any():
        sets[UNSEEN] = {name: np.where(known, -1, truth) for name, truth in part.labels.items()}
    majority = {head.name: _majority(part, head, votes.get(head.name)) for head in heads}
    if any((truth >= 0).any() for truth in majority.values()):
        sets[MAJORITY] = majority
    return sets


def _majority(part: Part, head: Head, votes: Path | None) -> np.ndarray:
    table, places = ferplus.read(votes), {canonical(label): place for place, label in enumerate(head.labels)}
    winners = [ferplus.majority(ferplus.of(table, file)) for file in part.files]
    truth = np.array([places.get(winner, -1) for winner in winners], np.int64)
    return np.where(part.labels[head.name] >= 0, truth, -1)

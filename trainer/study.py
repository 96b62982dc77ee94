"""All that an export found out about a model: what its card and its report are written from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from edge_app.heads import probabilities
from edge_app.manifest import Head, Manifest

from .finalscore import TEST, Scored
from .parity import Logits, Parity
from .recipe import Recipe


@dataclass(eq=False)
class Study:
    """One export. `truth`, `logits` and `pictures` are those of the chief variant, by split."""

    name: str
    recipe: Recipe
    record: Mapping[str, object]  # the run's run.json
    run: Path
    heads: tuple[Head, ...]  # calibrated
    chief: str  # the variant that is calibrated and described: int8 where there is one
    counts: dict[str, Mapping[str, np.ndarray]]  # split -> head -> labels (N,), -1 = none
    gates: list[Parity]
    scored: list[Scored]
    latency_ms: dict[str, float]  # variant -> median of one face, one thread
    licence: str
    about: str
    command: str
    in_float: tuple[str, ...] = ()  # operators of the int8 file that were left in float
    groups: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # split -> pictures, named groups; {} without
    test_uses: int = 0  # how often the run's test part was scored on these weights, this time among them
    manifest: Manifest | None = None
    truth: dict[str, Mapping[str, np.ndarray]] = field(default_factory=dict)
    logits: dict[str, Logits] = field(default_factory=dict)
    pictures: dict[str, np.ndarray] = field(default_factory=dict)  # (N, H, W, C) uint8, only what may be shown

    def split(self, head: str) -> str:
        """The pictures that a head is shown on in full: the test part where that has some of it."""
        tested = TEST in self.truth and (self.truth[TEST][head] >= 0).any()
        return TEST if tested else "validation"

    def answers(self, split: str, head: Head, *, cold: bool = False) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows (N,), truth (N,) and probabilities (N, C) of the labelled pictures; `cold`: temperature 1."""
        rows = np.flatnonzero(self.truth[split][head.name] >= 0)
        judged = replace(head, temperature=1.0) if cold else head
        probs = probabilities(judged, self.logits[split][head.name][rows], softmax_inside=False)
        return rows, self.truth[split][head.name][rows], probs

    def shown(self, head: str) -> Scored | None:
        """The scores that a head is shown by in full."""
        return self.found(self.split(head), head)

    def found(self, split: str, head: str) -> Scored | None:
        """The scores of that split and head, of the chief variant."""
        wanted = (self.chief, head, split)
        return next((row for row in self.scored if (row.variant, row.head, row.split) == wanted), None)

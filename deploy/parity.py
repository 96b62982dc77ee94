"""The parity gate: two artifacts of a model on the same faces, on whatever runs them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from edge_app.errors import CalmcamError, SourceError
from edge_app.scoring import metrics

NAMED = 100  # unreadable pictures that a summary names; all are counted


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """One face as two artifacts see it."""

    name: str  # of the picture, or frame and face
    a: np.ndarray  # (C,) float32 probabilities
    b: np.ndarray  # (C,) float32
    truth: int | None = None  # index among the labels; None when nobody knows


@dataclass(frozen=True, slots=True, eq=False)
class Parity:
    """How far two artifacts agree."""

    labels: tuple[str, ...]
    names: tuple[str, ...]
    a: np.ndarray  # (N, C) float32
    b: np.ndarray  # (N, C) float32
    truth: np.ndarray | None  # (N,) int64, None when unlabelled
    unreadable: tuple[tuple[str, str], ...] = ()  # names of pictures that were left out, and why

    @property
    def agreement(self) -> metrics.Agreement:
        return metrics.agreement(self.a, self.b)

    def flips(self) -> dict[str, int]:
        """By the label that a gives: how often b gives another one."""
        before, after = self.a.argmax(axis=1), self.b.argmax(axis=1)
        return {label: int(((before == i) & (after != i)).sum()) for i, label in enumerate(self.labels)}

    def worst(self, count: int) -> list[tuple[str, float]]:
        """Names of the faces whose probabilities differ most, with the largest difference."""
        gaps = np.abs(self.a - self.b).max(axis=1)
        return [(self.names[row], float(gaps[row])) for row in np.argsort(-gaps, kind="stable")[:count]]

    def summary(self) -> dict[str, object]:
        """Plain values for a report."""
        agreement = self.agreement
        found: dict[str, object] = {
            "n": agreement.n,
            "agreement": agreement.agreement,
            "agreement_interval": metrics.wilson(agreement.n - agreement.flips, agreement.n),
            "flips": self.flips(),
            "mean_absolute_difference": agreement.mean_dp,
            "worst": self.worst(10),
            "unreadable": {"count": len(self.unreadable), "first": [list(one) for one in self.unreadable[:NAMED]]},
        }
        for name, probs in (("a", self.a), ("b", self.b)) if self.truth is not None else ():
            hits = int((probs.argmax(axis=1) == self.truth).sum())
            found[f"accuracy_{name}"] = hits / agreement.n
            found[f"accuracy_{name}_interval"] = metrics.wilson(hits, agreement.n)
        return found


def compare(labels: Sequence[str], pairs: Iterable[Pair], unreadable: Sequence[tuple[str, str]] = ()) -> Parity:
    """Collect pairs, while which `unreadable` may grow.

    SourceError when no picture can be read, CalmcamError when there is none.
    """
    pairs = list(pairs)
    if unreadable and not pairs:
        raise SourceError(f"none of the {len(unreadable)} pictures can be read; {unreadable[0][1]}")
    if not pairs:
        raise CalmcamError("parity: expected faces to compare, found none; give a labelled folder or a clip with faces")
    truth = None if any(pair.truth is None for pair in pairs) else np.array([pair.truth for pair in pairs])
    a, b = (np.stack([getattr(pair, side) for pair in pairs]) for side in ("a", "b"))
    return Parity(tuple(labels), tuple(pair.name for pair in pairs), a, b, truth, tuple(unreadable))


def folder_pairs(a: Iterable, b: Iterable, unreadable: list[tuple[str, str]]) -> Iterator[Pair]:
    """Pairs of two passes over the same labelled folder (see `edge_app.scoring.evaluate.rows`).

    Name and problem of a picture that one of them could not read go to `unreadable`.
    """
    for left, right in zip(a, b, strict=True):
        if left.ready is None or right.ready is None:
            unreadable.append((left.sample.name, left.problem or right.problem))
        else:
            yield Pair(left.sample.name, left.ready, right.ready, left.sample.truth)


def check(parity: Parity, min_agreement: float, max_accuracy_loss: float) -> None:
    """CalmcamError when the two agree on fewer faces than allowed, or b is less accurate than allowed."""
    found = parity.summary()
    if found["agreement"] < min_agreement:
        raise CalmcamError(
            f"parity: a and b agree on {found['agreement']:.2%} of {found['n']} faces, expected {min_agreement:.2%}; "
            "do not ship b: look at its calibration set and quantisation"
        )
    loss = found["accuracy_a"] - found["accuracy_b"] if parity.truth is not None else 0.0
    if loss > max_accuracy_loss:
        raise CalmcamError(
            f"parity: b is {loss:.2%} less accurate than a on {found['n']} faces, expected at most {max_accuracy_loss:.2%}; "
            "do not ship b: look at its calibration set and quantisation"
        )

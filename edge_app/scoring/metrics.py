"""How good answers are: accuracy, F1, calibration and agreement, with their uncertainty. Pure NumPy.

Everywhere `truth` is (N,) integer class indices, `probs` (N, C) probabilities, and a confusion matrix is (C, C) int64
with the truth in rows and the answers in columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z95 = 1.959963984540054  # two-sided 95 % point of the normal distribution
BINS = 15  # of the expected calibration error, as in Guo et al. 2017
FEW = 5  # persons or clips below which a score says nothing of others
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True, eq=False)
class PerClass:
    """One number per class; 0 where nothing can be said."""

    precision: np.ndarray  # (C,) float64
    recall: np.ndarray  # (C,) float64
    f1: np.ndarray  # (C,) float64
    support: np.ndarray  # (C,) int64, how often the class is the truth


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """The bars of a reliability diagram; bins are equally wide over 0..1, (low, high]."""

    confidence: np.ndarray  # (B,) float64, mean confidence of the answers in the bin, 0 for an empty bin
    accuracy: np.ndarray  # (B,) float64, share of them that is right, 0 for an empty bin
    count: np.ndarray  # (B,) int64

    @property
    def ece(self) -> float:
        """Expected calibration error 0..1: mean |accuracy - confidence|, weighted by count (Guo et al. 2017, eq. 3)."""
        gaps = np.abs(self.accuracy - self.confidence)
        return float((self.count * gaps).sum() / max(1, self.count.sum()))


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """How two models answer the same pictures."""

    n: int
    flips: int  # pictures whose leading class differs
    mean_dp: float  # mean |p_a - p_b| over pictures and classes

    @property
    def agreement(self) -> float:
        """Share 0..1 of pictures with the same leading class; 1 for no picture."""
        return 1 - self.flips / self.n if self.n else 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What a report card says about one head on one set of pictures; intervals are 95 %."""

    n: int
    accuracy: float
    accuracy_interval: Interval
    macro_f1: float
    macro_f1_interval: Interval
    ece: float
    matrix: np.ndarray  # (C, C) int64
    per_class: PerClass
    reliability: Reliability


def score(truth: np.ndarray, probs: np.ndarray, groups: Sequence[str] | None = None) -> Scores:
    """Everything at once; ValueError for rows that disagree, labels out of range or probabilities that are none.

    `groups` (N,) name the person or clip of each row, as for `intervals`.
    """
    said = answers(truth, probs)
    matrix = confusion(truth, said, probs.shape[1])
    n, hits = int(matrix.sum()), int(np.trace(matrix))
    bars = reliability(truth, probs)
    accuracy_interval, macro_f1_interval = intervals(truth, said, probs.shape[1], groups)
    return Scores(
        n=n,
        accuracy=hits / n if n else 0.0,
        accuracy_interval=accuracy_interval,
        macro_f1=macro_f1(matrix),
        macro_f1_interval=macro_f1_interval,
        ece=bars.ece,
        matrix=matrix,
        per_class=per_class(matrix),
        reliability=bars,
    )


def answers(truth: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """Leading classes (N,), after checking that `probs` fits `truth`."""
    if probs.ndim != 2 or len(probs) != len(truth):
        raise ValueError(f"probs: expected ({len(truth)}, C), got {probs.shape}")
    if not np.isfinite(probs).all():
        raise ValueError(
            f"probs: expected finite numbers, got {int((~np.isfinite(probs)).any(axis=1).sum())} rows without"
        )
    return probs.argmax(axis=1)


def intervals(
    truth: np.ndarray, predicted: np.ndarray, classes: int, groups: Sequence[str] | None = None
) -> tuple[Interval, Interval]:
    """95 % intervals of accuracy (Wilson) and of macro-F1 (bootstrap).

    Pictures of one person or clip are right or wrong together. Where `groups` (N,) name what a picture is one of, both
    are as wide at least as resampling whole groups makes them (cluster bootstrap: Field & Welsh 2007,
    10.1111/j.1467-9868.2007.00593.x). Of few groups that is still too narrow, and of one nothing can be drawn.
    """
    matrix = confusion(truth, predicted, classes)
    single = wilson(int(np.trace(matrix)), int(matrix.sum())), bootstrap_macro_f1(matrix)
    names, place = np.unique([] if groups is None else groups, return_inverse=True)
    if not 1 < len(names) < len(truth):
        return single
    drawn = _draw_groups(place, truth * classes + predicted, classes)
    accuracy = np.trace(drawn, axis1=1, axis2=2) / drawn.sum(axis=(1, 2))
    ends = (np.percentile(values, [2.5, 97.5]) for values in (accuracy, _macro_f1(drawn)))
    (a, b), (c, d) = (
        (min(low, float(one)), max(high, float(two))) for (low, high), (one, two) in zip(single, ends, strict=True)
    )
    return (a, b), (c, d)


def wilson(hits: int, n: int, z: float = Z95) -> Interval:
    """Score interval of a proportion `hits` / `n` (Wilson 1927, 10.1080/01621459.1927.10502953); (0, 1) for n = 0."""
    if not n:
        return 0.0, 1.0
    p, share = hits / n, z * z / n
    middle = (p + share / 2) / (1 + share)
    half = z * np.sqrt(p * (1 - p) / n + share / (4 * n)) / (1 + share)
    return max(0.0, float(middle - half)), min(1.0, float(middle + half))


def confusion(truth: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """Confusion matrix (C, C) int64 of two columns (N,) of class indices; ValueError for an index out of range."""
    truth, predicted = np.asarray(truth, np.int64), np.asarray(predicted, np.int64)
    for name, column in (("truth", truth), ("predicted", predicted)):
        if len(column) and not 0 <= column.min() <= column.max() < classes:
            raise ValueError(f"{name}: expected 0 to {classes - 1}, got {column.min()} to {column.max()}")
    return np.bincount(truth * classes + predicted, minlength=classes * classes).reshape(classes, classes)


def per_class(matrix: np.ndarray) -> PerClass:
    """Precision, recall and F1 of every class of a confusion matrix."""
    hits, support, said = np.diag(matrix).astype(float), matrix.sum(axis=1), matrix.sum(axis=0)
    return PerClass(_share(hits, said), _share(hits, support), _share(2 * hits, support + said), support)


def macro_f1(matrix: np.ndarray) -> float:
    """Mean F1 over the classes that occur in the truth; 0 when none does."""
    return float(_macro_f1(matrix[None])[0])


def bootstrap_macro_f1(matrix: np.ndarray, *, draws: int = 2000, seed: int = 0) -> Interval:
    """95 % percentile interval of macro-F1 (Efron 1979): resampling pictures is a multinomial draw of the matrix.

    Where no answer is wrong none could be drawn: half a picture of every class is then spread over the wrong answers,
    as Jeffreys' prior does for a share; and where none is right, over the right ones.
    """
    n, value = int(matrix.sum()), macro_f1(matrix)
    if not n:
        return 0.0, 1.0
    occurs, same = matrix.sum(axis=1, keepdims=True) > 0, np.eye(len(matrix))
    if np.trace(matrix) == n and len(matrix) > 1:
        matrix = matrix + occurs * 0.5 / (len(matrix) - 1) * (1 - same)
    elif not np.trace(matrix):
        matrix = matrix + occurs * 0.5 * same
    drawn = np.random.default_rng(seed).multinomial(n, matrix.ravel() / matrix.sum(), size=draws)
    low, high = np.percentile(_macro_f1(drawn.reshape(draws, *matrix.shape)), [2.5, 97.5])
    return min(float(low), value), max(float(high), value)


def _draw_groups(place: np.ndarray, cells: np.ndarray, classes: int, *, draws: int = 2000, seed: int = 0) -> np.ndarray:
    """Confusion matrices (draws, C, C) of as many groups as there are, drawn with repetition; place, cells (N,)."""
    count = int(place.max()) + 1
    each = np.bincount(place * classes**2 + cells, minlength=count * classes**2).reshape(count, -1)
    times = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=draws)
    return (times.astype(np.float32) @ each.astype(np.float32)).reshape(draws, classes, classes)


def reliability(truth: np.ndarray, probs: np.ndarray, bins: int = BINS) -> Reliability:
    """Bins of the leading class's probability against how often it is right (Guo et al. 2017, arXiv 1706.04599)."""
    right = answers(truth, probs) == truth
    confidence = probs.max(axis=1).astype(float) if len(probs) else np.empty(0)
    place = np.clip(np.ceil(confidence * bins - 1e-6).astype(int) - 1, 0, bins - 1)  # float32's 0.2 is a little more
    count = np.bincount(place, minlength=bins)
    mean = _share(np.bincount(place, confidence, bins), count)
    return Reliability(mean, _share(np.bincount(place, right, bins), count), count)


def agreement(a: np.ndarray, b: np.ndarray) -> Agreement:
    """Compare probabilities (N, C) of two models on the same pictures; ValueError when the shapes differ."""
    if a.shape != b.shape:
        raise ValueError(f"agreement: expected two arrays of one shape, got {a.shape} and {b.shape}")
    flips = int((answers(a, a) != answers(b, b)).sum())
    return Agreement(len(a), flips, float(np.abs(a - b).mean()) if a.size else 0.0)


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where `whole` is 0."""
    return np.divide(part, whole, out=np.zeros(part.shape, float), where=whole > 0)


def _macro_f1(matrices: np.ndarray) -> np.ndarray:
    """Macro-F1 (D,) of confusion matrices (D, C, C)."""
    support, said = matrices.sum(axis=2), matrices.sum(axis=1)
    f1 = _share(2.0 * np.diagonal(matrices, axis1=1, axis2=2), support + said)
    occurs = support > 0
    return _share((f1 * occurs).sum(axis=1), occurs.sum(axis=1))

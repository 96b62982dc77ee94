"""Do the exported files answer as the trained model does? The same images through Keras and through LiteRT."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import keras
import numpy as np

from edge_app.backends.litert import Backend
from edge_app.errors import CalmcamError, ModelError
from edge_app.heads import probabilities
from edge_app.manifest import Artifact, Head
from edge_app.preprocess import to_input
from edge_app.scoring import metrics

from .scores import predict

SAME = 0.999  # least agreement of the float32 file with Keras: what rounding in another order can flip
WARM_UP, CALLS = 20, 300  # before a latency is taken, and of which it is the median

Logits = Mapping[str, np.ndarray]  # head -> (N, C) float32, C is 1 for a sigmoid head


class ParityError(CalmcamError):
    """An exported file answers otherwise than the model that it was made of."""


@dataclass(frozen=True, slots=True)
class Parity:
    """One variant against another on one head."""

    variant: str
    against: str
    head: str
    n: int
    agreement: float  # share of images with the same answer
    loss: float  # points of accuracy lost, negative when gained
    mean_dp: float  # mean absolute difference of probabilities

    def __str__(self) -> str:
        return (
            f"{self.variant} against {self.against}, head {self.head}: {self.loss:+.2f} points of accuracy lost, "
            f"{self.agreement:.2%} same answers, mean |dp| {self.mean_dp:.4f}, {self.n} validation images"
        )


def keras_logits(model: keras.Model, images: np.ndarray) -> Logits:
    """Logits by head of a Keras model for images (N, H, W, C) uint8; ModelError when some are no numbers."""
    return _finite("keras", predict(model, images))


def file_logits(variant: str, artifact: Artifact, images: np.ndarray) -> Logits:
    """Logits by head of a TFLite file for images (N, H, W, C) uint8; ModelError when some are no numbers."""
    with closing(Backend(artifact)) as backend:
        answers = backend.infer(to_input(images, artifact.input))
    return _finite(variant, {head: answers[tensor] for head, tensor in artifact.outputs.items()})


def latency_ms(artifact: Artifact, images: np.ndarray) -> float:
    """Median wall milliseconds of one face on one LiteRT thread, this machine, now."""
    rows = to_input(images[:32], artifact.input)
    times = []
    with closing(Backend(artifact)) as backend:
        for call in range(WARM_UP + CALLS):
            row = rows[call % len(rows)][None]
            begun = time.perf_counter()
            backend.infer(row)
            times.append((time.perf_counter() - begun) * 1e3)
    return float(np.median(times[WARM_UP:]))


def compare(
    heads: Sequence[Head], labels: Mapping[str, np.ndarray], one: tuple[str, Logits], other: tuple[str, Logits]
) -> list[Parity]:
    """`one` (variant, logits) against `other`, head by head, on the images that have a label (N,) for the head."""
    rows = []
    for head in heads:
        known = labels[head.name] >= 0
        truth = labels[head.name][known]
        if not len(truth):
            continue
        a, b = (probabilities(head, logits[head.name][known], softmax_inside=False) for _, logits in (one, other))
        same = metrics.agreement(a, b)
        loss = 100 * float((b.argmax(axis=1) == truth).mean() - (a.argmax(axis=1) == truth).mean())
        rows.append(Parity(one[0], other[0], head.name, len(truth), same.agreement, loss, same.mean_dp))
    return rows


def failures(rows: Sequence[Parity], max_loss: float, min_agreement: float) -> list[Parity]:
    """The rows beyond the limits: `max_loss` points of accuracy, or one image where that is less, and `min_agreement`.

    float32 has no excuse: it must agree with Keras on all but a rounding's share.
    """
    beyond = []
    for row in rows:
        least, image = (SAME if row.variant == "float32" else min_agreement), 1 / row.n
        lost = row.loss / 100 > max(max_loss / 100, image) + 1e-9
        if lost or row.agreement < min(least, 1 - image) - 1e-9:
            beyond.append(row)
    return beyond


def _finite(variant: str, logits: Logits) -> Logits:
    for head, values in logits.items():
        wrong = int((~np.isfinite(values)).any(axis=1).sum())
        if wrong:
            raise ModelError(
                f"{variant}: head {head}: {wrong} of {len(values)} answers are no finite numbers; train or export again"
            )
    return logits

"""From raw tensors to calibrated probabilities, by head kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from .manifest import Artifact, Head


def probabilities(head: Head, values: np.ndarray, *, softmax_inside: bool) -> np.ndarray:
    """Calibrated probabilities (N, C) float32 of one head.

    `values` (N, C) are logits, or probabilities when `softmax_inside`; a sigmoid head has one column and yields two,
    in the order of its two labels, the second being the positive one. Temperature scaling: Guo et al. 2017,
    arXiv 1706.04599.
    """
    values = np.asarray(values, np.float32)
    if softmax_inside:
        values = np.log(np.clip(values, 1e-7, 1)) if head.kind == "softmax" else logit(values)
    values = values / head.temperature
    if head.kind == "sigmoid":
        positive = 0.5 + 0.5 * np.tanh(values[:, :1] / 2)  # the sigmoid, without overflow
        return np.concatenate([1 - positive, positive], axis=1).astype(np.float32)
    return softmax(values)


def answers(heads: Iterable[Head], artifact: Artifact, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Calibrated probabilities (N, C) float32 by head name, of what an artifact's tensors gave: `outputs` (N, ...)."""
    inside = artifact.emits == "probabilities"
    return {
        head.name: probabilities(head, outputs[artifact.outputs[head.name]], softmax_inside=inside) for head in heads
    }


def softmax(logits: np.ndarray) -> np.ndarray:
    """Softmax (N, C) float32 over the last axis of logits (N, C)."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (powers / powers.sum(axis=-1, keepdims=True)).astype(np.float32)


def logit(p: np.ndarray) -> np.ndarray:
    """Inverse of the sigmoid, clipped away from infinity."""
    p = np.clip(p, 1e-7, 1 - 1e-7)
    return np.log(p / (1 - p))

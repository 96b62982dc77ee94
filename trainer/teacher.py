"""Targets from the network itself, as a stage found it: what it learnt so far keeps the labels' noise in check.

Hinton et al. 2015 (arXiv 1503.02531), with a teacher of the same size (Furlanello et al. 2018, arXiv 1805.04770).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np

from edge_app.heads import probabilities
from edge_app.manifest import Head

from .recipe import Recipe


class Teacher:
    """A frozen copy of the network whose answers take `share` of every target."""

    def __init__(self, model: keras.Model, weights: Sequence[np.ndarray], recipe: Recipe, share: float) -> None:
        """`model` has the recipe's heads and is the teacher's own; `weights` in the order of `get_weights`."""
        model.set_weights(weights)
        self._model, self._share, self._mirror = model, share, recipe.augment.flip > 0
        self._heads = {head.name: Head(head.name, head.kind, head.labels) for head in recipe.heads}

    def __call__(
        self, images: np.ndarray, targets: Mapping[str, np.ndarray], random: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """New targets by head, (N, C) float32, for images (N, H, W, C) float32.

        It sees every second picture mirrored, so that what the two views share is what is learnt.
        """
        if self._mirror:
            turned = random.random(len(images)) < 0.5
            images = np.where(turned[:, None, None, None], images[:, :, ::-1], images)
        logits = self._model.predict_on_batch(images)
        return {
            name: self._blend(values, self._heads[name], np.asarray(logits[name])) for name, values in targets.items()
        }

    def _blend(self, values: np.ndarray, head: Head, logits: np.ndarray) -> np.ndarray:
        answers = probabilities(head, logits, softmax_inside=False)[:, -values.shape[1] :]  # a sigmoid's second label
        return ((1 - self._share) * values + self._share * answers).astype(np.float32)

"""Targets from networks that learnt already, the stage's own at its start among them: they keep the labels' noise in check.

Hinton et al. 2015 (arXiv 1503.02531), with teachers of the same size (Furlanello et al. 2018, arXiv 1805.04770).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from edge_app.errors import SettingsError
from edge_app.heads import probabilities
from edge_app.manifest import Head

from .data import read_split
from .recipe import Recipe, read_recipe


class Teacher:
    """Frozen networks whose mean answer takes `share` of every target."""

    def __init__(self, models: Sequence[keras.Model], recipe: Recipe, share: float) -> None:
        """`models` have the recipe's input and heads and are the teacher's own."""
        self._models, self._share, self._mirror = models, share, recipe.augment.flip > 0
        self._heads = {head.name: Head(head.name, head.kind, head.labels) for head in recipe.heads}

    def __call__(
        self, images: np.ndarray, targets: Mapping[str, np.ndarray], random: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """New targets by head, (N, C) float32, for images (N, H, W, C) float32.

        They see every second picture mirrored, so that what the two views share is what is learnt.
        """
        if self._mirror:
            turned = random.random(len(images)) < 0.5
            images = np.where(turned[:, None, None, None], images[:, :, ::-1], images)
        logits = [model.predict_on_batch(images) for model in self._models]
        return {
            name: self._blend(values, self._heads[name], [np.asarray(one[name]) for one in logits])
            for name, values in targets.items()
        }

    def _blend(self, values: np.ndarray, head: Head, logits: Sequence[np.ndarray]) -> np.ndarray:
        answers = np.mean([probabilities(head, one, softmax_inside=False) for one in logits], axis=0)
        answers = answers[:, -values.shape[1] :]  # a sigmoid's second label
        return ((1 - self._share) * values + self._share * answers).astype(np.float32)


def check_teacher(other: Path, recipe: Recipe, run: Path) -> None:
    """SettingsError unless the run folder `other` can teach `run`.

    It must have the same heads and input, and have learnt from no picture that judges `run`. A judging picture that `run`
    itself learns from, a duplicate in the published data, is nobody's lead.
    """
    if not (other / "best.keras").is_file() or not (other / "recipe.yaml").is_file():
        raise SettingsError(
            f"{other}: expected a finished run to learn from, found none; train it first, or leave it out of the teachers"
        )
    found = read_recipe(str(other / "recipe.yaml"))
    if (found.heads, found.input) != (recipe.heads, recipe.input):
        raise SettingsError(f"{other}: cannot teach here; expected the same heads and input, got others")
    judging = {row["sha256"] for row in read_split(run / "split.csv")} - _learnt(run)
    if seen := judging & _learnt(other):
        raise SettingsError(
            f"{other}: cannot teach here; it learnt from {len(seen)} of the pictures that {run} is judged by; "
            "train it on the same data with the same seed and data settings"
        )


def _learnt(run: Path) -> set[str]:
    """Hashes of its train part."""
    return {row["sha256"] for row in read_split(run / "split.csv") if row["split"] == "train"}

"""Targets from networks that learnt already, the stage's own at its start among them: they keep the labels' noise in check.

Hinton et al. 2015 (arXiv 1503.02531), with teachers of the same size (Furlanello et al. 2018, arXiv 1805.04770).
"""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from edge_app.errors import InputError, SettingsError
from edge_app.files import whole
from edge_app.heads import probabilities
from edge_app.manifest import Head

from .augment import augment
from .data import check_unseen, read_split
from .recipe import Recipe
from .recipe_file import read_recipe
from .record import read_finished

BATCH = 256


class Teacher:
    """Frozen networks whose mean answer takes `share` of every target."""

    def __init__(self, models: Sequence[keras.Model], recipe: Recipe, share: float) -> None:
        """`models` have the recipe's input and heads and are the teacher's own."""
        self._models, self._share, self._recipe = models, share, recipe
        self._heads = {head.name: Head(head.name, head.kind, head.labels) for head in recipe.heads}

    def __call__(
        self, images: np.ndarray, targets: Mapping[str, np.ndarray], random: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """New targets by head, (N, C) float32, for the images (N, H, W, C) float32 that are learnt from.

        They see every second picture mirrored, so that what the two views share is what is learnt.
        """
        if self._recipe.augment.flip:
            turned = random.random(len(images)) < 0.5
            images = np.where(turned[:, None, None, None], images[:, :, ::-1], images)
        return self._blend(targets, self._answers(images))

    def settled(self, images: np.ndarray, targets: Mapping[str, np.ndarray], views: int, kept: Path) -> dict:
        """New targets by head of all images (N, H, W, C) uint8: the mean answer to `views` moved views of each.

        What the views of a picture share is then learnt from every one of them (Radosavovic et al. 2018, arXiv
        1712.04440). The answers are kept in the file `kept`, and taken from there by a run that is resumed.
        """
        answers = _kept(kept, targets)
        if answers is None:
            sums = {name: np.zeros(values.shape, np.float32) for name, values in targets.items()}
            for view in range(views):
                for start in range(0, len(images), BATCH):
                    for name, values in self._answers(self._moved(images, view, start)).items():
                        sums[name][start : start + BATCH] += values / views
            with whole(kept) as part:
                np.savez(part, **sums)
            answers = sums
        return self._blend(targets, answers)

    def _moved(self, images: np.ndarray, view: int, start: int) -> np.ndarray:
        """A batch as augmentation moves it, with nothing blanked."""
        plain = dataclasses.replace(self._recipe.augment, erase=0.0)
        moved = [
            augment(image, plain, np.random.default_rng([self._recipe.seed, view, start + row]))
            for row, image in enumerate(images[start : start + BATCH])
        ]
        return np.stack(moved).astype(np.float32)

    def _answers(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Mean probabilities by head, (N, C), or (N, 1) of the second label for a sigmoid head."""
        logits = [model.predict_on_batch(images) for model in self._models]
        found = {}
        for name, head in self._heads.items():
            each = [probabilities(head, np.asarray(one[name]), softmax_inside=False) for one in logits]
            found[name] = np.mean(each, axis=0)[:, head.kind == "sigmoid" :]
        return found

    def _blend(self, targets: Mapping[str, np.ndarray], answers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            name: ((1 - self._share) * values + self._share * answers[name]).astype(np.float32)
            for name, values in targets.items()
        }


def _kept(path: Path, targets: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
    """The answers that a run kept; None when there are none for these targets, or the file is damaged."""
    try:
        with np.load(io.BytesIO(path.read_bytes())) as saved:
            answers = {name: saved[name] for name in targets}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return answers if all(answers[name].shape == values.shape for name, values in targets.items()) else None


def check_teacher(other: Path, recipe: Recipe, run: Path) -> None:
    """SettingsError unless the run folder `other` can teach `run`: of the same heads and input, and `check_unseen`."""
    found = find_teacher(other)
    if (found.heads, found.input) != (recipe.heads, recipe.input):
        raise SettingsError(f"{other}: cannot teach here; expected the same heads and input, got others")
    rows = read_split(run / "split.csv")
    check_unseen(other, ((row["sha256"], row["split"], row["file"]) for row in rows), "teach")


def find_teacher(other: Path) -> Recipe:
    """The recipe of the run in the folder `other`; SettingsError unless it is finished."""
    try:
        read_finished(other)
        if not (other / "best.keras").is_file():
            raise InputError(f"{other}: holds no best.keras; train it again")
    except InputError as error:
        raise SettingsError(f"teachers: {error}, or leave it out") from error
    return read_recipe(str(other / "recipe.yaml"))

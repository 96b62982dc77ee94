"""Batches for `fit`: which images an epoch shows, in which order, and how each is moved.

Everything follows from (seed, epoch, position), so a resumed run sees what an uninterrupted one would have seen, and the
next batches can be made by other threads while the network learns (OpenCV and NumPy let go of Python's lock).
"""

from __future__ import annotations

import os
import time
from concurrent.futures import Future, ThreadPoolExecutor

import keras
import numpy as np

from .augment import augment, mixup
from .data import Part
from .recipe import Balance, HeadRecipe, Recipe, Stage
from .teacher import Teacher

AHEAD = 4  # batches made before they are asked for


class Batches(keras.utils.PyDataset):
    """The train part, augmented: (images (N, H, W, C) float32, {head: targets}, {head: weights})."""

    def __init__(self, part: Part, recipe: Recipe, stage: Stage, epoch: int = 0) -> None:
        """Show `part` as `recipe` and `stage` say; `epoch` counts over all stages.

        `targets` (N, C) by head may be replaced; a `teacher` mends them batch by batch.
        """
        super().__init__(workers=1)  # Keras makes none ahead then, but on TensorFlow; more would lose an epoch's order
        self._makers = ThreadPoolExecutor(min(AHEAD, os.cpu_count() or 1), "batches")
        self._made: dict[int, Future] = {}
        self._part, self._recipe = part, recipe
        self.targets = {head.name: targets(part, head, stage) for head in recipe.heads}
        self.teacher: Teacher | None = None
        self._counts, self._kinds = show(part, recipe)
        self._size = int(self._counts.sum() + 1e-6)
        self.seconds = 0.0  # waited for batches since the epoch began, without the teacher
        self.begin(epoch)

    def begin(self, epoch: int) -> None:
        """Draw the order of that epoch."""
        self._epoch = epoch
        random = np.random.default_rng([self._recipe.seed, epoch])
        rows = random.permutation(len(self._counts))
        rows = rows[np.argsort(self._kinds[rows], kind="stable")]
        ends = np.floor(np.cumsum(self._counts[rows]) + random.random()).astype(np.int64)
        self._order = random.permutation(np.repeat(rows, np.diff(ends, prepend=0)))
        for future in self._made.values():
            future.cancel()
        self._made.clear()
        self.seconds = 0.0

    def __len__(self) -> int:
        return max(1, self._size // self._recipe.batch)  # the rest fills no batch and comes in another epoch

    def __getitem__(self, index: int) -> tuple:
        started = time.perf_counter()
        for coming in range(index, min(index + 1 + AHEAD, len(self))):
            if coming not in self._made:
                self._made[coming] = self._makers.submit(self._make, self._order, self._epoch, coming)
        images, wanted, weights = self._made.pop(index).result()
        self.seconds += time.perf_counter() - started
        if self.teacher is not None:
            wanted = self.teacher(images, wanted, np.random.default_rng([self._recipe.seed, self._epoch, index, 2]))
        return images, wanted, weights

    def _make(self, order: np.ndarray, epoch: int, index: int) -> tuple:
        recipe, size = self._recipe, self._recipe.batch
        rows = order[index * size : (index + 1) * size]
        images = np.empty((len(rows), *self._part.images.shape[1:]), np.float32)
        for position, row in enumerate(rows):
            random = np.random.default_rng([recipe.seed, epoch, index * size + position])
            images[position] = augment(self._part.images[row], recipe.augment, random)
        wanted = {name: values[rows] for name, values in self.targets.items()}
        weights = {name: values[rows] for name, values in self._part.weights.items()}
        if recipe.augment.mixup:
            random = np.random.default_rng([recipe.seed, epoch, index, 1])
            images, wanted, weights = mixup(images, wanted, weights, recipe.augment.mixup, random)
        return images, wanted, weights


def targets(part: Part, head: HeadRecipe, stage: Stage) -> np.ndarray:
    """What the loss compares with: (N, C) float32, or (N, 1) of the second label for a sigmoid head.

    Votes, where an image has some, take `votes_share` of it (Barsoum et al. 2016, arXiv 1608.01041); elsewhere the
    label is smoothed (Szegedy et al. 2016, arXiv 1512.00567). Zeros where the head learns nothing.
    """
    labels, votes = part.labels[head.name], part.votes[head.name]
    one_hot = np.eye(len(head.labels))[labels] * (labels >= 0)[:, None]
    total = votes.sum(axis=1, keepdims=True)
    soft = np.where(total > 0, votes / np.maximum(total, 1), 1 / len(head.labels))
    share = np.where(total > 0, stage.votes_share, stage.label_smoothing)
    values = ((1 - share) * one_hot + share * soft * (labels >= 0)[:, None]).astype(np.float32)
    return values[:, 1:] if head.kind == "sigmoid" else values


def show(part: Part, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """How often an epoch shows each image on average, (N,) float64, and its class, (N,) int64, numbered over all heads.

    The class is that of the first head that labels it. Drawn class by class at even steps (systematic sampling, Madow
    and Madow 1944), every class comes as often as its images' counts add up to, but for one.
    """
    counts = np.ones(len(part))
    kinds = np.full(len(part), -1, np.int64)
    before = 0
    for head in recipe.heads:
        labels = np.where(kinds >= 0, -1, part.labels[head.name])
        counts *= _factors(labels, len(head.labels), recipe.balance)
        kinds = np.where(labels >= 0, labels + before, kinds)
        before += len(head.labels)
    return counts, kinds


def _factors(labels: np.ndarray, classes: int, balance: Balance) -> np.ndarray:
    sizes = np.bincount(labels[labels >= 0], minlength=classes).astype(np.float64)
    if balance.per_class:
        by_class = balance.per_class / np.maximum(sizes, 1)
    else:
        by_class = (sizes.max(initial=1) / np.maximum(sizes, 1)) ** balance.power
        by_class *= sizes.sum() / max((by_class * sizes).sum(), 1)
    return np.where(labels >= 0, by_class[labels], 1.0)

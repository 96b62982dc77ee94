"""Which training crops calibrate the integers of a quantised model: balanced over classes, shuffled, never repeated
before every crop was taken once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edge_app.errors import InputError
from edge_app.files import whole

from .data import Part


def choose(part: Part, count: int, *, seed: int = 0) -> np.ndarray:
    """`count` crops (count, H, W, C) uint8 of `part`, classes of every head in turn, in random order.

    Where there are fewer pictures than `count`, mirrored and then repeated ones fill up; InputError when there is none.
    """
    if not len(part):
        raise InputError(
            "export: expected training images to calibrate with, got none; give the data that the run used"
        )
    rng = np.random.default_rng([seed, 2])
    rows = balanced(part.labels, rng)[:count]
    crops = part.images[rows]
    if len(rows) < count:
        pool = np.concatenate([crops, crops[:, :, ::-1]])
        crops = pool[np.arange(count) % len(pool)]
    return crops[rng.permutation(count)]


def balanced(labels: Mapping[str, np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """All rows (N,), each once, so that every beginning is balanced over the classes of the heads' labels (N,)."""
    total = len(next(iter(labels.values())))
    turn = np.full(total, np.inf)
    for column in labels.values():
        for label in np.unique(column[column >= 0]):
            members = rng.permutation(np.flatnonzero(column == label))
            turn[members] = np.minimum(turn[members], np.arange(len(members)))
    return np.lexsort((rng.random(total), turn))


def save(path: Path, crops: np.ndarray) -> None:
    """Write crops (N, H, W, C) uint8 under the key `crops`, whole or not at all; OutputError when it cannot be."""
    with whole(path) as part:
        np.savez(part, crops=crops)

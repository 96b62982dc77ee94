"""Recipes for small data sets, and their pictures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pictures

from edge_app.manifest import Input
from trainer.recipe import Recipe
from trainer.recipe_file import apply, parse

LABELS = ("angry", "happy")
GREY = Input(24, 24, "gray", "uint8")


def recipe(*changes: str) -> Recipe:
    raw: dict = {
        "name": "tiny",
        "family": "cnn",
        "input": {"size": 24, "colour": "gray"},
        "heads": [{"name": "emotion", "labels": list(LABELS)}],
        "data": {"validation": 0.25},
        "stages": [{"name": "all", "epochs": 1, "learning_rate": 0.1}],
    }
    for change in changes:
        apply(raw, change)
    return parse(raw, "tiny.yaml")


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imencode(path.suffix, image)[1].tofile(path)


def write_data(folder: Path) -> Path:
    """40 pictures of each label to learn from, 10 to be tested on."""
    pictures.write(folder / "train", LABELS, 40)
    pictures.write(folder / "test", LABELS, 10, seed=1)
    return folder

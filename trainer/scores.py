"""Validation measures: what chooses the weights and what a run says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from edge_app.heads import softmax
from edge_app.scoring.metrics import confusion, macro_f1, per_class

from .data import Part
from .recipe import LAST, HeadRecipe, Recipe


def predict(model: keras.Model, images: np.ndarray, batch: int = 256) -> dict[str, np.ndarray]:
    """Logits (N, C) float32 by head of images (N, H, W, C) uint8."""
    rows = [model.predict_on_batch(images[i : i + batch].astype(np.float32)) for i in range(0, len(images), batch)]
    return {name: np.concatenate([np.asarray(row[name], np.float32) for row in rows]) for name in rows[0]}


def held_out(recipe: Recipe, path: Path, part: Part) -> dict[str, float]:
    """Measures of a saved model on a part that chose nothing."""
    row = judge(recipe, part, predict(keras.models.load_model(path, compile=False), part.images))
    return {name.removeprefix("val_"): value for name, value in row.items()}


def judge(recipe: Recipe, part: Part, logits: Mapping[str, np.ndarray]) -> dict[str, float]:
    """`val_<head>_<measure>` of every head that labels something, `val_score`, by which the recipe chooses, and `val_loss`."""
    row: dict[str, float] = {}
    chosen, losses = [], []
    for head in recipe.heads:
        rows = part.labels[head.name] >= 0
        if rows.any():
            votes = part.votes[head.name][rows]
            measured = measures(head, part.labels[head.name][rows], logits[head.name][rows], votes)
            if recipe.select == "agreement":
                measured.setdefault("agreement", measured["accuracy"])
            row |= {f"val_{head.name}_{name}": value for name, value in measured.items()}
            chosen.append(measured["accuracy" if recipe.select == LAST else recipe.select])
            losses.append(measured["loss"])
    row["val_score"] = float(np.mean(chosen)) * (-1 if recipe.select == "loss" else 1)
    row["val_loss"] = float(np.mean(losses))
    return row


def measures(head: HeadRecipe, truth: np.ndarray, logits: np.ndarray, votes: np.ndarray) -> dict[str, float]:
    """Accuracy, macro-F1, of two labels the second's F1, and cross entropy of a head; truth (N,) int64, votes (N, C).

    Where more than half of the votes for the head's labels name one, `majority` is the accuracy against it, and
    `agreement` the mean of both accuracies. (The test part's majority is of all votes, "unknown" among them: it leaves
    harder pictures out.)
    """
    if head.kind == "sigmoid":
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    probs = softmax(logits)
    answers = probs.argmax(axis=1)
    matrix = confusion(truth, answers, len(head.labels))
    accuracy = float(np.trace(matrix) / max(1, matrix.sum()))
    agreed = 2 * votes.max(axis=1) > votes.sum(axis=1)
    voted = {}
    if agreed.any():
        majority = float((answers == votes.argmax(axis=1))[agreed].mean())
        voted = {"majority": majority, "agreement": (accuracy + majority) / 2}
    return {
        "accuracy": accuracy,
        **voted,
        "macro_f1": float(macro_f1(matrix)),
        **({"f1": float(per_class(matrix).f1[1])} if len(matrix) == 2 else {}),
        "loss": float(-np.log(np.clip(probs[np.arange(len(truth)), truth], 1e-7, 1)).mean()),
    }

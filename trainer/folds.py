"""Grouped cross-validation: every fold is held out once and never chooses anything."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edge_app.errors import InputError
from edge_app.files import whole

from .data import Member
from .recipe import Recipe
from .splits import assign, complete, folds


def fold_members(recipe: Recipe, found: Sequence[Member], count: int) -> list[list[Member]]:
    """One membership per fold: the fold is "test", the rest is divided into train and validation, groups together.

    InputError when there are too few groups for that many folds.
    """
    numbers = {name: i for i, name in enumerate(dict.fromkeys(member.group for member in found))}
    groups = [numbers[member.group] for member in found]
    labels = [f"{member.item.source}/{member.item.label}".lstrip("/") for member in found]
    fold = folds(groups, labels, count, recipe.data.seed)
    result = []
    for held_out in range(count):
        rest = np.flatnonzero(fold != held_out)
        shares = {"validation": recipe.data.validation}
        inner = assign(
            [groups[row] for row in rest], [labels[row] for row in rest], shares, recipe.data.seed + held_out
        )
        splits = np.full(len(found), "test", dtype="<U10")
        splits[rest] = inner
        expected = dict.fromkeys(("train", "validation", "test"), labels)
        complete(labels, splits.tolist(), expected, f"--folds {count}", "fewer folds")
        result.append(
            [dataclasses.replace(member, split=str(split)) for member, split in zip(found, splits, strict=True)]
        )
    return result


def write_folds(path: Path, rows: Sequence[dict[str, object]]) -> None:
    """folds.csv: one row of held-out scores per network and fold."""
    with whole(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)


def read_folds(path: Path) -> list[dict[str, object]]:
    """The rows of folds.csv, scores as numbers; none where it is not begun. InputError when it is damaged."""
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                {name: value if name in ("network", "fold") else float(value) for name, value in row.items() if value}
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read ({error}); delete it, and every fold is scored again") from error


def summary(rows: Sequence[dict[str, object]]) -> list[str]:
    """Mean and standard deviation over the folds of every measure, one line per network."""
    lines = []
    for network in dict.fromkeys(str(row["network"]) for row in rows):
        mine = [row for row in rows if row["network"] == network]
        names = dict.fromkeys(name for row in mine for name in row if name not in ("network", "fold", "score", "loss"))
        values = {name: [float(row[name]) for row in mine if name in row] for name in names}
        said = ", ".join(f"{name} {_mean_sd(found)}" for name, found in values.items() if not name.endswith("_loss"))
        lines.append(f"{network}, {len(mine)} folds: {said}")
    return lines


def _mean_sd(values: Sequence[float]) -> str:
    spread = f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else " (one fold)"
    return f"{np.mean(values):.3f}{spread}"

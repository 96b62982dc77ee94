"""The recipe of a tiny network on generated pictures, and what a run of it leaves."""

from __future__ import annotations

import csv
from pathlib import Path

from trainer.data import members, parts
from trainer.recipe import Recipe

TINY = str(Path(__file__).parent / "cases" / "tiny.yaml")
LABELS = ("angry", "happy", "neutral")


def loaded(recipe: Recipe, data: Path) -> dict:
    found, _ = members(recipe, data)
    return parts(recipe, found, data, ("train", "validation"))


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))

"""What a run's folder says of it: `run.json`, `crop.json`, and the recipe with what was measured for it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from edge_app.errors import InputError
from edge_app.files import whole
from edge_app.manifest import Crop

from .recipe import Recipe, read_recipe


def run_recipe(run: Path) -> Recipe:
    """The recipe of a run, or of an exported model, with the crop that `fit-crop` measured for it, if it did."""
    return with_crop(read_recipe(str(run / "recipe.yaml")), run)


def with_crop(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with the crop of `crop.json` in `folder`, where `fit-crop` measured it or `calmcam crop` cut by it.

    InputError for a file that holds no crop.
    """
    path = folder / "crop.json"
    if not path.is_file():
        return recipe
    try:
        return dataclasses.replace(recipe, crop=Crop(**read_json(path)["crop"]))
    except (KeyError, TypeError) as error:
        raise InputError(
            f'{path}: expected {{"crop": {{margin, shift, align}}}}, it has something else ({error}); remove it'
        ) from error


def read_json(path: Path) -> dict:
    """What `write_json` wrote; InputError for a file that is cut, damaged or something else."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: expected JSON that calmcam wrote, it cannot be read ({error}); restore it or train again"
        ) from error
    if not isinstance(values, dict):
        raise InputError(
            f"{path}: expected a JSON object that calmcam wrote, got {type(values).__name__}; restore it or train again"
        )
    return values


def digest(hashes: Iterable[str]) -> str:
    """One sha256 over file hashes, whatever their order."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


def write_json(path: Path, value: object) -> None:
    """Write plain values, whole or not at all."""
    with whole(path) as part:
        part.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

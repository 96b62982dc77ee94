"""What a run's folder says of it: `run.json`, `crop.json`, and the recipe with what was measured for it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from edge_app.errors import InputError, SettingsError
from edge_app.files import whole
from edge_app.manifest import find_model

from .recipe import Recipe
from .recipe_file import parse_crop, read_recipe

TOLD = {  # of `run.json`, whatever a run is asked later
    "finished": bool,
    "data": (str, dict),
    "backend": str,
    "precision": str,
    "data_sha256": dict,
    "seen": dict,
    "selected": dict,
    "versions": dict,
    "folds": list,
    "beside": list,
}


def read_run(run: Path) -> dict:
    """What `run.json` says; InputError when it is damaged."""
    path = run / "run.json"
    told = {"finished": None, "data": None} | read_json(path)
    for key, kind in TOLD.items():
        if key in told and not isinstance(told[key], kind):
            raise InputError(f"{path}: {key}: cannot be {told[key]!r}; restore the file or train again")
    return told


def read_finished(run: Path) -> dict:
    """What `run.json` says of a finished run; InputError for a folder that holds none, or one that goes on."""
    told = read_run(run) if (run / "run.json").is_file() else {}
    if folds := told.get("folds"):
        raise InputError(f"{run}: holds the runs of --folds; name one of them, such as {run / folds[0]}, or train without")
    if not told or not (run / "recipe.yaml").is_file():
        raise InputError(
            f"{run}: expected the folder of a training run (recipe.yaml, run.json, best.keras); train first"
        )
    if not told.get("finished"):  # its weights may change, and the test part may be read for the last ones only
        raise InputError(f"{run}: is not finished; go on with calmcam train --resume {run}")
    return told


def absolute(data: Path | Mapping[str, Path]) -> str | dict[str, str]:
    """Where the data lie, for `run.json`: one folder, or folders by the data set's name."""
    if isinstance(data, Mapping):
        return {name: str(path.absolute()) for name, path in data.items()}
    return str(data.absolute())


def stored_data(record: Mapping) -> Path | dict[str, Path]:
    """Where the data lay that a run learnt from: one folder, or folders by the data set's name."""
    stored = record["data"]
    return {name: Path(path) for name, path in stored.items()} if isinstance(stored, dict) else Path(stored)


def chosen(record: Mapping, recipe: Recipe) -> str:
    """Which weights a run kept, in words."""
    selected = record.get("selected", {})
    if "mean_of" in selected:
        return "the mean of several runs"
    return f"epoch {selected.get('epoch', '?')}, {recipe.choice}"


def origin(backbone: str) -> Path | None:
    """The folder of the run or exported model that a backbone is, or whose file it is; None for others."""
    if backbone in ("none", "imagenet", "dlib"):
        return None
    path = own() if backbone == "emotions" else Path(backbone)
    folder = path if path.is_dir() else path.parent
    return folder if any((folder / name).is_file() for name in ("split.csv", "manifest.json")) else None


def own() -> Path:
    """The folder of our own backbone, there or not."""
    try:
        return find_model("emotions").folder
    except SettingsError:
        return Path("models/emotions")


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
        return dataclasses.replace(recipe, crop=parse_crop(read_json(path)["crop"]))
    except (KeyError, SettingsError) as error:
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
        text = json.dumps(value, indent=2, ensure_ascii=False)
        part.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")  # of names that are no Unicode

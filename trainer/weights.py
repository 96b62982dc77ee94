"""Where first weights come from: nowhere, ImageNet, dlib's face network, a .keras file, another run, or our `emotions`.

A backbone that is a run, our own, or dlib's brings its network and its input; the recipe keeps its heads and the rest.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import zipfile
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from edge_app.errors import ModelError, unknown
from edge_app.files import whole
from edge_app.manifest import Crop

from . import dlib_weights
from .recipe import Picture, Recipe
from .record import own, read_finished, run_recipe

log = logging.getLogger(__name__)

OWN = "backbone.npz"  # beside recipe.yaml in models/emotions: float16 arrays named layer/position
DLIB = "face_resnet"  # the family that takes dlib's weights
BACKBONE = "expected a .keras file, dlib's .dat or a run folder for backbone"
NAMED = ("none", "imagenet", "dlib", "emotions")  # backbones that are no path
HEADS = ("dropout", "dense")  # options that belong to the new heads


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with the family, options and input of its backbone, when that brings them.

    From nothing, nothing is frozen: layers that never learnt would stay noise.
    """
    folder = _folder(recipe.backbone)
    if recipe.backbone == "none":
        return dataclasses.replace(recipe, stages=tuple(dataclasses.replace(one, freeze=0.0) for one in recipe.stages))
    heads = {key: value for key, value in recipe.options.items() if key in HEADS}
    if _is_dlib(recipe.backbone) and recipe.family != DLIB:
        return dataclasses.replace(recipe, family=DLIB, options=heads, input=Picture())
    if folder is None:
        if recipe.backbone != "imagenet" and not Path(recipe.backbone).is_file() and recipe.backbone != "dlib":
            if Path(recipe.backbone).name == recipe.backbone and not Path(recipe.backbone).suffix:
                words = unknown("backbone", recipe.backbone, NAMED)
                raise ModelError(f"{words}; or name a .keras file, dlib's .dat or a run folder")
            raise ModelError(f"{recipe.backbone}: {BACKBONE}, found none")
        return recipe
    source = run_recipe(folder)
    body = {key: value for key, value in source.options.items() if key not in HEADS}
    if (source.family, source.input) != (recipe.family, recipe.input):
        log.info(
            "backbone %s brings its network and input: %s, %d px %s instead of %s, %d px %s",
            recipe.backbone, source.family, source.input.size, source.input.colour,
            recipe.family, recipe.input.size, recipe.input.colour,
        )  # fmt: skip
    crop = source.crop if recipe.crop == Crop() else recipe.crop
    return dataclasses.replace(recipe, family=source.family, options=body | heads, input=source.input, crop=crop)


def start_weights(model: keras.Model, recipe: Recipe, images: np.ndarray) -> int:
    """Copy the backbone's weights into the model; returns how many layers took some.

    What comes without statistics of batch normalisation gets those of `images` (N, H, W, C). ModelError as `take_weights`.
    """
    path, taken = take_weights(model, recipe)
    if _is_dlib(recipe.backbone):
        dlib_weights.standing(model, images)
    if taken:
        log.info("%d layers start from %s", taken, path)
    return taken


def take_weights(model: keras.Model, recipe: Recipe) -> tuple[Path | None, int]:
    """Copy the backbone's weights by layer name and shape: from which file, and how many layers took some.

    "none" and "imagenet" (which the family loads while it builds) copy nothing. ModelError when a file is missing or
    nothing fits.
    """
    path = file_of(recipe)
    if path is None:
        return None, 0
    source = _read(path, recipe)
    taken = 0
    for layer in model.layers[: [layer.name for layer in model.layers].index("pool")]:
        values = source.get(layer.name)
        if layer.weights and values and [tuple(w.shape) for w in layer.weights] == [value.shape for value in values]:
            layer.set_weights(values)
            taken += 1
    if not taken:
        raise ModelError(
            f"{path}: no layer fits the family {recipe.family}; expected weights of that family, or --set backbone=none"
        )
    return path, taken


def file_of(recipe: Recipe) -> Path | None:
    """The file that the backbone's weights are taken from; None for "none" and "imagenet". ModelError when it is missing."""
    backbone = recipe.backbone
    if backbone in ("none", "imagenet"):
        return None
    if _is_dlib(backbone):
        return dlib_weights.find() if backbone == "dlib" else Path(backbone)
    folder = _folder(backbone)
    if folder is not None and (folder / OWN).is_file():
        return folder / OWN
    return folder / "best.keras" if folder else Path(backbone)


def write_backbone(model: keras.Model, recipe_file: Path, path: Path) -> None:
    """Write a trained backbone, float16, to the .npz `path`, and its recipe beside it, for `backbone=emotions`."""
    arrays = {
        f"{layer.name}/{i}": value.astype(np.float16)
        for layer in model.layers[: [layer.name for layer in model.layers].index("pool")]
        for i, value in enumerate(layer.get_weights())
    }
    with whole(path) as part:
        np.savez(part, **arrays)
    path.with_name("recipe.yaml").write_bytes(recipe_file.read_bytes())


def _is_dlib(backbone: str) -> bool:
    return backbone == "dlib" or Path(backbone).suffix == ".dat"


def _folder(backbone: str) -> Path | None:
    if backbone in ("none", "imagenet", "dlib"):
        return None
    if backbone == "emotions":
        folder = own()
        if not (folder / OWN).is_file() or not (folder / "recipe.yaml").is_file():
            raise ModelError(
                f"{folder / OWN}: missing; expected our own backbone; train emotions, or --set backbone=none"
            )
        return folder
    if (Path(backbone) / "run.json").is_file():
        read_finished(Path(backbone))  # says what is wrong with it
    return Path(backbone) if (Path(backbone) / "recipe.yaml").is_file() else None


def _read(path: Path, recipe: Recipe) -> Mapping[str, list[np.ndarray]]:
    if _is_dlib(recipe.backbone):
        return dlib_weights.read(path, recipe.input.spec.channels)
    if path.name == OWN:
        return _arrays(path)
    if path.suffix != ".keras":  # older kinds may hold code
        raise ModelError(f"{path}: {BACKBONE}")
    try:
        model = keras.models.load_model(path, compile=False)
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: {BACKBONE} ({error})") from error
    return {layer.name: layer.get_weights() for layer in model.layers}


def _arrays(path: Path) -> dict[str, list[np.ndarray]]:
    found: dict[str, list[np.ndarray]] = {}
    try:
        with np.load(io.BytesIO(path.read_bytes())) as saved:
            for name in saved.files:
                found.setdefault(name.rpartition("/")[0], []).append(saved[name].astype(np.float32))
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: {BACKBONE} ({error}); copy it again") from error
    return found

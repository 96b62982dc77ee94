"""Where a network's first weights come from: nowhere, a file, or our own `emotions` network."""

from __future__ import annotations

import logging
from pathlib import Path

import keras

from edge_app.errors import ModelError

from .recipe import Recipe

log = logging.getLogger(__name__)


def start_weights(model: keras.Model, recipe: Recipe) -> int:
    """Copy the backbone's weights by layer name and shape; returns how many layers took some.

    "none" and "imagenet" (which the family loads while it builds) copy nothing. ModelError when nothing fits.
    """
    if recipe.backbone in ("none", "imagenet"):
        return 0
    path = backbone_file(recipe.backbone)
    source = {layer.name: layer for layer in keras.models.load_model(path, compile=False).layers}
    taken = 0
    for layer in model.layers[: [layer.name for layer in model.layers].index("pool")]:
        other = source.get(layer.name)
        if other is not None and layer.weights and [w.shape for w in layer.weights] == [w.shape for w in other.weights]:
            layer.set_weights(other.get_weights())
            taken += 1
    if not taken:
        raise ModelError(f"{path}: no layer fits the family {recipe.family}; expected a .keras file of that family, or backbone=none")
    log.info("%d layers start from %s", taken, path)
    return taken


def backbone_file(name: str) -> Path:
    """The file behind `backbone`; ModelError when it is not there."""
    path = Path(__file__).parent.parent / "models" / "emotions" / "best.keras" if name == "emotions" else Path(name)
    if not path.is_file():
        raise ModelError(f"{path}: missing; expected the backbone's .keras file, or --set backbone=none")
    return path

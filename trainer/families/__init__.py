"""Network families: the file name is the name. Each has `build(input_shape, heads, **options) -> keras.Model`.

`input_shape` is (H, W, C), `heads` maps a head's name to its number of outputs. The model takes one input `image`,
float32 raw pixels 0..255, and gives a dict of logits by head.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping

import keras

from edge_app.errors import ModelError, SettingsError, unknown


def known() -> list[str]:
    """Names of the families."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def build(family: str, input_shape: tuple[int, int, int], heads: dict[str, int], options: Mapping) -> keras.Model:
    """The network of a family; SettingsError for an unknown family or option."""
    if family not in known():
        raise SettingsError(unknown("family", family, known()))
    maker = importlib.import_module(f"{__name__}.{family}").build
    takes = [name for name, item in inspect.signature(maker).parameters.items() if item.kind is item.KEYWORD_ONLY]
    if "weights" in options and "weights" not in takes:
        raise SettingsError(
            f"family {family}: has no ImageNet weights; expected another backbone than imagenet, or none"
        )
    for option in options:
        if option not in takes:
            raise SettingsError(f"family {family}: {unknown('option', option, takes)}")
    try:
        return maker(input_shape, heads, **options)
    except (TypeError, ValueError) as error:
        raise SettingsError(f"family {family}: cannot be built with options {dict(options)} ({error})") from error


def pooled_heads(
    x: keras.KerasTensor, heads: dict[str, int], dropout: float, dense: int = 0, flat: bool = False
) -> dict[str, keras.KerasTensor]:
    """Global average (or all places, `flat`), an optional shared dense block, one float32 logits layer per head."""
    layers = keras.layers
    x = (layers.Flatten(name="pool") if flat else layers.GlobalAveragePooling2D(name="pool"))(x)
    if dense:
        x = keras.layers.Dense(dense, activation="relu", name="shared")(x)
    if dropout:
        x = keras.layers.Dropout(dropout, name="dropout")(x)
    return {name: keras.layers.Dense(width, dtype="float32", name=name)(x) for name, width in heads.items()}


def application(
    maker: Callable[..., keras.Model], input_shape: tuple[int, int, int], weights: str
) -> tuple[keras.KerasTensor, keras.KerasTensor]:
    """Input and last feature map of one of `keras.applications`; ModelError when its weights cannot be had."""
    if input_shape[2] != 3:
        raise SettingsError(f"{maker.__name__}: expected input.colour=rgb, got gray")
    image = keras.Input(input_shape, name="image")
    try:
        body = maker(include_top=False, weights=None if weights == "none" else weights, input_tensor=image)
    except ValueError as error:
        raise SettingsError(f"{maker.__name__}: {error}") from error
    except Exception as error:  # Keras has no class of its own for it
        if not isinstance(error, OSError) and "URL fetch failure" not in str(error):
            raise
        raise ModelError(
            f"{maker.__name__}: its {weights} weights cannot be downloaded ({error}); expected a network connection, or "
            "--set backbone=none, emotions or a file"
        ) from error
    return image, body.output

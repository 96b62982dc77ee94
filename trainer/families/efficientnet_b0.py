"""EfficientNet-B0 (Tan and Le 2019, arXiv 1905.11946) as Keras ships it, with its own rescaling inside."""

from __future__ import annotations

import keras

from . import application, pooled_heads


def build(
    input_shape: tuple[int, int, int],
    heads: dict[str, int],
    *,
    weights: str = "none",
    dropout: float = 0.3,
    dense: int = 0,
) -> keras.Model:
    """Pretrained on ImageNet with `weights` "imagenet", which Keras downloads once; needs rgb pictures."""
    image, x = application(keras.applications.EfficientNetB0, input_shape, weights)
    return keras.Model(image, pooled_heads(x, heads, dropout, dense), name="efficientnet_b0")

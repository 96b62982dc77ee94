"""ResNet of dlib's face network (King 2017, dlib-models, CC0) without its last level: 3x3 convolutions, ReLU, additions.

A face of 48 px is half as large as those that it learnt from. Its first convolution, 7x7 at every second place of the
picture enlarged twice, is one of 5x5 at every place of the picture itself; `trainer/dlib_weights.py` reckons it.
"""

from __future__ import annotations

import keras

from . import pooled_heads
from .residual import conv

L = keras.layers
LEVELS = ((32, 3), (64, 4), (128, 3), (256, 3))  # channels, residual blocks; each level but the first at half the size


def build(
    input_shape: tuple[int, int, int],
    heads: dict[str, int],
    *,
    dropout: float = 0.4,
    dense: int = 0,
) -> keras.Model:
    """A 5x5 convolution, max pooling, 13 residual blocks."""
    image = keras.Input(input_shape, name="image")
    x = L.Rescaling(1 / 256, offset=-0.44, name="rescale")(image)
    x = conv(x, LEVELS[0][0], "stem", kernel=5)
    x = L.MaxPooling2D(3, 2, padding="same", name="stem_pool")(x)
    for level, (width, blocks) in enumerate(LEVELS):
        for block in range(blocks):
            x = residual(x, width, f"l{level}_{block}", shrink=level > 0 and block == 0)
    return keras.Model(image, pooled_heads(x, heads, dropout, dense), name="face_resnet")


def residual(x: keras.KerasTensor, width: int, name: str, shrink: bool) -> keras.KerasTensor:
    """Two convolutions and the way around them; `shrink` halves the size and widens."""
    y = conv(x, width, f"{name}_a", strides=2 if shrink else 1)
    y = conv(y, width, f"{name}_b", relu=False)
    if shrink:
        x = L.AveragePooling2D(2, padding="same", name=f"{name}_pool")(x)
        if x.shape[-1] != width:
            x = L.Conv2D(width, 1, use_bias=False, name=f"{name}_widen")(x)
    return L.ReLU(name=f"{name}_out")(L.Add(name=f"{name}_add")([x, y]))

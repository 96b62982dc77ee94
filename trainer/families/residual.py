"""Plain 3x3 residual network (He et al. 2016, arXiv 1512.03385) of ReLU, pooling and additions: int8-friendly."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from . import pooled_heads

L = keras.layers


def build(
    input_shape: tuple[int, int, int],
    heads: dict[str, int],
    *,
    channels: Sequence[int] = (32, 64, 128, 256),
    blocks: Sequence[int] = (0, 1, 2, 2),
    dropout: float = 0.3,
    dense: int = 0,
    smooth: bool = False,
) -> keras.Model:
    """One widening convolution and `blocks` residual blocks per stage, each stage at half the size."""
    image = keras.Input(input_shape, name="image")
    x = L.Rescaling(1 / 64, offset=-2.0, name="rescale")(image)
    for stage, (width, count) in enumerate(zip(channels, blocks, strict=True)):
        if stage:
            x = half(x, f"s{stage}", smooth)
        x = conv(x, width, f"s{stage}_in")
        for block in range(count):
            x = residual(x, width, f"s{stage}_{block}")
    return keras.Model(image, pooled_heads(x, heads, dropout, dense), name="residual")


def half(x: keras.KerasTensor, name: str, smooth: bool) -> keras.KerasTensor:
    """The largest of each 2 x 2, at half the size.

    `smooth` takes the mean of four such instead, so that a picture that is moved by a pixel is answered more alike
    (Zhang 2019, arXiv 1904.11486, with a box for the blur).
    """
    if smooth:
        x = L.MaxPooling2D(2, strides=1, padding="same", name=f"{name}_max")(x)
        return L.AveragePooling2D(2, name=f"{name}_pool")(x)
    return L.MaxPooling2D(2, name=f"{name}_pool")(x)


def conv(
    x: keras.KerasTensor, width: int, name: str, relu: bool = True, kernel: int = 3, strides: int = 1
) -> keras.KerasTensor:
    """Convolution, batch normalisation in float32, and ReLU."""
    how = {"strides": strides, "padding": "same", "use_bias": False, "kernel_initializer": "he_normal"}
    x = L.Conv2D(width, kernel, **how, name=f"{name}_conv")(x)
    x = L.BatchNormalization(momentum=0.97, name=f"{name}_bn")(x)
    return L.ReLU(name=f"{name}_relu")(x) if relu else x


def residual(x: keras.KerasTensor, width: int, name: str) -> keras.KerasTensor:
    """Two convolutions and the way around them."""
    y = conv(conv(x, width, f"{name}_a"), width, f"{name}_b", relu=False)
    return L.ReLU(name=f"{name}_out")(L.Add(name=f"{name}_add")([x, y]))

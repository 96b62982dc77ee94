"""EfficientNet-Lite: EfficientNet (Tan and Le 2019, arXiv 1905.11946) without squeeze-and-excite, with ReLU6."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from . import pooled_heads

L = keras.layers
BLOCKS = (
    (1, 16, 1, 3),
    (6, 24, 2, 3),
    (6, 40, 2, 5),
    (6, 80, 3, 3),
    (6, 112, 3, 5),
    (6, 192, 4, 5),
    (6, 320, 1, 3),
)  # expand, width, count, kernel


def build(
    input_shape: tuple[int, int, int],
    heads: dict[str, int],
    *,
    stem_stride: int = 2,
    strides: Sequence[int] = (1, 2, 2, 2, 1, 2, 1),
    width: float = 1.0,
    top: int = 1280,
    dropout: float = 0.2,
    dense: int = 0,
) -> keras.Model:
    """Lite0 at width 1; small pictures want `stem_stride` 1."""
    image = keras.Input(input_shape, name="image")
    x = L.Rescaling(1 / 127.5, offset=-1.0, name="rescale")(image)
    x = _relu6(L.Conv2D(32, 3, strides=stem_stride, padding="same", use_bias=False, name="stem_conv")(x), "stem")
    for stage, ((expand, channels, count, kernel), stride) in enumerate(zip(BLOCKS, strides, strict=True)):
        for block in range(count):
            x = _inverted(x, expand, _even(channels * width), kernel, stride if block == 0 else 1, f"s{stage}_{block}")
    x = _relu6(L.Conv2D(top, 1, use_bias=False, name="top_conv")(x), "top")
    return keras.Model(image, pooled_heads(x, heads, dropout, dense), name="efficientnet_lite")


def _inverted(x: keras.KerasTensor, expand: int, width: int, kernel: int, stride: int, name: str) -> keras.KerasTensor:
    """Inverted residual (Sandler et al. 2018, arXiv 1801.04381)."""
    y = x
    if expand > 1:
        y = _relu6(L.Conv2D(x.shape[-1] * expand, 1, use_bias=False, name=f"{name}_expand")(y), f"{name}_expand")
    y = L.DepthwiseConv2D(kernel, strides=stride, padding="same", use_bias=False, name=f"{name}_depth")(y)
    y = _relu6(y, f"{name}_depth")
    y = L.Conv2D(width, 1, use_bias=False, name=f"{name}_project")(y)
    y = L.BatchNormalization(momentum=0.97, name=f"{name}_project_bn")(y)
    return L.Add(name=f"{name}_add")([x, y]) if stride == 1 and x.shape[-1] == width else y


def _relu6(x: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return L.ReLU(6.0, name=f"{name}_relu")(L.BatchNormalization(momentum=0.97, name=f"{name}_bn")(x))


def _even(channels: float) -> int:
    """Nearest multiple of eight, which both XNNPACK and the Hailo like."""
    return max(8, int(channels + 4) // 8 * 8)

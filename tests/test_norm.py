"""The fused batch normalisation computes what Keras computes."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("tensorflow")
pytest.importorskip("keras")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # keras 3.15 on numpy 2
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402

from trainer.norm import fuse  # noqa: E402

L = keras.layers
STEPS = 4


def small(policy: str, kind: type = L.BatchNormalization) -> keras.Model:
    """A convolution and its normalisation, always from the same weights."""
    keras.utils.set_random_seed(3)
    image = keras.Input((6, 6, 3))
    x = L.Conv2D(5, 3, use_bias=False, dtype=policy)(image)
    x = L.ReLU(dtype=policy)(kind(momentum=0.9, dtype=policy, name="norm")(x))
    return keras.Model(image, L.Dense(2, dtype="float32")(L.GlobalAveragePooling2D()(x)))


def learnt(model: keras.Model) -> list[np.ndarray]:
    """Its weights, statistics among them, after a few steps, and the losses on the way."""
    random = np.random.default_rng(0)
    x, y = random.normal(3, 5, (8, 6, 6, 3)), random.normal(size=(8, 2))
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
    losses = [model.train_on_batch(x, y) for _ in range(STEPS)]
    return [np.array(losses), *model.get_weights()]


@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_the_kernel_learns_as_keras_does(policy: str) -> None:
    fused = small(policy)
    fuse(fused)
    assert ("call" in vars(fused.get_layer("norm"))) == (keras.backend.backend() == "tensorflow")
    for there, here in zip(learnt(small(policy)), learnt(fused), strict=True):
        np.testing.assert_allclose(here, there, rtol=1e-4, atol=1e-5)


def test_what_stands_still_keeps_its_statistics() -> None:
    model = small("float32")
    fuse(model)
    model.get_layer("norm").trainable = False
    learnt(model)
    mean, variance = model.get_layer("norm").get_weights()[2:]
    assert not mean.any() and (variance == 1).all()


def test_a_layer_that_does_more_is_left_alone() -> None:
    class Rounding(L.BatchNormalization):
        """As `rounding.py` makes them."""

    model = small("float32", Rounding)
    fuse(model)
    assert "call" not in vars(model.get_layer("norm"))


@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}, {"axis": 1}, {"renorm": True}, None])
def test_what_the_kernel_cannot_do_is_left_alone(options: dict | None) -> None:
    image = keras.Input((6, 6, 3))
    x = image if options else L.GlobalAveragePooling2D()(image)  # vectors
    model = keras.Model(image, L.BatchNormalization(**options or {}, name="norm")(x))
    fuse(model)
    assert "call" not in vars(model.get_layer("norm"))


def test_a_gpu_s_own_compiler_fuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.norm.gpus", lambda: ["GPU:0"])
    model = small("float32")
    fuse(model)
    assert "call" not in vars(model.get_layer("norm"))


def test_it_is_saved_as_what_it_was() -> None:
    model = small("float32")
    fuse(model)
    call = vars(model.get_layer("norm")).get("call")
    fuse(model)  # once is enough
    assert vars(model.get_layer("norm")).get("call") is call
    again = keras.Model.from_config(model.get_config())
    assert type(again.get_layer("norm")) is L.BatchNormalization and "call" not in vars(again.get_layer("norm"))


@pytest.mark.skipif(platform.machine() != "x86_64", reason="oneDNN's kernels are chosen on x86-64 only")
@pytest.mark.parametrize("said, found", [(None, "1"), ("0", "0")])
def test_tensorflow_learns_with_onednn_unless_the_user_says_otherwise(said, found):
    named = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    named |= {"TF_ENABLE_ONEDNN_OPTS": said} if said else {}
    code = "import os, trainer; os.write(1, os.environ['TF_ENABLE_ONEDNN_OPTS'].encode())"
    assert subprocess.run([sys.executable, "-c", code], env=named, capture_output=True, check=True).stdout.decode() == found

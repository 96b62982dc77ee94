"""What every backend must do. One that passes here is done; a new one adds itself to MAKERS."""

from __future__ import annotations

import importlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edge_app.backends import fake, litert
from edge_app.errors import BackendError, ModelError
from edge_app.failover import Failover
from edge_app.manifest import Artifact, Input

pytest_plugins = ("hailo_fixtures",)
CASES = Path(__file__).parent / "cases"
SPEC = Input(32, 32, "rgb", "uint8")
ARTIFACT = Artifact(CASES / "two_heads.tflite", "", 0, SPEC, {"mood": "mood", "tease": "tease"})
FLOATING = replace(ARTIFACT, path=CASES / "two_heads_float32.tflite", input=replace(SPEC, dtype="float32"))
MAKERS = {
    "fake": lambda: (fake.Backend({"mood": (3,), "tease": (1,)}), np.uint8),
    "litert-int8": lambda: (litert.Backend(ARTIFACT), np.uint8),
    "litert-float32": lambda: (litert.Backend(FLOATING), np.float32),
    "litert-threads": lambda: (litert.Backend(ARTIFACT, threads=2), np.uint8),
}


ON_THE_DOUBLE = ("hailo", "failover", "failover-lost")


@pytest.fixture
def on_the_double(world, tmp_path):
    """Makers for the Hailo's double; its streams are named by the file."""

    def make(kind):
        path = tmp_path / "two.hef"
        streams = importlib.import_module("make_hef").make_hef(ARTIFACT.path, path, name="two")
        device = replace(ARTIFACT, path=path, outputs={head: streams[head] for head in ARTIFACT.outputs})
        hailo = partial(importlib.import_module("edge_app.backends.hailo").Backend, device)
        backend = hailo() if kind == "hailo" else Failover(hailo, partial(litert.Backend, ARTIFACT), (device, ARTIFACT))
        if kind == "failover-lost":
            world.lose()
        return backend, np.uint8, device.outputs

    return make


@pytest.fixture(params=[*MAKERS, *ON_THE_DOUBLE])
def named(request):
    """Backend, dtype of its rows, and its tensor names by head."""
    if request.param in MAKERS:
        backend, dtype = MAKERS[request.param]()
        names = ARTIFACT.outputs
    else:
        backend, dtype, names = request.getfixturevalue("on_the_double")(request.param)
    yield backend, dtype, names
    backend.close()


@pytest.fixture
def made(named):
    return named[:2]


def rows(n: int, dtype: type) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (n, 32, 32, 3)).astype(dtype)


@pytest.mark.parametrize("n", [0, 1, 3, 40])
def test_outputs_by_name_in_float32_one_row_each(named, n):
    backend, dtype, names = named
    outputs = backend.infer(rows(n, dtype))
    shapes = {names["mood"]: (n, 3), names["tease"]: (n, 1)}
    assert {name: values.shape for name, values in outputs.items()} == shapes
    assert all(values.dtype == np.float32 and np.isfinite(values).all() for values in outputs.values())


def test_rows_do_not_mix_and_calls_do_not_change_earlier_results(made):
    backend, dtype = made
    batch = rows(4, dtype)
    together = backend.infer(batch)
    kept = {name: values.copy() for name, values in together.items()}
    for row in range(4):
        for name, values in backend.infer(batch[row : row + 1]).items():
            np.testing.assert_array_equal(values[0], together[name][row])
    for name, values in backend.infer(batch[::-1]).items():
        np.testing.assert_array_equal(values[::-1], kept[name])
    assert all((together[name] == kept[name]).all() for name in kept)


def test_the_batch_is_left_alone_and_may_be_a_view(named):
    backend, dtype, names = named
    batch = rows(6, dtype)
    before = batch.copy()
    every_second = backend.infer(batch[::2])
    np.testing.assert_array_equal(batch, before)
    np.testing.assert_array_equal(every_second[names["mood"]], backend.infer(batch[::2].copy())[names["mood"]])


def test_it_names_its_device_and_closes_twice(made):
    backend, _ = made
    assert backend.device in ("cpu", "hailo", "fake")
    backend.close()
    backend.close()


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "fake"])
def test_after_close_it_says_so(name):
    backend, dtype = MAKERS[name]()
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.infer(rows(1, dtype))


@pytest.mark.parametrize("name", [name for name in MAKERS if name != "fake"])
@pytest.mark.parametrize("shape", [(1, 32, 32, 1), (1, 31, 32, 3), (32, 32, 3), (2, 64, 64, 3)])
def test_rows_of_another_shape_are_refused(name, shape):
    backend, dtype = MAKERS[name]()
    with pytest.raises(BackendError, match=r"expected rows \(32, 32, 3\)"):
        backend.infer(np.zeros(shape, dtype))
    with pytest.raises(BackendError, match="float64"):
        backend.infer(np.zeros((1, 32, 32, 3), np.float64))


def test_int8_and_float32_agree():
    quantised, floating = litert.Backend(ARTIFACT), litert.Backend(FLOATING)
    batch = np.repeat(np.repeat(np.random.default_rng(2).integers(0, 256, (8, 4, 4, 3)), 8, axis=1), 8, axis=2)
    a, b = quantised.infer(batch.astype(np.uint8)), floating.infer(batch.astype(np.float32))
    for name, values in a.items():
        assert np.abs(values - b[name]).max() < 0.1 * np.ptp(b["mood"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": replace(SPEC, height=48)}, r"manifest says one input \(1, 48, 32, 3\) uint8, the file has"),
        ({"input": replace(SPEC, colour="gray")}, r"\(1, 32, 32, 1\)"),
        ({"input": replace(SPEC, dtype="float32")}, "float32"),
        (
            {"outputs": {"mood": "moood", "tease": "tease"}},
            r"names outputs \['moood'\], the file has \['mood', 'tease'\]",
        ),
        ({"path": CASES / "absent.tflite"}, "No such file"),
    ],
)
def test_a_file_that_does_not_fit_its_manifest(change, message):
    with pytest.raises(ModelError, match=message):
        litert.Backend(replace(ARTIFACT, **change))


@pytest.mark.parametrize("damage", ["empty", "half", "text", "zeros", "noise"])
def test_a_damaged_file(tmp_path, damage):
    good = ARTIFACT.path.read_bytes()
    content = {
        "empty": b"",
        "half": good[: len(good) // 2],
        "text": b"this is a letter, not a network",
        "zeros": good[:8] + bytes(4000),
        "noise": good[:8] + np.random.default_rng(0).bytes(4000),
    }[damage]
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="model.tflite"):
        litert.Backend(replace(ARTIFACT, path=path))


def test_the_fake_fails_when_told():
    backend = fake.Backend({"mood": (3,)}, fail_at=2)
    backend.infer(rows(1, np.uint8))
    with pytest.raises(BackendError, match="device lost at call 2"):
        backend.infer(rows(1, np.uint8))

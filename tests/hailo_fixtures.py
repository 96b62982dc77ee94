"""Fixtures around the Hailo double: `pytest_plugins = ("hailo_fixtures",)` in a test module brings them."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from small_model import write_model

from edge_app.manifest import Manifest, read_manifest

DOUBLES = Path(__file__).parent / "doubles"


def _forget() -> None:
    for name in list(sys.modules):
        if name.split(".")[0] in ("hailo_platform", "hailo_world", "hailo_engine") or name == "edge_app.backends.hailo":
            del sys.modules[name]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    """The double's world, fresh, with `hailo_platform` importable; nothing may stay open or have killed the process."""
    monkeypatch.syspath_prepend(DOUBLES)
    monkeypatch.setenv("HAILORT_LOGGER_PATH", "NONE")  # or the double, like the real one, leaves hailort.log here
    monkeypatch.setattr("edge_app.hailo_checks.NODES", "/nonexistent/hailo*")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(DOUBLES), os.environ.get("PYTHONPATH", "")]))
    _forget()
    state = importlib.import_module("hailo_world").world
    gc.freeze()  # VDevice collects garbage when made; what is old need not be looked at hundreds of times
    yield state
    gc.unfreeze()
    state.give()
    killed, chips = list(state.killed), list(state.chips)
    _forget()
    assert not killed
    assert not chips


@pytest.fixture
def tell(world: object, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Change the world, of this process and of those that it starts."""

    def change(**state: object) -> None:
        for name, value in state.items():
            setattr(world, name, value)
        words = {name: ",".join(value) if isinstance(value, tuple) else value for name, value in state.items()}
        words = {name: int(value) if isinstance(value, bool) else value for name, value in words.items()}
        monkeypatch.setenv("CALMCAM_DOUBLE", " ".join(f"{name}={value}" for name, value in words.items()))

    return change


@pytest.fixture
def hailo(world: object) -> Iterator[ModuleType]:
    """`edge_app.backends.hailo` on the double; nothing of HailoRT may have outlived its VDevice."""
    yield importlib.import_module("edge_app.backends.hailo")
    assert not world.outlived


@pytest.fixture
def compiled(world: object, tmp_path: Path) -> Manifest:
    """A small model with variants float32, int8 and hailo8."""
    manifest = read_manifest(write_model(tmp_path / "small") / "manifest.json")
    return importlib.import_module("make_hef").add_hef(manifest)


@pytest.fixture
def crops() -> np.ndarray:
    """Smooth random pictures (5, 32, 32, 3) uint8."""
    coarse = np.random.default_rng(5).integers(0, 256, (5, 4, 4, 3))
    return np.kron(coarse, np.ones((1, 8, 8, 1))).astype(np.uint8)

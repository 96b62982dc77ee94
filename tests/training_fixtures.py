"""A tiny network's training: `pytest_plugins = ("training_fixtures",)` in a test module brings `data` and `run`."""

from __future__ import annotations

from pathlib import Path

import pictures
import pytest
from tiny_training import LABELS, TINY

from trainer.runs import Request, start


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """Generated pictures of three classes; not to be changed."""
    folder = tmp_path_factory.mktemp("data")
    pictures.write(folder / "train", LABELS, 40)
    return folder


@pytest.fixture(scope="session")
def run(data: Path, tmp_path_factory) -> Path:
    """One finished run of the recipe as it is."""
    out = tmp_path_factory.mktemp("run")
    start(Request(TINY, data, (), out))
    return out

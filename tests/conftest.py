"""What holds for every test."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from patience import PATIENCE

from edge_app import child, hailo_probe


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """The command line sets up the root logger; in one process with other tests that must not last."""
    root, trainer = logging.getLogger(), logging.getLogger("trainer")
    handlers, levels = root.handlers[:], (root.level, trainer.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0]), trainer.setLevel(levels[1])


@pytest.fixture(autouse=True, scope="session")
def _children_have_time() -> Iterator[None]:
    """What is asked in a process of its own may take CALMCAM_TEST_PATIENCE times as long to answer."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (child, hailo_probe):
            patch.setattr(module, "PATIENCE", module.PATIENCE * PATIENCE)
        yield

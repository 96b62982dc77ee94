"""Import the one module that implements a backend, source, sink or task, when it is chosen: the file name is the name."""

from __future__ import annotations

import importlib
from types import ModuleType

from .errors import MissingPackage


def load(kind: str, name: str) -> ModuleType:
    """The module `edge_app.<kind>.<name>`; MissingPackage where a package or library that it needs is not installed."""
    try:
        return importlib.import_module(f"{__package__}.{kind}.{name}")
    except ImportError as error:
        if (error.name or "").startswith(__package__):
            raise
        raise MissingPackage.of(f"{kind}/{name}", error) from error

"""Find the one module that implements a named backend, source, sink or task: the file name is the name."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from .errors import MissingPackage, SettingsError
from .manifest import unknown


def known(kind: str) -> list[str]:
    """Names of the modules in `edge_app/<kind>/`, without importing them."""
    package = importlib.import_module(f"{__package__}.{kind}")
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def load(kind: str, name: str) -> ModuleType:
    """Import `edge_app.<kind>.<name>`; SettingsError for an unknown name, MissingPackage for an absent dependency."""
    if name not in known(kind):
        raise SettingsError(unknown(kind.removesuffix("s"), name, known(kind)))
    try:
        return importlib.import_module(f"{__package__}.{kind}.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith(__package__):
            raise
        raise MissingPackage(
            f"{kind}/{name} needs the package {error.name!r}, which is not installed; install calmcam again"
        ) from error

"""calmcam at the edge: finds faces in pictures, decides what they express, draws it and says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .analyzer import Analyzer as Analyzer

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    """Import `Analyzer` when it is asked for, so that `import edge_app` stays light."""
    if name == "Analyzer":
        from .analyzer import Analyzer

        return Analyzer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

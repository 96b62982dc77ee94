"""The error tree. A message says where, what was expected, what came, and what to do.

CalmcamError                 exit code 1: the run failed
├── InputError               exit code 2: what the user gave is wrong
│   ├── SourceError          a camera, file or stream that cannot be opened or read
│   │   └── TruncatedError   a source that ended early; what came before is good
│   ├── ManifestError        a model's description that does not hold
│   ├── ModelError           a model file that is missing, changed or does not fit its manifest
│   ├── SettingsError        an unknown or ill-typed setting, name or flag value
│   └── OutputError          a place that cannot be written to
├── BackendError             inference failed
│   ├── BackendUnavailable   the engine or device is not there
│   └── DeviceLost           the device was there and is not any more
└── MissingPackage           a package, or a library that it loads, is not installed
"""

from __future__ import annotations

import difflib
import errno
from collections.abc import Iterable
from pathlib import Path

_WRITE_HINTS = {
    errno.ENOSPC: "make room or name another place with -o",
    errno.EDQUOT: "make room or name another place with -o",
    errno.EACCES: "check its permissions or name another place with -o",
    errno.EPERM: "check its permissions or name another place with -o",
    errno.EPIPE: "its reader has gone away",
}


class CalmcamError(Exception):
    """Root of every error that users are meant to read."""

    exit_code = 1


class InputError(CalmcamError):
    """Something from outside is wrong."""

    exit_code = 2


class SourceError(InputError):
    """A camera, file or stream cannot be opened or read."""


class TruncatedError(SourceError):
    """A source ended before its end; the frames that came before are good."""


class ManifestError(InputError):
    """A manifest does not say what a manifest must say."""


class ModelError(InputError):
    """A model file is missing, changed, or does not fit its manifest."""


class SettingsError(InputError):
    """A setting, a name or a flag is unknown or of the wrong type."""


class OutputError(InputError):
    """An output cannot be written."""

    @classmethod
    def of(cls, path: str | Path, error: Exception) -> OutputError:
        """What an OSError, or another error with `errno` and `strerror`, says about `path`, and what to do about it."""
        do = _WRITE_HINTS.get(getattr(error, "errno", None) or 0, "name another place with -o")
        return cls(f"{path}: cannot be written ({getattr(error, 'strerror', None) or error}); {do}")


class BackendError(CalmcamError):
    """Inference failed."""


class BackendUnavailable(BackendError):
    """The engine or device is not there."""


class DeviceLost(BackendError):
    """The device answered before and does not any more."""


class MissingPackage(CalmcamError):
    """A package, or a library that it loads, is not installed."""

    @classmethod
    def of(cls, what: str, error: Exception, do: str = "install calmcam again") -> MissingPackage:
        """What an error of loading says that `what` lacks; `do` mends it, unless it is a library of the system."""
        if isinstance(error, ModuleNotFoundError):
            return cls(f"{what} needs the package {error.name!r}, which is not installed; {do}")
        do = "calmcam doctor names the package" if ".so" in str(error) else do
        return cls(f"{what} cannot be loaded ({error}); {do}")


def unknown(kind: str, name: str, known: Iterable) -> str:
    """The sentence for a name that nobody knows, with the known one that is spelt nearly so."""
    cutoff = 0.6 if len(str(name)) > 2 else 0.5  # of two letters one
    words = sorted(map(str, known))
    near = difflib.get_close_matches(str(name), words, n=1, cutoff=cutoff)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"unknown {kind} {str(name)!r}{hint} (known: {', '.join(words) or 'none'})"

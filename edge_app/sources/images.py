"""Pictures: one file, a folder, a glob pattern, or a .txt list of paths, one per line."""

from __future__ import annotations

import glob
import logging
import os
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import SourceError
from ..media import PICTURES, is_picture, listed, read_picture
from ..types import Frame

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000


class Source:
    """Pictures in natural order (2 before 10), upright, as RGB.

    A folder gives its pictures without those of its subfolders; a relative path in a list is relative to the list. The
    only picture has time 0; several lie a second apart. A picture that cannot be read is logged and kept in `failed`,
    the others go on; when none can be read, SourceError.
    """

    live = False
    fps: float | None = None

    def __init__(self, spec: str | Path) -> None:
        self.path = Path(spec)
        self.name = self.path.name or str(spec)
        self.failed: list[tuple[Path, str]] = []
        self.frames: int | None = None
        self._spec = str(spec)
        self._stopped = threading.Event()

    def __enter__(self) -> Source:
        self._stopped.clear()
        self.failed = []
        self._paths = _paths(self._spec)
        self._names = _names(self._paths)
        self.frames = len(self._paths)
        if self.frames == 1:  # a lone bad picture is an opening error
            self._first = _read(self._paths[0])
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the iteration; safe from another thread."""
        self._stopped.set()

    def __iter__(self) -> Iterator[Frame]:
        for index, (path, name) in enumerate(zip(self._paths, self._names, strict=True)):
            if self._stopped.is_set():
                return
            try:
                image, cost = self._first if self.frames == 1 else _read(path)
            except SourceError as error:
                self.failed.append((path, str(error)))
                log.warning("%s", error)
                continue
            yield Frame(image, index, index * _SECOND, name if len(self._paths) > 1 else self.name, decode_ms=cost)
        if len(self.failed) == len(self._paths):
            raise SourceError(f"{self._spec}: none of its {self.frames} pictures can be read; {self.failed[0][1]}")


def _paths(spec: str) -> list[Path]:
    """The files that `spec` means; a name that exists is never taken for a pattern."""
    path = Path(spec)
    try:
        if os.path.isdir(path):
            found = sorted(filter(_is_one, path.iterdir()), key=_natural)
            lack = "a folder with pictures, got one without"
        elif os.path.isfile(path) and path.suffix.lower() == ".txt":
            found = [path.parent / line for line in listed(path)]
            lack = "a list with one path per line, got an empty one"
        elif os.path.exists(path) or not glob.has_magic(spec):
            found, lack = [path], ""
        else:
            found = sorted(filter(_is_one, map(Path, glob.glob(spec, recursive=True))), key=_natural)
            lack = "a pattern that some picture matches, got one that none does"
    except (OSError, UnicodeError) as error:
        raise SourceError(f"{spec}: cannot be read ({error}); check its permissions and its encoding") from error
    if not found:
        raise SourceError(f"{spec}: expected {lack} (known: {' '.join(sorted(PICTURES))})")
    return found


def _names(paths: Sequence[Path]) -> list[str]:
    """The file's name, or the path below their common folder where several files have that name."""
    times = Counter(path.name for path in paths)
    common = os.path.commonpath([path.parent.absolute() for path in paths])
    return [path.name if times[path.name] == 1 else os.path.relpath(path.absolute(), common) for path in paths]


def _is_one(path: Path) -> bool:
    return is_picture(path.name) and os.path.isfile(path)


def _read(path: Path) -> tuple[np.ndarray, float]:
    """A picture and the milliseconds that it took."""
    begun = time.perf_counter()
    image = read_picture(path)
    return image, (time.perf_counter() - begun) * 1e3


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sort key that takes runs of digits as numbers."""
    parts = re.split(r"([0-9]+)", str(path).lower())
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]

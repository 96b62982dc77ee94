"""Annotated single pictures."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import cv2

from .. import types
from ..errors import InputError, OutputError
from ..media import COPIES
from ..types import Result

JPEG_QUALITY = 95


class Sink(types.Sink):
    """Writes the first picture to `path`, further ones beside it with their index in the name; each at once and whole.

    The suffix of `path` (.jpg, .jpeg, .png, .webp) names the format.
    """

    name = "encode"

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._suffix = self._path.suffix.lower()
        if self._suffix not in COPIES:
            raise OutputError(
                f"{path}: expected a name that ends with {' '.join(sorted(COPIES))}, got {self._suffix!r}"
            )

    def __enter__(self) -> Sink:
        self._count = 0
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError.of(self._path, error) from error
        return self

    def write(self, result: Result) -> None:
        """Encode and write one picture; OutputError when the place, InputError when the format cannot hold it."""
        image = result.frame.image if result.picture is None else result.picture
        path = self._path
        if self._count:
            path = path.with_stem(f"{path.stem}_{result.frame.index:04d}")
        self._write(path, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        self._count += 1

    def _write(self, path: Path, image: cv2.typing.MatLike) -> None:
        part = Path(f"{path}.part")
        try:
            part.write_bytes(_encoded(path, self._suffix, image))
            os.replace(part, path)
        except OSError as error:
            with suppress(OSError):
                part.unlink(missing_ok=True)
            raise OutputError.of(path, error) from error


def _encoded(path: Path, suffix: str, image: cv2.typing.MatLike) -> bytes:
    try:
        quality = (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY) if suffix in (".jpg", ".jpeg") else ()
        done, data = cv2.imencode(suffix, image, quality)
    except cv2.error:  # OpenCV 4 raises what OpenCV 5 returns
        done, data = False, None
    if not done:
        height, width = image.shape[:2]
        raise InputError(f"{path}: {suffix} cannot hold {width} x {height} pixels; annotate it as .png")
    return data.tobytes()

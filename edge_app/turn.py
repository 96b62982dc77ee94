"""Pictures of a camera that hangs upside down, lies on its side, or is to look like a mirror."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Self

import cv2
import numpy as np

from .types import Frame

TURNS = {0: None, 90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}


class Turned(AbstractContextManager):
    """`source` with each picture turned by `rotate` degrees clockwise, then mirrored; all else is the source's own."""

    def __init__(self, source: Any, rotate: int = 0, *, mirror: bool = False) -> None:
        self._source, self._turn, self._mirror = source, TURNS[rotate], mirror

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def __enter__(self) -> Self:
        self._source.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._source.__exit__(*exc)

    def __iter__(self) -> Iterator[Frame]:
        for frame in self._source:
            begun = time.perf_counter()
            image = self._turned(frame.image)
            yield replace(frame, image=image, decode_ms=frame.decode_ms + (time.perf_counter() - begun) * 1e3)

    def _turned(self, image: np.ndarray) -> np.ndarray:
        if self._turn is not None:
            image = cv2.rotate(image, self._turn)
        return cv2.flip(image, 1) if self._mirror else image

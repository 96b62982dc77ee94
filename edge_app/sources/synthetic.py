"""Frames drawn from the NASA portrait by pan and zoom over a plain background, so that every frame has a ground truth.

The portrait of Eileen Collins (NASA, public domain) is the one that scikit-image ships as `data.astronaut`.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from ..errors import SourceError
from ..types import Frame

PORTRAIT = Path(__file__).parent.parent / "astronaut.jpg"
_HEAD = (90, 0, 370, 280)  # x1 y1 x2 y2 px of the portrait: head and shoulders
_FACE = np.array([83, 67, 187, 171], np.float32) / 280  # MediaPipe full range's box there, as shares of _HEAD's side
_WHOLE = np.array([0, 0, 1, 1], np.float32)
_GREY = (176, 172, 168)
_PAN_SECONDS, _ZOOM_SECONDS = 8.0, 6.0


class Source:
    """`faces` copies of a portrait that wander and breathe; the same index always gives the same pixels.

    `spec` is "synthetic" or "synthetic:<faces>". `fail_at` makes the frame of that index raise SourceError.
    """

    live = False

    def __init__(
        self,
        spec: str = "synthetic",
        *,
        width: int = 1280,
        height: int = 720,
        fps: float = 30,
        count: int | None = None,
        picture: Path | None = None,
        faces: int = 1,
        fail_at: int | None = None,
    ) -> None:
        self.name, self.fps, self.frames, self._size = "synthetic", float(fps), count, (width, height)
        self._faces = _faces(spec, faces)
        self._picture, self._fail_at = picture, fail_at
        self._box = _FACE if picture is None else _WHOLE
        self._stopped = threading.Event()

    def __enter__(self) -> Source:
        self._sprite = _sprite(self._picture)
        width, height = self._size
        self._background = np.full((height, width, 3), _GREY, np.uint8)
        self._stopped.clear()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End the iteration; safe from another thread."""
        self._stopped.set()

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while not self._stopped.is_set() and index != self.frames:
            if index == self._fail_at:
                raise SourceError(f"{self.name}: camera unplugged at frame {index}, as asked by fail_at")
            begun = time.perf_counter()
            image = self.render(index)
            cost = (time.perf_counter() - begun) * 1e3
            moment, end = round(index * 1e9 / self.fps), round((index + 1) * 1e9 / self.fps)
            yield Frame(image, index, moment, self.name, decode_ms=cost, duration_ns=end - moment)
            index += 1

    def render(self, index: int) -> np.ndarray:
        """The picture (height, width, 3) uint8 RGB of that index."""
        image = self._background.copy()
        for left, top, side in self._squares(index):
            sprite = cv2.resize(self._sprite, (side, side), interpolation=cv2.INTER_LINEAR)
            image[top : top + side, left : left + side] = sprite
        return image

    def boxes(self, index: int) -> np.ndarray:
        """Where the faces of that frame are: (faces, 4) float32 x1 y1 x2 y2 px; whole copies for another `picture`."""
        squares = np.array(self._squares(index), np.float32).reshape(-1, 3)
        corners = np.column_stack([squares[:, :2], squares[:, :2]])
        return corners + squares[:, 2:] * self._box

    def _squares(self, index: int) -> list[tuple[int, int, int]]:
        """Left, top and side in pixels of every copy, each inside a cell of its own."""
        columns = math.ceil(math.sqrt(self._faces))
        rows = math.ceil(self._faces / max(columns, 1))
        squares = []
        for number in range(self._faces):
            row, column = divmod(number, columns)
            cell_width, cell_height = self._size[0] / columns, self._size[1] / rows
            second = index / self.fps + 1.3 * number  # every copy has a phase of its own
            zoom = 0.8 + 0.15 * math.sin(2 * math.pi * second / _ZOOM_SECONDS)
            side = max(1, int(min(cell_width, cell_height) * zoom))
            pan = 2 * math.pi * second / _PAN_SECONDS
            left = column * cell_width + (cell_width - side) * (0.5 + 0.45 * math.sin(pan))
            top = row * cell_height + (cell_height - side) * (0.5 + 0.45 * math.cos(1.5 * pan))
            squares.append((int(left), int(top), side))
        return squares


def _faces(spec: str, faces: int) -> int:
    name, _, number = spec.partition(":")
    if name != "synthetic" or (number and not number.isdecimal()):
        raise SourceError(f"{spec!r}: expected 'synthetic' or 'synthetic:<number of faces>'")
    return int(number) if number else faces


def _sprite(picture: Path | None) -> np.ndarray:
    image = cv2.imread(str(picture or PORTRAIT), cv2.IMREAD_COLOR)
    if image is None:
        raise SourceError(f"{picture or PORTRAIT}: expected a picture to draw frames from, could not read one")
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    if picture is not None:
        return image
    x1, y1, x2, y2 = _HEAD
    return np.ascontiguousarray(image[y1:y2, x1:x2])

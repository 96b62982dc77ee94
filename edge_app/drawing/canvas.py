"""Place and draw boxes, tags, charts and lines on one picture so that nothing covers a face or another text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from . import text

BACKING = 0.25  # what is left of the picture's light behind charts and lines
SMALLEST = 12  # px, of text
CHART_FROM, CHART_TO = 0.5, 0.4  # of a chart's height: a face at least so tall gets one; below that it goes again
TEXT_SHARE = 0.028  # of the picture's shorter side
CHART_SHARE = 0.8  # of the text size
CHART_ROWS = 9
EDGE = (24, 24, 24)

Colour = tuple[int, int, int]  # RGB


class Rect(NamedTuple):
    """Whole pixels, exclusive ends."""

    x1: int
    y1: int
    x2: int
    y2: int

    def meets(self, other: Rect) -> bool:
        return self.x1 < other.x2 and other.x1 < self.x2 and self.y1 < other.y2 and other.y1 < self.y2

    def inside(self, width: int, height: int) -> bool:
        return self.x1 >= 0 and self.y1 >= 0 and self.x2 <= width and self.y2 <= height

    def clipped(self, width: int, height: int) -> Rect:
        """Cut to the picture."""
        x1, x2 = (min(max(x, 0), width) for x in (self.x1, self.x2))
        y1, y2 = (min(max(y, 0), height) for y in (self.y1, self.y2))
        return Rect(x1, y1, x2, y2)

    def moved_inside(self, width: int, height: int) -> Rect:
        """The same size, moved into the picture as far as it fits."""
        top = max(0, min(self.y1, height - (self.y2 - self.y1)))
        return self._replace(y1=top, y2=top + self.y2 - self.y1).moved_sideways(width)

    def moved_sideways(self, width: int) -> Rect:
        """The same size and height in the picture, between its left and right edge as far as it fits."""
        left = max(0, min(self.x1, width - (self.x2 - self.x1)))
        return self._replace(x1=left, x2=left + self.x2 - self.x1)


class Canvas:
    """One picture while it is drawn upon, with what is taken on it. Draws into `image` (H, W, 3) uint8."""

    def __init__(self, image: np.ndarray, faces: list[Rect]):
        self._image, self._faces = image, faces
        self._height, self._width = image.shape[:2]
        self._size = text_size(self._width, self._height)
        self._stroke = max(2, round(self._size / 9))
        self._taken: list[Rect] = []

    def box(self, box: Rect, colour: Colour) -> None:
        """A frame around a face with a thin dark edge, so that it stands out on any ground; kept inside the picture.

        It stands inside the box; around a small face outside it, or little would be left to see.
        """
        pad = self._stroke // 2 + 1
        box = self._outer(box).clipped(self._width, self._height)
        corners = (box.x1 + pad, box.y1 + pad), (box.x2 - 1 - pad, box.y2 - 1 - pad)
        cv2.rectangle(self._image, *corners, EDGE, self._stroke + 2)
        cv2.rectangle(self._image, *corners, colour, self._stroke)

    def tag(self, box: Rect, colour: Colour, caption: str, number: str, held: int | None = None) -> int | None:
        """Label and track number on the face's colour: above the face, else below, else where there is room.

        Returns which of its places it took, for the next picture: it stays at `held` while there is room.
        """
        bitmap = _tag(caption, number, colour, self._size)
        tall, wide = bitmap.shape[:2]
        face, box = box, self._outer(box)
        lefts = (box.x1, box.x2 - wide, (box.x1 + box.x2 - wide) // 2)
        tops = (box.y1 - tall, box.y2, box.y1 - 2 * tall, box.y2 + tall)
        inner = Rect(box.x1, box.y1, box.x1 + wide, box.y1 + tall)
        spots = [Rect(x, y, x + wide, y + tall) for y in tops for x in lefts] + [inner]
        spots = [spot.moved_sideways(self._width) for spot in spots]
        place = self._place(spots, face, held)
        self._paste(bitmap, inner if place is None else spots[place])
        return place

    def chart(self, box: Rect, colour: Colour, values: Mapping[str, float], held: int | None = None) -> int | None:
        """Bars of `values` (name -> 0..1) beside, below or above the face; none where it would cover something.

        Returns which of its places it took, or None, as `tag` does.
        """
        if not values:
            return None
        chart = _chart(tuple(values), max(SMALLEST - 1, round(self._size * CHART_SHARE)))
        tall, wide = chart.panel.shape[:2]
        if box.y2 - box.y1 < tall * (CHART_FROM if held is None else CHART_TO):
            return None
        spots = list(self._beside(box, tall, wide))
        place = self._place(spots, held=held)
        if place is None:
            return None
        spot = spots[place]
        self._shade(chart.panel, spot)
        left = spot.x1 + chart.start
        for index, value in enumerate(values.values()):
            first, last = chart.bar(index)
            length = max(1, round(chart.full * min(max(value, 0.0), 1.0)))
            cv2.rectangle(self._image, (left, spot.y1 + first), (left + length - 1, spot.y1 + last), colour, cv2.FILLED)
        return place

    def _beside(self, box: Rect, tall: int, wide: int) -> Iterator[Rect]:
        """Where a chart may stand: right, left, under or over the face, there also with room for its label between."""
        gap = self._stroke + 2
        label = text.height(self._size) + gap
        for x in (box.x2 + gap, box.x1 - gap - wide):
            for y in (box.y1, box.y2 - tall):
                yield Rect(x, y, x + wide, y + tall)
        for y in (box.y2 + gap, box.y2 + gap + label, box.y1 - gap - tall, box.y1 - gap - label - tall):
            yield Rect(box.x1, y, box.x1 + wide, y + tall).moved_sideways(self._width)

    def _outer(self, box: Rect) -> Rect:
        """Where the frame around a face ends."""
        pad = self._stroke + 2
        if min(box.x2 - box.x1, box.y2 - box.y1) >= 5 * pad:
            return box
        return Rect(box.x1 - pad, box.y1 - pad, box.x2 + pad, box.y2 + pad)

    def corner(self, caption: str) -> None:
        """One line in the lower left corner."""
        panel = _strip(caption, self._size)
        spot = Rect(0, self._height - panel.shape[0], panel.shape[1], self._height)
        self._shade(panel, spot.clipped(self._width, self._height))
        self._taken.append(spot)

    def _place(self, spots: Sequence[Rect], own: Rect | None = None, held: int | None = None) -> int | None:
        """Number of the first spot, `held` before all, that is in the picture and covers nothing but perhaps `own`.

        It is taken from then on.
        """
        others = [face for face in self._faces if face is not own]
        for place in [*([] if held is None else [held]), *range(len(spots))]:
            spot = spots[place]
            if spot.inside(self._width, self._height) and not any(map(spot.meets, self._taken + others)):
                self._taken.append(spot)
                return place
        return None

    def _paste(self, bitmap: np.ndarray, spot: Rect) -> None:
        spot = spot.moved_inside(self._width, self._height)
        part = self._image[spot.y1 : spot.y2, spot.x1 : spot.x2]
        part[:] = bitmap[: part.shape[0], : part.shape[1]]

    def _shade(self, panel: np.ndarray, spot: Rect) -> None:
        """Darken the picture under `panel` (h, w, 3) and put the panel's light on it."""
        part = self._image[spot.y1 : spot.y2, spot.x1 : spot.x2]
        dark = cv2.convertScaleAbs(part, alpha=BACKING)
        cv2.max(dark, np.ascontiguousarray(panel[: part.shape[0], : part.shape[1]]), dst=dark)
        part[:] = dark


@lru_cache(maxsize=32)
def _tag(caption: str, number: str, colour: Colour, size: int) -> np.ndarray:
    """Caption in dark ink on `colour`, then the track number on a dark ground: (h, w, 3) uint8, read only."""
    parts = [_plate(caption, size, colour, EDGE)]
    if number:
        parts.append(_plate(number, size, EDGE, colour))
    return np.hstack(parts)


def _plate(caption: str, size: int, ground: Colour, ink: Colour) -> np.ndarray:
    pad = max(2, size // 4)
    mask = np.pad(text.line(caption, size), ((pad // 2, pad // 2), (pad, pad)))[..., None] / np.float32(255)
    return np.rint(np.float32(ground) * (1 - mask) + np.float32(ink) * mask).astype(np.uint8)


class Chart(NamedTuple):
    """What stays the same of a bar chart: names in white and empty bars on black, laid over a darkened picture."""

    panel: np.ndarray  # (h, w, 3) uint8
    row: int  # px, height of a row
    top: int  # px, of the first row
    start: int  # px, where bars begin
    full: int  # px, length of a bar of probability 1

    def bar(self, index: int) -> tuple[int, int]:
        """Top and bottom (inclusive) of bar `index`."""
        top = self.top + index * self.row + self.row // 4
        return top, top + self.row // 2


@lru_cache(maxsize=8)
def _chart(names: tuple[str, ...], size: int) -> Chart:
    lines = [text.line(name, size) for name in names]
    row, pad, full = text.height(size) + size // 6, size // 2, size * 5
    start = pad + max(line.shape[1] for line in lines) + pad
    panel = np.zeros((len(lines) * row + 2 * (pad // 2), start + full + pad, 3), np.uint8)
    chart = Chart(panel, row, pad // 2, start, full)
    for index, ink in enumerate(lines):
        top = chart.top + index * row + (row - ink.shape[0]) // 2
        panel[top : top + ink.shape[0], pad : pad + ink.shape[1]] = ink[..., None]
        first, last = chart.bar(index)
        panel[first : last + 1, start : start + full] = 88
    return chart


def _strip(caption: str, size: int) -> np.ndarray:
    """White on black (h, w, 3) uint8."""
    pad = size // 3
    mask = np.pad(text.line(caption, size), ((pad // 2, pad // 2), (pad, pad)))
    return np.repeat(mask[..., None], 3, axis=2)


def text_size(width: int, height: int) -> int:
    """Text size in px that reads well on a picture of this size."""
    return max(SMALLEST, round(min(width, height) * TEXT_SHARE))

"""Text as small bitmaps. OpenCV 4 draws no Hangul and Pillow is slow, so each glyph is rendered once and kept."""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from importlib.resources import files
from math import ceil

import numpy as np
from PIL import Image, ImageDraw, ImageFont

FONT = "fonts/calmcam-sans-kr.ttf"
ASCENT, DESCENT = 0.86, 0.29  # of the size in px: the font's tallest bracket, the tails of g and y


def height(size: int) -> int:
    """Height in px of a line of `size`."""
    return ceil(size * ASCENT) + ceil(size * DESCENT)


@lru_cache(maxsize=32)
def line(text: str, size: int) -> np.ndarray:
    """`text` as an alpha mask (height(size), W) uint8, 255 where it is ink; not to be written to.

    Hangul that a file system took apart (NFD) is put together again: the font has syllables only.
    """
    text = unicodedata.normalize("NFC", text)
    glyphs = [_glyph(character, size) for character in text]
    ends = np.cumsum([0.0, *(advance for _, advance in glyphs)])
    mask = np.zeros((height(size), ceil(ends[-1]) + 2), np.uint8)
    for (ink, _), start in zip(glyphs, ends[:-1], strict=True):
        part = mask[:, round(start) : round(start) + ink.shape[1]]
        np.maximum(part, ink[:, : part.shape[1]], out=part)
    mask.flags.writeable = False
    return mask


@lru_cache(maxsize=4096)
def _glyph(character: str, size: int) -> tuple[np.ndarray, float]:
    """One character as alpha mask (height(size), W) uint8, and its advance in px."""
    font = _font(size)
    character = _drawable(character, font)
    advance = font.getlength(character)
    picture = Image.new("L", (max(1, ceil(advance) + 2), height(size)))
    ImageDraw.Draw(picture).text((0, ceil(size * ASCENT)), character, font=font, fill=255, anchor="ls")
    return np.asarray(picture), advance


def _drawable(character: str, font: ImageFont.FreeTypeFont) -> str:
    """The character, or its base letter without accents, or a question mark: the font draws nothing for the unknown."""
    for candidate in (character, unicodedata.normalize("NFKD", character)[0]):
        if candidate.isspace() or font.getmask(candidate).getbbox():
            return candidate
    return "?"


@lru_cache(maxsize=64)
def _font(size: int) -> ImageFont.FreeTypeFont:
    with files(__package__).joinpath(FONT).open("rb") as stream:
        return ImageFont.truetype(stream, size, layout_engine=ImageFont.Layout.BASIC)

"""Media files: which files are some by their name, and what a picture file holds, the same for edge and trainer."""

from __future__ import annotations

import io
import logging
import os
import struct
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from .errors import SourceError

log = logging.getLogger(__name__)

PICTURES = frozenset(
    ".jpg .jpeg .jfif .png .bmp .webp .tif .tiff .gif .jp2 .ppm .pgm .pbm .tga .heic .heif .avif".split()
)
VIDEOS = frozenset(
    ".mp4 .m4v .mov .mkv .webm .avi .mpg .mpeg .ts .mts .m2ts .wmv .flv .3gp .ogv .mjpg .mjpeg .h264 .h265".split()
)
KINDS = frozenset("AVIF BMP DIB GIF JPEG JPEG2000 MPO PNG PPM TGA TIFF WEBP".split())  # of Pillow, behind those names
COPIES = frozenset((".jpg", ".jpeg", ".png", ".webp"))  # of pictures; others cannot hold 8-bit RGB as well
LIMIT_MEGAPIXELS = 100
# What Pillow's decoders are known to raise on damaged files; OSError includes UnidentifiedImageError.
_PILLOW_ERRORS = (OSError, ValueError, SyntaxError, EOFError, TypeError, LookupError, struct.error, MemoryError)


def pictures_below(folder: Path) -> Iterator[Path]:
    """The picture files in `folder` and its subfolders, by name, in order; hidden files and folders are left out.

    A warning tells of clips, which hold no single picture.
    """
    clips = []
    for place, _, files in walk(folder):
        clips += [name for name in files if Path(name).suffix.lower() in VIDEOS]
        yield from (place / name for name in files if is_picture(name))
    if clips:
        log.warning("%s: %d clips are left out, %s for one; calmcam crop cuts faces out", folder, len(clips), clips[0])


def walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """`os.walk` in order, without what is hidden, also into linked folders, into each once and into none above.

    A warning tells of folders that cannot be read.
    """
    seen = {str(above) for above in Path(os.path.realpath(folder)).parents}
    for place, folders, files in os.walk(folder, onerror=_tell_closed, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(place), folders, sorted(name for name in files if not name.startswith("."))


def _tell_closed(error: OSError) -> None:
    log.warning("%s: a folder that cannot be read is left out (%s)", error.filename, error.strerror)


def is_picture(name: str) -> bool:
    """Whether a file of that name is a picture, and not a hidden one."""
    return Path(name).suffix.lower() in PICTURES and not name.startswith(".")


def listed(path: Path) -> list[str]:
    """The lines of a text file that names media files, without blank ones and those that begin with `#`.

    OSError and UnicodeError when it cannot be read.
    """
    lines = (line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def check_file(path: Path, what: str) -> None:
    """SourceError unless `path`, which should be a `what`, can be read and holds something; a pipe would never end."""
    if os.path.exists(path) and not os.path.isfile(path):  # pathlib raises where a folder above is closed
        raise SourceError(f"{path}: expected a {what} file, got a pipe, a device or a folder")
    try:
        with path.open("rb") as file:
            empty = not file.read(1)
    except FileNotFoundError:
        raise SourceError(f"{path}: there is no such file") from None
    except OSError as error:
        raise SourceError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    if empty:
        raise SourceError(f"{path}: expected a {what}, got an empty file of zero bytes")


def read_picture(path: Path) -> np.ndarray:
    """`decode_picture` of the file at `path`; SourceError also when it cannot be read."""
    return decode_picture(picture_bytes(path), path)


def picture_bytes(path: Path) -> bytes:
    """Content of a picture file; SourceError as `check_file` raises it."""
    check_file(path, "picture")
    return path.read_bytes()


def decode_picture(raw: bytes, path: Path) -> np.ndarray:
    """A picture file's content as (H, W, 3) uint8 RGB; SourceError, which names `path`, says what is wrong with it.

    EXIF orientation is applied; what is transparent is laid on white; 16 bits become 8; the colours of a wide-gamut
    profile become sRGB's; of an animation the first frame is taken, and a warning tells of the others.
    """
    try:
        # Pillow warns of odd metadata and of sizes; the size is checked here.
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(raw), formats=_formats()) as picture:
            _check_size(path, *picture.size)
            if getattr(picture, "n_frames", 1) > 1 and picture.format != "MPO":  # a phone's JPEG with its small copies
                _warn_of_more(path, picture.n_frames)
            return np.array(_to_rgb(picture))
    except Image.DecompressionBombError as error:
        raise SourceError(f"{path}: expected at most {LIMIT_MEGAPIXELS} megapixels ({error})") from error
    except _PILLOW_ERRORS as error:
        raise SourceError(f"{path}: {_why_unreadable(path, error)}") from error


@cache
def _formats() -> tuple[str, ...]:
    """The kinds that PICTURES promises, as far as this Pillow has them; others may start programs (EPS, Ghostscript)."""
    Image.init()
    return tuple(sorted(KINDS & Image.OPEN.keys()))


@cache
def _warn_of_more(path: Path, pictures: int) -> None:
    """Once per file."""
    log.warning("%s: of its %d pictures only the first is read; make a video of them to have all", path, pictures)


def _check_size(path: Path, width: int, height: int) -> None:
    if width * height > LIMIT_MEGAPIXELS * 1_000_000:
        raise SourceError(
            f"{path}: expected at most {LIMIT_MEGAPIXELS} megapixels, got {width} x {height}; make it smaller first"
        )


def _to_rgb(picture: Image.Image) -> Image.Image:
    picture = ImageOps.exif_transpose(picture)
    if picture.mode in ("F", "I") or picture.mode.startswith("I;16"):
        return Image.fromarray(_to_8_bits(np.asarray(picture))).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        flat = Image.alpha_composite(white, picture).convert("RGB")
    else:
        flat = picture.convert("RGB")
    return _in_srgb(flat, picture.info.get("icc_profile"))


def _in_srgb(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """An RGB picture whose colours `profile` (ICC) describes; as it is where that is none for RGB, or is damaged."""
    if not profile:
        return picture
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.profileToProfile(picture, own, ImageCms.createProfile("sRGB")) or picture
    except (OSError, ImageCms.PyCMSError) as error:
        log.debug("colour profile: %s", error)
        return picture


def _to_8_bits(values: np.ndarray) -> np.ndarray:
    """Grey values (H, W) scaled to uint8: integers from 16 bits, floats from 0..1, 0..255 or 0..their peak."""
    peak = 65535.0
    if values.dtype.kind == "f":
        top = float(np.nanmax(values))
        peak = 1.0 if top <= 1 else max(255.0, top)
    return np.clip(np.nan_to_num(values) * (255 / peak) + 0.5, 0, 255).astype(np.uint8)


def _why_unreadable(path: Path, error: Exception) -> str:
    if path.suffix.lower() in (".heic", ".heif"):
        return "HEIC pictures cannot be read here; convert it to JPEG first"
    why = "" if isinstance(error, UnidentifiedImageError) else f" ({str(error) or type(error).__name__})"
    return f"expected a picture, got something that is none or is damaged{why}"

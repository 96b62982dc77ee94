"""What a camera device says of itself, asked of the kernel: Video4Linux2 (linux/videodev2.h), without a package."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

QUERYCAP, ENUM_FMT, REQBUFS, ENUM_FRAMESIZES = 0x80685600, 0xC0405602, 0xC0145608, 0xC02C564A  # VIDIOC_
_CAPTURE, _MEMORY_MMAP, _DISCRETE = 1, 1, 1  # of V4L2_CAP_, V4L2_BUF_TYPE_, V4L2_MEMORY_ and V4L2_FRMSIZE_TYPE_


@dataclass(frozen=True, slots=True)
class Camera:
    """One capture device of this machine."""

    path: str
    name: str
    driver: str = ""
    formats: tuple[tuple[str, tuple[tuple[int, int], ...]], ...] = ()  # ("MJPG", ((1280, 720), ...)), largest first
    problem: str = ""  # why it cannot be asked; "" when it can


def cameras() -> list[Camera]:
    """The capture devices of this machine, in the order of their numbers."""
    nodes = [path for path in Path("/dev").glob("video*") if path.name[5:].isdecimal()]
    found = (describe(str(path)) for path in sorted(nodes, key=lambda path: int(path.name[5:])))
    return [camera for camera in found if camera]


def describe(path: str) -> Camera | None:
    """What one node says about itself; None for a node that gives no pictures (metadata, codecs)."""
    try:
        node = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        label = Path("/sys/class/video4linux") / Path(path).name / "name"
        name = label.read_text(encoding="utf-8").strip() if label.is_file() else Path(path).name
        return Camera(path, name, problem=os.strerror(error.errno or 0))
    try:
        driver, name, captures = _capability(node)
        return Camera(path, name, driver, tuple(_formats(node))) if captures else None
    except OSError as error:
        return None if error.errno == errno.ENOTTY else Camera(path, Path(path).name, problem=str(error.strerror))
    finally:
        os.close(node)


def _capability(node: int) -> tuple[str, str, bool]:
    """Driver, name, and whether it captures pictures (struct v4l2_capability)."""
    driver, card, _, _, whole, own = struct.unpack("16s32s32sIII12x", fcntl.ioctl(node, QUERYCAP, bytes(104)))
    caps = own or whole
    return _text(driver), _text(card), bool(caps & _CAPTURE)


def _formats(node: int) -> Iterator[tuple[str, tuple[tuple[int, int], ...]]]:
    """Pixel formats with their sizes (struct v4l2_fmtdesc)."""
    for index in range(64):
        try:
            answer = fcntl.ioctl(node, ENUM_FMT, struct.pack("II56x", index, _CAPTURE))
        except OSError:  # EINVAL: there are no more
            return
        code = answer[44:48]
        yield code.decode("ascii", "replace").strip(), tuple(sorted(_sizes(node, code), reverse=True))


def _sizes(node: int, code: bytes) -> Iterator[tuple[int, int]]:
    """Widths and heights of one format, the largest for a stepwise one (struct v4l2_frmsizeenum)."""
    for index in range(256):
        try:
            answer = fcntl.ioctl(node, ENUM_FRAMESIZES, struct.pack("I4s36x", index, code))
        except OSError:  # EINVAL: there are no more
            return
        kind, first, second, _, _, height = struct.unpack("8xIIIIII12x", answer)
        yield (first, second) if kind == _DISCRETE else (second, height)
        if kind != _DISCRETE:
            return


def captures(node: int) -> bool:
    """Whether an open node gives pictures; OSError (ENOTTY) for what is no video device."""
    return _capability(node)[2]


def claim(node: int) -> None:
    """Ask for a buffer, which only one program may have; OSError (EBUSY) when another one has it."""
    fcntl.ioctl(node, REQBUFS, struct.pack("III8x", 1, _CAPTURE, _MEMORY_MMAP))


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "replace")

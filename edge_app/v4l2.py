"""What a camera device says of itself, asked of the kernel: Video4Linux2 (linux/videodev2.h), without a package."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DEVICES = Path("/dev")
QUERYCAP, ENUM_FMT, REQBUFS = 0x80685600, 0xC0405602, 0xC0145608  # VIDIOC_
_CAPTURE, _MEMORY_MMAP = 1, 1  # of V4L2_CAP_, V4L2_BUF_TYPE_ and V4L2_MEMORY_
_IO_MC = 0x20000000  # V4L2_CAP_: a part of a camera, as those on a Pi's ribbon have, which libcamera puts together
_NO_CAMERA = b"bcm2835-isp"  # such a part, of a Pi before the 5, that does not say so


@dataclass(frozen=True, slots=True)
class Camera:
    """One capture device of this machine."""

    path: str
    name: str
    formats: tuple[str, ...] = ()  # "MJPG", "YUYV", ... (V4L2_PIX_FMT_)
    problem: str = ""  # why it cannot be asked; "" when it can


def cameras() -> list[Camera]:
    """The capture devices of this machine, in the order of their numbers."""
    nodes = [path for path in DEVICES.glob("video*") if path.name[5:].isdecimal()]
    found = (describe(str(path)) for path in sorted(nodes, key=lambda path: int(path.name[5:])))
    return [camera for camera in found if camera]


def describe(path: str) -> Camera | None:
    """What one node says about itself; None for one that gives no pictures (metadata, codecs, parts of a camera)."""
    try:
        node = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError as error:
        label = Path("/sys/class/video4linux") / Path(path).name / "name"
        name = label.read_text(encoding="utf-8").strip() if label.is_file() else Path(path).name
        return Camera(path, name, problem=os.strerror(error.errno or 0))
    try:
        name, captures = _capability(node)
        return Camera(path, name, tuple(_formats(node))) if captures else None
    except OSError as error:
        return None if error.errno == errno.ENOTTY else Camera(path, Path(path).name, problem=str(error.strerror))
    finally:
        os.close(node)


def _capability(node: int) -> tuple[str, bool]:
    """Name, and whether it captures pictures by itself (struct v4l2_capability)."""
    driver, card, _, whole, own = struct.unpack("16s32s32xIII12x", fcntl.ioctl(node, QUERYCAP, bytes(104)))
    captures = (own or whole) & (_CAPTURE | _IO_MC) == _CAPTURE and driver.rstrip(b"\0") != _NO_CAMERA
    return card.split(b"\0", 1)[0].decode("utf-8", "replace"), captures


def _formats(node: int) -> Iterator[str]:
    """Codes of the pixel formats (struct v4l2_fmtdesc)."""
    for index in range(64):
        try:
            answer = fcntl.ioctl(node, ENUM_FMT, struct.pack("II56x", index, _CAPTURE))
        except OSError:  # EINVAL: there are no more
            return
        yield answer[44:48].decode("ascii", "replace").strip()


def captures(node: int) -> bool:
    """Whether an open node gives pictures by itself; OSError (ENOTTY) for what is no video device."""
    return _capability(node)[1]


def claim(node: int) -> None:
    """Ask for a buffer, which only one program may have; OSError (EBUSY) when another one has it."""
    fcntl.ioctl(node, REQBUFS, struct.pack("III8x", 1, _CAPTURE, _MEMORY_MMAP))

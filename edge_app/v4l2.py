"""What a camera device says of itself, asked of the kernel: Video4Linux2 (linux/videodev2.h), without a package."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator
from pathlib import Path

_QUERYCAP, _CAPABILITY = 0x80685600, struct.Struct("16s32s32sIII12x")  # VIDIOC_QUERYCAP, struct v4l2_capability
_ENUM_FMT, _FORMAT = 0xC0405602, struct.Struct("III32s4s16x")  # VIDIOC_ENUM_FMT, struct v4l2_fmtdesc
_VIDEO_CAPTURE = 1  # as capability bit and as buffer type


def capture_formats(device: Path) -> list[str] | None:
    """Four-letter pixel formats ("MJPG", "YUYV") that a device captures; None when it is no capture device.

    OSError (PermissionError, or ENOTTY for what is no video device) when it cannot be asked.
    """
    handle = os.open(device, os.O_RDWR | os.O_NONBLOCK)
    try:
        answer = _CAPABILITY.unpack(fcntl.ioctl(handle, _QUERYCAP, bytes(_CAPABILITY.size)))
        if not answer[-1] & _VIDEO_CAPTURE:
            return None
        return list(_formats(handle))
    finally:
        os.close(handle)


def _formats(handle: int) -> Iterator[str]:
    for index in range(64):
        question = _FORMAT.pack(index, _VIDEO_CAPTURE, 0, b"", b"")
        try:
            answer = _FORMAT.unpack(fcntl.ioctl(handle, _ENUM_FMT, question))
        except OSError:  # EINVAL: there are no more
            return
        yield answer[-1].decode("ascii", "replace").strip()

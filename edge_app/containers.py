"""Where an open media file begins and ends as its header has it, in ns; None where the header does not say."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_SECOND = 1_000_000_000
_ENDS = ("matroska,webm", "asf")  # what they call a duration is the end's time stamp


def ns(stamp: int | None, base: Fraction) -> int:
    """A time stamp in units of `base` seconds, 0 for none."""
    return round((stamp or 0) * base * _SECOND)


def origin_ns(container: InputContainer) -> int:
    """The container's start: the earliest time stamp of its pictures and sounds. From it media time counts."""
    streams = [*container.streams.video, *container.streams.audio]
    return min((ns(s.start_time, s.time_base) for s in streams if s.start_time is not None), default=0)


def pictures_begin_ns(container: InputContainer, stream: VideoStream) -> int:
    """Media time of the first picture of `stream`."""
    return ns(stream.start_time, stream.time_base) - origin_ns(container)


def pictures_end_ns(container: InputContainer, stream: VideoStream) -> int | None:
    """Media time at which the pictures of `stream` end."""
    begin = ns(stream.start_time, stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))  # Matroska's
    if container.format.name == "avi" and stream.frames:  # its duration is what libav found there
        end = begin + ns(stream.frames, stream.time_base)
    elif stream.duration:
        end = ns(stream.duration, stream.time_base) + (0 if container.format.name in _ENDS else begin)
    elif tag:
        end = (int(tag[1]) * 3600 + int(tag[2]) * 60) * _SECOND + round(Fraction(tag[3]) * _SECOND)
    else:
        return None
    return end - origin_ns(container)


def end_ns(container: InputContainer) -> int | None:
    """Media time at which everything ends."""
    if not container.duration:
        return None
    return container.duration * 1000 - (origin_ns(container) if container.format.name in _ENDS else 0)

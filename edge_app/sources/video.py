"""Video files through PyAV: rotation, time stamps and variable frame rates are kept, any container is read."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.format import Flags as Format
from av.stream import Disposition

from ..containers import end_ns, origin_ns, pictures_begin_ns, pictures_end_ns
from ..decoded import ToRgb
from ..errors import SourceError, TruncatedError
from ..media import check_file
from ..types import Frame

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
_TOLERATED_GAP = 0.5  # s, and two pictures: may be missing at the end, as headers round and last durations are unknown
_ROUNDED = 500  # ns that a time may be off which was written in microseconds, as those in results are
_SEEK_BACK = (0.0, 2.0, 10.0)  # s before `start`: a container without an index may land behind the key frame it needs
_GUESSED_AFTER_SEEK = ("mpeg",)  # program streams stamp some frames only; after a seek the others are guessed wrongly
_LATE = ("mpegts",)  # a seek to the very first time stamp lands behind the first key frame: aim before all pictures


class Source:
    """Frames of a file in display order, upright, with square pixels.

    `start` and `end` (s, `end` excluded) cut exactly; of the rest every `stride`-th frame is kept. Index and time of
    the kept frames are those of the whole file: time counts from the container's start, which may be the sound's.
    After a seek the index is reckoned from time and average rate, exact for a constant rate. A frame lasts until the
    next kept one, the last until the pictures end, `end` at the latest.
    """

    live = False

    def __init__(self, path: str | Path, *, start: float = 0.0, end: float | None = None, stride: int = 1) -> None:
        self.path, self.name = Path(path), Path(path).name
        self.fps: float | None = None
        self.frames: int | None = None
        self.damaged = 0  # packets that no picture came out of
        self._start, self._end, self._stride = start, end, stride
        self._start_ns = round(start * _SECOND) - _ROUNDED
        self._end_ns = None if end is None else round(end * _SECOND) - _ROUNDED
        self._lock = threading.Lock()  # the decoder is never closed while another thread is inside
        self._stopped = threading.Event()
        self._container: av.container.InputContainer | None = None
        if stride < 1 or start < 0 or (end is not None and end <= start):
            raise SourceError(
                f"{path}: expected 0 <= start < end and stride >= 1, got start {start}, end {end}, stride {stride}"
            )

    def __enter__(self) -> Source:
        self._stopped.clear()
        self._container = _open(self.path)
        try:
            self._prepare(self._container)
        except BaseException:
            self._container.close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        with self._lock:
            if self._container:
                self._container.close()

    def stop(self) -> None:
        """End the iteration; safe from another thread."""
        self._stopped.set()

    def __iter__(self) -> Iterator[Frame]:
        before: Frame | None = None  # the next one tells how long it lasts
        for frame in self._kept():
            if before:
                yield replace(before, duration_ns=frame.time_ns - before.time_ns)
            before = frame
        if before and not self._stopped.is_set():
            yield replace(before, duration_ns=self._shown_until() - before.time_ns)
        if not self._stopped.is_set():
            self._complain()

    def _kept(self) -> Iterator[Frame]:
        number = 0  # among the frames from `start` on
        cost = self._first_ms
        while not self._stopped.is_set():
            begun = time.perf_counter()
            with self._lock:
                picture = None if self._stopped.is_set() else self._next()
                if picture is None:
                    break
                wanted = number % self._stride == 0
                image = self._to_rgb(picture, self._stream.sample_aspect_ratio) if wanted else None
            cost += (time.perf_counter() - begun) * 1e3
            if image is not None:
                yield Frame(image, self._first_index + number, self._last_ns, self.name, decode_ms=cost)
                cost = 0.0
            number += 1

    def _prepare(self, container: av.container.InputContainer) -> None:
        self._stream = _video_stream(container, self.path)
        # One costs the least CPU on two busy cores: 0.95 ms per 720p frame, not 1.05.
        self._stream.codec_context.thread_count = 1
        self._to_rgb = ToRgb()
        average, guessed = self._stream.average_rate, self._stream.guessed_rate
        raw = container.format.flags & Format.no_timestamps.value  # its average is libav's 25, whatever it says
        self._rate = (raw and guessed) or average or guessed or Fraction(25)
        self._frame_ns = round(_SECOND / self._rate)
        self._jump = 0  # ns that later time stamps are moved by
        self._origin = origin_ns(container)
        self._begin = pictures_begin_ns(container, self._stream)
        self._cut: av.FFmpegError | None = None
        self._at_end = False  # a picture at `end` or later was met
        self.damaged = 0
        self._last_ns = -1
        begun = time.perf_counter()
        self._waiting = self._first_picture(container)
        if self._end_ns is not None and self._media_ns(self._waiting) >= self._end_ns:
            part = f"from {self._start:g} s to before {self._end:g} s"
            raise SourceError(f"{self.path}: expected a picture {part}, found none; name a longer part")
        self._first_ms = (time.perf_counter() - begun) * 1e3
        self._first_index = self._index_of_first()
        self.fps = float(self._rate)
        self.frames = self._expected_frames()

    def _first_picture(self, container: av.container.InputContainer) -> av.VideoFrame:
        self._pictures = self._decode_all(container)
        picture = next(self._pictures, None)
        if picture is None:
            codec = self._stream.codec_context.name
            raise SourceError(f"{self.path}: none of its pictures ({codec}) can be decoded; the file is damaged")
        if self._start and self._media_ns(picture) < self._start_ns:
            if picture.pts is not None and container.format.name not in _GUESSED_AFTER_SEEK:
                picture = self._seek_before_start(container, picture)
            picture = self._drop_before_start(picture)
        if picture is None:
            last = f" (its last picture is at {self._last_ns / _SECOND:.2f} s)" if self._last_ns >= 0 else ""
            raise SourceError(f"{self.path}: expected a start before its end{last}, got {self._start:g} s")
        return picture

    def _seek_before_start(self, container: av.container.InputContainer, first: av.VideoFrame) -> av.VideoFrame | None:
        """The picture to go on from: the first one where the file cannot be sought in."""
        picture: av.VideoFrame | None = first
        for back in (*_SEEK_BACK, self._start + 1):
            if not self._seek(container, self._start - back):
                break
            picture = next(self._pictures, None)
            if picture and self._media_ns(picture) <= self._start_ns + 2 * _ROUNDED:
                break
        return picture

    def _drop_before_start(self, picture: av.VideoFrame | None) -> av.VideoFrame | None:
        while picture and not self._stopped.is_set():
            moment = self._rising(self._media_ns(picture))
            if moment >= self._start_ns:
                break
            self._last_ns = moment
            picture = next(self._pictures, None)
        return picture

    def _seek(self, container: av.container.InputContainer, second: float) -> bool:
        least = -_SECOND if container.format.name in _LATE else 0
        target = (max(least, int(second * _SECOND)) + self._origin) / (self._stream.time_base * _SECOND)
        try:
            container.seek(int(target), stream=self._stream, backward=True)
        except av.FFmpegError as error:
            log.debug("%s: cannot seek to %.3f s: %s", self.path, second, error)
            return False
        self._pictures = self._decode_all(container)
        return True

    def _decode_all(self, container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
        try:
            for packet in container.demux(self._stream):
                yield from self._decode(packet)
        except av.FFmpegError as error:
            self._cut = error
            yield from self._decode(None)  # what the decoder still holds is good

    def _decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
        try:
            return self._stream.decode(packet)
        except av.FFmpegError as error:
            self.damaged += 1
            log.debug("%s: damaged packet: %s", self.path, error)
            return []

    def _next(self) -> av.VideoFrame | None:
        """The next picture before `end`, whose time is then `_last_ns`."""
        picture, self._waiting = self._waiting or next(self._pictures, None), None
        if picture is None:
            return None
        moment = self._rising(self._media_ns(picture))
        if self._end_ns is not None and moment >= self._end_ns:
            self._at_end = True
            return None
        self._last_ns = moment
        self._last_end = moment + (int((picture.duration or 0) * self._stream.time_base * _SECOND) or self._frame_ns)
        return picture

    def _media_ns(self, picture: av.VideoFrame) -> int:
        if picture.pts is None:  # raw streams have no clock: the rate is all there is
            return self._last_ns + self._frame_ns - self._jump if self._last_ns >= 0 else 0
        return round(picture.pts * (picture.time_base or self._stream.time_base) * _SECOND) - self._origin

    def _rising(self, moment: int) -> int:
        """Time stamps that stand still or fall back (joined recordings) are mended: no output container takes them."""
        moment += self._jump
        behind = self._last_ns - moment
        if self._last_ns < 0 or behind < 0:
            return moment
        if behind < 2 * self._frame_ns:
            return self._last_ns + self._frame_ns // 2
        self._jump += behind + self._frame_ns
        return self._last_ns + self._frame_ns

    def _index_of_first(self) -> int:
        return max(0, self._index(self._media_ns(self._waiting))) if self._start else 0

    def _index(self, moment: float) -> int:
        """Of the picture at `moment` (ns of media time), by the average rate."""
        return round((moment - self._begin) * self._rate / _SECOND)

    def _expected_frames(self) -> int | None:
        end = pictures_end_ns(self._container, self._stream) or end_ns(self._container)
        total = self._stream.frames or (self._index(end) if end else 0)
        if total <= 0:
            return None
        if self._end is not None:
            total = min(total, self._index(self._end * _SECOND))
        return max(1, -(-(total - self._first_index) // self._stride))

    def _shown_until(self) -> int:
        """When the last picture ends: as the header has it, where that can be; its own length may be another's."""
        if self._at_end:
            return round(self._end * _SECOND)
        until = pictures_end_ns(self._container, self._stream) or end_ns(self._container) or 0
        if until <= self._last_ns or self._lacks(until):
            until = self._last_end
        return until if self._end is None else min(until, round(self._end * _SECOND))

    def _lacks(self, end: int) -> bool:
        """Whether pictures are missing that the header promises until `end`."""
        return end - self._last_end > _TOLERATED_GAP * _SECOND + 2 * self._frame_ns

    def _complain(self) -> None:
        if self.damaged:
            log.warning("%s: %d damaged packets were left out", self.path, self.damaged)
        end = pictures_end_ns(self._container, self._stream)
        if not self._at_end and (self._cut if end is None else self._lacks(end)):
            length = f" of {end / _SECOND:.1f} s" if end else ""
            reached = self._last_end / _SECOND
            raise TruncatedError(f"{self.path}: the file is cut off; it can be read up to {reached:.1f} s{length}")


def begins(path: Path) -> float:
    """Media time of a file's first picture, in seconds."""
    with _open(path) as container:
        return pictures_begin_ns(container, _video_stream(container, path)) / _SECOND


def bare(path: Path) -> Iterator[np.ndarray]:
    """Decoding with nothing around it, the benchmark's floor: pictures (H, W, 3) uint8 RGB as they are stored."""
    with av.open(str(path)) as container:
        for picture in container.decode(container.streams.video[0]):
            yield picture.to_ndarray(format="rgb24")


def _open(path: Path) -> av.container.InputContainer:
    check_file(path, "video")
    try:
        # "file:" keeps names with a colon from being taken for a network address.
        return av.open(f"file:{path}", metadata_errors="replace")
    except (av.FFmpegError, UnicodeError) as error:
        raise SourceError(f"{path}: {_why_unreadable(path)} ({getattr(error, 'strerror', error)})") from error


def _why_unreadable(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(12)
    if head[4:8] == b"ftyp":
        return "the recording was cut off before its index was written, so nothing of it can be read"
    return "expected a video, got something that is none"


def _video_stream(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    for stream in container.streams.video:
        if stream.disposition & Disposition.attached_pic:  # the cover of a sound file
            continue
        if stream.codec_context is None:
            raise SourceError(f"{path}: its video codec is unknown to PyAV; convert it to H.264 first")
        return stream
    holds = "only sound" if container.streams.audio else "neither picture nor sound"
    raise SourceError(f"{path}: expected a video, got a file with {holds}")

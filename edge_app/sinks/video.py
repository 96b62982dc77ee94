"""Annotated video: H.264 in MP4 with the source's time stamps, and its sound."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.codec.context import Flags

from ..errors import CalmcamError, OutputError
from ..files import bytes_kept, settle
from ..soundtrack import Sound, sound_tracks
from ..types import Result

TICKS = 360_000  # per second: whole for 24, 25, 30, 50, 60 fps, for each of them / 1.001, for 1 kHz and 90 kHz clocks
BT601, BT709 = 6, 1  # ITU-T H.273: the matrix of OpenCV's conversion to YUV; sRGB's primaries, and video's curve
_REFUSED = (OSError, av.FFmpegError)
_SECOND = 1_000_000_000
_RATE = 30  # per second, for x264's level and key frames, and for how long a last picture is shown
_LONGEST = 900 * TICKS  # that one picture is shown; MP4 holds fewer than 2^31, and B-frames add six of them up
_FRAGMENTS = {  # libav 7.1 and newer; its own buffer would hold half a minute back
    "movflags": "+hybrid_fragmented",
    "frag_duration": "2000000",  # µs
    "flush_packets": "1",
}
_PIECE = 20_000_000  # ns; sound is written this far ahead of the picture
_LOOK_SECONDS = 1.0  # between two looks whether the file is still there


class Sink:
    """Writes `result.picture` (or the bare frame) at `frame.time_ns` into `path`, an MP4 that is complete or not there.

    A `recording` cannot be made again: what a full disk or a second signal cuts off is kept, and what a kill leaves, `path`.part,
    can be played up to its last two seconds (an MP4 in fragments, ISO 14496-12, 8.8, until it is closed), and after a
    power cut up to what the kernel had written, half a minute before.
    Variable frame rates stay as they are; odd sizes are padded by one pixel; a size that changes is fitted into the
    first. `start` and `end` (s) are what was cut from the source: the copy's clock begins at `start`. Every sound track
    of `audio_from` is copied packet by packet, or transcoded to AAC where MP4 cannot hold it, and ends with the
    pictures if they end early. x264 at `crf` and `preset`: veryfast is a third of superfast in size at 1.5 times the work.
    """

    name = "encode"

    def __init__(
        self,
        path: str | Path,
        *,
        audio_from: str | Path | None = None,
        start: float | None = None,
        end: float | None = None,
        crf: int = 23,
        preset: str = "veryfast",
        recording: bool = False,
    ) -> None:
        self._recording = recording
        self._path, self._part = Path(path), Path(f"{path}.part")
        self._audio_from = Path(audio_from) if audio_from else None
        self._start_ns = round((start or 0) * _SECOND)
        self._end_ns = None if end is None else round(end * _SECOND)
        self._options = {"crf": str(crf), "preset": preset}

    def __enter__(self) -> Sink:
        self._failed = False
        self._pending: av.VideoFrame | None = None
        self._lag: int | None = None  # of the first packet: from its place in the order of decoding to when it is shown
        self._container: av.container.OutputContainer | None = None
        self._sounds: list[Sound] = []
        if self._audio_from and self._audio_from.resolve() == self._path.resolve():
            raise OutputError(f"{self._path}: the output would replace the input; name another file")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._held = self._part.open("wb")
        except OSError as error:
            raise OutputError.of(self._path, error) from error
        self._looked = time.monotonic()
        return self

    def write(self, result: Result) -> None:
        """Encode one picture; OutputError when the disk is full or the place is gone, within a second."""
        image = result.frame.image if result.picture is None else result.picture
        try:
            if self._container is None:
                self._open(image.shape[1], image.shape[0])
            if time.monotonic() - self._looked >= _LOOK_SECONDS:
                self._looked = time.monotonic()
                bytes_kept(self._held.fileno(), self._part)
            self._push(image, result.frame.time_ns - self._start_ns, result.frame.duration_ns)
        except _REFUSED as error:
            self._failed = True
            raise OutputError.of(self._path, error) from error
        except CalmcamError:
            self._failed = True
            raise

    def __exit__(self, exc_type: type[BaseException] | None, *exc: object) -> None:
        try:
            if self._pending and not self._failed:
                self._finish(broken_off=exc_type is not None)
                self._close()
                os.replace(self._part, self._path)
        except _REFUSED as error:
            self._failed = True
            raise OutputError.of(self._path, error) from error
        finally:
            self._abandon()

    def _open(self, width: int, height: int) -> None:
        self._size = width + width % 2, height + height % 2
        muxing = (_FRAGMENTS if self._recording else {"movflags": "+faststart"}) | {"movie_timescale": str(TICKS)}
        self._container = av.open(f"file:{self._part}", "w", format="mp4", options=muxing)
        self._stream = self._container.add_stream("libx264", rate=_RATE, options=self._options)
        self._stream.width, self._stream.height = self._size
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.time_base = self._stream.time_base = Fraction(1, TICKS)
        context.thread_count = 1
        context.colorspace, context.color_range = BT601, 1
        context.color_primaries, context.color_trc = BT709, BT709
        context.flags |= Flags.frame_duration
        for track in range(sound_tracks(self._audio_from) if self._audio_from else 0):
            self._sounds.append(Sound(self._audio_from, track, self._start_ns, self._end_ns))
            self._sounds[-1].join(self._container)

    def _push(self, image: np.ndarray, time_ns: int, duration_ns: int) -> None:
        planes = cv2.cvtColor(fitted(image, *self._size), cv2.COLOR_RGB2YUV_I420)
        uncopied = planes.shape[0] % 6 == 0  # PyAV 18.1 cuts other heights down to a multiple of four there
        make = av.VideoFrame.from_numpy_buffer if uncopied else av.VideoFrame.from_ndarray
        frame = make(planes, format="yuv420p")
        frame.pts, frame.time_base = round(time_ns * TICKS / _SECOND), Fraction(1, TICKS)
        frame.duration = round(duration_ns * TICKS / _SECOND)
        frame.colorspace, frame.color_range = BT601, 1
        if self._pending:
            self._bridge(frame.pts)
            frame.pts = max(frame.pts, self._pending.pts + 1)  # a player needs rising stamps
            gap = frame.pts - self._pending.pts
            self._pending.duration = gap
            frame.duration = frame.duration or gap
            self._encode(self._pending)
        self._pending = frame

    def _bridge(self, until: int) -> None:
        """Show the last picture again and again through a long pause."""
        while until - self._pending.pts > _LONGEST:
            again = av.VideoFrame.from_ndarray(self._pending.to_ndarray(), format="yuv420p")
            again.pts, again.time_base = self._pending.pts + _LONGEST, self._pending.time_base
            again.colorspace, again.color_range = BT601, 1
            self._pending.duration = _LONGEST
            self._encode(self._pending)
            self._pending = again

    def _encode(self, frame: av.VideoFrame) -> None:
        self._mux(self._stream.encode(frame))
        for sound in self._sounds:
            sound.write_until(self._start_ns + frame.pts * _SECOND // TICKS + _PIECE)

    def _mux(self, packets: Sequence[av.Packet]) -> None:
        if packets and self._lag is None:
            self._lag = packets[0].pts - packets[0].dts
        self._container.mux(packets)

    def _finish(self, *, broken_off: bool) -> None:
        end = self._pending.pts + (self._pending.duration or TICKS // _RATE)
        self._bridge(end)
        last = self._pending
        last.duration = end - last.pts
        packets = [*self._stream.encode(last), *self._stream.encode(None)]
        self._mux(packets[:-1])
        # MP4 adds up what lies between the packets as they are decoded; of those the last may be another picture.
        final, lag = packets[-1], self._lag or 0
        final.dts = max(final.dts, final.pts - lag)
        final.duration = max(end - lag - final.dts, last.duration)
        self._mux([final])
        reached = self._start_ns + end * _SECOND // TICKS
        for sound in self._sounds:
            whole = not broken_off and sound.pictures_end_ns - reached < _PIECE
            sound.write_until(None if whole else reached)
            sound.flush()

    def _close(self) -> None:
        container, self._container = self._container, None
        container.close()
        settle(self._part)

    def _abandon(self) -> None:
        """Let go of everything; what was not completed is removed, unless it is a recording, of which all is kept."""
        self._held.close()
        for sound in self._sounds:
            sound.close()
        with suppress(*_REFUSED):
            if self._container:
                self._close()
        with suppress(OSError):
            if not (self._recording and self._part.stat().st_size):
                self._part.unlink(missing_ok=True)
            elif not self._path.exists():
                os.replace(self._part, self._path)
        self._pending, self._sounds = None, []


def fitted(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """`image` (H, W, 3) brought to (height, width, 3): padded by one pixel of its edge, else letterboxed."""
    tall, wide = image.shape[:2]
    if (wide, tall) == (width, height):
        return image
    if 0 <= width - wide <= 1 and 0 <= height - tall <= 1:
        return cv2.copyMakeBorder(image, 0, height - tall, 0, width - wide, cv2.BORDER_REPLICATE)
    scale = min(width / wide, height / tall)
    size = max(1, round(wide * scale)), max(1, round(tall * scale))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = (width - size[0]) // 2, (height - size[1]) // 2
    edges = top, height - size[1] - top, left, width - size[0] - left
    return cv2.copyMakeBorder(small, *edges, cv2.BORDER_CONSTANT, value=(0, 0, 0))

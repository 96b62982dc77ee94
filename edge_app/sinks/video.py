"""Annotated video: H.264 in MP4 with the source's time stamps, and its sound."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from av.codec.context import Flags

from ..containers import end_ns, ns, origin_ns, pictures_end_ns
from ..errors import CalmcamError, OutputError, SourceError
from ..files import bytes_kept, settle
from ..types import Result

log = logging.getLogger(__name__)

TICKS = 360_000  # per second: whole for 24, 25, 30, 50, 60 fps, for each of them / 1.001, for 1 kHz and 90 kHz clocks
BT601, BT709 = 6, 1  # ITU-T H.273: the matrix of OpenCV's conversion to YUV; sRGB's primaries, and video's curve
HELD_BY_MP4 = frozenset("aac ac3 alac eac3 flac mp2 mp3 opus".split())
LEAST_MP3_RATE = 16_000  # Hz; libav refuses slower MP3 in MP4
SOUND_RATES = frozenset((8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000))  # of AAC
_REFUSED = (OSError, av.FFmpegError)
_DAMAGED = (av.error.InvalidDataError, av.error.ArgumentError)  # what a muxer says to a packet that makes no sense
_SECOND = 1_000_000_000
_RATE = 30  # per second, for x264's level and key frames, and for how long a last picture is shown
_LONGEST = 5400 * TICKS  # that one picture is shown; MP4 holds fewer than 2^31
_FRAGMENTS = {  # libav 7.1 and newer; its own buffer would hold half a minute back
    "movflags": "+hybrid_fragmented",
    "frag_duration": "2000000",  # µs
    "flush_packets": "1",
}
_PIECE = 20_000_000  # ns; sound is written this far ahead of the picture
_LOOK_SECONDS = 1.0  # between two looks whether the file is still there
_TOLERATED_GAP = 500_000_000  # ns; pictures that end so close to the header's word are complete


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
        self._container: av.container.OutputContainer | None = None
        self._sounds: list[_Sound] = []
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
        for track in range(_sound_tracks(self._audio_from) if self._audio_from else 0):
            self._sounds.append(_Sound(self._audio_from, track, self._start_ns, self._end_ns))
            self._sounds[-1].join(self._container)

    def _push(self, image: np.ndarray, time_ns: int, duration_ns: int) -> None:
        planes = cv2.cvtColor(fitted(image, *self._size), cv2.COLOR_RGB2YUV_I420)
        frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
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

    def _encode(self, frame: av.VideoFrame | None) -> None:
        self._container.mux(self._stream.encode(frame))
        for sound in self._sounds if frame else ():
            sound.write_until(self._start_ns + frame.pts * _SECOND // TICKS + _PIECE)

    def _finish(self, *, broken_off: bool) -> None:
        last = self._pending
        last.duration = last.duration or TICKS // _RATE
        self._encode(last)
        self._encode(None)
        reached = self._start_ns + (last.pts + last.duration) * _SECOND // TICKS
        for sound in self._sounds:
            whole = not broken_off and sound.pictures_end_ns - reached < _TOLERATED_GAP
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


def _opened(path: Path) -> av.container.InputContainer:
    try:
        return av.open(f"file:{path}", metadata_errors="replace")
    except _REFUSED as error:
        raise SourceError(f"{path}: its sound cannot be read ({error.strerror}); try --no-audio") from error


def _sound_tracks(path: Path) -> int:
    with _opened(path) as container:
        return len(container.streams.audio)


class _Sound:
    """A sound track of a file, between `start_ns` and `end_ns`, on its way into another container.

    Each reads the file by itself: tracks may lie far apart in it.
    """

    def __init__(self, path: Path, track: int, start_ns: int, end_ns: int | None) -> None:
        self._path, self._start_ns, self._end_ns = path, start_ns, end_ns
        self._container = _opened(path)
        self._stream: av.AudioStream | None = self._container.streams.audio[track]
        if self._stream.codec_context is None:
            log.warning("%s: its sound track %d is of an unknown kind and is left out", path, track + 1)
            self._stream = None
        self._origin_ns = origin_ns(self._container)
        self._packets: Iterator[av.Packet] = iter(())
        self._next: av.Packet | None = None
        self._damaged = 0

    @property
    def pictures_end_ns(self) -> int:
        """When the pictures end, or are cut off; media time."""
        ends = [pictures_end_ns(self._container, stream) for stream in self._container.streams.video[:1]]
        end = next(filter(None, ends), None) or end_ns(self._container) or 0
        return end if self._end_ns is None else min(end, self._end_ns)

    def join(self, output: av.container.OutputContainer) -> None:
        """Open a stream in `output`, before anything is written there."""
        if self._stream is None:
            return
        self._output = output
        context = self._stream.codec_context
        name, rate = context.codec.canonical_name, context.sample_rate
        self._copied = name in HELD_BY_MP4 and (name != "mp3" or rate >= LEAST_MP3_RATE)
        if self._copied:
            self._target = output.add_stream_from_template(self._stream)
        else:
            self._target = output.add_stream("aac", rate=rate if rate in SOUND_RATES else 48000)
            self._target.layout = "mono" if context.channels == 1 else "stereo"
        self._target.disposition = self._stream.disposition  # which one plays
        about = self._stream.metadata
        self._target.metadata.update(
            language=about.get("language", "und"), title=about.get("title") or about.get("name", "")
        )
        if self._start_ns:
            moment = (self._start_ns + self._origin_ns) / (self._stream.time_base * _SECOND)
            with suppress(av.FFmpegError):  # what cannot be sought in is read from its beginning
                self._container.seek(int(moment), stream=self._stream)
        self._packets = self._between()
        self._next = next(self._packets, None)

    def write_until(self, moment_ns: int | None) -> None:
        """Write what begins before `moment_ns` (media time; None for all that is left)."""
        while self._next and (moment_ns is None or self._moment(self._next) < moment_ns):
            self._write(self._next)
            self._next = next(self._packets, None)

    def flush(self) -> None:
        """Write what an encoder still holds."""
        if self._stream is not None and not self._copied:
            self._output.mux(self._target.encode(None))
        if self._damaged:
            log.warning("%s: %d damaged pieces of its sound were left out", self._path, self._damaged)

    def close(self) -> None:
        self._container.close()

    def _between(self) -> Iterator[av.Packet]:
        for packet in self._rising():
            moment = self._moment(packet)
            if self._end_ns is not None and moment >= self._end_ns:
                return
            if not self._start_ns or moment >= self._start_ns:
                yield packet

    def _rising(self) -> Iterator[av.Packet]:
        """All packets. Where time falls back (joined recordings), the rest follows on, as the source's pictures do."""
        jump, last, follows = 0, None, 0
        try:
            for packet in self._container.demux(self._stream):
                if not packet.size or packet.pts is None:
                    continue
                stamp = packet.pts if packet.dts is None else packet.dts
                if last is not None and stamp + jump <= last:
                    jump = follows - stamp
                packet.pts, packet.dts = packet.pts + jump, stamp + jump
                last, follows = packet.dts, packet.dts + max(1, packet.duration or 0)
                yield packet
        except av.FFmpegError as error:
            log.warning("%s: its sound breaks off (%s)", self._path, error.strerror)

    def _moment(self, packet: av.Packet) -> int:
        return ns(packet.pts, self._stream.time_base) - self._origin_ns

    def _write(self, packet: av.Packet) -> None:
        shift = round((self._origin_ns + self._start_ns) / (self._stream.time_base * _SECOND))
        if self._copied:
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            packet.stream = self._target
            with self._sparing(*_DAMAGED):
                self._output.mux(packet)
            return
        frames: list[av.AudioFrame] = []
        with self._sparing(av.FFmpegError):
            frames = packet.decode()
        for frame in frames:
            frame.pts = None if frame.pts is None else frame.pts - shift
            with self._sparing(ValueError):  # of another layout than the first: PyAV's resampler takes no other
                self._output.mux(self._target.encode(frame))

    @contextmanager
    def _sparing(self, *kinds: type[Exception]) -> Iterator[None]:
        """Leave a damaged piece out, and count it."""
        try:
            yield
        except kinds as error:
            self._damaged += 1
            log.debug("%s: a damaged piece of sound: %s", self._path, error)


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

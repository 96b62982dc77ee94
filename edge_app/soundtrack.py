"""The sound tracks of a file, on their way into another container: copied, or transcoded where it cannot hold them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import av

from .containers import end_ns, ns, origin_ns, pictures_end_ns
from .errors import SourceError

log = logging.getLogger(__name__)

HELD_BY_MP4 = frozenset("aac ac3 alac eac3 flac mp2 mp3 opus".split())
LEAST_MP3_RATE = 16_000  # Hz; libav refuses slower MP3 in MP4
SOUND_RATES = frozenset((8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000))  # of AAC
_DAMAGED = (av.error.InvalidDataError, av.error.ArgumentError)  # what a muxer says to a packet that makes no sense
_SECOND = 1_000_000_000


def sound_tracks(path: Path) -> int:
    """How many there are in a file; SourceError when it cannot be read."""
    with _opened(path) as container:
        return len(container.streams.audio)


class Sound:
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


def _opened(path: Path) -> av.container.InputContainer:
    try:
        return av.open(f"file:{path}", metadata_errors="replace")
    except (OSError, av.FFmpegError) as error:
        raise SourceError(f"{path}: its sound cannot be read ({error.strerror}); try --no-audio") from error

"""Network streams (rtsp, http, udp, tcp) through PyAV: the newest frame wins, a lost connection is made again."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import av
from av.codec.context import Flags
from av.format import Flags as Format

from ..addresses import public_host
from ..background import Background
from ..containers import ns
from ..decoded import ToRgb
from ..errors import SourceError
from ..lag import Lag, Skipping
from ..reconnect import FIRST_DELAY, reconnect
from ..types import Frame

log = logging.getLogger(__name__)

_LONGEST_RATE = 240  # frames per second; above it the header's rate is a clock's, not a camera's
_IN_PIECES = ("hls", "dash")  # seconds come at once: that they lie unread says nothing
# Options that a protocol does not know are left aside by libav. "fflags nobuffer" is missing on purpose: it throws the
# packets of probing away, often the first key frame, and saves nothing where a reader empties every buffer at once.
_OPTIONS = {
    "rtsp_transport": "tcp",
    "allowed_media_types": "video",
    "analyzeduration": "1000000",
    "max_delay": "500000",
    "fifo_size": "50000",
    "overrun_nonfatal": "1",
}


class _Arrival(NamedTuple):
    picture: av.VideoFrame
    index: int
    moment_ns: int  # monotonic, when its last packet had come, or would have if nothing had lain unread before it
    decode_ms: float
    aspect: Fraction | None  # of its pixels


class Source:
    """Frames of a stream as they come; those that nobody takes in time are dropped and only leave a gap in the index.

    Opening it fails with SourceError after `tries` attempts; later the connection is made again for ever, with
    growing pauses, whenever nothing of its pictures came for `timeout` seconds. Where a stream is stamped (all but motion
    JPEG over HTTP, bare H.264 and HLS), what lies unread before the decoder counts as age, and one that falls behind leaves
    pictures out until it has caught up. `state` is "closed", "connecting", "connected",
    "reconnecting" or "ended"; a stream of known length (a file behind an address) plays at its own pace and ends.
    User, password and query of the address appear in no message.
    """

    live = True
    frames: int | None = None

    def __init__(self, url: str, *, timeout: float = 5.0, tries: int = 3) -> None:
        self.name = public_host(url)
        self.fps: float | None = None
        self.state = "closed"
        self._url, self._timeout, self._tries = url, timeout, tries
        self._change = threading.Condition()
        self._open = False
        self._reader = Background(())

    def __enter__(self) -> Source:
        self._open, self.state, self._told_late = True, "connecting", False
        self._count, self._started = 0, time.monotonic_ns()
        self._reader = Background(self._arrivals(), latest=True)
        self._connect_first()
        self._reader.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        if not self._reader.join(1.0):
            log.debug("%s: the reader waits for data and ends at its time-out", self.name)
        self.state = "closed"

    def stop(self) -> None:
        """End the iteration; safe from another thread and in a signal handler."""
        with self._change:
            self._open = False
            self._change.notify_all()
        self._reader.stop()

    def __iter__(self) -> Iterator[Frame]:
        to_rgb = ToRgb()
        for arrival in self._reader:
            if not self._open:
                break
            begun = time.perf_counter()
            image = to_rgb(arrival.picture, arrival.aspect)
            cost = arrival.decode_ms + (time.perf_counter() - begun) * 1e3
            moment = arrival.moment_ns - self._started
            yield Frame(image, arrival.index, moment, self.name, arrival.moment_ns, cost, live=not self._finite)

    def _connect_first(self) -> None:
        delay = FIRST_DELAY
        for attempt in range(1, self._tries + 1):
            try:
                self._connect_or_stop()
                return
            except av.FFmpegError as error:
                reason = self._reason(error)
            if attempt < self._tries:
                log.warning("%s: %s, trying again", self.name, reason)
                if not self._pause(delay):
                    return
                delay *= 2
        raise SourceError(
            f"{self.name}: expected a stream, got none in {self._tries} tries ({reason}); check address and sender"
        )

    def _connect_or_stop(self) -> None:
        """Connect in another thread, so that `stop` need not wait for libav; what that raises is raised here."""
        ended: list[Exception | None] = []

        def connect() -> None:
            try:
                self._connect()
                if not self._open:
                    self._container.close()
                ended.append(None)
            except Exception as error:
                ended.append(error)
            with self._change:
                self._change.notify_all()

        threading.Thread(target=connect, name="connect", daemon=True).start()
        with self._change:
            self._change.wait_for(lambda: ended or not self._open)
        if ended and ended[0] is not None:
            raise ended[0]

    def _connect(self) -> None:
        """Open the stream and wait for its first picture; av.FFmpegError when that fails."""
        self._container = av.open(self._url, options=_OPTIONS, timeout=self._timeout, metadata_errors="replace")
        try:
            if not self._container.streams.video:
                raise SourceError(f"{self.name}: expected a video stream, got one without pictures")
            self._finite = self._container.duration is not None
            self._stream = self._container.streams.video[0]
            self._stream.codec_context.thread_count = 1
            self._stream.codec_context.flags |= Flags.low_delay
            form = self._container.format
            self._stamped = not (self._finite or form.name in _IN_PIECES or form.flags & Format.no_timestamps.value)
            self._lag, self._skipping = Lag(), Skipping()
            self._pictures = self._decode()
            self._first = next(self._pictures, None)
            if self._first is None:
                raise av.EOFError(0, "it ended before its first picture")
        except BaseException:
            self._container.close()
            raise
        self.state = "connected"
        self._connected = self._alive = time.monotonic_ns()
        rate = self._stream.guessed_rate
        self.fps = float(rate) if rate and rate <= _LONGEST_RATE else None

    def _decode(self) -> Iterator[_Arrival]:
        aspect, waits_since, waited, taken = self._stream.sample_aspect_ratio, time.monotonic_ns(), 0, 0
        for packet, moment, wait in self._packets():
            waited += wait
            if not self._open:
                return
            if moment - waits_since > self._timeout * 1e9:
                raise av.EOFError(0, f"no picture for {self._timeout:g} s")
            if packet.stream.index != self._stream.index:  # the last ones, without data, are numbered in no other way
                continue
            waits_since = moment  # cameras may send seconds of pictures that need a key frame first
            taken, waited = max(taken, moment - self._behind(packet, moment, waited)), 0
            begun = time.perf_counter()
            try:
                pictures = packet.decode()
            except av.FFmpegError as error:  # usual until the first key frame
                log.debug("%s: damaged packet: %s", self.name, self._reason(error))
                continue
            cost = (time.perf_counter() - begun) * 1e3
            for picture in pictures:
                if not picture.is_corrupt:
                    yield _Arrival(picture, self._count, taken, cost, aspect)
                    waits_since = time.monotonic_ns()  # those of a file are held back
                self._count += 1
            self._count += not pictures and self._skipping.level != "DEFAULT"

    def _packets(self) -> Iterator[tuple[av.Packet, int, int]]:
        """Packets, when each came, and how long it was waited for without work; monotonic ns."""
        asked, work = time.monotonic_ns(), time.thread_time_ns()
        for packet in self._container.demux():  # all of it: libav's own time-out begins anew with each packet of sound
            came = time.monotonic_ns()
            yield packet, came, came - asked - (time.thread_time_ns() - work)
            asked, work = time.monotonic_ns(), time.thread_time_ns()

    def _behind(self, packet: av.Packet, moment_ns: int, waited_ns: int) -> int:
        """How late a packet of pictures is taken up, in ns; the decoder leaves some out where that has become much."""
        stamp = packet.pts if packet.dts is None else packet.dts
        if stamp is None or not self._stamped:
            return 0
        lag = self._lag.of(moment_ns, ns(stamp, packet.time_base), waited_ns)
        level = self._skipping.choose(lag, moment_ns, busy=self._lag.busy, key=packet.is_keyframe)
        self._stream.codec_context.skip_frame = level
        if level != "DEFAULT" and not self._told_late:
            self._told_late = True
            log.warning(
                "%s: this computer cannot decode so much, it is %.1f s behind and leaves pictures out until it has "
                "caught up; take the camera's smaller stream (substream)",
                *(self.name, lag / 1e9),
            )
        return lag

    def _arrivals(self) -> Iterator[_Arrival]:
        """Pictures of this connection and of all that follow it; runs in the reader's thread."""
        while self._open:
            yield from self._receive()
            if self.state == "ended" or not self._open:
                break
            self._connect_again()

    def _receive(self) -> Iterator[_Arrival]:
        self._lost = "the stream ended"
        try:
            yield self._first
            for arrival in self._pictures:
                if not self._open:
                    break
                self._alive = time.monotonic_ns()
                yield self._at_its_time(arrival) if self._finite else arrival
            self.state = "ended" if self._finite else self.state
        except av.FFmpegError as error:
            self._lost = self._reason(error)
            if isinstance(error, av.error.ExitError):  # the demuxer hands its last packet out only now
                self._alive = min(self._alive, time.monotonic_ns() - int(self._timeout * 1e9))
        finally:
            self._container.close()

    def _at_its_time(self, arrival: _Arrival) -> _Arrival:
        """Hold back what a server sends faster than it is to be shown."""
        first, picture = self._first.picture, arrival.picture
        if picture.time is not None and first.time is not None:
            due = self._connected + int((picture.time - first.time) * 1e9)
            self._pause((due - time.monotonic_ns()) / 1e9)
        return arrival._replace(moment_ns=time.monotonic_ns())

    def _connect_again(self) -> None:
        def connect() -> None:
            try:
                self._connect()
            except av.FFmpegError as error:
                raise SourceError(self._reason(error)) from error

        self.state = "reconnecting"
        reconnect(self.name, self._lost, self._alive, connect, self._pause)

    def _pause(self, seconds: float) -> bool:
        """Wait, but not longer than the source is open; False when it is closed."""
        with self._change:
            self._change.wait_for(lambda: not self._open, timeout=max(0.0, seconds))
            return self._open

    def _reason(self, error: av.FFmpegError) -> str:
        """What went wrong, without the address that libav's messages repeat."""
        if isinstance(error, av.error.ExitError):
            return f"no data for {self._timeout:g} s"
        return getattr(error, "strerror", type(error).__name__)

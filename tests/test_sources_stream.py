"""Network streams over loopback: newest wins, a server that dies and comes back, files behind an address."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import socket
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from edge_app.background import Background
from edge_app.errors import SourceError
from edge_app.run import Stop, run
from edge_app.sources.stream import Source

HOST = "127.0.0.1"


def jpeg(number: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (64, 48), (number % 50 * 5, 100, 100)).save(data, "JPEG")
    return data.getvalue()


class Camera:
    """An HTTP camera: motion JPEG at /video and /open?token=..., a file at /clip.mp4, silence when `stalled`."""

    def __init__(self, port: int = 0, clip: bytes = b"", rate: float = 30) -> None:
        self.stop, self.stalled, self.sent = threading.Event(), threading.Event(), 0
        camera = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # noqa: N802, the name http.server looks for
                with contextlib.suppress(ConnectionError):
                    self.send_clip() if self.path == "/clip.mp4" else self.send_pictures()

            def send_clip(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "video/mp4")
                self.send_header("Content-Length", str(len(clip)))
                self.end_headers()
                self.wfile.write(clip)

            def send_pictures(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                while not camera.stop.wait(1 / rate):
                    if not camera.stalled.is_set():
                        data = jpeg(camera.sent)
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                        self.wfile.write(head.encode() + data + b"\r\n")
                        camera.sent += 1

            def log_message(self, *args: object) -> None:
                """Keep the tests' output clean."""

        self.server = ThreadingHTTPServer((HOST, port), Handler)
        self.server.daemon_threads = False
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Camera:
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def camera() -> Iterator[Camera]:
    with Camera() as camera:
        yield camera


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def test_frames_come_at_once_and_time_counts_from_the_start(camera: Camera) -> None:
    with Source(f"http://{HOST}:{camera.port}/video") as source:
        assert (source.state, source.live, source.frames) == ("connected", True, None)
        frames = [frame for frame, _ in zip(source, range(10), strict=False)]
    assert source.state == "closed"
    assert np.all(np.diff([frame.index for frame in frames]) > 0)
    assert np.all(np.diff([frame.time_ns for frame in frames]) >= 0)
    assert frames[-1].image.shape == (48, 64, 3)
    assert frames[-1].time_ns < 5 * 10**9
    assert frames[-1].captured_ns - frames[0].captured_ns == frames[-1].time_ns - frames[0].time_ns
    assert frames[-1].decode_ms > 0
    assert all(frame.live for frame in frames)


def test_a_slow_taker_gets_the_newest_frame(camera: Camera) -> None:
    with Source(f"http://{HOST}:{camera.port}/video") as source:
        frames = iter(source)
        first = next(frames)
        assert not camera.stop.wait(0.5)
        next(frames)  # was waiting
        newest = next(frames)
    assert newest.index >= first.index + 5
    assert (time.monotonic_ns() - newest.captured_ns) / 1e9 < 0.4


def test_a_server_that_dies_and_comes_back(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with contextlib.ExitStack() as stack:
        with Camera() as camera:
            source = stack.enter_context(Source(f"http://{HOST}:{camera.port}/video", timeout=2))
            frames = iter(source)
            before = next(frames)
        stack.enter_context(Camera(port=camera.port))
        after = next(frame for frame in frames if "back after" in caplog.text)
        assert source.state == "connected"
    assert after.index > before.index
    assert after.time_ns > before.time_ns
    assert "reconnecting" in caplog.text


def test_a_stream_that_stalls_is_connected_again(camera: Camera, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Source(f"http://{HOST}:{camera.port}/video", timeout=0.6) as source:
        frames = iter(source)
        before = next(frame for frame in frames if frame.time_ns > 7 * 10**8)
        camera.stalled.set()
        threading.Timer(1.5, camera.stalled.clear).start()
        after = next(frame for frame in frames if frame.time_ns > before.time_ns + 10**9)
    assert after.index > before.index
    assert "no data for 0.6 s, reconnecting" in caplog.text
    told = float(re.search(r"back after ([0-9.]+) s", caplog.text)[1])
    assert told == pytest.approx((after.captured_ns - before.captured_ns) / 1e9, abs=0.5), "since the last data came"


def test_a_stalled_stream_lets_go_within_two_seconds(camera: Camera) -> None:
    with Source(f"http://{HOST}:{camera.port}/video", timeout=3) as source, Background(source, latest=True) as frames:
        next(iter(frames))
        camera.stalled.set()
        begun = time.monotonic()
    assert time.monotonic() - begun < 2.0


def test_a_file_behind_an_address_plays_at_its_pace_and_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        container.metadata["title"] = "Kamera Buero"
        sound = container.add_stream("aac", rate=48000)
        video = container.add_stream("libx264", rate=20)  # holds pictures back
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        tone = av.AudioFrame.from_ndarray(np.zeros((2, 48000), np.float32), format="fltp", layout="stereo")
        tone.sample_rate = 48000
        container.mux([*sound.encode(tone), *sound.encode()])
        for _ in range(20):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(video.encode())
    clip = path.read_bytes().replace(b"Kamera Buero", b"Kamera B\xfc\xf6ro")  # a title that is no UTF-8
    with Camera(clip=clip) as camera, Source(f"http://{HOST}:{camera.port}/clip.mp4") as source:
        begun = time.monotonic()
        frames = list(source)
        assert 0.8 < time.monotonic() - begun < 3.0
        assert source.state == "ended"
    assert frames[-1].index == 19
    assert len(frames) > 10
    assert not any(frame.live for frame in frames), "nobody knows when a file was taken"


@pytest.mark.parametrize(("rate", "told"), [(20, 20), (1000, None)])  # of which one is a clock's
def test_a_file_behind_an_address_is_shown_upright_and_undistorted(
    tmp_path: Path, rate: int, told: float | None
) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        video = container.add_stream("mpeg4", rate=rate)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.sample_aspect_ratio = Fraction(2)
        video.set_display_rotation(90)
        for _ in range(3):
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(video.encode())
    with Camera(clip=path.read_bytes()) as camera, Source(f"http://{HOST}:{camera.port}/clip.mp4") as source:
        assert next(iter(source)).image.shape == (128, 48, 3)
        assert source.fps == told


def test_a_picture_that_lacks_a_part_is_left_out(tmp_path: Path) -> None:
    path, noise = tmp_path / "a.mp4", np.random.default_rng(0)
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        video = container.add_stream("mpeg4", rate=20)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for _ in range(10):
            picture = noise.integers(0, 256, (48, 64, 3), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode())
    clip = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][5]
        clip[packet.pos + packet.size // 2 : packet.pos + packet.size] = bytes(packet.size - packet.size // 2)
    path.write_bytes(clip)
    with av.open(str(path)) as container:
        assert [number for number, picture in enumerate(container.decode(video=0)) if picture.is_corrupt] == [5]
    with Camera(clip=bytes(clip)) as camera, Source(f"http://{HOST}:{camera.port}/clip.mp4") as source:
        seen = [frame.index for frame in source]
    assert 5 not in seen and seen[-1] == 9


def test_sound_alone_is_no_sign_of_life(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "a.ts"
    with av.open(str(path), "w") as container:
        video, sound = container.add_stream("mpeg2video", rate=25), container.add_stream("mp2", rate=48000)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for _ in range(25):  # a second of pictures
            container.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(video.encode())
        for start in range(0, 48000 * 20, 1152):
            silence = np.zeros((1, 1152 * 2), np.int16)
            frame = av.AudioFrame.from_ndarray(silence, format="s16", layout="stereo")
            frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
            container.mux(sound.encode(frame))
    content = path.read_bytes()
    with socket.create_server((HOST, 0)) as server:
        stop = threading.Event()

        def send() -> None:
            with contextlib.suppress(OSError):
                taker, _ = server.accept()
                with taker:
                    for at in range(0, len(content), 4096):
                        taker.sendall(content[at : at + 4096])
                        if stop.wait(0.02):
                            return

        sender = threading.Thread(target=send)
        sender.start()
        with Source(f"tcp://{HOST}:{server.getsockname()[1]}", timeout=0.6) as source:
            reader = threading.Thread(target=lambda: [None for _ in source])
            reader.start()
            begun = time.monotonic()
            while source.state != "reconnecting" and time.monotonic() < begun + 20:
                time.sleep(0.02)
        stop.set()
        sender.join()
        reader.join()
    assert "no picture for 0.6 s, reconnecting" in caplog.text


class Encoder:
    """A camera that sends MPEG-TS over TCP: a group of noisy H.264 pictures again and again, each when it is due.

    What cannot be sent is not left out but comes later, as from cameras with a large buffer.
    """

    GROUP, SIZE = 30, (1280, 720)

    def __init__(self) -> None:
        self.server = socket.create_server((HOST, 0))
        self.port = self.server.getsockname()[1]
        self.rate, self.begun, self.sent, self.due = 30.0, 0.0, 0, [0.0]
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.send)
        encoder = av.CodecContext.create("libx264", "w")
        encoder.width, encoder.height, encoder.pix_fmt = *self.SIZE, "yuv420p"
        encoder.time_base, encoder.framerate, encoder.gop_size = Fraction(1, 30), Fraction(30), self.GROUP
        encoder.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "32"}
        noise = np.random.default_rng(0)
        pictures = [noise.integers(0, 256, (*self.SIZE[::-1], 3), np.uint8) for _ in range(self.GROUP)]
        found = [encoder.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")) for picture in pictures]
        self.packets = [packet for packets in [*found, encoder.encode(None)] for packet in packets]

    def decoded_per_second(self) -> float:
        decoder = av.CodecContext.create("h264", "r")
        decoder.thread_count, begun = 1, time.perf_counter()
        assert sum(len(decoder.decode(av.Packet(bytes(packet)))) for packet in self.packets)
        return self.GROUP / (time.perf_counter() - begun)

    def send(self) -> None:
        with contextlib.suppress(OSError, av.FFmpegError):
            taker, _ = self.server.accept()
            with taker, taker.makefile("wb") as wire, av.open(wire, "w", format="mpegts") as output:
                stream = output.add_stream("libx264", rate=30)
                stream.width, stream.height, stream.pix_fmt = *self.SIZE, "yuv420p"
                self.due = [time.monotonic()]
                while not self.stop.wait(max(0.0, self.due[-1] - time.monotonic())):
                    place = len(self.due) - 1
                    original = self.packets[place % self.GROUP]
                    packet = av.Packet(bytes(original))
                    packet.stream, packet.is_keyframe = stream, original.is_keyframe
                    packet.time_base = Fraction(1, 90_000)
                    packet.pts = packet.dts = round((self.due[-1] - self.due[0]) * 90_000)
                    output.mux(packet)
                    wire.flush()
                    self.due.append(self.due[-1] + 1 / self.rate)

    def __enter__(self) -> Encoder:
        self.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop.set()
        self.thread.join()
        self.server.close()


def test_a_stream_that_decodes_slower_than_it_comes_is_told_and_never_lags(caplog: pytest.LogCaptureFixture) -> None:
    camera = Encoder()
    able = camera.decoded_per_second()
    if able < 50:
        camera.server.close()
        pytest.skip("here a group of pictures lasts longer than the test waits for the next")
    camera.rate, seen = 2.5 * able, []
    with camera, Source(f"tcp://{HOST}:{camera.port}") as source:
        frames = iter(source)
        until = time.monotonic() + 6
        while time.monotonic() < until:
            frame = next(frames)
            now = time.monotonic()
            seen.append((now - camera.due[frame.index], now - frame.captured_ns / 1e9))
        camera.rate = able / 5
        until = time.monotonic() + 4
        while time.monotonic() < until:
            last = next(frames)
        later = [next(frames) for _ in range(5)]
        camera.stop.set()
    late = [true for true, _ in seen]
    assert max(abs(true - shown) for true, shown in seen[len(seen) // 2 :]) < 1.0, "the age is that of the picture"
    assert max(late[-len(late) // 4 :]) < 2.5, "it has caught up"
    assert [frame.index - last.index for frame in later] == [1, 2, 3, 4, 5], "all are decoded again"
    assert caplog.text.count("cannot decode so much") == 1 and "substream" in caplog.text


def test_a_stream_without_a_clock_that_sends_less_than_libav_believes_does_not_lag(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Motion JPEG says nothing of time; libav stamps it as if it came 25 times a second."""
    with Camera(rate=8) as camera, Source(f"http://{HOST}:{camera.port}/video") as source:
        ages = [time.monotonic_ns() - frame.captured_ns for frame, _ in zip(source, range(25), strict=False)]
    assert max(ages) / 1e9 < 0.5
    assert "cannot decode" not in caplog.text


@pytest.mark.parametrize("scheme", ["http", "tcp", "rtsp"])
def test_nobody_there(scheme: str, caplog: pytest.LogCaptureFixture) -> None:
    url = f"{scheme}://user:secret@{HOST}:{free_port()}/door?token=secret"
    with pytest.raises(SourceError, match="in 2 tries") as caught, Source(url, tries=2, timeout=1):
        pass
    assert "secret" not in str(caught.value) + caplog.text
    assert f"{HOST}:" in str(caught.value)


def test_what_is_no_address() -> None:
    with pytest.raises(SourceError, match="expected an address such as rtsp://host/path"):
        Source("http://me:secret@[::1/x")


def test_nothing_but_text_behind_an_address() -> None:
    with Camera(clip=b"no video " * 100) as camera:
        address = f"http://{HOST}:{camera.port}/clip.mp4"
        with pytest.raises(SourceError, match="expected a stream"), Source(address, tries=1):
            pass


def test_a_stop_while_it_connects_does_not_wait_for_the_time_out(camera: Camera) -> None:
    camera.stalled.set()
    stop, source = Stop(), Source(f"http://{HOST}:{camera.port}/video", timeout=600)
    timer = threading.Timer(0.2, stop)
    timer.start()
    report = run(source, [], [], live=True, stop=stop)  # hangs where the stop is not heard
    timer.join()
    assert report.stopped and report.frames == 0
    assert source.state == "closed"

"""Cameras: what is said when there is none, and the reading loop on OpenCV's own file reader (no camera is here)."""

from __future__ import annotations

import errno
import importlib.util
import logging
import os
import struct
import subprocess
import sys
import threading
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from not_root import told
from patience import PATIENCE

from edge_app import plugins, reconnect, v4l2
from edge_app.background import Background
from edge_app.errors import MissingPackage, SourceError
from edge_app.run import Stop, run
from edge_app.sources import camera
from edge_app.sources.camera import Source
from edge_app.types import Sink

REAL = sorted(Path("/dev").glob("video[0-9]*"))


def kernel(node: int, request: int, argument: bytes) -> bytes:
    """The answers of a UVC camera with two formats."""
    index = struct.unpack_from("I", argument)[0]
    if request == v4l2.QUERYCAP:
        return struct.pack("16s32s32sIII12x", b"uvcvideo", b"C920", b"usb-1", 6, 0x84A00001, 0x04200001)
    if request == v4l2.ENUM_FMT and index < 2:
        return struct.pack("III32s4sI12x", index, 1, 0, b"whatever", (b"MJPG", b"YUYV")[index], 0)
    raise OSError(errno.EINVAL, "no more")


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which cameras are looked for, empty."""
    monkeypatch.setattr(v4l2, "DEVICES", tmp_path)
    monkeypatch.setattr(v4l2.fcntl, "ioctl", kernel)
    return tmp_path


def test_missing_camera_names_the_ones_that_are_there(devices: Path) -> None:
    for name in ("video10", "video2", "video", "videos", "media0"):
        (devices / name).touch()
    found = rf"found: {devices}/video2 \(C920\), {devices}/video10 \(C920\)$"
    with pytest.raises(SourceError, match=rf"^/dev/video4711: there is no such camera; {found}"), Source("4711"):
        pass


def test_where_no_camera_is_the_one_on_the_ribbon_is_named(devices: Path) -> None:
    hint = r"found none; is one plugged in\? A Pi's own, on the ribbon, is --source picamera$"
    with pytest.raises(SourceError, match=rf"^/dev/video4711: there is no such camera; {hint}"), Source("4711"):
        pass


@pytest.mark.parametrize(
    ("driver", "caps"), [(b"rp1-cfe", 0x24200001), (b"unicam", 0x24200001), (b"bcm2835-isp", 0x04200001)]
)
def test_a_part_of_the_camera_on_the_ribbon_is_none(devices: Path, driver: bytes, caps: int, monkeypatch) -> None:
    """It captures, once libcamera has joined it to a sensor; what they say of themselves is that of the Pi's kernel."""

    def part(node: int, request: int, argument: bytes) -> bytes:
        if request == v4l2.QUERYCAP:
            return struct.pack("16s32s32sIII12x", driver, driver, b"platform:1f00110000.csi", 6, 0x85A00001, caps)
        return kernel(node, request, argument)

    monkeypatch.setattr(v4l2.fcntl, "ioctl", part)
    (devices / "video0").touch()
    assert v4l2.cameras() == []
    hint = r"gives no pictures by itself; found none; .* is --source picamera$"
    with pytest.raises(SourceError, match=hint), Source(str(devices / "video0")):
        pass


@pytest.mark.parametrize("kind", ["file", "device"])
def test_something_else_is_no_camera(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "video0"
    path.touch()
    with pytest.raises(SourceError, match="expected a camera"), Source(str(path) if kind == "file" else "/dev/null"):
        pass


def test_no_permission(tmp_path: Path) -> None:
    (tmp_path / "video0").touch(mode=0)
    said = told(tmp_path, "from edge_app.sources.camera import Source", "Source('video0').__enter__()")
    assert said.startswith("SourceError video0: the camera cannot be opened (Permission denied)")
    assert "usermod" in said


@pytest.mark.parametrize("refuses", ["open", "buffers"])
def test_busy_camera_names_who_has_it(tmp_path: Path, refuses: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "video0"
    path.touch()

    def busy_open(name: str, flags: int) -> int:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), name)

    def busy_ioctl(node: int, request: int, argument: bytes) -> bytes:
        if request == v4l2.REQBUFS:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return struct.pack("16s32s32sIII12x", b"uvcvideo", b"Webcam", b"usb", 0, 0, 1)

    if refuses == "open":
        monkeypatch.setattr(camera.os, "open", busy_open)
    else:
        monkeypatch.setattr(v4l2.fcntl, "ioctl", busy_ioctl)
    code = "import sys; file = open(sys.argv[1]); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout.readline() == "ready\n"
        with pytest.raises(SourceError, match=rf"busy; it is used by .*\(process {other.pid}\)"):
            Source(str(path)).__enter__()
        other.stdin.close()


def test_what_the_kernel_says_is_understood(devices: Path) -> None:
    (devices / "video3").touch()
    found = v4l2.describe(str(devices / "video3"))
    assert found is not None
    assert (found.name, found.formats, found.problem) == ("C920", ("MJPG", "YUYV"), "")


def open_files(path: Path) -> int:
    """How often this process has `path` open."""
    links = (os.path.realpath(link) for link in Path("/proc/self/fd").iterdir())
    return sum(link == str(path) for link in links)


class Line(Sink):
    """Looks at the film's state while nothing comes, as the status line does."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source, self.waited = source, threading.Event()

    def idle(self) -> None:
        if self.source.state == "reconnecting":
            self.waited.set()


@pytest.fixture
def film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A camera that OpenCV reads from a file of ten red pictures, after which it is lost; it is back as long as the file is there."""
    path = tmp_path / "video0"
    with av.open(str(path), "w", format="avi") as container:
        video = container.add_stream("mjpeg", rate=30)
        video.width, video.height, video.pix_fmt = 64, 48, "yuvj420p"
        for _ in range(11):
            image = np.full((48, 64, 3), (200, 10, 10), np.uint8)
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
    monkeypatch.setattr(camera, "_check", lambda path: None)
    monkeypatch.setattr(Source, "_opened", lambda self: cv2.VideoCapture(self.path, cv2.CAP_FFMPEG))
    return Source(str(path))


def test_a_camera_that_is_unplugged_comes_back(
    film: Source, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(reconnect, "FIRST_DELAY", 0.05)
    path = Path(film.path)
    with film:
        frames = iter(film)
        before = next(frames)
        hidden = path.rename(path.with_name("unplugged"))
        before = [before, *(next(frames) for _ in range(9))]
        threading.Timer(0.3, hidden.rename, (path,)).start()
        after = [next(frames) for _ in range(3)]
        assert film.state == "connected"
        film.stop()
    assert film.state == "closed"
    assert [frame.index for frame in before + after] == list(range(13))
    assert np.all(np.diff([frame.time_ns for frame in before + after]) > 0)
    assert after[0].time_ns - before[-1].time_ns > 200e6
    assert f"{path}: the camera was unplugged, reconnecting" in caplog.text
    assert f"{path}: back after" in caplog.text
    assert open_files(path) == 0


def test_a_stop_ends_the_waiting_for_a_camera_at_once(film: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnect, "FIRST_DELAY", 600)
    threads = threading.active_count()
    stop, line = Stop(), Line(film)
    waiter = threading.Thread(target=lambda: line.waited.wait(20 * PATIENCE) and stop())
    waiter.start()
    report = run(film, [("none", lambda frame, faces: faces)], [line], live=True, stop=stop)
    waiter.join()
    assert line.waited.is_set() and report.stopped and report.frames
    assert threading.active_count() == threads
    assert open_files(Path(film.path)) == 0


def test_a_camera_of_damaged_pictures_is_opened_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened: list[cv2.VideoCapture] = []

    class Damaged:
        def grab(self) -> bool:
            return True

        def retrieve(self) -> tuple[bool, np.ndarray | None]:
            return len(opened) > 1, np.zeros((4, 4, 3), np.uint8)

        def release(self) -> None:
            """Nothing is held."""

    monkeypatch.setattr(camera, "_check", lambda path: None)
    monkeypatch.setattr(reconnect, "FIRST_DELAY", 0)
    monkeypatch.setattr(Source, "_opened", lambda self: opened.append(Damaged()) or opened[-1])
    with Source("/dev/null") as source:
        assert next(iter(source)).index == 31
    assert "/dev/null: the camera gives no picture any more, reconnecting" in caplog.text


def test_frames_of_a_camera(film: Source) -> None:
    with film:
        frames = [frame for frame, _ in zip(film, range(5), strict=False)]
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert all(frame.image[0, 0, 0] > 180 > 40 > frame.image[0, 0, 2] for frame in frames)
    assert np.all(np.diff([frame.time_ns for frame in frames]) > 0)
    assert frames[0].source == "video0"
    assert frames[0].decode_ms > 0 and frames[0].live


def test_leaving_while_another_thread_reads_ends_that_thread(film: Source) -> None:
    before = threading.active_count()
    with film, Background(film) as background:
        next(iter(background))
    assert threading.active_count() == before


def test_a_camera_that_answers_only_after_the_end_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    answers, released = threading.Event(), threading.Event()

    class Slow:
        grabbed = 0

        def grab(self) -> bool:
            self.grabbed += 1
            return self.grabbed < 3 or answers.wait(PATIENCE)

        def retrieve(self) -> tuple[bool, np.ndarray]:
            return True, np.zeros((4, 4, 3), np.uint8)

        def release(self) -> None:
            released.set()

    monkeypatch.setattr(camera, "_check", lambda path: None)
    monkeypatch.setattr(camera, "_RELEASE_PATIENCE", 0.05)
    monkeypatch.setattr(Source, "_opened", lambda self: Slow())
    with Source("0") as source:
        frames = iter(source)
        next(frames)
        reader = threading.Thread(target=list, args=(frames,))
        reader.start()
    assert not released.is_set()
    answers.set()
    reader.join(PATIENCE)
    assert released.is_set()


def test_a_camera_that_is_back_only_after_the_end_is_let_go(film: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    opens, answers = threading.Event(), threading.Event()
    monkeypatch.setattr(camera, "_RELEASE_PATIENCE", 0.05)
    monkeypatch.setattr(reconnect, "FIRST_DELAY", 0)

    def slowly(self: Source) -> cv2.VideoCapture:
        opens.set()
        answers.wait(20 * PATIENCE)
        return cv2.VideoCapture(self.path, cv2.CAP_FFMPEG)

    with film as source:
        monkeypatch.setattr(Source, "_opened", slowly)
        reader = threading.Thread(target=list, args=(source,))
        reader.start()
        assert opens.wait(20 * PATIENCE)
    answers.set()
    reader.join(20 * PATIENCE)
    assert not reader.is_alive()
    assert open_files(Path(film.path)) == 0


@pytest.mark.skipif(not REAL, reason="no camera on this machine")
def test_a_real_camera() -> None:
    with Source(str(REAL[0])) as source:
        frame = next(iter(source))
    assert frame.image.ndim == 3


@pytest.mark.skipif(importlib.util.find_spec("picamera2") is not None, reason="Picamera2 is installed")
def test_picamera_says_what_to_install() -> None:
    with pytest.raises(MissingPackage, match="sudo apt install python3-picamera2"):
        plugins.load("sources", "picamera")


def test_who_has_a_camera_is_named_whatever_is_left_of_its_name(tmp_path: Path) -> None:
    """The kernel cuts names at 15 bytes, in the middle of a letter too."""
    process, node = tmp_path / "4711", tmp_path / "video0"
    node.touch()
    (process / "fd").mkdir(parents=True)
    (process / "fd" / "3").symlink_to(node)
    (process / "comm").write_bytes("카메라뷰어프로".encode()[:14] + b"\n")
    assert camera._user(process, str(node)) == "카메라뷰\ufffd (process 4711)"

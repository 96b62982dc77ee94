"""USB cameras through OpenCV's V4L2 reader; one that was unplugged is opened again."""

from __future__ import annotations

import errno
import itertools
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from .. import v4l2
from ..errors import SourceError
from ..reconnect import reconnect
from ..types import Frame

log = logging.getLogger(__name__)

_BAD_PICTURES = 30  # in a row: damaged MJPG frames happen on a poor cable, a second of them is a failure
_RELEASE_PATIENCE = 1.5  # s
_RIBBON = "A Pi's own, on the ribbon, is --source picamera"


class Source:
    """Frames of a camera as they come. MJPG is asked for first: raw formats do not fit 720p at 30 fps through USB 2.

    Size and rate are wishes; what the camera gives is in the log. Opening it fails with SourceError; one that is lost
    later is opened again for ever, with growing pauses. `state` is "closed", "connected" or "reconnecting".
    """

    live = True
    frames: int | None = None

    def __init__(self, device: str = "0", *, width: int = 1280, height: int = 720, fps: float = 30) -> None:
        self.path = f"/dev/video{device}" if device.isdecimal() else device
        self.name = Path(self.path).name
        self.fps: float | None = None
        self.state = "closed"
        self._wish = (width, height, fps)
        self._lock = threading.Lock()  # the camera is never released while another thread reads
        self._stopped = threading.Event()

    def __enter__(self) -> Source:
        self._stopped.clear()
        self._connect()
        self._started = time.monotonic_ns()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        if self._lock.acquire(timeout=_RELEASE_PATIENCE):
            self._capture.release()
            self._lock.release()
        else:
            log.warning("%s: the camera does not answer; it is released when it does", self.path)
        self.state = "closed"

    def stop(self) -> None:
        """End the iteration; safe from another thread."""
        self._stopped.set()

    def __iter__(self) -> Iterator[Frame]:
        numbers = itertools.count()
        try:
            while not self._stopped.is_set():
                yield from self._frames(numbers)
                self._connect_again()
        finally:
            if self._stopped.is_set():  # it may have answered only after the run had ended
                with self._lock:
                    self._capture.release()

    def _frames(self, numbers: Iterator[int]) -> Iterator[Frame]:
        """Pictures of this connection, until it is lost or the source is stopped."""
        bad = 0
        while bad <= _BAD_PICTURES:
            with self._lock:
                if self._stopped.is_set() or not self._capture.grab():
                    return
                arrived, begun = time.monotonic_ns(), time.perf_counter()
                image = self._picture()
            index, self._alive = next(numbers), arrived
            bad = 0 if image is not None else bad + 1
            if image is not None:
                cost = (time.perf_counter() - begun) * 1e3
                yield Frame(image, index, arrived - self._started, self.name, arrived, cost, live=True)

    def _connect(self) -> None:
        """Open the camera and wait for its first picture; SourceError when that fails, or nobody waits any more."""
        with self._lock:
            if self._stopped.is_set():
                raise SourceError(f"{self.path}: the source was closed")
            _check(self.path)
            capture = self._opened()
            if not capture.grab():
                capture.release()
                raise SourceError(f"{self.path}: the camera opens but gives no picture; {_who_uses(self.path)}")
            self._capture, self._alive, self.state = capture, time.monotonic_ns(), "connected"

    def _connect_again(self) -> None:
        with self._lock:
            if self._stopped.is_set():
                return
            self._capture.release()
            self.state = "reconnecting"
        lost = "the camera gives no picture any more" if Path(self.path).exists() else "the camera was unplugged"
        reconnect(self.path, lost, self._alive, self._connect, lambda seconds: not self._stopped.wait(seconds))

    def _opened(self) -> cv2.VideoCapture:
        capture = cv2.VideoCapture(self.path, cv2.CAP_V4L2)
        if not capture.isOpened():
            raise SourceError(f"{self.path}: the camera cannot be opened; {_who_uses(self.path)}")
        width, height, fps = self._wish
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))  # before the size, which depends on it
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        capture.set(cv2.CAP_PROP_FPS, fps)
        given = f"{capture.get(cv2.CAP_PROP_FRAME_WIDTH):.0f}x{capture.get(cv2.CAP_PROP_FRAME_HEIGHT):.0f}"
        self.fps = capture.get(cv2.CAP_PROP_FPS) or None
        code = int(capture.get(cv2.CAP_PROP_FOURCC)).to_bytes(4, "little").decode("ascii", "replace")
        asked, got = f"{width}x{height} {fps:g} fps MJPG", f"{given} {self.fps or 0:g} fps {code}"
        log.info("%s: asked for %s, got %s", self.path, asked, got)
        return capture

    def _picture(self) -> np.ndarray | None:
        good, image = self._capture.retrieve()
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB) if good and image is not None and image.size else None


def _check(path: str) -> None:
    """SourceError when the node is missing, forbidden, no camera, or taken."""
    try:
        node = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except FileNotFoundError:
        raise SourceError(f"{path}: there is no such camera; {_there_is()}") from None
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise SourceError(f"{path}: the camera is busy; {_who_uses(path)}") from error
        hint = "add yourself to its group: sudo usermod -aG video $USER, then log in again"
        raise SourceError(f"{path}: the camera cannot be opened ({error.strerror}); {hint}") from error
    try:
        if not v4l2.captures(node):
            raise SourceError(f"{path}: this node gives no pictures by itself; {_there_is()}")
        v4l2.claim(node)
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise SourceError(f"{path}: the camera is busy; {_who_uses(path)}") from error
        raise SourceError(f"{path}: expected a camera, got something else ({error.strerror}); {_there_is()}") from error
    finally:
        os.close(node)


def _there_is() -> str:
    found = ", ".join(f"{camera.path} ({camera.name})" for camera in v4l2.cameras())
    return f"found: {found}" if found else f"found none; is one plugged in? {_RIBBON}"


def _who_uses(path: str) -> str:
    """Names the other programs that have the node open, as far as this user may see them."""
    own = str(os.getpid())
    processes = (entry for entry in Path("/proc").iterdir() if entry.name.isdecimal() and entry.name != own)
    users = ", ".join(filter(None, (_user(process, path) for process in processes)))
    alone = "end the program that uses it (the service: sudo systemctl stop calmcam), or plug it in again"
    return f"it is used by {users}" if users else alone


def _user(process: Path, path: str) -> str:
    """The process by name and number if it has `path` open."""
    try:
        if os.path.realpath(path) in (os.readlink(link) for link in (process / "fd").iterdir()):
            return f"{(process / 'comm').read_text(encoding='utf-8', errors='replace').strip()} (process {process.name})"
    except OSError:  # ended meanwhile, or another user's
        pass
    return ""

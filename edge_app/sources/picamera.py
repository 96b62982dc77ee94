"""Cameras on the Pi's own connector, through Picamera2 (BSD-2-Clause, from apt); one that stalls is opened again."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import numpy as np

from ..errors import MissingPackage, SourceError
from ..reconnect import reconnect
from ..types import Frame

try:
    from picamera2 import Picamera2
except ModuleNotFoundError as error:
    raise MissingPackage(
        f"picamera: the package {error.name!r} is not installed; run 'sudo apt install python3-picamera2' and make the "
        "environment with --system-site-packages"
    ) from error
except (ImportError, ValueError) as error:  # its own parts are built for one NumPy
    raise MissingPackage(
        f"picamera: Picamera2 cannot be loaded ({error}); run deploy/install.sh again, or in an environment of your own "
        "pip install -c constraints-hailo.txt . in calmcam's folder"
    ) from error

log = logging.getLogger(__name__)

_PATIENCE = 1.0  # s without a frame after which the camera is taken for lost; also bounds how long stopping takes
_MICROSECONDS = 1_000_000


class Source:
    """Frames of "picamera" or "picamera:<number>". Only controls that this camera has are set; focus is left alone.

    Opening it fails with SourceError; a camera that is lost later is opened again for ever, with growing pauses.
    `state` is "closed", "connected" or "reconnecting".
    """

    live = True
    frames: int | None = None

    def __init__(self, spec: str = "picamera", *, width: int = 1280, height: int = 720, fps: float = 30) -> None:
        name, _, number = spec.partition(":")
        if name != "picamera" or (number and not number.isdecimal()):
            raise SourceError(f"{spec!r}: expected 'picamera' or 'picamera:<number>'")
        self.name, self._number = spec, int(number or 0)
        self.fps: float | None = None
        self.state = "closed"
        self._wish = (width, height, fps)
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def __enter__(self) -> Source:
        self._stopped.clear()
        self._connect()
        self._started = time.monotonic_ns()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        with self._lock:
            self._camera.close()
        self.state = "closed"

    def stop(self) -> None:
        """End the iteration; safe from another thread."""
        self._stopped.set()

    def __iter__(self) -> Iterator[Frame]:
        numbers = itertools.count()
        while not self._stopped.is_set():
            try:
                yield from self._frames(numbers)
            except SourceError as error:
                self._connect_again(str(error))

    def _frames(self, numbers: Iterator[int]) -> Iterator[Frame]:
        """Pictures of this connection until the source is stopped; SourceError says why there are no more."""
        while True:
            with self._lock:
                if self._stopped.is_set():
                    return
                image, arrived, cost = self._picture()
            self._alive = arrived
            yield Frame(image, next(numbers), arrived - self._started, self.name, arrived, cost, live=True)

    def _picture(self) -> tuple[np.ndarray, int, float]:
        """The next picture, when it came (ns, monotonic clock) and the ms that reading it cost."""
        try:
            request = self._camera.capture_request(wait=False).get_result(timeout=_PATIENCE)
        except TimeoutError as error:
            self._camera.cancel_all_and_flush()  # or closing it would wait for the frame that does not come
            raise SourceError(f"no frame for {_PATIENCE:g} s") from error
        except RuntimeError as error:
            raise SourceError(str(error)) from error
        arrived, begun = time.monotonic_ns(), time.perf_counter()
        image = request.make_array("main")
        request.release()
        return image, arrived, (time.perf_counter() - begun) * 1e3

    def _connect(self) -> None:
        """Open and start the camera; SourceError when that fails, or nobody waits any more."""
        with self._lock, ExitStack() as stack:
            if self._stopped.is_set():
                raise SourceError(f"{self.name}: the source was closed")
            found = Picamera2.global_camera_info()
            if self._number >= len(found):
                models = ", ".join(str(info.get("Model", "?")) for info in found) or "none"
                raise SourceError(f"{self.name}: there is no such camera; found: {models}; check the ribbon cable")
            try:
                self._camera = stack.enter_context(Picamera2(self._number))
                self._start()
            except (RuntimeError, IndexError) as error:
                raise SourceError(f"{self.name}: cannot be opened ({error}); end the program that uses it") from error
            stack.pop_all()  # it stays open until it is lost, or until __exit__
            self._alive, self.state = time.monotonic_ns(), "connected"

    def _connect_again(self, lost: str) -> None:
        with self._lock:
            if self._stopped.is_set():
                return
            self.state = "reconnecting"
            with suppress(RuntimeError):  # what is gone cannot be closed well
                self._camera.close()
        reconnect(self.name, lost, self._alive, self._connect, lambda seconds: not self._stopped.wait(seconds))

    def _start(self) -> None:
        width, height, fps = self._wish
        controls = {}
        if "FrameDurationLimits" in self._camera.camera_controls:
            lowest, highest, _ = self._camera.camera_controls["FrameDurationLimits"]
            duration = round(_MICROSECONDS / fps)
            duration = min(max(duration, lowest), highest or duration)
            controls["FrameDurationLimits"] = (duration, duration)
            self.fps = _MICROSECONDS / duration
        # Picamera2's names run against memory order: "BGR888" lies there as R, G, B.
        main = {"size": (width, height), "format": "BGR888"}
        self._camera.configure(self._camera.create_video_configuration(main=main, controls=controls))
        given = tuple(self._camera.camera_configuration()["main"]["size"])
        log.info("%s: asked for %dx%d %g fps, got %dx%d %g fps", self.name, *self._wish, *given, self.fps or 0)
        self._camera.start()

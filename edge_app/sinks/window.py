"""The live picture in a window: q or Esc ends the run, p holds the view, w writes a snapshot."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from ..types import Result

log = logging.getLogger(__name__)

_QUIT = (ord("q"), ord("Q"), 27)
_HOLD = (ord("p"), ord("P"))
_SNAPSHOT = (ord("w"), ord("W"))
_TITLE = "calmcam"  # what OBS looks for
_LARGEST = 1280, 800  # px, of a window when it opens


class Sink:
    """Shows `result.picture` (or the bare frame). Must be entered, written to and left in one thread, the main one.

    `stop` is called when the user wants to end. Holding the view holds nothing else: analysis and other sinks go on.
    Snapshots go into `folder`.
    """

    name = "show"

    def __init__(self, *, stop: Callable[[], None], folder: str | Path = ".") -> None:
        self._stop, self._folder = stop, Path(folder)

    def __enter__(self) -> Sink:
        self._shown: np.ndarray | None = None
        self._held = False
        return self

    def write(self, result: Result) -> None:
        """Show one picture and look at keys and the close button."""
        opening = self._shown is None
        if not opening and not self._visible():
            self._stop()  # imshow would open it again
            return
        if not self._held:
            image = result.frame.image if result.picture is None else result.picture
            self._shown = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
        if opening:
            self._open(self._shown.shape[1], self._shown.shape[0])
        cv2.imshow(_TITLE, self._shown)
        self.press(cv2.pollKey())

    def idle(self) -> None:
        """Look at keys and the close button while no picture comes."""
        if self._shown is not None:
            if self._visible():
                self.press(cv2.pollKey())
            else:
                self._stop()

    def __exit__(self, *exc: object) -> None:
        if self._shown is not None:
            cv2.destroyAllWindows()

    def press(self, key: int) -> None:
        """Do what a key stands for; -1 is none."""
        if key in _QUIT:
            self._stop()
        elif key in _HOLD:
            self._held = not self._held
        elif key in _SNAPSHOT:
            self._snapshot()

    def _open(self, width: int, height: int) -> None:
        cv2.namedWindow(_TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        scale = min(1.0, _LARGEST[0] / width, _LARGEST[1] / height)
        cv2.resizeWindow(_TITLE, max(1, round(width * scale)), max(1, round(height * scale)))

    def _visible(self) -> bool:
        try:
            return cv2.getWindowProperty(_TITLE, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # Qt is gone with its last window
            return False

    def _snapshot(self) -> None:
        number = 1
        while (path := self._folder / f"snapshot_{number:03d}.png").exists():
            number += 1
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(cv2.imencode(".png", self._shown)[1])
        except OSError as error:
            log.warning("%s: the snapshot cannot be written (%s)", path, error.strerror)
        else:
            log.info("%s written", path)


def unavailable() -> str | None:
    """Why no window can be shown, as the beginning of a sentence; None when one can.

    Asked before a window is opened, because Qt ends the process when it cannot.
    """
    if not cv2.currentUIFramework():
        return "this OpenCV was built without windows"
    if not os.environ.get("DISPLAY"):
        wayland = os.environ.get("WAYLAND_DISPLAY")
        return "this Wayland session has no XWayland" if wayland else "there is no display ($DISPLAY is not set)"
    if not _x_server_answers():
        return f"the display {os.environ['DISPLAY']} does not answer or lets nobody in"
    return None


def _x_server_answers() -> bool:
    try:
        xcb = ctypes.CDLL("libxcb.so.1")
    except OSError:
        return False
    xcb.xcb_connect.restype = ctypes.c_void_p
    connection = ctypes.c_void_p(xcb.xcb_connect(None, None))
    answers = not xcb.xcb_connection_has_error(connection)
    xcb.xcb_disconnect(connection)
    return answers

"""Tells systemd that the run is up, and feeds its watchdog with each result (sd_notify(3), datagram protocol)."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable

from ..types import Result

log = logging.getLogger(__name__)


class Sink:
    """Ready at the first result, alive at most once a second after it; only what reached the end of the run counts.

    Where none comes the run is alive only as long as `waits` says so: a camera or stream that was lost.
    """

    name = "systemd"

    def __init__(self, address: str | None = None, *, waits: Callable[[], bool] = bool) -> None:
        self._waits = waits
        address = address or os.environ["NOTIFY_SOCKET"]
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._last = 0.0
        self._heard = True

    def __enter__(self) -> Sink:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        return self

    def write(self, result: Result) -> None:
        now = time.monotonic()
        if now - self._last >= 1.0:
            self._send(b"READY=1\nWATCHDOG=1" if not self._last else b"WATCHDOG=1")
            self._last = now

    def idle(self) -> None:
        if self._last and self._waits() and time.monotonic() - self._last >= 1.0:
            self._send(b"WATCHDOG=1")
            self._last = time.monotonic()

    def __exit__(self, *exc: object) -> None:
        self._send(b"STOPPING=1")
        self._socket.close()

    def _send(self, message: bytes) -> None:
        try:
            self._socket.sendto(message, self._address)
        except OSError as error:
            if self._heard:  # an address that an ended service left behind, for example
                log.warning("NOTIFY_SOCKET: systemd does not listen (%s); the run goes on without it", error.strerror)
            self._heard = False

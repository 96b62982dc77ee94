"""The world of the Hailo double: which chip is in the machine, which versions fit, and what goes wrong when.

Tests set attributes of `world`; a real process is told through CALMCAM_DOUBLE, words `name=value` of the fields below,
as in CALMCAM_DOUBLE="latency_ms=0.5 queue=8 lose_every=200 back_after=0.5". Section numbers: the fact sheet's.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from dataclasses import dataclass, field, fields
from typing import Any


class Killed(BaseException):
    """What kills the real process (1.14, 9). Nothing should catch it."""


@dataclass
class World:
    """Everything that can differ between machines and moments. Reset by `world.__init__()`."""

    library: str = "4.23.0"  # Python package and libhailort
    native: str = ""  # version of the native module, the library's when empty
    driver: str = "4.23.0"  # empty: no driver loaded
    firmware: str = "4.23.0"
    arch: str = "hailo8"  # hailo8, hailo8r, hailo8l
    ids: tuple[str, ...] = ("0000:01:00.0",)
    busy: bool = False  # another process holds the chip
    lock: str = ""  # file by which processes exclude each other, as the driver does
    page_size: int = 4096
    sensor: bool = False  # can measure power
    celsius: float = 41.5
    throttling: bool = False
    zero_bytes: bool = False  # behave as bindings built before NumPy 2 do under NumPy 2 (1.1)
    queue: int = 32  # nominal depth (1.6)
    latency_ms: float = 0.0  # per frame
    contexts: int = 1  # of every HEF
    execute: bool = True  # run the network; False gives zeros, for measuring overhead
    open_ms: float = 0.0  # what opening a VDevice takes
    open_status: int = 0  # creating a VDevice fails with it
    scan_status: int = 0  # Device.scan() fails with it
    fail_at: int = 0  # transfer number (from 1) that fails on the device, 0: none
    fail_status: int = 36
    refuse_at: int = 0  # transfer number whose submission to the driver fails
    hang_at: int = 0  # transfer number that never completes, nor do those after it
    lose_at: int = 0  # transfer number at which the chip vanishes
    lose_every: int = 0  # the same, again and again
    back_after: float = 0.0  # seconds until a vanished chip returns, 0: when told
    silent: bool = False  # a vanished chip leaves frames unanswered instead of failing them
    abort: bool = False  # what kills the real process kills this one

    transfers: int = 0
    launches: int = 0
    batch: int = 0  # of the model configured last
    bindings: int = 0  # made so far
    most: int = 0  # frames in flight at once
    losses: int = 0
    outlived: int = 0  # InferModels that were alive when their VDevice was released: crashes at exit, sometimes (1.3)
    killed: list[str] = field(default_factory=list)
    chips: list[Any] = field(default_factory=list)  # open ones
    _back_at: float | None = None  # None: present
    _held: Any = None

    def __post_init__(self) -> None:
        self.mutex = threading.RLock()

    @property
    def release(self) -> tuple[int, ...]:
        """The library's version as numbers."""
        return tuple(int(part) for part in self.library.split("."))

    @property
    def present(self) -> bool:
        """Whether the chip and its driver are there."""
        if self._back_at is not None and time.monotonic() >= self._back_at:
            self._back_at = None
        return bool(self.ids and self.driver) and self._back_at is None

    def lose(self) -> None:
        """The chip vanishes from the bus."""
        with self.mutex:
            self.losses += 1
            self._back_at = time.monotonic() + (self.back_after or float("inf"))

    def restore(self) -> None:
        """The chip is back; what was open on it stays dead."""
        self._back_at = None

    def kill(self, reason: str) -> None:
        """What the real process does not survive."""
        self.killed.append(reason)
        if self.abort:
            os.write(2, f"hailo double: the real process dies here: {reason}\n".encode())
            os.abort()
        raise Killed(reason)

    def fate(self) -> str:
        """What happens to the next transfer: "", "fail", "refuse" or "hang"."""
        with self.mutex:
            self.transfers += 1
            n = self.transfers
            if n == self.lose_at or (self.lose_every and n % self.lose_every == 0):
                self.lose()
            fates = {self.fail_at: "fail", self.refuse_at: "refuse", self.hang_at: "hang"}
            return fates.get(n, "")

    def take(self) -> bool:
        """Hold the chip against other processes; False when one of them has it."""
        if self.busy:
            return False
        if self.lock and self._held is None:
            file = open(self.lock, "w")  # noqa: SIM115 - held until given back
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                return False
            self._held = file
        return True

    def give(self) -> None:
        """Let other processes have the chip."""
        if self._held is not None:
            self._held.close()
            self._held = None


def _from_environment() -> World:
    types = {item.name: type(item.default) for item in fields(World) if not item.name.startswith("_")}
    given: dict[str, Any] = {}
    for word in os.environ.get("CALMCAM_DOUBLE", "").split():
        name, _, value = word.partition("=")
        readers = {bool: lambda text: text not in ("0", ""), tuple: lambda text: tuple(filter(None, text.split(",")))}
        given[name] = readers.get(types[name], types[name])(value)
    return World(abort="CALMCAM_DOUBLE" in os.environ, **given)


world = _from_environment()

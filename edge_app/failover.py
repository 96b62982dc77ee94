"""Classify on the device while it answers, on the CPU while it does not: the same batch, none lost or doubled."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import numpy as np

from .errors import BackendError, CalmcamError, ManifestError
from .manifest import Artifact
from .preprocess import to_input
from .types import Backend

log = logging.getLogger(__name__)


class Failover:
    """A backend over two: what the first one fails to do, the second one does.

    A failed device is closed and opened again in a thread of its own; between attempts it waits `delay` seconds,
    doubled after each up to `longest`, and starts over once the device has served four times as long as it was waited
    for. HailoRT holds Python's lock while it opens, configures or releases a device: a run stands still for as long as
    each takes, which nothing here bounds. `device` names the one that answered the last batch.
    """

    def __init__(
        self,
        device: Callable[[], Backend],
        cpu: Callable[[], Backend],
        artifacts: tuple[Artifact, Artifact],
        *,
        probe: Callable[[], object] = lambda: None,
        delay: float = 0.5,
        longest: float = 30.0,
    ):
        """Open both.

        `artifacts`: what `device` and `cpu` run; ManifestError where they cannot stand in for each other. `probe` is
        called before the device is opened again and raises CalmcamError where that would be in vain; asking in a
        process of its own, it also keeps a run from opening a device that hangs.
        """
        self._names = _paired(*artifacts)
        self._spec = artifacts[1].input
        self._open, self._probe = device, probe
        self._first, self._delay, self._longest = delay, delay, longest
        self._closing, self._mutex = threading.Event(), threading.Lock()
        self._thread: threading.Thread | None = None
        self._cpu = cpu()
        try:
            self._device: Backend | None = device()
        except CalmcamError:
            self._cpu.close()
            raise
        self.device, self._since = self._device.device, time.monotonic()

    def infer(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs (N, ...) float32 by the device's tensor names for rows `batch` (N, H, W, C) uint8; N may be 0."""
        with self._mutex:
            device = self._device
        if device is not None:
            try:
                outputs = device.infer(batch)
            except BackendError as error:
                self._lose(device, error)
            else:
                self.device = device.device
                return dict(outputs)
        outputs = self._cpu.infer(to_input(batch, self._spec))
        self.device = self._cpu.device
        return {name: outputs[other] for name, other in self._names.items()}

    def close(self) -> None:
        """Close both, and stop trying."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)
            if self._thread.is_alive():
                log.error("the device was still being closed or opened after 2 s")
        with self._mutex:
            device, self._device = self._device, None
        if device is not None:
            device.close()
        self._cpu.close()

    def _lose(self, device: Backend, error: BackendError) -> None:
        now = time.monotonic()
        with self._mutex:
            if self._device is not device:
                return  # another thread lost it first
            self._device = None
        steady = now - self._since > 4 * self._delay
        self._delay = self._first if steady else min(2 * self._delay, self._longest)
        log.warning("%s; going on with the %s, next try in %.1f s", str(error), self._cpu.device, self._delay)
        self._thread = threading.Thread(target=self._reopen, args=(device, now), name="failover", daemon=True)
        self._thread.start()

    def _reopen(self, device: Backend, lost: float) -> None:
        device.close()
        while not self._closing.wait(self._delay):
            try:
                self._probe()
                fresh = self._open()
            except (CalmcamError, OSError) as error:  # a probe that could not be started is no answer either
                self._delay = min(2 * self._delay, self._longest)
                log.info("%s; next try in %.1f s", str(error), self._delay)
                continue
            with self._mutex:
                if not self._closing.is_set():
                    self._device, self._since = fresh, time.monotonic()
                    log.warning("the %s is back after %.1f s", fresh.device, self._since - lost)
                    return
            fresh.close()


def _paired(device: Artifact, cpu: Artifact) -> dict[str, str]:
    """The device's tensor names to the CPU's, by head; both must take the same pixels and give the same quantity."""
    one, other = device.input, cpu.input
    names = f"{device.path.name} and {cpu.path.name}"
    if (one.height, one.width, one.colour) != (other.height, other.width, other.colour):
        raise ManifestError(f"{names}: expected inputs of one size and colour, got {one} and {other}; export again")
    if one.dtype != "uint8" or one.scale != 1 or one.offset != 0:
        raise ManifestError(f"{device.path.name}: expected raw uint8 pixels as input, got {one}; compile it again")
    if device.emits != cpu.emits or set(device.outputs) != set(cpu.outputs):
        came = [f"{item.emits} of {', '.join(sorted(item.outputs))}" for item in (device, cpu)]
        raise ManifestError(f"{names}: expected the same outputs, got {came[0]} and {came[1]}; export both again")
    return {name: cpu.outputs[head] for head, name in device.outputs.items()}

"""HEF files on a Hailo-8 or 8L with HailoRT 4.18 or later, through its asynchronous API.

Written against a fact sheet, exercised on a double of the library, never yet on the chip. What kills or silently
fails the real process shapes this file: callbacks cannot throw and only note the outcome; nothing is closed inside one;
any failure is final for a configured model; the VDevice outlives its models; only the completion tells of an error.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import logging
import os
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BackendError, BackendUnavailable, DeviceLost, MissingPackage
from ..hailo_checks import (
    absence,
    check_file,
    check_streams,
    compiler_problem,
    fits,
    permission_problem,
    version_problem,
)
from ..hailo_facts import QUIET, REMEDIES, explain
from ..hailo_probe import identify
from ..manifest import Artifact

for _name, _value in QUIET.items():
    os.environ.setdefault(_name, _value)

try:
    import hailo_platform
    from hailo_platform.pyhailort import _pyhailort, pyhailort
except ImportError as error:
    raise MissingPackage(
        f"hailo_platform cannot be imported ({error}); it is on no package index: sudo apt install hailo-all, use the "
        "system's Python in a venv made with --system-site-packages, or run with --device cpu"
    ) from error

log = logging.getLogger(__name__)

_OPENING = 5.0  # seconds for the first inference, which may load the network
_OLD = getattr(hailo_platform, "__version__", "").startswith("4.18")  # copies bindings only by halves, and see below

# Both families, related to each other or not (4.x: not): every exception class of the two modules.
_CLASSES = [item for module in (pyhailort, _pyhailort) for item in vars(module).values() if isinstance(item, type)]
_FOREIGN = (*(item for item in _CLASSES if issubclass(item, Exception)), RuntimeError, ValueError, MemoryError)


class _Chip:
    """The one VDevice of this process: its models share it, the last one to leave releases it."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._vdevice: Any = None
        self._users, self._pid = 0, 0
        self.failed = False  # a model on it met a failure of the device: nobody may stay, then it is opened anew

    def take(self) -> Any:
        """The VDevice, opened when it is not; BackendUnavailable says why not."""
        with self._mutex:
            if self._pid != os.getpid():  # a forked child must not release its parent's
                self._inherited, self._vdevice, self._users, self._pid = self._vdevice, None, 0, os.getpid()
            if self._users and self.failed:
                raise BackendUnavailable("the Hailo failed and other models of this process still hold it; close them")
            if self._vdevice is None:
                params = hailo_platform.VDevice.create_params()
                params.scheduling_algorithm = hailo_platform.HailoSchedulingAlgorithm.ROUND_ROBIN  # default: none
                params.group_id = "calmcam"  # shared in this process; others would need hailort_service and multi_process_service
                self._vdevice = hailo_platform.VDevice(params)
                self.failed = False
            self._users += 1
            return self._vdevice

    def give(self) -> None:
        """One model less; after the last one the device is free."""
        with self._mutex:
            self._users -= 1
            if not self._users:
                vdevice, self._vdevice = self._vdevice, None
                vdevice.release()


_chip = _Chip()


class _Outcome:
    """The callback of one job: notes the error and sets an event, so that it cannot throw."""

    def __init__(self) -> None:
        self.done, self.error = threading.Event(), None

    def __call__(self, completion_info: object) -> None:
        self.error = getattr(completion_info, "exception", None)
        self.done.set()


class Backend:
    """One network on the chip. All rows of a batch are queued and awaited together; one batch at a time."""

    device = "hailo"

    def __init__(self, artifact: Artifact, *, depth: int = 8, timeout: float = 0.5):
        """Open `artifact` and run it once.

        `depth`: most frames in flight; `timeout`: seconds for one burst of at most `depth` rows. ModelError for a file
        that does not fit, BackendUnavailable and DeviceLost for a device that does not answer.
        """
        self._path, self._timeout, self._pid = artifact.path, timeout, os.getpid()
        self._mutex, self._failure = threading.Lock(), ""
        if problem := library_problem():
            raise BackendUnavailable(problem)
        if _OLD:  # its callback thread reads an empty queue after a minute without a callback
            _warn("HailoRT 4.18 may end the process after a minute without a face; upgrade it (hailo-all)")
        problem, mend = compiler_problem(artifact.compiler, getattr(hailo_platform, "__version__", ""))
        if problem:
            _warn(f"{self._path.name} {problem}; {mend}")
        check_file(artifact)
        with _opening(self._path):
            hef = hailo_platform.HEF(os.fspath(self._path))  # needs no device
            inputs, outputs = hef.get_input_vstream_infos(), hef.get_output_vstream_infos()
        check_streams(artifact, inputs, outputs)
        if problem := presence_problem():
            raise BackendUnavailable(problem)
        self._shape = tuple(inputs[0].shape)
        self._shapes = {info.name: tuple(info.shape) for info in outputs}  # of every output: each needs a buffer
        # What is handed out, without the empty axes that convolutional heads keep: (1, 1, C) is (C,).
        self._wanted = {name: _flat(self._shapes[name]) for name in artifact.outputs.values()}
        several = any(group.is_multi_context for group in hef.get_network_groups_infos())
        with contextlib.ExitStack() as stack, _opening(self._path):
            # Networks in several contexts swap weights over PCIe: let a whole burst pass before each swap.
            self._configured = self._configure(stack, depth if several else 0)
            self._allocate(inputs[0].name, min(depth, self._configured.get_async_queue_size()))
            self._burst(self._input[:1], _OPENING)
            self._open = stack.pop_all()

    def infer(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Outputs (N, ...) float32 by stream name for rows `batch` (N, H, W, C) uint8; N may be 0.

        DeviceLost or BackendError when the device fails; from then on this object only says so: open another.
        """
        if batch.shape[1:] != self._shape or batch.dtype != np.uint8:
            raise BackendError(f"{self._path.name}: expected rows {self._shape} uint8, got {batch.shape} {batch.dtype}")
        results = {name: np.empty((len(batch), *shape), np.float32) for name, shape in self._wanted.items()}
        with self._mutex:
            self._refuse_use()
            for start in range(0, len(batch), len(self._input)):
                rows = batch[start : start + len(self._input)]
                with self._failing():
                    self._burst(rows, self._timeout)
                for name, result in results.items():
                    result[start : start + len(rows)] = self._outputs[name][: len(rows)].reshape(-1, *result.shape[1:])
        return results

    def close(self) -> None:
        """Release the model, then the device, in reverse order of opening; a second time does nothing."""
        with self._mutex:
            self._failure = self._failure or f"{self._path.name}: closed; open it again"
            if os.getpid() != self._pid:
                return  # a forked child leaves its parent's device alone
            try:
                self._open.close()
            except _FOREIGN as error:
                log.warning("%s: releasing the Hailo: %s", self._path.name, explain(error)[1])

    def _configure(self, stack: contextlib.ExitStack, batch: int) -> Any:
        """The configured model; `stack` releases what was opened for it."""
        vdevice = _chip.take()
        stack.callback(_chip.give)
        stack.callback(self._forget)
        model = vdevice.create_infer_model(os.fspath(self._path))
        model.set_batch_size(batch)  # 0: automatic
        for name in self._shapes:
            model.output(name).set_format_type(hailo_platform.FormatType.FLOAT32)
        # Leaving the context aborts what is in flight with Python's lock released; its shutdown() would hold the lock.
        return stack.enter_context(model.configure())

    def _forget(self) -> None:
        """Let go of every object of HailoRT: none may outlive the VDevice."""
        self._configured, self._bindings = None, []

    def _allocate(self, name: str, depth: int) -> None:
        """One buffer per stream and frame in flight, and the bindings on them, used again and again."""
        self._input = np.zeros((depth, *self._shape), np.uint8)
        self._outputs = {output: np.zeros((depth, *shape), np.float32) for output, shape in self._shapes.items()}
        self._input_name = name
        self._bindings = [self._bind(slot) for slot in range(depth)]

    def _bind(self, slot: int) -> Any:
        outputs = {name: array[slot] for name, array in self._outputs.items()}
        return self._configured.create_bindings({self._input_name: self._input[slot]}, outputs)

    def _burst(self, rows: np.ndarray, timeout: float) -> None:
        """Queue `rows` as one job and wait for it; raises HailoRT's exceptions, or DeviceLost after `timeout` seconds.

        The wait is our own: HailoRT's may take twice its time-out and does not tell that a job failed.
        """
        deadline, outcome = time.monotonic() + timeout, _Outcome()
        self._input[: len(rows)] = rows
        if _OLD:
            self._bindings = [self._bind(slot) for slot in range(len(self._input))]
        self._configured.wait_for_async_ready(timeout_ms=round(timeout * 1e3), frames_count=len(rows))
        self._configured.run_async(self._bindings[: len(rows)], outcome)
        if not outcome.done.wait(max(0.0, deadline - time.monotonic())):
            _chip.failed = True
            raise DeviceLost(f"{self._path.name}: the Hailo gave no answer within {timeout:g} s; {REMEDIES['lost'][0]}")
        if outcome.error is not None:
            raise outcome.error

    def _refuse_use(self) -> None:
        if os.getpid() != self._pid:
            raise BackendError(f"{self._path.name}: opened in another process; open it in the process that uses it")
        if not self._failure and _chip.failed:
            self._failure = f"{self._path.name}: the Hailo failed under another model of this process; open it again"
        if self._failure:
            raise DeviceLost(self._failure)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """HailoRT's exceptions as ours; any of them ends this model."""
        try:
            yield
        except DeviceLost as error:
            self._failure = str(error)
            raise
        except _FOREIGN as error:
            ours = _ours(error, self._path)
            self._failure = str(ours)
            raise (ours if isinstance(ours, DeviceLost) else BackendError(self._failure)) from error


def available(artifacts: Mapping[str, Artifact]) -> tuple[str, str]:
    """The variant of `artifacts` that this machine's Hailo runs, or "", and one sentence that says why."""
    problem = library_problem() or presence_problem()
    if problem:
        return "", problem
    try:
        architecture = identify()
    except BackendError as error:
        return "", str(error)
    known = fits(architecture) or ("hailo8",)
    variant = next((name for name in known if name in artifacts), "")
    if not variant:
        return "", f"a {architecture} but no HEF of this model for it; calmcam compile MODEL --arch {known[0]}"
    return variant, f"{architecture}, HailoRT {hailo_platform.__version__}, {artifacts[variant].path.name}"


def library_problem() -> str:
    """Why the installed HailoRT cannot be used, as a sentence, or ""."""
    try:
        requires = importlib.metadata.requires("hailort")
    except importlib.metadata.PackageNotFoundError:
        requires = None
    return version_problem(getattr(hailo_platform, "__version__", ""), np.__version__, requires)


def presence_problem() -> str:
    """Why no device can be opened, as a sentence, or ""; opens none."""
    try:
        found = hailo_platform.Device.scan()
    except _FOREIGN as error:
        return f"the Hailo: {explain(error)[1]}"
    return permission_problem() or ("" if found else absence())


@functools.cache
def _warn(text: str) -> None:
    """Once, however often a lost device is opened again."""
    log.warning(text)


def _flat(shape: tuple[int, ...]) -> tuple[int, ...]:
    return shape[2:] if len(shape) == 3 and shape[:2] == (1, 1) else shape


@contextlib.contextmanager
def _opening(path: Path) -> Iterator[None]:
    """HailoRT's exceptions while a model is opened, as ours."""
    try:
        yield
    except _FOREIGN as error:
        raise _ours(error, path) from error


def _ours(error: BaseException, path: Path) -> Exception:
    for link in filter(None, (error, error.__cause__)):  # their frames hold what must not outlive the VDevice
        traceback.clear_frames(link.__traceback__)
    kind, sentence = explain(error)
    _chip.failed |= kind == "lost"
    return REMEDIES[kind][1](f"{path.name} on the Hailo: {sentence}")

"""The chip of the Hailo double: transfers one after the other, completions, and the failure shapes of 1.8."""

from __future__ import annotations

import contextlib
import ctypes
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from hailo_platform.pyhailort import _pyhailort as native
from hailo_platform.pyhailort._pyhailort import FormatType, HefData, SchedulingAlgorithm, status
from hailo_world import Killed, world

_TYPES = {FormatType.UINT8: np.uint8, FormatType.UINT16: np.uint16, FormatType.FLOAT32: np.float32}
_FITS = {"hailo8": ("hailo8", "hailo8r", "hailo8l"), "hailo8l": ("hailo8l",)}
_FITS["hailo8r"] = _FITS["hailo8"]


class Chip:
    """One underlying device, shared by the VDevice handles of a group."""

    def __init__(self, group: str, ids: list[str], algorithm: SchedulingAlgorithm) -> None:
        self.group, self.ids, self.scheduled, self.handles = group, ids, algorithm != SchedulingAlgorithm.NONE, 1
        self.active: Configured | None = None
        self.models: list[Configured] = []
        self.infer_models: weakref.WeakSet[Any] = weakref.WeakSet()
        self._born = world.losses
        self._queue: deque[tuple[Configured, _Frame]] = deque()
        self._change = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="double-chip", daemon=True)
        self._thread.start()

    @property
    def gone(self) -> bool:
        """Whether the chip has vanished since this was opened; it stays so when the chip returns."""
        return world.losses != self._born or not world.present

    @property
    def released(self) -> bool:
        return self.handles <= 0

    def release(self) -> None:
        """Give one handle back; the last one frees the chip."""
        self.handles -= 1
        if self.released:
            with self._change:
                self._change.notify_all()
            self._thread.join()
            world.outlived += len(self.infer_models)
            with world.mutex:
                world.chips.remove(self)
            if not world.chips:
                world.give()

    def submit(self, model: Configured, frame: _Frame) -> None:
        with self._change:
            self._queue.append((model, frame))
            self._change.notify_all()

    def _work(self) -> None:
        free = 0.0
        while True:
            with self._change:
                self._change.wait_for(lambda: self._queue or self.released)
                if self.released:
                    return
                model, frame = self._queue.popleft()
            free = max(free, time.perf_counter()) + world.latency_ms / 1e3
            with self._change:
                self._change.wait_for(lambda: self.released, max(0.0, free - time.perf_counter()))
            model.transfer(frame)
            del model, frame  # or this thread keeps what the caller has let go of


class _Frame:
    """One binding in flight."""

    def __init__(self, job: Job, inputs: dict[str, np.ndarray], outputs: dict[str, np.ndarray]) -> None:
        self.job, self.inputs, self.outputs = job, inputs, outputs


class Job:
    """One launch: frames to come, the first failure, and its callback."""

    def __init__(self, frames: int, callback: Callable[[int], None]) -> None:
        self.left, self.status, self.callback = frames, 0, callback
        self.finished = threading.Event()

    def wait(self, timeout: float) -> None:
        if not self.finished.wait(timeout):
            raise status(4)


class Configured:
    """A configured model on a chip. `state`: ok, shutdown (a), aborting (b) or stuck (c)."""

    def __init__(self, chip: Chip, hef: HefData, formats: Mapping[str, FormatType], batch: int) -> None:
        self.chip, self.hef, self.state = chip, hef, "ok"
        self.formats = {name: kind or FormatType.UINT8 for name, kind in formats.items()}
        self.queue = _nominal(hef, batch)
        self._network = _Network(hef) if world.execute else None
        self._flying: list[_Frame] = []
        self._done: deque[Job] = deque()
        self._closed = False
        self._change = threading.Condition()
        self._callbacks = threading.Thread(target=self._call_back, name="double-callbacks", daemon=True)
        self._callbacks.start()
        chip.models.append(self)

    @property
    def in_callback(self) -> bool:
        return threading.current_thread() is self._callbacks

    def wait_ready(self, timeout: float, frames: int) -> None:
        def room() -> bool:
            return self.state != "ok" or (frames < 2 * self.queue and len(self._flying) + frames <= 3 * self.queue)

        with self._change:
            if not self._change.wait_for(room, timeout):
                raise status(4)

    def launch(self, frames: list[tuple[dict[str, Any], dict[str, Any]]], callback: Callable[[int], None]) -> Job:
        """Start one transfer per frame; what fails here shuts the model down, except a missing output buffer."""
        if any(buffer is None for _, outputs in frames for buffer in outputs.values()):
            raise status(6)
        if self.state == "shutdown":
            raise status(63)
        world.launches += 1
        job = Job(len(frames), callback)
        for inputs, outputs in frames:
            problem = self._unfit({**inputs, **outputs})
            if problem:
                job.callback = None  # a launch that fails half way never calls back (1.8)
                self.shut_down()
                raise status(problem)
            frame = _Frame(job, inputs, outputs)
            with self._change:
                self._flying.append(frame)
                world.most = max(world.most, len(self._flying))
            self._submit(frame)
        return job

    def transfer(self, frame: _Frame) -> None:
        """What the chip does with one frame; runs in the chip's thread."""
        if frame not in self._flying or self.state == "stuck":
            return
        fate = world.fate()
        if self.chip.gone:
            fate = "hang" if world.silent else "fail"
        if fate == "hang":
            self.state = "stuck"
        elif fate in ("fail", "refuse"):
            scheduled = self.chip.scheduled and fate == "fail" and not self.chip.gone
            self.state = "stuck" if scheduled else "aborting"
            self._complete(frame, world.fail_status)
        else:
            self._execute(frame)
            self._complete(frame, 0)

    def shut_down(self) -> None:
        """Abort what is in flight; the model is unusable afterwards."""
        self.state = "shutdown"
        for frame in list(self._flying):
            self._complete(frame, 63)

    def close(self) -> None:
        """The native destructor: abort, run the queued callbacks, join their thread."""
        if self.in_callback:
            world.kill("a model was closed inside a callback (1.8): Resource deadlock avoided")
        if self.chip.released:
            world.kill("a configured model outlived its VDevice (1.3)")
        self.shut_down()
        with self._change:
            self._closed = True
            self._change.notify_all()
        self._callbacks.join()
        self.chip.models.remove(self)
        if self.chip.active is self:
            self.chip.active = None

    def _unfit(self, buffers: dict[str, Any]) -> int:
        for name, buffer in buffers.items():
            if buffer is None:
                return 61
            seen = 0 if world.zero_bytes and np.lib.NumpyVersion(np.__version__) >= "2.0.0" else buffer.nbytes
            if seen != self.bytes_of(name):
                return 6
        return 82 if len(self._flying) >= 3 * self.queue else 0

    def bytes_of(self, name: str) -> int:
        """Bytes of one frame of that stream in its frozen format."""
        shape = next(info.shape for info in (*self.hef.inputs, *self.hef.outputs) if info.name == name)
        return int(np.prod(shape)) * np.dtype(_TYPES[self.formats[name]]).itemsize

    def _submit(self, frame: _Frame) -> None:
        if self.state == "aborting":
            self._complete(frame, 63)
        elif not self.chip.scheduled and self.chip.active is not self:
            self._complete(frame, 72)
        else:
            self.chip.submit(self, frame)

    def _execute(self, frame: _Frame) -> None:
        levels = self._network(self._pixels(frame)) if self._network else {}
        for info in self.hef.outputs:
            values = levels.get(info.name, np.zeros(info.shape, np.uint8))
            if self.formats[info.name] == FormatType.FLOAT32:
                quant = info.quant_info
                values = (values.astype(np.float32) - np.float32(quant.qp_zp)) * np.float32(quant.qp_scale)
            values = values.astype(_TYPES[self.formats[info.name]], copy=False)
            frame.outputs[info.name].reshape(-1).view(values.dtype)[:] = values.reshape(-1)

    def _pixels(self, frame: _Frame) -> np.ndarray:
        """The input as the chip gets it; float32 is rounded half to even and wraps (1.5)."""
        info = self.hef.inputs[0]
        buffer = frame.inputs[info.name]
        kind = self.formats[info.name]
        values = buffer.reshape(-1).view(_TYPES[kind])
        if kind == FormatType.FLOAT32:
            quant = info.quant_info
            values = (np.rint(values / quant.qp_scale + quant.qp_zp).astype(np.int64) & 255).astype(np.uint8)
        return values.reshape(info.shape)

    def _complete(self, frame: _Frame, number: int) -> None:
        with self._change:
            if frame not in self._flying:
                return
            self._flying.remove(frame)
            job = frame.job
            job.left -= 1
            job.status = job.status or number
            if job.left == 0 and job.callback:
                self._done.append(job)
            self._change.notify_all()

    def _call_back(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._done or self._closed)
                if not self._done:
                    return
                job = self._done.popleft()
            try:
                job.callback(job.status)
            except BaseException as error:  # noqa: BLE001 - the real process aborts on any of them
                with contextlib.suppress(Killed):
                    world.kill(f"{type(error).__name__} escaped a callback (1.8): {error}")
                return
            job.finished.set()


class _Network:
    """The TFLite file inside the HEF; every output as uint8 levels on the stream's grid."""

    def __init__(self, hef: HefData) -> None:
        self._hef = hef
        self._interpreter = Interpreter(model_content=hef.tflite, num_threads=1)
        self._interpreter.allocate_tensors()
        self._runner = self._interpreter.get_signature_runner()
        (self._input, self._detail), *_ = self._runner.get_input_details().items()

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Levels by stream name for one picture (H, W, C) uint8."""
        mean, deviation = np.float32(self._hef.normalization)
        results = self._runner(**{self._input: ((pixels[None] - mean) / deviation).astype(self._detail["dtype"])})
        return {info.name: self._levels(info, results[self._hef.tensors[info.name]][0]) for info in self._hef.outputs}

    def _levels(self, info: native.VStreamInfo, values: np.ndarray) -> np.ndarray:
        if values.dtype == np.int8:
            return (values.astype(np.int16) + 128).astype(np.uint8)
        if values.dtype == np.float32:
            values = np.clip(np.rint(values / info.quant_info.qp_scale + info.quant_info.qp_zp), 0, 255)
        return values.astype(np.uint8, copy=False)


def _nominal(hef: HefData, batch: int) -> int:
    """Queue size as in 1.6: clamp(32 MiB / frame bytes, 2 batch, max(2 batch, world.queue))."""
    frame = int(np.prod(hef.inputs[0].shape))
    low, high = 2 * batch, max(2 * batch, world.queue)
    return int(min(max(32 * 2**20 // frame, low), high))


def open_chip(params: native.VDeviceParams, ids: list[str]) -> Chip:
    """What creating a VDevice does (1.2, 1.3, 1.15)."""
    if isinstance(ids, str):
        raise TypeError("device_ids: incompatible function arguments")
    if ids and params.device_ids:
        raise status(6)
    if ids:  # the ids win, params are ignored, scheduler included
        params = native.VDeviceParams()
        params.device_ids = ids
    if params.multi_process_service:
        raise status(6)
    if params.device_count == 0 or any(name not in world.ids for name in params.device_ids):
        raise status(2)
    ctypes.PyDLL(None).usleep(round(world.open_ms * 1e3))  # holds Python's lock, as the bindings do
    if world.open_status:
        raise status(world.open_status)
    with world.mutex:
        return _shared(params) or _fresh(params)


def _shared(params: native.VDeviceParams) -> Chip | None:
    for chip in world.chips:
        if params.group_id != "UNIQUE" and chip.group == params.group_id:
            if params.device_ids not in ([], chip.ids):
                raise status(6)
            chip.handles += 1
            return chip
    return None


def _fresh(params: native.VDeviceParams) -> Chip:
    if not world.present:
        raise status(2 if params.device_ids else 74)
    if world.driver != world.library:
        raise status(76)
    if params.device_count > len(world.ids) or world.chips or not world.take():
        raise status(73 if params.device_ids else 74)
    ids = list(params.device_ids or world.ids[:1])
    chip = Chip(params.group_id, ids, SchedulingAlgorithm(params.scheduling_algorithm))
    world.chips.append(chip)
    return chip


def configure(chip: Chip, hef: HefData, formats: Mapping[str, FormatType], batch: int) -> Configured:
    """What InferModel.configure() does; the checks in the order of 1.2 and 1.5."""
    if chip.released:
        world.kill("configure() after the VDevice was released (1.3)")
    if chip.gone:
        raise status(36)
    if world.firmware != world.library:
        raise status(16)
    if world.page_size != 4096:
        raise status(8)
    if hef.arch not in _FITS[world.arch]:
        raise status(93 if world.release >= (4, 21) else 26)
    if batch > 63 or any(formats[info.name] == FormatType.UINT16 for info in hef.inputs):
        raise status(2)
    world.batch = batch
    model = Configured(chip, hef, formats, batch)
    if batch > model.queue:
        model.close()
        raise status(6)
    return model

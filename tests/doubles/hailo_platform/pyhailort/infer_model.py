"""Stand-in for the asynchronous half of the Python layer: InferModel, ConfiguredInferModel, jobs (1.5 to 1.8)."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import hailo_engine as engine
import numpy as np
from hailo_world import world

from . import _pyhailort
from ._pyhailort import FormatOrder, FormatType, status
from .errors import ExceptionWrapper, HailoRTException
from .hef import HEF

HailoPowerMode = enum.Enum("HailoPowerMode", "PERFORMANCE ULTRA_PERFORMANCE")


class InferModel:
    """What can be configured (1.5). Keeps the chip's innards but not the VDevice alive: the lifetime trap of 1.3."""

    class InferStream:
        """Shared state underneath, a new wrapper at each access."""

        def __init__(self, info: _pyhailort.VStreamInfo, model: InferModel) -> None:
            self._info, self._formats, self._order, self._nms = info, model._formats, model._order, model._nms

        @property
        def name(self) -> str:
            return self._info.name

        @property
        def shape(self) -> list[int]:
            return list(self._info.shape)

        @property
        def format(self) -> _pyhailort.Format:
            order = self._order.get(self.name, self._info.format.order)
            return _pyhailort.Format(self._formats[self.name] or self._info.format.type, order)

        @property
        def quant_infos(self) -> list[_pyhailort.QuantInfo]:
            return [self._info.quant_info]

        @property
        def is_nms(self) -> bool:
            return False

        def set_format_type(self, type: FormatType) -> None:  # noqa: A002 - the real name
            if not isinstance(type, FormatType):
                raise TypeError("set_format_type(): incompatible function arguments")
            self._formats[self.name] = type

        def set_format_order(self, order: int) -> None:
            if not isinstance(order, FormatOrder):
                raise TypeError("set_format_order(): incompatible function arguments")
            self._order[self.name] = order

        def set_nms_score_threshold(self, threshold: float) -> None:
            self._nms.add(self.name)

        def set_nms_iou_threshold(self, threshold: float) -> None:
            self._nms.add(self.name)

        def set_nms_max_proposals_per_class(self, max_proposals_per_class: int) -> None:
            self._nms.add(self.name)

        def set_nms_max_accumulated_mask_size(self, max_accumulated_mask_size: int) -> None:
            self._nms.add(self.name)

    def __init__(self, chip: engine.Chip, hef: _pyhailort.HefData, hef_source: str | bytes) -> None:
        self._chip, self._data, self._source, self._batch = chip, hef, hef_source, 0
        chip.infer_models.add(self)
        self._formats = {info.name: FormatType.AUTO for info in (*hef.inputs, *hef.outputs)}
        self._order: dict[str, int] = {}
        self._nms: set[str] = set()  # streams that an NMS setter was used on

    @property
    def hef(self) -> HEF:
        return HEF(self._source)

    @property
    def input_names(self) -> list[str]:
        return [info.name for info in self._data.inputs]

    @property
    def output_names(self) -> list[str]:
        return [info.name for info in self._data.outputs]

    @property
    def inputs(self) -> list[InferStream]:
        return [self.input(name) for name in self.input_names]

    @property
    def outputs(self) -> list[InferStream]:
        return [self.output(name) for name in self.output_names]

    def input(self, name: str = "") -> InferStream:
        return self._stream(name, self._data.inputs)

    def output(self, name: str = "") -> InferStream:
        return self._stream(name, self._data.outputs)

    def set_batch_size(self, batch_size: int) -> None:
        if not isinstance(batch_size, int) or not 0 <= batch_size <= 65535:
            raise TypeError("set_batch_size(): incompatible function arguments")
        self._batch = batch_size

    def set_power_mode(self, power_mode: HailoPowerMode) -> None:
        if not isinstance(power_mode, HailoPowerMode):
            raise TypeError("set_power_mode(): incompatible function arguments")

    def configure(self) -> ConfiguredInferModel:
        with ExceptionWrapper():
            if self._nms:  # on plain outputs (1.5)
                raise status(2)
            native = engine.configure(self._chip, self._data, self._formats, self._batch)
        return ConfiguredInferModel(native, self)

    def _stream(self, name: str, infos: list[_pyhailort.VStreamInfo]) -> InferStream:
        info = _pick(name, infos)
        return InferModel.InferStream(info, self)


def _pick(name: str, infos: list[_pyhailort.VStreamInfo]) -> _pyhailort.VStreamInfo:
    """By name; the empty one needs exactly one stream: InvalidOperation, unknown ones NotFound (1.5, 1.7)."""
    with ExceptionWrapper():
        if name == "" and len(infos) != 1:
            raise status(6)
        for info in infos:
            if name in ("", info.name):
                return info
        raise status(61)


@dataclass
class AsyncInferCompletionInfo:
    exception: HailoRTException | None


class ConfiguredInferModel:
    """A model on the chip (1.6)."""

    class Bindings:
        """The buffers of one frame (1.7)."""

        class InferStream:
            def __init__(self) -> None:
                self._buffer: np.ndarray | None = None

            def set_buffer(self, buffer: np.ndarray) -> None:
                contiguous = buffer.flags.c_contiguous  # AttributeError for what is no array
                if not contiguous and world.release >= (4, 19):
                    raise HailoRTException("Buffer must be C_CONTIGUOUS")
                if not buffer.flags.writeable:
                    raise ValueError("array is not writeable")
                self._buffer = buffer

            def get_buffer(self, tf_format: bool = False) -> np.ndarray | None:
                return self._buffer

        def __init__(self, hef: _pyhailort.HefData) -> None:
            self._hef = hef
            self._streams: dict[str, ConfiguredInferModel.Bindings.InferStream] = {}

        def input(self, name: str = "") -> InferStream:
            return self._stream(name, self._hef.inputs)

        def output(self, name: str = "") -> InferStream:
            return self._stream(name, self._hef.outputs)

        def _stream(self, name: str, infos: list[_pyhailort.VStreamInfo]) -> InferStream:
            name = _pick(name, infos).name
            return self._streams.setdefault(name, ConfiguredInferModel.Bindings.InferStream())

        def frame(self) -> tuple[dict[str, Any], dict[str, Any]]:
            """Copies of the two name -> buffer maps, as bindings are copied per launch from 4.19 on."""
            sides = (self._hef.inputs, self._hef.outputs)
            return tuple({i.name: self._stream(i.name, side)._buffer for i in side} for side in sides)

    def __init__(self, configured_infer_model: engine.Configured, infer_model: InferModel) -> None:
        self._configured_infer_model: engine.Configured | None = configured_infer_model
        self._infer_model = infer_model
        self._buffer_guards: deque[list[Any]] = deque()

    def __enter__(self) -> ConfiguredInferModel:
        return self

    def __exit__(self, exc_type: type | None, exc_value: BaseException | None, traceback: TracebackType | None) -> None:
        native, self._configured_infer_model = self._configured_infer_model, None
        if native is not None:
            native.close()

    def __del__(self) -> None:
        self.__exit__(None, None, None)

    def activate(self) -> None:
        native = self._configured_infer_model
        with ExceptionWrapper():
            if native.chip.scheduled or native.chip.active is not None:
                raise status(6)
            native.chip.active = native

    def deactivate(self) -> None:
        chip = self._configured_infer_model.chip
        if chip.active is self._configured_infer_model:
            chip.active = None

    def create_bindings(
        self, input_buffers: dict[str, np.ndarray] | None = None, output_buffers: dict[str, np.ndarray] | None = None
    ) -> Bindings:
        world.bindings += 1
        bindings = self.Bindings(self._configured_infer_model.hef)
        for name, buffer in (input_buffers or {}).items():
            bindings.input(name).set_buffer(buffer)
        for name, buffer in (output_buffers or {}).items():
            bindings.output(name).set_buffer(buffer)
        return bindings

    def wait_for_async_ready(self, timeout_ms: int = 1000, frames_count: int = 1) -> None:
        with ExceptionWrapper():
            self._configured_infer_model.wait_ready(timeout_ms / 1e3, frames_count)

    def run(self, bindings: Iterable[Bindings], timeout: int) -> None:
        self.run_async(bindings).wait(timeout)

    def run_async(self, bindings: Iterable[Bindings], callback: Callable[..., None] | None = None) -> AsyncInferJob:
        frames = [item.frame() for item in bindings]
        self._buffer_guards.append(frames)

        def callback_wrapper(error_code: int) -> None:
            error = ExceptionWrapper.create_exception_from_status(error_code) if error_code else None
            if callback:
                callback(completion_info=AsyncInferCompletionInfo(error))
            self._buffer_guards.popleft()

        with ExceptionWrapper():
            return AsyncInferJob(self._configured_infer_model.launch(frames, callback_wrapper))

    def set_scheduler_timeout(self, timeout_ms: int) -> None:
        self._needs_scheduler()

    def set_scheduler_threshold(self, threshold: int) -> None:
        self._needs_scheduler()

    def set_scheduler_priority(self, priority: int) -> None:
        if not isinstance(priority, int) or not 0 <= priority <= 255:
            raise TypeError("set_scheduler_priority(): incompatible function arguments")
        self._needs_scheduler()
        with ExceptionWrapper():
            if priority > 31:
                raise status(2)

    def get_async_queue_size(self) -> int:
        return self._configured_infer_model.queue

    def shutdown(self) -> None:
        self._configured_infer_model.shut_down()

    def _needs_scheduler(self) -> None:
        with ExceptionWrapper():
            if not self._configured_infer_model.chip.scheduled:
                raise status(6)


class AsyncInferJob:
    def __init__(self, job: engine.Job) -> None:
        self._job = job

    def wait(self, timeout_ms: int) -> None:
        with ExceptionWrapper():
            self._job.wait(timeout_ms / 1e3)

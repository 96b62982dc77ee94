"""Stand-in for the Python layer: VDevice (1.3), and the names of the real module. It has no blocking path (1.10)."""

from __future__ import annotations

import enum
import gc
import os
from typing import Any

import hailo_engine as engine
from hailo_world import world

from . import _pyhailort
from ._pyhailort import (  # noqa: F401
    AveragingFactor,
    DvmTypes,
    Endianness,
    FormatOrder,
    FormatType,
    MeasurementBufferIndex,
    PowerMeasurementTypes,
    SamplingPeriod,
    status,
)
from .control_object import Device  # noqa: F401
from .errors import *  # noqa: F403
from .errors import ExceptionWrapper, HailoRTException
from .hef import HEF
from .infer_model import (  # noqa: F401
    AsyncInferCompletionInfo,
    AsyncInferJob,
    ConfiguredInferModel,
    HailoPowerMode,
    InferModel,
)

HailoSchedulingAlgorithm = _pyhailort.SchedulingAlgorithm
HailoStreamInterface = enum.Enum("HailoStreamInterface", "PCIe ETH INTEGRATED MIPI")
HailoStreamDirection = enum.Enum("HailoStreamDirection", "H2D D2H")
HailoFormatFlags = enum.Enum("HailoFormatFlags", "NONE TRANSPOSED HOST_ARGMAX")
HailoCpuId = enum.Enum("HailoCpuId", "CPU0 CPU1")


class ConfigureParams:
    @staticmethod
    def create_from_hef(hef: HEF, interface: HailoStreamInterface) -> dict[str, Any]:
        params = {"batch_size": 0, "power_mode": HailoPowerMode.PERFORMANCE}
        return {name: dict(params) for name in hef.get_network_group_names()}


class VDevice:
    """A handle on the chip (1.3)."""

    def __init__(self, params: _pyhailort.VDeviceParams | None = None, *, device_ids: list[str] | None = None) -> None:
        gc.collect()
        self._chip: engine.Chip | None = None
        self._creation_pid = os.getpid()
        self._loaded_network_groups: list[Any] = []
        if params is None:
            params = VDevice.create_params()
        if not isinstance(params, _pyhailort.VDeviceParams):
            raise TypeError("create(): incompatible function arguments")
        with ExceptionWrapper():
            self._chip = engine.open_chip(params, [] if device_ids is None else device_ids)

    def __enter__(self) -> VDevice:
        return self

    def __exit__(self, *args: object) -> bool:
        self.release()
        return False

    def __del__(self) -> None:
        self.release()

    @staticmethod
    def create_params() -> _pyhailort.VDeviceParams:
        return _pyhailort.VDeviceParams()

    def release(self) -> None:
        if self._chip is not None:
            chip, self._chip = self._chip, None
            chip.release()

    def create_infer_model(self, hef_source: str | bytes, name: str = "") -> InferModel:
        if os.getpid() != self._creation_pid:
            raise HailoRTException("InferModel can be created only from the process VDevice was created in.")
        if isinstance(hef_source, bytearray):
            hef_source = "\0"  # taken for a path (1.3)
        if not isinstance(hef_source, (str, bytes)):
            raise TypeError("create_infer_model_from_file(): incompatible function arguments")
        with ExceptionWrapper():
            data = _pyhailort.read_hef(hef_source) if hef_source != "\0" else _no_file()
            if name not in ("", data.name):
                raise status(61)
        return InferModel(self._chip, data, hef_source)

    def get_physical_devices_ids(self) -> list[str]:
        return list(self._chip.ids)

    def get_physical_devices(self) -> list[Device]:
        return [Device(name) for name in self.get_physical_devices_ids()]

    @property
    def loaded_network_groups(self) -> list[Any]:
        return self._loaded_network_groups


def _no_file() -> None:
    raise status(13)


if world.release < (4, 18):
    del VDevice.create_infer_model

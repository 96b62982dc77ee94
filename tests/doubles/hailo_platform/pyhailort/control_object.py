"""Stand-in for Device and its control (1.11)."""

from __future__ import annotations

import enum
import signal
import weakref
from dataclasses import dataclass

from hailo_world import world

from ._pyhailort import DvmTypes, PowerMeasurementTypes, status
from .errors import ExceptionWrapper, HailoRTException


class DeviceArchitecture(enum.IntEnum):
    HAILO8_A0 = 0
    HAILO8 = 1
    HAILO8L = 2
    HAILO15H = 3
    HAILO15L = 4
    HAILO15M = 5
    HAILO10H = 6


_ARCHITECTURES = {"hailo8": DeviceArchitecture.HAILO8, "hailo8r": DeviceArchitecture.HAILO8}
_ARCHITECTURES["hailo8l"] = DeviceArchitecture.HAILO8L


@dataclass
class Identity:
    protocol_version: int
    firmware_version: str
    logger_version: int
    board_name: str
    is_release: bool
    device_architecture: DeviceArchitecture
    serial_number: str = ""
    part_number: str = ""
    product_name: str = ""


@dataclass
class Temperature:
    ts0_temperature: float
    ts1_temperature: float
    sample_count: int


class Control:
    """Commands to the firmware; fails once its Device was collected."""

    def __init__(self, device: Device) -> None:
        self._device = weakref.ref(device)

    def identify(self) -> Identity:
        self._alive()
        architecture = _ARCHITECTURES[world.arch]
        return Identity(2, f"{world.firmware}", 0, "Hailo-8\0", True, architecture)  # "Hailo-8" even on an 8L

    def get_chip_temperature(self) -> Temperature:
        self._fits()
        return Temperature(world.celsius, world.celsius + 0.5, 1)

    def get_throttling_state(self) -> bool:
        self._fits()
        return world.throttling

    def power_measurement(
        self, dvm: DvmTypes = DvmTypes.AUTO, measurement_type: PowerMeasurementTypes = PowerMeasurementTypes.AUTO
    ) -> float:
        self._fits()
        with ExceptionWrapper():
            if not world.sensor:
                raise status(48)
        return 1.25

    def _alive(self) -> None:
        with ExceptionWrapper():
            if self._device() is None:
                raise status(6)
            if not world.present:
                raise status(36)

    def _fits(self) -> None:
        self._alive()
        with ExceptionWrapper():
            if world.firmware != world.library:
                raise status(16)


class Device:
    """A chip opened for control; several may be, also beside a VDevice."""

    def __init__(self, device_id: str | None = None) -> None:
        if device_id is None and not world.present:
            raise HailoRTException("HailoRT device not found in the system")
        if not world.present or device_id not in (None, *world.ids):
            raise status(2)  # raw native, as all below
        if world.driver != world.library:
            raise status(76)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGWINCH})  # and stays blocked in this thread
        self._control = Control(self)
        self.device_id = device_id or world.ids[0]

    @staticmethod
    def scan() -> list[str]:
        if world.scan_status:
            raise status(world.scan_status)
        return list(world.ids) if world.present else []

    @property
    def control(self) -> Control:
        return self._control

    def release(self) -> None:
        pass

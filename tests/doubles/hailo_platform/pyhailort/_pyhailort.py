"""Stand-in for the native module: its own exception family, enums, parameter and info objects, the HEF parser.

The stand-in HEF: `header` (magic, header version, payload length, CRC-32, padding to 32 bytes), then JSON, a zero byte
and a TFLite file. Nothing of a real HEF but the order of the checks on it (1.2, 1.15).
"""

from __future__ import annotations

import enum
import json
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from hailo_world import world

__version__ = world.native or world.library

_NAMES = """SUCCESS UNINITIALIZED INVALID_ARGUMENT OUT_OF_HOST_MEMORY TIMEOUT INSUFFICIENT_BUFFER INVALID_OPERATION
NOT_IMPLEMENTED INTERNAL_FAILURE DATA_ALIGNMENT_FAILURE CHUNK_TOO_LARGE INVALID_LOGGER_LEVEL CLOSE_FAILURE
OPEN_FILE_FAILURE FILE_OPERATION_FAILURE UNSUPPORTED_CONTROL_PROTOCOL_VERSION UNSUPPORTED_FW_VERSION
INVALID_CONTROL_RESPONSE FW_CONTROL_FAILURE ETH_FAILURE ETH_INTERFACE_NOT_FOUND ETH_RECV_FAILURE ETH_SEND_FAILURE
INVALID_FIRMWARE INVALID_CONTEXT_COUNT INVALID_FRAME INVALID_HEF PCIE_NOT_SUPPORTED_ON_PLATFORM INTERRUPTED_BY_SIGNAL
START_VDMA_CHANNEL_FAIL SYNC_VDMA_BUFFER_FAIL STOP_VDMA_CHANNEL_FAIL CLOSE_VDMA_CHANNEL_FAIL
ATR_TABLES_CONF_VALIDATION_FAIL EVENT_CREATE_FAIL READ_EVENT_FAIL DRIVER_OPERATION_FAILED INVALID_FIRMWARE_MAGIC
INVALID_FIRMWARE_CODE_SIZE INVALID_KEY_CERTIFICATE_SIZE INVALID_CONTENT_CERTIFICATE_SIZE
MISMATCHING_FIRMWARE_BUFFER_SIZES INVALID_FIRMWARE_CPU_ID CONTROL_RESPONSE_MD5_MISMATCH GET_CONTROL_RESPONSE_FAIL
GET_D2H_EVENT_MESSAGE_FAIL MUTEX_INIT_FAIL OUT_OF_DESCRIPTORS UNSUPPORTED_OPCODE USER_MODE_RATE_LIMITER_NOT_SUPPORTED
RATE_LIMIT_MAXIMUM_BANDWIDTH_EXCEEDED ANSI_TO_UTF16_CONVERSION_FAILED UTF16_TO_ANSI_CONVERSION_FAILED
UNEXPECTED_INTERFACE_INFO_FAILURE UNEXPECTED_ARP_TABLE_FAILURE MAC_ADDRESS_NOT_FOUND NO_IPV4_INTERFACES_FOUND
SHUTDOWN_EVENT_SIGNALED THREAD_ALREADY_ACTIVATED THREAD_NOT_ACTIVATED THREAD_NOT_JOINABLE NOT_FOUND
COMMUNICATION_CLOSED STREAM_ABORT DRIVER_NOT_INSTALLED NOT_AVAILABLE TRAFFIC_CONTROL_FAILURE INVALID_SECOND_STAGE
INVALID_PIPELINE NETWORK_GROUP_NOT_ACTIVATED VSTREAM_PIPELINE_NOT_ACTIVATED OUT_OF_FW_MEMORY STREAM_NOT_ACTIVATED
DEVICE_IN_USE OUT_OF_PHYSICAL_DEVICES INVALID_DEVICE_ARCHITECTURE INVALID_DRIVER_VERSION RPC_FAILED
INVALID_SERVICE_VERSION NOT_SUPPORTED NMS_BURST_INVALID_DATA OUT_OF_HOST_CMA_MEMORY QUEUE_IS_FULL
DMA_MAPPING_ALREADY_EXISTS CANT_MEET_BUFFER_REQUIREMENTS DRIVER_INVALID_RESPONSE DRIVER_INVALID_IOCTL DRIVER_TIMEOUT
DRIVER_INTERRUPTED CONNECTION_REFUSED DRIVER_WAIT_CANCELED HEF_FILE_CORRUPTED HEF_NOT_SUPPORTED
HEF_NOT_COMPATIBLE_WITH_DEVICE"""
STATUSES = tuple(f"HAILO_{name}" for name in _NAMES.split())  # hailort.h v4.23.0, 0 to 93
HEADER = struct.Struct("<4sIII16x")
MAGIC = b"\x01HEF"


class HailoRTException(Exception):
    """Native, a sibling of the two below; not hailo_platform.HailoRTException (1.2)."""


class HailoRTCustomException(Exception):
    pass


class HailoRTStatusException(Exception):
    """`args[0]` is the status number as a decimal string."""


def status(number: int) -> HailoRTStatusException:
    return HailoRTStatusException(str(number))


def get_status_message(number: int) -> str:
    last = 93 if world.release >= (4, 21) else 90 if world.release >= (4, 20) else 84
    return STATUSES[number] if 0 <= number <= last else ""


class SchedulingAlgorithm(enum.IntEnum):
    NONE = 0
    ROUND_ROBIN = 1


class FormatType(enum.IntEnum):
    AUTO = 0
    UINT8 = 1
    UINT16 = 2
    FLOAT32 = 3


FormatOrder = enum.IntEnum(
    "FormatOrder",
    "AUTO NHWC NHCW NCHW NHW NC FCR F8CR RGB888 RGB4 BAYER_RGB YUY2 NV12 NV21 I420 YYUV YYVU YYYYUV "
    "HAILO_NMS_WITH_BYTE_MASK HAILO_NMS_ON_CHIP HAILO_NMS_BY_CLASS HAILO_NMS_BY_SCORE 12_BIT_BAYER_RGB",
    start=0,
)
DvmTypes = enum.IntEnum("DvmTypes", "VDD_CORE VDD_IO MIPI_AVDD AUTO", start=0)
PowerMeasurementTypes = enum.IntEnum("PowerMeasurementTypes", "SHUNT_VOLTAGE BUS_VOLTAGE POWER CURRENT AUTO", start=0)
SamplingPeriod = enum.IntEnum("SamplingPeriod", "PERIOD_140us PERIOD_1100us", start=0)
AveragingFactor = enum.IntEnum("AveragingFactor", "AVERAGE_1 AVERAGE_256", start=0)
MeasurementBufferIndex = enum.IntEnum("MeasurementBufferIndex", "INDEX_0 INDEX_1 INDEX_2 INDEX_3", start=0)
Endianness = enum.IntEnum("Endianness", "BIG_ENDIAN LITTLE_ENDIAN", start=0)


class VDeviceParams:
    """Defaults and type checks of 1.3; unknown attributes are refused."""

    __slots__ = ("_algorithm", "_group", "_ids", "device_count", "multi_process_service")

    def __init__(self) -> None:
        self.device_count, self.multi_process_service = 1, False
        self._algorithm, self._group, self._ids = SchedulingAlgorithm.NONE, "UNIQUE", []
        if world.release >= (5,):
            self._algorithm = SchedulingAlgorithm.ROUND_ROBIN

    @property
    def device_ids(self) -> list[str]:
        return list(self._ids)

    @device_ids.setter
    def device_ids(self, ids: list[str]) -> None:
        if isinstance(ids, str):
            raise TypeError("device_ids: incompatible function arguments")
        self._ids = list(ids)
        self.device_count = len(self._ids)

    @property
    def scheduling_algorithm(self) -> int:
        return int(self._algorithm)

    @scheduling_algorithm.setter
    def scheduling_algorithm(self, algorithm: SchedulingAlgorithm) -> None:
        if not isinstance(algorithm, SchedulingAlgorithm):
            raise TypeError("scheduling_algorithm: incompatible function arguments")
        self._algorithm = algorithm

    @property
    def group_id(self) -> str:
        return self._group

    @group_id.setter
    def group_id(self, group: str) -> None:
        if not isinstance(group, str):
            raise TypeError("group_id: incompatible function arguments")
        self._group = group


@dataclass
class Format:
    type: FormatType
    order: int
    flags: int = 0


@dataclass
class QuantInfo:
    qp_zp: float
    qp_scale: float
    limvals_min: float
    limvals_max: float


@dataclass
class VStreamInfo:
    name: str
    shape: tuple[int, ...]  # no batch
    format: Format
    quant_info: QuantInfo
    direction: str
    network_name: str

    @property
    def nms_shape(self) -> object:
        raise HailoRTCustomException("nms_shape is only available for NMS outputs")


@dataclass
class HefData:
    """A parsed stand-in HEF."""

    name: str
    arch: str
    inputs: list[VStreamInfo]
    outputs: list[VStreamInfo]
    tensors: dict[str, str]  # stream name -> output name in the TFLite signature
    tflite: bytes
    normalization: list[list[float]]  # mean and deviation by channel
    fps: float = 0.0
    networks: list[str] = field(default_factory=list)


def read_hef(source: str | bytes) -> HefData:
    """Parse a path or a buffer; status exceptions as 1.2 and 1.15 say."""
    if isinstance(source, bytes):
        if not source:
            world.kill("HEF(b'') reads beyond its buffer (1.2)")
        return _parse(source, short=91)
    path = Path(source)
    if path.is_dir():
        raise status(14)
    try:
        data = path.read_bytes()
    except OSError:
        raise status(13) from None
    return _parse(data, short=14)


def _parse(data: bytes, short: int) -> HefData:
    modern = world.release >= (4, 21)
    if len(data) < HEADER.size:
        raise status(short if short == 14 or modern else 26)
    magic, version, length, checksum = HEADER.unpack_from(data)
    if magic != MAGIC or version not in (0, 1, 2, 3):
        raise status(92 if modern else 26)
    payload = data[HEADER.size :]
    if len(payload) != length or zlib.crc32(payload) != checksum:
        raise status(91 if modern else 26)
    text, _, tflite = payload.partition(b"\0")
    return _described(json.loads(text), tflite)


def _described(raw: dict, tflite: bytes) -> HefData:
    name, network = raw["name"], f"{raw['name']}/{raw['name']}"

    def info(item: dict, direction: str) -> VStreamInfo:
        shape = tuple(item["shape"])
        order = FormatOrder.NHWC if len(shape) == 3 else FormatOrder.NC
        scale, zero = item.get("scale", 1.0), item.get("zero", 0.0)
        limits = -zero * scale, (255 - zero) * scale
        quant = QuantInfo(float(zero), float(scale), *limits)
        return VStreamInfo(f"{name}/{item['name']}", shape, Format(FormatType.UINT8, order), quant, direction, network)

    inputs = [info(item, "H2D") for item in raw["inputs"]]
    outputs = [info(item, "D2H") for item in raw["outputs"]]
    tensors = {f"{name}/{item['name']}": item["tensor"] for item in raw["outputs"]}
    normalization = raw.get("normalization", [[0], [1]])
    return HefData(name, raw["arch"], inputs, outputs, tensors, tflite, normalization, raw.get("fps", 0.0), [network])

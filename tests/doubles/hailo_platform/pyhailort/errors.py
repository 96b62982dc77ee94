"""The Python exception family and its mapping from status numbers (1.2)."""

from __future__ import annotations

from types import TracebackType

from hailo_world import world

from . import _pyhailort


class HailoRTException(Exception):
    pass


class UdpRecvError(HailoRTException):
    pass


class InvalidProtocolVersionException(HailoRTException):
    pass


class HailoRTFirmwareControlFailedException(HailoRTException):
    pass


class HailoRTInvalidFrameException(HailoRTException):
    pass


class HailoRTUnsupportedOpcodeException(HailoRTException):
    pass


class HailoRTTimeout(HailoRTException):
    pass


class HailoRTStreamAborted(HailoRTException):
    pass


class HailoRTStreamAbortedByUser(HailoRTException):
    pass


class HailoRTInvalidOperationException(HailoRTException):
    pass


class HailoRTInvalidArgumentException(HailoRTException):
    pass


class HailoRTNotFoundException(HailoRTException):
    pass


class HailoRTInvalidHEFException(HailoRTException):
    pass


class HailoRTHEFNotCompatibleWithDevice(HailoRTException):
    pass


class HailoRTEthException(HailoRTException):
    pass


class HailoRTDriverOperationFailedException(HailoRTException):
    pass


class HailoCommunicationClosedException(HailoRTException):
    pass


class HailoRTNetworkGroupNotActivatedException(HailoRTException):
    pass


class HailoStatusInvalidValueException(Exception):
    pass


HailoRTPCIeDriverException = HailoRTDriverOperationFailedException

_MORE = "See hailort.log for more information"
_CLASSES: dict[int, tuple[type[HailoRTException], str]] = {
    2: (HailoRTInvalidArgumentException, f"Invalid argument. {_MORE}"),
    4: (HailoRTTimeout, "Received a timeout - hailort has failed because a timeout had occurred"),
    6: (HailoRTInvalidOperationException, f"Invalid operation. {_MORE}"),
    15: (InvalidProtocolVersionException, "an invalid protocol version was received from device"),
    18: (HailoRTFirmwareControlFailedException, "libhailort control operation failed"),
    19: (HailoRTEthException, f"Ethernet failure. {_MORE}"),
    21: (UdpRecvError, "Failed to receive data"),
    25: (HailoRTInvalidFrameException, "An invalid frame was received"),
    26: (HailoRTInvalidHEFException, f"Invalid HEF. {_MORE}"),
    36: (HailoRTDriverOperationFailedException, "Failure in hailort driver ioctl. run 'dmesg | grep hailo' for more"),
    48: (HailoRTUnsupportedOpcodeException, "an unsupported opcode was sent to device"),
    61: (HailoRTNotFoundException, f"Item not found. {_MORE}"),
    62: (HailoCommunicationClosedException, "Communication closed"),
    63: (HailoRTStreamAborted, "Stream was aborted"),
    69: (HailoRTNetworkGroupNotActivatedException, "Network group is not activated"),
    93: (HailoRTHEFNotCompatibleWithDevice, "HEF file is not compatible with device"),
}


def get_status_message(status_code: int) -> str:
    name = _pyhailort.get_status_message(status_code)
    if not name:
        raise HailoStatusInvalidValueException(f"Value {status_code} is not a valid status")
    return name


class ExceptionWrapper:
    """Turns native status exceptions into the Python family; everything else passes through."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if kind is _pyhailort.HailoRTStatusException:
            raise self.create_exception_from_status(int(value.args[0])) from value

    @staticmethod
    def create_exception_from_status(error_code: int) -> HailoRTException:
        name = get_status_message(error_code)
        known = error_code in _CLASSES and not (error_code == 62 and world.release < (4, 20))
        if known:
            kind, text = _CLASSES[error_code]
            return kind(text)
        return HailoRTException(f"libhailort failed with error: {error_code} ({name})")

"""What HailoRT 4.x says and what it means: status numbers 0 to 93 of hailort.h v4.23.0 in plain words."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .errors import BackendError, BackendUnavailable, DeviceLost, ModelError

# Set before the import: it leaves no hailort.log behind, and its errors come as statuses alone.
QUIET = {"HAILORT_LOGGER_PATH": "NONE", "HAILORT_CONSOLE_LOGGER_LEVEL": "critical"}

# What to do, by kind of failure, and the error that it becomes while a model is opened.
REMEDIES: dict[str, tuple[str, type[Exception]]] = {
    "hef": ("copy the .hef again or compile it for this chip and this HailoRT (calmcam compile)", ModelError),
    "version": (
        "install driver, library, firmware and Python package of one version (sudo apt full-upgrade), then reboot",
        BackendUnavailable,
    ),
    "absent": (
        "check power, seating and PCIe (hailortcli scan; ls /dev/hailo0), or run with --device cpu",
        BackendUnavailable,
    ),
    "busy": (
        "end the program that holds it (sudo fuser -v /dev/hailo0), give both models to one calmcam process, "
        "or run with --device cpu",
        BackendUnavailable,
    ),
    "lost": ("see journalctl -k -g hailo; if it stays away, check power and seating and reboot", DeviceLost),
    "memory": ("end other programs or free memory, then start again", BackendUnavailable),
    "ethernet": ("only devices attached by Ethernet report this; calmcam runs those on PCIe", BackendUnavailable),
    "use": ("this should not happen: report it together with the output of calmcam doctor and -v", BackendError),
}


@dataclass(frozen=True, slots=True)
class Status:
    """One status of HailoRT."""

    number: int
    name: str  # without HAILO_
    kind: str  # key of REMEDIES
    meaning: str
    remedy: str = ""  # where the kind's is not good enough

    @property
    def advice(self) -> str:
        return self.remedy or REMEDIES[self.kind][0]

    @property
    def sentence(self) -> str:
        return f"{self.meaning} (HailoRT status {self.number}, {self.name}); {self.advice}"


_ROWS = """
0|SUCCESS|use|no error
1|UNINITIALIZED|use|a result was never set
2|INVALID_ARGUMENT|use|a device id or parameter is not known|check the device id (hailortcli scan) and the settings
3|OUT_OF_HOST_MEMORY|memory|this computer is out of memory
4|TIMEOUT|lost|the device did not answer in time
5|INSUFFICIENT_BUFFER|use|a buffer is too small
6|INVALID_OPERATION|use|a call or buffer size that does not fit the model or the scheduler|with NumPy 2 its arrays may be what does not fit; report it together with the output of calmcam doctor and -v
7|NOT_IMPLEMENTED|use|a function that this HailoRT does not have
8|INTERNAL_FAILURE|version|HailoRT failed inside, often over the PCIe page size|write options hailo_pci force_desc_page_size=4096 into /etc/modprobe.d/hailo_pci.conf, then reboot
9|DATA_ALIGNMENT_FAILURE|use|data is not aligned
10|CHUNK_TOO_LARGE|use|a chunk is too large
11|INVALID_LOGGER_LEVEL|use|a log level that does not exist
12|CLOSE_FAILURE|lost|the device could not be closed
13|OPEN_FILE_FAILURE|hef|the .hef or /dev/hailo0 is missing or may not be read|check path and permissions
14|FILE_OPERATION_FAILURE|hef|the file is empty, a folder or cannot be read
15|UNSUPPORTED_CONTROL_PROTOCOL_VERSION|version|the firmware speaks another protocol
16|UNSUPPORTED_FW_VERSION|version|the firmware's version differs from the library's
17|INVALID_CONTROL_RESPONSE|lost|the firmware's answer makes no sense
18|FW_CONTROL_FAILURE|lost|the firmware refused a command|reboot, or compile the .hef with the compiler for this HailoRT (deploy/README.md)
19|ETH_FAILURE|ethernet|an Ethernet operation failed
20|ETH_INTERFACE_NOT_FOUND|ethernet|no such Ethernet interface
21|ETH_RECV_FAILURE|ethernet|receiving over Ethernet failed
22|ETH_SEND_FAILURE|ethernet|sending over Ethernet failed
23|INVALID_FIRMWARE|version|the firmware file is not valid
24|INVALID_CONTEXT_COUNT|hef|the network has too many contexts
25|INVALID_FRAME|lost|a result is partly or wholly invalid
26|INVALID_HEF|hef|the .hef is damaged or for another chip
27|PCIE_NOT_SUPPORTED_ON_PLATFORM|absent|this platform has no PCIe for it
28|INTERRUPTED_BY_SIGNAL|lost|a call was interrupted by a signal
29|START_VDMA_CHANNEL_FAIL|lost|a transfer channel could not be started
30|SYNC_VDMA_BUFFER_FAIL|lost|a transfer buffer could not be synchronised
31|STOP_VDMA_CHANNEL_FAIL|lost|a transfer channel could not be stopped
32|CLOSE_VDMA_CHANNEL_FAIL|lost|a transfer channel could not be closed
33|ATR_TABLES_CONF_VALIDATION_FAIL|lost|the device's address tables are not valid
34|EVENT_CREATE_FAIL|memory|an event could not be made
35|READ_EVENT_FAIL|lost|an event could not be read
36|DRIVER_OPERATION_FAILED|lost|the driver refused an operation
37|INVALID_FIRMWARE_MAGIC|version|the firmware file is not one
38|INVALID_FIRMWARE_CODE_SIZE|version|the firmware's size is wrong
39|INVALID_KEY_CERTIFICATE_SIZE|version|the firmware's key certificate is wrong
40|INVALID_CONTENT_CERTIFICATE_SIZE|version|the firmware's content certificate is wrong
41|MISMATCHING_FIRMWARE_BUFFER_SIZES|version|the firmware's sizes disagree
42|INVALID_FIRMWARE_CPU_ID|version|the firmware is for another processor
43|CONTROL_RESPONSE_MD5_MISMATCH|lost|the firmware's answer arrived damaged
44|GET_CONTROL_RESPONSE_FAIL|lost|the firmware did not answer a command
45|GET_D2H_EVENT_MESSAGE_FAIL|lost|a message of the device could not be read
46|MUTEX_INIT_FAIL|memory|a lock could not be made
47|OUT_OF_DESCRIPTORS|memory|the driver is out of transfer descriptors
48|UNSUPPORTED_OPCODE|version|the firmware does not know this command
49|USER_MODE_RATE_LIMITER_NOT_SUPPORTED|ethernet|rate limits are not supported here
50|RATE_LIMIT_MAXIMUM_BANDWIDTH_EXCEEDED|ethernet|the rate limit is too high
51|ANSI_TO_UTF16_CONVERSION_FAILED|use|a text could not be converted
52|UTF16_TO_ANSI_CONVERSION_FAILED|use|a text could not be converted
53|UNEXPECTED_INTERFACE_INFO_FAILURE|ethernet|the Ethernet interface cannot be read
54|UNEXPECTED_ARP_TABLE_FAILURE|ethernet|the ARP table cannot be read
55|MAC_ADDRESS_NOT_FOUND|ethernet|the device's MAC address is not known
56|NO_IPV4_INTERFACES_FOUND|ethernet|there is no IPv4 interface
57|SHUTDOWN_EVENT_SIGNALED|lost|HailoRT is being shut down
58|THREAD_ALREADY_ACTIVATED|use|a thread runs already
59|THREAD_NOT_ACTIVATED|use|a thread does not run
60|THREAD_NOT_JOINABLE|use|a thread cannot be joined
61|NOT_FOUND|hef|a stream that the .hef does not have|compile the model again so that .hef and manifest agree
62|COMMUNICATION_CLOSED|lost|the link to HailoRT's service is closed
63|STREAM_ABORT|lost|the model was shut down after an earlier failure
64|DRIVER_NOT_INSTALLED|absent|the driver is not loaded|install it (sudo apt install hailo-all) and reboot
65|NOT_AVAILABLE|absent|a component is not available
66|TRAFFIC_CONTROL_FAILURE|ethernet|traffic control failed
67|INVALID_SECOND_STAGE|version|the firmware's second stage is not valid
68|INVALID_PIPELINE|use|the pipeline is not valid
69|NETWORK_GROUP_NOT_ACTIVATED|use|the network was not activated
70|VSTREAM_PIPELINE_NOT_ACTIVATED|use|the pipeline was not activated
71|OUT_OF_FW_MEMORY|memory|the device is out of memory|close other models on the device or use a smaller network
72|STREAM_NOT_ACTIVATED|use|the model was not activated
73|DEVICE_IN_USE|busy|the device is in use
74|OUT_OF_PHYSICAL_DEVICES|busy|no free device: none is there, or another process holds it
75|INVALID_DEVICE_ARCHITECTURE|version|this HailoRT does not serve this chip|use 4.x for the Hailo-8 family
76|INVALID_DRIVER_VERSION|version|the driver's version differs from the library's
77|RPC_FAILED|busy|HailoRT's service did not answer|sudo systemctl restart hailort
78|INVALID_SERVICE_VERSION|version|HailoRT's service has another version
79|NOT_SUPPORTED|version|this HailoRT does not support the operation
80|NMS_BURST_INVALID_DATA|lost|the device's result is invalid
81|OUT_OF_HOST_CMA_MEMORY|memory|this computer is out of contiguous memory|reboot, or give the kernel more with cma=
82|QUEUE_IS_FULL|use|more frames than the device's queue takes
83|DMA_MAPPING_ALREADY_EXISTS|use|a buffer is mapped already
84|CANT_MEET_BUFFER_REQUIREMENTS|use|a buffer does not meet the device's needs
85|DRIVER_INVALID_RESPONSE|version|the driver's answer makes no sense
86|DRIVER_INVALID_IOCTL|version|the driver does not know the request
87|DRIVER_TIMEOUT|lost|the driver got no answer from the device
88|DRIVER_INTERRUPTED|lost|a request to the driver was interrupted
89|CONNECTION_REFUSED|busy|HailoRT's service refused the connection|sudo systemctl restart hailort
90|DRIVER_WAIT_CANCELED|lost|waiting for the device was cancelled
91|HEF_FILE_CORRUPTED|hef|the .hef is cut off or damaged
92|HEF_NOT_SUPPORTED|hef|no HEF, or one of a newer compiler than this HailoRT|upgrade HailoRT, or compile with the compiler for it (deploy/README.md)
93|HEF_NOT_COMPATIBLE_WITH_DEVICE|hef|the .hef is for another chip|use variant hailo8l on a Hailo-8L
"""

STATUSES: dict[int, Status] = {
    (number := int(row.split("|", 1)[0])): Status(number, *row.split("|")[1:]) for row in _ROWS.strip().splitlines()
}

# Python classes whose instances carry no number (`completion_info.exception`); the others say it in their text.
_BY_CLASS = {
    "HailoRTInvalidArgumentException": 2,
    "HailoRTTimeout": 4,
    "HailoRTInvalidOperationException": 6,
    "InvalidProtocolVersionException": 15,
    "HailoRTFirmwareControlFailedException": 18,
    "HailoRTEthException": 19,
    "UdpRecvError": 21,
    "HailoRTInvalidFrameException": 25,
    "HailoRTInvalidHEFException": 26,
    "HailoRTDriverOperationFailedException": 36,
    "HailoRTPCIeDriverException": 36,
    "HailoRTUnsupportedOpcodeException": 48,
    "HailoRTNotFoundException": 61,
    "HailoCommunicationClosedException": 62,
    "HailoRTStreamAborted": 63,
    "HailoRTNetworkGroupNotActivatedException": 69,
    "HailoRTHEFNotCompatibleWithDevice": 93,
}


def number_of(error: BaseException) -> int | None:
    """The status behind an exception of either HailoRT family; None where there is none.

    Mapped ones carry it in their cause, raw native ones in their first argument, those of a completion in their class
    or text.
    """
    for source in (error.__cause__, error):
        if type(source).__name__ == "HailoRTStatusException" and str(source.args[0]).isdecimal():
            return int(source.args[0])
    if type(error).__name__ in _BY_CLASS:
        return _BY_CLASS[type(error).__name__]
    found = re.search(r"libhailort failed with error: (\d+)", str(error))
    return int(found[1]) if found else None


def explain(error: BaseException) -> tuple[str, str]:
    """Kind (key of REMEDIES) and sentence of a HailoRT exception; what has no number counts as "lost"."""
    status = STATUSES.get(number_of(error) or -1)
    if status is None:
        text = " ".join(str(error).split()) or type(error).__name__
        kind = "absent" if "not found in the system" in text else "lost"
        return kind, f"{text}; {REMEDIES[kind][0]}"
    return status.kind, status.sentence

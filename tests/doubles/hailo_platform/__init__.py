"""Stand-in for HailoRT's Python package, as sections 1.1 to 1.15 of the fact sheet describe it. For tests only."""

import os
from pathlib import Path

from hailo_world import world

from .pyhailort import _pyhailort
from .pyhailort.pyhailort import (  # noqa: F401
    HEF,
    AveragingFactor,
    ConfigureParams,
    Device,
    DvmTypes,
    Endianness,
    FormatOrder,
    FormatType,
    HailoCpuId,
    HailoFormatFlags,
    HailoPowerMode,
    HailoRTException,
    HailoRTStreamAbortedByUser,
    HailoSchedulingAlgorithm,
    HailoStreamDirection,
    HailoStreamInterface,
    MeasurementBufferIndex,
    PowerMeasurementTypes,
    SamplingPeriod,
    VDevice,
)

if world.release >= (4, 18):
    from .pyhailort.pyhailort import AsyncInferJob  # noqa: F401
if world.release >= (4, 20):
    from .pyhailort.pyhailort import HailoCommunicationClosedException  # noqa: F401

if os.environ.get("HAILORT_LOGGER_PATH") != "NONE":
    Path("hailort.log").touch()  # 1.12

__version__ = world.library
if _pyhailort.__version__ != __version__:
    raise ImportError(f"_pyhailort version ({_pyhailort.__version__}) does not match pyhailort version ({__version__})")

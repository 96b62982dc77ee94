"""What this machine can do: number format, device, versions of what made a run."""

from __future__ import annotations

import platform
from pathlib import Path

import keras

from edge_app import runs

PACKAGES = ("calmcam", "keras", "tensorflow", "torch", "jax", "numpy", "opencv-contrib-python", "pillow")


def gpus() -> list[str]:
    """Names of the accelerators that the backend sees."""
    if keras.backend.backend() == "torch":  # for which Keras lists none
        import torch

        return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    try:
        return list(keras.distribution.list_devices("gpu"))
    except RuntimeError:  # how JAX says that there is none
        return []


def precision(wanted: str) -> str:
    """The Keras dtype policy: `auto` means bfloat16 products where the hardware has them, else float32."""
    if wanted != "auto":
        return wanted
    if gpus():
        return "mixed_bfloat16"
    fast = keras.backend.backend() == "tensorflow" and {"avx512_bf16", "amx_bf16"} & set(_flags())
    return "mixed_bfloat16" if fast else "float32"


def versions() -> dict[str, str]:
    """Versions of Python, the backend and the packages that are installed."""
    return {"backend": keras.backend.backend(), **runs.versions(PACKAGES)}


def device() -> str:
    """The accelerator, or the processor's name."""
    return ", ".join(gpus()) or _field("model name") or platform.machine()


def _flags() -> list[str]:
    return _field("flags").split()


def _field(name: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")

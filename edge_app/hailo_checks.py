"""What can be checked before the Hailo is touched: versions, the device node, a HEF's streams against the manifest."""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from .errors import ModelError
from .hailo_facts import REMEDIES
from .manifest import Artifact

OLDEST, NEWEST = (4, 18), (5,)  # of HailoRT: the first with the async API in Python, the first without Hailo-8
CONSTRAINTS = "constraints-hailo.txt"
HAS_NUMPY_1 = sys.version_info < (3, 13)  # later Pythons have no wheel of it
NODES = "/dev/hailo*"
# HailoRT -> the Dataflow Compiler of the same release, whose HEFs it takes
COMPILERS = {"4.18": "3.28", "4.19": "3.29", "4.20": "3.30", "4.21": "3.31", "4.22": "3.32", "4.23": "3.33"}


class Stream(Protocol):
    """HailoRT's VStreamInfo."""

    name: str
    shape: tuple[int, ...]  # no batch
    format: object  # type, order
    quant_info: object  # qp_scale, qp_zp: real = (level - qp_zp) * qp_scale


def version_problem(version: str, numpy_version: str, requires: Sequence[str] | None) -> str:
    """Why this HailoRT cannot be used, as a sentence, or "".

    `requires` are the requirements that its distribution states, None where it states nothing: 4.x up to 4.23 was built
    before NumPy 2 and says `numpy<2`; one that no longer does is taken at its word. Where NumPy 1 cannot be had, the
    trial at opening decides: a distribution for such a Python was built after NumPy 2.
    """
    numbers = _numbers(version)
    if numbers < OLDEST:
        return f"HailoRT {version or 'of unknown version'} has no async API; install 4.18 or a later 4.x (hailo-all)"
    if numbers >= NEWEST:
        return f"HailoRT {version} serves Hailo-10H and 15 only; a Hailo-8 needs 4.18 or a later 4.x (hailo-all)"
    pins = ["numpy<2"] if requires is None else [line for line in requires if re.match(r"numpy\b", line)]
    pinned = any(re.search(r"<\s*2|==\s*1", line) for line in pins)
    if HAS_NUMPY_1 and pinned and int(numpy_version.split(".")[0]) >= 2:
        return (
            f"NumPy {numpy_version} and HailoRT {version} do not work together (every array counts as zero bytes); "
            f"in calmcam's folder: {_with_numpy_1()}"
        )
    return ""


def compiler_problem(compiler: Mapping[str, object], library: str) -> tuple[str, str]:
    """How a HEF and the HailoRT `library` ("4.23.0") are of different releases, and the mend; "" twice when they are not.

    `compiler` is what the manifest says of it. What is not known is no problem.
    """
    compiled, release = _release(str(compiler.get("compiler"))), _release(library)
    made_for = next((runtime for runtime, version in COMPILERS.items() if version == compiled), None)
    made_for = made_for or _release(str(compiler.get("runtime")))
    if not (made_for and release) or made_for == release:
        return "", ""
    mend = f"compile it again with the Dataflow Compiler {COMPILERS.get(release, 'that fits')} (calmcam compile)"
    if _numbers(made_for) > _numbers(release):
        mend += ", or sudo apt full-upgrade, then reboot"
    return f"was compiled for HailoRT {made_for}, {library} is installed", mend


def _release(version: str) -> str:
    """Major and minor of a version, "" where there is none."""
    found = re.match(r"\d+\.\d+", version)
    return found[0] if found else ""


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _with_numpy_1() -> str:
    if os.access(sys.prefix, os.W_OK):
        return f"{sys.executable} -m pip install -c {CONSTRAINTS} ."
    return "deploy/install.sh"  # which made this environment, as root


def fits(architecture: str) -> tuple[str, ...]:
    """Variants that run on a chip ("HAILO8", "HAILO8L"), best first: an 8 takes HEFs of all three, an 8L its own."""
    if "8L" in architecture.upper():
        return ("hailo8l",)
    return ("hailo8", "hailo8r", "hailo8l") if architecture.upper().startswith("HAILO8") else ()


def present() -> bool:
    """Whether a driver has a chip."""
    return bool(glob.glob(NODES))


def permission_problem() -> str:
    """Why the device node cannot be opened, as a sentence, or ""; also "" where there is no node."""
    for node in glob.glob(NODES):
        if not os.access(node, os.R_OK | os.W_OK):
            return f"{node}: no permission to read and write; {join_group(Path(node))}"
    return ""


def join_group(node: Path) -> str:
    """What lets a user open `node`; in a container its group may have no name."""
    try:
        return f"sudo usermod -aG {node.group()} $USER, then log in again"
    except KeyError:
        return f"start the container with --group-add {node.stat().st_gid}"


def absence() -> str:
    """The sentence for a scan that found no device."""
    driver = "the driver finds no chip" if present() else "no /dev/hailo0: the driver is not loaded"
    return f"no Hailo device ({driver}); {REMEDIES['absent'][0]}"


def check_file(artifact: Artifact) -> None:
    """ModelError unless there is a file with something in it: HailoRT crashes on empty bytes."""
    path = artifact.path
    if not path.is_file():
        raise ModelError(f"{path}: expected a HEF, got no file; {REMEDIES['hef'][0]}")
    if not path.stat().st_size:
        raise ModelError(f"{path}: expected a HEF, got an empty file; {REMEDIES['hef'][0]}")


def check_streams(artifact: Artifact, inputs: Sequence[Stream], outputs: Sequence[Stream]) -> None:
    """ModelError where a HEF's streams are not those of its manifest."""
    path, spec = artifact.path, artifact.input
    expected, came = [(spec.height, spec.width, spec.channels)], [tuple(info.shape) for info in inputs]
    if came != expected or spec.dtype != "uint8":
        raise ModelError(f"{path}: manifest says one input {expected[0]} {spec.dtype}, the file has {came} uint8")
    taken, nms = inputs[0].format, [info.name for info in outputs if "NMS" in info.format.order.name]
    if (taken.type.name, taken.order.name) != ("UINT8", "NHWC") or nms:
        came = f"{taken.type.name} {taken.order.name}" + (f" and box outputs {nms}" if nms else "")
        raise ModelError(f"{path}: expected UINT8 NHWC in and plain tensors out, got {came}; compile the model again")
    quant = inputs[0].quant_info
    if abs(quant.qp_scale - 1) > 1e-3 or quant.qp_zp:
        raise ModelError(f"{path}: expected raw pixels as input, got scale {quant.qp_scale:g}; compile the model again")
    missing = sorted(set(artifact.outputs.values()) - {info.name for info in outputs})
    if missing:
        raise ModelError(f"{path}: manifest names outputs {missing}, the file has {sorted(i.name for i in outputs)}")

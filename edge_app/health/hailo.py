"""The Hailo from outside: chip, link, driver, node, library, firmware, compiled models; nothing is opened in-process.

Facts: HailoRT 4.23.0 as published; `hailortcli fw-control identify` says nothing and exits 0 when there is no device.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from ..child import STATUS_ABSENT, STATUS_HANGS
from ..errors import CalmcamError
from ..hailo_checks import compiler_problem, fits, join_group, version_problem
from ..hailo_facts import QUIET
from ..manifest import Manifest, find_model, installed
from . import hailo_use
from .checks import BROKEN, OK, WARNING, Check, Machine

VENDOR, DEVICE = "0x1e60", "0x2864"  # on PCI: Hailo; the Hailo-8 and 8L, whereas a 10H is 0x45c4
INSTALL = "sudo apt install hailo-all, then reboot"
ONE_VERSION = "sudo apt full-upgrade, then reboot"
SEE_SYSTEM = "python3 -m venv --system-site-packages .venv, and install calmcam there"
SEATING = (
    "check seating and power (hailortcli scan); on a Pi 5 dtparam=pciex1 in /boot/firmware/config.txt, then reboot"
)
PROBE = """
import contextlib, importlib.metadata, importlib.util, json
if importlib.util.find_spec("hailo_platform") is None:
    print(json.dumps(None))
else:
    import numpy, hailo_platform
    version, requires = getattr(hailo_platform, "__version__", ""), None
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        requires = importlib.metadata.requires("hailort")
    print(json.dumps({"version": version, "requires": requires, "numpy": numpy.__version__}))
"""


def checks(machine: Machine, model: str = "") -> list[Check]:
    """One line when there is no trace of a Hailo, otherwise all that can be said without using it.

    `model` is the one that the settings name.
    """
    chips, others = _chips(machine)
    if others and not chips:
        return [Check("hailo", OK, "a Hailo-10H or 15, which calmcam does not use: the CPU classifies")]
    nodes = machine.find("/dev/hailo*")
    driver = driver_version(machine)
    library, python_check = package(machine)
    if not (chips or nodes or driver):
        if not library and python_check.state != BROKEN:
            return [Check("hailo", OK, "none, the CPU classifies")]
        seen = Check("hailo", WARNING, "HailoRT is installed, but no chip is seen; the CPU classifies", SEATING)
        return [seen, python_check]
    architecture, firmware_check = firmware(machine, driver)
    return [
        _chip(machine, chips, bool(nodes)),
        _driver(machine, driver, library),
        _node(nodes),
        python_check,
        firmware_check,
        *hailo_use.checks(machine, nodes),
        compiled(architecture, library, model),
    ]


def driver_version(machine: Machine) -> str:
    """Version of the loaded kernel module, "" when none is loaded."""
    return machine.read("/sys/module/hailo_pci/version")


def package(machine: Machine) -> tuple[str, Check]:
    """Version of the Python package and library, "" when they cannot be used, and what to say of them."""
    answer = machine.ask([sys.executable, "-P", "-c", PROBE], QUIET)
    if answer.status == STATUS_HANGS:
        return "", Check("hailo_platform", BROKEN, f"its import hangs ({answer.last_line})", ONE_VERSION)
    if answer.status:
        why = answer.last_line or f"its import ended with status {answer.status}"
        return "", Check("hailo_platform", BROKEN, f"cannot be imported: {why}", ONE_VERSION)
    found: Mapping | None = json.loads(answer.out.strip().splitlines()[-1])
    if found is None:
        if machine.find("/usr/lib/python3/dist-packages/hailo_platform/__init__.py"):
            return "", Check(
                "hailo_platform", BROKEN, "installed for the system, this Python does not see it", SEE_SYSTEM
            )
        return "", Check("hailo_platform", WARNING, "not installed, the CPU classifies", INSTALL)
    problem = version_problem(found["version"], found["numpy"], found["requires"])
    if problem:
        text, _, mend = problem.rpartition("; ")
        return found["version"], Check("hailo_platform", BROKEN, text, mend)
    return found["version"], Check("hailo_platform", OK, f"{found['version']} with NumPy {found['numpy']}")


def firmware(machine: Machine, driver: str) -> tuple[str, Check]:
    """Architecture ("HAILO8", "HAILO8L"; "" when unknown), and what the firmware says of itself."""
    answer = machine.ask(["hailortcli", "fw-control", "identify"], QUIET)
    if answer.status == STATUS_ABSENT:
        return "", Check("firmware", WARNING, "unknown: there is no hailortcli", INSTALL)
    version = re.search(r"Firmware Version:\s*(\d+\.\d+\.\d+)", answer.out)
    chip = re.search(r"Device Architecture:\s*(\w+)", answer.out)
    if answer.status or not (version and chip):
        said = answer.last_line or "no device answers"
        mend = "check seating and power, sudo systemctl stop what holds it, reboot; then hailortcli fw-control identify"
        return "", Check("firmware", BROKEN, f"{said} (hailortcli status {answer.status})", mend)
    text = f"{version[1]} on {chip[1]}"
    if driver and not _same(driver, version[1]):
        return chip[1], Check("firmware", BROKEN, f"{text}, but the driver is {driver}", ONE_VERSION)
    return chip[1], Check("firmware", OK, text)


def compiled(architecture: str, library: str = "", model: str = "") -> Check:
    """Whether a model, installed or the settings' `model`, was compiled for the chip and the HailoRT `library`."""
    wanted = fits(architecture) or fits("HAILO8")
    models = _expression_models(model)
    having = {name: [v for v in wanted if v in manifest.artifacts] for name, manifest in models.items()}
    for name, (first, *_) in ((name, variants) for name, variants in having.items() if variants):
        problem, mend = compiler_problem(models[name].artifacts[first].compiler, library)
        if problem:
            return Check("compiled models", WARNING, f"{name}/{first} {problem}", mend)
    found = [f"{name} ({', '.join(variants)})" for name, variants in having.items() if variants]
    if found:
        return Check("compiled models", OK, ", ".join(found))
    mend = f"calmcam compile {next(iter(having), 'emotions')} --arch {wanted[0]} --calibration FOLDER --prepare"
    text = "none for this chip: the CPU classifies"
    return Check("compiled models", WARNING, text, f"{mend}, and on as the README says")


def _chips(machine: Machine) -> tuple[list[Path], list[Path]]:
    """The Hailo-8s on the bus, and Hailo's other devices."""
    entries = [path.parent for path in machine.find("/sys/bus/pci/devices/*/vendor")]
    ours = [entry for entry in entries if machine.read(entry / "vendor") == VENDOR]
    chips = [entry for entry in ours if machine.read(entry / "device") == DEVICE]
    return chips, [entry for entry in ours if entry not in chips]


def _chip(machine: Machine, chips: list[Path], node: bool) -> Check:
    """The chip on the bus and how fast it is attached."""
    if not chips:
        if node:
            return Check("hailo", OK, "a device node, not on a PCI bus that can be seen")
        return Check("hailo", BROKEN, "no chip on the PCI bus", SEATING)
    speed, width = (machine.read(chips[0] / f"current_link_{what}") for what in ("speed", "width"))
    gen_2 = " (Gen 2 is enough)" if speed.startswith("5") else ""
    return Check("hailo", OK, f"{chips[0].name}, PCIe {speed or 'speed unknown'} x{width or '?'}{gen_2}")


def _driver(machine: Machine, driver: str, library: str) -> Check:
    there = "" if driver else machine.ask(["modinfo", "-F", "version", "hailo_pci"]).out.strip()
    if there:
        return Check("hailo driver", BROKEN, f"{there} is installed, not loaded", "sudo modprobe hailo_pci")
    if not driver:
        return Check("hailo driver", BROKEN, "the module hailo_pci is not loaded", INSTALL)
    if library and not _same(driver, library):
        return Check("hailo driver", BROKEN, f"{driver}, but the library is {library}", ONE_VERSION)
    return Check("hailo driver", OK, driver)


def _node(nodes: list[Path]) -> Check:
    if not nodes:
        return Check("hailo node", BROKEN, "no /dev/hailo0", "sudo modprobe hailo_pci; then sudo dmesg | grep hailo")
    if not os.access(nodes[0], os.R_OK | os.W_OK):
        return Check("hailo node", BROKEN, f"{nodes[0]}: no permission to read and write", join_group(nodes[0]))
    return Check("hailo node", OK, str(nodes[0]))


def _expression_models(named: str) -> dict[str, Manifest]:
    """What `named` stands for and the installed ones, by what one types for them."""
    found = {}
    for name in dict.fromkeys((*filter(None, [named]), *installed())):
        with contextlib.suppress(CalmcamError):  # told by the line of that model, or of the settings
            found[name] = find_model(name)
    return {name: manifest for name, manifest in found.items() if manifest.task == "face_expression"}


def _same(a: str, b: str) -> bool:
    """Whether two versions agree in major, minor and revision, which HailoRT demands."""
    return re.findall(r"\d+", a)[:3] == re.findall(r"\d+", b)[:3]

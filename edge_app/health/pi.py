"""What a Raspberry Pi tells of itself: board, supply, heat, the camera connector's library."""

from __future__ import annotations

import importlib.util
import platform
import re

from .checks import BROKEN, OK, WARNING, Check, Machine

# Bits of `vcgencmd get_throttled` (Raspberry Pi documentation, "vcgencmd"); +16 is "has happened since the start".
UNDER_VOLTAGE = 0
THROTTLING = {1: "frequency capped", 2: "throttled", 3: "soft temperature limit"}
HOT = 80.0  # degrees C, where a Pi begins to slow down
SUPPLY = "use the official 27 W supply (5 V, 5 A) and a short cable, then reboot"
COOLING = "fit the active cooler, or give it air"


def checks(machine: Machine) -> list[Check]:
    """One line saying that this is no Pi, or what the Pi says."""
    model = machine.read("/proc/device-tree/model")
    if not model.startswith("Raspberry Pi"):
        return [Check("board", OK, f"{platform.machine()}, not a Raspberry Pi")]
    return [Check("board", OK, model), throttling(machine), temperature(machine), picamera(machine)]


def throttling(machine: Machine) -> Check:
    """Whether supply or heat slow the Pi down, now or since it started."""
    answer = machine.ask(["vcgencmd", "get_throttled"])
    found = re.search(r"throttled=0x([0-9a-fA-F]+)", answer.out)
    if not found:
        return Check("throttling", WARNING, "unknown: vcgencmd gives no answer", "sudo apt install raspi-utils")
    bits = int(found[1], 16)
    now = [text for bit, text in THROTTLING.items() if bits >> bit & 1]
    past = [text for bit, text in THROTTLING.items() if bits >> bit + 16 & 1]
    if bits >> UNDER_VOLTAGE & 1:
        return Check("throttling", BROKEN, f"under-voltage now (0x{bits:x})", SUPPLY)
    if now:
        return Check("throttling", WARNING, f"{', '.join(now)} now (0x{bits:x})", COOLING)
    if bits >> UNDER_VOLTAGE + 16 & 1:
        return Check("throttling", WARNING, f"under-voltage since the start (0x{bits:x})", SUPPLY)
    if past:
        return Check("throttling", WARNING, f"{', '.join(past)} since the start (0x{bits:x})", COOLING)
    return Check("throttling", OK, "none since the start")


def temperature(machine: Machine) -> Check:
    """The processor's temperature."""
    text = machine.read("/sys/class/thermal/thermal_zone0/temp")
    if not text.lstrip("-").isdecimal():
        return Check("temperature", WARNING, "unknown: the kernel does not tell", "vcgencmd measure_temp")
    degrees = int(text) / 1000
    return Check(
        "temperature", *((WARNING, f"{degrees:.0f} C", COOLING) if degrees >= HOT else (OK, f"{degrees:.0f} C"))
    )


def ribbon(machine: Machine) -> bool:
    """Whether a camera is on the ribbon connector: the kernel shows its nodes only then."""
    names = (machine.read(entry / "name") for entry in machine.find("/sys/class/video4linux/video*"))
    return any(name.startswith(("rp1-cfe", "unicam")) for name in names)


def picamera(machine: Machine) -> Check:
    """Picamera2, which only cameras on the ribbon connector need; the system's package, so the venv must see it."""
    if importlib.util.find_spec("picamera2"):
        return Check("picamera2", OK, "installed")
    if machine.find("/usr/lib/python3/dist-packages/picamera2/__init__.py"):
        mend = "python3 -m venv --system-site-packages .venv, and install calmcam there"
        return Check("picamera2", WARNING, "installed for the system, this Python does not see it", mend)
    if ribbon(machine):
        text = "not installed, which the camera on the ribbon connector needs"
        return Check("picamera2", WARNING, text, "sudo apt install python3-picamera2")
    return Check("picamera2", OK, "not installed; only cameras on the ribbon connector need it")

"""Who holds the Hailo, how hot it is and what it draws, asked in child processes."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from ..child import STATUS_ABSENT
from ..hailo_facts import QUIET
from .checks import OK, WARNING, Check, Machine

HOT = 90  # degrees Celsius
COOL = "see to the fan, and to air around the hat"

# The Device stays in a variable: its control dies with it. Boards without a current sensor, as those of the Pi, refuse.
SENSORS = """
import json, hailo_platform
device = hailo_platform.Device()
found = {}
for name, ask in {
    "celsius": lambda: device.control.get_chip_temperature().ts0_temperature,
    "watts": device.control.power_measurement,
    "throttled": device.control.get_throttling_state,
}.items():
    try:
        found[name] = float(ask())
    except Exception:
        found[name] = None
print(json.dumps(found))
"""


def checks(machine: Machine, nodes: list[Path]) -> list[Check]:
    """A line each for what can be told; none where nothing can."""
    return [check for check in (holders(machine, nodes), sensors(machine)) if check]


def holders(machine: Machine, nodes: list[Path]) -> Check | None:
    """Which programs have the device open; None where that cannot be asked."""
    if not nodes:
        return None
    answer = machine.ask(["fuser", *(f"/dev/{node.name}" for node in nodes)])
    if answer.status == STATUS_ABSENT:
        return None
    pids = re.findall(r"\d+", answer.out)
    names = [f"{machine.read(f'/proc/{pid}/comm') or 'a process'} ({pid})" for pid in pids]
    if names:
        return Check("hailo in use", OK, f"by {', '.join(names)}; a second process cannot have it")
    return Check("hailo in use", OK, "by nobody this user may see (sudo fuser -v /dev/hailo0 sees all)")


def sensors(machine: Machine) -> Check | None:
    """Temperature, power and throttling of the chip; None where HailoRT or the device does not answer."""
    answer = machine.ask([sys.executable, "-P", "-c", SENSORS], QUIET)
    try:
        found = json.loads((answer.out.strip().splitlines() or ["null"])[-1]) or {}
    except ValueError:
        return None
    if found.get("celsius") is None:
        return None
    power = f"{found['watts']:.1f} W" if found.get("watts") is not None else "no power sensor"
    text = f"{found['celsius']:.0f} C, {power}"
    if found.get("throttled"):
        return Check("hailo chip", WARNING, f"{text}, slowed down for its heat", COOL)
    if found["celsius"] > HOT:
        return Check("hailo chip", WARNING, text, COOL)
    return Check("hailo chip", OK, text)

"""Ask the Hailo who it is, in a process of its own.

Opening a device holds Python's lock and, with a driver that hangs, for ever; it also blocks SIGWINCH in its thread.
"""

from __future__ import annotations

import contextlib
import json
import sys

from .child import STATUS_HANGS, ask
from .errors import BackendUnavailable
from .hailo_facts import QUIET, explain

PATIENCE = 10.0  # seconds; importing HailoRT takes about one on a Raspberry Pi
_SCRIPT = """
import json, hailo_platform
try:
    device = hailo_platform.Device()  # in a variable: its control dies with it
    board = device.control.identify()
    said = {"architecture": getattr(board.device_architecture, "name", str(board.device_architecture))}
except Exception as error:  # of either family; the number is the cause's, or that of a raw one
    number = str(((error.__cause__ or error).args or ("",))[0])
    said = {"error": f"libhailort failed with error: {number}" if number.isdecimal() else str(error)}
print(json.dumps(said))
"""


def identify() -> str:
    """Architecture of the first chip, "HAILO8" or "HAILO8L" (its board name says "Hailo-8" on both).

    BackendUnavailable says why it cannot be asked.
    """
    answer = ask([sys.executable, "-P", "-c", _SCRIPT], QUIET, patience=PATIENCE)
    if answer.status == STATUS_HANGS:
        raise BackendUnavailable(f"the Hailo's driver gave {answer.err}; reboot")
    said = _said(answer.out)
    if "error" in said:
        raise BackendUnavailable(f"the Hailo: {explain(RuntimeError(said['error']))[1]}")
    return said["architecture"]


def _said(out: str) -> dict[str, str]:
    """The last line of JSON; HailoRT may write lines of its own around it."""
    for line in reversed(out.splitlines()):
        with contextlib.suppress(ValueError):
            if isinstance(said := json.loads(line), dict):
                return said
    return {"error": "the library ended the process that asked"}

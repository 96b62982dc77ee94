"""The service that deploy/install.sh --service sets up, as systemd and its journal tell."""

from __future__ import annotations

from .checks import BROKEN, OK, Check, Machine

UNIT = "calmcam.service"
CORRECT = 'correct /etc/calmcam.toml (source = "picamera" is the Pi\'s own camera), then sudo systemctl restart calmcam'
WHY = "sudo journalctl -u calmcam says why"


def checks(machine: Machine) -> list[Check]:
    """One line, with the last words of a service that fails; none where no service is installed."""
    answer = machine.ask(["systemctl", "show", UNIT, "--property=LoadState,ActiveState,SubState,NRestarts"])
    said = dict(line.partition("=")[::2] for line in answer.out.splitlines())
    if said.get("LoadState") != "loaded":
        return []
    again = said.get("SubState", "").startswith("auto-restart") or said.get("NRestarts", "0") != "0"
    state = said.get("ActiveState", "")
    if state == "failed" or (state == "activating" and again):
        last = machine.ask(["journalctl", "--quiet", "--output=cat", "--lines=1", f"_SYSTEMD_UNIT={UNIT}"]).out.strip()
        return [Check("service", BROKEN, f"does not run: {last}" if last else "does not run", CORRECT if last else WHY)]
    words = {"active": "runs", "activating": "starts", "inactive": "stopped"}
    return [Check("service", OK, words.get(state, state))]

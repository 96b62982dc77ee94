"""What the doctor says of a Hailo at work; the sensors are asked of the double, in a child process as on a Pi."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from edge_app.child import STATUS_ABSENT, Answer, ask
from edge_app.health.checks import OK, WARNING, Machine
from edge_app.health.hailo_use import checks, holders, sensors

DOUBLES = Path(__file__).parent / "doubles"


def test_who_holds_it(tmp_path: Path) -> None:
    comm = tmp_path / "proc" / "1234" / "comm"
    comm.parent.mkdir(parents=True)
    comm.write_text("calmcam\n")
    nodes = [Path("/dev/hailo0")]
    held = holders(Machine(tmp_path, lambda *args: Answer(0, " 1234 77\n", "/dev/hailo0:\n")), nodes)
    assert held.text == "by calmcam (1234), a process (77); a second process cannot have it"
    assert "by nobody" in holders(Machine(tmp_path, lambda *args: Answer(1)), nodes).text
    assert holders(Machine(tmp_path, lambda *args: Answer(STATUS_ABSENT)), nodes) is None


def test_real_fuser_names_this_process(tmp_path: Path) -> None:
    node = tmp_path / "hailo0"
    if ask(["fuser", "-V"]).status == STATUS_ABSENT:
        pytest.skip("no fuser here")
    with node.open("w"):
        answer = subprocess.run(["fuser", node], capture_output=True, text=True)
        assert str(os.getpid()) in answer.stdout


@pytest.mark.parametrize("sensor, said", [("0", "42 C, no power sensor"), ("1", "42 C, 1.2 W")])
def test_sensors(monkeypatch: pytest.MonkeyPatch, sensor: str, said: str) -> None:
    monkeypatch.setenv("PYTHONPATH", str(DOUBLES))
    monkeypatch.setenv("CALMCAM_DOUBLE", f"sensor={sensor}")
    assert (sensors(Machine()).state, sensors(Machine()).text) == (OK, said)


@pytest.mark.parametrize(
    "double, said",
    [("celsius=104", "104 C, no power sensor"), ("throttling=1", "42 C, no power sensor, slowed down for its heat")],
)
def test_a_hot_chip_wants_air(monkeypatch: pytest.MonkeyPatch, double: str, said: str) -> None:
    monkeypatch.setenv("PYTHONPATH", str(DOUBLES))
    monkeypatch.setenv("CALMCAM_DOUBLE", double)
    check = sensors(Machine())
    assert (check.state, check.text) == (WARNING, said) and "the fan" in check.mend


@pytest.mark.parametrize("double", ["driver=4.20.0", "firmware=4.20.0", None])
def test_sensors_that_do_not_answer_make_no_line(monkeypatch: pytest.MonkeyPatch, double: str | None) -> None:
    if double:
        monkeypatch.setenv("PYTHONPATH", str(DOUBLES))
        monkeypatch.setenv("CALMCAM_DOUBLE", double)
    assert sensors(Machine()) is None
    assert checks(Machine(ask=lambda *args: Answer(STATUS_ABSENT)), []) == []

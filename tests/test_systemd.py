import re
import shutil
import socket
import subprocess
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from edge_app.cli import cli
from edge_app.settings import Settings, read_settings
from edge_app.sinks.systemd import Sink
from edge_app.types import NO_FACES, Frame, Result, Status

DEPLOY = Path(__file__).parent.parent / "deploy"
RESULT = Result(Frame(np.zeros((8, 8, 3), np.uint8), 0, 0), NO_FACES, {}, Status(1, 1, 0, "cpu"))


def test_the_first_result_says_ready_and_the_end_says_stopping(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(1)
        with Sink(str(tmp_path / "notify")) as sink:
            sink.write(RESULT)
            sink.write(RESULT)  # within the same second: nothing more to say
        assert [systemd.recv(99) for _ in range(2)] == [b"READY=1\nWATCHDOG=1", b"STOPPING=1"]


def test_a_stream_that_is_connected_again_is_alive(tmp_path, monkeypatch):
    now = iter(range(100))
    monkeypatch.setattr("edge_app.sinks.systemd.time.monotonic", lambda: float(next(now)))
    waiting = [True]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(1)
        with Sink(str(tmp_path / "notify"), waits=lambda: waiting[0]) as sink:
            sink.idle()  # not before the first result
            next(now)
            sink.write(RESULT)
            sink.idle()
            waiting[0] = False
            sink.idle()
        assert [systemd.recv(99) for _ in range(3)] == [b"READY=1\nWATCHDOG=1", b"WATCHDOG=1", b"STOPPING=1"]


def test_a_run_goes_on_when_systemd_does_not_listen(tmp_path, caplog):
    with Sink(str(tmp_path / "left behind")) as sink:
        sink.write(RESULT)
    assert caplog.messages == [
        "NOTIFY_SOCKET: systemd does not listen (No such file or directory); the run goes on without it"
    ]


def test_install_dry_run_names_its_steps_and_changes_nothing(tmp_path):
    command = [str(DEPLOY / "install.sh"), "--dry-run", "--service", "--prefix", str(tmp_path / "opt")]
    done = subprocess.run(
        command, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "SYSFS": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    assert "would run: /usr/bin/python3 -m venv --system-site-packages" in done.stdout
    assert "/etc/systemd/system/calmcam.service" in done.stdout
    assert "deploy/calmcam.toml /etc/calmcam.toml" in done.stdout
    assert "on the CPU" in done.stdout
    steps = [line.removeprefix("would run: systemctl ") for line in done.stdout.splitlines() if "systemctl" in line]
    assert steps == ["daemon-reload", "try-restart calmcam.service", "enable --now calmcam.service"], "an old one ends"
    assert not (tmp_path / "opt").exists()


@pytest.mark.parametrize(("python", "constrained"), [("/bin/true", True), ("/bin/false", False)])
def test_numpy_1_is_installed_where_the_system_s_python_asks_for_it(tmp_path, python, constrained):
    """The script asks the interpreter whether it is older than 3.13."""
    command = [str(DEPLOY / "install.sh"), "--dry-run", "--prefix", str(tmp_path / "opt")]
    environment = {"PATH": "/usr/bin:/bin", "SYSFS": str(tmp_path), "PYTHON": python}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert ("pip install --quiet --upgrade -c " in done.stdout) is constrained


def test_the_settings_that_are_installed_are_the_defaults_and_what_they_propose_is_valid(tmp_path):
    assert read_settings(DEPLOY / "calmcam.toml") == Settings()
    proposed = re.sub(r"^# (\w+ = )", r"\1", (DEPLOY / "calmcam.toml").read_text(), flags=re.MULTILINE)
    (tmp_path / "proposed.toml").write_text(proposed)
    assert [field.name for field in fields(Settings)] == re.findall(r"^(\w+) = ", proposed, flags=re.MULTILINE)
    of_source = {"width": 1280, "height": 720, "fps": 30}  # a camera's own defaults, as is the variant the device's
    assert read_settings(tmp_path / "proposed.toml") == Settings(head="emotion", variant="int8", **of_source)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd")
def test_the_drop_in_that_is_proposed_is_one(tmp_path):
    """systemd reads it, and it writes only where the service may."""
    proposed = (DEPLOY / "calmcam.toml").read_text().partition("and write\n")[2].partition("# --save")[0]
    drop_in = "".join(line.removeprefix("#").strip() + "\n" for line in proposed.splitlines())
    unit = (DEPLOY / "calmcam.service").read_text()
    state = f"/var/lib/{re.search('^StateDirectory=(.+)$', unit, re.MULTILINE)[1]}"
    assert f"WorkingDirectory={state}\n" in unit
    assert not re.search("^(ProtectClock|DeviceAllow|DevicePolicy|PrivateDevices)=", unit, re.MULTILINE), "cameras stay"
    assert "StandardOutput=append:/var/log/" in drop_in, "root opens it: not where the service could lay a link"
    (tmp_path / "calmcam.service").write_text(unit.replace("/opt/calmcam/venv/bin/calmcam", "/bin/true"))
    (tmp_path / "calmcam.service.d").mkdir()
    (tmp_path / "calmcam.service.d" / "override.conf").write_text(
        drop_in.replace("/opt/calmcam/venv/bin/calmcam", "/bin/true")
    )
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / "calmcam.service")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    flags = re.findall(r"^ExecStart=\S+ (.+)$", drop_in, re.MULTILINE)[0].split()
    assert cli.main([*flags, "--help"], standalone_mode=False) == 0


def test_install_refuses_an_unknown_option():
    done = subprocess.run([str(DEPLOY / "install.sh"), "--servce"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "unknown option --servce" in done.stderr

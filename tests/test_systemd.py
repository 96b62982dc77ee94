import configparser
import importlib.util
import re
import shutil
import socket
import subprocess
import sys
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


# install.sh

SUDO = """#!/bin/sh
echo "$*" >>{log}
for last; do :; done
case "$*" in
*" -m venv "*) # ensurepip takes long
    "$@" --without-pip && ln -s {pip} "$last"/lib/python*/site-packages/ ;;
*"-m pip install "*) # as pip does, it builds in the folder that it is given
    mkdir "$last/build"
    ls "$last" >{log}.built
    printf '#!/bin/sh\necho "$0 $* in $PWD"; exit 1\n' >{root}/opt/calmcam/venv/bin/calmcam
    chmod +x {root}/opt/calmcam/venv/bin/calmcam ;;
"systemctl restart "*) exit 1 ;; # there is no camera
"useradd "* | "install "* | "ln "* | "systemctl "*) ;;
*) exec "$@" ;;
esac
"""


class Pi:
    """A computer below `root` with a checkout, on which a user runs install.sh; `log` has what root did."""

    def __init__(self, root: Path, *, enabled: bool = False) -> None:
        self.root, self.log, self.checkout = root, root / "log", root / "home" / "calmcam"
        pip = Path(importlib.util.find_spec("pip").origin).parent
        scripts = {
            "sudo": SUDO.format(log=self.log, root=root, pip=pip),
            "systemctl": f"#!/bin/sh\nexit {int(not enabled)}\n",
            "id": '#!/bin/sh\n[ "$1" = -u ] && echo 1000\n',
        }
        for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
            self.write(self.checkout / name)
        for name in ("edge_app", "trainer", "deploy", "models", "build/lib"):
            (self.checkout / name).mkdir(parents=True)
        places = re.compile(r"(?<![\w/])/(?=opt/|etc/|usr/local/)")
        script = places.sub(f"{root}/", (DEPLOY / "install.sh").read_text()).replace("/usr/bin/python3", sys.executable)
        self.write(self.checkout / "deploy" / "install.sh", script)
        self.write(self.checkout / "deploy" / "system_libraries.sh", f'#!/bin/sh\necho "for $PYTHON" >>{self.log}\n')
        for name, text in scripts.items():
            self.write(root / "bin" / name, text)

    @staticmethod
    def write(path: Path, text: str = "") -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def install(self, *options: str, **more: str) -> str:
        """What the script says to the user; what root has done before is forgotten."""
        self.log.write_text("")
        places = {"PATH": f"{self.root}/bin:/usr/bin:/bin", "SYSFS": str(self.root), "TMPDIR": str(self.root)}
        command = ["deploy/install.sh", *options]
        done = subprocess.run(command, cwd=self.checkout, capture_output=True, text=True, env={**places, **more})
        assert done.returncode == 0, done.stderr
        return done.stdout

    def did(self, start: str) -> list[str]:
        """What root did that begins so, without that."""
        return [line.removeprefix(start) for line in self.log.read_text().splitlines() if line.startswith(start)]


def test_install_dry_run_names_its_steps_and_changes_nothing(tmp_path):
    pi = Pi(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    said = pi.install("--dry-run", "--service", PYTHON="/bin/true").replace(str(tmp_path), "")
    assert "would run: /bin/true -m venv --clear --system-site-packages /opt/calmcam/venv" in said
    assert "/etc/systemd/system/calmcam.service" in said
    assert "deploy/calmcam.toml /etc/calmcam.toml" in said
    assert "on the CPU" in said
    assert sorted(tmp_path.rglob("*")) == sorted([*before, pi.log]) and not pi.log.read_text()


@pytest.mark.parametrize(("python", "constrained"), [("/bin/true", True), ("/bin/false", False)])
def test_numpy_1_is_installed_where_the_system_s_python_asks_for_it(tmp_path, python, constrained):
    """The script asks the interpreter whether it is older than 3.13."""
    assert ("pip install --quiet --upgrade -c " in Pi(tmp_path).install("--dry-run", PYTHON=python)) is constrained


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("0x2864", "would run: apt-get install -y hailo-all\n"),
        ("0x45c4", "calmcam: on the PCIe bus is a Hailo-10H or 15, which calmcam does not use: the CPU classifies\n"),
    ],
)
def test_hailort_is_installed_for_a_hailo_8_only(tmp_path, device, said):
    """The package for the Hailo-10H stands where one is."""
    pi, has = Pi(tmp_path), "hailo-h10-all" if device == "0x45c4" else "dkms"
    pi.write(tmp_path / "bin" / "apt-cache", "#!/bin/sh\necho ' Candidate: 4.23.0'\n")
    pi.write(tmp_path / "bin" / "dpkg-query", f'#!/bin/sh\ncase "$*" in *" {has}") printf installed ;; esac\n')
    for entry, vendor, number in (("a", "0x1e60", device), ("b", "0x14e4", "0x2864")):
        for name, text in (("vendor", vendor), ("device", number)):
            pi.write(tmp_path / "bus" / "pci" / "devices" / entry / name, f"{text}\n")
    shown = pi.install("--dry-run", PYTHON="/bin/true")
    assert said in shown and ("hailo-all" in shown) == (device == "0x2864")


def test_what_is_half_made_is_made_anew_and_nothing_is_built_in_the_checkout(tmp_path):
    pi = Pi(tmp_path)
    venv = tmp_path / "opt" / "calmcam" / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", "--without-pip", str(venv)], check=True)
    checkout = sorted(pi.checkout.rglob("*"))
    said = pi.install()
    made = pi.did(f"{sys.executable} -m venv ")
    assert made == [f"--clear --system-site-packages {venv}"], "a pip elsewhere is not its own"
    assert pi.did("for ") == [sys.executable], "ensurepip is looked for where it is needed"
    setup = configparser.ConfigParser()
    setup.read(DEPLOY.parent / "setup.cfg")
    packages = {name.partition(".")[0] for name in setup["options"]["packages"].split()}
    files = {"setup.cfg", "pyproject.toml", "README.md", "LICENSE", "models", "build"}
    assert set((tmp_path / "log.built").read_text().split()) == packages | files
    assert sorted(pi.checkout.rglob("*")) == checkout
    assert not list(tmp_path.glob("tmp*")), "the copy goes"
    assert not pi.did("systemctl ")
    assert f"{venv}/bin/calmcam doctor in {pi.checkout}\n" in said

    pi.install()
    assert not pi.did(f"{sys.executable} -m venv ") and pi.did(f"{venv}/bin/python -m pip install ")


@pytest.mark.parametrize(("options", "enabled"), [(["--service"], False), ([], True)])
def test_a_service_that_cannot_start_yet_is_installed_and_the_doctor_asked(tmp_path, options, enabled):
    """It is renewed and started anew, too, when calmcam is below one that is enabled."""
    pi = Pi(tmp_path, enabled=enabled)
    said = pi.install(*options)
    assert pi.did("systemctl ") == ["daemon-reload", "enable calmcam.service", "restart calmcam.service"]
    assert len(pi.did("install ")) == 2 and "--create-home" not in pi.did("useradd ")[0]
    assert "calmcam doctor in" in said and "mend what is broken above" in said


def test_the_settings_that_are_installed_are_the_defaults_and_what_they_propose_is_valid(tmp_path):
    assert read_settings(DEPLOY / "calmcam.toml") == Settings()
    proposed = re.sub(r"^# (\w+ = )", r"\1", (DEPLOY / "calmcam.toml").read_text(), flags=re.MULTILINE)
    (tmp_path / "proposed.toml").write_text(proposed)
    assert [field.name for field in fields(Settings)] == re.findall(r"^(\w+) = ", proposed, flags=re.MULTILINE)
    of_source = {"width": 1280, "height": 720, "fps": 30}  # a camera's own defaults, as is the variant the device's
    without = {"head": "emotion", "variant": "int8", "web": "8080", "mqtt": "mqtt://me:${MQTT_PASS}@broker/calmcam"}
    assert read_settings(tmp_path / "proposed.toml") == Settings(**without, **of_source)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd")
def test_the_drop_in_that_is_proposed_is_one(tmp_path):
    """systemd reads it, and it writes only where the service may."""
    proposed = (DEPLOY / "calmcam.toml").read_text().partition("and write\n")[2].partition("# The journal")[0]
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
    flags = re.findall(r"^ExecStart=\S+ (.+)$", unit, re.MULTILINE)[0].split()
    assert cli.main([*flags, "--help"], standalone_mode=False) == 0


def test_install_refuses_an_unknown_option():
    done = subprocess.run([str(DEPLOY / "install.sh"), "--servce"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "unknown option --servce" in done.stderr

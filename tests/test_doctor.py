from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from not_root import told
from small_model import write_model

from edge_app import child
from edge_app.child import Answer
from edge_app.cli import cli
from edge_app.commands import doctor
from edge_app.health import hailo, host, pi, service
from edge_app.health.checks import BROKEN, OK, WARNING, Check, Machine
from edge_app.manifest import Artifact, read_manifest, sha256, write_manifest

CASES = sorted((Path(__file__).parent / "cases" / "doctor").glob("*.json"))
DISTS = {name: "1.0" for name in (*host.NEEDED, "ai-edge-litert")}


@pytest.fixture(autouse=True)
def own_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "share"))
    return tmp_path / "share" / "calmcam" / "models"


def written_down(root: Path, files: dict[str, str], answers: dict[str, dict]) -> Machine:
    """A machine of files and answers; a command is looked up by how it begins, Python by "python"."""
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def ask(command: Sequence[str], environment: object = None) -> Answer:
        line = " ".join("python" if word == sys.executable else word for word in command)
        for start, answer in answers.items():
            if line.startswith(start):
                return Answer(**{"status": 0, **answer})
        return Answer(child.STATUS_ABSENT)

    return Machine(root, ask)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_what_a_pi_and_a_hailo_tell(path, tmp_path, monkeypatch):
    monkeypatch.setattr("edge_app.hailo_checks.HAS_NUMPY_1", True)
    case = json.loads(path.read_text())
    machine = written_down(tmp_path / "root", case["files"], case["answers"])
    found = {check.name: check for check in [*pi.checks(machine), *hailo.checks(machine)]}
    for name, (state, part) in case["expect"].items():
        assert found[name].state == state, found[name]
        assert part in f"{found[name].text}; {found[name].mend}"
    for check in found.values():
        assert bool(check.mend) == (check.state != OK), check
    if path.stem == "pi5_hailo10h":
        assert all(check.state != BROKEN for check in found.values())


def test_a_compiled_model_is_seen_by_the_chip_it_was_compiled_for(own_models):
    folder = write_model(own_models / "small")
    manifest = read_manifest(folder / "manifest.json")
    made = manifest.artifacts["int8"]
    hef = folder / "small.hef"
    hef.write_bytes(b"\x01HEF not really")
    entry = Artifact(hef, sha256(hef), hef.stat().st_size, made.input, made.outputs)
    write_manifest(type(manifest)(**{**_fields(manifest), "artifacts": {"int8": made, "hailo8": entry}}))
    assert hailo.compiled("HAILO8").state == OK
    assert "small (hailo8)" in hailo.compiled("HAILO8").text
    assert hailo.compiled("HAILO8L").state == WARNING


def test_the_model_of_the_settings_is_looked_at_for_a_hef_too(tmp_path, monkeypatch):
    folder = write_model(tmp_path / "mine")
    assert f"calmcam compile {folder} --arch hailo8 " in hailo.compiled("HAILO8", model=str(folder)).mend
    manifest = read_manifest(folder / "manifest.json")
    entry = replace(manifest.artifacts["int8"], compiler={"compiler": "3.33.1"})
    write_manifest(replace(manifest, artifacts={**manifest.artifacts, "hailo8": entry}))
    check = hailo.compiled("HAILO8", "4.23.0", str(folder))
    assert (check.state, check.text) == (OK, f"{folder} (hailo8)")
    assert "compiled for HailoRT 4.23, 4.20.0 is" in hailo.compiled("HAILO8", "4.20.0", str(folder)).text
    assert hailo.compiled("HAILO8", model="no such model").state == WARNING
    (tmp_path / "c.toml").write_text(f'model = "{folder}"')
    for part in (host, pi, service):
        monkeypatch.setattr(part, "checks", lambda machine: [])
    case = json.loads((CASES[0].parent / "pi5_hailo8l.json").read_text())
    machine = written_down(tmp_path / "root", case["files"], case["answers"])
    found = {check.name: check.mend for check in doctor.examine(machine, tmp_path / "c.toml")}
    assert f"calmcam compile {folder} --arch hailo8l" in found["compiled models"]


def test_a_package_without_metadata_can_be_imported_all_the_same(tmp_path, monkeypatch):
    for name in ("hailo_platform", "hailo_world.py", "hailo_engine.py"):
        (tmp_path / name).symlink_to(Path(__file__).parent / "doubles" / name)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr("edge_app.hailo_checks.HAS_NUMPY_1", False)
    version, check = hailo.package(Machine())
    assert (version, check.state) == ("4.23.0", OK) and check.text.startswith("4.23.0 with NumPy ")


@pytest.mark.parametrize(
    ("compiler", "runtime", "library", "told"),
    [
        ("3.33.1", "unknown", "4.23.0", ""),
        ("3.33.1", "unknown", "4.20.1", "small/hailo8 was compiled for HailoRT 4.23, 4.20.1 is installed"),
        ("3.30.0", "4.23.0", "4.23.0", "small/hailo8 was compiled for HailoRT 4.20, 4.23.0 is installed"),
        ("unknown", "4.21.0", "4.20.0", "small/hailo8 was compiled for HailoRT 4.21, 4.20.0 is installed"),
        ("unknown", "unknown", "4.20.0", ""),
        ("3.33.1", "unknown", "", ""),
        (None, None, "4.20.0", ""),
    ],
)
def test_a_hef_for_another_hailort_is_told(own_models, compiler, runtime, library, told):
    folder = write_model(own_models / "small")
    manifest = read_manifest(folder / "manifest.json")
    hef = folder / "small.hef"
    hef.write_bytes(b"\x01HEF not really")
    made = manifest.artifacts["int8"]
    versions = {"compiler": compiler, "runtime": runtime} if compiler else {}
    entry = Artifact(hef, sha256(hef), hef.stat().st_size, made.input, made.outputs, compiler=versions)
    write_manifest(replace(manifest, artifacts={**manifest.artifacts, "hailo8": entry}))
    check = hailo.compiled("HAILO8", library)
    assert (check.state, check.text) == ((WARNING, told) if told else (OK, "small (hailo8)"))
    if told:
        fitting = {"4.20": "3.30", "4.23": "3.33"}[library[:4]]
        assert f"compile it again with the Dataflow Compiler {fitting}" in check.mend
        assert ("sudo apt full-upgrade" in check.mend) == (library < "4.23"), "a later HailoRT may take it"


def _fields(manifest: object) -> dict:
    return {name: getattr(manifest, name) for name in manifest.__slots__}


# the host


@pytest.mark.parametrize(
    ("version", "machine", "state"),
    [((3, 11, 7), "x86_64", OK), ((3, 13, 0), "aarch64", OK), ((3, 10, 1), "x86_64", BROKEN),
     ((3, 14, 0), "x86_64", WARNING), ((3, 11, 2), "armv7l", BROKEN)],
)  # fmt: skip
def test_python(version, machine, state):
    assert host.python(version, machine).state == state


def test_wheels_name_what_is_missing_and_take_either_engine():
    assert host.wheels(DISTS).state == OK
    old = {**DISTS, "tflite-runtime": "2.14"}
    del old["ai-edge-litert"]
    assert host.wheels(old).state == OK
    del old["tflite-runtime"], old["av"]
    assert host.wheels(old).mend == "python -m pip install av ai-edge-litert"


def test_a_second_opencv_is_broken():
    assert host.opencv(DISTS).state == OK
    check = host.opencv({**DISTS, "opencv-python-headless": "4.11"})
    assert check.state == BROKEN and "pip uninstall -y opencv-contrib-python opencv-python-headless" in check.mend


def test_missing_system_libraries_are_named_with_their_packages(tmp_path):
    files = {"/usr/lib/aarch64-linux-gnu/libxcb.so.1": "", "/usr/lib/aarch64-linux-gnu/libGL.so.1": "",
             "/lib64/libglib-2.0.so.0": "", "/usr/lib/libEGL.so.1": ""}  # fmt: skip
    check = host.libraries(written_down(tmp_path, files, {}))
    assert (check.state, check.mend) == (BROKEN, "sudo apt-get install -y libgles2")
    (tmp_path / "lib64" / "libGLESv2.so.2").touch()
    assert host.libraries(Machine(tmp_path)).state == OK


@pytest.mark.parametrize(
    ("answer", "names", "part"),
    [
        ({"out": "[]\n"}, {"imports": OK, "codecs": OK}, "libx264"),
        ({"out": 'noise\n["libx264"]\n'}, {"imports": OK, "codecs": BROKEN}, "PyAV lacks libx264"),
        (
            {"status": 1, "err": "x\nImportError: libGL.so.1: cannot open shared object file\n"},
            {"imports": BROKEN},
            "libgl1",
        ),
        ({"status": -11}, {"imports": BROKEN}, "status -11"),
    ],
)
def test_imports_are_tried_elsewhere(tmp_path, answer, names, part):
    found = host.imports(written_down(tmp_path, {}, {"python": answer}))
    assert {check.name: check.state for check in found} == names
    assert any(part in f"{check.text} {check.mend}" for check in found)


def test_cameras(tmp_path):
    assert host.cameras(Machine(tmp_path)).state == WARNING
    files = {"/sys/class/video4linux/video0/name": "HD Webcam\n"}  # its node is gone
    check = host.cameras(written_down(tmp_path, files, {}))
    assert check.state == OK and "/dev/video0 HD Webcam (cannot be asked" in check.text


def test_a_camera_on_the_ribbon_is_told_with_what_it_needs(tmp_path, monkeypatch):
    machine = written_down(tmp_path, {"/sys/class/video4linux/video0/name": "rp1-cfe-csi2_ch0\n"}, {})
    monkeypatch.setattr(host, "describe", lambda path: None)
    check = host.cameras(machine)
    assert (check.state, check.text) == (OK, "one on the ribbon connector, --source picamera")
    monkeypatch.setattr(pi.importlib.util, "find_spec", lambda name: None)
    assert pi.picamera(machine).mend == "sudo apt install python3-picamera2"


def test_display():
    assert host.display({"DISPLAY": ":1"}) == Check("display", OK, "DISPLAY=:1")
    assert host.display({}).state == WARNING
    assert host.display({"WAYLAND_DISPLAY": "wayland-0"}).state == WARNING, "OpenCV's windows need XWayland"


@pytest.mark.parametrize(("kilobytes", "state"), [(4_000_000, OK), (200_000, WARNING)])
def test_memory(tmp_path, kilobytes, state):
    text = f"MemTotal: 8000000 kB\nMemAvailable:    {kilobytes} kB\n"
    assert host.memory(written_down(tmp_path, {"/proc/meminfo": text}, {})).state == state


def test_a_changed_model_file_is_broken_and_the_others_go_on(own_models):
    write_model(own_models / "good")
    bad = write_model(own_models / "bad") / "small_int8.tflite"
    content = bytearray(bad.read_bytes())
    content[-1] ^= 1
    bad.write_bytes(content)
    states = {check.name: check for check in host.models()}
    assert states["model good"].state == OK and states["model face_detection"].state == OK
    assert states["model bad"].state == BROKEN and "expected sha256" in states["model bad"].text


@pytest.mark.parametrize(
    ("answer", "state", "part"),
    [
        ({"out": '[["emotions", true, "agree"]]'}, OK, "emotions"),
        ({"out": '[["emotions", false, "differ by 0.90"]]'}, BROKEN, "emotions: int8 and float32 differ by 0.90"),
        ({"status": -4}, BROKEN, "status -4"),
    ],
)
def test_wrong_answers_are_told(tmp_path, answer, state, part):
    (found,) = host.answers(written_down(tmp_path, {}, {"python": answer}))
    assert found.state == state and part in found.text and bool(found.mend) == (state != OK)


@pytest.mark.parametrize(
    ("shown", "journal", "state", "said"),
    [
        ("LoadState=not-found\nActiveState=inactive\nSubState=dead\nNRestarts=0\n", "", None, ""),
        ("LoadState=loaded\nActiveState=active\nSubState=running\nNRestarts=3\n", "", OK, "runs"),
        ("LoadState=loaded\nActiveState=activating\nSubState=start\nNRestarts=0\n", "", OK, "starts"),
        ("LoadState=loaded\nActiveState=inactive\nSubState=dead\nNRestarts=0\n", "", OK, "stopped"),
        (
            "LoadState=loaded\nActiveState=activating\nSubState=auto-restart\nNRestarts=0\n",
            "Error: /dev/video0: there is no such camera\n",
            BROKEN,
            "does not run: Error: /dev/video0: there is no such camera; correct /etc/calmcam.toml",
        ),
        ("LoadState=loaded\nActiveState=activating\nSubState=start\nNRestarts=2\n", "x\n", BROKEN, "does not run: x; "),
        (
            "LoadState=loaded\nActiveState=failed\nSubState=failed\nNRestarts=0\n",
            "",  # the journal is not for everybody
            BROKEN,
            "does not run; sudo journalctl -u calmcam says why",
        ),
    ],
)
def test_the_service(tmp_path, shown, journal, state, said):
    journalctl = "journalctl --quiet --output=cat --lines=1 _SYSTEMD_UNIT=calmcam.service"
    answers = {"systemctl show calmcam.service": {"out": shown}, journalctl: {"out": journal}}
    found = service.checks(written_down(tmp_path, {}, answers))
    assert [check.state for check in found] == [state] * bool(state)
    assert all(f"{check.text}; {check.mend}".startswith(said) for check in found)
    assert service.checks(written_down(tmp_path, {}, {})) == [], "without systemd nothing is said"


# processes and the command


def test_the_doctor_needs_none_of_what_it_judges():
    heavy = "cv2 mediapipe av ai_edge_litert".split()
    script = f"import sys, edge_app.commands.doctor; print([name for name in {heavy} if name in sys.modules])"
    assert child.ask([sys.executable, "-c", script]).out.strip() == "[]"


def test_children_import_nothing_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("import pathlib; pathlib.Path('ran').touch()")
    monkeypatch.chdir(tmp_path)
    host.imports(Machine())
    assert not (tmp_path / "ran").exists()


def test_a_hanging_child_is_left_behind(monkeypatch):
    monkeypatch.setattr(child, "PATIENCE", 0.3)
    answer = child.ask([sys.executable, "-c", "import threading; threading.Event().wait()"])
    assert answer.status == child.STATUS_HANGS and "no answer" in answer.err


def test_ask_gives_status_and_text():
    answer = child.ask(
        [sys.executable, "-c", "import os, sys; print(os.environ['A']); sys.exit('bad\\nworse')"], {"A": "b"}
    )
    assert (answer.status, answer.out, answer.last_line) == (1, "b\n", "worse")
    assert child.ask(["no-such-program-here"]).status == child.STATUS_ABSENT


@pytest.mark.parametrize(("state", "code"), [(WARNING, 0), (BROKEN, 1)])
def test_exit_code_and_one_line_each(monkeypatch, state, code):
    found = [Check("python", OK, "3.11"), Check("cameras", state, "none", "plug one in")]
    monkeypatch.setattr(doctor, "examine", lambda machine, config: found)
    result = CliRunner().invoke(cli, ["doctor"])
    assert result.exit_code == code
    assert result.output.splitlines()[1] == f"{state:<8} cameras  none; mend: plug one in"
    assert len(result.output.splitlines()) == 3


def test_this_computer_in_json():
    result = CliRunner().invoke(cli, ["doctor", "--json"])
    report = json.loads(result.stdout)
    states = {check["name"]: check["state"] for check in report["checks"]}
    assert {"python", "wheels", "opencv", "libraries", "imports", "codecs", "disk", "memory", "board"} <= set(states)
    assert states["imports"] == states["answers"] == OK and result.exit_code == (1 if report["broken"] else 0)


@pytest.mark.parametrize(
    ("content", "state", "part"),
    [
        ("conf = 0.5", OK, "c.toml"),
        ("cnf = 0.5", BROKEN, "did you mean 'conf'"),
        ("conf = ", BROKEN, "expected TOML"),
        ('model = "emotion"', BROKEN, "emotions"),
        ('source = "rtsp://me:${CAM_PASS}@door/live"', WARNING, "expected an environment variable CAM_PASS"),
    ],
)
def test_settings_are_tried(content: str, state: str, part: str, tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(content)
    check = doctor.settings(path)
    assert check.state == state and part in check.text and bool(check.mend) == (state != OK)


def test_settings_of_the_service_are_for_root_to_read(tmp_path: Path) -> None:
    (tmp_path / "calmcam.toml").touch(mode=0)
    asked = "doctor.settings(Path('calmcam.toml')).mend"
    assert (
        told(tmp_path, "from pathlib import Path; from edge_app.commands import doctor", asked)
        == "ask again with sudo\n"
    )


@pytest.mark.parametrize(("made", "line"), [(True, "make demo"), (False, "deploy/install.sh")])
def test_calmcam_is_installed_again_where_it_is(tmp_path: Path, made: bool, line: str) -> None:
    if made:
        (tmp_path / "Makefile").touch()
    code = f"import sys; sys.prefix = '{tmp_path}/.venv'; from edge_app.health import host; print(host.REINSTALL)"
    assert child.ask([sys.executable, "-c", code]).out.endswith(f"from its checkout: {line}\n")


def test_settings_need_not_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert doctor.settings(None) == Check("settings", OK, f"the defaults; {tmp_path}/calmcam/config.toml is not there")

"""The compiler step, on a double of the compiler (tests/doubles/hailo_sdk_client)."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
from click.testing import CliRunner
from compiling import CASES, CROPS, DOUBLES, GRAPH
from patience import PATIENCE
from small_model import write_model

from deploy import dfc_script
from deploy.bundle import model_script, read_bundle, write_bundle
from deploy.cli import _chip_here, compile_command
from deploy.compile import import_bundle
from edge_app.errors import BackendUnavailable, MissingPackage, ModelError, OutputError, SettingsError
from edge_app.manifest import read_manifest, sha256, verify


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "small")


@pytest.fixture
def calibration(tmp_path):
    path = tmp_path / "calibration.npz"
    np.savez(path, crops=CROPS)
    return path


def calmcam_compile(*arguments, cwd=None, **env):
    """The command in a process of its own, with the compiler's double on its path."""
    code = "from deploy.cli import compile_command; from edge_app.cli import cli; cli(prog_name='calmcam')"
    path = os.pathsep.join([str(DOUBLES), str(DOUBLES.parent.parent)])
    command = [sys.executable, "-c", code, "compile", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env={**os.environ, "PYTHONPATH": path, **env}
    )


def test_the_model_script_undoes_the_rescaling():
    lines = model_script(GRAPH, 1024, 1).splitlines()
    assert lines[0] == "normalization1 = normalization([127.5, 127.5, 127.5], [127.5, 127.5, 127.5])"
    assert "calibset_size=1024" in lines[1]
    assert "compression_level=0" in lines[2]


def test_probabilities_decide_at_a_half(model, tmp_path):
    bundle = read_bundle(write_bundle(read_manifest(model / "manifest.json"), "hailo8", CROPS, tmp_path / "bundle"))
    assert bundle["emits"] == "logits"
    likely = np.linspace(0.01, 0.99, 64, dtype=np.float32)[:, None]
    bundle["emits"] = "probabilities"
    with pytest.raises(dfc_script.Refused, match="tease: the emulated network agrees on 0.0% of 64 crops"):
        dfc_script.gate(bundle, "agreement", [1 - likely], {"tease": 0}, {"tease": likely})
    assert dfc_script.gate(bundle, "agreement", [likely**1.01], {"tease": 0}, {"tease": likely})


def test_a_bundle_is_whole_and_checks_itself(model, tmp_path):
    folder = write_bundle(read_manifest(model / "manifest.json"), "hailo8", CROPS, tmp_path / "bundle")
    calibrating, judging = np.load(folder / "calibration.npy"), np.load(folder / "expected.npz")["crops"]
    assert (len(calibrating), len(judging)) == (1024, 64)
    assert not {crop.tobytes() for crop in calibrating} & {crop.tobytes() for crop in judging}
    assert "calibset_size=1024" in (folder / "model.alls").read_text()
    names = {"README.md", "bundle.json", "calibration.npy", "compile.py", "expected.npz", "model.alls", "model.tflite"}
    assert {path.name for path in folder.iterdir()} == names
    done = subprocess.run([sys.executable, folder / "compile.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "mood: 64 crops give the expected outputs" in done.stdout
    (folder / "model.alls").write_text("tampered")
    done = subprocess.run([sys.executable, folder / "compile.py", "--check"], capture_output=True, text=True)
    assert (done.returncode, "model.alls: missing or changed" in done.stderr) == (1, True)


def test_only_a_bundle_is_replaced_and_only_when_asked(model, tmp_path):
    manifest, folder = read_manifest(model / "manifest.json"), tmp_path / "bundle"
    folder.mkdir()
    write_bundle(manifest, "hailo8", CROPS, folder)
    (folder / "result.json").write_text("{}")
    with pytest.raises(OutputError, match="is not empty; .* or replace it with --exist-ok"):
        write_bundle(manifest, "hailo8l", CROPS, folder)
    write_bundle(manifest, "hailo8l", CROPS, folder, exist_ok=True)
    assert read_bundle(folder)["arch"] == "hailo8l" and not (folder / "result.json").exists()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="expected a bundle to replace, got something else"):
        write_bundle(manifest, "hailo8", CROPS, tmp_path / "mine", exist_ok=True)
    with pytest.raises(OutputError, match="expected a folder, got a file"):
        write_bundle(manifest, "hailo8", CROPS, tmp_path / "mine" / "letter.txt", exist_ok=True)
    assert {path.name for path in tmp_path.iterdir()} == {"bundle", "mine", "small"}


def test_compile_registers_a_hef_with_its_outputs_by_name(model, calibration, tmp_path):
    record = tmp_path / "calls"
    env = {"DFC_RECORD": str(record), "DFC_DRIFT": "0.003"}  # as on a GPU that calculates in TF32 all the same
    done = calmcam_compile(model, "--calibration", calibration, "-o", tmp_path / "b", **env)
    assert done.returncode == 0, done.stderr + done.stdout
    assert done.stdout.count("files are whole") == 1
    manifest = read_manifest(model / "manifest.json")
    artifact = manifest.artifact("hailo8")
    verify(artifact)
    # the double gives its outputs as tease, mood: only their values tell which is which
    assert artifact.outputs == {"tease": "small/fc1", "mood": "small/fc2"}
    assert artifact.input.dtype == "uint8"
    assert artifact.compiler["gates"]["quantized"]["mood"]["agreement"] == 1
    calls = record.read_text().splitlines()
    assert calls[0] == "ClientRunner hailo8 NVIDIA_TF32_OVERRIDE=0"
    steps = ["translate_tf_model model.tflite", "save_har 1_parsed.har", "infer native", "load_model_script"]
    steps += ["optimize_full_precision", "infer fp_optimized", "save_har 2_optimised.har", "optimize (1024, 32, 32, 3)"]
    assert calls[1:] == [*steps, "save_har 3_quantised.har", "infer quantized", "compile", "save_har 4_compiled.har"]


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"DFC_FAIL": "translate_tf_model"}, "parse failed: RuntimeError: double: translate_tf_model"),
        ({"DFC_FAIL": "translate_tf_model"}, "SAME_TENSORFLOW Please use these end node names: stack_0/add"),
        ({"DFC_DRIFT": "2"}, "no output agrees with head mood (nearest differs by 2); wrong normalization?"),
        ({"DFC_FAIL": "optimize_full_precision"}, "optimise in full precision failed"),
        ({"DFC_FAIL": "optimize"}, "quantise failed"),
        ({"DFC_FAIL": "compile"}, "compile failed"),
        ({"DFC_KILL": "optimize"}, "ended with code -9"),
        ({"DFC_SAY": "Reducing optimization level to 0 (no GPU)"}, "downgraded silently"),
        ({"DFC_SAY": "Assigning 4bit weights to layer conv4"}, "downgraded silently"),
        ({"DFC_SAY": "[info] Assigning 4bit weight to layer small/conv4 with 9.2k parameters"}, "downgraded silently"),
        ({"DFC_COLLAPSE": "1"}, "agrees on"),
    ],
    ids=lambda value: "-".join(value.values())[:20] if isinstance(value, dict) else "",
)
def test_a_failed_build_registers_nothing(model, calibration, tmp_path, env, says):
    before = (model / "manifest.json").read_bytes()
    done = calmcam_compile(model, "--calibration", calibration, "-o", tmp_path / "b", **env)
    assert done.returncode == 1
    assert says in done.stderr and says not in done.stdout.replace(" ...", "") and "stopped:" not in done.stdout
    assert "Traceback" not in done.stderr
    assert ("har" in done.stderr) == any((tmp_path / "b").glob("*.har")) and "log.txt" in done.stderr
    assert ("Traceback (most recent call last)" in (tmp_path / "b" / "log.txt").read_text()) == ("DFC_FAIL" in env)
    assert (model / "manifest.json").read_bytes() == before
    assert not list(model.glob("*.hef*"))


def test_a_failed_compile_is_in_nobodys_way(model, calibration, tmp_path):
    """Each try has a folder of its own, or says that it may replace the one before."""
    words, there = (model, "--calibration", calibration), tmp_path / "runs" / "compile"
    for number in ("", "-2"):
        done = calmcam_compile(*words, cwd=tmp_path, DFC_FAIL="compile")
        assert done.returncode == 1 and f"small_hailo8{number}: compile failed" in done.stderr, done.stderr
    assert calmcam_compile(*words, "-o", there / "small_hailo8").returncode == 2
    assert read_manifest(model / "manifest.json").artifacts.keys() == {"int8", "float32"}
    done = calmcam_compile(*words, "-o", there / "small_hailo8", "--exist-ok")
    assert done.returncode == 0, done.stderr
    verify(read_manifest(model / "manifest.json").artifact("hailo8"))


@pytest.mark.parametrize(
    ("words", "send", "number"),
    [
        ("-m edge_app compile small --calibration calibration.npz -o b", os.kill, signal.SIGTERM),
        ("-m edge_app compile small --calibration calibration.npz -o b", os.killpg, signal.SIGINT),
        ("kit/compile.py", os.killpg, signal.SIGINT),
    ],
    ids=["terminated", "ctrl-c", "ctrl-c where the compiler is"],
)
def test_a_signal_stops_the_compiler_too(model, calibration, tmp_path, words, send, number):
    """The compiler here is one that never ends; Ctrl-C reaches every process of the terminal."""
    write_bundle(read_manifest(model / "manifest.json"), "hailo8", CROPS, tmp_path / "kit")
    (tmp_path / "dfc").mkdir()
    (tmp_path / "dfc" / "hailo_sdk_client.py").write_text(
        f"import os, threading\nfrom pathlib import Path\npart = Path({str(tmp_path / 'part')!r})\n"
        f"part.write_text(str(os.getpid()))\npart.rename({str(tmp_path / 'pid')!r})\nthreading.Event().wait()\n"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "dfc"), str(DOUBLES.parent.parent)])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, *words.split()]
    with subprocess.Popen(command, cwd=tmp_path, env=env, start_new_session=True, **pipes) as process:
        while process.poll() is None and not (tmp_path / "pid").exists():
            threading.Event().wait(0.01)
        send(process.pid, number)
        out, said = process.communicate(timeout=60 * PATIENCE)
    assert (process.returncode, said) == (128 + number, "stopped\n")
    assert "Traceback" not in out
    compiler = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        for _ in range(int(1000 * PATIENCE)):  # once its parents are gone, whoever inherits it sees to it
            os.kill(compiler, 0)
            threading.Event().wait(0.01)
    assert "hailo8" not in read_manifest(model / "manifest.json").artifacts


def test_a_model_that_reads_no_expressions_is_told_apart():
    done = calmcam_compile("face_detection", "--preflight")
    assert done.returncode == 2
    assert "face_detection: expected a model for face_expression, got one for face_detection" in done.stderr


def test_noise_is_warned_of_and_not_refused(model, calibration):
    done = calmcam_compile(model, "--calibration", calibration, "--preflight")
    assert done.returncode == 0 and "training" not in done.stdout
    assert re.search("^warning +calibration +a face is found in [0-9] of 32 ", done.stdout, re.MULTILINE)
    assert done.stdout.endswith(" 1 warning, 0 refused\n")


def test_what_is_refused_is_counted(model, tmp_path):
    np.savez(tmp_path / "few.npz", crops=CROPS[:64])
    done = calmcam_compile(model, "--calibration", tmp_path / "few.npz", "--preflight")
    assert done.returncode == 2 and "the preflight refuses 1 point, see above" in done.stderr


def test_a_downgrade_can_be_allowed_and_is_written_down(model, calibration, tmp_path):
    env = {"DFC_SAY": "Reducing optimization level to 0 (no GPU)"}
    done = calmcam_compile(model, "--calibration", calibration, "-o", tmp_path / "b", "--allow-downgrade", **env)
    assert done.returncode == 0, done.stderr
    assert read_manifest(model / "manifest.json").artifact("hailo8").compiler["downgrades"] == [env["DFC_SAY"]]


def test_without_the_compiler_the_sentence_says_what_to_do_with_the_bundle(model, calibration, tmp_path):
    folder = tmp_path / "b"
    done = CliRunner().invoke(compile_command, [str(model), "--calibration", str(calibration), "-o", str(folder)])
    assert isinstance(done.exception, MissingPackage) and done.exception.exit_code == 1
    assert str(done.exception).startswith("the Dataflow Compiler is not here")
    assert str(done.exception).endswith(f"calmcam compile {model} --import {folder}")
    done = subprocess.run([sys.executable, folder / "compile.py"], capture_output=True, text=True)
    assert done.returncode == 1 and "the Dataflow Compiler is not here" in done.stdout


def test_a_model_without_the_file_that_is_compiled_is_told_how_to_get_it(tmp_path):
    model = write_model(tmp_path / "small")
    manifest = json.loads((model / "manifest.json").read_text())
    del manifest["artifacts"]["float32"]
    (model / "manifest.json").write_text(json.dumps(manifest))
    done = CliRunner().invoke(compile_command, [str(model), "--preflight"])
    assert str(done.exception).startswith("small: has no float32 file")
    assert str(done.exception).endswith("calmcam export RUN --variants float32,int8")


@pytest.mark.parametrize("arch", ["hailo8", "hailo8l"])
def test_a_carried_bundle_comes_back(model, calibration, tmp_path, arch):
    folder = tmp_path / "bundle"
    prepared = calmcam_compile(model, "--calibration", calibration, "-o", folder, "--prepare", "--arch", arch)
    assert prepared.returncode == 0, prepared.stderr
    early = CliRunner().invoke(compile_command, [str(model), "--import", str(folder)])
    assert "not compiled yet" in str(early.exception)
    env = {**os.environ, "PYTHONPATH": str(DOUBLES)}
    subprocess.run([sys.executable, folder / "compile.py"], env=env, check=True, capture_output=True)
    done = CliRunner().invoke(compile_command, [str(model), "--import", str(folder)])
    assert done.exit_code == 0, done.output
    assert done.output.endswith(f"/{arch}\n")
    verify(read_manifest(model / "manifest.json").artifact(arch))
    result, before = json.loads((folder / "result.json").read_text()), (model / "manifest.json").read_bytes()
    for wrong in ([], {}, result | {"outputs": {"x": "y"}}, result | {"arch": "hailo10"}, result | {"bytes": "12"}):
        (folder / "result.json").write_text(json.dumps(wrong))
        refused = CliRunner().invoke(compile_command, [str(model), "--import", str(folder)])
        assert isinstance(refused.exception, ModelError) and "result.json: expected" in str(refused.exception)
        assert (model / "manifest.json").read_bytes() == before
    (folder / "result.json").write_text(json.dumps(result))
    hef = folder / json.loads((folder / "result.json").read_text())["hef"]
    hef.write_bytes(hef.read_bytes()[:-1])
    broken = CliRunner().invoke(compile_command, [str(model), "--import", str(folder)])
    assert "copy the bundle again" in str(broken.exception)
    verify(read_manifest(model / "manifest.json").artifact(arch))


def test_what_was_registered_holds_when_the_manifest_cannot_be_written(model, calibration, tmp_path):
    folder = tmp_path / "bundle"
    assert calmcam_compile(model, "--calibration", calibration, "-o", folder).returncode == 0
    result = json.loads((folder / "result.json").read_text())
    hef = folder / result["hef"]
    hef.write_bytes(hef.read_bytes() + b"a later one")
    result |= {"bytes": hef.stat().st_size, "sha256": sha256(hef)}
    (folder / "result.json").write_text(json.dumps(result))
    in_the_way = model / "manifest.part.json"
    in_the_way.mkdir()
    before = {path.name for path in model.iterdir()}
    with pytest.raises(OutputError, match="manifest.json: cannot be written"):
        import_bundle(folder, read_manifest(model / "manifest.json"))
    verify(read_manifest(model / "manifest.json").artifact("hailo8"))
    assert {path.name for path in model.iterdir()} == before
    other = write_model(tmp_path / "other")
    (other / in_the_way.name).mkdir()
    with pytest.raises(OutputError):
        import_bundle(folder, read_manifest(other / "manifest.json"))
    assert not list(other.glob("*.hef")), "nothing was registered, nothing is left"
    in_the_way.rmdir()
    assert import_bundle(folder, read_manifest(model / "manifest.json")).artifact("hailo8").sha256 == sha256(hef)
    verify(read_manifest(model / "manifest.json").artifact("hailo8"))
    assert {path.name for path in model.iterdir()} == before - {in_the_way.name}


def test_a_bundle_that_cannot_be_written(model, calibration):
    done = CliRunner().invoke(compile_command, [str(model), "--calibration", str(calibration), "-o", "/proc/kit"])
    assert "/proc/kit: cannot be written" in str(done.exception)


@pytest.mark.parametrize("content", [None, "", "[]", '{"bundle": 2}'])
def test_what_is_no_bundle_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "bundle.json").write_text(content)
    with pytest.raises(ModelError, match="bundle"):
        read_bundle(tmp_path)


def test_a_hef_is_for_the_chip_that_is_here(monkeypatch):
    assert _chip_here() == "hailo8", "none is here"
    monkeypatch.setattr("deploy.cli.present", lambda: True)
    for said, meant in (("HAILO8", "hailo8"), ("HAILO8L", "hailo8l")):
        monkeypatch.setattr("deploy.cli.identify", lambda said=said: said)
        assert _chip_here() == meant

    def busy():
        raise BackendUnavailable("it is in use")

    monkeypatch.setattr("deploy.cli.identify", busy)
    with pytest.raises(SettingsError, match="it is in use.; say --arch hailo8 or hailo8l"):
        _chip_here()


def test_what_a_bundle_carries_is_read_by_every_python_that_a_compiler_wants():
    ast.parse((CASES.parents[1] / "deploy" / "dfc_script.py").read_text(), feature_version=(3, 8))

"""The compiler step, on a double of the compiler (tests/doubles/hailo_sdk_client)."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from patience import PATIENCE
from small_model import write_model

from deploy import graph as graph_module
from deploy.bundle import model_script, read_bundle, write_bundle
from deploy.cli import _chip_here, compile_command
from deploy.compile import import_bundle
from deploy.crops import divide, read_calibration
from deploy.faces import face_finder
from deploy.graph import Layer, read_graph, without_rescaling
from deploy.parity import Pair, check, compare, folder_pairs
from deploy.preflight import OK, REFUSED, WARNING, check_calibration, preflight
from edge_app.errors import BackendUnavailable, CalmcamError, InputError, ModelError, OutputError, SettingsError
from edge_app.manifest import find_model, read_manifest, sha256, verify
from edge_app.preprocess import fit
from edge_app.settings import Settings

CASES = Path(__file__).parent / "cases"
DOUBLES = Path(__file__).parent / "doubles"
GRAPH = read_graph(CASES / "two_heads_float32.tflite")
CROPS = np.random.default_rng(1).integers(0, 256, (1088, 32, 32, 3), np.uint8)


@pytest.fixture
def model(tmp_path):
    return write_model(tmp_path / "small")


@pytest.fixture
def calibration(tmp_path):
    path = tmp_path / "calibration.npz"
    np.savez(path, crops=CROPS)
    return path


def worst(verdicts) -> str:
    return max((verdict.state for verdict in verdicts), key=(OK, WARNING, REFUSED).index, default=OK)


def calmcam_compile(*arguments, cwd=None, **env):
    """The command in a process of its own, with the compiler's double on its path."""
    code = "from deploy.cli import compile_command; from edge_app.cli import cli; cli(prog_name='calmcam')"
    path = os.pathsep.join([str(DOUBLES), str(DOUBLES.parent.parent)])
    command = [sys.executable, "-c", code, "compile", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env={**os.environ, "PYTHONPATH": path, **env}
    )


def test_the_graph_knows_its_layers_and_its_rescaling():
    assert [layer.operator for layer in GRAPH.body()][:2] == ["CONV_2D", "CONV_2D"]
    assert GRAPH.layers[GRAPH.outputs["mood"]].output == (1, 3)
    assert GRAPH.scale == pytest.approx([1 / 127.5] * 3)
    assert GRAPH.offset == pytest.approx([-1] * 3)
    assert GRAPH.macs == 16 * 16 * 8 * 27 + 8 * 8 * 16 * 72 + 64 * 4


def test_without_rescaling_starts_with_the_first_convolution(tmp_path):
    path = tmp_path / "cut.tflite"
    path.write_bytes(without_rescaling(GRAPH.path))
    cut = read_graph(path)
    assert (cut.rescaling, len(cut.layers)) == (0, len(GRAPH.layers) - 2)
    with pytest.raises(ModelError, match="nothing to cut"):
        without_rescaling(path)


@pytest.mark.parametrize("content", [b"", b"text", b"\0\0\0\0TFL3" + b"\xff" * 64])
def test_what_is_no_tflite_is_refused(tmp_path, content):
    path = tmp_path / "model.tflite"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="flatbuffer"):
        read_graph(path)


def test_a_plain_network_passes_the_preflight():
    verdicts = preflight(GRAPH, "hailo8", CROPS)
    assert worst(verdicts) == "ok"
    assert all(verdict.source for verdict in verdicts)


def test_an_int8_file_is_refused_by_the_preflight():
    verdicts = preflight(read_graph(CASES / "two_heads.tflite"), "hailo8", CROPS)
    assert any(verdict.state == "refused" and "float32" in verdict.text for verdict in verdicts)


@pytest.mark.parametrize(
    ("crops", "state", "says"),
    [
        (None, "warning", "no crops"),
        (CROPS[:64], "refused", "64 crops, of which 8 judge the compiled network: 56 calibrate it, expected 1024"),
        (CROPS[:1087], "refused", "1087 crops, of which 64 judge the compiled network: 1023 calibrate it"),
        (CROPS[..., :1], "refused", "expected crops (N, 32, 32, 3)"),
        (CROPS.astype(np.float32), "refused", "uint8"),
        (np.zeros_like(CROPS), "refused", "span 0 of 255"),
        (np.repeat(CROPS[:8], 160, axis=0), "warning", "8 of 1280"),
        (np.repeat(CROPS[:160], 8, axis=0), "warning", "only 20 pictures judge the compiled network, expected 64"),
    ],
    ids=["none", "few", "one too few", "shape", "dtype", "range", "repeats", "few to judge"],
)
def test_calibration_crops_are_judged(crops, state, says):
    verdicts = check_calibration(GRAPH, crops)
    assert worst(verdicts) == state
    assert says in " ".join(verdict.text for verdict in verdicts)


def test_no_picture_calibrates_and_judges():
    """Not repeated or mirrored either: what `export` writes, a quarter more than it is asked for, always suffices."""
    for count in (5, 100, 160, 700, 1280):
        pool = np.concatenate([CROPS, CROPS[:, ::-1]])[:count]
        crops = np.concatenate([pool, pool[:, :, ::-1]])[np.arange(1280) % (2 * count)]
        calibrating, judging = divide(crops)
        assert len(calibrating) >= 1024 and len(judging) == min(64, max(1, count // 8))
        seen = {crop.tobytes() for crop in crops[calibrating]} | {crop[:, ::-1].tobytes() for crop in crops[calibrating]}
        assert not seen & {crop.tobytes() for crop in crops[judging]}
        assert not set(calibrating) & set(judging) and len({*calibrating}) == len(calibrating)
    assert [rows.size for rows in divide(CROPS[:0])] == [0, 0]


@pytest.mark.parametrize("colour", ["rgb", "gray"])
def test_crops_without_faces_are_warned_of(colour):
    image = cv2.cvtColor(cv2.imread(str(CASES / "astronaut.jpg")), cv2.COLOR_BGR2RGB)
    face = fit(image[40:200, 145:305], replace(find_model("emotions").artifact("float32").input, colour=colour))
    graph, noise = replace(GRAPH, input_shape=(1, *face.shape)), np.random.default_rng(2)
    faces = face + noise.integers(0, 4, (1088, *face.shape), np.uint8)
    with face_finder(Settings()) as has_face:
        assert not has_face(noise.integers(0, 256, face.shape, np.uint8)) and has_face(face)
        good = check_calibration(graph, faces, has_face)
        (told,) = check_calibration(graph, noise.integers(0, 256, faces.shape, np.uint8), has_face)
    assert [verdict.text for verdict in good] == ["1024 raw crops; 64 others judge the compiled network"]
    assert told.state == "warning" and re.match("a face is found in [0-9] of 32 crops looked at", told.text)
    assert "calibration.npz" in told.text


def test_noise_is_warned_of_and_not_refused(model, calibration):
    done = calmcam_compile(model, "--calibration", calibration, "--preflight")
    assert done.returncode == 0 and "training" not in done.stdout
    assert re.search("^warning +calibration +a face is found in [0-9] of 32 ", done.stdout, re.MULTILINE)
    assert done.stdout.endswith(" 1 warning, 0 refused\n")


def test_a_detector_that_does_not_open_refuses_nothing(monkeypatch, caplog):
    monkeypatch.setattr("deploy.faces.open_detector", lambda settings: find_model("no such model"))
    with face_finder(Settings()) as has_face:
        assert worst(check_calibration(GRAPH, CROPS, has_face)) == "ok"
    assert "whether the calibration crops are faces cannot be told: unknown model" in caplog.text


def test_the_model_script_undoes_the_rescaling():
    lines = model_script(GRAPH, 1024, 1).splitlines()
    assert lines[0] == "normalization1 = normalization([127.5, 127.5, 127.5], [127.5, 127.5, 127.5])"
    assert "calibset_size=1024" in lines[1]
    assert "compression_level=0" in lines[2]


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
    done = calmcam_compile(model, "--calibration", calibration, "-o", tmp_path / "b", DFC_RECORD=str(record))
    assert done.returncode == 0, done.stderr + done.stdout
    manifest = read_manifest(model / "manifest.json")
    artifact = manifest.artifact("hailo8")
    verify(artifact)
    # the double gives its outputs as tease, mood: only their values tell which is which
    assert artifact.outputs == {"tease": "small/fc1", "mood": "small/fc2"}
    assert artifact.input.dtype == "uint8"
    assert artifact.compiler["gates"]["quantized"]["mood"]["agreement"] == 1
    calls = record.read_text().splitlines()
    steps = ["translate_tf_model model.tflite", "save_har 1_parsed.har", "infer native", "load_model_script"]
    steps += ["optimize_full_precision", "infer fp_optimized", "save_har 2_optimised.har", "optimize (1024, 32, 32, 3)"]
    assert calls[1:] == [*steps, "save_har 3_quantised.har", "infer quantized", "compile", "save_har 4_compiled.har"]


@pytest.mark.parametrize(
    ("env", "says"),
    [
        ({"DFC_FAIL": "translate_tf_model"}, "parse failed: RuntimeError"),
        ({"DFC_FAIL": "optimize_full_precision"}, "optimise in full precision failed"),
        ({"DFC_FAIL": "optimize"}, "quantise failed"),
        ({"DFC_FAIL": "compile"}, "compile failed"),
        ({"DFC_KILL": "optimize"}, "ended with code -9"),
        ({"DFC_SAY": "Reducing optimization level to 0 (no GPU)"}, "downgraded silently"),
        ({"DFC_SAY": "Assigning 4bit weights to layer conv4"}, "downgraded silently"),
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


def test_a_signal_stops_the_compiler_too(model, calibration, tmp_path):
    """The compiler here is one that never ends."""
    (tmp_path / "dfc").mkdir()
    (tmp_path / "dfc" / "hailo_sdk_client.py").write_text(
        f"import os, threading\nfrom pathlib import Path\npart = Path({str(tmp_path / 'part')!r})\n"
        f"part.write_text(str(os.getpid()))\npart.rename({str(tmp_path / 'pid')!r})\nthreading.Event().wait()\n"
    )
    words = ["compile", str(model), "--calibration", str(calibration), "-o", str(tmp_path / "b")]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "dfc"), str(DOUBLES.parent.parent)])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-m", "edge_app", *words], env=env, **pipes) as process:
        while process.poll() is None and not (tmp_path / "pid").exists():
            threading.Event().wait(0.01)
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60 * PATIENCE)
    assert (process.returncode, said) == (143, "stopped\n")
    compiler = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(compiler, 0)
    assert "hailo8" not in read_manifest(model / "manifest.json").artifacts


def test_a_model_that_reads_no_expressions_is_told_apart():
    done = calmcam_compile("face_detection", "--preflight")
    assert done.returncode == 2
    assert "face_detection: expected a model for face_expression, got one for face_detection" in done.stderr


def test_what_is_refused_is_counted(model, tmp_path):
    np.savez(tmp_path / "few.npz", crops=CROPS[:64])
    done = calmcam_compile(model, "--calibration", tmp_path / "few.npz", "--preflight")
    assert done.returncode == 2 and "the preflight refuses 1 point, see above" in done.stderr


def test_a_downgrade_can_be_allowed_and_is_written_down(model, calibration, tmp_path):
    env = {"DFC_SAY": "Reducing optimization level to 0 (no GPU)"}
    done = calmcam_compile(model, "--calibration", calibration, "-o", tmp_path / "b", "--allow-downgrade", **env)
    assert done.returncode == 0, done.stderr
    assert read_manifest(model / "manifest.json").artifact("hailo8").compiler["downgrades"] == [env["DFC_SAY"]]


def test_without_the_compiler_the_sentence_names_it(model, calibration, tmp_path):
    command = ["compile", str(model), "--calibration", str(calibration), "-o", str(tmp_path / "b")]
    code = "from edge_app.cli import cli; cli(prog_name='calmcam')"
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    assert done.returncode == 1
    assert "the Dataflow Compiler is not here" in done.stderr


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


@pytest.mark.parametrize("content", [None, b"", b"text", b"PK\x03\x04broken"])
def test_what_is_no_calibration_file_is_refused(tmp_path, content):
    path = tmp_path / "c.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="expected an .npz"):
        read_calibration(path, find_model("emotions").artifact("float32").input)


def test_the_bundled_models_preflight_has_no_warning():
    manifest = find_model("emotions")
    shape = manifest.artifact("float32").input
    crops = np.random.default_rng(0).integers(0, 256, (1088, shape.height, shape.width, shape.channels), np.uint8)
    assert worst(preflight(read_graph(manifest.artifact("float32").path), "hailo8", crops)) == "ok"


def pairs(agree, n=20):
    right, wrong = np.float32([0.9, 0.1]), np.float32([0.1, 0.9])
    return [Pair(str(i), right, right if i < agree else wrong, 0) for i in range(n)]


def test_parity_counts_flips_and_finds_the_worst():
    found = compare(["happy", "sad"], pairs(agree=18))
    assert found.flips() == {"happy": 2, "sad": 0}
    assert found.summary()["accuracy_b"] == 0.9
    assert found.worst(1)[0] == ("18", pytest.approx(0.8))


def test_the_gate_fails_beyond_its_limits():
    check(compare(["happy", "sad"], pairs(agree=20)), 0.99, 0.0)
    with pytest.raises(CalmcamError, match="agree on 90.00%"):
        check(compare(["happy", "sad"], pairs(agree=18)), 0.95, 1.0)
    with pytest.raises(CalmcamError, match="10.00% less accurate"):
        check(compare(["happy", "sad"], pairs(agree=18)), 0.5, 0.05)
    with pytest.raises(CalmcamError, match="found none"):
        compare(["happy", "sad"], [])


def test_faces_that_were_cut_calibrate_too(tmp_path, caplog):
    spec = find_model("emotions").artifact("float32").input
    (tmp_path / "happy").mkdir()
    for name, size in (("a.png", 30), ("happy/b.png", 96)):
        cv2.imwrite(str(tmp_path / name), np.full((size, size, 3), size, np.uint8))
    (tmp_path / "happy" / "c.png").write_text("no picture")
    crops = read_calibration(tmp_path, spec)
    assert crops.shape == (2, spec.height, spec.width, spec.channels) and crops.dtype == np.uint8
    assert [crops[0].max(), crops[1].min()] == [30, 96] and "c.png" in caplog.text


def test_a_folder_without_faces_calibrates_nothing(tmp_path):
    with pytest.raises(InputError, match="cut faces"):
        read_calibration(tmp_path, find_model("emotions").artifact("float32").input)


def layer(index, operator, inputs=((1, 8, 8, 4),), output=(1, 8, 8, 4), feeds=None, activation="NONE", parameters=0):
    feeds = (index - 1,) if feeds is None else feeds
    return Layer(index, operator, activation, inputs, output, f"n{index}", parameters, 0, feeds)


def judged(*layers: Layer, **changes) -> dict[str, str]:
    """State of every verdict by what it is about."""
    outputs = {"mood": len(layers) - 1}
    made = replace(GRAPH, layers=layers, outputs=outputs, rescaling=0, **changes)
    return {verdict.what.strip(): verdict.state for verdict in preflight(made, "hailo8", CROPS)}


def test_what_the_preflight_refuses_and_warns_of():
    gap = layer(1, "MEAN", output=(1, 4))
    dense = layer(2, "FULLY_CONNECTED", ((1, 4),), (1, 3))
    good = judged(layer(0, "CONV_2D"), gap, dense)
    assert set(good.values()) == {"ok"}
    for strange, state in [
        (layer(0, "CONV_2D", activation="TANH"), "warning"),
        (layer(0, "TRANSPOSE_CONV"), "refused"),
        (layer(0, "SOFTMAX"), "refused"),
        (layer(0, "HARD_SWISH"), "warning"),
        (layer(0, "MEAN", output=(1, 8, 8, 1)), "refused"),
    ]:
        assert judged(strange, gap, dense)[f"0 {strange.operator}"] == state
    assert judged(layer(0, "CONV_2D"), gap, dense)["output mood"] == "ok"
    assert judged(layer(0, "CONV_2D"))["output mood"] == "refused"
    assert judged(layer(0, "CONV_2D"), gap, dense, layer(3, "SOFTMAX", ((1, 3),), (1, 3)))["3 SOFTMAX"] == "ok"
    assert judged(layer(0, "CONV_2D", parameters=26_000_000), gap, dense)["size on hailo8"] == "warning"


def test_a_batch_of_two_is_refused():
    made = replace(GRAPH, input_shape=(2, 32, 32, 3))
    assert worst([v for v in preflight(made, "hailo8", CROPS) if v.what == "input"]) == "refused"


def test_products_of_two_maps_are_told_apart():
    def says(feeds, sigmoid_of):
        layers = (
            layer(0, "CONV_2D"),
            layer(1, "CONV_2D"),
            layer(2, "LOGISTIC", feeds=(sigmoid_of,)),
            layer(3, "MUL", ((1, 8, 8, 4),) * 2, feeds=feeds),
        )
        made = replace(GRAPH, layers=layers, outputs={"mood": 3}, rescaling=0)
        (verdict,) = (v for v in preflight(made, "hailo8", CROPS) if v.what == "  3 MUL")
        assert verdict.state == "warning"
        return verdict.text.split(":")[0]

    assert says((1, 2), 1) == "swish as x * sigmoid(x)"
    assert says((1, 2), 0) == "squeeze-and-excite"
    assert says((0, 1), 1) == "a product of two maps"


@pytest.mark.parametrize(
    ("chain", "scale", "offset"),
    [
        ([("DIV", 127.5), ("SUB", 1.0)], 1 / 127.5, -1.0),
        ([("SUB", 127.5), ("DIV", 127.5)], 1 / 127.5, -1.0),
        ([("ADD", -128.0), ("MUL", 0.5)], 0.5, -64.0),
    ],
)
def test_every_kind_of_rescaling_is_understood(monkeypatch, chain, scale, offset):
    ops = [SimpleNamespace(inputs=[0, place], name=name) for place, (name, _) in enumerate(chain)]
    part = SimpleNamespace(operators=ops, inputs=[0], tensors=[SimpleNamespace(shape=[1, 8, 8, 1])])
    monkeypatch.setattr(graph_module, "_operator", lambda _, op: op.name)
    monkeypatch.setattr(graph_module, "_constant", lambda _, place: np.float32([chain[place][1]]))
    found = graph_module._rescaling(SimpleNamespace(subgraphs=[part]))
    assert found == ((pytest.approx(scale),), (pytest.approx(offset),), 2)


def test_a_depthwise_convolution_costs_its_window_for_every_value():
    assert graph_module._depthwise((1, 4, 4, 8), [(1, 3, 3, 8)]) == 4 * 4 * 8 * 9
    assert graph_module._conv((1, 4, 4, 8), [(8, 3, 3, 5)]) == 4 * 4 * 8 * 9 * 5


def test_a_picture_that_one_pass_could_not_read_is_left_out_of_both():
    def row(name, probs):
        why = "" if probs is not None else f"{name}: cut"
        return SimpleNamespace(sample=SimpleNamespace(name=name, truth=1), ready=probs, problem=why)

    sure = np.float32([0.1, 0.9])
    one = [row("a", sure), row("b", None), row("c", sure)]
    other = [row("a", sure), row("b", sure), row("c", None)]
    bad = []
    found = compare(["happy", "sad"], folder_pairs(one, other, bad), bad)
    assert (found.names, found.truth.tolist()) == (("a",), [1])
    assert found.unreadable == (("b", "b: cut"), ("c", "c: cut"))


def test_the_gate_lets_pass_what_is_just_good_enough_and_more_accurate():
    found = compare(["happy", "sad"], pairs(agree=18))
    check(found, found.agreement.agreement, 0.1 + 1e-9)
    better = compare(["happy", "sad"], [Pair(p.name, p.b, p.a, p.truth) for p in pairs(agree=18)])
    check(better, 0.9, 0.0)


def test_accuracy_is_told_only_where_every_face_has_a_label():
    some = [*pairs(agree=2, n=2), Pair("x", np.float32([1, 0]), np.float32([1, 0]), None)]
    assert "accuracy_a" not in compare(["happy", "sad"], some).summary()


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

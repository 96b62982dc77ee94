from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from patience import PATIENCE
from PIL import Image
from small_model import LABELS, write_model

from edge_app import plugins
from edge_app.cli import cli
from edge_app.errors import SettingsError
from edge_app.manifest import Crop, Head, find_model, sha256
from edge_app.preprocess import crop_faces
from edge_app.scoring import evaluate
from edge_app.types import NO_FACES, Faces, Frame

FACE = cv2.cvtColor(cv2.imread(str(Path(__file__).parent / "cases" / "astronaut.jpg")), cv2.COLOR_BGR2RGB)[
    60:240, 140:320
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three classes of four pictures: the portrait's face, lighter and darker, in odd formats and with odd names."""
    folder = tmp_path / "data %20 '얼굴'"
    for name in ("happiness", "Sad", "neutral"):
        place = folder / name / "inner"
        place.mkdir(parents=True)
        for number in range(4):
            picture = Image.fromarray(np.clip(FACE.astype(np.int16) + 10 * number - 15, 0, 255).astype(np.uint8))
            picture = picture.convert("L") if number % 2 else picture
            picture.save(place / f"기쁨 {name}{number}.{'png' if number else 'jpg'}")
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "small")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def run(*words: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, ["evaluate", *map(str, words)])
    return result.exit_code, result.stdout, result.stderr


def report(*words: object) -> dict:
    code, out, err = run(*words, "--json")
    assert code == 0, err
    return json.loads(out)


# pictures and models


@pytest.mark.parametrize("labels", [LABELS[:2], (*LABELS, "surprise")])
def test_a_model_that_does_not_fit_its_manifest_is_not_scored(model, data, labels):
    path = model / "manifest.json"
    raw = json.loads(path.read_text())
    raw["heads"][0]["labels"] = list(labels)
    path.write_text(json.dumps(raw))
    code, _, err = run(model, "--data", data, "-o", "out")
    assert code == 2 and f"head 'mood': expected {len(labels)} values" in err and not Path("out").exists()


def test_the_canvas_holds_the_picture_in_its_middle_and_the_detector_finds_it():
    canvas, place = evaluate.on_canvas(FACE[::4, ::4])
    assert canvas.shape == (720, 1280, 3) and place.tolist() == [[425, 145, 855, 575]]
    assert canvas[:145].max() == 0 and canvas[145:575, 425:855].mean() > 50
    artifact = find_model("face_detection").artifact("full")
    stage = plugins.load("tasks", "face_detection").Stage(artifact.path)
    faces = stage(Frame(canvas, 0, 0), NO_FACES)
    stage.close()
    assert evaluate.best(faces, place) == 0
    assert evaluate.best(NO_FACES, place) is None


# the command


def test_report_and_files(model, data):
    card = report(model, "--data", data)
    folder = Path(card["folder"])
    assert folder == Path("runs/evaluate/small")
    assert sorted(p.name for p in folder.iterdir()) == [
        "confusion.png", "predictions.csv", "reliability.png", "report.json", "run.json"]  # fmt: skip
    assert json.loads((folder / "report.json").read_text()) == card
    with (folder / "predictions.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    right = sum(line["truth"] == line["answer"] for line in lines)
    assert len(lines) == card["pictures"] == 12 and right == card["ready"]["accuracy"]["hits"]
    assert sum(map(sum, card["ready"]["confusion"]["matrix"])) == 12
    assert sum(float(lines[0][f"p_{label}"]) for label in LABELS) == pytest.approx(1, abs=1e-4)
    assert card["models"][0]["sha256"] == sha256(model / "small_int8.tflite")
    assert Path(report(model, "--data", data)["folder"]) == Path("runs/evaluate/small2")


def remember(model: Path, paths: list[Path]) -> Path:
    """Have the model say that it has learnt from these pictures, as `export` does; returns the file that names them."""
    file, manifest = model / "seen.bin", model / "manifest.json"
    file.write_bytes(b"".join(sorted(bytes.fromhex(sha256(path))[:8] for path in paths)))
    raw = json.loads(manifest.read_text())
    raw["origin"] = {"seen": {"file": file.name, "sha256": sha256(file), "bytes": file.stat().st_size}}
    manifest.write_text(json.dumps(raw))
    return file


NO_NEW_FACES = "6 of 12 pictures were learnt from (or chosen on): this is no score of new faces"


def test_pictures_that_were_learnt_from_are_told(model, data, tmp_path):
    pictures = sorted((data / "Sad").rglob("*.*g"))  # each of the four is in all three classes
    remember(model, pictures[:2])
    code, out, _ = run(model, "--data", data, "-o", "here")
    assert code == 0 and NO_NEW_FACES in out.splitlines()
    card = json.loads(Path("here/report.json").read_text())
    assert card["seen"] == {"count": 6, "note": NO_NEW_FACES}
    with Path("here/predictions.csv").open(encoding="utf-8", newline="") as file:
        known = {sha256(path) for path in pictures[:2]}
        others = [row for row in csv.DictReader(file) if sha256(data / row["picture"]) not in known]
    right = sum(row["truth"] == row["answer"] for row in others)
    assert card["ready"]["new"]["accuracy"]["hits"] == right and card["ready"]["new"]["n"] == len(others) == 6
    (line,) = (line for line in out.splitlines() if line.startswith("accuracy of the others"))
    assert line.split()[4] == f"{right / 6:.1%}" and line.rstrip().endswith("of 6")
    other = write_model(tmp_path / "other")
    assert report(model, other, "--data", data)["seen"]["count"] == 6
    remember(other, pictures[1:3])
    assert report(model, other, "--data", data)["seen"]["count"] == 9


def test_of_new_pictures_nothing_is_said(model, data):
    assert report(model, "--data", data)["seen"] is None
    remember(model, [Path(__file__)])
    code, out, _ = run(model, "--data", data, "-o", "here")
    assert code == 0 and "learnt from" not in out
    assert json.loads(Path("here/report.json").read_text())["seen"] == {"count": 0, "note": ""}


@pytest.mark.parametrize("harm", ["gone", "changed", "no bytes", "no names", "elsewhere"])
def test_a_list_of_pictures_that_does_not_hold_is_told_and_stops_nothing(model, data, harm, caplog):
    file = remember(model, [path for path in data.rglob("*") if path.is_file()])
    raw = json.loads((model / "manifest.json").read_text())
    if harm == "gone":
        file.unlink()
    elif harm == "changed":
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    else:
        harmed = {"no bytes": {"file": file.name}, "no names": 3, "elsewhere": raw["origin"]["seen"] | {"file": "../x"}}
        raw["origin"]["seen"] = harmed[harm]
        (model / "manifest.json").write_text(json.dumps(raw))
    assert report(model, "--data", data)["seen"] is None
    assert "which pictures it has learnt from is not known" in caplog.text


def test_tables(model, data):
    code, out, _ = run(model, "--data", data, "--head", "mood", "-o", "here")
    assert code == 0
    assert "12 pictures" in out and "macro-F1" in out and "results in here" in out and "whole path" not in out


def test_detect_judges_the_whole_path_and_counts_what_was_not_found(model, data):
    Image.fromarray(np.full((48, 48), 90, np.uint8)).save(data / "Sad" / "plain.png")
    card = report(model, "--data", data, "--detect")
    assert card["ready"]["n"] == card["detect"]["n"] == 13
    assert card["ready"]["not_found"] == 0 and card["detect"]["not_found"] == 1
    assert card["detect"]["confusion"]["matrix"][LABELS.index("sad")][-1] == 1
    with (Path(card["folder"]) / "predictions.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        probs = [row[f"detect_p_{label}"] for label in LABELS]
        if row["picture"] == "Sad/plain.png":
            assert probs == [""] * 3 == [row["detect_answer"]] * 3
        else:
            assert float(row[f"detect_p_{row['detect_answer']}"]) == max(map(float, probs)) > 0
            assert float(row["detect_confidence"]) == pytest.approx(max(map(float, probs)), abs=1e-4)


@pytest.mark.parametrize(
    ("size", "said"), [((640, 480), True), ((900, 900), True), ((512, 512), False), ((120, 100), False)]
)
def test_whole_photos_are_told_to_be_cut_first(model, data, size, said):
    code, _, err = run(model, "--data", data)
    assert code == 0 and "whole photos" not in err
    for path in [*data.rglob("*.jpg"), *data.rglob("*1.png"), *data.rglob("*2.png")]:  # nine of twelve
        Image.open(path).resize(size).save(path)
    code, _, err = run(model, "--data", data)
    assert ("these look like whole photos, not cut faces; cut them with calmcam crop first" in err) == said


def test_another_crop_can_be_tried_on_the_whole_path_only(model, data):
    own, other = (
        report(model, "--data", data, "--detect", *more) for more in ([], ["--margin", "1.5", "--align", "roll"])
    )
    assert own["models"][0]["crop"] == {"margin": 0.1, "shift": 0.0, "align": "none"}
    assert other["models"][0]["crop"] == {"margin": 1.5, "shift": 0.0, "align": "roll"}
    assert own["ready"] == other["ready"] and own["detect"]["calibration"] != other["detect"]["calibration"]


def test_an_ensemble_of_twins_is_the_twin_and_order_of_labels_does_not_matter(model, data, tmp_path):
    alone = report(model, "--data", data)
    twins = report(model, model, "--data", data)
    assert twins["ready"]["calibration"]["ece"] == pytest.approx(alone["ready"]["calibration"]["ece"], abs=1e-6)
    heads = (Head("mood", "softmax", ("sad", "neutral", "happy")), Head("tease", "sigmoid", ("non_teasing", "teasing")))
    turned = write_model(tmp_path / "turned", heads=heads)
    ensemble = _open(model, turned)
    crops = ensemble.ready(FACE)
    each = [member.classify(crop) for member, crop in zip(ensemble.members, crops, strict=True)]
    assert ensemble(crops) == pytest.approx((each[0] + each[1][[2, 0, 1]]) / 2)


def test_models_with_other_labels_are_not_averaged(model, tmp_path):
    heads = (Head("mood", "softmax", ("angry", "sad", "fear")), Head("tease", "sigmoid", ("non_teasing", "teasing")))
    with pytest.raises(SettingsError, match="need the same labels"):
        _open(model, write_model(tmp_path / "other", heads=heads))


def _open(*folders: Path) -> evaluate.Ensemble:
    members = []
    for folder in folders:
        manifest = find_model(str(folder))
        artifact = manifest.artifact("int8")
        backend = plugins.load("backends", "litert").Backend(artifact)
        members.append(evaluate.Member(manifest, "int8", artifact, manifest.heads[0], backend))
    return evaluate.Ensemble(members)


def test_unreadable_pictures_are_named_and_not_fatal(model, data):
    (data / "Sad" / "text.png").write_text("this is no picture")
    (data / "Sad" / "empty.jpg").touch()
    code, out, _ = run(model, "--data", data, "--json")
    card = json.loads(out)
    assert code == 2 and json.loads(Path("runs/evaluate/small/report.json").read_text()) == card
    assert card["pictures"] == 12 and card["unreadable"]["count"] == 2
    assert [name for name, _ in card["unreadable"]["first"]] == ["Sad/empty.jpg", "Sad/text.png"]
    with Path("runs/evaluate/small/predictions.csv").open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert len(rows) == 14 and {len(row) for row in rows} == {len(head)}


def test_the_head_of_the_settings_file_holds(model, data, tmp_path):
    (tmp_path / "c.toml").write_text('head = "tease"')
    code, _, err = run(model, "--data", data, "--config", "c.toml")
    assert code == 2 and "teasing" in err
    assert report(model, "--data", data, "--config", "c.toml", "--head", "mood")["head"] == "mood"


def test_a_threshold_may_take_the_place_of_the_models(model, data):
    decided = report(model, model, "--data", data, "--unsure-below", 1, "-o", "out")["ready"]["decided"]
    assert (decided["unsure_below"], decided["share"]) == (1, 0)
    assert json.loads(Path("out/run.json").read_text())["settings"]["unsure_below"] == 1


def test_nothing_readable_is_a_failure(model, tmp_path):
    (tmp_path / "data" / "sad").mkdir(parents=True)
    (tmp_path / "data" / "sad" / "text.png").write_text("this is no picture")
    code, _, err = run(model, "--data", "data")
    assert code == 2 and "none of the 1 pictures can be read" in err
    assert not (tmp_path / "runs" / "evaluate" / "small").exists()


def test_sigterm_leaves_nothing_half(model, data, tmp_path):
    place = data / "Sad" / "many"
    place.mkdir()
    picture = (data / "Sad" / "inner" / "기쁨 Sad1.png").read_bytes()
    for number in range(3000):
        (place / f"{number}.png").write_bytes(picture)
    words = [sys.executable, "-m", "edge_app", "evaluate", str(model), "--data", str(data)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(words, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as child:
        part = tmp_path / "runs" / "evaluate" / "small" / "predictions.part.csv"
        deadline = time.monotonic() + 20 * PATIENCE
        while not part.exists() and time.monotonic() < deadline:
            threading.Event().wait(0.01)
        child.send_signal(signal.SIGTERM)
        _, said = child.communicate(timeout=20 * PATIENCE)
        assert child.returncode == 143 and said.splitlines()[-1] == "stopped; nothing was kept", said
    assert not part.parent.exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--data", "nowhere"], "nowhere: cannot be read"),
        (["--data", "data", "--head", "moood"], "unknown head 'moood'; did you mean 'mood'"),
        (["--data", "data", "--variant", "int9"], "unknown variant 'int9'; did you mean 'int8'"),
        (["--data", "data", "--exclude", "no.txt"], "no.txt: cannot be read"),
    ],
)
def test_bad_input_gets_one_sentence_and_leaves_nothing(model, tmp_path, words, sentence):
    (tmp_path / "data" / "happy").mkdir(parents=True)
    code, out, err = run(model, *words)
    assert (code, out) == (2, "") and sentence in err and err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_model_without_heads_cannot_be_evaluated(data):
    code, _, err = run("face_detection", "--data", data)
    assert code == 2 and "one without heads" in err


def test_of_several_faces_the_one_in_the_picture_s_place_is_judged():
    boxes = np.array([[0, 0, 90, 90], [430, 160, 840, 560], [850, 500, 1000, 700]], np.float32)
    faces = Faces(boxes, np.array([0.9, 0.8, 0.7], np.float32))
    assert evaluate.best(faces, np.array([[425, 145, 855, 575]], np.float32)) == 1


def test_a_face_is_cut_level_where_the_manifest_says_so(model):
    ensemble = _open(model)
    (member,) = ensemble.members
    crop = Crop(align="roll")
    ensemble.members = (replace(member, manifest=replace(member.manifest, crop=crop)),)
    tilted = np.float32([[[50, 60], [110, 100], [80, 110], [70, 130], [40, 80], [130, 120]]])
    faces = Faces(np.array([[20, 20, 160, 160]], np.float32), np.ones(1, np.float32), tilted)
    (cut,) = ensemble.cut(FACE, faces, 0)
    expected = crop_faces(FACE, faces.boxes, tilted, crop, member.artifact.input)[0]
    np.testing.assert_array_equal(cut, expected)


def test_an_ensemble_is_unsure_below_the_mean_of_its_members(model, tmp_path):
    heads = find_model(str(model)).heads
    bolder = tuple(replace(head, unsure_below=0.8) for head in heads)
    other = write_model(tmp_path / "bolder", heads=bolder)
    ensemble = _open(model, other)
    assert ensemble.unsure_below == pytest.approx((heads[0].unsure_below + 0.8) / 2)


def test_pictures_given_as_a_model_are_sent_to_data(model: Path, data: Path) -> None:
    code, _, said = run(model, data)
    assert code == 2 and f"{data}: no model; pictures go to --data {shlex.quote(str(data))}" in said
    code, _, said = run(model, data, "--data", data)
    assert code == 2 and f"{data}: no model there, it has no manifest.json" in said
    for words in ((model,), (model, "nowhere")):
        code, _, said = run(*words)
        assert code == 2 and "Missing option '--data'" in said

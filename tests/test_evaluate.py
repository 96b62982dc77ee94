from __future__ import annotations

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from small_model import LABELS, write_model

from edge_app import evaluate, plugins
from edge_app.card import judge
from edge_app.cli import cli
from edge_app.errors import SettingsError, SourceError
from edge_app.labelled import Exclusions, labelled, read_exclusions
from edge_app.manifest import Head, find_model, sha256
from edge_app.types import NO_FACES, Frame

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


# the folder


def test_labelled_knows_aliases_nested_files_and_hangul(data):
    samples, left_out = labelled(data, LABELS)
    assert (len(samples), left_out) == (12, 0)
    assert [s.truth for s in samples if s.name.startswith("happiness/")] == [LABELS.index("happy")] * 4


@pytest.mark.parametrize(
    ("line", "left_out"),
    [
        ("기쁨 Sad1.png", 1),
        ("inner/기쁨 neutral2.png", 1),
        ("ad1.png", 0),
        ("Sad/", 0),
        ("# nothing", 0),
        ("C:\\pictures\\기쁨 Sad1.png", 0),
    ],
)
def test_excluded_by_name_path_end_or_folder(data, tmp_path, line, left_out):
    (tmp_path / "out.txt").write_text(f"{line}\n\n", encoding="utf-8")
    samples, found = labelled(data, LABELS, read_exclusions(tmp_path / "out.txt"))
    assert found == left_out
    assert len(samples) == (8 if line == "Sad/" else 12 - left_out)


def test_excluded_by_content(data):
    path = data / "Sad" / "inner" / "기쁨 Sad1.png"
    twins = [p for p in data.rglob("*.png") if sha256(p) == sha256(path)]
    samples, left_out = labelled(data, LABELS, Exclusions(digests=frozenset({sha256(path)})))
    assert left_out == len(twins) == 3
    assert len(samples) == 9


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        ([], "no class folders; expected one folder per class: happy, sad, neutral"),
        (["happy"], "no picture in its class folders"),
        (["hapy"], "has no class 'hapy'; did you mean 'happy'"),
        (["happy", "contempt"], "leave it out with a line 'contempt/'"),
        (["train", "test"], "holds the parts test, train, expected class folders"),
    ],
)
def test_a_folder_that_is_no_labelled_folder_gets_a_sentence(tmp_path, make, sentence):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in make:
        (folder / name).mkdir()
    with pytest.raises(SourceError, match=sentence):
        labelled(folder, LABELS)


# the figures


def test_a_face_not_found_is_an_error_and_lowers_recall():
    sure, other = np.array([0.9, 0.1], np.float32), np.array([0.2, 0.8], np.float32)
    judged = judge(np.array([0, 0, 0, 1]), [sure, None, other, other], ("a", "b"), 0.85)
    assert judged["accuracy"] == {"value": 0.5, "interval": pytest.approx([0.15, 0.85], abs=0.01), "hits": 2, "n": 4}
    assert judged["per_class"]["a"] == {"precision": 1.0, "recall": pytest.approx(1 / 3), "f1": 0.5, "support": 3}
    assert judged["confusion"]["matrix"] == [[1, 1, 1], [0, 1, 0]]
    assert judged["confusion"]["answers"] == ["a", "b", "not found"]
    assert judged["macro_f1"]["value"] == pytest.approx((0.5 + 2 / 3) / 2)
    assert judged["decided"]["share"] == pytest.approx(1 / 3)
    assert judged["decided"]["accuracy"]["value"] == 1.0


def test_nothing_found_is_no_crash():
    judged = judge(np.array([0, 1]), [None, None], ("a", "b"), 0.5)
    assert judged["accuracy"]["value"] == 0 and judged["not_found"] == 2 and judged["calibration"]["ece"] == 0


def test_the_canvas_holds_the_picture_in_its_middle_and_the_detector_finds_it():
    canvas, place = evaluate.on_canvas(FACE[::4, ::4])
    assert canvas.shape == (720, 1280, 3) and place.tolist() == [[440, 160, 840, 560]]
    assert canvas[:160].max() == 0 and canvas[160:560, 440:840].mean() > 50
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
    ensemble.close()


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
    card = report(model, "--data", data)
    assert card["pictures"] == 12 and card["unreadable"]["count"] == 2
    assert [name for name, _ in card["unreadable"]["first"]] == ["Sad/empty.jpg", "Sad/text.png"]


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

from __future__ import annotations

import csv
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("tensorflow")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
from patience import PATIENCE

from deploy.crops import divide
from edge_app.backends.litert import Backend
from edge_app.errors import InputError, ModelError, OutputError, SettingsError
from edge_app.heads import softmax
from edge_app.manifest import Head, Input, read_manifest, sha256, verify
from edge_app.preprocess import to_input
from edge_app.seen import mark, read_seen, write_seen
from trainer import export, ferplus, finalscore, parity, quantise, representative, runs
from trainer.card import card
from trainer.data import load_run
from trainer.families.residual import build
from trainer.recipe_file import parse
from trainer.record import digest

# Keras 3.15 hands TensorFlow variables to NumPy 2 in the old way when it saves
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

ROOT = Path(__file__).parent.parent
LABELS = ["happy", "sad"]
RECIPE = {
    "name": "tiny",
    "family": "residual",
    "options": {"channels": [8, 16], "blocks": [0, 0], "dropout": 0.0},
    "input": {"size": 24, "colour": "gray"},
    "heads": [{"name": "mood", "labels": LABELS}],
    "data": {"validation": 0.3, "near": 0},
    "stages": [{"name": "all", "epochs": 6, "learning_rate": 0.01, "optimizer": "adamw", "votes_share": 0.5}],
    "batch": 4,
    "export": {
        "representative": 64,
        "calibration": 96,
        "files": {"int8": "known_name.tflite", "weights": "w.weights.h5"},
    },
}


def picture(rng, label):
    image = rng.integers(60, 120, (24, 24)).astype(np.uint8)
    centre = tuple(int(value) for value in rng.integers(8, 16, 2))
    if label == "happy":
        cv2.circle(image, centre, 6, 250, -1)
    else:
        cv2.line(image, (centre[0] - 6, 4), (centre[0] + 6, 20), 5, 3)
    return image


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    lines = ["file,happiness,sadness,unknown"]
    for part, count in (("train", 70), ("test", 20)):
        for label in LABELS:
            (folder / part / label).mkdir(parents=True)
            for number in range(count):
                file = f"{part}/{label}/{number:03d}.png"
                cv2.imwrite(str(folder / file), picture(rng, label))
                lines.append(f"{file},{'5,0,5' if number % 2 else '9,1,0' if label == 'happy' else '1,9,0'}")
    for number in range(5):
        shutil.copy(folder / f"train/sad/{number:03d}.png", folder / f"test/sad/{number:03d}.png")
    (folder / "ferplus_votes.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="session")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    folder.mkdir()
    runs.run([parse(RECIPE, "test")], data, folder)
    return folder


@pytest.fixture(scope="session")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "tiny"
    return export.export(
        export.Order(run, out, command="calmcam export tiny", about="circles and lines", mistakes=True)
    ), out


@pytest.fixture
def again(run, tmp_path):
    """A copy of the run that a test may spoil."""
    return Path(shutil.copytree(run, tmp_path / "run"))


def test_every_variant_is_there_and_described(exported):
    study, out = exported
    manifest = read_manifest(out / "manifest.json")
    assert set(manifest.artifacts) == set(quantise.VARIANTS)
    for artifact in manifest.artifacts.values():
        verify(artifact)
        assert dict(artifact.outputs) == {"mood": "mood"}
        assert artifact.emits == "logits"
    names = {path.name for path in out.iterdir()} - {f"{name}.tflite" for name in quantise.VARIANTS}
    assert names == {"manifest.json", "CARD.md", "seen.bin", "model.keras", "known_name.tflite", "w.weights.h5"}
    assert not out.with_name("tiny.part").exists()


def test_int8_takes_raw_pixels(exported):
    spec = read_manifest(exported[1] / "manifest.json").artifact("int8").input
    assert (spec.dtype, spec.scale, spec.offset) == ("uint8", 1, 0)


def test_int8_is_integers_throughout(exported):
    from edge_app.backends.litert import Interpreter

    details = Interpreter(str(exported[1] / "int8.tflite")).get_tensor_details()
    assert {np.dtype(detail["dtype"]).name for detail in details if detail["dtype"] is not None} <= {
        "uint8",
        "int8",
        "int32",
    }


@pytest.mark.parametrize("variant", quantise.VARIANTS)
def test_the_file_answers_as_the_model(exported, run, data, variant):
    part = load_run(run, data)["validation"]
    artifact = read_manifest(exported[1] / "manifest.json").artifact(variant)
    wanted = parity.keras_logits(keras.saving.load_model(exported[1] / "model.keras", compile=False), part.images)[
        "mood"
    ]
    backend = Backend(artifact)
    came = backend.infer(to_input(part.images, artifact.input))["mood"]
    backend.close()
    spread = np.abs(wanted).max()
    assert np.abs(came - wanted).max() < spread * {"float32": 1e-4, "float16": 0.01}.get(variant, 0.15)


def test_scores_say_what_they_stand_on(exported):
    study, out = exported
    rows = {
        (row["split"], row["metric"]): row
        for row in read_manifest(out / "manifest.json").scores
        if row["variant"] == "int8"
    }
    assert rows["test", "accuracy"]["n"] == 40
    assert rows["test without duplicates of train", "accuracy"]["n"] == 35
    assert rows["test, FER+ majority", "accuracy"]["n"] == 20  # five of ten votes are no majority
    assert rows["test", "accuracy"]["value"] > 0.9
    low, high = rows["test", "accuracy"]["interval"]
    assert low < rows["test", "accuracy"]["value"] <= high


def test_the_card_and_the_report_stand_alone(exported, run):
    card = (exported[1] / "CARD.md").read_text(encoding="utf-8")
    report = (run / "report.html").read_text(encoding="utf-8")
    for words in ("What it cannot do", "Regulation (EU) 2024/1689", "circles and lines"):
        assert words in card and words in report
    assert 'src="http' not in report and "<link" not in report and "<script" not in report
    assert report.count("data:image/png;base64,") >= 4


def test_calibration_crops_are_raw_balanced_and_enough(exported, run):
    with np.load(run / "calibration.npz") as saved:
        crops = saved["crops"]
    assert (crops.shape, crops.dtype) == ((120, 24, 24, 1), np.uint8)
    calibrating, judging = divide(crops)
    assert len(calibrating) >= 96 and len(judging)


def test_weights_that_were_trained_on_after_the_test_are_refused(exported, again, data, tmp_path, monkeypatch):
    monkeypatch.setattr(quantise.Converter, "convert", None)  # before anything is converted
    model = keras.saving.load_model(again / "best.keras", compile=False)
    model.layers[-1].set_weights([value * 0.9 for value in model.layers[-1].get_weights()])
    model.save(again / "best.keras")
    with pytest.raises(InputError, match="the test part was used already"):
        export.export(export.Order(again, tmp_path / "out", variants=("float32",)))
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.part").exists()


def test_a_file_that_answers_otherwise_is_refused(again, data, tmp_path, monkeypatch):
    monkeypatch.setattr(export.quantise.Converter, "convert", lambda self, variant, **_: spoiled(self, variant))
    with pytest.raises(parity.ParityError, match=r"float32 against keras, head mood.*nothing was exported"):
        export.export(export.Order(again, tmp_path / "out", variants=("float32",)))
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.part").exists()


def test_a_refused_file_is_named_with_the_way_to_leave_it_out(again, tmp_path, monkeypatch, caplog):
    def convert(self, variant, **kept):
        return spoiled(self, variant) if variant == "int8" else original(self, variant, **kept)

    names = ";".join(["residual/s1_in_conv/convolution"] * 6)
    monkeypatch.setattr(export.quantise.Converter, "blame", lambda self: [(f"{names}{n}", 1.0) for n in range(9)])
    monkeypatch.setattr(export.quantise.Converter, "convert", convert)
    with pytest.raises(parity.ParityError, match=r", or leave int8 out: --variants float32,dynamic$"):
        export.export(export.Order(again, tmp_path / "out", variants=("float32", "int8", "dynamic")))
    said = [record.getMessage() for record in caplog.records if "int8" in record.getMessage()]
    tried = ("operator", "2 operators", "3 operators", "4 operators")
    looked = "int8 loses too much; looking for the operators that lose most"
    after = [f"trying again with int8's worst {of} in float" for of in tried]
    assert said == [looked, *after]
    with pytest.raises(parity.ParityError, match=r"recipe.yaml$"):
        export.export(export.Order(again, tmp_path / "out", variants=("int8",)))


def test_persons_of_the_test_part_are_counted(again, tmp_path):
    path = again / "recipe.yaml"
    path.write_text(path.read_text().replace("group: ''", "group: '/0(.)'"))
    study = export.export(export.Order(again, tmp_path / "out", variants=("float32",)))
    assert study.groups["test"] == (40, 2) and set(study.groups) == {"train", "validation", "test"}
    assert "test: of fewer than 5 groups" in (tmp_path / "out" / "CARD.md").read_text()


def spoiled(converter, variant):
    """Convert a model whose last layer was turned around."""
    layer = converter._model.layers[-1]
    good = layer.get_weights()
    layer.set_weights([-value for value in good])
    with quantise.Converter(converter._model, converter._representative) as other:
        content = original(other, variant)
    layer.set_weights(good)
    return content


original = quantise.Converter.convert


@pytest.mark.parametrize("variant", ["float32", "int8"])
def test_heads_keep_their_names(tmp_path, variant):
    keras.utils.set_random_seed(1)
    model = build((24, 24, 3), {"zeta": 3, "alpha": 3, "teasing": 1}, channels=(8, 8), blocks=(0, 0))
    images = np.random.default_rng(0).integers(0, 256, (40, 24, 24, 3)).astype(np.uint8)
    heads = [Head(name, "softmax", ("a", "b", "c")) for name in ("zeta", "alpha")]
    heads.append(Head("teasing", "sigmoid", ("non_teasing", "teasing")))
    with quantise.Converter(model, images) as converter:
        (tmp_path / "x.tflite").write_bytes(converter.convert(variant))
    wanted = parity.keras_logits(model, images)
    came = parity.file_logits(variant, quantise.describe(tmp_path / "x.tflite", "rgb", heads), images)
    for head in heads:
        error = np.abs(came[head.name] - wanted[head.name]).max()
        assert error < 0.1 * np.abs(wanted[head.name]).max()
    assert np.abs(wanted["zeta"] - wanted["alpha"]).max() > 0.3 * np.abs(wanted["zeta"]).max()


def test_int8_operators_can_stay_in_float(run, data, tmp_path):
    crops = load_run(run, data)["train"].images[:32]
    with quantise.Converter(quantise.load_keras(run / "best.keras"), crops) as converter:
        blamed = converter.blame()
        content = converter.convert("int8", keep_float=[blamed[0][0]])
    assert all(a[1] >= b[1] for a, b in zip(blamed, blamed[1:], strict=False))
    (tmp_path / "mixed.tflite").write_bytes(content)
    artifact = quantise.describe(tmp_path / "mixed.tflite", "gray", parse(RECIPE, "test").heads)
    assert np.isfinite(parity.file_logits("int8", artifact, crops)["mood"]).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"variants": ("int9",)}, SettingsError, "unknown variant 'int9'; did you mean 'int8'"),
        ({"variants": ("keras",)}, SettingsError, "at least one of float32"),
        ({"run": Path("nowhere")}, InputError, "expected the folder of a training run"),
        ({"data": Path("nowhere")}, InputError, "nowhere"),
    ],
)
def test_a_wrong_order_is_refused(run, tmp_path, change, error, message):
    order = {"run": run, "out": tmp_path / "out"} | change
    with pytest.raises(error, match=message):
        export.export(export.Order(**order))
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.part").exists()


def test_an_existing_folder_is_kept(run, tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(OutputError, match="--exist-ok"):
        export.export(export.Order(run, tmp_path))
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize("inside", ["notes.txt", "other/manifest.json", "manifest.json"])
def test_only_an_exported_model_is_replaced(again, tmp_path, inside):
    held = tmp_path / "out" / inside
    held.parent.mkdir(parents=True)
    held.write_text("{}")
    if inside == "manifest.json":
        for name in ("out.old", "out.part"):  # whatever else lies there stays
            (tmp_path / name).mkdir()
        (tmp_path / "link").symlink_to("out")
        export.export(export.Order(again, tmp_path / "link", variants=("float32",), test=False, exist_ok=True))
        assert (tmp_path / "out" / "float32.tflite").is_file()
        assert {path.name for path in tmp_path.iterdir()} == {"out", "out.old", "out.part", "link", "run"}
        return
    with pytest.raises(OutputError, match="expected an exported model to replace"):
        export.export(export.Order(again, tmp_path / "out", exist_ok=True))
    with pytest.raises(OutputError, match="expected an exported model to replace"):
        export.export(export.Order(again, again, exist_ok=True))
    assert held.read_text() == "{}" and (again / "best.keras").is_file()


def test_a_run_that_is_not_finished_is_not_exported(again, tmp_path):
    record = again / "run.json"
    record.write_text(record.read_text().replace('"finished": true', '"finished": false'))
    with pytest.raises(InputError, match="is not finished; go on with calmcam train --resume"):
        export.export(export.Order(again, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_name_or_weights_that_do_not_fit_are_told_before_anything_is_converted(again, tmp_path):
    with pytest.raises(SettingsError, match="'my model': expected a model's name"):
        export.export(export.Order(again, tmp_path / "out", name="my model"))
    build((32, 32, 1), {"mood": 2}, channels=[8], blocks=[0]).save(again / "best.keras")
    with pytest.raises(InputError, match=r"expected a network from \(None, 24, 24, 1\) .*, got one from \(None, 32"):
        export.export(export.Order(again, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_test_part_that_changed_is_not_scored_again(again, data, tmp_path):
    export.export(export.Order(again, tmp_path / "first", variants=("float32",)))
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "test" / "sad" / "019.png").unlink()
    with pytest.raises(InputError, match="test.csv: the test part is not the one that was used before"):
        export.export(export.Order(again, tmp_path / "second", tmp_path / "data", variants=("float32",)))


def test_a_missing_or_broken_model_gets_a_sentence(tmp_path):
    with pytest.raises(ModelError, match="missing; expected the best.keras"):
        quantise.load_keras(tmp_path / "best.keras")
    (tmp_path / "best.keras").write_bytes(b"no zip")
    with pytest.raises(ModelError, match="Keras cannot load it"):
        quantise.load_keras(tmp_path / "best.keras")


def test_representative_crops_cover_all_pixels():
    crops = np.random.default_rng(0).integers(40, 200, (8, 6, 6, 1)).astype(np.uint8)
    whole = quantise.with_full_range(crops)
    assert (whole.min(), whole.max()) == (0, 255)
    assert (whole != crops).any(axis=(1, 2, 3)).sum() == 1
    assert quantise.with_full_range(whole) is whole


def test_a_picture_that_drives_the_network_too_far_sets_no_ranges():
    image = keras.Input((4, 4, 1), name="image")
    model = keras.Model(image, keras.layers.GlobalAveragePooling2D(name="pool")(keras.layers.Rescaling(-1.0)(image)))
    crops = np.full((100, 4, 4, 1), 50, np.uint8)
    crops[7, 1, 2], crops[30] = 101, 100
    assert len(quantise.typical(model, crops)) == 99
    assert quantise.typical(model, crops).max() == 100


def test_every_beginning_is_balanced():
    labels = {"mood": np.array([0] * 90 + [1] * 10), "place": np.full(100, -1)}
    rows = representative.balanced(labels, np.random.default_rng(0))
    assert sorted(rows) == list(range(100))
    assert (labels["mood"][rows[:20]] == 1).sum() == 10


def test_limits_of_the_gate():
    def row(**change):
        usual = {"variant": "int8", "against": "keras", "head": "h", "n": 1000}
        return parity.Parity(**usual | {"agreement": 0.99, "loss": 0.0, "mean_dp": 0.0} | change)

    assert not parity.failures([row(loss=0.5), row(agreement=0.95), row(variant="float32", agreement=0.999)], 0.5, 0.95)
    assert parity.failures([row(loss=0.6)], 0.5, 0.95)
    assert parity.failures([row(agreement=0.94)], 0.5, 0.95)
    assert parity.failures([row(variant="float32", agreement=0.99)], 0.5, 0.95)
    assert not parity.failures([row(n=50, loss=2.0, agreement=0.98)], 0.5, 0.99)  # one picture
    assert not parity.failures([row(variant="float32", agreement=0.999, n=10**5)], 0.5, 0.95)
    assert parity.failures([row(variant="float32", agreement=0.9989, n=10**5)], 0.5, 0.95)


def test_votes_for_nothing_count_against_a_majority(tmp_path):
    path = tmp_path / "votes.csv"
    path.write_text("file,happiness,sadness,unknown\ntest/happy/a.png,5,0,5\ntest/happy/b.png,6,0,4\n")
    votes = ferplus.read(path)
    files = ("x/test/happy/a.png", "x/test/happy/b.png", "test/happy/c.png")
    assert [ferplus.majority(ferplus.of(votes, file)) for file in files] == ["", "happy", ""]


def test_fer2013_pictures_are_never_shown(again, tmp_path):
    rows = (again / "split.csv").read_text().replace(".png", ".png", 1)
    assert export.FER2013.search("train/happy/fer0001234.png") and export.FER2013.search("icml.csv#17")
    assert not export.FER2013.search(rows.splitlines()[1].split(",")[0])
    for spoken in ("Training_1001.jpg", "icml.csv#17", "set/fer0001234.png"):
        with pytest.raises(SettingsError, match=f"{spoken} looks like FER2013"):
            export._may_show({"validation": SimpleNamespace(files=("a.png", spoken))}, [tmp_path])
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / ferplus.PUBLISHED).touch()
    for place in (tmp_path / "data", tmp_path / "fer2013" / "train"):
        with pytest.raises(SettingsError, match="must not be shown"):
            export._may_show({}, [place])
    export._may_show({"validation": SimpleNamespace(files=("a.png",))}, [Path("pictures")])


def test_the_test_part_is_written_down_by_hash(exported, run, data):
    with (run / "test.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 40 and all(sha256(data / row["file"]) == row["sha256"] for row in rows)
    said = json.loads((exported[1] / "manifest.json").read_text())["origin"]["data_sha256"]["test"]
    assert said == digest(row["sha256"] for row in rows)
    assert said in (exported[1] / "CARD.md").read_text(encoding="utf-8")


def test_what_a_run_began_with_is_told_of_its_model(exported, again, data, tmp_path):
    record, known = again / "run.json", sorted((data / "test" / "happy").iterdir())[:3]
    said = {"seen": write_seen(again, map(mark, known)), "backbone_sha256": "abc1"}
    record.write_text(json.dumps(json.loads(record.read_text()) | said))
    study = export.export(export.Order(again, tmp_path / "out", variants=("float32",)))
    (unseen,) = (row.scores.n for row in study.scored if row.split == finalscore.UNSEEN)
    assert unseen == 40 - 5 - len(known)
    manifest = read_manifest(tmp_path / "out" / "manifest.json")
    before = read_seen(read_manifest(exported[1] / "manifest.json"))
    assert read_seen(manifest) == before | set(map(mark, known))
    assert len(before) == 140 and manifest.origin["seen"]["learnt"] == 140 - 42 + len(known)
    assert manifest.origin["backbone_sha256"] == "abc1"
    assert "- sha256 of the file that the weights started from: `abc1`" in (tmp_path / "out" / "CARD.md").read_text()


def test_votes_speak_of_their_own_data_only(tmp_path):
    votes = tmp_path / "votes.csv"
    votes.write_text("file,happiness,sadness\ntest/happy/a.png,1,9\n")
    heads = [Head("fer", "softmax", tuple(LABELS)), Head("fane", "softmax", tuple(LABELS))]
    labels = {"fer": np.array([0, -1]), "fane": np.array([-1, 0])}
    part = SimpleNamespace(files=("fer/test/happy/a.png", "fane/test/happy/a.png"), hashes=("1", "2"), labels=labels)
    sets = finalscore.test_sets(part, heads, (), {"fer": votes})
    assert sets[finalscore.MAJORITY]["fer"].tolist() == [1, -1]
    assert sets[finalscore.MAJORITY]["fane"].tolist() == [-1, -1]


def test_the_card_names_what_is_not_integer(exported):
    mixed = dataclasses.replace(exported[0], in_float=("s1_in_relu",))
    assert "its input and `s1_in_relu` are float" in "\n".join(card(mixed))
    assert "not of integers" not in "\n".join(card(exported[0]))


def test_a_test_part_that_was_read_again_says_so(exported):
    assert "- test: used after everything was chosen, on these weights once\n" in "\n".join(card(exported[0]))
    again = dataclasses.replace(exported[0], test_uses=3)
    assert "on these weights 3 times: who chose by what it said chose on it" in "\n".join(card(again))


def test_what_was_exported_evaluates_and_annotates(exported, data, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from edge_app.cli import cli

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    told = CliRunner().invoke(cli, ["evaluate", str(exported[1]), "--data", str(data / "test"), "--json"])
    assert told.exit_code == 0, told.output
    found = json.loads(told.stdout)
    portrait = Path(__file__).parent.parent / "edge_app" / "astronaut.jpg"
    told = CliRunner().invoke(cli, ["annotate", "--model", str(exported[1]), str(portrait), "-o", "out"])
    assert told.exit_code == 0, told.output
    scored = exported[0].found("test", "mood").scores
    assert (found["ready"]["n"], found["ready"]["accuracy"]["value"]) == (40, scored.accuracy)
    assert found["seen"]["count"] == 5  # that stand in train, too
    told = CliRunner().invoke(cli, ["evaluate", str(exported[1]), "--data", str(data / "train"), "--json"])
    assert json.loads(told.stdout)["seen"]["note"].startswith("140 of 140 pictures were learnt from (or chosen on)")
    (line,) = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert set(json.loads(line)["faces"][0]["expression"]["probs"]) == set(LABELS)


def test_the_command_reports(again, tmp_path, caplog, monkeypatch):
    from click.testing import CliRunner

    from trainer.export_cli import export as command

    monkeypatch.setattr(export, "no_better", lambda study: [f"{study.name} is as good as none"])
    result = CliRunner().invoke(command, [str(again), "-o", str(tmp_path / "out"), "--variants", "int8", "--no-test"])
    assert result.exit_code == 0, result.output
    assert "int8 against keras, head mood" in result.output
    assert "head mood: 42 validation images tell little of what a variant loses" in caplog.text
    assert "tiny is as good as none" in caplog.text
    assert (
        caplog.text.count("mirrored and repeated") == 1 and "98 crops calibrate where 120 are expected" in caplog.text
    )
    assert not json.loads((tmp_path / "out" / "manifest.json").read_text())["scores"][0]["split"].startswith("test")


def test_a_signal_leaves_nothing_half(again, data, tmp_path):
    def hears():  # whatever these tests were started with
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    out = tmp_path / "models" / "tiny"
    (again / "calibration.npz").unlink(missing_ok=True)  # of a test before
    command = [sys.executable, "-m", "edge_app", "export", str(again), "--data", str(data), "-o", str(out)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, preexec_fn=hears) as process:
        while process.poll() is None and not list(tmp_path.glob("models/.*/*")):
            threading.Event().wait(0.01)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60 * PATIENCE)[1]
    assert process.returncode == 130 and said.endswith("stopped\n") and "Traceback" not in said, said
    assert not list((tmp_path / "models").iterdir()) and not (again / "calibration.npz").exists()


def test_what_a_file_loses_is_counted_as_lost_on_the_pictures_that_have_a_label():
    head = Head("h", "softmax", ("a", "b"))
    right, wrong = [5.0, 0.0], [0.0, 5.0]
    labels = {"h": np.array([0, 0, 0, 0, -1])}
    keras_ = {"h": np.array([right, right, right, wrong, right])}
    file = {"h": np.array([right, right, wrong, wrong, wrong])}
    (row,) = parity.compare([head], labels, ("int8", file), ("keras", keras_))
    assert (row.variant, row.against, row.n, row.loss, row.agreement) == ("int8", "keras", 4, 25.0, 0.75)
    (row,) = parity.compare([head], labels, ("float32", keras_), ("int8", file))
    assert row.loss == -25.0
    assert not parity.compare([head], {"h": np.full(5, -1)}, ("int8", file), ("keras", keras_))


def test_a_latency_is_the_median_of_one_face_when_the_engine_is_warm(monkeypatch):
    now, took = [0.0], iter([0.5] * 20 + [0.002] * 160 + [0.004] * 140)

    class Engine:
        def __init__(self, artifact): ...

        def infer(self, row):
            assert row.shape == (1, 4, 4, 1)
            now[0] += next(took)

        def close(self): ...

    monkeypatch.setattr(parity, "Backend", Engine)
    monkeypatch.setattr(parity, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    artifact = SimpleNamespace(input=Input(4, 4, "gray", "uint8"))
    assert parity.latency_ms(artifact, np.zeros((40, 4, 4, 1), np.uint8)) == pytest.approx(2)
    assert next(took, None) is None


def test_answers_that_are_no_numbers_are_refused():
    with pytest.raises(ModelError, match="int8: head h: 1 of 2 answers are no finite numbers"):
        parity._finite("int8", {"h": np.array([[1.0, np.nan], [0.0, 1.0]])})


def test_a_claimed_test_part_is_for_its_weights_and_its_pictures_only(tmp_path):
    weights = tmp_path / "best.keras"
    weights.write_bytes(b"one")
    part = SimpleNamespace(files=("a.png", "b.png"), hashes=("1", "2"))
    assert [finalscore.claim(tmp_path, weights, part) for _ in range(2)] == [1, 2]
    with pytest.raises(InputError, match="not the one that was used before"):
        finalscore.claim(tmp_path, weights, SimpleNamespace(files=("a.png",), hashes=("1",)))
    weights.write_bytes(b"two")
    with pytest.raises(InputError, match="the test part was used already"):
        finalscore.claim(tmp_path, weights, part)


def test_pictures_seen_in_training_are_left_out_of_the_second_score_only(tmp_path):
    head = Head("h", "softmax", ("a", "b"))
    part = SimpleNamespace(files=("1", "2", "3"), hashes=("x", "y", "z"), labels={"h": np.array([0, 1, -1])})
    sets = finalscore.test_sets(part, [head], {"y"}, {})
    assert {split: truth["h"].tolist() for split, truth in sets.items()} == {
        finalscore.TEST: [0, 1, -1],
        finalscore.UNSEEN: [0, -1, -1],
    }


def test_scores_are_of_calibrated_answers_and_say_what_it_was_before():
    rng = np.random.default_rng(3)
    logits = rng.normal(0, 5, (4000, 5))
    chances = softmax((logits / 2.5).astype(np.float32)).astype(float)
    truth = np.array([rng.choice(5, p=row / row.sum()) for row in chances])
    head = Head("mood", "softmax", tuple("abcde"), temperature=2.5)
    (row,) = finalscore.score_parts("int8", [head], {"mood": logits}, {"test": {"mood": truth}}, range(4000))
    assert row.scores.ece < 0.03 < 0.1 < row.ece_before

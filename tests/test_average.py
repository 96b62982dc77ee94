"""The mean of the weights of several runs."""

from __future__ import annotations

import json
import os
import shutil

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("tensorflow")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras

from edge_app.cli import cli
from edge_app.manifest import read_manifest, sha256
from edge_app.seen import read_learnt
from trainer import runs
from trainer.data import learnt
from trainer.recipe_file import parse

# Keras 3.15 hands TensorFlow variables to NumPy 2 in the old way when it saves
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")

RECIPE = {
    "name": "tiny",
    "family": "residual",
    "options": {"channels": [8], "blocks": [0], "dropout": 0.0},
    "input": {"size": 24, "colour": "gray"},
    "heads": [{"name": "mood", "labels": ["dark", "light"]}],
    "data": {"validation": 0.3, "near": 0},
    "stages": [{"name": "all", "epochs": 2, "learning_rate": 0.01, "optimizer": "adamw"}],
    "batch": 8,
    "export": {"representative": 32, "calibration": 32, "min_agreement": 0.5, "max_loss": 50},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for label, lowest in (("dark", 0), ("light", 100)):
        (folder / label).mkdir()
        for number in range(60):
            pixels = rng.integers(lowest, lowest + 120, (24, 24)).astype(np.uint8)
            cv2.imwrite(str(folder / label / f"{number:02d}.png"), pixels)
    return folder


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A run, and one that began with its weights."""
    folder = tmp_path_factory.mktemp("runs")
    for name, changes in (("first", {}), ("second", {"backbone": str(folder / "first")})):
        (folder / name).mkdir()
        runs.run([parse(RECIPE | changes, "test")], data, folder / name)
    return folder / "first", folder / "second"


def ask(*words):
    return CliRunner().invoke(cli, [str(word) for word in words])


def weights(run):
    return keras.saving.load_model(run / "best.keras", compile=False).get_weights()


def test_the_mean_is_a_run_that_can_be_exported(trained, tmp_path):
    mean, model = tmp_path / "mean", tmp_path / "model"
    result = ask("average", *trained, "-o", mean)
    assert result.exit_code == 0, result.output
    for one, first, second in zip(weights(mean), *map(weights, trained), strict=True):
        np.testing.assert_allclose(one, (first + second) / 2, rtol=1e-5, atol=1e-7)
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == [str(run) for run in (*trained, mean)]
    told = json.loads((mean / "run.json").read_text())
    own = json.loads((trained[0] / "run.json").read_text())
    assert told["selected"] == {"mean_of": [str(run) for run in trained]} and told["data_sha256"] == own["data_sha256"]
    assert f"mood_accuracy {told['validation']['val_mood_accuracy']:.4f}" in result.stdout.splitlines()[-1]

    result = ask("export", mean, "-o", model, "--variants", "int8", "--no-test")
    assert result.exit_code == 0, result.output
    origin = read_manifest(model / "manifest.json").origin
    assert all(str(run) in origin["train_note"] for run in trained)
    assert "- weights: the mean of several runs" in (model / "CARD.md").read_text()


def test_a_score_is_that_of_the_run_itself(trained, tmp_path):
    result = ask("average", *trained[::-1], "-o", tmp_path / "mean")
    for line, run in zip(result.stdout.splitlines(), trained[::-1], strict=False):
        own = json.loads((run / "run.json").read_text())["validation"]
        assert f"mood_accuracy {own['val_mood_accuracy']:.4f}" in line
    told, own = (json.loads((run / "run.json").read_text()) for run in (tmp_path / "mean", trained[1]))
    assert told["backbone_sha256"] == own["backbone_sha256"] == sha256(trained[0] / "best.keras")
    assert read_learnt(tmp_path / "mean" / "run.json", told["seen"]) == learnt(trained[0])


def test_a_run_that_learnt_from_fewer_pictures_may_follow(trained, data, tmp_path):
    """As when one goes on with a part of what was validation, and is judged by the rest."""
    more = tmp_path / "more"
    more.mkdir()
    share = RECIPE["data"]["validation"] / 2
    runs.run([parse(RECIPE | {"data": RECIPE["data"] | {"validation": share}}, "test")], data, more)
    result = ask("average", more, trained[0], "-o", tmp_path / "mean")
    assert result.exit_code == 0, result.output
    told, own = (json.loads((run / "run.json").read_text()) for run in (tmp_path / "mean", more))
    assert told["data_sha256"] == own["data_sha256"] != json.loads((trained[0] / "run.json").read_text())["data_sha256"]
    assert "pictures that" in ask("average", trained[0], more, "-o", tmp_path / "other").output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "expected two or more runs"),
        (["{first}"], "expected two or more runs"),
        (["{first}", "{first}"], "each once"),
        (["{first}", "absent"], "absent: expected the folder of a training run"),
        (["{first}", "{other}"], "other: options, network unlike those of"),
        (["{first}", "{divided}"], "pictures that"),
        (["{first}", "{unfinished}"], "unfinished: is not finished"),
    ],
)
def test_runs_that_do_not_fit_are_refused(trained, data, tmp_path, words, said):
    places = {"first": trained[0]} | {name: tmp_path / name for name in ("other", "divided", "unfinished")}
    text = " ".join(words)
    if "other" in text or "divided" in text:
        name = "other" if "other" in text else "divided"
        changes = {
            "other": {"options": {"channels": [4], "blocks": [0], "dropout": 0.0}},
            "divided": {"data": RECIPE["data"] | {"seed": 2}},
        }[name]
        places[name].mkdir()
        runs.run([parse(RECIPE | changes, "test")], data, places[name])
    if "unfinished" in text:
        shutil.copytree(trained[1], places["unfinished"])
        record = json.loads((trained[1] / "run.json").read_text())
        (places["unfinished"] / "run.json").write_text(json.dumps(record | {"finished": False}))
    result = ask("average", *(word.format(**places) for word in words), "-o", tmp_path / "mean")
    assert result.exit_code != 0 and said in result.output and result.output.count("\n") == 1
    assert not (tmp_path / "mean").exists()


def test_a_folder_that_holds_something_is_left_alone(trained, tmp_path):
    (tmp_path / "note.txt").write_text("mine")
    result = ask("average", *trained, "-o", tmp_path)
    assert result.exit_code != 0 and "is not empty" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]

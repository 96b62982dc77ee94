"""Training: one path for all recipes, on every backend, through kills, over stages."""

from __future__ import annotations

import csv
import errno
import importlib.util
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("yaml")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # keras 3.15 on numpy 2
BACKENDS = [name for name in ("tensorflow", "torch", "jax") if importlib.util.find_spec(name)]
os.environ.setdefault("KERAS_BACKEND", BACKENDS[0] if BACKENDS else "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import cv2
import keras  # noqa: E402
import pictures  # noqa: E402
from click.testing import CliRunner  # noqa: E402

from edge_app.errors import CalmcamError, InputError, ModelError, OutputError, SettingsError  # noqa: E402
from edge_app.files import whole  # noqa: E402
from edge_app.manifest import Crop  # noqa: E402
from trainer import callbacks, families  # noqa: E402
from trainer.data import Part, members, parts  # noqa: E402
from trainer.export import trained  # noqa: E402
from trainer.feed import Batches, targets  # noqa: E402
from trainer.folds import read_folds, summary  # noqa: E402
from trainer.recipe import Recipe  # noqa: E402
from trainer.recipe_file import read_recipe  # noqa: E402
from trainer.rounding import rounded, straight_through  # noqa: E402
from trainer.runs import Request, plain_cnn, start  # noqa: E402
from trainer.scores import judge  # noqa: E402
from trainer.state import State  # noqa: E402
from trainer.teacher import Teacher, check_teacher  # noqa: E402
from trainer.train import explained, fit, network, save_plain  # noqa: E402
from trainer.weights import resolve, start_weights, write_backbone  # noqa: E402

TINY = str(Path(__file__).parent / "cases" / "tiny.yaml")
LABELS = ("angry", "happy", "neutral")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    pictures.write(folder / "train", LABELS, 40)
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory) -> Path:
    """One finished run of the recipe as it is."""
    out = tmp_path_factory.mktemp("run")
    start(Request(TINY, data, (), out))
    return out


@pytest.fixture(scope="module")
def compiled(tmp_path_factory) -> dict[str, str]:
    """Variables by which JAX keeps what it compiled for the next process, and no other backend anything."""
    lowest = {"MIN_COMPILE_TIME_SECS": "0", "MIN_ENTRY_SIZE_BYTES": "-1"}
    kept = {f"JAX_PERSISTENT_CACHE_{name}": value for name, value in lowest.items()}
    return kept | {"JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled"))}


def loaded(recipe: Recipe, data: Path) -> dict:
    found, _ = members(recipe, data)
    return parts(recipe, found, data, ("train", "validation"))


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def command(*arguments: object, **environment: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(Path(TINY).parents[2])} | environment
    whole = [sys.executable, "-m", "edge_app", "train", *map(str, arguments)]
    return subprocess.Popen(whole, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen) -> None:
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said


def test_a_run_leaves_all_that_it_promises(run: Path, data: Path) -> None:
    described = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert described["finished"] and described["seed"] == 1 and described["images"] == {"train": 90, "validation": 30}
    assert (
        set(described["data_sha256"]) == {"train", "validation"} and described["versions"]["keras"] == keras.__version__
    )
    assert described["validation"]["val_emotion_accuracy"] == float(
        history(run)[described["selected"]["epoch"] - 1]["val_emotion_accuracy"]
    )
    assert {"recipe.yaml", "split.csv", "history.csv", "curves.png", "best.keras", "checkpoint.npz"} <= {
        p.name for p in run.iterdir()
    }
    assert not [p for p in run.rglob("*.part*")]


def test_curves_are_drawn_now_and_then_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    monkeypatch.setattr(callbacks, "draw_curves", lambda state: drawn.append(state.stage_epoch))
    monkeypatch.setattr(callbacks, "write_history", lambda state: None)
    for seconds, wanted in ((1e6, [5]), (0.0, [1, 2, 3, 4, 5, 5])):
        monkeypatch.setattr(callbacks.Checkpoint, "DRAWN", seconds)
        keeper = callbacks.Checkpoint(SimpleNamespace(stage_epoch=0, save=lambda model: None))
        for epoch in range(5):
            keeper.on_epoch_end(epoch)
        keeper.on_train_end()
        assert drawn == wanted
        drawn.clear()


def test_the_model_takes_raw_pixels_and_gives_logits_by_head(run: Path) -> None:
    model = keras.models.load_model(run / "best.keras", compile=False)
    out = model.predict_on_batch(np.zeros((2, 24, 24, 1), np.float32))
    assert (
        [item.name for item in model.inputs] == ["image"] and set(out) == {"emotion"} and out["emotion"].shape == (2, 3)
    )
    assert {str(layer.dtype_policy.name) for layer in model.layers} == {"float32"}


def test_pictures_that_calmcam_cut_bring_their_crop(data: Path, tmp_path: Path) -> None:
    data = shutil.copytree(data, tmp_path / "data")
    (data / "crop.json").write_text('{"crop": {"margin": 0.2, "shift": 0.0, "align": "roll"}}', encoding="utf-8")
    start(Request(TINY, data, ("stages.0.epochs=1",), tmp_path / "run"))
    assert read_recipe(str(tmp_path / "run" / "recipe.yaml")).crop == Crop(0.2, 0.0, "roll")
    (data / "crop.json").write_text('{"crop": {"border": 0.2}}', encoding="utf-8")
    with pytest.raises(InputError, match="crop.json: expected .*margin, shift, align.* remove it"):
        start(Request(TINY, data, (), tmp_path / "bad"))


def test_data_sets_that_were_cut_differently_are_refused(data: Path, tmp_path: Path) -> None:
    heads = {"heads": [{"name": name, "labels": ["angry", "happy", "sad"], "data": name} for name in ("one", "two")]}
    for name in ("one", "two"):
        shutil.copytree(data, tmp_path / name)
        text = json.dumps({"crop": {"margin": len(name) - 2 + 0.1 * (name == "two"), "shift": 0.0, "align": "none"}})
        (tmp_path / name / "crop.json").write_text(text, encoding="utf-8")
    both = {name: tmp_path / name for name in ("one", "two")}
    with pytest.raises(SettingsError, match="/one, .*/two: their crop.json differ"):
        start(Request(TINY, both, (f"heads={json.dumps(heads['heads'])}",), tmp_path / "run"))


def test_a_second_run_in_the_same_place_is_refused(run: Path, data: Path) -> None:
    with pytest.raises(OutputError, match="holds a run already"):
        start(Request(TINY, data, (), run))
    with pytest.raises(InputError, match="finished"):
        start(Request(None, None, resume=run))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_run_goes_on_with_the_same_curve(backend: str, data: Path, compiled: dict, tmp_path: Path) -> None:
    begun, around = (TINY, "--data", data, "-o"), compiled | {"KERAS_BACKEND": backend}
    finish(command(*begun, whole := tmp_path / "whole", **around))
    killed = command(*begun, tmp_path / "killed", **around)
    while "epoch 2/" not in (line := killed.stdout.readline()):
        assert line, "ended before it could be killed"
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    finish(command("--resume", tmp_path / "killed", **around))
    for one, other in zip(history(whole), history(tmp_path / "killed"), strict=True):
        for name in ("loss", "learning_rate", "val_emotion_loss", "val_emotion_accuracy"):
            assert float(one[name]) == pytest.approx(float(other[name]), rel=2e-3, abs=1e-6), name
    losses = [float(row["loss"]) for row in history(whole)]
    assert losses[-1] < losses[0] / 2


def stopped_before_rounding(run: Path, patch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    patch.setattr("trainer.train.rounded", stop)


def stopped_with_new_best_weights(run: Path, patch: pytest.MonkeyPatch) -> None:
    """In the first epoch of the second stage, when `best.keras` is its own and the checkpoint is not."""

    def stop(self: object, epoch: int, logs: object = None) -> None:
        if self._state.stage == 1:
            best = keras.models.load_model(run / "best.keras", compile=False)
            best.set_weights(self.model.get_weights())
            save_plain(best, run / "best.keras")
            raise KeyboardInterrupt

    patch.setattr("trainer.callbacks.Patience.on_epoch_end", stop)


def stopped_within_rounding(run: Path, patch: pytest.MonkeyPatch) -> None:
    def stop(self: object, epoch: int, logs: object = None) -> None:
        if self._state.stage == 1 and epoch == 1:
            raise KeyboardInterrupt

    patch.setattr("trainer.callbacks.Patience.on_epoch_end", stop)


def test_a_run_stopped_around_a_rounding_stage_goes_on_with_the_same_curve(
    data: Path, tmp_path: Path, monkeypatch
) -> None:
    stages = "{name: one, epochs: 1, learning_rate: 0.01}, {name: two, epochs: 2, learning_rate: 0.02, rounding: true}"
    recipe = read_recipe(TINY, ("options.dropout=0.5", f"stages=[{stages}]"))
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    whole.mkdir(), stopped.mkdir()
    wanted = fit(recipe, given := loaded(recipe, data), whole).history
    for stop in (stopped_before_rounding, stopped_with_new_best_weights, stopped_within_rounding):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            stop(stopped, patch)
            fit(recipe, given, stopped, resume=stop is not stopped_before_rounding)
    again = fit(recipe, given, stopped, resume=True).history
    assert [row["loss"] for row in again] == pytest.approx([row["loss"] for row in wanted], rel=1e-5)


def test_the_last_weights_are_kept_where_validation_chooses_nothing(data: Path, tmp_path: Path) -> None:
    stages = "stages=[{name: one, epochs: 3, learning_rate: 0.02}, {name: two, epochs: 1, learning_rate: 1.0e+6}]"
    recipe = read_recipe(TINY, ("select=last", "clip=0", "ema=0", stages))
    state = fit(recipe, loaded(recipe, data), tmp_path)
    scores = [row["val_score"] for row in state.history]
    assert scores[-1] == state.history[-1]["val_emotion_accuracy"] < max(scores)
    assert state.best_epoch == 4


def test_a_run_killed_between_two_stages_goes_on_with_the_same_dropout(data: Path, tmp_path: Path) -> None:
    stages = "stages=[{name: one, epochs: 1, learning_rate: 0.01}, {name: two, epochs: 1, learning_rate: 0.01}]"
    recipe = read_recipe(TINY, ("options.dropout=0.5", stages))
    whole, first = tmp_path / "whole", tmp_path / "first"
    whole.mkdir(), first.mkdir()
    given = loaded(recipe, data)
    history = fit(recipe, given, whole).history
    fit(replace(recipe, stages=recipe.stages[:1]), given, first)
    again = fit(recipe, given, first, resume=True).history
    assert [row["loss"] for row in again] == pytest.approx([row["loss"] for row in history], rel=1e-5)
    if keras.backend.backend() == "tensorflow":
        assert {path.name for path in (first / "tensorboard").iterdir()} == {"one", "two"}


def test_selection_looks_at_the_measure_that_the_recipe_names() -> None:
    recipe = replace(read_recipe(TINY), select="f1")
    images = np.zeros((4, 24, 24, 1), np.uint8)
    labels = {"emotion": np.array([0, 0, 1, 2])}
    part = Part(images, {}, labels, ("",) * 4, ("",) * 4, {"emotion": np.zeros((4, 3))})
    row = judge(recipe, part, {"emotion": np.eye(3, dtype=np.float32)[[0, 0, 2, 2]]})
    assert row["val_score"] == row["val_emotion_f1"] == pytest.approx(2 / 3) != row["val_emotion_macro_f1"]


def test_selection_by_agreement_listens_to_labels_and_to_voters() -> None:
    recipe = read_recipe(TINY, ("select=agreement",))
    truth = {"emotion": np.array([0, 0, 1, 2])}
    votes = np.array([[9, 1, 0], [4, 6, 0], [5, 5, 0], [0, 0, 0]], np.float32)  # two majorities: label 0 and label 1
    answers = {"emotion": np.eye(3, dtype=np.float32)[[0, 0, 1, 1]]}
    part = Part(np.zeros((4, 24, 24, 1), np.uint8), {}, truth, ("",) * 4, ("",) * 4, {"emotion": votes})
    row = judge(recipe, part, answers)
    assert (row["val_emotion_accuracy"], row["val_emotion_majority"]) == (0.75, 0.5)
    assert row["val_score"] == row["val_emotion_agreement"] == 0.625
    row = judge(recipe, replace(part, votes={"emotion": np.zeros((4, 3), np.float32)}), answers)
    assert row["val_score"] == 0.75 and "val_emotion_majority" not in row


STAGES = (
    "ema=0.0",
    "options.dropout=0.5",
    "stages=[{name: one, epochs: 1, learning_rate: 0.01}, {name: two, epochs: 1, learning_rate: 0.01},"
    " {name: three, epochs: 1, learning_rate: 1.0e-12, start: average, teacher_share: 0.5}]",
)


def test_a_stage_starts_from_the_average_of_the_earlier_ones_and_learns_from_it(data: Path, tmp_path: Path) -> None:
    recipe = read_recipe(TINY, STAGES)
    given, whole, parted = loaded(recipe, data), tmp_path / "whole", tmp_path / "parted"
    whole.mkdir(), parted.mkdir()
    history = fit(recipe, given, whole).history
    ended = [keras.models.load_model(whole / f"stage-{n}.keras", compile=False).get_weights() for n in (1, 2)]
    weights = network(recipe).weights
    with np.load(whole / "checkpoint.npz") as saved:
        left = [saved[name] for name in saved.files if name.startswith("model")]
    kernels = [np.mean([ended[0][i], ended[1][i]], axis=0) for i, one in enumerate(weights) if one.name == "kernel"]
    near = {"rtol": 0, "atol": 1e-9}  # the third stage's steps are of 1e-12
    assert kernels and all(
        any(one.shape == mean.shape and np.allclose(one, mean, **near) for one in left) for mean in kernels
    )
    fit(replace(recipe, stages=recipe.stages[:2]), given, parted)
    untaught = shutil.copytree(parted, tmp_path / "untaught")
    again = fit(recipe, given, parted, resume=True).history
    assert [row["loss"] for row in again] == pytest.approx([row["loss"] for row in history], rel=1e-5)
    plain = replace(recipe, stages=(*recipe.stages[:2], replace(recipe.stages[2], teacher_share=0.0)))
    alone = fit(plain, given, untaught, resume=True).history
    assert alone[-1]["loss"] != pytest.approx(history[-1]["loss"], rel=1e-3)


@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_a_teacher_takes_its_share_of_the_targets(kind: str) -> None:
    labels = LABELS if kind == "softmax" else LABELS[:2]
    recipe = read_recipe(TINY, (f"heads.0.kind={kind}", f"heads.0.labels=[{', '.join(labels)}]", "augment.flip=0.5"))
    random = np.random.default_rng(0)
    half = random.integers(0, 255, (5, 24, 12, 1))
    images = np.concatenate([half, half[:, :, ::-1]], axis=2).astype(np.float32)  # mirrored, they are the same
    model = network(recipe)
    logits = model.predict_on_batch(images)["emotion"]
    answers = (
        np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) if kind == "softmax" else 1 / (1 + np.exp(-logits))
    )
    wanted = random.random(answers.shape).astype(np.float32)
    for models in ([model], [model, model]):
        got = Teacher(models, recipe, share=0.25)(images, {"emotion": wanted}, random)["emotion"]
        np.testing.assert_allclose(got, 0.75 * wanted + 0.25 * answers, atol=1e-5)


def test_a_teacher_answers_once_for_the_moved_views_of_a_picture(tmp_path: Path) -> None:
    recipe = read_recipe(TINY, ("augment={flip: 0.0, shift: 0.0, scale: 0.0, rotate: 0.0, erase: 1.0}",))
    random = np.random.default_rng(0)
    images, wanted = random.integers(0, 255, (300, 24, 24, 1), np.uint8), {"emotion": np.zeros((300, 3), np.float32)}
    teacher = Teacher([network(recipe)], recipe, share=1.0)
    plain = teacher(images.astype(np.float32), wanted, random)["emotion"]
    still = teacher.settled(images, wanted, 2, tmp_path / "still.npz")["emotion"]
    np.testing.assert_allclose(still, plain, atol=1e-5)  # nothing moves, and nothing is blanked
    teacher._recipe = replace(recipe, augment=replace(recipe.augment, flip=0.5, erase=0.0))
    views = teacher.settled(images, wanted, 16, tmp_path / "views.npz")["emotion"]
    kept = Teacher([], recipe, share=1.0).settled(images, wanted, 16, tmp_path / "views.npz")["emotion"]
    assert np.array_equal(kept, views) and not np.allclose(views, plain, atol=1e-5)


def test_another_run_teaches_from_the_first_stage_on(data: Path, run: Path, tmp_path: Path) -> None:
    taught = ("stages.0.epochs=1", "stages.0.teacher_share=0.9", f"stages.0.teachers=[{run}]")
    losses = []
    once = (*taught, "stages.0.teacher_views=2")
    for name, changes in (
        ("plain", taught[:1]),
        ("taught", taught),
        ("again", taught),
        ("once", once),
        ("other", (*taught, "seed=2")),
    ):
        start(Request(TINY, data, changes, tmp_path / name))
        with (tmp_path / name / "history.csv").open() as file:
            losses.append(next(csv.DictReader(file))["loss"])
    assert losses[1] == losses[2] != losses[0]
    assert losses[4] not in losses[:4], "another seed divides the data alike, so it can be taught"
    assert losses[3] not in losses[:3] and (tmp_path / "once" / "teacher-1.npz").is_file()


def test_a_run_that_does_not_fit_does_not_teach(data: Path, run: Path, tmp_path: Path) -> None:
    taught = ("stages.0.epochs=1", "stages.0.teacher_share=0.5", f"stages.0.teachers=[{run}]")
    with pytest.raises(SettingsError, match="cannot teach here; expected the same heads and input"):
        start(Request(TINY, data, (*taught, "input.size=32"), tmp_path / "size"))
    with pytest.raises(SettingsError, match="it learnt from [1-9][0-9]* of the pictures that judge"):
        start(Request(TINY, data, (*taught, "data.seed=5"), tmp_path / "seed"))
    twin = tmp_path / "twin"
    shutil.copytree(run, twin)
    rows = (twin / "split.csv").read_text().splitlines()
    double = next(row for row in rows if ",train," in row).replace(",train,", ",test,")
    (twin / "split.csv").write_text("\n".join([*rows, double]) + "\n")
    check_teacher(run, read_recipe(str(run / "recipe.yaml")), twin)  # the published data hold such doubles
    with pytest.raises(SettingsError, match="none: expected the folder of a training run .*leave it out"):
        start(Request(TINY, data, (*taught, f"stages.0.teachers=[{tmp_path / 'none'}]"), tmp_path / "none-run"))


def test_the_best_weights_of_all_stages_are_kept(data: Path, tmp_path: Path) -> None:
    recipe = read_recipe(
        TINY,
        (
            "ema=0.0",
            "stages=[{name: good, epochs: 8, learning_rate: 0.01}, {name: wild, epochs: 1, learning_rate: 0.9}]",
        ),
    )
    state = fit(recipe, loaded(recipe, data), tmp_path)
    assert state.best_stage == "good" and state.history[-1]["val_score"] < state.best
    assert [row["stage"] for row in state.history] == ["good"] * 8 + ["wild"]


def test_a_backbone_that_learnt_what_judges_is_refused(data: Path, run: Path, tmp_path: Path) -> None:
    once = ("stages.0.epochs=1",)
    for place in (run, run / "best.keras"):
        with pytest.raises(SettingsError, match="cannot be the backbone here; it learnt from [1-9][0-9]* of the pictures that judge; train it"):
            start(Request(TINY, data, (*once, f"backbone={place}", "data.seed=5"), tmp_path / place.name))
        assert not (tmp_path / place.name).exists()
    with pytest.raises(SettingsError, match="cannot be the backbone here.*with --folds every picture judges once"):
        start(Request(TINY, data, (*once, f"backbone={run}"), tmp_path / "folds", folds=2))
    start(Request(TINY, data, (*once, f"backbone={run}", "seed=2"), tmp_path / "alike"))
    told = json.loads((run / "run.json").read_text())
    shutil.copytree(run, tmp_path / "killed")
    (tmp_path / "killed" / "run.json").write_text(json.dumps(told | {"finished": False}))
    with pytest.raises(InputError, match="killed: is not finished; go on with calmcam train --resume"):
        start(Request(TINY, data, (*once, f"backbone={tmp_path / 'killed'}"), tmp_path / "from-killed"))


def test_a_frozen_backbone_stands_still(data: Path, tmp_path: Path) -> None:
    recipe = read_recipe(TINY, ("stages.0.epochs=1", "stages.0.freeze=1.0", "ema=0.0"))
    fit(recipe, loaded(recipe, data), tmp_path)
    keras.utils.set_random_seed(recipe.seed)
    fresh, trained = network(recipe), keras.models.load_model(tmp_path / "best.keras", compile=False)
    same = {
        layer.name: all(map(np.array_equal, layer.get_weights(), trained.get_layer(layer.name).get_weights()))
        for layer in fresh.layers
    }
    assert same.pop("emotion") is False
    assert all(same.values())


def test_frozen_normalisation_keeps_its_statistics_while_the_rest_learns(data: Path, tmp_path: Path) -> None:
    recipe = read_recipe(TINY, ("stages.0.epochs=1", "stages.0.freeze_norm=true", "ema=0.0"))
    fit(recipe, loaded(recipe, data), tmp_path)
    keras.utils.set_random_seed(recipe.seed)
    fresh, trained = network(recipe), keras.models.load_model(tmp_path / "best.keras", compile=False)
    for layer in (layer for layer in fresh.layers if layer.weights):
        same = all(map(np.array_equal, layer.get_weights(), trained.get_layer(layer.name).get_weights()))
        assert same is isinstance(layer, keras.layers.BatchNormalization), layer.name


def test_a_rounding_stage_learns_through_the_rounding_and_keeps_a_plain_model(data: Path, tmp_path: Path) -> None:
    recipe = read_recipe(TINY, ("stages.0.epochs=6", "stages.0.rounding=true"))
    state = fit(recipe, loaded(recipe, data), tmp_path)
    assert state.history[-1]["loss"] < state.history[0]["loss"] / 1.5
    kept = keras.models.load_model(tmp_path / "best.keras", compile=False)  # no class of its own in the file
    images = np.random.default_rng(0).integers(0, 255, (4, 24, 24, 1)).astype(np.float32)
    near, plain = rounded(kept).predict_on_batch(images)["emotion"], kept.predict_on_batch(images)["emotion"]
    assert 0 < np.abs(near - plain).max() < 0.2 * np.abs(plain).max()


def test_rounding_leaves_256_levels_and_all_of_the_gradient() -> None:
    values = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)
    levels = np.asarray(straight_through(keras.ops.convert_to_tensor(values)))
    assert len(np.unique(levels.round(5))) <= 256
    assert np.abs(levels - values).max() <= (values.max() - values.min()) / 255 / 2 + 1e-5


def test_early_stopping_ends_a_stage(data: Path, tmp_path: Path) -> None:
    changes = (
        "stages.0.epochs=30",
        "stages.0.learning_rate=1e-7",
        "stages.0.schedule=plateau",
        "stages.0.stop_after=2",
        "stages.0.reduce_after=1",
    )
    recipe = read_recipe(TINY, (*changes, "ema=0.0"))
    state = fit(recipe, loaded(recipe, data), tmp_path)
    assert state.stage_over and len(state.history) < 30
    assert state.history[-1]["learning_rate"] < 1e-7


def test_a_lost_loss_ends_with_a_sentence(data: Path, tmp_path: Path) -> None:
    recipe = read_recipe(TINY, ("stages.0.learning_rate=1e30", "stages.0.schedule=constant"))
    with pytest.raises(CalmcamError, match="learning_rate"):
        fit(recipe, loaded(recipe, data), tmp_path)


def test_batches_depend_on_seed_and_epoch_alone(data: Path) -> None:
    recipe = read_recipe(TINY, ("balance.per_class=50", "augment.mixup=0.2"))
    part = loaded(recipe, data)["train"]
    one, other = (Batches(part, recipe, recipe.stages[0], epoch=3) for _ in range(2))
    images, targets, _ = one[2]
    assert np.array_equal(images, other[2][0]) and np.array_equal(targets["emotion"], other[2][1]["emotion"])
    assert images.dtype == np.float32 and 1 < images.max() <= 255
    other[3]
    other.begin(4)  # what was made ahead belongs to an epoch that is over
    assert not np.array_equal(images, other[4][0])
    assert np.array_equal(Batches(part, recipe, recipe.stages[0], epoch=4)[4][0], other[4][0])
    assert len(one) == 150 // recipe.batch


@pytest.mark.parametrize("change", ["balance.per_class=50", "balance.power=1", "balance.power=0.25"])
def test_an_epoch_shows_every_class_as_often_as_asked(change: str) -> None:
    recipe = read_recipe(TINY, (change,))
    labels = np.repeat([0, 1, 2], [17, 90, 41])
    blank = np.zeros((len(labels), 24, 24, 1), np.uint8)
    ones = {"emotion": np.ones(len(labels), np.float32)}
    files = ("",) * len(labels)
    part = Part(blank, ones, {"emotion": labels}, files, files, {"emotion": np.zeros((len(labels), 3))})
    batches = Batches(part, recipe, recipe.stages[0])
    wanted = np.bincount(labels, batches._counts)
    if "per_class" in change:
        assert wanted == pytest.approx([50, 50, 50])
    for epoch in range(20):
        batches.begin(epoch)
        assert np.abs(np.bincount(labels[batches._order]) - wanted).max() < 1 + 1e-6
        shown = np.bincount(batches._order, minlength=len(labels))
        assert np.abs(shown - batches._counts).max() < 1 + 1e-6, "each picture as often as the others of its class"
    assert len(batches) == len(batches._order) // recipe.batch


def test_the_average_of_a_later_stage_forgets_what_it_began_with(data: Path, tmp_path: Path) -> None:
    stages = "stages=[{name: one, epochs: 4, learning_rate: 0.02}, {name: two, epochs: 2, learning_rate: 1.0e-12}]"
    recipe = read_recipe(TINY, ("select=last", "ema=0.999", stages))
    state = fit(recipe, loaded(recipe, data), tmp_path)
    first, last = (keras.models.load_model(tmp_path / name, compile=False) for name in ("stage-1.keras", "best.keras"))
    means = [
        (old.moving_mean.numpy(), new.moving_mean.numpy())
        for old, new in zip(first.layers, last.layers, strict=True)
        if isinstance(old, keras.layers.BatchNormalization)
    ]
    assert state.averaged_from == 4 * state.steps // 6
    assert all(np.abs(old - new).max() > 0.05 * np.abs(old).max() for old, new in means), "the statistics are anew"


def test_folds_of_which_some_lack_a_measure_are_summed_up() -> None:
    rows = [
        {"network": "a", "fold": "1", "accuracy": 0.5, "majority": 0.75},
        {"network": "a", "fold": "2", "accuracy": 1.0},
    ]
    for order in (rows, rows[::-1]):
        (line,) = summary(order)
        assert "accuracy 0.750 ± 0.354" in line and "majority 0.750 (one fold)" in line


def test_a_batch_that_cannot_be_made_says_so_where_it_is_asked_for(data: Path) -> None:
    recipe = read_recipe(TINY)
    part = loaded(recipe, data)["train"]
    broken = replace(part, images=part.images[:, :, :, 0])  # a dimension is missing
    with pytest.raises(ValueError):
        Batches(broken, recipe, recipe.stages[0])[0]


def test_two_heads_learn_together_and_weightless_images_do_not_count(tmp_path: Path) -> None:
    pictures.write(tmp_path / "one", ("happy", "sad"), 30)
    pictures.write(tmp_path / "two", ("happy", "sad", "shy"), 30, seed=1)
    recipe = tmp_path / "two.yaml"
    recipe.write_text(
        "{family: residual, options: {channels: [8, 16], blocks: [0, 0], dropout: 0.0}, input: {size: 24}, batch: 8, "
        "precision: float32, heads: ["
        "{name: one, data: one, kind: sigmoid, labels: [happy, sad]}, {name: two, data: two, "
        "labels: [happy, sad, shy]}, {name: domain, data: '*', labels: [one, two]}], data: {validation: 0.2}, "
        "stages: [{name: a, epochs: 6, learning_rate: 0.02, loss_weights: {domain: 0.1}, label_smoothing: 0.1}]}",
        encoding="utf-8",
    )
    start(Request(str(recipe), tmp_path, (), tmp_path / "run"))
    last = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))["validation"]
    assert last["val_one_accuracy"] > 0.6 and last["val_two_accuracy"] > 0.5
    assert last["val_score"] == pytest.approx(
        np.mean([last[f"val_{name}_macro_f1"] for name in ("one", "two", "domain")])
    )


def test_folds_hold_out_every_image_once(data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("trainer.runs.CNN_EPOCHS", 1)
    lines = start(Request(TINY, data, ("stages.0.epochs=1",), tmp_path / "folds", folds=2, compare_cnn=True))
    with (tmp_path / "folds" / "folds.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["network"], row["fold"]) for row in rows] == [
        ("residual", "1"),
        ("residual", "2"),
        ("cnn", "1"),
        ("cnn", "2"),
    ]
    assert lines[0].startswith("residual, 2 folds: emotion_accuracy") and lines[1].startswith("cnn, 2 folds")
    with pytest.raises(OutputError, match="holds a run already; go on with --resume"):
        start(Request(TINY, data, (), tmp_path / "folds", folds=2))
    (tmp_path / "full" / "of things").mkdir(parents=True)
    with pytest.raises(OutputError, match="is not empty"):
        start(Request(TINY, data, (), tmp_path / "full", folds=2))


def test_folds_leave_the_test_part_out(data: Path, tmp_path: Path) -> None:
    changes = ("stages.0.epochs=1", "data.test=0.3")
    start(Request(TINY, data, changes, tmp_path / "folds", folds=2))
    held = {one.item.file for one in members(read_recipe(TINY, changes), data)[0] if one.split == "test"}
    for fold in ("residual-1", "residual-2"):
        with (tmp_path / "folds" / fold / "split.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert held and not held & {row["file"] for row in rows} and len(rows) + len(held) == 120
    with pytest.raises(InputError, match="holds the runs of --folds; name one of them, such as .*residual-1"):
        trained(tmp_path / "folds")


def test_folds_that_were_stopped_go_on(data: Path, tmp_path: Path, monkeypatch) -> None:
    asked = Request(TINY, data, ("stages.0.epochs=2",), tmp_path / "whole", folds=2)
    whole = start(asked)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("trainer.callbacks.Patience.on_epoch_end", stop)
        start(replace(asked, output=tmp_path / "stopped"))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("trainer.runs.write_folds", stop)
        start(Request(None, None, resume=tmp_path / "stopped"))
    again = start(Request(None, None, resume=tmp_path / "stopped"))
    assert again[:-1] == whole[:-1]
    for one, other in zip(*(read_folds(tmp_path / name / "folds.csv") for name in ("whole", "stopped")), strict=True):
        assert (one.pop("network"), one.pop("fold")) == (other.pop("network"), other.pop("fold"))
        assert one == pytest.approx(other, rel=2e-3, abs=1e-6)
    with pytest.raises(InputError, match="finished"):
        start(Request(None, None, resume=tmp_path / "stopped"))


def test_a_comparison_that_was_stopped_goes_on_with_both(data: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("trainer.runs.CNN_EPOCHS", 1)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("trainer.callbacks.Patience.on_epoch_end", stop)
        start(Request(TINY, data, ("stages.0.epochs=1",), tmp_path / "both", compare_cnn=True))
    again = Request(None, None, resume=tmp_path / "both", runs_dir=tmp_path / "of the settings")
    assert len(start(again)) == 2 and (tmp_path / "both" / "cnn" / "best.keras").is_file()
    with pytest.raises(InputError, match="finished"):
        start(again)


def test_a_run_that_never_began_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        start(Request(TINY, tmp_path / "missing", (), tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_a_backbone_brings_its_input_but_not_its_crop_where_one_was_asked_for() -> None:
    assert resolve(read_recipe("teasing")).crop == read_recipe("emotions").crop
    assert resolve(read_recipe("teasing", ("crop.margin=0.3",))).crop.margin == 0.3


def test_from_nothing_nothing_is_frozen_and_the_plain_cnn_may_finish() -> None:
    recipe = resolve(read_recipe("teasing", ("backbone=none",)))
    assert [stage.freeze for stage in recipe.stages] == [0.0, 0.0]
    (stage,) = plain_cnn(recipe).stages
    assert (stage.epochs, stage.stop_after, stage.freeze) == (40, 0, 0.0)


def test_check_reports_without_training(data: Path, tmp_path: Path) -> None:
    text = "\n".join(start(Request(TINY, data, (), tmp_path / "check", check=True)))
    assert "happy" in text and "unreadable: 0" in text and "fewer than 50" in text
    assert (tmp_path / "check" / "samples.jpg").stat().st_size > 1000
    assert "calmcam crop" not in text and "groups that stay together: 1" in text


def test_check_tells_what_cannot_be_divided_and_what_a_test_folder_shares(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    for label in LABELS:
        for part, person in (("train", "p1"), ("test", "p1"), ("test", "p2")):
            (tmp_path / "data" / part / label).mkdir(parents=True, exist_ok=True)
            picture = random.integers(0, 255, (24, 24), np.uint8)
            cv2.imwrite(str(tmp_path / "data" / part / label / f"{person}_a.png"), picture)
    lines = start(Request(TINY, tmp_path / "data", ("data.group=/(p[0-9])_",), tmp_path / "check", check=True))
    assert any("groups that stay together: 2, but 1 stand in train and in test" in line for line in lines)
    assert any("cannot be trained on yet: " in line and "in the train part; give more groups" in line for line in lines)
    shutil.rmtree(tmp_path / "data" / "train" / LABELS[0])
    lines = start(Request(TINY, tmp_path / "data", (), tmp_path / "check-again", check=True))
    assert f"cannot be trained on yet: no training picture of {LABELS[0]}" in lines


def test_frames_of_a_clip_stay_together(data: Path, tmp_path: Path) -> None:
    """As `calmcam crop` names them; the same clip name in another class is another clip."""
    recipe = read_recipe(TINY, ("data.near=0",))
    clips = tmp_path / "clips"
    for label in LABELS:
        (clips / label).mkdir(parents=True)
        for number, path in enumerate(sorted((data / "train" / label).glob("*.png"))):
            shutil.copy(path, clips / label / f"clip{number % 5}.f{number:06d}.png")
    found, _ = members(recipe, clips)
    sides = {}
    for member in found:
        sides.setdefault(member.item.file.split(".f")[0], set()).add(member.split)
    assert len(sides) == 15 and all(len(splits) == 1 for splits in sides.values())


def test_folders_of_other_names_are_answered_with_the_way_out(tmp_path: Path) -> None:
    pictures.write(tmp_path / "data", ("보통", "약올리기"), 3)
    with pytest.raises(InputError, match=r"보통/ \(3 files\).*--set 'heads.0.labels=\[.보통., .약올리기.\]'") as said:
        start(Request("teasing", tmp_path / "data", (), tmp_path / "run"))
    _, _, advice = str(said.value).partition(": --set ")
    changes = tuple(word for word in shlex.split(advice) if word != "--set")
    assert read_recipe("teasing", changes).heads[0].labels == ("보통", "약올리기")
    with pytest.raises(InputError, match="found 3 pictures in no such folder"):
        start(Request(TINY, tmp_path / "data" / "보통", (), tmp_path / "run"))


def test_the_data_are_looked_at_for_pictures_that_are_no_cut_faces(tmp_path: Path) -> None:
    for label in ("angry", "happy", "neutral"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(2):
            image = np.full((72, 128), 40 * number, np.uint8)
            cv2.imencode(".png", image)[1].tofile(tmp_path / "data" / label / f"{number}.png")
    text = "\n".join(start(Request(TINY, tmp_path / "data", (), tmp_path / "check", check=True)))
    assert "6 are far from square: expected cut faces; calmcam crop cuts them" in text


def test_a_backbone_brings_its_network_and_weights(run: Path, tmp_path: Path) -> None:
    recipe = read_recipe("teasing", (f"backbone={run}",))
    resolved = resolve(recipe)
    assert (resolved.family, resolved.input.size, resolved.options["dropout"]) == ("residual", 24, 0.3)
    model = network(resolved)
    assert start_weights(model, resolved, np.empty(0)) == 4
    source = keras.models.load_model(run / "best.keras", compile=False)
    assert np.array_equal(
        model.get_layer("s1_in_conv").get_weights()[0], source.get_layer("s1_in_conv").get_weights()[0]
    )
    write_backbone(source, run / "recipe.yaml", tmp_path / "backbone.npz")
    assert (tmp_path / "recipe.yaml").read_bytes() == (run / "recipe.yaml").read_bytes()
    again = network(resolved)
    assert start_weights(again, read_recipe(TINY, (f"backbone={tmp_path}",)), np.empty(0)) == 4


@pytest.mark.parametrize("family", families.known())
def test_every_family_keeps_the_contract(family: str) -> None:
    model = families.build(family, (48, 48, 3), {"a": 3, "b": 1}, {})
    out = model.predict_on_batch(np.full((1, 48, 48, 3), 128, np.float32))
    assert {name: value.shape for name, value in out.items()} == {"a": (1, 3), "b": (1, 1)}
    assert [item.name for item in model.inputs] == ["image"] and model.get_layer("pool") is not None


def test_smooth_pooling_feels_a_step_of_a_pixel_less() -> None:
    """Features of the untrained network before its head, for a picture and for the same one a pixel aside."""
    scene = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (49, 49), np.uint8), (0, 0), 2)
    pair = np.stack([scene[:48, :48], scene[:48, 1:]])[..., None].astype(np.float32)
    changes = []
    for smooth in (False, True):
        keras.utils.set_random_seed(1)
        model = families.build("residual", (48, 48, 1), {"a": 3}, {"smooth": smooth, "dropout": 0.0})
        features = keras.Model(model.inputs, model.get_layer("pool").output).predict_on_batch(pair)
        changes.append(np.abs(features[0] - features[1]).mean() / np.abs(features).mean())
    assert changes[1] < 0.9 * changes[0]


def test_unknown_family_and_option() -> None:
    with pytest.raises(SettingsError, match="did you mean 'residual'"):
        families.build("residul", (24, 24, 1), {"a": 2}, {})
    with pytest.raises(SettingsError, match="did you mean 'dropout'"):
        families.build("cnn", (24, 24, 1), {"a": 2}, {"dropuot": 0.1})
    with pytest.raises(SettingsError, match="colour=rgb"):
        families.build("efficientnet_b0", (48, 48, 1), {"a": 2}, {})


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OutputError, "disk is full.*--resume"),
        (MemoryError(), CalmcamError, "out of memory.*batch=4"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), CalmcamError, "out of memory.*batch=4"),
        (RuntimeError("RESOURCE_EXHAUSTED: Failed to allocate 9 bytes"), CalmcamError, "out of memory.*batch=4"),
        (RuntimeError("ResourceExhausted: events.v2; No space left on device"), OutputError, "disk is full.*--resume"),
        (PermissionError(errno.EACCES, "Permission denied"), OutputError, "Permission denied.*another folder with -o"),
        (RuntimeError("something else"), RuntimeError, "something else"),
    ],
)
def test_full_disk_and_exhausted_memory_have_their_sentences(error: Exception, kind: type, sentence: str) -> None:
    with pytest.raises(kind, match=sentence), explained(read_recipe(TINY), Path("run")):
        raise error


def test_a_full_disk_in_the_middle_of_fit_has_its_sentence(tmp_path: Path) -> None:
    class Full(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            with whole(tmp_path / "checkpoint.npz"):
                raise OSError(errno.ENOSPC, "No space left on device")

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    with pytest.raises(OutputError, match="disk is full.*--resume"), explained(read_recipe(TINY), Path("run")):
        model.fit(np.zeros((2, 1)), np.zeros((2, 1)), verbose=0, callbacks=[Full()])


@pytest.mark.parametrize(
    ("changes", "kind", "sentence"),
    [
        (("options.channels=5",), SettingsError, "family residual: cannot be built with options"),
        (("options.dropout=2",), SettingsError, "cannot be built with options"),
        (("options.blocks=[1]",), SettingsError, "cannot be built with options"),
        (("backbone=/no/such.keras",), ModelError, "/no/such.keras: expected a .keras file"),
        (("backbone=/no/such.dat",), ModelError, "/no/such.dat: "),
        (("backbone=resnet50",), ModelError, "unknown backbone 'resnet50' .known: dlib, emotions, imagenet, none.; or name a .keras"),
        (("backbone=imagnet",), ModelError, "unknown backbone 'imagnet'; did you mean 'imagenet'?"),
        (
            ("stages.0.teacher_share=0.5", "stages.0.teachers=[/no/run]"),
            SettingsError,
            "/no/run: expected the folder of a training run",
        ),
        (("backbone=imagenet",), SettingsError, "family residual: has no ImageNet weights"),
    ],
)
def test_a_network_that_cannot_be_leaves_no_run(
    data: Path, tmp_path: Path, changes: tuple, kind: type, sentence: str
) -> None:
    with pytest.raises(kind, match=sentence):
        start(Request(TINY, data, changes, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_pretrained_weights_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(**_: object) -> None:
        raise Exception("URL fetch failure on https://example.org/weights.h5: None")  # as Keras says it

    offline.__name__ = "EfficientNetB0"
    with pytest.raises(ModelError, match="cannot be downloaded .*--set backbone=none"):
        families.application(offline, (48, 48, 3), "imagenet")


@pytest.mark.parametrize(
    ("backend", "sentence"),
    [("tensorflw", "did you mean 'tensorflow'"), ("torch", "pip install torch")],
)
def test_a_backend_that_is_not_there(data: Path, backend: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer import cli

    monkeypatch.setenv("KERAS_BACKEND", backend)
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    told = CliRunner().invoke(cli.train, [TINY, "--data", str(data)])
    assert isinstance(told.exception, CalmcamError) and sentence in str(told.exception)


def test_any_folder_can_be_checked(data: Path, tmp_path: Path) -> None:
    pictures.write(tmp_path / "mine", ("약올리기", "보통"), 3)
    lines = start(Request(str(tmp_path / "mine"), None, (), tmp_path / "out", check=True))
    assert any("약올리기" in line and line.split()[1] == "3" for line in lines)
    pictures.write(tmp_path / "two", ("anger", "happy", "valid/Angry", "valid/Happiness"), 3)
    lines = start(Request(str(tmp_path / "two"), None, (), runs_dir=tmp_path / "runs", check=True))
    head = next(number for number, line in enumerate(lines) if line.split()[:1] == ["class"])
    assert [line.split()[1] for line in lines[head + 1 : head + 3]] == ["6", "6"], "its own words, one row each"
    assert "commonest sizes" in lines[head + 3] and (tmp_path / "runs" / "train" / "two-check").is_dir()
    pictures.write(tmp_path / "one", ("shy",), 3)
    with pytest.raises(InputError, match="one: expected two or more folders, one per class; found only shy/"):
        start(Request(str(tmp_path / "one"), None, check=True))


def test_a_check_of_pictures_without_class_folders_asks_for_some(tmp_path: Path) -> None:
    pictures.write(tmp_path, ("mine",), 3)
    with pytest.raises(InputError, match="mine: expected a folder per class, found 3 pictures beside them"):
        start(Request(str(tmp_path / "mine"), None, (), runs_dir=tmp_path / "runs", check=True))


def test_the_sample_sheet_has_a_row_for_every_class(tmp_path: Path) -> None:
    names = [f"약올리기{number}" for number in range(11)]
    pictures.write(tmp_path / "mine", names, 1)
    start(Request(str(tmp_path / "mine"), None, (), tmp_path / "out", check=True))
    sheet = cv2.imread(str(tmp_path / "out" / "samples.jpg"))
    rows = sheet[:, :96].reshape(11, 96, 96, 3)
    assert all(row.min() < 100 for row in rows), "each with its name"


def test_requests_that_say_too_little_or_too_much(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="expected the name of a recipe"):
        start(Request(None, data))
    with pytest.raises(InputError, match="expected --data"):
        start(Request(TINY, None))
    with pytest.raises(OutputError, match="name another one with -o"):
        start(Request(TINY, data, (), Path("/proc/run")))
    with pytest.raises(InputError, match="no training image of 'shy'.*labels=.*angry.*happy.*neutral"):
        start(Request(TINY, data, ("heads.emotion.labels=[angry, happy, neutral, shy]",), tmp_path))
    with pytest.raises(InputError, match="expected the folder of a training run"):
        start(Request(None, None, resume=data))
    with pytest.raises(SettingsError, match="goes on as the run was begun"):
        start(Request(None, None, ("batch=4",), resume=tmp_path))
    with pytest.raises(SettingsError, match="is the plain CNN already"):
        start(Request(TINY, data, ("family=cnn", "options={}"), tmp_path, compare_cnn=True))


@pytest.mark.parametrize("content", ['{"finished": fal', "[]", "\udcff"])
def test_a_damaged_record_of_a_run_has_its_sentence(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"run\.json: expected .*; restore it or train again"):
        start(Request(None, None, resume=tmp_path))


def test_damaged_scores_of_folds_have_their_sentence(tmp_path: Path) -> None:
    (tmp_path / "folds.csv").write_text("network,fold,teasing_f1\nresidual,1,0.9x\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"folds\.csv: cannot be read .*delete it"):
        read_folds(tmp_path / "folds.csv")


def test_a_broken_checkpoint_has_its_sentence(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match="no checkpoint to go on from"):
        State(tmp_path, read_recipe(TINY)).read_counters()


def test_a_sigmoid_head_learns_its_second_label():
    part = SimpleNamespace(labels={"h": np.array([0, 1, -1])}, votes={"h": np.zeros((3, 2))})
    head = SimpleNamespace(name="h", kind="sigmoid", labels=("no", "yes"))
    stage = SimpleNamespace(votes_share=0.5, label_smoothing=0.1)
    assert targets(part, head, stage)[:, 0].tolist() == pytest.approx([0.05, 0.95, 0.0])


def test_what_was_made_ahead_belongs_to_an_epoch_that_is_over():
    asked = read_recipe(TINY, ("balance.per_class=50",))
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 50)
    images = random.integers(0, 256, (150, 24, 24, 1), np.uint8)
    ones, votes, names = np.ones(150, np.float32), np.zeros((150, 3)), ("",) * 150
    part = Part(images, {"emotion": ones}, {"emotion": labels}, names, names, {"emotion": votes})
    batches = Batches(part, asked, asked.stages[0], epoch=3)
    batches[3]
    batches.begin(4)
    assert np.array_equal(batches[4][0], Batches(part, asked, asked.stages[0], epoch=4)[4][0])


def test_pictures_in_the_same_place_of_two_batches_are_moved_differently():
    asked = read_recipe(TINY, ("augment.brightness=0.2",))
    flat = np.full((64, 24, 24, 1), 128, np.uint8)
    ones = {"emotion": np.ones(64, np.float32)}
    part = Part(flat, ones, {"emotion": np.repeat([0, 1], 32)}, ("",) * 64, ("",) * 64, {"emotion": np.zeros((64, 3))})
    batches = Batches(part, asked, asked.stages[0])
    assert not np.array_equal(batches[0][0], batches[1][0])

"""Training: one path for all recipes, on every backend, through kills."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import fields, replace
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

import keras  # noqa: E402
import pictures  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from matplotlib.figure import Figure  # noqa: E402
from patience import PATIENCE  # noqa: E402
from tiny_training import TINY, history, loaded  # noqa: E402

from edge_app.errors import CalmcamError, InputError, OutputError, SettingsError  # noqa: E402
from edge_app.files import whole  # noqa: E402
from edge_app.manifest import Crop  # noqa: E402
from trainer import callbacks, train  # noqa: E402
from trainer.data import Part  # noqa: E402
from trainer.recipe_file import read_recipe  # noqa: E402
from trainer.runs import Request, start  # noqa: E402
from trainer.scores import judge  # noqa: E402
from trainer.state import State  # noqa: E402
from trainer.train import explained, fit  # noqa: E402

pytest_plugins = ("training_fixtures",)
ROOT = str(Path(__file__).parent.parent)


def test_a_run_leaves_all_that_it_promises(run: Path, data: Path) -> None:
    described = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert described["finished"] and described["seed"] == 1 and described["images"] == {"train": 90, "validation": 30}
    assert (
        set(described["data_sha256"]) == {"train", "validation"} and described["versions"]["keras"] == keras.__version__
    )
    assert described["validation"]["val_emotion_accuracy"] == float(
        history(run)[described["selected"]["epoch"] - 1]["val_emotion_accuracy"]
    )
    assert {"recipe.yaml", "split.csv", "history.csv", "curves.png", "best.keras"} <= {p.name for p in run.iterdir()}
    assert not [p for p in run.rglob("*.part*")]


def test_what_a_finished_run_needs_no_more_is_removed(data: Path, tmp_path: Path, monkeypatch) -> None:
    stages = "stages=[{name: one, epochs: 1, learning_rate: 0.01}, {name: two, epochs: 1, learning_rate: 0.01}]"
    there = set()

    def clear(state: State) -> None:
        there.update(path.name for path in tmp_path.iterdir())
        assert json.loads((tmp_path / "run.json").read_text())["finished"]
        removed(state)

    removed = train.clear
    monkeypatch.setattr(train, "clear", clear)
    start(Request(TINY, data, (stages,), tmp_path))
    assert there - {path.name for path in tmp_path.iterdir()} == {"checkpoint.npz", "stage-1.keras"}


def test_the_share_that_is_done_is_the_runs(data: Path, tmp_path: Path) -> None:
    stages = "stages=[{name: one, epochs: 1, learning_rate: 0.01}, {name: two, epochs: 2, learning_rate: 0.01}]"
    recipe, told = read_recipe(TINY, (stages,)), []
    fit(recipe, loaded(recipe, data), tmp_path, tell=lambda done, words: told.append((done, words[:9])))
    shares = [done for done, _ in told]
    assert shares == sorted(set(shares)) and shares[-1] == 1
    last = {words: done for done, words in told}
    assert last == pytest.approx({"epoch 1/3": 1 / 3, "epoch 2/3": 2 / 3, "epoch 3/3": 1})


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


@pytest.mark.parametrize(("select", "more"), [("f1", ["f1"]), ("macro_f1", []), ("loss", []), ("last", [])])
def test_the_curves_show_what_chose_the_weights(tmp_path: Path, monkeypatch, select: str, more: list[str]) -> None:
    figures = []
    monkeypatch.setattr(callbacks, "Figure", lambda **options: figures.append(Figure(**options)) or figures[-1])
    recipe = read_recipe(TINY, ("heads.0.labels=[a, b]", f"select={select}"))
    row = {f"val_emotion_{name}": 0.5 for name in ("loss", "accuracy", "macro_f1", "f1")}
    callbacks.draw_curves(State(tmp_path, recipe, history=[{"epoch": 1, "loss": 1.0} | row]))
    left, right = ([line.get_label() for line in axes.lines] for axes in figures[0].axes)
    assert left == ["train loss", "val_emotion_loss"]
    assert right == [f"val_emotion_{name}" for name in ("accuracy", "macro_f1", *more)]


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


JAX_KEEPS_ALL = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}
TWICE = """
import logging, sys; from pathlib import Path; from trainer.runs import Request, start
logging.basicConfig(level="INFO", stream=sys.stdout)
for output in map(Path, sys.argv[3:]): start(Request(sys.argv[1], Path(sys.argv[2]), (), output))
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_killed_run_goes_on_with_the_same_curve(backend: str, data: Path, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    keep = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path / "compiled"), **JAX_KEEPS_ALL}
    around = {"env": os.environ | {"PYTHONPATH": ROOT, "KERAS_BACKEND": backend} | keep, "text": True}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen([sys.executable, "-c", TWICE, TINY, data, whole, killed], **pipes, **around) as process:
        for line in process.stdout:
            if killed.exists() and "epoch 2/" in line:
                process.kill()
        assert process.wait() == -signal.SIGKILL, line
    resume = [sys.executable, "-m", "edge_app", "train", "--resume", killed]
    done = subprocess.run(resume, **pipes, **around, timeout=300 * PATIENCE)
    assert done.returncode == 0, done.stdout
    assert backend in json.loads((killed / "run.json").read_text(encoding="utf-8"))["versions"]
    for one, other in zip(history(whole), history(killed), strict=True):
        for name in ("loss", "learning_rate", "val_emotion_loss", "val_emotion_accuracy"):
            assert float(one[name]) == pytest.approx(float(other[name]), rel=2e-3, abs=1e-6), name
    losses = [float(row["loss"]) for row in history(whole)]
    assert losses[-1] < losses[0] / 2


def test_selection_looks_at_the_measure_that_the_recipe_names() -> None:
    recipe = read_recipe(TINY, ("heads.0.labels=[a, b]", "select=f1"))
    labels = {"emotion": np.array([0, 0, 1, 1])}
    part = Part(
        np.zeros((4, 24, 24, 1), np.uint8), {}, labels, ("",) * 4, ("",) * 4, {"emotion": np.zeros((4, 2))}, ("",) * 4
    )
    row = judge(recipe, part, {"emotion": np.eye(2, dtype=np.float32)[[0, 1, 1, 1]]})
    assert row["val_score"] == row["val_emotion_f1"] == pytest.approx(0.8) != row["val_emotion_macro_f1"]


def test_of_equal_scores_the_epoch_of_the_lower_loss_is_kept(data: Path, tmp_path: Path, monkeypatch) -> None:
    rows = iter([(0.6, 0.9), (0.6, 0.7), (0.6, 0.8), (0.5, 0.1)])
    monkeypatch.setattr(callbacks, "judge", lambda *_: dict(zip(("val_score", "val_loss"), next(rows), strict=True)))
    recipe = read_recipe(TINY, ("stages.0.epochs=4",))
    state = fit(recipe, loaded(recipe, data), tmp_path)
    assert (state.best_epoch, state.best, state.best_loss, state.waited) == (2, 0.6, 0.7, 2)


def test_selection_by_agreement_listens_to_labels_and_to_voters() -> None:
    recipe = read_recipe(TINY, ("select=agreement",))
    truth = {"emotion": np.array([0, 0, 1, 2])}
    votes = np.array([[9, 1, 0], [4, 6, 0], [5, 5, 0], [0, 0, 0]], np.float32)  # two majorities: label 0 and label 1
    answers = {"emotion": np.eye(3, dtype=np.float32)[[0, 0, 1, 1]]}
    part = Part(np.zeros((4, 24, 24, 1), np.uint8), {}, truth, ("",) * 4, ("",) * 4, {"emotion": votes}, ("",) * 4)
    row = judge(recipe, part, answers)
    assert (row["val_emotion_accuracy"], row["val_emotion_majority"]) == (0.75, 0.5)
    assert row["val_score"] == row["val_emotion_agreement"] == 0.625
    row = judge(recipe, replace(part, votes={"emotion": np.zeros((4, 3), np.float32)}), answers)
    assert row["val_score"] == row["val_emotion_agreement"] == 0.75 and "val_emotion_majority" not in row
    row = judge(read_recipe(TINY), replace(part, votes={"emotion": np.zeros((4, 3), np.float32)}), answers)
    assert not row.keys() & {"val_emotion_agreement", "val_emotion_majority", "val_emotion_f1"}  # three labels


def test_a_lost_loss_ends_with_a_sentence(data: Path, tmp_path: Path) -> None:
    recipe = read_recipe(TINY, ("stages.0.learning_rate=1e30", "stages.0.schedule=constant"))
    told = "epoch [12], stage all, batch .*: the loss is .*; start again with --set stages.all.learning_rate=1e.29"
    with pytest.raises(CalmcamError, match=told):
        fit(recipe, loaded(recipe, data), tmp_path)


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


def test_a_run_that_never_began_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        start(Request(TINY, tmp_path / "missing", (), tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "kind", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), OutputError, "disk is full.*--resume"),
        (MemoryError(), CalmcamError, "out of memory.*batch=4"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), CalmcamError, "out of memory.*batch=4"),
        (RuntimeError("RESOURCE_EXHAUSTED: Failed to allocate 9 bytes"), CalmcamError, "out of memory.*batch=4"),
        (RuntimeError("Error parsing message: Arena alloc failed"), CalmcamError, "out of memory.*batch=4"),
        (RuntimeError("ResourceExhausted: events.v2; No space left on device"), OutputError, "disk is full.*--resume"),
        (PermissionError(errno.EACCES, "Permission denied"), OutputError, "Permission denied.*another folder with -o"),
        (RuntimeError("something else"), RuntimeError, "something else"),
    ],
)
def test_full_disk_and_exhausted_memory_have_their_sentences(error: Exception, kind: type, sentence: str) -> None:
    with pytest.raises(kind, match=sentence), explained(read_recipe(TINY), Path("run")):
        raise error


def test_memory_that_ends_while_the_network_is_built_has_its_sentence(data: Path, tmp_path: Path, monkeypatch) -> None:
    def build(*_: object) -> None:
        raise RuntimeError("{{function_node __wrapped__AddV2}} OOM when allocating tensor with shape[3,3,8,16]")

    monkeypatch.setattr(train.families, "build", build)
    with pytest.raises(CalmcamError, match="out of memory.*batch=4"):
        start(Request(TINY, data, (), tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(CalmcamError, match="out of memory.*batch=4"):
        fit(read_recipe(TINY), {}, tmp_path)


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
    ("backend", "sentence"),
    [("tensorflw", "did you mean 'tensorflow'"), ("torch", "pip install torch")],
)
def test_a_backend_that_is_not_there(data: Path, backend: str, sentence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer import cli

    monkeypatch.setenv("KERAS_BACKEND", backend)
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    told = CliRunner().invoke(cli.train, [TINY, "--data", str(data)])
    assert isinstance(told.exception, CalmcamError) and sentence in str(told.exception)


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


def test_a_broken_checkpoint_has_its_sentence(tmp_path: Path) -> None:
    (tmp_path / "checkpoint.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(InputError, match="no checkpoint to go on from"):
        State(tmp_path, read_recipe(TINY)).read_counters()


def test_a_checkpoint_brings_back_all_that_a_run_remembers(tmp_path: Path) -> None:
    recipe, random = read_recipe(TINY), np.random.default_rng(0)
    told = {"stage": 1, "stage_epoch": 2, "stage_over": True, "epoch": 5, "steps": 90, "averaged_from": 40, "waited": 1}
    told |= {"best": 0.5, "best_loss": 1.5, "best_epoch": 4, "best_stage": "one", "history": [{"loss": 2.0}]}
    assert set(told) == {field.name for field in fields(State)} - {"run", "recipe", "average"}

    def variables() -> tuple[keras.Model, State, list]:
        model, state = train.network(recipe), State(tmp_path, recipe)
        train.compile_stage(model, recipe, recipe.stages[0], 4)
        state.start_average(model)
        return model, state, [*model.variables, *model.optimizer.variables, *state.average]

    model, state, values = variables()
    for value in values:
        value.assign(random.integers(1, 99, value.shape).astype(value.dtype))
    for name, value in told.items():
        setattr(state, name, value)
    state.save(model)
    fresh, again, found = variables()
    again.read_counters()
    again.load(fresh)
    assert {name: getattr(again, name) for name in told} == told
    for one, other in zip(values, found, strict=True):
        assert np.array_equal(one.numpy(), other.numpy()), one.path

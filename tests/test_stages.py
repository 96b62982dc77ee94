"""What a stage of training can do, and what it leaves to the next."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("yaml")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # keras 3.15 on numpy 2

import keras  # noqa: E402
from tiny_training import TINY, loaded  # noqa: E402

from trainer.recipe_file import read_recipe  # noqa: E402
from trainer.rounding import rounded, straight_through  # noqa: E402
from trainer.train import fit, network, save  # noqa: E402

pytest_plugins = ("training_fixtures",)


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
            save(best, run / "best.keras")
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
    assert [row["loss"] for row in again] == pytest.approx([row["loss"] for row in history], rel=1e-5), "dropout too"
    if keras.backend.backend() == "tensorflow":
        assert {path.name for path in (parted / "tensorboard").iterdir()} == {"one", "two", "three"}
    plain = replace(recipe, stages=(*recipe.stages[:2], replace(recipe.stages[2], teacher_share=0.0)))
    alone = fit(plain, given, untaught, resume=True).history
    assert alone[-1]["loss"] != pytest.approx(history[-1]["loss"], rel=1e-3)


def test_the_best_weights_of_all_stages_are_kept(data: Path, tmp_path: Path) -> None:
    recipe = read_recipe(
        TINY,
        (
            "ema=0.0",
            "stages=[{name: good, epochs: 4, learning_rate: 0.01}, {name: wild, epochs: 1, learning_rate: 0.9}]",
        ),
    )
    state = fit(recipe, loaded(recipe, data), tmp_path)
    assert state.best_stage == "good" and state.history[-1]["val_score"] < state.best
    assert [row["stage"] for row in state.history] == ["good"] * 4 + ["wild"]


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


@pytest.mark.parametrize(("low", "high"), [(3, 5), (-5, -3)])
def test_zero_is_one_of_the_levels_wherever_the_values_lie(low: float, high: float) -> None:
    values = np.linspace(low, high, 1000, dtype=np.float32)
    levels = np.asarray(straight_through(keras.ops.convert_to_tensor(values))) * 255 / 5
    np.testing.assert_allclose(levels, levels.round(), atol=1e-3)
    assert not np.asarray(straight_through(keras.ops.zeros((4, 4)))).any(), "nor is nothing divided by nothing"


def test_all_that_int8_rounds_is_rounded_and_nothing_else() -> None:
    layers = keras.layers
    image = keras.Input((8, 8, 3))
    mapped = layers.Conv2D(4, 3)(image)
    normal, positive = layers.BatchNormalization()(mapped), layers.ReLU()(mapped)
    bent = layers.Activation("silu")(normal)
    product = layers.Multiply()([layers.Add()([bent, positive]), bent])
    copy = rounded(keras.Model(image, layers.GlobalAveragePooling2D()(product)))
    steps = {type(layer).__name__: layer.output for layer in copy.layers[1:]}
    images = np.random.default_rng(0).normal(size=(200, 8, 8, 3)).astype(np.float32)
    outputs = keras.Model(copy.inputs, steps).predict_on_batch(images)
    levels = {name: len(np.unique(np.asarray(values).round(5))) for name, values in outputs.items()}
    assert levels.pop("Conv2D") > 1000 and len(levels) == 6 and max(levels.values()) <= 256, levels


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

"""Learning from other networks."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("yaml")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # keras 3.15 on numpy 2


from tiny_training import LABELS, TINY  # noqa: E402

from edge_app.errors import SettingsError  # noqa: E402
from trainer import train  # noqa: E402
from trainer.recipe_file import read_recipe  # noqa: E402
from trainer.runs import Request, start  # noqa: E402
from trainer.teacher import Teacher, check_teacher  # noqa: E402
from trainer.train import network  # noqa: E402

pytest_plugins = ("training_fixtures",)


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


def test_another_run_teaches_from_the_first_stage_on(data: Path, run: Path, tmp_path: Path, monkeypatch) -> None:
    kept, clear = [], train.clear
    monkeypatch.setattr(train, "clear", lambda state: kept.extend(state.run.glob("teacher-*.npz")) or clear(state))
    taught = ("stages.0.epochs=1", "stages.0.teacher_share=0.9", f"stages.0.teachers=[{run}]")
    losses = []
    once = (*taught, "stages.0.teacher_views=2")
    for name, changes in (
        ("plain", taught[:1]),
        ("taught", taught),
        ("once", once),
        ("other", (*taught, "seed=2")),
    ):
        start(Request(TINY, data, changes, tmp_path / name))
        with (tmp_path / name / "history.csv").open() as file:
            losses.append(next(csv.DictReader(file))["loss"])
    assert len(set(losses)) == 4, "another seed divides the data alike, so it can be taught"
    assert kept == [tmp_path / "once" / "teacher-1.npz"] and not kept[0].exists()


def test_a_run_that_does_not_fit_does_not_teach(data: Path, run: Path, tmp_path: Path) -> None:
    taught = ("stages.0.epochs=1", "stages.0.teacher_share=0.5", f"stages.0.teachers=[{run}]")
    with pytest.raises(SettingsError, match="cannot teach here; expected the same heads and input"):
        start(Request(TINY, data, (*taught, "input.size=32"), tmp_path / "size"))
    with pytest.raises(SettingsError, match="it learnt from [1-9][0-9]* of the pictures that judge, train/.* for one"):
        start(Request(TINY, data, (*taught, "data.seed=5"), tmp_path / "seed"))
    twin = tmp_path / "twin"
    shutil.copytree(run, twin)
    rows = (twin / "split.csv").read_text().splitlines()
    double = next(row for row in rows if ",train," in row).replace(",train,", ",test,")
    (twin / "split.csv").write_text("\n".join([*rows, double]) + "\n")
    check_teacher(run, read_recipe(str(run / "recipe.yaml")), twin)  # the published data hold such doubles
    with pytest.raises(SettingsError, match="none: expected the folder of a training run .*leave it out"):
        start(Request(TINY, data, (*taught, f"stages.0.teachers=[{tmp_path / 'none'}]"), tmp_path / "none-run"))

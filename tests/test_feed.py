"""The pictures and targets of an epoch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("yaml")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # keras 3.15 on numpy 2


from tiny_training import TINY, loaded  # noqa: E402

from trainer.data import Part  # noqa: E402
from trainer.feed import Batches, targets  # noqa: E402
from trainer.recipe_file import read_recipe  # noqa: E402

pytest_plugins = ("training_fixtures",)


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


def part_of(images: np.ndarray, labels: np.ndarray) -> Part:
    """Pictures (N, 24, 24, 1) uint8 of three classes, without votes."""
    names = ("",) * len(labels)
    ones, votes = np.ones(len(labels), np.float32), np.zeros((len(labels), 3))
    return Part(images, {"emotion": ones}, {"emotion": labels}, names, names, {"emotion": votes}, names)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        ("balance.per_class=50", [50, 50, 50]),
        ("balance.power=0", [17, 90, 41]),
        ("balance.power=1", [148 / 3] * 3),
        ("balance.power=0.5", np.sqrt([17, 90, 41]) * 148 / np.sqrt([17, 90, 41]).sum()),
    ],
)
def test_an_epoch_shows_every_class_as_often_as_asked(change: str, wanted: list[float]) -> None:
    recipe = read_recipe(TINY, (change,))
    labels = np.repeat([0, 1, 2], [17, 90, 41])
    batches = Batches(part_of(np.zeros((148, 24, 24, 1), np.uint8), labels), recipe, recipe.stages[0])
    assert np.bincount(labels, batches._counts) == pytest.approx(wanted)
    for epoch in range(20):
        batches.begin(epoch)
        assert np.abs(np.bincount(labels[batches._order]) - wanted).max() < 1 + 1e-6
        shown = np.bincount(batches._order, minlength=len(labels))
        assert np.abs(shown - batches._counts).max() < 1 + 1e-6, "each picture as often as the others of its class"
    assert len(batches) == len(batches._order) // recipe.batch


def test_a_batch_that_cannot_be_made_says_so_where_it_is_asked_for(data: Path) -> None:
    recipe = read_recipe(TINY)
    part = loaded(recipe, data)["train"]
    broken = replace(part, images=part.images[:, :, :, 0])  # a dimension is missing
    with pytest.raises(ValueError):
        Batches(broken, recipe, recipe.stages[0])[0]


def test_a_sigmoid_head_learns_its_second_label():
    part = SimpleNamespace(labels={"h": np.array([0, 1, -1])}, votes={"h": np.zeros((3, 2))})
    head = SimpleNamespace(name="h", kind="sigmoid", labels=("no", "yes"))
    stage = SimpleNamespace(votes_share=0.5, label_smoothing=0.1)
    assert targets(part, head, stage)[:, 0].tolist() == pytest.approx([0.05, 0.95, 0.0])


def test_what_was_made_ahead_belongs_to_an_epoch_that_is_over():
    asked = read_recipe(TINY, ("balance.per_class=50",))
    images = np.random.default_rng(0).integers(0, 256, (150, 24, 24, 1), np.uint8)
    part = part_of(images, np.repeat([0, 1, 2], 50))
    batches = Batches(part, asked, asked.stages[0], epoch=3)
    batches[3]
    batches.begin(4)
    assert np.array_equal(batches[4][0], Batches(part, asked, asked.stages[0], epoch=4)[4][0])


def test_pictures_in_the_same_place_of_two_batches_or_epochs_are_moved_differently():
    asked = read_recipe(TINY, ("augment.brightness=0.2",))
    part = part_of(np.full((64, 24, 24, 1), 128, np.uint8), np.repeat([0, 1], 32))
    batches = Batches(part, asked, asked.stages[0])
    first = batches[0][0]
    assert not np.array_equal(first, batches[1][0])
    batches.begin(1)
    assert not np.array_equal(first, batches[0][0])


def test_every_epoch_shows_the_pictures_in_an_order_of_its_own_and_blends_them_anew():
    plain, blended = (read_recipe(TINY, (f"augment.mixup={alpha}",)) for alpha in (0, 4))
    levels = np.arange(64, dtype=np.uint8)
    part = part_of(np.broadcast_to(levels[:, None, None, None], (64, 24, 24, 1)), levels % 2)
    batches = Batches(part, plain, plain.stages[0])
    orders = []
    for epoch in range(2):
        batches.begin(epoch)
        orders.append([level for index in range(len(batches)) for level in batches[index][0][:, 0, 0, 0]])
    assert sorted(orders[0]) == sorted(orders[1]) == levels.tolist() and orders[0] != orders[1]
    batches = Batches(part, blended, blended.stages[0])
    shares = set()
    for epoch in range(2):
        batches.begin(epoch)
        wanted = batches[0][1]["emotion"]
        shares.add(float(wanted[wanted > 0].min()))
    assert len(shares) == 2

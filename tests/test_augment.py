"""Augmentation: repeatable, within its bounds, and off when the recipe says nothing."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip("yaml")

from trainer.augment import augment, mixup  # noqa: E402
from trainer.recipe import AugmentRecipe  # noqa: E402

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (32, 32, 1), np.uint8)
COLOUR = RANDOM.integers(0, 256, (32, 32, 3), np.uint8)
STRONG = AugmentRecipe(
    shift=0.1, scale=0.2, rotate=15, brightness=0.1, contrast=0.2, hue=5, saturation=10, value=10, noise=0.02, erase=1.0
)


@pytest.mark.parametrize("image", [GREY, COLOUR], ids=["grey", "colour"])
def test_same_seed_same_picture_and_the_original_is_untouched(image: np.ndarray) -> None:
    before = image.copy()
    one, other, third = (augment(image, STRONG, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, other) and not np.array_equal(one, third)
    assert one.shape == image.shape and one.dtype == np.uint8
    assert np.array_equal(image, before)


def test_a_recipe_that_says_nothing_changes_nothing() -> None:
    assert np.array_equal(augment(GREY, AugmentRecipe(flip=0.0), np.random.default_rng(0)), GREY)


def test_flip_mirrors() -> None:
    assert np.array_equal(augment(GREY, AugmentRecipe(flip=1.0), np.random.default_rng(0)), GREY[:, ::-1])


def test_shift_stays_within_its_share() -> None:
    dot = np.zeros((41, 41, 1), np.uint8)
    dot[20, 20] = 255
    places = []
    for seed in range(200):
        moved = augment(dot, AugmentRecipe(flip=0.0, shift=0.1), np.random.default_rng(seed))
        places.append(np.unravel_index(moved.argmax(), (41, 41)))
    away = np.abs(np.array(places) - 20)
    assert away.max() <= 5 and away.max() >= 3


def test_brightness_stays_within_its_share() -> None:
    flat = np.full((16, 16, 1), 128, np.uint8)
    means = [augment(flat, AugmentRecipe(brightness=0.1), np.random.default_rng(seed)).mean() for seed in range(100)]
    assert 128 - 26 <= min(means) < 110 and 146 < max(means) <= 128 + 26


def test_erase_blanks_one_rectangle() -> None:
    erased = augment(GREY, AugmentRecipe(flip=0.0, erase=1.0, erase_area=0.2), np.random.default_rng(3))
    rows, columns = np.nonzero((erased != GREY)[..., 0])
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert 0.01 < height * width / 32**2 < 0.3
    assert len(np.unique(erased[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1])) == 1


def test_mixup_blends_pictures_and_targets_alike() -> None:
    batch, targets = np.arange(4, dtype=np.float32)[:, None], {"a": np.eye(4, dtype=np.float32)}
    mixed, blended, weights = mixup(batch, targets, {"a": np.ones(4, np.float32)}, 0.4, np.random.default_rng(0))
    assert blended["a"].sum(axis=1) == pytest.approx(1)
    assert mixed[:, 0] == pytest.approx(blended["a"] @ batch[:, 0], abs=1e-5)
    assert weights["a"] == pytest.approx(1)


def test_mixup_takes_nothing_from_a_row_that_the_head_does_not_learn() -> None:
    """Its target, of zeros, would be the first label of a sigmoid."""
    batch, none = np.zeros((64, 1), np.float32), np.arange(64) % 2
    targets, weights = {"a": 1.0 - none[:, None]}, {"a": 2.0 * (1 - none)}
    _, blended, weighed = mixup(batch, targets, weights, 0.4, np.random.default_rng(0))
    assert blended["a"][weighed["a"] > 0] == pytest.approx(1)
    assert len(np.unique(weighed["a"].round(4))) == 4, "0, 2, and the two shares of 2"


def spread(**recipe):
    """Of a square in the middle: how wide, how far turned, how far moved, over many pictures."""
    square = np.zeros((65, 65, 1), np.uint8)
    square[24:41, 24:41] = 255
    found = []
    for seed in range(100):
        moved = augment(square, AugmentRecipe(**{"flip": 0.0, **recipe}), np.random.default_rng(seed))
        points = np.argwhere(moved[..., 0] > 127)[:, ::-1].astype(np.float32)
        (x, y), (width, height), angle = cv2.minAreaRect(points)
        found.append((np.sqrt(len(points)) / 17, min(angle % 90, 90 - angle % 90), x - 32, y - 32))
    return np.abs(np.array(found))


def test_scale_and_rotation_stay_within_their_shares():
    size, angle, *_ = spread(scale=0.2).T
    assert 0.74 < size.min() < 0.9 and 1.1 < size.max() < 1.26 and angle.max() < 5
    size, angle, *_ = spread(rotate=15).T
    assert 10 < angle.max() < 17 and np.abs(size - 1).max() < 0.05
    _, _, x, y = spread(shift=0.1).T
    assert max(x.max(), y.max()) <= 7 and x.max() > 5 and y.max() > 5 and np.abs(x - y).max() > 2


def test_light_noise_and_erasing_are_as_strong_as_asked():
    flat = np.full((32, 32, 1), 100, np.uint8)
    noisy = augment(flat, AugmentRecipe(noise=0.04), np.random.default_rng(0))
    assert noisy.std() == pytest.approx(0.04 * 255, rel=0.15)
    many = [np.random.default_rng(seed) for seed in range(200)]
    contrasts = [augment(GREY, AugmentRecipe(contrast=0.3), random).std() / GREY.std() for random in many]
    assert 0.68 < min(contrasts) < 0.8 and 1.05 < max(contrasts) < 1.3
    light = 150 + GREY // 8  # far from black and white
    for seed in range(20):
        changed = augment(light, AugmentRecipe(contrast=0.3), np.random.default_rng(seed))
        assert changed.mean() == pytest.approx(light.mean(), abs=1)
    erased = [(augment(GREY, AugmentRecipe(flip=0.0, erase=0.3), random) != GREY).any() for random in many]
    assert 0.2 < np.mean(erased) < 0.4


def test_hue_turns_and_saturation_and_value_stay_in_range():
    red = np.zeros((8, 8, 3), np.uint8)
    red[...] = 250, 10, 10
    for change in ("hue", "saturation", "value"):
        asked = AugmentRecipe(flip=0.0, **{change: 20})
        made = [augment(red, asked, np.random.default_rng(seed)) for seed in range(30)]
        hsv = np.array([cv2.cvtColor(one, cv2.COLOR_RGB2HSV)[0, 0] for one in made]).astype(int)
        first = cv2.cvtColor(red, cv2.COLOR_RGB2HSV)[0, 0].astype(int)
        away = np.abs(hsv - first)
        away[:, 0] = np.minimum(away[:, 0], 180 - away[:, 0])
        place = ("hue", "saturation", "value").index(change)
        if change == "hue":
            assert hsv[:, 0].max() > 165 and 0 < hsv[hsv[:, 0] < 90, 0].max(), "red lies where the circle closes"
        assert 10 < away[:, place].max() <= 21 and np.delete(away, place, axis=1).max() <= 3


def test_a_border_that_moves_in_is_the_picture_s_own():
    light = np.full((32, 32, 1), 200, np.uint8)
    assert augment(light, AugmentRecipe(shift=0.2, rotate=20, scale=0.2), np.random.default_rng(1)).min() == 200

"""Crops: their pixels are agreed on with the trained models, so they are pinned."""

from __future__ import annotations

import numpy as np
import pytest
from cases import make_crops

from edge_app.manifest import Crop, Input
from edge_app.preprocess import crop_faces, crop_squares, fit, sharpness, to_input

GOLDEN = np.load(make_crops.HERE / "crops.npz")
GRAY = Input(48, 48, "gray", "uint8")
RGB = Input(40, 40, "rgb", "uint8")
RAMP = np.dstack([np.tile(np.arange(200, dtype=np.uint8), (100, 1))] * 3)  # (100, 200, 3): the value is x


def boxes(*rows) -> np.ndarray:
    return np.array(rows, np.float32).reshape(-1, 4)


@pytest.mark.parametrize("name", make_crops.CASES)
def test_golden_pixels(name):
    difference = np.abs(make_crops.crops(name).astype(int) - GOLDEN[name])
    assert difference.mean() < 0.5  # JPEG decoders and resizers differ by a level from version to version
    assert difference.max() <= 6
    moved = np.abs(np.roll(GOLDEN[name], 1, axis=2).astype(int) - GOLDEN[name])
    assert moved[0].mean() > 1, "a shift by one pixel would be seen"


@pytest.mark.parametrize("crop", [Crop(0.1), Crop(0.2, -0.06), Crop(0.1, align="roll")])
@pytest.mark.parametrize("spec", [GRAY, RGB])
def test_a_mirrored_picture_gives_mirrored_crops(crop, spec):
    image = make_crops.portrait()
    face, points = make_crops.BOXES[:1], make_crops.POINTS[:1]
    x1, y1, x2, y2 = face[0]
    mirrored_points = points[:, [1, 0, 2, 3, 5, 4]].copy()
    mirrored_points[..., 0] = 511 - mirrored_points[..., 0]
    plain = crop_faces(image, face, points, crop, spec)[0].astype(int)
    mirrored = crop_faces(
        np.ascontiguousarray(image[:, ::-1]), boxes([512 - x2, y1, 512 - x1, y2]), mirrored_points, crop, spec
    )
    assert np.abs(mirrored[0][:, ::-1] - plain).mean() < 6, "an odd side falls half a pixel to one side"


@pytest.mark.parametrize("n", [0, 1, 3])
@pytest.mark.parametrize("spec", [GRAY, RGB, Input(32, 64, "rgb", "uint8")])
def test_shapes(n, spec):
    crops = crop_faces(RAMP, boxes(*[[10, 10, 60, 70]] * n), None, Crop(0.1), spec)
    assert crops.shape == (n, spec.height, spec.width, spec.channels)
    assert crops.dtype == np.uint8


def test_squares_are_centred_on_the_box_with_margin_and_shift():
    squares = crop_squares(boxes([10, 20, 50, 100]), Crop(margin=0.25, shift=0.1))
    np.testing.assert_allclose(squares, [[30, 68, 120]])


def test_the_crop_is_where_the_box_is():
    crops = crop_faces(RAMP, boxes([60, 30, 100, 70]), None, Crop(), RGB)
    np.testing.assert_array_equal(crops[0, 0, :, 0], np.arange(60, 100))


def test_outside_the_border_is_repeated():
    crops = crop_faces(RAMP, boxes([-20, 30, 20, 70], [180, 80, 220, 120]), None, Crop(), RGB)
    np.testing.assert_array_equal(crops[0, 5, :, 0], [0] * 20 + list(range(20)))
    np.testing.assert_array_equal(crops[1, 35, :, 0], list(range(180, 200)) + [199] * 20)


@pytest.mark.parametrize(
    ("box", "value"),
    [
        ([5000, 0, 5040, 40], 199),
        ([-900, -900, -860, -860], 0),
        ([100, 1e6, 140, 1e6 + 40], None),
        ([50, 50, 50, 50], 50),
        ([90, 60, 50, 20], None),
        ([-1e7, -1e7, 1e7, 1e7], None),
    ],
)
@pytest.mark.parametrize("align", ["none", "roll"])
def test_strange_boxes_give_crops_all_the_same(box, value, align):
    crops = crop_faces(RAMP, boxes(box), make_crops.POINTS[:1], Crop(0.1, align=align), RGB)
    assert crops.shape == (1, 40, 40, 3)
    if value is not None:
        assert set(np.unique(crops)) == {value}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_boxes_that_are_not_finite_are_refused(value):
    with pytest.raises(ValueError, match="finite"):
        crop_faces(RAMP, boxes([0, 0, value, 5]), None, Crop(), RGB)


def test_a_picture_of_one_pixel():
    crops = crop_faces(np.full((1, 1, 3), 9, np.uint8), boxes([0, 0, 40, 40]), None, Crop(0.5), RGB)
    assert set(np.unique(crops)) == {9}


def test_roll_levels_the_eyes():
    tilted = np.zeros((200, 200, 3), np.uint8)
    right, left = (70, 80), (130, 120)
    for x, y in (right, left):
        tilted[y - 4 : y + 5, x - 4 : x + 5] = 255
    points = np.array([[right, left, (100, 120), (90, 140), (60, 90), (150, 120)]], np.float32)
    crop = crop_faces(tilted, boxes([40, 40, 160, 160]), points, Crop(align="roll"), Input(120, 120, "gray", "uint8"))[
        0, ..., 0
    ]
    rows, columns = np.nonzero(crop > 128)
    assert abs(rows[columns < 60].mean() - rows[columns > 60].mean()) < 1.5


def test_shrinking_averages():
    checks = np.indices((480, 480)).sum(axis=0) % 2 * 255
    picture = np.dstack([checks.astype(np.uint8)] * 3)
    assert np.ptp(fit(picture, GRAY)) <= 1


@pytest.mark.parametrize("shape", [(48, 48), (48, 48, 3), (20, 90, 3), (300, 10)])
@pytest.mark.parametrize("spec", [GRAY, RGB])
def test_fit_takes_grey_and_colour(shape, spec):
    fitted = fit(np.full(shape, 77, np.uint8), spec)
    assert fitted.shape == (spec.height, spec.width, spec.channels)
    assert set(np.unique(fitted)) == {77}


def test_fit_leaves_what_fits():
    picture = np.random.default_rng(0).integers(0, 256, (48, 48), np.uint8)
    np.testing.assert_array_equal(fit(picture, GRAY)[..., 0], picture)


def test_to_input_copies_only_what_it_must():
    crops = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3) * 20
    assert to_input(crops, Input(2, 2, "rgb", "uint8")) is crops
    scaled = to_input(crops, Input(2, 2, "rgb", "float32", 1 / 127.5, -1))
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, crops / 127.5 - 1, atol=1e-6)
    for scale, offset in ((1.5, -10), (1.5, 0), (1, -10)):
        shifted = to_input(crops, Input(2, 2, "rgb", "uint8", scale, offset))
        assert shifted.dtype == np.uint8
        np.testing.assert_array_equal(shifted, np.clip(np.rint(crops * scale + float(offset)), 0, 255))


def test_sharpness_falls_with_blur():
    import cv2

    face = make_crops.crops("rgb64")[0]
    values = [sharpness(cv2.GaussianBlur(face, (0, 0), sigma)) for sigma in (0.5, 1, 2, 4)]
    assert values == sorted(values, reverse=True)
    assert sharpness(face) > 4 * values[-1]
    assert sharpness(np.full((48, 48, 1), 9, np.uint8)) == 0
    assert sharpness(np.full((8, 1024, 3), 9, np.uint8)) == sharpness(np.full((300, 1, 1), 9, np.uint8)) == 0


@pytest.mark.parametrize("side", [64, 112, 224])
def test_sharpness_is_of_the_face_and_not_of_the_size_that_a_model_takes(side):
    import cv2

    face = cv2.imread(str(make_crops.HERE / "astronaut.jpg"), cv2.IMREAD_GRAYSCALE)[60:220, 160:320]
    small, large = (fit(face, Input(size, size, "gray", "uint8")) for size in (48, side))
    assert sharpness(large) == pytest.approx(sharpness(small), rel=0.35)

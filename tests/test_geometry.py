"""Boxes and points."""

from __future__ import annotations

import numpy as np
import pytest

from edge_app import geometry

FRONTAL = np.array([[40, 40], [80, 40], [60, 60], [60, 80], [20, 45], [100, 45]], np.float32)


def turned(degrees: float, tilt: float = 0.0) -> np.ndarray:
    """Points (1, 6, 2) of a round head, ears on its axis and the nose on its surface, turned and then tilted."""
    yaw, roll = np.radians(degrees), np.radians(tilt)
    head = np.array([[-20, -20, 30], [20, -20, 30], [0, 0, 40], [0, 20, 35], [-40, -15, 0], [40, -15, 0]], float)
    x, y = head[:, 0] * np.cos(yaw) + head[:, 2] * np.sin(yaw), head[:, 1]
    rotated = np.column_stack([x * np.cos(roll) - y * np.sin(roll), x * np.sin(roll) + y * np.cos(roll)])
    return (rotated + 200).astype(np.float32)[None]


def test_iou():
    a = np.array([[0, 0, 10, 10], [5, 5, 5, 5]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 3]], np.float32)
    np.testing.assert_allclose(geometry.iou(a, b), [[1, 1 / 3, 0, 0], [0, 0, 0, 0]], atol=1e-6)
    assert geometry.iou(a[:0], b).shape == (0, 4)


def test_sizes_centres():
    boxes = np.array([[-5, 10, 15, 50]], np.float32)
    np.testing.assert_array_equal(geometry.sizes(boxes), [[20, 40]])
    np.testing.assert_array_equal(geometry.centres(boxes), [[5, 30]])


@pytest.mark.parametrize("tilt", [-40, -5, 0, 10, 60])
def test_roll(tilt):
    assert np.degrees(geometry.roll(turned(0, tilt))[0]) == pytest.approx(tilt, abs=1e-3)


@pytest.mark.parametrize("tilt", [-30, 0, 45])
def test_turn_grows_with_the_yaw_on_either_side_and_ignores_the_tilt(tilt):
    values = [geometry.turn(turned(yaw, tilt))[0] for yaw in (0, 10, 20, 35, 50, 70)]
    assert values == sorted(values)
    np.testing.assert_allclose(values, np.tan(np.radians([0, 10, 20, 35, 50, 70])), atol=1e-3)
    assert geometry.turn(turned(-35, tilt))[0] == pytest.approx(values[3], abs=1e-4)


def test_turn_of_a_mirrored_face_is_the_same():
    points = turned(25, 12)
    mirrored = points[:, [1, 0, 2, 3, 5, 4]] * (-1, 1) + (640, 0)
    assert geometry.turn(mirrored) == pytest.approx(geometry.turn(points), abs=1e-4)


def test_points_on_one_spot_are_finite():
    spot = np.full((1, 6, 2), 7, np.float32)
    assert np.isfinite(geometry.turn(spot)).all()
    assert np.isfinite(geometry.roll(spot)).all()
    assert geometry.turn(FRONTAL[None]).tolist() == [0]
    assert geometry.turn(np.empty((0, 6, 2), np.float32)).shape == (0,)

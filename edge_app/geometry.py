"""Boxes and points: pure array functions, all in pixels, boxes as x1 y1 x2 y2 with exclusive ends."""

from __future__ import annotations

import numpy as np

RIGHT_EYE, LEFT_EYE, NOSE, MOUTH, RIGHT_EAR, LEFT_EAR = range(6)  # BlazeFace order; right and left are the person's own


def sizes(boxes: np.ndarray) -> np.ndarray:
    """Widths and heights (N, 2) of boxes (N, 4)."""
    return boxes[:, 2:] - boxes[:, :2]


def centres(boxes: np.ndarray) -> np.ndarray:
    """Centres (N, 2) of boxes (N, 4)."""
    return (boxes[:, :2] + boxes[:, 2:]) / 2


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union (N, M) of boxes (N, 4) and (M, 4); 0 for empty boxes."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    overlap = np.prod(np.clip(high - low, 0, None), axis=2)
    total = np.prod(sizes(a), axis=1)[:, None] + np.prod(sizes(b), axis=1)[None] - overlap
    return np.divide(overlap, total, out=np.zeros_like(overlap), where=total > 0)


def roll(points: np.ndarray) -> np.ndarray:
    """In-plane rotation (N,) in radians from the eyes of points (N, 6, 2); positive is clockwise in the picture."""
    across = points[:, LEFT_EYE] - points[:, RIGHT_EYE]
    return np.arctan2(across[:, 1], across[:, 0])


def turn(points: np.ndarray) -> np.ndarray:
    """How far heads are turned sideways (N,): 0 is frontal, and it grows without bound towards a profile.

    The nose tip's offset from the middle between the ears along the eye line, in units of half the distance between
    the ears: tan(yaw) for a round head, rather more for one with a nose.
    """
    across = points[:, LEFT_EYE] - points[:, RIGHT_EYE]
    axis = across / np.maximum(np.linalg.norm(across, axis=1, keepdims=True), 1e-6)
    ears = np.abs(np.sum((points[:, LEFT_EAR] - points[:, RIGHT_EAR]) * axis, axis=1))
    middle = (points[:, LEFT_EAR] + points[:, RIGHT_EAR]) / 2
    offset = np.abs(np.sum((points[:, NOSE] - middle) * axis, axis=1))
    return offset / np.maximum(ears / 2, 1e-6)

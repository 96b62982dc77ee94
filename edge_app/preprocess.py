"""Faces to model input. The trainer, the edge and the compiler all cut and scale here; golden tests pin the pixels."""

from __future__ import annotations

import cv2
import numpy as np

from .geometry import centres, roll, sizes
from .manifest import Crop, Input


def crop_faces(image: np.ndarray, boxes: np.ndarray, points: np.ndarray | None, crop: Crop, spec: Input) -> np.ndarray:
    """Cut every face out of `image` (H, W, 3) uint8 RGB: (N, spec.height, spec.width, spec.channels) uint8.

    Pixels outside the picture repeat its border.
    """
    out = np.empty((len(boxes), spec.height, spec.width, spec.channels), np.uint8)
    squares = crop_squares(boxes, crop)
    angles = roll(points) if crop.align == "roll" and points is not None else np.zeros(len(boxes))
    for row, square, angle in zip(out, squares, angles, strict=True):
        row[:] = fit(_cut(image, square, angle), spec)
    return out


def crop_squares(boxes: np.ndarray, crop: Crop) -> np.ndarray:
    """Squares (N, 3) float32, centre x, centre y and side in pixels, that `crop` makes of boxes (N, 4)."""
    longest = sizes(boxes).max(axis=1) if len(boxes) else np.empty(0, np.float32)
    middle = centres(boxes)
    middle[:, 1] += crop.shift * longest
    return np.column_stack([middle, longest * (1 + 2 * crop.margin)]).astype(np.float32)


def fit(image: np.ndarray, spec: Input) -> np.ndarray:
    """Scale a whole picture (H, W, 3) or (H, W) uint8 to (spec.height, spec.width, spec.channels) uint8.

    Shrinking averages areas, so that a large face does not alias; enlarging is bilinear.
    """
    height, width = image.shape[:2]
    if (height, width) != (spec.height, spec.width):
        shrinks = height * width > spec.height * spec.width
        image = cv2.resize(image, (spec.width, spec.height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if spec.colour == "gray" and image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    elif spec.colour == "rgb" and image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return image.reshape(spec.height, spec.width, spec.channels)


def to_input(crops: np.ndarray, spec: Input) -> np.ndarray:
    """Crops (N, h, w, c) uint8 in the dtype and range that an artifact takes; no copy when nothing is left to do."""
    if spec.dtype == "uint8" and spec.scale == 1 and spec.offset == 0:
        return crops
    values = crops.astype(np.float32) * spec.scale + spec.offset
    return np.clip(np.rint(values), 0, 255).astype(np.uint8) if spec.dtype == "uint8" else values


def sharpness(crop: np.ndarray) -> float:
    """Variance of the Laplacian of a crop (h, w, c) uint8: the usual focus measure (Pech-Pacheco et al. 2000)."""
    grey = crop[..., 0] if crop.shape[2] == 1 else cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_16S, ksize=3).var())


def _cut(image: np.ndarray, square: np.ndarray, angle: float) -> np.ndarray:
    x, y, side = (float(value) for value in square)
    size = max(1, round(side))
    if angle:
        turn = cv2.getRotationMatrix2D((x, y), np.degrees(angle), 1.0)
        turn[:, 2] += (size - 1) / 2 - np.array([x, y])
        return cv2.warpAffine(image, turn, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    left, top = round(x - side / 2), round(y - side / 2)
    height, width = image.shape[:2]
    inside = image[max(top, 0) : min(top + size, height), max(left, 0) : min(left + size, width)]
    if inside.shape[:2] == (size, size):
        return inside
    rows = np.clip(np.arange(top, top + size), 0, height - 1)
    columns = np.clip(np.arange(left, left + size), 0, width - 1)
    return image[rows[:, None], columns]

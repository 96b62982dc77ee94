"""Faces to model input. The trainer, the edge and the compiler all cut and scale here; golden tests pin the pixels."""

from __future__ import annotations

import cv2
import numpy as np

from .geometry import centres, roll, sizes
from .manifest import Crop, Input

SHARP_SIDE = 48  # px of the crop at which sharpness is measured; decide.BLURRED is of that
LARGEST = 4  # longer sides of the picture; a square beyond that is cut to it, and still all but border


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
    """Squares (N, 3) float32, centre x, centre y and side in pixels, that `crop` makes of boxes (N, 4).

    ValueError for a box that is not finite.
    """
    if not np.isfinite(boxes).all():
        raise ValueError(f"boxes: expected finite pixels, got {boxes.tolist()}")
    longest = sizes(boxes).max(axis=1)
    middle = centres(boxes)
    middle[:, 1] += crop.shift * longest
    return np.column_stack([middle, longest * (1 + 2 * crop.margin)]).astype(np.float32)


def fit(image: np.ndarray, spec: Input) -> np.ndarray:
    """Scale a whole picture (H, W, 3), (H, W, 1) or (H, W) uint8 to (spec.height, spec.width, spec.channels) uint8.

    Shrinking averages areas, so that a large face does not alias; enlarging is bilinear. Grey models get their grey
    before the scaling, which is then a third of the work.
    """
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if spec.colour == "gray" and image.ndim == 3:
        image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    height, width = image.shape[:2]
    if (height, width) != (spec.height, spec.width):
        shrinks = height * width > spec.height * spec.width
        how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
        image = cv2.resize(image, (spec.width, spec.height), interpolation=how)
    if spec.colour == "rgb" and image.ndim == 2:
        image = cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return image.reshape(spec.height, spec.width, spec.channels)


def to_input(crops: np.ndarray, spec: Input) -> np.ndarray:
    """Crops (N, h, w, c) uint8 in the dtype and range that an artifact takes; no copy when nothing is left to do."""
    if spec.dtype == "uint8" and spec.scale == 1 and spec.offset == 0:
        return crops
    values = crops.astype(np.float32) * spec.scale + spec.offset
    return np.clip(np.rint(values), 0, 255).astype(np.uint8) if spec.dtype == "uint8" else values


def sharpness(crop: np.ndarray) -> float:
    """Variance of the Laplacian of a crop (h, w, c) uint8: the usual focus measure (Pech-Pacheco et al. 2000).

    Larger crops are looked at as SHARP_SIDE pixels: the measure falls with the square of what one pixel covers.
    """
    grey = crop[..., 0] if crop.shape[2] == 1 else cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    if max(grey.shape) > SHARP_SIDE:
        scale = SHARP_SIDE / max(grey.shape)
        height, width = (max(1, round(side * scale)) for side in grey.shape)
        grey = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
    _, deviation = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_16S, ksize=3))
    return float(deviation[0, 0]) ** 2


def _cut(image: np.ndarray, square: np.ndarray, angle: float) -> np.ndarray:
    x, y, side = (float(value) for value in square)
    height, width = image.shape[:2]
    size = max(1, round(min(side, LARGEST * max(height, width))))
    if angle:
        centre = x - 0.5, y - 0.5  # boxes count from the edge of the first pixel, OpenCV from its middle
        turn = cv2.getRotationMatrix2D(centre, np.degrees(angle), 1.0)
        turn[:, 2] += (size - 1) / 2 - np.array(centre)
        return cv2.warpAffine(image, turn, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    # A square beyond the border sees only repeated border pixels, wherever it lies: keep one row and column inside.
    left = min(max(round(x - size / 2), 1 - size), width - 1)
    top = min(max(round(y - size / 2), 1 - size), height - 1)
    right, bottom = left + size, top + size
    inside = image[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    if inside.shape[:2] == (size, size):
        return inside
    beyond = (max(-top, 0), max(bottom - height, 0), max(-left, 0), max(right - width, 0))
    return cv2.copyMakeBorder(inside, *beyond, cv2.BORDER_REPLICATE)

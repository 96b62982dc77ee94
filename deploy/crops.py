"""The crops that the compiler calibrates on, and the others that judge what it made: read, and kept apart."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from pathlib import Path

import numpy as np

from edge_app.errors import InputError, SourceError
from edge_app.manifest import Input
from edge_app.media import pictures_below, read_picture
from edge_app.preprocess import fit

log = logging.getLogger(__name__)

JUDGING = 64  # pictures


def divide(crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of crops (N, H, W, C), shuffled: those that calibrate, and those that judge what the compiler made.

    One picture in eight judges, at most JUDGING. No picture is on both sides, repeated or mirrored either, as `export`
    fills up with where pictures are few.
    """
    rows_of: dict[bytes, list[int]] = {}
    for row in np.random.default_rng(0).permutation(len(crops)):
        rows_of.setdefault(_picture(crops[row]), []).append(row)
    pictures = list(rows_of.values())
    count = min(JUDGING, max(1, len(pictures) // 8))
    judging = [rows[0] for rows in pictures[:count]]
    calibrating = [row for rows in pictures[count:] for row in rows]
    mixed = np.random.default_rng(1).permutation(np.array(calibrating, np.int64))
    return mixed, np.array(judging, np.int64)


def _picture(crop: np.ndarray) -> bytes:
    """The same for a crop (H, W, C) and its mirror image."""
    return min(hashlib.sha256(one.tobytes()).digest() for one in (crop, crop[:, ::-1]))


def read_calibration(path: Path, spec: Input) -> np.ndarray:
    """Raw crops (N, H, W, C) from an `.npz` (key `crops`) or `.npy`, or from a folder of cut faces, scaled as `spec` says.

    InputError says what is wrong.
    """
    if path.is_dir():
        return _cut_faces(path, spec)
    try:
        with path.open("rb") as file:  # np.load leaves a broken file open
            content = np.load(file, allow_pickle=False)
            crops = content if isinstance(content, np.ndarray) else content["crops"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        what = error.strerror if isinstance(error, OSError) else error
        raise InputError(
            f"{path}: expected an .npz with 'crops' (N, H, W, C) uint8, as export writes, or a folder of cut faces ({what})"
        ) from error
    return crops[..., None] if crops.ndim == 3 else crops


def _cut_faces(folder: Path, spec: Input) -> np.ndarray:
    found = []
    for path in pictures_below(folder):
        try:
            found.append(fit(read_picture(path), spec))
        except SourceError as error:
            log.warning("left out: %s", error)
    if not found:
        raise InputError(f"{folder}: expected pictures of cut faces (calmcam crop makes them), found none")
    return np.stack(found)

"""Make `crops.npz`: what `crop_faces` cut from the NASA portrait when its pixels were agreed on. Models depend on them.

python tests/cases/make_crops.py
"""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

from edge_app.manifest import Crop, Input
from edge_app.preprocess import crop_faces

HERE = Path(__file__).parent
BOXES = np.array([[173, 67, 277, 171], [-30, 380, 90, 530]], np.float32)  # the face, and a corner with the border in it
POINTS = np.array([[[206, 105], [241, 108], [224, 128], [222, 148], [188, 110], [259, 115]]] * 2, np.float32)
CASES = {
    "gray48": (Crop(margin=0.1, shift=-0.06), Input(48, 48, "gray", "uint8")),
    "rgb64": (Crop(margin=0.0), Input(64, 64, "rgb", "uint8")),
    "roll96": (Crop(margin=0.2, align="roll"), Input(96, 96, "rgb", "uint8")),
    "enlarged": (Crop(margin=-0.2), Input(128, 112, "rgb", "float32", 1 / 127.5, -1.0)),
}


def portrait() -> np.ndarray:
    """The portrait (512, 512, 3) uint8 RGB."""
    return cv2.cvtColor(cv2.imread(str(HERE / "astronaut.jpg")), cv2.COLOR_BGR2RGB)


def crops(name: str) -> np.ndarray:
    """The crops (2, h, w, c) uint8 of one case."""
    return crop_faces(portrait(), BOXES, POINTS, *CASES[name])


if __name__ == "__main__":
    np.savez_compressed(
        sys.argv[1] if len(sys.argv) > 1 else HERE / "crops.npz", **{name: crops(name) for name in CASES}
    )

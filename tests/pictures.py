"""Generated pictures that a tiny network can learn: the class is the direction of a bright bar on noise."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np


def picture(kind: int, random: np.random.Generator, size: int = 24) -> np.ndarray:
    """(size, size) uint8 grey; kind 0 is a level bar, 1 an upright one, 2 a slanted one."""
    image = random.normal(90, 12, (size, size))
    middle, width = size // 2 + random.integers(-3, 4), random.integers(2, 4)
    if kind == 0:
        image[middle : middle + width, 3:-3] += 120
    elif kind == 1:
        image[3:-3, middle : middle + width] += 120
    else:
        cv2.line(image, (3, 3 + middle // 4), (size - 4, size - 4), 220.0, int(width))
    return np.clip(image, 0, 255).astype(np.uint8)


def write(folder: Path, labels: tuple[str, ...], count: int, seed: int = 0, suffix: str = ".png") -> None:
    """`folder/<label>/0000.png` ...: `count` pictures per label; never twice the same."""
    random = np.random.default_rng(seed)
    for kind, label in enumerate(labels):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            encoded = cv2.imencode(suffix, picture(kind, random))[1]
            encoded.tofile(folder / label / f"{number:04}{suffix}")

"""Whether crops are faces, asked of the edge's own detector."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import numpy as np

from edge_app.build import open_detector
from edge_app.errors import CalmcamError
from edge_app.scoring.evaluate import best, on_canvas
from edge_app.settings import Settings
from edge_app.types import NO_FACES, Frame

log = logging.getLogger(__name__)


@contextmanager
def face_finder(settings: Settings) -> Iterator[Callable[[np.ndarray], bool] | None]:
    """A function that says whether a crop (H, W, C) uint8 is a face, as `evaluate --detect` looks for it.

    None, and a warning, where the detector cannot be opened.
    """
    try:
        _, detector = open_detector(settings)
    except CalmcamError as error:
        log.warning("whether the calibration crops are faces cannot be told: %s", error)
        yield None
        return
    with closing(detector):

        def has_face(crop: np.ndarray) -> bool:
            canvas, place = on_canvas(np.repeat(crop, 3, axis=2) if crop.shape[2] == 1 else crop)
            return best(detector(Frame(canvas, 0, 0), NO_FACES), place) is not None

        yield has_face

"""Make faces unrecognisable in a picture."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np

from ..types import Result

GROWN = 0.2  # of the box on every side: hair, ears and chin are part of a face
# Along the longer side, about 4 on the face: friends are recognised from 7 x 10 (Sinha et al. 2006, Proc. IEEE).
CELLS = 6
HOLD_NS = 500_000_000  # a face that the detector lost stays covered for so long, where it was seen last


class Pixelate:
    """Covers the faces of a result, the left out ones too, and for half a second what was there and is not found now."""

    def __init__(self) -> None:
        self._seen: deque[tuple[int, str, np.ndarray, np.ndarray | None]] = deque()

    def __call__(self, image: np.ndarray, result: Result) -> None:
        """Overwrite faces in `image` (H, W, 3) uint8, in place."""
        frame, faces = result.frame, result.faces
        for box in [*self._lost(result), *faces.boxes, *faces.left_out]:
            pixelate(image, box)
        for boxes, ids in ((faces.boxes, faces.ids), (faces.left_out, None)):
            if len(boxes):
                self._seen.append((frame.time_ns, frame.source, boxes, ids))

    def _lost(self, result: Result) -> list[np.ndarray]:
        """Boxes of the last half second whose face is not there now; the newest of each track, all where untracked."""
        frame, ids = result.frame, result.faces.ids
        now = set() if ids is None else set(ids.tolist())
        while self._seen and not (
            self._seen[0][1] == frame.source and 0 <= frame.time_ns - self._seen[0][0] <= HOLD_NS
        ):
            self._seen.popleft()
        lost: dict[object, np.ndarray] = {}
        for time_ns, _, boxes, known in self._seen:
            for row, box in enumerate(boxes):
                key = (time_ns, *box.tolist()) if known is None else int(known[row])
                if key not in now:
                    lost[key] = box
        return list(lost.values())


def pixelate(image: np.ndarray, box: np.ndarray) -> None:
    """Replace what is in `box` (4,) px xyxy, grown, by a few squares of one colour each, in place."""
    height, width = image.shape[:2]
    margin = (box[2:] - box[:2]) * GROWN
    x1, y1 = np.maximum(np.floor(box[:2] - margin), 0).astype(int)
    x2, y2 = np.minimum(np.ceil(box[2:] + margin), (width, height)).astype(int)
    if x1 >= x2 or y1 >= y2:
        return
    side = max(x2 - x1, y2 - y1) / CELLS
    cells = max(1, round((x2 - x1) / side)), max(1, round((y2 - y1) / side))
    small = cv2.resize(image[y1:y2, x1:x2], cells, interpolation=cv2.INTER_AREA)
    image[y1:y2, x1:x2] = cv2.resize(small, (x2 - x1, y2 - y1), interpolation=cv2.INTER_NEAREST)

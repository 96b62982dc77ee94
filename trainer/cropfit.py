"""Choose how a face is cut out so that the edge shows the model what it was trained on.

Training pictures are face crops already. Each is enlarged and put on a plain canvas, the edge's own detector looks for
the face, and margin and shift are the medians that turn the detector's box back into the picture's square. What the
detector scatters around that is what training has to augment. Accuracy on validation pictures that went through
canvas, detector and crop decides between the candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from edge_app.errors import InputError
from edge_app.geometry import centres, iou, roll, sizes
from edge_app.manifest import Crop, Input
from edge_app.preprocess import crop_faces, crop_squares
from edge_app.scoring.evaluate import on_canvas
from edge_app.types import NO_FACES, Faces, Frame, Stage

OVERLAP = 0.25  # least intersection over union with the picture of a box that is this face
FEWEST = 50  # faces below which nothing is fitted
MARGIN_STEPS = (-0.1, -0.05, 0.0, 0.05)  # candidates around the fitted margin


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """Faces that were found on canvases, as columns whose rows agree."""

    rows: np.ndarray  # (M,) int64, which of the pictures
    boxes: np.ndarray  # (M, 4) float32 px, the detector's
    points: np.ndarray  # (M, 6, 2) float32 px
    squares: np.ndarray  # (M, 3) float32 px, centre x, centre y and side of the picture
    total: int  # pictures that were looked at

    @property
    def found(self) -> float:
        """Share 0..1 of the pictures in which the face was found."""
        return len(self.rows) / max(1, self.total)


@dataclass(frozen=True, slots=True)
class Jitter:
    """How far the cut square still lies from the picture's: half the width of the middle 68 %, a robust deviation."""

    x: float  # of the side
    y: float  # of the side
    log_scale: float  # of ln(side / side)
    roll: float  # degrees, of the line through the eyes; head tilt in the pictures is part of it


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """One way to cut, and which of the pictures with a found face are then answered right."""

    crop: Crop
    right: np.ndarray  # (M,) bool
    ready: np.ndarray  # (M,) bool, of the same pictures as they are

    @property
    def accuracy(self) -> float:
        """Share 0..1 answered right."""
        return float(self.right.mean())

    @property
    def loss(self) -> float:
        """Points of accuracy lost by going through detector and crop."""
        return 100 * float(self.ready.mean() - self.right.mean())


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """What was measured, and what was chosen of it."""

    fitted: Crop
    found: float  # share 0..1 of the train pictures in which the face was found
    jitter: Jitter
    candidates: list[Candidate]
    best: Candidate

    def record(self) -> dict[str, object]:
        """Plain values for `crop.json`."""
        each = [asdict(one.crop) | {"accuracy": one.accuracy, "loss": one.loss} for one in self.candidates]
        plain = {"crop": asdict(self.best.crop), "fitted": asdict(self.fitted), "found": self.found}
        return plain | {"jitter": asdict(self.jitter), "candidates": each}


def measure(
    train: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray],
    find: Stage,
    classify: Callable[[np.ndarray], np.ndarray],
) -> Fit:
    """Fit on pictures (N, h, w, c) uint8, choose on other pictures and their class indices (M,); see `confirm`."""
    placed = place(train, find)
    crop = fitted(placed)
    found = confirm(*validation, candidates(crop), find, classify)
    return Fit(crop, placed.found, jitter(placed, crop), found, chosen(found, crop))


def detected(pictures: np.ndarray, find: Stage) -> Iterator[tuple[int, np.ndarray, np.ndarray, Faces]]:
    """Row, canvas, place (1, 4) and the one face (or none) of pictures (N, h, w, c) uint8, on a canvas as
    `evaluate --detect` puts them."""
    for row, picture in enumerate(pictures):
        canvas, place = on_canvas(np.broadcast_to(picture, (*picture.shape[:2], 3)))
        yield row, canvas, place, nearest(find(Frame(canvas, row, 0), NO_FACES), place)


def nearest(faces: Faces, place: np.ndarray) -> Faces:
    """The face that overlaps `place` (1, 4) most; none when none does by `OVERLAP`."""
    overlap = iou(faces.boxes, place)[:, 0]
    if not len(faces) or overlap.max() < OVERLAP:
        return NO_FACES
    row = slice(int(overlap.argmax()), int(overlap.argmax()) + 1)
    return replace(NO_FACES, boxes=faces.boxes[row], scores=faces.scores[row], points=faces.points[row])


def place(pictures: np.ndarray, find: Stage) -> Placed:
    """Look for the face in every picture (N, h, w, c) uint8."""
    rows, boxes, points, squares = [], [], [], []
    for row, _, where, faces in detected(pictures, find):
        if len(faces):
            rows.append(row)
            boxes.append(faces.boxes[0])
            points.append(faces.points[0])
            squares.append([*centres(where)[0], sizes(where)[0, 0]])
    columns = (np.array(column, np.float32) for column in (boxes, points, squares))
    return Placed(np.array(rows, np.int64), *columns, total=len(pictures))


def fitted(placed: Placed) -> Crop:
    """The crop whose squares are the pictures', in the median; InputError when too few faces were found."""
    if len(placed.rows) < FEWEST:
        raise InputError(
            f"fit-crop: expected {FEWEST} faces or more, found {len(placed.rows)} in {placed.total} pictures; it needs "
            "more pictures, of single faces"
        )
    longest = sizes(placed.boxes).max(axis=1)
    margin = (np.median(placed.squares[:, 2] / longest) - 1) / 2
    shift = np.median((placed.squares[:, 1] - centres(placed.boxes)[:, 1]) / longest)
    return Crop(round(float(margin), 3), round(float(shift), 3))


def jitter(placed: Placed, crop: Crop) -> Jitter:
    """What is left between the squares that `crop` cuts and the pictures'."""
    cut, true = crop_squares(placed.boxes, crop), placed.squares
    x, y = ((true[:, axis] - cut[:, axis]) / cut[:, 2] for axis in (0, 1))
    tilt = np.degrees(roll(placed.points))
    return Jitter(*(round(_spread(values), 4) for values in (x, y, np.log(true[:, 2] / cut[:, 2]), tilt)))


def candidates(crop: Crop) -> list[Crop]:
    """The fitted crop, tighter and wider ones, centred ones, and each with the eyes turned level."""
    margins = [round(crop.margin + step, 3) for step in MARGIN_STEPS]
    shifts = dict.fromkeys((crop.shift, 0.0))
    return [Crop(margin, shift, align) for align in ("none", "roll") for shift in shifts for margin in margins]


def confirm(
    pictures: np.ndarray,
    truth: np.ndarray,
    crops: Sequence[Crop],
    find: Stage,
    classify: Callable[[np.ndarray], np.ndarray],
) -> list[Candidate]:
    """Accuracy of every candidate on the pictures (N, h, w, c) whose face was found, with `truth` (N,).

    `classify` answers class indices (M,) for crops (M, h, w, c) uint8.
    """
    height, width, channels = pictures.shape[1:]
    spec = Input(height, width, "gray" if channels == 1 else "rgb", "uint8")
    rows: list[int] = []
    cut: list[list[np.ndarray]] = [[] for _ in crops]
    for row, canvas, _, faces in detected(pictures, find):
        if len(faces):
            rows.append(row)
            for out, crop in zip(cut, crops, strict=True):
                out.append(crop_faces(canvas, faces.boxes, faces.points, crop, spec)[0])
    if not rows:
        raise InputError(
            f"fit-crop: the detector found no face in {len(pictures)} validation pictures; are these faces?"
        )
    ready = classify(pictures[rows]) == truth[rows]
    return [
        Candidate(crop, classify(np.stack(out)) == truth[rows], ready) for crop, out in zip(crops, cut, strict=True)
    ]


def chosen(found: Sequence[Candidate], fit_to: Crop) -> Candidate:
    """Of the candidates within one standard error of the most accurate, one that does not turn faces and is nearest to
    `fit_to`, what geometry says: the rest is noise that would be fitted (Breiman et al. 1984, the 1 SE rule).

    The error is that of the paired difference (McNemar 1947): only pictures count that one answers and the other
    does not.
    """
    best = max(found, key=lambda one: one.accuracy)
    near = [
        one for one in found if best.right.sum() - one.right.sum() <= np.count_nonzero(best.right != one.right) ** 0.5
    ]
    return min(near, key=lambda one: (one.crop.align != "none", _away(one.crop, fit_to)))


def _away(crop: Crop, fit_to: Crop) -> float:
    return abs(crop.margin - fit_to.margin) + abs(crop.shift - fit_to.shift)


def _spread(values: np.ndarray) -> float:
    low, high = np.percentile(values, [16, 84])
    return float(high - low) / 2

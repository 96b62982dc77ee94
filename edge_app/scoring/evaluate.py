"""How good a model is on a labelled folder: as it will run, on the files that will run, with the edge's own pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import cv2
import numpy as np

from ..background import Background
from ..errors import CalmcamError, SettingsError, SourceError
from ..geometry import iou
from ..heads import answers
from ..labels import canonical
from ..manifest import Artifact, Head, Manifest
from ..media import read_picture
from ..preprocess import crop_faces, fit, to_input
from ..report import Span
from ..types import NO_FACES, Backend, Faces, Frame, Stage
from .labelled import Sample

CANVAS = (720, 1280)  # px, height and width of the plain picture that a face picture is put on
# Black is what the detector pads its own input with. On pictures of FER2013's train part, whose crops end at the chin,
# the full range detector at --conf 0.5 misses 3 to 4 % on black, 14 to 18 % on grey and 24 to 34 % on white (n=501);
# on black 4 % at 360 px, 3 % at 430 px and 5 % at 500 px (n=890).
CANVAS_LIGHT = 0  # 0..255
FACE_SIDE = 430  # px, longer side of the face picture on the canvas


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One opened model and the head that is judged."""

    manifest: Manifest
    variant: str
    artifact: Artifact
    head: Head
    backend: Backend

    def classify(self, crop: np.ndarray) -> np.ndarray:
        """Calibrated probabilities (C,) float32 of one crop (h, w, c) uint8, in the order of the head's labels."""
        outputs = self.backend.infer(to_input(crop[None], self.artifact.input))
        return answers([self.head], self.artifact, outputs)[self.head.name][0]


class Ensemble:
    """Models whose probabilities are averaged; one model is an ensemble of one.

    SettingsError unless all heads have the same labels (in any order; the first model's order counts).
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = tuple(members)
        self.labels = members[0].head.labels
        self.unsure_below = float(np.mean([member.head.unsure_below for member in members]))
        self._orders = [_order(self.labels, member, members[0].manifest.name) for member in members]

    def ready(self, image: np.ndarray) -> list[np.ndarray]:
        """A picture (H, W, 3) uint8 RGB that is a face crop already, as each member's input crop."""
        return [fit(image, member.artifact.input) for member in self.members]

    def cut(self, image: np.ndarray, faces: Faces, row: int) -> list[np.ndarray]:
        """Face `row` cut out of `image` (H, W, 3) uint8 RGB, as each member's manifest says."""
        box, points = faces.boxes[row : row + 1], None if faces.points is None else faces.points[row : row + 1]
        return [crop_faces(image, box, points, m.manifest.crop, m.artifact.input)[0] for m in self.members]

    def __call__(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Mean probabilities (C,) float32 of one face, one crop per member."""
        each = [m.classify(crop)[order] for m, crop, order in zip(self.members, crops, self._orders, strict=True)]
        return np.mean(each, axis=0, dtype=np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """What became of one picture."""

    sample: Sample
    ready: np.ndarray | None = None  # (C,) float32 probabilities of the picture taken as a crop; None when unreadable
    found: np.ndarray | None = None  # (C,) float32 of the face found in it; None when not looked for, or not found
    problem: str = ""  # why it could not be read
    size: tuple[int, int] | None = None  # px, height and width; None when unreadable
    spans_ms: dict[str, float] = field(default_factory=dict)


@dataclass(eq=False)
class _Work:
    row: Row
    crops: list[np.ndarray] | None = None
    cuts: list[np.ndarray] | None = None


def rows(samples: Iterable[Sample], ensemble: Ensemble, find: Stage | None = None) -> Iterator[Row]:
    """One row per picture, in order, reading ahead in a thread; with `find`, a face detector, the whole path too."""

    def load(sample: Sample) -> _Work:
        return _load(sample, ensemble, find)

    with Background(samples, load, size=8) as works:
        for work in works:
            yield _classified(work, ensemble)


def on_canvas(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A picture (H, W, 3) uint8 scaled (cubic) to the middle of a black canvas: the canvas, its place there (1, 4)."""
    height, width = image.shape[:2]
    scale = FACE_SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    scaled = cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    canvas = np.full((*CANVAS, 3), CANVAS_LIGHT, np.uint8)
    top, left = (CANVAS[0] - size[1]) // 2, (CANVAS[1] - size[0]) // 2
    canvas[top : top + size[1], left : left + size[0]] = scaled
    return canvas, np.array([[left, top, left + size[0], top + size[1]]], np.float32)


def best(faces: Faces, place: np.ndarray) -> int | None:
    """The face that overlaps `place` (1, 4) most; None when none does."""
    overlaps = iou(faces.boxes, place)[:, 0]
    return int(overlaps.argmax()) if overlaps.any() else None


def _load(sample: Sample, ensemble: Ensemble, find: Stage | None) -> _Work:
    spans: dict[str, float] = {}
    try:
        with Span(spans, "read"):
            image = read_picture(sample.path)
    except (SourceError, OSError) as error:
        return _Work(Row(sample, problem=" ".join(str(error).split()), spans_ms=spans))
    with Span(spans, "fit"):
        ready = ensemble.ready(image)
    work = _Work(Row(sample, size=image.shape[:2], spans_ms=spans), ready)
    if find is not None:
        canvas, place = on_canvas(image)
        with Span(spans, "detect"):
            faces = find(Frame(canvas, 0, 0, sample.name), NO_FACES)
        row = best(faces, place)
        if row is not None:
            with Span(spans, "crop"):
                work.cuts = ensemble.cut(canvas, faces, row)
    return work


def _classified(work: _Work, ensemble: Ensemble) -> Row:
    row, found = work.row, None
    if work.crops is None:
        return row
    with Span(row.spans_ms, "classify"):
        ready = ensemble(work.crops)
    if work.cuts is not None:
        found = ensemble(work.cuts)
    for probs in (ready, found):
        if probs is not None and not np.isfinite(probs).all():
            names = ", ".join(member.artifact.path.name for member in ensemble.members)
            raise CalmcamError(
                f"{names}: gave NaN for {row.sample.path}; expected probabilities; export the model again"
            )
    return replace(row, ready=ready, found=found)


def _order(labels: Sequence[str], member: Member, first: str) -> list[int]:
    own = [canonical(label) for label in member.head.labels]
    if sorted(own) != sorted(map(canonical, labels)):
        raise SettingsError(
            f"{member.manifest.name}: models that are averaged need the same labels; {first} has {', '.join(labels)}, "
            f"this one has {', '.join(member.head.labels)}; choose another --head, or evaluate them one by one"
        )
    return [own.index(canonical(label)) for label in labels]

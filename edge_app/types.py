"""The values that flow from source to sink, and the seams that they cross.

Values are frozen and checked once, when made; `eq=False` because they hold arrays.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

_NO_BOXES = np.empty((0, 4), np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture and when it was taken."""

    image: np.ndarray  # (H, W, 3) uint8 RGB, C-contiguous
    index: int  # position in the source; dropped and skipped frames count too
    time_ns: int  # media time (PTS) for files, time since start for cameras and streams
    source: str = ""  # short name of the camera or file, as it stands in results
    captured_ns: int = field(default_factory=time.monotonic_ns)  # monotonic clock when the picture arrived here
    decode_ms: float = 0.0  # what reading it cost, waiting excluded
    duration_ns: int = 0  # how long a file shows it, until the next one that is taken; 0 when that is not known
    live: bool = False  # a camera took it just now: `captured_ns` can be told in wall time; of a file it says nothing

    def __post_init__(self) -> None:
        shape, dtype = self.image.shape, self.image.dtype
        if len(shape) != 3 or shape[2] != 3 or not shape[0] or not shape[1] or dtype != np.uint8:
            raise ValueError(f"frame {self.index} of {self.source!r}: expected (H, W, 3) uint8, got {shape} {dtype}")


@dataclass(frozen=True, slots=True, eq=False)
class Decision:
    """What is said about one face, over time."""

    label: str  # of the model's chosen head; "unsure" when nothing carries a decision
    confidence: float  # smoothed calibrated probability of the leading label, 0..1
    probs: Mapping[str, float]  # label -> smoothed calibrated probability
    unsure: bool = False
    why: str = ""  # why unsure: "small", "turned", "dark", "blurred", "confidence"; "" otherwise


@dataclass(frozen=True, slots=True, eq=False)
class Faces:
    """The faces of one frame, as columns whose rows agree."""

    boxes: np.ndarray  # (N, 4) float32, x1 y1 x2 y2 in pixels of Frame.image, x2 and y2 exclusive; may reach outside
    scores: np.ndarray  # (N,) float32, detector confidence 0..1
    points: np.ndarray | None = None  # (N, 6, 2) float32 px: right eye, left eye, nose tip, mouth, right ear, left ear
    ids: np.ndarray | None = None  # (N,) int64, None until tracked
    crops: np.ndarray | None = None  # (N, h, w, c) uint8, what the classifier sees
    sharpness: np.ndarray | None = None  # (N,) float32, variance of the Laplacian of the grey crop
    heads: Mapping[str, np.ndarray] = field(default_factory=dict)  # head name -> (N, C) float32, calibrated
    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)  # head name -> what its C columns stand for
    decisions: tuple[Decision, ...] | None = None  # one per face, None until decided
    left_out: np.ndarray = field(default_factory=lambda: _NO_BOXES)  # (M, 4) beyond max_faces, min_size
    device: str = ""  # the device of the backend that classified them; "" when nothing did

    def __post_init__(self) -> None:
        n = len(self.boxes)
        if self.boxes.shape != (n, 4):
            raise ValueError(f"boxes: expected shape ({n}, 4), got {self.boxes.shape}")
        columns = {name: getattr(self, name) for name in ("scores", "points", "ids", "crops", "sharpness", "decisions")}
        for name, column in {**columns, **self.heads}.items():
            if column is not None and len(column) != n:
                raise ValueError(f"{name}: expected {n} rows, got {len(column)}")

    def __len__(self) -> int:
        return len(self.boxes)


NO_FACES = Faces(_NO_BOXES, np.empty(0, np.float32), np.empty((0, 6, 2), np.float32))

Stage = Callable[[Frame, Faces], Faces]


class Source(AbstractContextManager, Protocol):
    """Where frames come from. Opened by `with`, may be opened again; `stop` ends the iteration from any thread."""

    live: bool  # frames come by themselves; those that are not taken in time are lost
    name: str
    fps: float | None
    frames: int | None  # that will come, as far as is known

    def __iter__(self) -> Iterator[Frame]: ...

    def stop(self) -> None: ...


class Backend(Protocol):
    """An engine with an artifact in it."""

    device: str  # "cpu" or "hailo"

    def infer(self, batch: np.ndarray) -> Mapping[str, np.ndarray]:
        """Outputs (N, ...) float32 by tensor name for rows `batch` (N, H, W, C); N may be 0."""

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Status:
    """How the run does at one frame; drawn in the status line."""

    fps: float  # results per second over the last two seconds; 0 while that is not known
    age_ms: float  # from the frame's arrival to this moment
    dropped: int  # frames that a live run has dropped so far
    device: str  # "cpu" or "hailo"


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """One frame, what was found in it, and what it cost."""

    frame: Frame
    faces: Faces
    spans_ms: Mapping[str, float]  # stage name -> wall milliseconds
    status: Status
    picture: np.ndarray | None = None  # (H, W, 3) uint8 RGB, the annotated copy; None when nothing draws


class Sink(AbstractContextManager, Protocol):
    """Where results go. `__exit__` completes what was written, unless writing itself failed.

    A sink may have a method `idle`, which a live run calls some times a second while no result comes.
    """

    name: str = ""  # of its span; "" for none

    def write(self, result: Result) -> None: ...

    def __exit__(self, *exc: object) -> None:
        return None

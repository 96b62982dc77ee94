"""Find faces with MediaPipe Tasks (BlazeFace): arXiv 1907.05047, full range: its model card of MediaPipe."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np

from .. import tflite
from ..errors import BackendError, CalmcamError, MissingPackage, ModelError
from ..geometry import sizes
from ..types import NO_FACES, Faces, Frame


class _Later(ModuleType):
    """Stands for a module until something of it is asked for."""

    def __getattr__(self, name: str) -> object:
        _show()
        return getattr(importlib.import_module(self.__name__), name)


_hidden: dict[str, ModuleType | None] = {}


@contextlib.contextmanager
def _without_helpers() -> Iterator[None]:
    """Hide what MediaPipe imports for others than detectors: at 2.2 s and 580 MB TensorFlow, where it is installed,
    for documentation; at 0.75 s and 36 MB matplotlib, for charts; at 0.07 s what looks for a sound card (measured).
    """
    later = {name: _Later(name) for name in ("matplotlib", "matplotlib.pyplot", "sounddevice")}
    later["matplotlib"].pyplot = later["matplotlib.pyplot"]
    _hidden.update({name: it for name, it in {"tensorflow": None, **later}.items() if name not in sys.modules})
    sys.modules.update(_hidden)
    try:
        yield
    finally:
        _show()


def _show() -> None:
    """End the hiding."""
    while _hidden:
        del sys.modules[_hidden.popitem()[0]]


def _say_nothing() -> None:
    """Keep MediaPipe's reports of its use in this process.

    Its wheels since 0.10.35 send them to play.googleapis.com and offer no way to say no (its issue 6291). libcurl, which
    sends them, goes by the proxy that the environment names: one where nobody listens, whatever stood there. That is
    the environment of C; `os.environ`, which Python's own requests go by, stays as it is for whoever imports us. Programs
    started from here inherit C's, and reach no https address, unless they are given `env=os.environ`.
    """
    os.putenv("https_proxy", "http://127.0.0.1:9")  # discard, RFC 863
    for name in ("no_proxy", "NO_PROXY"):
        if name in os.environ:  # hosts that go without it: all but Google's
            hosts = [host.strip() for host in os.environ[name].split(",")]
            os.putenv(name, ",".join(host for host in hosts if not GOOGLE.endswith(host.lstrip("*."))))


GOOGLE = "play.googleapis.com"
_say_nothing()
with _without_helpers():
    from mediapipe.tasks.python.core.base_options import BaseOptions
    from mediapipe.tasks.python.vision.core.image import Image, ImageFormat
    from mediapipe.tasks.python.vision.face_detector import FaceDetector, FaceDetectorOptions

log = logging.getLogger(__name__)

WARM_UP = (8, 192, 8, 384, 8, 768) * 4  # px, sides of the first, empty pictures
# Score from which a face that is to be hidden is hidden: all 4 of a classroom photo, where 0.5 finds 1.
COVER_CONF = 0.15
LONGEST_SIDE = 4096  # px; larger pictures are shrunk first: MediaPipe counts bytes in 32 bits, its network sees 192 px


class Stage:
    """The first stage of a run. One detector, for any threads in turn; close it before the program ends.

    Pictures stand alone (IMAGE mode): MediaPipe's VIDEO mode tracks nothing here and costs the same (measured).
    """

    _warned = False  # MediaPipe's one warning of this process is out

    def __init__(
        self, path: Path, *, conf: float = 0.5, max_faces: int = 10, min_size: float = 0.0, cover: bool = False
    ):
        """Load the BlazeFace file at `path`; ModelError when it cannot be loaded.

        `conf` is the least detector score (0..1), `max_faces` the most faces kept, best first, and `min_size` the
        least shorter side of a box in pixels. With `cover` what may be a face, beyond these limits, is `left_out`.
        """
        self._name, self._conf, self._max_faces, self._min_size = path.name, conf, max_faces, min_size
        least = min(conf, COVER_CONF) if cover else conf
        options = FaceDetectorOptions(BaseOptions(model_asset_path=str(path)), min_detection_confidence=least)
        self._detector: FaceDetector | None = None
        self._mutex = threading.Lock()
        tflite.check(path)
        with tflite.quiet("MediaPipe") as said, _errors(self._name, ModelError):
            self._detector = FaceDetector.create_from_options(options)
            self._try_it(said)

    def __call__(self, frame: Frame, faces: Faces) -> Faces:
        """The faces of `frame`, best first; those given are forgotten. BackendError when MediaPipe fails."""
        image = _shrunk(frame.image)
        with self._mutex, _errors(self._name, BackendError):
            if self._detector is None:
                raise BackendError(
                    f"{self._name}: the face detector was closed and cannot detect any more; make a new one"
                )
            detections = self._detector.detect(Image(ImageFormat.SRGB, image)).detections
        if not detections:
            return NO_FACES
        height, width = frame.image.shape[:2]
        return self._best(_faces(detections, image.shape[1::-1], (width, height)))

    def close(self) -> None:
        """Release the detector; left to the interpreter's exit it prints a traceback."""
        with self._mutex:
            if self._detector is not None:
                with tflite.quiet("MediaPipe"):
                    self._release()

    def _try_it(self, said: Callable[[], str]) -> None:
        """The first calls allocate; a network that finds no faces fails in them.

        MediaPipe writes once per process to stderr where an allocation is not aligned (1.2.2). Nine times of ten that is
        the first, but six without it were seen: call until it is `said`, while stderr is quiet.
        """
        try:
            for side in WARM_UP:
                self._detector.detect(Image(ImageFormat.SRGB, np.zeros((side, side, 3), np.uint8)))
                if Stage._warned or "not aligned" in said():
                    Stage._warned = True
                    break
        except RuntimeError:
            self._release()
            raise

    def _release(self) -> None:
        detector, self._detector = self._detector, None
        try:
            detector.close()
        except (ValueError, RuntimeError) as error:
            # A graph that failed refuses to close, and the detector's __del__ would then wait for ever (1.2.2): end its
            # thread first, so that closing no longer reaches the graph.
            log.debug("%s: MediaPipe: %s", self._name, error)
            detector._lib.close()
            detector.close()

    def _best(self, faces: Faces) -> Faces:
        sides = sizes(faces.boxes).min(axis=1)
        order = np.lexsort((faces.boxes[:, 1], faces.boxes[:, 0], -faces.scores))  # ties from left to right
        rows = order[((sides >= self._min_size) & (faces.scores >= self._conf))[order]][: self._max_faces]
        others = np.delete(faces.boxes, rows, axis=0)
        return Faces(faces.boxes[rows], faces.scores[rows], faces.points[rows], left_out=others)


@contextlib.contextmanager
def bare(path: Path, *, conf: float) -> Iterator[Callable[[np.ndarray], int]]:
    """MediaPipe's detector with nothing around it, the benchmark's floor: picture (H, W, 3) uint8 RGB to face count."""
    options = FaceDetectorOptions(BaseOptions(model_asset_path=str(path)), min_detection_confidence=conf)
    with tflite.quiet("MediaPipe"):
        detector = FaceDetector.create_from_options(options)
        detector.detect(Image(ImageFormat.SRGB, np.zeros((8, 8, 3), np.uint8)))
    try:
        yield lambda image: len(detector.detect(Image(ImageFormat.SRGB, image)).detections)
    finally:
        with tflite.quiet("MediaPipe"):
            detector.close()


def _shrunk(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale >= 1:
        return np.ascontiguousarray(image)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _faces(detections: Sequence, seen: tuple[int, int], size: tuple[int, int]) -> Faces:
    """Columns in pixels of a picture of `size` (width, height) from detections in one of size `seen`."""
    boxes = [
        (box.origin_x, box.origin_y, box.origin_x + box.width, box.origin_y + box.height)
        for box in (detection.bounding_box for detection in detections)
    ]
    points = [[(point.x, point.y) for point in detection.keypoints] for detection in detections]
    ratio = np.divide(size, seen, dtype=np.float32)
    return Faces(
        np.array(boxes, np.float32) * np.tile(ratio, 2),
        np.array([detection.categories[0].score for detection in detections], np.float32),
        np.array(points, np.float32) * np.array(size, np.float32),
    )


@contextlib.contextmanager
def _errors(name: str, ours: type[CalmcamError]) -> Iterator[None]:
    """What MediaPipe raises (its status codes as built-in exceptions, see mediapipe_c_utils) as our own error."""
    try:
        yield
    except (ValueError, RuntimeError, OSError, IndexError) as error:
        if isinstance(error, OSError) and ".so" in str(error):  # it loads its library with the first detector
            raise MissingPackage.of("MediaPipe", error) from error
        raise ours(f"{name}: MediaPipe: {' '.join(str(error).split()) or type(error).__name__}") from error

"""From texts and settings to what runs: sources, the detector, a model and its stages."""

from __future__ import annotations

import difflib
import glob
import logging
import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from typing import Any

from . import plugins
from .catalogue import check_answer
from .decide import Decider
from .devices import open_best
from .errors import SettingsError
from .manifest import Artifact, Manifest, choose_head, find_model, verify
from .media import PICTURES
from .settings import Settings
from .track import Tracker
from .turn import Turned
from .types import Stage

log = logging.getLogger(__name__)

_ALSO = {"usb": "0", "rpi": "picamera"}  # what hailo-apps calls them
STREAMS = ("rtsp", "rtsps", "rtmp", "rtp", "srt", "udp", "tcp", "http", "https")
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ")  # first bytes
_VIDEOS = (b"\x1aE\xdf\xa3", b"\0\0\1\xba", b"\0\0\1\xb3", b"OggS", b"FLV", b"G@", b"0&\xb2u")  # first bytes
_BRANDS = (b"heic", b"heix", b"mif1", b"msf1", b"avif")  # of ISO media files that hold pictures


class Analysis(AbstractContextManager):
    """A detector and a model, loaded once, and the stages made of them; close it, or use it as a context."""

    def __init__(self, settings: Settings) -> None:
        """Load what `settings` name; SettingsError, ModelError, ManifestError, BackendUnavailable say why not."""
        self.manifest = expression_model(settings.model)
        self.head = choose_head(self.manifest, settings.head, settings.unsure_below)
        self._range = settings.detector
        with ExitStack() as stack:
            opened = open_best(self.manifest, settings.variant, settings.device, threads=settings.threads)
            self.backend, self.variant, self.why = opened
            stack.callback(self.backend.close)
            self.artifact = self.manifest.artifact(self.variant)
            check_answer(self.manifest, self.artifact, self.backend)
            log.info("device: %s", self.why)
            self.detector, self.detect = open_detector(settings)
            stack.callback(self.detect.close)
            expression = plugins.load("tasks", "face_expression")
            self.crop = expression.Crop(self.manifest, self.artifact)
            self.classify = expression.Classify(self.manifest, self.artifact, self.backend)
            self._open = stack.pop_all()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Release detector and backend."""
        self._open.close()

    def stages(self) -> list[tuple[str, Stage]]:
        """Named stages for one source: tracks and decisions start anew."""
        stages = (self.detect, self.crop, self.classify, Tracker(), Decider(self.head))
        return list(zip(("detect", "crop", "classify", "track", "decide"), stages, strict=True))

    def record(self) -> dict[str, object]:
        """What `run.json` says about it."""
        return {
            "device": self.backend.device,
            "device_why": self.why,
            "model": file_record(self.manifest.name, self.variant, self.artifact) | {"head": self.head.name},
            "detector": file_record("face_detection", self._range, self.detector),
        }


def open_detector(settings: Settings) -> tuple[Artifact, Any]:
    """The face detector's file and its opened stage, to be closed; ModelError when the file is not whole."""
    artifact = find_model("face_detection").artifact(settings.detector)
    verify(artifact)
    limits = {"conf": settings.conf, "max_faces": settings.max_faces, "min_size": settings.min_size}
    return artifact, plugins.load("tasks", "face_detection").Stage(artifact.path, cover=settings.blur, **limits)


def file_record(name: str, variant: str, artifact: Artifact) -> dict[str, object]:
    """What `run.json` says about a file of a model."""
    return {"name": name, "variant": variant, "file": artifact.path.name, "sha256": artifact.sha256}


def expression_model(name: str) -> Manifest:
    """The manifest of an installed or given model that reads expressions; SettingsError for another task."""
    manifest = find_model(name)
    if manifest.task != "face_expression":
        raise SettingsError(
            f"{name}: expected a model for face_expression, got one for {manifest.task}; see calmcam models"
        )
    return manifest


def source_kind(text: str) -> str:
    """Which of `edge_app/sources` reads `text`: by its form, and for files by their first bytes; SettingsError for none."""
    text = _ALSO.get(text, text)
    if not text.strip():
        raise SettingsError("source: expected a camera number, a file or an address, got an empty text")
    name = text.partition(":")[0]
    if text.isdecimal() or text.startswith(("/dev/video", "/dev/v4l/")):
        return "camera"
    if name in ("picamera", "synthetic"):
        return name
    if "://" in text:
        return "stream"
    if not os.path.lexists(text):
        _check_spelling(text, name)
    return file_kind(text)


def _check_spelling(text: str, name: str) -> None:
    """SettingsError where a text that is no file was meant as an address, which may hold a password, or as a camera."""
    if name.lower() in STREAMS:
        raise SettingsError(f"source: expected an address such as {name}://host/path, got one without its two slashes")
    if re.match(r"(\S+@)?([\w-]+\.)+\w+:\d+(/|$)|(\S+@)?\d+(\.\d+){3}(/|$)", text):
        raise SettingsError("source: expected an address such as rtsp://host:554/path, got one without its beginning")
    if name.isalnum() and (near := difflib.get_close_matches(name, ("picamera", "synthetic"), n=1)):
        raise SettingsError(f"source: there is no {text!r}; did you mean {near[0]!r}?")


def file_kind(text: str) -> str:
    """Whether "images" or "video" reads the files at `text`, whatever their name is."""
    path = Path(text)
    pattern = glob.has_magic(text) and not os.path.exists(text)
    several = pattern or os.path.isdir(text) or path.suffix.lower() == ".txt"
    return "images" if several or _is_picture(path) else "video"


def open_source(text: str, **options: Any) -> Any:
    """The source that reads `text`; those of `options` that are None are left to its defaults."""
    return _source(source_kind(text), _ALSO.get(text, text), options)


def open_file(path: Path, **part: Any) -> Any:
    """The source that reads a file; `part` (start, end, stride) is taken of a video, pictures are read whole."""
    kind = file_kind(str(path))
    return _source(kind, str(path), part if kind == "video" else {})


def open_with(text: str, settings: Settings) -> Any:
    """The source that reads `text`; one that makes its pictures is asked for the size and rate that `settings` say."""
    asked = {"width": settings.width, "height": settings.height, "fps": settings.fps}
    return open_source(text, **(asked if source_kind(text) in ("camera", "picamera", "synthetic") else {}))


def turned(source: Any, settings: Settings) -> Any:
    """`source` with its pictures turned and mirrored as `settings` say."""
    return Turned(source, settings.rotate, mirror=settings.mirror) if settings.rotate or settings.mirror else source


def _source(kind: str, text: str, options: Mapping[str, Any]) -> Any:
    given = {key: value for key, value in options.items() if value is not None}
    return plugins.load("sources", kind).Source(text, **given)


def _is_picture(path: Path) -> bool:
    """By its first bytes where they are known, else by its name."""
    head = b""
    if os.path.isfile(path):  # the read of a pipe would wait for somebody to write
        with suppress(OSError), path.open("rb") as file:
            head = file.read(12)
    if head[4:8] == b"ftyp":
        return head[8:12] in _BRANDS
    if head.startswith(b"RIFF"):
        return head[8:12] == b"WEBP"
    if head.startswith(_PICTURES):
        return True
    return path.suffix.lower() in PICTURES and not head.startswith(_VIDEOS)

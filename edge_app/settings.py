"""Choices of this installation: one TOML file under flags and over defaults. Facts about a model: its manifest."""

from __future__ import annotations

import numbers
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints
from urllib.parse import quote

from .errors import SettingsError, unknown

CHOICES = {
    "device": ("auto", "hailo", "cpu"),
    "detector": ("full", "short"),
    "labels": ("en", "ko"),
    "rotate": (0, 90, 180, 270),
}
PLACES = ("source", "model", "runs_dir")  # where ~/ is the user's folder
FLAGS = ("show", "paced", "loop", "frames", "seconds")  # of live
RANGES = {
    "unsure_below": (0.0, 1.0),
    "threads": (1, 64),
    "conf": (0.0, 1.0),
    "max_faces": (1, 100),
    "min_size": (1, 10_000),
    "width": (16, 8192),
    "height": (16, 8192),
    "fps": (0.1, 1000.0),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run is made with. Every field is a key of the file and, with dashes, a flag."""

    source: str = "0"  # of live: camera number, device, file, URL, "picamera", "synthetic"; see `filled`
    model: str = "emotions"  # an installed model's name, or a folder with a manifest.json
    head: str | None = None  # of the model, which decides and is drawn; None takes the first
    unsure_below: float | None = None  # confidence that a word needs; None takes the model's own
    variant: str | None = None  # of the model; None takes what suits the device, int8 on a CPU
    device: str = "auto"  # "auto" is the Hailo when there is one and the model was compiled for it
    threads: int = 1  # per CPU interpreter
    detector: str = "full"  # BlazeFace full range, or short range for faces close by
    conf: float = 0.4  # detector confidence below which a face is ignored; 0.4 misses half of what 0.5 does (measured)
    max_faces: int = 10  # per frame, the most confident first
    min_size: int = 1  # px; a face whose shorter side is below is ignored, small ones are unsure anyway
    labels: str = "en"  # language of the drawn labels
    blur: bool = False  # pixelate faces in what is drawn
    bars: bool = True  # draw the probabilities beside each face
    hud: bool = True  # draw time, or rate, age and device, in the corner
    width: int | None = None  # px, asked of a camera; None leaves it to the source
    height: int | None = None  # px
    fps: float | None = None  # per second, asked of a camera
    rotate: int = 0  # degrees clockwise by which pictures of live are turned, for a camera that hangs upside down
    mirror: bool = False  # left and right of live changed over, after turning
    save: bool = False  # of live: write annotated video and results
    json: bool = False  # of live: result lines to standard output
    web: str | None = None  # of live: [HOST:]PORT at which browsers see it
    mqtt: str | None = None  # of live: the broker that is told; see `filled`
    runs_dir: str = "runs"  # where runs land when no output folder is given

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            _check(field.name, getattr(self, field.name), hints[field.name])

    def merged(self, values: Mapping[str, Any]) -> Settings:
        """A copy with those of `values` that are not None, ~/ of places expanded.

        SettingsError for an unknown key or a wrong value.
        """
        names = [field.name for field in fields(self)]
        for key in values:
            if key in FLAGS:
                raise SettingsError(f"{key} is a flag, no setting: calmcam live --{key}")
            if key not in names:
                raise SettingsError(unknown("key", key, names))
        return replace(self, **{key: _plain(key, value) for key, value in values.items() if value is not None})


def default_path() -> Path:
    """Where the settings file is looked for when none is named; it need not exist."""
    home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "calmcam" / "config.toml"


def read_settings(path: Path | None = None) -> Settings:
    """Defaults under the file at `path`, or at `default_path()` if that exists; SettingsError says what is wrong."""
    if path is None:
        path = default_path()
        if not os.path.isfile(path):
            return Settings()
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); expected a TOML file of settings") from error
    except ValueError as error:
        raise SettingsError(f"{path}: expected TOML, got something else ({error})") from error
    try:
        return Settings().merged(raw)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error


def filled(address: str) -> str:
    """An address with each ${NAME} replaced by that environment variable; SettingsError when there is none.

    Before the @ of an address, in user and password, its value may hold any character.
    """

    def value(found: re.Match) -> str:
        if found[1] not in os.environ:
            unset = f"{found[0]}: expected an environment variable {found[1]}, it is not set"
            raise SettingsError(f"{unset}; set it, or write what it stands for")
        login = "://" in address[: found.start()] and "@" in address[found.end() :]
        return quote(os.environ[found[1]], safe="") if login else os.environ[found[1]]

    return re.sub(r"\$\{([A-Za-z_]\w*)\}", value, address)


def _plain(name: str, value: object) -> object:
    """A path as a text, ~/ of places expanded, NumPy's numbers as Python's."""
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return int(value) if isinstance(value, numbers.Integral) else float(value)
    if name not in PLACES or not isinstance(value, (str, os.PathLike)):
        return value
    text = os.fsdecode(value)
    return os.path.expanduser(text) if text.startswith("~/") else text


def _check(name: str, value: object, hint: Any) -> None:
    allowed = get_args(hint) or (hint,)
    kinds = (*allowed, int) if float in allowed else allowed
    if not isinstance(value, kinds) or isinstance(value, bool) and bool not in allowed:
        quoted = f'; write {name} = "{value}"' if str in allowed and type(value) is int else ""
        raise SettingsError(f"{name}: expected {_words(allowed)}, got {value!r}{quoted}")
    if name in CHOICES and isinstance(value, int) and value not in CHOICES[name]:
        raise SettingsError(f"{name}: expected one of {', '.join(map(str, CHOICES[name]))}, got {value}")
    if name in CHOICES and value not in CHOICES[name]:
        raise SettingsError(unknown(name, str(value), CHOICES[name]))
    if name in RANGES and value is not None:
        low, high = RANGES[name]
        if not low <= value <= high:
            raise SettingsError(f"{name}: expected {low} to {high}, got {value}")


def _words(allowed: tuple[type, ...]) -> str:
    names = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    return " or ".join(names[kind] for kind in allowed if kind in names)

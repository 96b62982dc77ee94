"""What a model is: `models/<name>/manifest.json`, read, checked and written. The runtime knows no model family."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .errors import ManifestError, ModelError, SettingsError, unknown
from .files import may_be_there, whole
from .labels import UNSURE, same

CPU_VARIANTS = ("int8", "float32", "dynamic", "float16")  # files for a CPU, by preference
_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Head:
    """One question that a model answers."""

    name: str
    kind: str  # "softmax", or "sigmoid": one logit for the second of two labels
    labels: tuple[str, ...]  # in the order of the output's columns
    temperature: float = 1.0  # logits are divided by it; fitted on validation
    unsure_below: float = 0.0  # below this calibrated confidence nothing is decided

    @property
    def negative(self) -> str:
        """Of two labels the one that says "not", with one logit for the other; "" where several are equals."""
        return self.labels[0] if self.kind == "sigmoid" else ""


@dataclass(frozen=True, slots=True)
class Crop:
    """How a face is cut out, in training and at the edge alike."""

    margin: float = 0.0  # added on each side, as a share of the box's longer side; may be negative
    shift: float = 0.0  # the centre moves down by this share of the box's longer side
    align: str = "none"  # "roll": rotated until the eyes are level


@dataclass(frozen=True, slots=True)
class Input:
    """What one artifact takes, and what the host must still do: value = pixel * scale + offset."""

    height: int  # px
    width: int  # px
    colour: str  # "rgb" or "gray"
    dtype: str  # "uint8" or "float32"
    scale: float = 1.0
    offset: float = 0.0

    @property
    def channels(self) -> int:
        return 3 if self.colour == "rgb" else 1


@dataclass(frozen=True, slots=True)
class Artifact:
    """One file of a model."""

    path: Path
    sha256: str
    bytes: int
    input: Input | None = None  # None for face detectors, which bring their own
    outputs: Mapping[str, str] = field(default_factory=dict)  # head name -> tensor name
    emits: str = "logits"  # or "probabilities": softmax or sigmoid is inside
    compiler: Mapping[str, object] = field(default_factory=dict)  # what made a HEF: architecture, versions, scales


@dataclass(frozen=True, slots=True)
class Manifest:
    """A model: its heads, its crop, its files by variant."""

    name: str
    task: str
    heads: tuple[Head, ...]
    artifacts: Mapping[str, Artifact]  # variant ("int8", "float32", "hailo8", ...) -> file
    licence: str
    crop: Crop = Crop()
    scores: tuple[Mapping[str, object], ...] = ()
    data: str = ""
    command: str = ""
    origin: Mapping[str, object] = field(default_factory=dict)  # seed, versions, data hashes
    folder: Path = Path()

    def artifact(self, variant: str) -> Artifact:
        """The artifact of that variant; SettingsError with the nearest known one otherwise."""
        if variant not in self.artifacts:
            raise SettingsError(f"{self.name}: {unknown('variant', variant, self.artifacts)}")
        return self.artifacts[variant]


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def model_folders() -> list[Path]:
    """Where models are looked for: the checkout's or the wheel's `models/`, then the user's own."""
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    places = (_HERE / "models", _HERE.parent / "models", home / "calmcam" / "models")
    return [place for place in places if os.path.isdir(place)]


def installed() -> dict[str, Path]:
    """Folders of the installed models by name; the first place wins."""
    found: dict[str, Path] = {}
    for place in model_folders():
        for path in sorted(place.glob("*/manifest.json")):
            found.setdefault(path.parent.name, path.parent)
    return found


def find_model(name: str | Path) -> Manifest:
    """The manifest of an installed model, or of a folder given as a path."""
    folders, name = installed(), os.fspath(name)
    if known := same(name, folders):
        return read_manifest(folders[known] / "manifest.json")
    path = Path(name)
    if path.name == "manifest.json":
        return read_manifest(path)
    if may_be_there(path / "manifest.json"):
        return read_manifest(path / "manifest.json")
    if os.path.isdir(path):
        if (path / "recipe.yaml").is_file():
            raise SettingsError(f"{path}: expected a model, got a training run; make one of it: calmcam export {path}")
        raise SettingsError(
            f"{path}: no model there, it has no manifest.json; expected the folder of one that was exported"
        )
    if os.path.isfile(path):
        raise SettingsError(f"{path}: expected the model's folder, got a file{_its_folder(path)}")
    if path.name != name:
        raise SettingsError(f"{path}: there is no such folder; expected a model's, or one of {', '.join(folders)}")
    raise SettingsError(unknown("model", name, folders))


def _its_folder(path: Path) -> str:
    """What to say instead of a file that lies beside its manifest."""
    beside = path.with_name("manifest.json")
    artifacts = read_manifest(beside).artifacts if beside.exists() else {}
    variant = next((one for one, artifact in artifacts.items() if artifact.path.name == path.name), "")
    return f"; try {path.parent} --variant {variant}" if variant else ""


def choose_head(manifest: Manifest, name: str | None, unsure_below: float | None = None) -> Head:
    """The head of that name, the first one for None; SettingsError with the nearest known one otherwise.

    `unsure_below` takes the place of its own threshold, unless it is None.
    """
    if not manifest.heads:
        raise SettingsError(
            f"{manifest.name}: expected a model that classifies, got one without heads ({manifest.task})"
        )
    names = [head.name for head in manifest.heads]
    found = names[0] if name is None else same(name, names)
    if found:
        head = manifest.heads[names.index(found)]
        return head if unsure_below is None else replace(head, unsure_below=unsure_below)
    raise SettingsError(f"{manifest.name}: {unknown('head', str(name), names)}")


def read_manifest(path: Path) -> Manifest:
    """Read and check one manifest; ManifestError says which key is wrong and what was expected."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8-sig"), parse_constant=_no_number)
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror}); expected a model's manifest.json") from error
    except ValueError as error:
        raise ManifestError(f"{path}: expected JSON, got something else ({error})") from error
    return _built(path, raw)


def _no_number(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _built(path: Path, raw: Any) -> Manifest:
    _check(path, raw)
    heads = tuple(_head(path, place, entry, raw["heads"][:place]) for place, entry in enumerate(raw["heads"]))
    artifacts = {variant: _artifact(path, heads, variant, entry) for variant, entry in raw["artifacts"].items()}
    rest = {key: raw[key] for key in ("name", "task", "licence", "data", "command", "origin") if key in raw}
    scores, crop = tuple(raw.get("scores", ())), Crop(**raw.get("crop", {}))
    return Manifest(heads=heads, artifacts=artifacts, scores=scores, crop=crop, folder=path.parent, **rest)


def write_manifest(manifest: Manifest) -> Path:
    """Write `manifest.json` into the manifest's folder, whole or not at all; returns its path."""
    raw = {"schema": 1, **asdict(manifest)}
    raw.pop("folder")
    for entry in raw["artifacts"].values():
        entry["file"] = entry.pop("path").name
        if entry["input"] is None:
            entry.pop("input")
    path = manifest.folder / "manifest.json"
    try:
        raw = json.loads(json.dumps(raw), parse_constant=_no_number)
    except ValueError as error:
        raise ManifestError(f"{path}: cannot be written ({error})") from error
    _built(path, raw)
    with whole(path) as part:
        part.write_text(json.dumps(raw, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def verify(artifact: Artifact) -> None:
    """ModelError unless the file is there with the size and hash that its manifest states."""
    path = artifact.path
    try:
        size = path.stat().st_size
        digest = sha256(path) if size == artifact.bytes else ""
    except OSError as error:
        lack = "missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise ModelError(
            f"{path}: {lack}; expected a file of {artifact.bytes:,} bytes; copy the model again"
        ) from error
    if size != artifact.bytes:
        raise ModelError(f"{path}: expected {artifact.bytes:,} bytes, got {size:,}; copy or export the model again")
    if digest != artifact.sha256:
        raise ModelError(
            f"{path}: expected sha256 {artifact.sha256[:12]}…, got {digest[:12]}…; the file was changed, export again"
        )


def _check(path: Path, raw: object) -> None:
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    schema = json.loads((_HERE / "manifest.schema.json").read_text(encoding="utf-8"))
    error = best_match(Draft202012Validator(schema).iter_errors(raw))
    if error is None:
        return
    where = "/".join(map(str, error.absolute_path)) or "top level"
    if error.validator == "additionalProperties" and isinstance(error.schema.get("properties"), dict):
        strange = next(key for key in error.instance if key not in error.schema["properties"])
        raise ManifestError(f"{path}: {where}: {unknown('key', strange, error.schema['properties'])}")
    raise ManifestError(f"{path}: {where}: {error.message}")


def _head(path: Path, place: int, entry: dict, before: list[dict]) -> Head:
    if UNSURE in entry["labels"]:
        raise ManifestError(
            f"{path}: heads/{place}/labels: {UNSURE!r} is what is said where no label can be; name that label otherwise"
        )
    if entry["kind"] == "sigmoid" and len(entry["labels"]) != 2:
        raise ManifestError(f"{path}: heads/{place}/labels: a sigmoid head has 2 labels, got {entry['labels']}")
    if any(other["name"] == entry["name"] for other in before):
        raise ManifestError(f"{path}: heads/{place}/name: {entry['name']!r} stands there twice; name them differently")
    return Head(**{**entry, "labels": tuple(entry["labels"])})


def _artifact(path: Path, heads: tuple[Head, ...], variant: str, entry: dict) -> Artifact:
    entry = dict(entry)
    outputs = entry.get("outputs", {})
    if set(outputs) != {head.name for head in heads}:
        expected = sorted(head.name for head in heads)
        where = f"{path}: artifacts/{variant}/outputs"
        raise ManifestError(f"{where}: expected one per head {expected}, got {sorted(outputs)}")
    if "input" in entry:
        entry["input"] = Input(**entry["input"])
    elif heads:
        raise ManifestError(f"{path}: artifacts/{variant}: expected a key 'input', got none")
    return Artifact(path=path.parent / entry.pop("file"), **entry)

"""Find and read labelled pictures: folders `<class>/`, `train/ test/`, and FER2013 as CSV.

Unreadable files are counted and named, and do not end the run.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edge_app.errors import InputError, SourceError
from edge_app.health import host
from edge_app.health.checks import Machine
from edge_app.labels import PARTS, index_of
from edge_app.manifest import Input
from edge_app.media import decode_picture, picture_bytes, pictures_below
from edge_app.preprocess import fit

log = logging.getLogger(__name__)

FER2013 = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")  # the CSV's codes 0..6
CODES = {str(code): label for code, label in enumerate(FER2013)}
TOLD = 20  # unreadable files that are named one by one
USAGE = {"Training": "train", "PublicTest": "train", "PrivateTest": "test"}


@dataclass(frozen=True, eq=False)
class Item:
    """One labelled picture."""

    file: str  # path below the data folder, with `/`, preceded by the data set's name if it has one
    path: Path
    sha256: str
    label: str
    source: str  # the data set's name, "" when there is only one
    part: str  # "train", "test" or "", as the data says
    image: np.ndarray | None = None  # (H, W, channels) uint8 at the model's input size
    thumb: np.ndarray | None = None  # (16, 16) uint8 grey, to find near-identical pictures
    size: tuple[int, int] = (0, 0)  # height and width of the file in pixels


@dataclass(frozen=True, eq=False)
class Scan:
    """What lies in a data folder."""

    items: list[Item]
    bad: dict[str, str] = field(default_factory=dict)  # file -> why it could not be read
    ignored: dict[str, int] = field(default_factory=dict)  # folder that is none of the labels -> files in it


def scan(path: Path, source: str, labels: tuple[str, ...], spec: Input, test: bool = False, tell: bool = True) -> Scan:
    """Every picture of the labels below `path`, scaled to the model's input; the test part only when `test`.

    With `tell` the log names what is left out. InputError when there is nothing to train on, only one class, or a
    class in the test part that train lacks.
    """
    if _in_folders(path):
        scanned = _scan_folder(path, source, labels, spec, test)
    else:
        scanned = _scan_csv(_csv_of(path), source, labels, spec, test)
    found = sorted({item.label for item in scanned.items})
    if not found and not test:
        raise InputError(
            f"{path}: expected pictures in folders named {', '.join(labels)}; found {_seen(path, scanned.ignored)}"
        )
    if len(found) < 2 and not test:
        raise InputError(f"{path}: expected at least two classes of {', '.join(labels)}; found only {found[0]}")
    if not tell:
        return scanned
    for why in [*scanned.bad.values()][:TOLD]:
        log.warning("left out: %s", why)
    if len(scanned.bad) > TOLD:
        log.warning("left out: %d more in %s", len(scanned.bad) - TOLD, path)
    for name, count in scanned.ignored.items():
        log.warning("%s/%s: none of the recipe's labels, %d files left out", path, name, count)
    return scanned


def _seen(path: Path, ignored: Mapping[str, int]) -> str:
    """What lies there instead, and what to do about it."""
    if not ignored:
        loose = sum(1 for _ in pictures_below(path))
        return f"{loose} pictures in no such folder" if loose else "nothing"
    found = ", ".join(f"{name}/ ({count} files)" for name, count in ignored.items())
    order = " in the order of not and yes" if len(ignored) == 2 else ""
    other = f"--set {shlex.quote(f'heads.0.labels={label_list(ignored)}')} --set heads.0.class_weights={{}}"
    if len(ignored) > 2:
        other += " --set heads.0.kind=softmax --set select=macro_f1"
    return f"{found}; rename them, or give the labels{order}: {other}"


def label_list(labels: Iterable[str]) -> str:
    """Labels as a recipe's list, each of them text whatever YAML makes of a bare word (no, 1)."""
    return json.dumps([*labels], ensure_ascii=False)


def class_folders(path: Path, test: bool) -> Iterator[tuple[str, Path]]:
    """(part, folder of one class) below `path`: `<class>/`, `train/<class>/`, `test/<class>/`."""
    if not path.is_dir():
        raise InputError(f"{path}: expected a folder with one folder of pictures per class, or a FER2013 CSV")
    for folder in _folders(path):
        part = PARTS.get(folder.name.lower())
        if part is None:
            if not test:
                yield "", folder
        elif (part == "test") == test:
            yield from ((part, inner) for inner in _folders(folder))


def has_test(path: Path) -> bool:
    """The data bring a test part of their own."""
    if not _in_folders(path):
        with _csv_of(path).open(encoding="utf-8", errors="replace", newline="") as file:
            return any(USAGE.get((row.get("Usage") or "").strip()) == "test" for row in csv.DictReader(file))
    return any(PARTS.get(folder.name.lower()) == "test" for folder in _folders(path))


def known_test_classes(path: Path, labels: tuple[str, ...]) -> None:
    """InputError when the test part has a class that is none of the labels and that train lacks; no file is opened."""
    if not path.is_dir():
        return
    known = [*labels, *(folder.name for _, folder in class_folders(path, test=False))]
    for _, folder in class_folders(path, test=True):
        if index_of(folder.name, known) is None and any(pictures_below(folder)):
            raise InputError(_only_in_test(str(folder), labels))


def _only_in_test(where: str, labels: tuple[str, ...]) -> str:
    return (
        f"{where}: a class of the test part that train does not have; expected some of {', '.join(labels)}; "
        "add it to train and to the labels, or move it away"
    )


def _in_folders(path: Path) -> bool:
    """Whether the pictures lie in folders, and not in a CSV."""
    return path.is_dir() and (
        not any(path.glob("*.csv")) or any(any(pictures_below(folder)) for folder in _folders(path))
    )


def _folders(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _scan_folder(path: Path, source: str, labels: tuple[str, ...], spec: Input, test: bool) -> Scan:
    scanned = Scan([])
    if test:
        known_test_classes(path, labels)
    classes = []
    for part, folder in class_folders(path, test):
        place, files = index_of(folder.name, labels), list(pictures_below(folder))
        if place is None:
            scanned.ignored[folder.name] = len(files)
        else:
            classes.append((part, place, files))
    _room(path, sum(len(files) for *_, files in classes), spec)
    for part, place, files in classes:
        for file in files:
            name = "/".join(filter(None, (source, file.relative_to(path).as_posix())))
            try:
                scanned.items.append(_item(file, name, labels[place], source, part, spec))
            except SourceError as error:
                scanned.bad[name] = str(error)
    return scanned


def _room(path: Path, pictures: int, spec: Input) -> None:
    """InputError where memory ends before so many pictures are held: once as found, once as a part's array."""
    needed, free = 2 * pictures * spec.height * spec.width * spec.channels, host.available(Machine())
    if free is not None and needed > free:
        raise InputError(
            f"{path}: {pictures} pictures of {spec.width} px need {needed / 1e9:.1f} GB of memory, "
            f"{free / 1e9:.1f} GB are available; try a smaller --set input.size, or fewer pictures"
        )


def _item(file: Path, name: str, label: str, source: str, part: str, spec: Input) -> Item:
    raw = picture_bytes(file)
    image = decode_picture(raw, file)
    return Item(
        name,
        file,
        hashlib.sha256(raw).hexdigest(),
        label,
        source,
        part,
        fit(image, spec),
        thumbnail(image),
        image.shape[:2],
    )


def thumbnail(image: np.ndarray) -> np.ndarray:
    """(16, 16) uint8 grey of a picture (H, W, 3) or (H, W) uint8."""
    return fit(image, Input(16, 16, "gray", "uint8"))[..., 0]


def _csv_of(path: Path) -> Path:
    files = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            with file.open(encoding="utf-8", errors="replace") as opened:
                if {"emotion", "pixels"} <= set(opened.readline().strip().split(",")):
                    return file
    raise InputError(
        f"{path}: expected a folder with one folder of pictures per class, or a FER2013 CSV (emotion,pixels,Usage)"
    )


def _scan_csv(path: Path, source: str, labels: tuple[str, ...], spec: Input, test: bool) -> Scan:
    scanned = Scan([])
    emotions: dict[str, set[str]] = {"train": set(), "test": set()}
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = csv.DictReader(file)
        if "Usage" not in (rows.fieldnames or ()):
            raise InputError(f"{path}: expected a column Usage that tells train from test, got {rows.fieldnames}")
        for number, row in enumerate(rows):
            name = "/".join(filter(None, (source, f"{path.name}#{number}")))
            part = USAGE.get((row["Usage"] or "").strip())
            emotion = CODES.get((row["emotion"] or "").strip())
            if part is None or emotion is None:
                if not test:
                    got = f"{row['emotion']!r} and {row['Usage']!r}"
                    scanned.bad[name] = f"{name}: expected an emotion 0..6 and a Usage of {', '.join(USAGE)}, got {got}"
                continue
            emotions[part].add(emotion)
            place = index_of(emotion, labels)
            if (part == "test") != test:
                continue
            if place is None:
                scanned.ignored[emotion] = scanned.ignored.get(emotion, 0) + 1
                continue
            try:
                image = np.array((row["pixels"] or "").split(), np.uint8).reshape(48, 48)
            except (ValueError, OverflowError):
                scanned.bad[name] = f"{name}: expected 48 x 48 pixels 0..255"
                continue
            digest = hashlib.sha256(image.tobytes()).hexdigest()
            scanned.items.append(
                Item(name, path, digest, labels[place], source, part, fit(image, spec), thumbnail(image), (48, 48))
            )
    for emotion in sorted(emotions["test"] - emotions["train"]):
        if index_of(emotion, labels) is None:
            raise InputError(_only_in_test(f"{path}: {emotion}", labels))
    return scanned

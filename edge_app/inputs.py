"""From what the user typed to media files: files, folders, glob patterns."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from .addresses import without_secrets
from .files import short
from .media import PICTURES, VIDEOS, listed, walk
from .runs import is_run


@dataclass(frozen=True, slots=True)
class Input:
    """One file to work on, or why there is none."""

    path: Path
    problem: str = ""


def expand(texts: Iterable[str]) -> list[Input]:
    """Every media file that `texts` name, in their order, a folder's in alphabetical order; each file once.

    A file is taken as it is; of a folder and of a pattern only what is named like a picture or a video. Left out are
    hidden files, and the folders of earlier runs below a folder that was named, or that a pattern fits.
    """
    found: dict[str, Input] = {}
    for text in texts:
        for item in _expand_one(text):
            found.setdefault(os.path.abspath(item.path), item)
    return list(found.values())


def _expand_one(text: str) -> list[Input]:
    path = Path(text)
    if not text.strip():
        return [Input(path, "expected a file, a folder or a pattern, got an empty text")]
    if os.path.isdir(path):
        open_to_us = os.access(path, os.R_OK | os.X_OK)
        lack = "found none" if open_to_us else "it may not be opened; check its permissions"
        return _media(_below(path)) or [Input(path, f"{text}: expected pictures or videos in this folder, {lack}")]
    if path.suffix.lower() == ".txt" and os.path.isfile(path):
        return _listed(path)
    if os.path.lexists(path) or "://" in text or not glob.has_magic(text):
        return [_file(path, text)]
    matches = [Path(match) for match in glob.glob(text, recursive=True)]
    files = _media([match for match in matches if not os.path.isdir(match)])
    for folder in sorted(match for match in matches if os.path.isdir(match) and not is_run(match)):
        files += _media(_below(folder))
    if any(map(is_run, matches)) and not files:
        return [Input(path, f"{text}: only folders of earlier runs match this pattern; name one to have it read")]
    return files or [Input(path, f"{text}: no picture or video matches this pattern")]


def _listed(path: Path) -> list[Input]:
    """Of a text file its lines, as paths relative to it; `#` begins a comment line. If none is there it is no list."""
    try:
        files = [_file(path.parent / line, line) for line in listed(path)]
    except (OSError, UnicodeError) as error:
        return [Input(path, f"{path}: expected a list with one path per line, could not read it ({error})")]
    if files and not any(item.problem or os.path.lexists(item.path) for item in files):
        lack = f"found none of its {len(files)} lines; they begin at its folder"
        return [Input(path, f"{path}: expected a picture, a video or a list of paths, {lack}")]
    return files or [Input(path, f"{path}: expected a list with one path per line, got an empty one")]


def _file(path: Path, text: str) -> Input:
    """The file at `path`, which was given as `text`."""
    if "://" not in text or os.path.lexists(path):
        return Input(path)
    address = without_secrets(text)
    do = "download it first, or read it with calmcam live --source"
    return Input(Path(address), f"{address}: expected a file, got an address; {do}")


def _below(folder: Path) -> Iterator[Path]:
    for place, folders, files in walk(folder):
        if place != folder and is_run(place):
            folders.clear()
            continue
        yield from (place / name for name in files)


def _media(paths: Iterable[Path]) -> list[Input]:
    named = PICTURES | VIDEOS
    return [Input(path) for path in sorted(paths) if path.suffix.lower() in named and os.path.isfile(path)]


def stems(paths: Sequence[Path]) -> list[str]:
    """One name per path for its outputs: the stem, numbered where it was taken already, letter case aside."""
    return apart([path.stem for path in paths])


def apart(texts: Sequence[str]) -> list[str]:
    """The texts as names of files: as long as can be, numbered where one was taken already, letter case aside."""
    taken: set[str] = set()
    names = []
    for text in texts:
        stem = short(text)
        name, number = stem, 1
        while name.lower() in taken:
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.lower())
        names.append(name)
    return names

"""A labelled folder, `<class>/...` with pictures: what is in it, under which class, without what is to be left out."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import SettingsError, SourceError
from ..labels import PARTS, composed, index_of, nearest
from ..manifest import sha256
from ..media import pictures_below

log = logging.getLogger(__name__)
HEX = set("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture and what it shows."""

    path: Path
    name: str  # path below the folder, with "/"
    truth: int  # index among the labels


@dataclass(frozen=True, slots=True)
class Exclusions:
    """What to leave out: file names, ends of paths, sha256 digests, and class folders (lines that end with "/")."""

    ends: frozenset[str] = frozenset()
    digests: frozenset[str] = frozenset()
    folders: frozenset[str] = frozenset()

    def of(self, path: Path) -> set[str]:
        """What names the file at `path`: ends of its path, or its content."""
        parts = composed(path.as_posix()).split("/")
        ends = self.ends.intersection("/".join(parts[start:]) for start in range(len(parts)))
        return {*ends, *(self.digests.intersection([sha256(path)]) if self.digests else ())}


def read_exclusions(path: Path) -> Exclusions:
    """One name per line, comments start with "#", after blanks; SettingsError when the file cannot be read as text."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); expected one file name per line") from error
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path}: expected UTF-8 text with one file name per line, got other bytes") from error
    names = (re.sub(r"(^|\s)#.*", "", line).strip() for line in text.splitlines())
    lines = {composed(name.replace("\\", "/").removeprefix("./")) for name in names} - {""}
    digests = {line for line in lines if len(line) == 64 and set(line.lower()) <= HEX}
    folders = {line for line in lines if line.endswith("/")}
    return Exclusions(
        frozenset(lines - digests - folders),
        frozenset(map(str.lower, digests)),
        frozenset(f.strip("/") for f in folders),
    )


def labelled(folder: Path, labels: Sequence[str], exclude: Exclusions = Exclusions()) -> tuple[list[Sample], int]:
    """The samples of `folder`, sorted by name, and how many pictures were left out.

    Class folders are matched with `labels` through the aliases. SourceError for a folder that is missing or empty, or
    a class that the model does not have.
    """
    samples: list[Sample] = []
    left_out, unused = 0, {*exclude.ends, *exclude.digests}
    for name, truth in _classes(folder, labels, exclude):
        for path in pictures_below(folder / name):
            if named := exclude.of(path):
                left_out += 1
                unused -= named
            else:
                samples.append(Sample(path, path.relative_to(folder).as_posix(), truth))
    if unused:
        log.warning("%d names to leave out fit no picture of %s, %s for one", len(unused), folder, min(unused))
    if not samples:
        rest = f" besides the {left_out} that are excluded" if left_out else ""
        raise SourceError(
            f"{folder}: no picture in its class folders{rest}; expected {folder}/{labels[0]}/*.jpg and so on"
        )
    return samples, left_out


def _classes(folder: Path, labels: Sequence[str], exclude: Exclusions) -> list[tuple[str, int]]:
    try:
        names = sorted(e.name for e in os.scandir(folder) if e.is_dir() and not e.name.startswith("."))
    except OSError as error:
        raise SourceError(
            f"{folder}: cannot be read ({error.strerror}); expected a folder with one folder per class"
        ) from error
    names = [name for name in names if composed(name) not in exclude.folders]
    if not names:
        raise SourceError(f"{folder}: no class folders; expected one folder per class: {', '.join(labels)}")
    found = [(name, index_of(name, labels)) for name in names]
    strange = [name for name, truth in found if truth is None]
    if strange:
        raise SourceError(_strange(folder, strange, names, labels))
    return [(name, truth) for name, truth in found if truth is not None]


def _strange(folder: Path, strange: list[str], names: list[str], labels: Sequence[str]) -> str:
    if set(map(str.lower, names)) <= PARTS.keys():
        return f"{folder}: holds the parts {', '.join(names)}, expected class folders; name {folder}/{names[0]}"
    near = nearest(strange[0], labels)
    hint = f"; did you mean {near!r}?" if near else ""
    return (
        f"{folder}: the model has no class {strange[0]!r}{hint} (its classes: {', '.join(labels)}); rename the folder, "
        f"or leave it out with a line '{strange[0]}/' in an --exclude file"
    )

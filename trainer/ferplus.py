"""FER+ votes: ten crowd workers' answers per FER2013 image (Barsoum et al. 2016, arXiv 1608.01041)."""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath

from edge_app.errors import InputError

from .folders import canonical

NOT_EMOTIONS = {"unknown", "not_a_face", "file"}


def read(data: Path, name: str) -> dict[str, dict[str, float]]:
    """Votes by `key(file)` and label, from the file `name` beside the images; empty when there is none."""
    path = (data if data.is_dir() else data.parent) / name
    if not name or not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if "file" not in (rows.fieldnames or ()):
            raise InputError(
                f"{path}: expected a column 'file' and one column of votes per emotion, got {rows.fieldnames}"
            )
        names = {column: canonical(column) for column in rows.fieldnames or () if column not in NOT_EMOTIONS}
        try:
            return {key(row["file"]): {word: float(row[column] or 0) for column, word in names.items()} for row in rows}
        except ValueError as error:
            raise InputError(f"{path}: expected a number of votes in every column but 'file' ({error})") from error


def key(file: str) -> str:
    """What identifies an image in the votes file: its last three path parts, part/class/name."""
    return "/".join(PurePosixPath(file).parts[-3:])

"""FER+ votes: ten crowd workers' answers per FER2013 image (Barsoum et al. 2016, arXiv 1608.01041).

Read as published (github.com/microsoft/FERPlus: `fer2013new.csv`, row by row beside `fer2013.csv`, with the names that
the images get there), or with a column `file` that ends as the images' paths do.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from edge_app.errors import InputError
from edge_app.labels import canonical

PUBLISHED = "fer2013new.csv"
NO_VOTES = {"file", "usage", "image name"}

Votes = Mapping[str, Mapping[str, float]]  # by key: label, "unknown" or "not a face" -> how many said so


def find(data: Path, name: str) -> Path | None:
    """The votes file beside the images: that of this `name`, or the published one; None when there is none."""
    folder = data if data.is_dir() else data.parent
    return next((folder / one for one in (name, PUBLISHED) if name and (folder / one).is_file()), None)


def read(path: Path | None) -> Votes:
    """All votes; InputError when the file is of another kind."""
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")  # Excel writes the mark
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected votes as CSV in UTF-8, it cannot be read ({error})") from error
    with io.StringIO(text) as file:
        rows = csv.DictReader(file)
        header = list(rows.fieldnames or ())
        if "file" not in header and "Image name" not in header:
            raise InputError(
                f"{path}: expected a column 'file' (or 'Image name', as published) and one column of votes per emotion, "
                f"got {header}"
            )
        labels = {column: canonical(column) for column in header if column.lower() not in NO_VOTES}
        found: dict[str, dict[str, float]] = {}
        try:
            for number, row in enumerate(rows):
                votes = {label: float(row[column] or 0) for column, label in labels.items()}
                found |= dict.fromkeys(_keys(row, number), votes)
        except ValueError as error:
            raise InputError(f"{path}: expected a number in every column of votes ({error})") from error
    return found


def of(votes: Votes, file: str) -> Mapping[str, float]:
    """The votes for an image file or row of a CSV (`fer2013.csv#17`), empty when there are none."""
    parts = _key(file).split("/")
    return next((votes[key] for key in ("/".join(parts[i:]) for i in range(len(parts))) if key in votes), {})


def majority(votes: Mapping[str, float]) -> str:
    """The label that more than half of all votes name, or ""; "unknown" and "not a face" count as votes."""
    winner = max(votes, key=votes.__getitem__, default="")
    return winner if winner and votes[winner] > sum(votes.values()) / 2 else ""


def _keys(row: Mapping[str, str], number: int) -> list[str]:
    if "file" in row:
        return [_key(row["file"])]
    return [f"#{number}", *filter(None, [row["Image name"]])]


def _key(file: str) -> str:
    """What identifies an image: its last three path parts, part/class/name; or the number of its row."""
    base, row, number = file.rpartition("#")
    return f"#{number}" if row and base.endswith(".csv") else "/".join(PurePosixPath(file).parts[-3:])

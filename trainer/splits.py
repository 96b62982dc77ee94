"""Divide pictures so that the same person, session or picture never falls on both sides."""

from __future__ import annotations

import csv
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from edge_app.errors import InputError, SettingsError
from edge_app.labels import CLIP, PARTS, composed

from .folders import Item, has_test
from .recipe import DataRecipe

log = logging.getLogger(__name__)
ALIKE = 5.0  # mean absolute grey difference (of 255) of 16 x 16 thumbnails below which near hashes count as one picture


def divide(items: Sequence[Item], recipe: DataRecipe, paths: Mapping[str, Path]) -> list[tuple[Item, str, str]]:
    """(item, "train" | "validation" | "test", group) for every item, whole groups together, classes in proportion.

    `paths` holds the folder of every data set, which are divided together: a picture that lies in two of them falls on
    one side. `recipe.test` is held out of each that brings no test part. InputError when a part lacks a class.
    """
    items = limited(items, recipe.limit)
    groups = merge(named_groups(items, recipe, paths), same_pictures(items, recipe.near))
    splits = divided(items, groups, recipe, paths)
    return [(item, split, f"g{group}") for item, split, group in zip(items, splits, groups, strict=True)]


def divided(items: Sequence[Item], groups: Sequence[int], recipe: DataRecipe, paths: Mapping[str, Path]) -> list[str]:
    """The part of every item, of which `groups` says what stays together; InputError when a part lacks a class."""
    labels = [f"{item.source}/{item.label}".lstrip("/") for item in items]
    held_out = {source: 0.0 if has_test(path) else recipe.test for source, path in paths.items()}
    test = {label: held_out[item.source] for item, label in zip(items, labels, strict=True)}
    shares = {"validation": {label: recipe.validation * (1 - share) for label, share in test.items()}, "test": test}
    splits = assign(groups, labels, shares, recipe.seed)
    expected = {"train": labels, "validation": labels, "test": [label for label, share in test.items() if share]}
    complete(labels, splits, expected, ", ".join(str(path) for path in paths.values()))
    return splits


def complete(
    labels: Sequence[str], splits: Sequence[str], expected: Mapping[str, Iterable[str]], where: str, mend: str = ""
) -> None:
    """InputError when a part lacks one of the classes that are `expected` in it; it names `mend` too."""
    for part, classes in expected.items():
        missing = set(classes) - {label for label, split in zip(labels, splits, strict=True) if split == part}
        if missing:
            raise InputError(
                f"{where}: no image of {', '.join(sorted(missing))} in the {part} part; give more groups (persons, clips, "
                f"different pictures) of it{mend and f', or {mend}'}"
            )


def assign(
    groups: Sequence[int], labels: Sequence[str], shares: Mapping[str, float | Mapping[str, float]], seed: int
) -> list[str]:
    """The part of every row: shuffled groups fill each part up to its share of every class, or of each class its own.

    A part that no group of some class is small enough for gets the smallest one, if train keeps another.
    """
    sizes = Counter(labels)
    members = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    order = sorted(members)
    np.random.default_rng([seed, 0]).shuffle(order)
    splits = ["train"] * len(labels)
    for part, share in shares.items():
        of = share if isinstance(share, Mapping) else dict.fromkeys(sizes, share)
        room = Counter({label: max(round(size * of[label]), 1 if of[label] else 0) for label, size in sizes.items()})
        for group in order:
            counts = Counter(labels[row] for row in members[group])
            if splits[members[group][0]] == "train" and all(room[label] >= count for label, count in counts.items()):
                for row in members[group]:
                    splits[row] = part
                room.subtract(counts)
        _fill(part, {label for label in sizes if of[label]}, order, members, labels, splits)
    return splits


def _fill(
    part: str, wanted: set[str], order: Sequence[int], members: Mapping, labels: Sequence[str], splits: list[str]
) -> None:
    """Give `part` the smallest group of train for each class of `wanted` that it lacks, where train keeps all of its
    classes."""
    classes = {group: {labels[row] for row in members[group]} for group in order}
    for label in sorted(wanted):
        lies = {group: splits[members[group][0]] for group in order}
        if any(label in classes[group] for group in order if lies[group] == part):
            continue
        train = [group for group in order if lies[group] == "train"]
        kept = Counter(one for group in train for one in classes[group])
        fits = [group for group in train if label in classes[group] and classes[group] <= wanted]
        free = [group for group in fits if all(kept[one] > 1 for one in classes[group])]
        if free:
            rows = members[min(free, key=lambda group: len(members[group]))]
            count = sum(labels[row] == label for row in rows)
            log.warning("%s: the smallest group of %r that it can have brings %d pictures of it", part, label, count)
            for row in rows:
                splits[row] = part


def folds(groups: Sequence[int], labels: Sequence[str], count: int, seed: int) -> np.ndarray:
    """Fold (N,) int64 of every row for grouped cross-validation, classes in proportion."""
    members = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    order = sorted(members)
    np.random.default_rng([seed, 1]).shuffle(order)
    load = [Counter() for _ in range(count)]
    fold = np.zeros(len(labels), np.int64)
    for group in sorted(order, key=lambda group: -len(members[group])):
        counts = Counter(labels[row] for row in members[group])
        chosen = min(
            range(count), key=lambda k: (sum(load[k][label] * n for label, n in counts.items()), load[k].total())
        )
        load[chosen] += counts
        fold[members[group]] = chosen
    return fold


def named_groups(items: Sequence[Item], recipe: DataRecipe, paths: Mapping[str, Path]) -> list[str]:
    """Group name of every item by table or name pattern; where neither says anything the clip that `calmcam crop` took
    it from, else its own file name.

    The pattern is searched in "/" and the path below the class's folder: "/p07_happy3.png". A table names pictures, or
    what `calmcam crop` cut them from. InputError when pattern and table say nothing of any item, a warning
    when they are silent on some.
    """
    tables = {source: _groups_file(path, recipe.groups_file) for source, path in paths.items()}
    try:
        pattern = re.compile(composed(recipe.group)) if recipe.group else None
    except re.error as error:
        raise SettingsError(f"data.group: {recipe.group!r} is no regular expression ({error})") from error
    if pattern is not None and pattern.groups < 1:
        raise SettingsError(f"data.group: {recipe.group!r} needs one (group) that names the person, session or video")
    names, alone = [], []
    for item in items:
        table = tables[item.source]
        hit = pattern.search(composed(_below_class(item))) if pattern else None
        below = composed(item.file.removeprefix(f"{item.source}/" if item.source else ""))
        said = table.get(below) or table.get(_uncut(below)) or (hit.group(1) if hit else "")
        if not said:
            alone.append(item.file)
        names.append(said or (f"clip:{_uncut(item.file)}" if CLIP.match(item.file) else f"file:{item.file}"))
    if alone and (recipe.group or recipe.groups_file):
        _tell_alone(alone, len(names), recipe)
    return names


def _tell_alone(alone: Sequence[str], count: int, recipe: DataRecipe) -> None:
    by = f"data.group {recipe.group!r}" if recipe.group else f"data.groups_file {recipe.groups_file}"
    if len(alone) == count:
        raise InputError(f"{by} names the group of no picture; expected one that fits, for example, {alone[0]}")
    log.warning("%s: %d of %d pictures have no group, %s for one", by, len(alone), count, alone[0])


def _below_class(item: Item) -> str:
    parts = item.file.split("/")[bool(item.source) :]
    return "/" + "/".join(parts[2 if parts[0].lower() in PARTS else 1 :])


def same_pictures(items: Sequence[Item], near: int) -> Iterable[tuple[int, int]]:
    """Pairs of rows with identical files, or dHashes at most `near` bits apart and thumbnails alike."""
    first: dict[str, int] = {}
    for row, item in enumerate(items):
        yield first.setdefault(item.sha256, row), row
    thumbs = np.stack([item.thumb for item in items])
    hashes = np.array([dhash(thumb) for thumb in thumbs], np.uint64)
    for a, b in near_hashes(hashes, near):
        if items[a].sha256 != items[b].sha256 and np.abs(thumbs[a].astype(np.int16) - thumbs[b]).mean() < ALIKE:
            yield a, b


def dhash(thumb: np.ndarray) -> int:
    """64-bit difference hash of a grey picture: is each of 8 x 8 cells brighter than the next (N. Krawetz 2013)."""
    small = cv2.resize(thumb, (9, 8), interpolation=cv2.INTER_AREA).astype(np.int16)
    return int.from_bytes(np.packbits(small[:, :-1] > small[:, 1:]).tobytes(), "big")


def near_hashes(hashes: np.ndarray, near: int) -> list[tuple[int, int]]:
    """Pairs of rows of hashes (N,) uint64 at most `near` bits apart.

    Pigeonhole: cut into near + 1 bands, such a pair agrees in at least one of them.
    """
    pairs = set()
    edges = np.linspace(0, 64, near + 2).astype(int)
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        band = (hashes >> np.uint64(low)) & np.uint64((1 << int(high - low)) - 1)
        order = np.argsort(band, kind="stable")
        starts = np.flatnonzero(np.r_[True, np.diff(band[order]) > 0, True])
        for start, stop in zip(starts[:-1], starts[1:], strict=True):
            if stop - start > 1:
                pairs.update(_close(order[start:stop], hashes, near))
    return sorted(pairs)


def merge(names: Sequence[str], pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Number of the group of every row, joining rows of the same name and rows that form a pair (union-find)."""
    parent = list(range(len(names)))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = row = parent[parent[row]]
        return row

    first: dict[str, int] = {}
    for row, name in enumerate(names):
        parent[root(row)] = root(first.setdefault(name, row))
    for a, b in pairs:
        parent[root(b)] = root(a)
    return [root(row) for row in range(len(names))]


def limited(items: Sequence[Item], limit: int) -> list[Item]:
    """At most `limit` items per class of every data set, evenly spread; all when 0."""
    if not limit:
        return list(items)
    rows = defaultdict(list)
    for row, item in enumerate(items):
        rows[item.source, item.label].append(row)
    kept = {
        chosen[i]
        for chosen in rows.values()
        for i in np.linspace(0, len(chosen) - 1, min(limit, len(chosen))).astype(int)
    }
    return [item for row, item in enumerate(items) if row in kept]


def _close(rows: np.ndarray, hashes: np.ndarray, near: int) -> list[tuple[int, int]]:
    if len(rows) == 2:
        a, b = (int(row) for row in rows)
        return [(min(a, b), max(a, b))] if (int(hashes[a]) ^ int(hashes[b])).bit_count() <= near else []
    found = []
    for position, a in enumerate(rows[:-1]):
        differing = np.unpackbits((hashes[rows[position + 1 :]] ^ hashes[a]).view(np.uint8).reshape(-1, 8), axis=1).sum(
            axis=1
        )
        found += [(min(int(a), int(b)), max(int(a), int(b))) for b in rows[position + 1 :][differing <= near]]
    return found


def _uncut(file: str) -> str:
    """The name that a crop and the picture or clip that it was cut from share; a row of a CSV has its own."""
    stem, _, ending = file.rpartition(".")
    clip = CLIP.match(file)
    return clip.group(1) if clip else file if "#" in ending else stem


def _groups_file(path: Path, name: str) -> dict[str, str]:
    if not name:
        return {}
    file = (path if path.is_dir() else path.parent) / name
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            rows = csv.DictReader(opened)
            if not {"file", "group"} <= set(rows.fieldnames or ()):
                raise InputError(f"{file}: expected a CSV with the columns file,group, got {rows.fieldnames}")
            files = {composed(row["file"] or ""): row["group"] for row in rows}
            groups = {file.replace("\\", "/").removeprefix("./"): group for file, group in files.items()}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: expected a CSV (UTF-8) with the columns file,group ({error})") from error
    return {_uncut(name): who for name, who in groups.items()} | groups

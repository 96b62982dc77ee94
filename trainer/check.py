"""`calmcam train RECIPE --check`: what the data are like before hours are spent on them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from edge_app.drawing.text import line
from edge_app.errors import InputError
from edge_app.files import whole

from .data import Member, backbone_saw, check_backbone, sources
from .folders import Item, Scan, has_test, scan
from .recipe import EVERY, Recipe
from .splits import divided, merge, named_groups, same_pictures

COLUMNS = 12  # of the sample sheet
CELL = 96  # px
NAME = 15  # px, size of the letters
FEW = 50
SEEN = 10  # pictures that a backbone learnt from, named one by one
UNREADY = "cannot be trained on yet: "  # how the line begins that says so
WIDE = 1.5  # ratio of sides beyond which a picture is hardly a face alone


def check(recipe: Recipe, data: Path | Mapping[str, Path], out: Path) -> list[str]:
    """Lines on counts, sizes, duplicates and bad files of all data, test part included, and `samples.jpg` in `out`.

    Nothing is learnt from the test part here; it is only counted and compared.
    """
    lines, learnt, tests = [], [], []
    paths = sources(recipe, data)
    for name, path in paths.items():
        labels = next(head.labels for head in recipe.heads if head.data == name)
        scanned = scan(path, name, labels, recipe.input.spec, tell=False)
        test = scan(path, name, labels, recipe.input.spec, test=True, tell=False) if has_test(path) else Scan([])
        lines += [f"{path}:", *_counts(scanned, test, labels), *_bad(scanned, test)]
        learnt += scanned.items
        tests += test.items
    everything = learnt + tests
    named = named_groups(everything, recipe.data, paths)
    same = list(same_pictures(everything, recipe.data.near))
    groups = merge(named, same)
    together = f"groups that stay together: {len(set(groups))}{_parted(everything, groups)}"
    lines += [*_duplicates(everything, same), together]
    groups = merge(named[: len(learnt)], (pair for pair in same if max(pair) < len(learnt)))  # as training has them
    lines += _division(learnt, tests, groups, recipe, paths)
    sheet = out / "samples.jpg"
    write_sheet(sheet, everything)
    return [*lines, f"sample sheet: {sheet}"]


def write_sheet(path: Path, items: Sequence[Item]) -> None:
    """A picture with one row of samples per class."""
    by_label = defaultdict(list)
    for item in items:
        by_label[item.label].append(item)
    rows = [_row(label, chosen) for label, chosen in sorted(by_label.items())]
    with whole(path) as part:
        part.write_bytes(cv2.imencode(".jpg", np.concatenate(rows))[1])


def _counts(scanned: Scan, test: Scan, labels: Sequence[str]) -> list[str]:
    train, held = (Counter(item.label for item in part.items) for part in (scanned, test))
    lines = []
    for label in labels:
        few = f"  fewer than {FEW}: expect scores that swing by 10 points and more" if train[label] < FEW else ""
        lines.append(f"  {label:<16}{train[label]:>8,}{held[label]:>8,}{few}")
    strange = [f"  {name}/: none of the labels, {count:,} files left out" for name, count in scanned.ignored.items()]
    sizes = Counter(item.size for item in scanned.items).most_common(3)
    common = ", ".join(f"{width}x{height} ({count:,})" for (height, width), count in sizes)
    return [
        f"  {'class':<16}{'train':>8}{'test':>8}",
        *lines,
        *strange,
        f"  commonest sizes: {common}",
        *_wide(scanned),
    ]


def _wide(scanned: Scan) -> list[str]:
    """The whole picture is learnt from, and the edge shows faces only."""
    wide = sum(max(item.size) > WIDE * min(item.size) for item in scanned.items)
    if 2 * wide <= len(scanned.items):
        return []
    return [f"  {wide:,} are far from square: expected cut faces; calmcam crop cuts them"]


def _bad(*scans: Scan) -> list[str]:
    bad = {file: why for scanned in scans for file, why in scanned.bad.items()}
    return (
        [f"  unreadable: {len(bad)}", *(f"    {why}" for why in list(bad.values())[:10])]
        if bad
        else ["  unreadable: 0"]
    )


def _duplicates(items: Sequence[Item], same: Sequence[tuple[int, int]]) -> list[str]:
    exact, alike, classes, splits, examples = 0, 0, 0, 0, []
    for a, b in same:
        if a == b:
            continue
        first, second = items[a], items[b]
        exact += first.sha256 == second.sha256
        alike += first.sha256 != second.sha256
        splits += first.part != second.part
        if first.label != second.label:
            classes += 1
            examples.append(f"  {first.file} = {second.file}")
    pairs = f"same pictures: {exact:,} identical pairs, {alike:,} near-identical pairs"
    return [f"{pairs}; {classes:,} across classes, {splits:,} across train and test", *examples[:5]]


def _parted(items: Sequence[Item], groups: Sequence[int]) -> str:
    """Of a test/ folder, which is taken as it is."""
    parts: dict[int, set[bool]] = defaultdict(set)
    for group, item in zip(groups, items, strict=True):
        parts[group].add(item.part == "test")
    both = sum(len(found) > 1 for found in parts.values())
    return f", but {both} stand in train and in test: what they score there flatters" if both else ""


def _division(
    items: Sequence[Item], tests: Sequence[Item], groups: Sequence[int], recipe: Recipe, paths: Mapping[str, Path]
) -> list[str]:
    """How many pictures of each data set each part will have, or why there can be no training."""
    there = {(item.source, item.label) for item in items}
    wanted = [(head.data, label) for head in recipe.heads if head.data != EVERY for label in head.labels]
    if lacking := [label for source, label in wanted if (source, label) not in there]:
        return [f"{UNREADY}no training picture of {', '.join(lacking)}"]
    seen: list[str] = []
    try:
        splits = divided(items, groups, recipe.data, paths)
        found = [Member(item, split, "") for item, split in zip(items, splits, strict=True)]
        seen = backbone_saw(recipe, found)
        check_backbone(recipe, found)
    except InputError as error:
        more = [f"  and {len(seen) - SEEN:,} more"] if len(seen) > SEEN else []
        return [f"{UNREADY}{error}", *(f"  {file}" for file in seen[:SEEN]), *more]
    if recipe.data.limit:  # that division is of fewer
        return []
    counts = Counter((item.source, split) for item, split in zip(items, splits, strict=True))
    counts.update((item.source, "test") for item in tests)
    parts = {name: [f"{counts[name, part]:,} {part}" for part in ("train", "validation", "test")] for name in paths}
    return [f"divided into: {'; '.join(' '.join(filter(None, (name, ', '.join(has)))) for name, has in parts.items())}"]


def _row(label: str, items: Sequence[Item]) -> np.ndarray:
    row = np.full((CELL, (COLUMNS + 1) * CELL, 3), 255, np.uint8)
    ink = line(label, NAME)[:, :CELL]
    top = (CELL - len(ink)) // 2
    row[top : top + len(ink), : ink.shape[1]] -= ink[..., None]
    picks = np.linspace(0, len(items) - 1, min(COLUMNS, len(items))).astype(int)
    for column, pick in enumerate(picks, start=1):
        image = cv2.resize(items[pick].image, (CELL, CELL), interpolation=cv2.INTER_AREA)
        bgr = cv2.cvtColor(image, cv2.COLOR_GRAY2BGR if image.ndim == 2 else cv2.COLOR_RGB2BGR)
        row[:, column * CELL : (column + 1) * CELL] = bgr
    return row

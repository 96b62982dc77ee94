"""Labelled pictures as arrays: what `train` learns from, and what it and `export` judge with.

Membership of train, validation and test is decided once (`splits.py`), written to `split.csv` by hash, and read back
from there ever after. The test part is loaded only by those who name it.
"""

from __future__ import annotations

import csv
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_app.errors import InputError, SettingsError
from edge_app.files import whole
from edge_app.labels import CLIP, canonical
from edge_app.manifest import read_manifest
from edge_app.media import read_picture
from edge_app.preprocess import fit
from edge_app.seen import marks, read_learnt

from . import ferplus
from .folders import Item, Scan, has_test, known_test_classes, scan
from .recipe import EVERY, HeadRecipe, Recipe
from .recipe_file import read_recipe
from .record import digest, origin, read_run
from .splits import divide, named_groups

log = logging.getLogger(__name__)
MODEL = "take other pictures, or --set backbone=none"


@dataclass(frozen=True, eq=False)
class Part:
    """One part of the data, as columns whose rows agree. C is the number of a head's labels, also for sigmoid heads."""

    images: np.ndarray  # (N, H, W, channels) uint8 at the recipe's size and colour
    weights: Mapping[str, np.ndarray]  # head -> (N,) float32, 0 = this head does not learn from this image
    labels: Mapping[str, np.ndarray]  # head -> (N,) int64, -1 = none
    files: tuple[str, ...]  # as in split.csv
    hashes: tuple[str, ...]  # sha256 of the files
    votes: Mapping[str, np.ndarray]  # head -> (N, C) float32 FER+ votes, zeros where there are none
    groups: tuple[str, ...]  # what pictures of one person, session, clip or content share

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, eq=False)
class Member:
    """One row of split.csv."""

    item: Item
    split: str  # "train", "validation" or "test"
    group: str


def sources(recipe: Recipe, data: Path | Mapping[str, Path]) -> dict[str, Path]:
    """Folder or CSV of every data set that the recipe names; InputError when one is missing."""
    names = list(dict.fromkeys(head.data for head in recipe.heads if head.data != EVERY)) or [""]
    for head in recipe.heads:
        if head.data == EVERY and (strange := set(head.labels) - set(names)):
            raise InputError(
                f"{recipe.name}: heads.{head.name}.labels: expected names of data sets ({', '.join(names)}), got "
                f"{', '.join(sorted(strange))}"
            )
    if isinstance(data, Mapping):
        if set(data) != set(names):
            wanted = " ".join(f"--data {name}=DIR" if name else "--data DIR" for name in names)
            raise InputError(f"--data: the recipe {recipe.name} expects {wanted}, got {', '.join(data)}")
        return {name: Path(data[name]) for name in names}
    return {name: Path(data) / name if name else Path(data) for name in names}


def members(recipe: Recipe, data: Path | Mapping[str, Path]) -> tuple[list[Member], list[Scan]]:
    """Read the data and divide it: train and validation, and test of data sets that bring no test part of their own.

    No picture of the data's test part is opened. InputError when it has a class that train lacks.
    """
    paths = sources(recipe, data)
    for name, path in paths.items():
        known_test_classes(path, _labels(recipe, name))
    scans = [scan(path, name, _labels(recipe, name), recipe.input.spec) for name, path in paths.items()]
    found = divide([item for scanned in scans for item in scanned.items], recipe.data, paths)
    return [Member(item, split, group) for item, split, group in found], scans


def part(recipe: Recipe, members: Sequence[Member], paths: Mapping[str, Path]) -> Part:
    """Arrays of the members; each data set of `paths` has votes of its own."""
    chosen = [member.item for member in members]
    votes = {name: ferplus.read(ferplus.find(path, recipe.data.votes)) for name, path in paths.items()}
    columns = {head.name: _columns(head, chosen, votes) for head in recipe.heads}
    spec = recipe.input.spec
    images = np.empty((len(chosen), spec.height, spec.width, spec.channels), np.uint8)
    for row, item in zip(images, chosen, strict=True):
        row[:] = item.image if item.image is not None else fit(read_picture(item.path), spec)
    return Part(
        images,
        {name: column[0] for name, column in columns.items()},
        {name: column[1] for name, column in columns.items()},
        tuple(item.file for item in chosen),
        tuple(item.sha256 for item in chosen),
        {name: column[2] for name, column in columns.items()},
        tuple(member.group for member in members),
    )


def parts(
    recipe: Recipe, found: Sequence[Member], data: Path | Mapping[str, Path], which: Sequence[str]
) -> dict[str, Part]:
    """Arrays of the named parts."""
    paths = sources(recipe, data)
    made = {name: part(recipe, [member for member in found if member.split == name], paths) for name in which}
    if "train" in made and not any(votes.any() for votes in made["train"].votes.values()):
        for path in paths.values():
            if votes := ferplus.find(path, recipe.data.votes):
                log.warning("%s names none of the training pictures; no votes are used", votes)
    return made


def load_run(
    run: Path, data: Path | Mapping[str, Path], which: Sequence[str] = ("train", "validation")
) -> dict[str, Part]:
    """The parts of a finished run, by the hashes in its split.csv; "test" only when asked for by name.

    InputError when images that the run used are missing or changed.
    """
    recipe = read_recipe(str(run / "recipe.yaml"))
    wanted = read_split(run / "split.csv")
    _as_begun(run, wanted)
    paths = sources(recipe, data)
    items = _items(recipe, paths)
    found = match(wanted, items, run, recipe)
    if "test" in which:
        held_out = {member.item.source for member in found if member.split == "test"}
        own = {name: path for name, path in paths.items() if name not in held_out and has_test(path)}
        test = _items(recipe, own, test=True)
        groups = named_groups([*items, *test], recipe.data, paths)[len(items) :] if test else ()
        found += [Member(item, "test", group) for item, group in zip(test, groups, strict=True)]
    result = parts(recipe, found, data, which)
    if "test" in which and not len(result["test"]):
        raise InputError(
            f"{data}: expected a test part (test/<class>/ or Usage PrivateTest), found none; "
            "calmcam train --set data.test=0.2 holds one out"
        )
    return result


def _items(recipe: Recipe, paths: Mapping[str, Path], test: bool = False) -> list[Item]:
    """The pictures of the data sets at `paths`, of their own test parts where `test`."""
    spec = recipe.input.spec
    return [item for name, path in paths.items() for item in scan(path, name, _labels(recipe, name), spec, test).items]


def _as_begun(run: Path, wanted: Sequence[Mapping[str, str]]) -> None:
    """InputError when split.csv names other pictures than the run began with."""
    begun = read_run(run).get("data_sha256", {}) if (run / "run.json").is_file() else {}
    for part in ("train", "validation"):
        named = digest(row["sha256"] for row in wanted if row["split"] == part)
        if named != begun.get(part, named):
            raise InputError(f"{run}: split.csv is not what the run began with; restore it or train again")


def match(wanted: Sequence[Mapping[str, str]], items: Sequence[Item], run: Path, recipe: Recipe) -> list[Member]:
    """The members that split.csv names, found by file, hash and labels, or without the file when it was renamed."""
    by_file = {(item.file, item.sha256, *_all_labels(recipe, item)): item for item in items}
    by_hash = {(item.sha256, *_all_labels(recipe, item)): item for item in items}
    there = {item.sha256: item for item in items}
    found, missing, labelled = [], 0, []
    for row in wanted:
        key = (row["sha256"], *(row.get(head.name) for head in recipe.heads))
        item = by_file.get((row["file"], *key)) or by_hash.get(key)
        if item is not None:
            found.append(Member(item, row["split"], row["group"]))
        elif row["sha256"] in there:
            labelled.append(f"{row['file']} is {there[row['sha256']].file} now")
        else:
            missing += 1
    if missing:
        raise InputError(
            f"{run}: split.csv names {len(wanted)} images, {missing} of them are missing or changed; "
            "give the data that the run was trained on"
        )
    if labelled:
        raise InputError(
            f"{run}: {len(labelled)} pictures have another label than when the run began, {labelled[0]} for one; "
            "give the data as they were, or train a new run"
        )
    return found


def read_split(path: Path) -> list[dict[str, str]]:
    """Rows of split.csv; InputError when it is not there, or damaged."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); expected the folder of a training run") from error
    if not {row.get("split") for row in rows} >= {"train", "validation"} or not all(row.get("sha256") for row in rows):
        raise InputError(
            f"{path}: expected pictures of train and validation with their sha256; restore it or train again"
        )
    return rows


def check_unseen(other: Path, parts: Iterable[tuple[str, str, str]], role: str, mend: str = "") -> None:
    """SettingsError when the run or model `other`, which is to `role`, learnt from pictures that judge (`seen_by`)."""
    if seen := seen_by(other, parts):
        raise SettingsError(
            f"{other}: cannot {role} here; it learnt from {len(seen)} of the pictures that judge, {seen[0]} for one; "
            f"{mend or 'train it on the same data with the same data settings, or take another'}"
        )


def seen_by(other: Path, parts: Iterable[tuple[str, str, str]]) -> list[str]:
    """Files of the pictures that judge and that the run or model `other` learnt from.

    `parts` are sha256, split and file of all pictures. One that is learnt from as well, a duplicate in the published
    data, is nobody's lead.
    """
    rows, known = list(parts), learnt(other)
    taught = {digest for digest, split, _ in rows if split == "train"}
    judging = {digest: file for digest, _, file in rows if digest not in taught}
    return [file for digest, file in judging.items() if marks([digest]) <= known]


def check_backbone(recipe: Recipe, found: Iterable[Member], mend: str = "") -> None:
    """SettingsError when the run or model that is the backbone learnt from pictures that judge; it names `mend`."""
    if other := origin(recipe.backbone):
        if not (mend or (other / "split.csv").is_file()):
            mend = MODEL
        check_unseen(other, _told(found), "be the backbone", mend)


def backbone_saw(recipe: Recipe, found: Iterable[Member]) -> list[str]:
    """Files of the pictures that judge and that the run or model that is the backbone learnt from."""
    other = origin(recipe.backbone)
    return seen_by(other, _told(found)) if other else []


def _told(found: Iterable[Member]) -> Iterator[tuple[str, str, str]]:
    return ((member.item.sha256, member.split, member.item.file) for member in found)


def learnt(place: Path) -> frozenset[bytes]:
    """Marks of the pictures that the weights in the folder of a run, or of an exported model, learnt from, those that they
    began with and their teachers too."""
    if not (place / "split.csv").is_file():
        return read_learnt(place / "manifest.json", read_manifest(place / "manifest.json").origin.get("seen"))
    own = marks(row["sha256"] for row in read_split(place / "split.csv") if row["split"] == "train")
    told = read_run(place) if (place / "run.json").is_file() else {}
    return own | read_learnt(place / "run.json", told.get("seen"))


def named_group_counts(run: Path, recipe: Recipe) -> dict[str, tuple[int, int]]:
    """How many pictures of how many groups each part of split.csv has.

    Nothing where neither table nor pattern nor a clip's name named any: groups of pictures that are alike are no persons.
    """
    rows = read_split(run / "split.csv")
    if not (recipe.data.group or recipe.data.groups_file or any(CLIP.match(row["file"]) for row in rows)):
        return {}
    groups = {part: [row["group"] for row in rows if row["split"] == part] for part in ("train", "validation", "test")}
    return {part: (len(names), len(set(names))) for part, names in groups.items() if names}


def write_split(path: Path, recipe: Recipe, found: Sequence[Member]) -> None:
    """Write file, sha256, split, group and the label of every head, whole or not at all."""
    heads = {head.name: [_label(head, member.item) for member in found] for head in recipe.heads}
    writing = {"encoding": "utf-8", "errors": "surrogateescape", "newline": ""}  # names may be no Unicode
    with whole(path) as unfinished, unfinished.open("w", **writing) as file:
        writer = csv.writer(file)
        writer.writerow(["file", "sha256", "split", "group", *heads])
        for row, member in enumerate(found):
            item = member.item
            writer.writerow([item.file, item.sha256, member.split, member.group, *(heads[name][row] for name in heads)])


def _labels(recipe: Recipe, name: str) -> tuple[str, ...]:
    return next(head.labels for head in recipe.heads if head.data == name)


def _label(head: HeadRecipe, item: Item) -> str:
    if head.data == EVERY:
        return item.source
    return item.label if head.data == item.source else ""


def _all_labels(recipe: Recipe, item: Item) -> tuple[str, ...]:
    return tuple(_label(head, item) for head in recipe.heads)


def _columns(head: HeadRecipe, items: Sequence[Item], votes: Mapping[str, ferplus.Votes]) -> tuple:
    """Weights, labels and votes of one head."""
    known = {label: column for column, label in enumerate(head.labels)}
    labels = np.array([known.get(_label(head, item), -1) for item in items], np.int64)
    counts = np.zeros((len(items), len(known)), np.float32)
    spelled = {canonical(label): column for label, column in known.items()}  # as FER+ files are read
    for row in np.flatnonzero(labels >= 0):
        for label, count in ferplus.of(votes[items[row].source], items[row].file).items():
            if label in spelled:
                counts[row, spelled[label]] = count
    factors = np.array([head.class_weights.get(label, 1.0) for label in head.labels], np.float32)
    weights = np.where(labels >= 0, factors[labels], 0).astype(np.float32)
    return weights, labels, counts

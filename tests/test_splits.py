"""Who stands in which part: membership by hash, groups, folds."""

from __future__ import annotations

import csv
import shutil
import unicodedata
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("yaml")

import pictures  # noqa: E402
from small_data import GREY, LABELS, recipe, save, write_data  # noqa: E402

from edge_app.errors import InputError, OutputError, SettingsError  # noqa: E402
from edge_app.media import read_picture  # noqa: E402
from trainer.data import load_run, members, named_group_counts, parts, write_split  # noqa: E402
from trainer.folders import scan  # noqa: E402
from trainer.folds import fold_members  # noqa: E402
from trainer.recipe_file import write_recipe  # noqa: E402
from trainer.splits import assign, folds, limited, near_hashes, same_pictures  # noqa: E402


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


def test_train_and_validation_come_from_train_alone(data: Path) -> None:
    found, _ = members(recipe(), data)
    assert {member.item.file.split("/")[0] for member in found} == {"train"}
    assert sum(member.split == "validation" for member in found) == 20
    made = parts(recipe(), found, data, ("train", "validation"))
    assert made["train"].images.shape == (60, 24, 24, 1) and made["train"].images.dtype == np.uint8
    assert made["validation"].labels["emotion"].tolist().count(1) == 10


def test_run_is_read_back_by_hash_even_after_renaming(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    found, _ = members(recipe(), data)
    write_recipe(recipe(), run / "recipe.yaml")
    write_split(run / "split.csv", recipe(), found)
    before = load_run(run, data)
    (data / "train" / "angry" / "0000.png").rename(data / "train" / "angry" / "moved.png")
    after = load_run(run, data)
    assert set(before) == {"train", "validation"}
    assert before["train"].hashes == after["train"].hashes
    assert len(load_run(run, data, ("test",))["test"]) == 20
    (data / "train" / "angry" / "moved.png").unlink()
    with pytest.raises(InputError, match="1 of them are missing or changed"):
        load_run(run, data)


def test_identical_and_near_identical_pictures_stay_on_one_side(data: Path) -> None:
    original = read_picture(data / "train" / "angry" / "0000.png")
    for number in range(12):
        near = np.clip(original.astype(int) + number % 3, 0, 255).astype(np.uint8)
        save(data / "train" / "angry" / f"twin{number}.png", near)
    for seed in range(4):
        found, _ = members(recipe(f"data.seed={seed}"), data)
        twins = {m.split for m in found if "twin" in m.item.file or m.item.file.endswith("angry/0000.png")}
        assert len(twins) == 1


def test_frames_of_a_clip_stay_together(data: Path, tmp_path: Path) -> None:
    """As `calmcam crop` names them; the same clip name in another class is another clip."""
    clips = tmp_path / "clips"
    for label in LABELS:
        (clips / label).mkdir(parents=True)
        for number, path in enumerate(sorted((data / "train" / label).glob("*.png"))):
            shutil.copy(path, clips / label / f"clip{number % 5}.f{number:06d}.png")
    found, _ = members(recipe("data.near=0"), clips)
    sides = {}
    for member in found:
        sides.setdefault(member.item.file.split(".f")[0], set()).add(member.split)
    assert len(sides) == 10 and all(len(splits) == 1 for splits in sides.values())


@pytest.mark.parametrize("way", ["pattern", "file"])
def test_named_groups_stay_together(data: Path, way: str) -> None:
    for label in LABELS:
        for file in sorted((data / "train" / label).iterdir()):
            file.rename(file.with_name(f"p{int(file.stem) // 5}_{file.name}"))
    rows = [{"file": f"train/{f.parent.name}/{f.name}", "group": f.name[:2]} for f in (data / "train").rglob("*.png")]
    with (data / "groups.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["file", "group"])
        writer.writeheader()
        writer.writerows(rows)
    change = "data.group='/(p[0-9]+)_'" if way == "pattern" else "data.groups_file=groups.csv"
    found, _ = members(recipe(change), data)
    people = {}
    for member in found:
        people.setdefault(member.item.path.name.partition("_")[0], set()).add(member.split)
    assert all(len(splits) == 1 for splits in people.values())
    assert {split for splits in people.values() for split in splits} == {"train", "validation"}
    with pytest.raises(SettingsError, match="needs one"):
        members(recipe("data.group=p"), data)


@pytest.mark.parametrize("way", ["none", "pattern", "clips"])
def test_named_groups_are_counted_and_pictures_that_are_alike_are_none(data: Path, tmp_path: Path, way: str) -> None:
    for label in LABELS if way != "none" else ():
        for file in sorted((data / "train" / label).iterdir()):
            person = int(file.stem) // 5
            file.rename(
                file.with_name(f"p{person}_{file.name}" if way == "pattern" else f"{person}.f{file.stem:0>6}.png")
            )
    shutil.copy(min((data / "train" / "happy").iterdir()), data / "train" / "happy" / "again.png")
    changed = recipe("data.group='/(p[0-9]+)_'") if way == "pattern" else recipe()
    found, _ = members(changed, data)
    write_split(tmp_path / "split.csv", changed, found)
    counts = named_group_counts(tmp_path, changed)
    if way == "none":
        assert counts == {}
        return
    each = 8 if way == "pattern" else 16  # a clip is one of its class's folder; the copy joins one of them
    assert list(counts) == ["train", "validation"]
    assert [sum(column) for column in zip(*counts.values(), strict=True)] == [81, each]


@pytest.mark.parametrize("pattern", ["^/(p[0-9]+)_", "([^/]+)_[0-9]+", "(p[0-9]+)"])
def test_a_group_does_not_hold_the_class(data: Path, pattern: str, caplog: pytest.LogCaptureFixture) -> None:
    for label in LABELS:
        for file in sorted((data / "train" / label).iterdir()):
            file.rename(file.with_name(f"p{int(file.stem) // 5}_{file.name}"))
    found, _ = members(recipe(f"data.group={pattern}"), data)
    people = {}
    for member in found:
        people.setdefault(member.item.path.name.partition("_")[0], set()).add(member.split)
    assert len(people) == 8 and all(len(splits) == 1 for splits in people.values())
    assert not caplog.messages


@pytest.mark.parametrize("change", ["data.group=/(q[0-9]+)_", "data.groups_file=groups.csv"])
def test_groups_that_fit_no_picture_are_refused_and_gaps_are_told(
    data: Path, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    table = data / "groups.csv"
    table.write_text("file,group\nelsewhere/0000.png,q0\n", encoding="utf-8")
    with pytest.raises(InputError, match="names the group of no picture; expected one that fits"):
        members(recipe(change), data)
    table.write_text("file,group\ntrain/happy/0000.png,q0\n", encoding="utf-8")
    (data / "train" / "happy" / "0001.png").rename(data / "train" / "happy" / "q1_1.png")
    members(recipe(change), data)
    assert "79 of 80 pictures have no group" in caplog.text


def test_a_table_may_name_the_clips_that_pictures_were_cut_from(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    for label in LABELS:
        for file in sorted((data / "train" / label).iterdir()):
            number = int(file.stem)
            file.rename(file.with_name(f"{'ab'[number % 2]}.f{number:06}.png" if number < 30 else file.name))
    change = recipe("data.groups_file=groups.csv")
    table = data / "groups.csv"
    table.write_text("file,group\nsmirk/c.mp4,kim\n", encoding="utf-8")
    with pytest.raises(InputError, match="names the group of no picture"):
        members(change, data)
    rows = [f"train/{label}/{clip}.mp4,kim" for label in LABELS for clip in "ab"]
    rows += [f"train\\{label}\\{number:04}.jpg,{number}" for label in LABELS for number in range(30, 40)]
    table.write_text("\n".join(["file,group", *rows]), encoding="utf-8-sig")  # as Excel writes it on Windows
    found, _ = members(change, data)
    assert len({member.split for member in found if ".f0000" in member.item.file}) == 1
    assert "have no group" not in caplog.text


@pytest.mark.parametrize("content", [b"file;group\nx;1\n", b"file,group\ncaf\xe9.png,1\n", b""])
def test_a_table_that_cannot_be_read_as_such_gets_a_sentence(data: Path, content: bytes) -> None:
    (data / "groups.csv").write_bytes(content)
    with pytest.raises(InputError, match=r"groups.csv: expected a CSV .*the columns file,group"):
        members(recipe("data.groups_file=groups.csv"), data)


def test_identical_files_are_one_pair(data: Path) -> None:
    shutil.copy(data / "train" / "angry" / "0000.png", data / "train" / "happy" / "copy.png")
    items = scan(data, "", LABELS, GREY).items
    pairs = [(a, b) for a, b in same_pictures(items, 4) if a != b]
    assert sum({items[a].path.name, items[b].path.name} == {"0000.png", "copy.png"} for a, b in pairs) == 1


def test_a_test_part_is_held_out_where_the_data_bring_none(tmp_path: Path) -> None:
    pictures.write(tmp_path / "data" / "train", LABELS, 40)
    held = recipe("data.test=0.25")
    found, _ = members(held, tmp_path / "data")
    assert Counter(member.split for member in found) == {"train": 44, "validation": 16, "test": 20}
    pictures.write(tmp_path / "data" / "test", LABELS, 3, seed=1)
    found, _ = members(held, tmp_path / "data")
    assert Counter(member.split for member in found) == {"train": 60, "validation": 20}


def test_validation_holds_its_share_of_grouped_pictures_and_no_more() -> None:
    groups = [row // 4 if row < 80 else row for row in range(400)]
    splits = assign(groups, ["a"] * 400, {"validation": 0.2}, seed=1)
    inside = [split for row, split in enumerate(splits) if row < 80]
    assert splits.count("validation") == 80 and 4 <= inside.count("validation") <= 32


def test_no_class_exceeds_its_share_where_persons_show_several() -> None:
    """Twenty persons, each thrice in "a" and once in "b", and sixty pictures of "b" alone."""
    groups, labels = [row // 4 if row < 80 else row for row in range(140)], ["a", "a", "a", "b"] * 20 + ["b"] * 60
    for seed in range(5):
        splits = assign(groups, labels, {"validation": 0.2}, seed)
        held = Counter(label for label, split in zip(labels, splits, strict=True) if split == "validation")
        assert 0 < held["a"] <= 12 and held["b"] == 16


def test_a_limit_takes_pictures_from_all_over_each_class_of_each_data_set() -> None:
    """Neighbours are often frames of one clip, or of one person."""
    kinds = [("", "a")] * 100 + [("", "b")] * 9 + [("more", "a")] * 3
    items = [SimpleNamespace(source=source, label=label, row=row) for row, (source, label) in enumerate(kinds)]
    assert [item.row for item in limited(items, 5)] == [0, 24, 49, 74, 99, 100, 102, 104, 106, 108, 109, 110, 111]
    assert limited(items, 0) == items


@pytest.mark.parametrize("shares", [{"validation": 0.2}, {"validation": 0.2, "test": 0.2}])
@pytest.mark.parametrize("mixed", [False, True])
def test_a_few_clips_or_persons_can_be_divided(shares: dict[str, float], mixed: bool) -> None:
    """Three clips of each class, or three persons who show both: each is more than a part's share."""
    groups = [row // (40 if mixed else 20) for row in range(120)]
    labels = ["ab"[row % 2] if mixed else "ab"[row // 60] for row in range(120)]
    for seed in range(5):
        splits = assign(groups, labels, shares, seed)
        parts = {name: {group for group, split in zip(groups, splits, strict=True) if split == name} for name in splits}
        assert set(parts) == {"train", *shares} and sum(map(len, parts.values())) == len(set(groups))
        for name in parts:
            assert {label for label, split in zip(labels, splits, strict=True) if split == name} == {"a", "b"}


def test_the_smallest_group_fills_a_part_and_train_keeps_one() -> None:
    groups, labels = [0] * 9 + [1] * 5 + [2] * 7, ["a"] * 21
    assert assign(groups, labels, {"validation": 0.1}, 1) == ["train"] * 9 + ["validation"] * 5 + ["train"] * 7
    assert set(assign([0] * 9, ["a"] * 9, {"validation": 0.1}, 1)) == {"train"}


def test_the_pictures_that_fill_a_part_are_counted_by_class(caplog: pytest.LogCaptureFixture) -> None:
    groups, labels = [0] * 9 + [1] * 5 + [2] * 5, ["a", "b", "b"] * 3 + ["a", "a", "b", "b", "b"] * 2
    assert assign(groups, labels, {"validation": 0.1}, 1).count("validation") == 5
    assert "validation: the smallest group of 'a' that it can have brings 2 pictures of it" in caplog.text


def test_more_folds_than_groups_have_their_sentence(data: Path) -> None:
    found, _ = members(recipe(), data)
    with pytest.raises(InputError, match="--folds 50: no image of .* in the test part; .* fewer folds"):
        fold_members(recipe(), found, 50)


def test_folds_keep_groups_and_use_every_row_once() -> None:
    groups = [row // 3 for row in range(60)]
    labels = ["a" if row % 4 else "b" for row in range(60)]
    fold = folds(groups, labels, 5, seed=3)
    assert np.bincount(fold).tolist() == [12] * 5
    assert all(len({fold[row] for row in range(60) if groups[row] == group}) == 1 for group in set(groups))


def test_near_hashes_finds_what_comparing_all_pairs_finds() -> None:
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**63, 60, np.uint64)
    hashes = np.concatenate([hashes, hashes[:20] ^ np.uint64(0b10010001), hashes[:5]])
    brute = [
        (a, b)
        for a in range(len(hashes))
        for b in range(a + 1, len(hashes))
        if (int(hashes[a]) ^ int(hashes[b])).bit_count() <= 4
    ]
    assert near_hashes(hashes, 4) == brute and len(brute) >= 25


def test_split_in_a_read_only_place_has_its_sentence(data: Path) -> None:
    found, _ = members(recipe(), data)
    with pytest.raises(OutputError, match="name another place"):
        write_split(Path("/proc/split.csv"), recipe(), found)


def item(value, sha):
    thumb = np.full((16, 16), value, np.uint8) if np.isscalar(value) else value
    return SimpleNamespace(sha256=sha, thumb=thumb)


def test_what_is_alike_is_told_by_its_grey_too() -> None:
    """Flat pictures have all one dHash; and a picture may be lighter than its twin as well as darker."""
    black, white = item(10, "a"), item(240, "b")
    assert all(a == b for a, b in same_pictures([black, white], 4))
    grey = np.random.default_rng(0).integers(50, 200, (16, 16)).astype(np.uint8)
    for other in (grey + 2, grey - 2):
        assert (0, 1) in list(same_pictures([item(grey, "a"), item(other, "b")], 4))


def test_a_class_of_few_pictures_has_one_in_each_part() -> None:
    splits = assign(range(104), ["a"] * 100 + ["b"] * 4, {"validation": 0.1, "test": 0.1}, seed=0)
    assert {"train", "validation", "test"} == set(splits[100:])


def test_a_class_of_one_person_is_told(data: Path) -> None:
    for file in (data / "train" / "happy").iterdir():
        file.rename(file.with_name(f"p0_{file.name}"))
    with pytest.raises(InputError, match="no image of happy in the validation part"):
        members(recipe("data.group='/(p[0-9]+)_'"), data)


def test_a_table_from_another_system_names_hangul_pictures(data: Path) -> None:
    """macOS writes file names in pieces."""
    for number, file in enumerate(sorted((data / "train" / "happy").iterdir())):
        file.rename(file.with_name(unicodedata.normalize("NFD", f"민수{number}.png")))
    rows = [f"train/happy/민수{number}.png,{number // 5}" for number in range(40)]
    (data / "groups.csv").write_text("\n".join(["file,group", *rows]), encoding="utf-8")
    found, _ = members(recipe("data.groups_file=groups.csv"), data)
    mine = [member for member in found if member.item.label == "happy"]
    assert len({member.group for member in mine}) == 8


def test_each_fold_is_held_out_and_of_the_rest_a_share_validates(data: Path) -> None:
    found, _ = members(recipe("data.near=0"), data)
    held = []
    for fold in fold_members(recipe("data.near=0"), found, 4):
        splits = [member.split for member in fold]
        assert (splits.count("test"), splits.count("validation")) == (20, 16)
        held += [member.item.file for member in fold if member.split == "test"]
    assert sorted(held) == sorted(member.item.file for member in found)

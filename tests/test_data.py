"""Data sets as parts: layouts, aliases, odd files, groups, membership by hash."""

from __future__ import annotations

import csv
import shutil
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("yaml")

import pictures  # noqa: E402
from PIL import Image  # noqa: E402

from edge_app.errors import InputError, OutputError, SettingsError, SourceError  # noqa: E402
from edge_app.labels import canonical  # noqa: E402
from edge_app.manifest import Input  # noqa: E402
from edge_app.media import read_picture  # noqa: E402
from trainer import ferplus  # noqa: E402
from trainer.data import load_run, members, named_group_counts, parts, write_split  # noqa: E402
from trainer.feed import targets  # noqa: E402
from trainer.folders import has_test, scan  # noqa: E402
from trainer.folds import fold_members  # noqa: E402
from trainer.recipe import Recipe  # noqa: E402
from trainer.recipe_file import apply, parse, write_recipe  # noqa: E402
from trainer.splits import assign, folds, named_groups, near_hashes, same_pictures  # noqa: E402

LABELS = ("angry", "happy")
GREY = Input(24, 24, "gray", "uint8")


def recipe(*changes: str) -> Recipe:
    raw: dict = {
        "name": "tiny",
        "family": "cnn",
        "input": {"size": 24, "colour": "gray"},
        "heads": [{"name": "emotion", "labels": list(LABELS)}],
        "data": {"validation": 0.25},
        "stages": [{"name": "all", "epochs": 1, "learning_rate": 0.1}],
    }
    for change in changes:
        apply(raw, change)
    return parse(raw, "tiny.yaml")


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imencode(path.suffix, image)[1].tofile(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    pictures.write(tmp_path / "data" / "train", LABELS, 40)
    pictures.write(tmp_path / "data" / "test", LABELS, 10, seed=1)
    return tmp_path / "data"


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


@pytest.mark.parametrize(
    ("folder", "label"), [("Anger", "angry"), ("happiness", "happy"), ("shy", "shy"), ("Non-Teasing", "non_teasing")]
)
def test_aliases(folder: str, label: str) -> None:
    assert canonical(folder) == label


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff", ".webp"])
def test_formats_colours_and_hangul_paths(tmp_path: Path, suffix: str) -> None:
    colour = np.zeros((30, 20, 3), np.uint8)
    colour[..., 0] = 200
    path = tmp_path / "웃음" / f"얼굴{suffix}"
    path.parent.mkdir()
    Image.fromarray(colour).save(path)
    image = read_picture(path)
    assert image.shape == (30, 20, 3)
    assert abs(int(image[..., 0].mean()) - 200) < 6 and image[..., 2].mean() < 6


def test_exif_turns_the_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((10, 30), np.uint8)).save(tmp_path / "turned.jpg", exif=exif)
    assert read_picture(tmp_path / "turned.jpg").shape[:2] == (30, 10)


def test_unreadable_files_are_named_and_left_out(data: Path) -> None:
    (data / "train" / "angry" / "text.png").write_text("no picture", encoding="utf-8")
    scanned = scan(data, "", LABELS, GREY)
    assert len(scanned.items) == 80
    assert list(scanned.bad) == ["train/angry/text.png"]
    assert scanned.bad["train/angry/text.png"].endswith("got something that is none or is damaged")


def test_what_is_transparent_hidden_or_called_valid_is_read_as_the_edge_reads_it(data: Path) -> None:
    glass = Image.fromarray(np.zeros((24, 24, 2), np.uint8), "LA")
    for place in ("valid/angry", "train/angry/.ipynb_checkpoints", "train/.cache"):
        (data / place).mkdir(parents=True)
        glass.save(data / place / "glass.png")
    (data / "train" / "angry" / "._0000.png").write_bytes(b"what macOS leaves")
    scanned = scan(data, "", LABELS, GREY)
    assert not scanned.bad and not scanned.ignored
    (item,) = (one for one in scanned.items if one.path.name == "glass.png")
    assert item.file == "valid/angry/glass.png" and item.image.min() == 255, "on white"


def test_empty_folder_one_class_and_strange_class(data: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="expected"):
        scan(tmp_path / "empty", "", LABELS, GREY)
    pictures.write(tmp_path / "one", ("happy",), 3)
    with pytest.raises(InputError, match="found only happy"):
        scan(tmp_path / "one", "", LABELS, GREY)
    pictures.write(data / "test", ("smug",), 2)
    for look in (lambda: scan(data, "", LABELS, GREY, test=True), lambda: members(recipe(), data)):
        with pytest.raises(InputError, match="test/smug: a class of the test part that train does not have"):
            look()
    pictures.write(data / "train", ("smug",), 2)
    assert scan(data, "", LABELS, GREY, test=True).ignored == {"smug": 2}, "left out on purpose, as in train"


def test_identical_and_near_identical_pictures_stay_on_one_side(data: Path) -> None:
    original = read_picture(data / "train" / "angry" / "0000.png")
    for number in range(12):
        near = np.clip(original.astype(int) + number % 3, 0, 255).astype(np.uint8)
        save(data / "train" / "angry" / f"twin{number}.png", near)
    for seed in range(4):
        found, _ = members(recipe(f"data.seed={seed}"), data)
        twins = {m.split for m in found if "twin" in m.item.file or m.item.file.endswith("angry/0000.png")}
        assert len(twins) == 1


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
            file.rename(file.with_name(f"p{person}_{file.name}" if way == "pattern" else f"{person}.f{file.stem:0>6}.png"))
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


def test_labels_may_be_spelled_otherwise_than_folders(data: Path) -> None:
    (data / "train" / "happy").rename(data / "train" / "Happiness")
    lines = [f"train/Happiness/{number:04}.png,9,1" for number in range(40)]
    (data / "ferplus_votes.csv").write_text("\n".join(["file,happiness,anger", *lines]))
    spelled = recipe("heads.emotion.labels=[Anger, joy]")
    found, _ = members(spelled, data)
    assert {m.item.label for m in found} == {"Anger", "joy"} and len(found) == 80
    votes = parts(spelled, found, data, ("train",))["train"].votes["emotion"]
    assert votes.max(axis=0).tolist() == [1, 9]
    with pytest.raises(SettingsError, match="expected two or more different labels"):
        recipe("heads.emotion.labels=[joy, happy]")


def test_a_change_of_a_list_takes_its_place() -> None:
    raw = {"options": {"blocks": [0, 1, 1, 2]}}
    apply(raw, "options.blocks.2=3")
    assert raw["options"]["blocks"] == [0, 1, 3, 2]


def test_fer2013_csv_keeps_its_usage(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    with (tmp_path / "fer2013.csv").open("w", encoding="utf-8") as file:
        file.write("emotion,pixels,Usage\n")
        for number in range(40):
            usage = "PrivateTest" if number < 6 else "Training"
            pixels = " ".join(map(str, random.integers(0, 256, 2304)))
            file.write(f"{0 if number % 2 else 3},{pixels},{usage}\n")
        file.write("9,1 2 3,Training\n")
    scanned = scan(tmp_path, "", LABELS, GREY)
    assert len(scanned.items) == 34 and len(scanned.bad) == 1
    assert len(scan(tmp_path / "fer2013.csv", "", LABELS, GREY, test=True).items) == 6
    assert has_test(tmp_path)
    text = (tmp_path / "fer2013.csv").read_text(encoding="utf-8")
    (tmp_path / "fer2013.csv").write_text(text.replace("PrivateTest", "PublicTest"), encoding="utf-8")
    assert not has_test(tmp_path)


def test_odd_rows_of_a_csv_are_named_and_learnt_from_by_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = " ".join(["7"] * 2304)
    good = [f"{code},{pixels} ,{usage}" for usage in ("Training", "PrivateTest") for code in (0, 3) for _ in range(3)]
    odd = [f"-1,{pixels},Training", f"3,{pixels},test", "3,1 2 3,Training", f"5,{pixels},Training", "3"]
    path = tmp_path / "data" / "fer2013.csv"
    path.parent.mkdir()
    path.write_text("\n".join(["emotion,pixels,Usage", *good, *odd]), encoding="utf-8")
    (path.parent / ".ipynb_checkpoints").mkdir()
    scanned = scan(path.parent, "", LABELS, GREY)
    assert len(scanned.items) == 6 and scanned.ignored == {"surprise": 1}
    assert list(scanned.bad) == [f"fer2013.csv#{row}" for row in (12, 13, 14, 16)]
    assert (
        "expected an emotion 0..6 and a Usage of Training, PublicTest, PrivateTest, got '3' and 'test'" in caplog.text
    )
    assert len(scan(path.parent, "", LABELS, GREY, test=True).items) == 6
    path.write_text(path.read_text(encoding="utf-8") + f"\n4,{pixels},PrivateTest", encoding="utf-8")
    with pytest.raises(InputError, match="fer2013.csv: sad: a class of the test part that train does not have"):
        members(recipe(), path.parent)


def test_published_votes_belong_to_the_rows_of_the_csv_and_to_the_names_of_its_images(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = [f"{0 if n % 2 else 3},{' '.join(map(str, random.integers(0, 256, 2304)))},Training" for n in range(40)]
    (tmp_path / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]), encoding="utf-8")
    header = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
    votes = [f"Training,{f'fer{n:07d}.png' if n else ''},1,{n % 8},0,0,2,0,0,0,0,0" for n in range(40)]
    (tmp_path / "fer2013new.csv").write_text("\n".join([header, *votes]), encoding="utf-8-sig")  # as Excel saves it
    asked = recipe()
    found, _ = members(asked, tmp_path)
    made = parts(asked, found, tmp_path, ("train", "validation"))
    happy = asked.heads[0].labels.index("happy")
    for part in made.values():
        for file, counts in zip(part.files, part.votes["emotion"], strict=True):
            assert counts[happy] == int(file.rpartition("#")[2]) % 8
    table = ferplus.read(ferplus.find(tmp_path, asked.data.votes))
    assert ferplus.of(table, "train/happy/fer0000013.png") == ferplus.of(table, "fer2013.csv#13")
    assert ferplus.majority(ferplus.of(table, "fer2013.csv#7")) == "happy"
    assert ferplus.find(tmp_path, "") is None


def test_votes_become_soft_targets(data: Path) -> None:
    (data / "ferplus_votes.csv").write_text(
        "file,neutral,happiness,anger,contempt,unknown\nx/train/angry/0000.png,4,2,6,0,3\n", encoding="utf-8"
    )
    soft = recipe("stages.0.votes_share=0.5", "stages.0.label_smoothing=0.1")
    found, _ = members(soft, data)
    made = parts(soft, found, data, ("train", "validation"))
    rows = [(p, p.files.index("train/angry/0000.png")) for p in made.values() if "train/angry/0000.png" in p.files]
    chosen, row = rows[0]
    wanted = targets(chosen, soft.heads[0], soft.stages[0])
    assert wanted[row] == pytest.approx([0.5 + 0.5 * 6 / 8, 0.5 * 2 / 8])
    assert np.delete(wanted, row, axis=0).max() == pytest.approx(0.95), "no votes: a smoothed label"
    assert wanted.sum(axis=1) == pytest.approx(1)


def test_heads_learn_only_from_their_own_data(tmp_path: Path) -> None:
    pictures.write(tmp_path / "fer", ("happy", "sad"), 20)
    pictures.write(tmp_path / "fane", ("happy", "shy"), 20, seed=2)
    raw = {
        "name": "two",
        "family": "cnn",
        "input": {"size": 24},
        "heads": [
            {"name": "fer", "data": "fer", "labels": ["happy", "sad"], "class_weights": {"sad": 2.0}},
            {"name": "fane", "data": "fane", "labels": ["happy", "shy"]},
            {"name": "domain", "data": "*", "labels": ["fer", "fane"]},
        ],
        "stages": [{"name": "all", "epochs": 1, "learning_rate": 0.1}],
    }
    both = parse(raw, "two.yaml")
    found, _ = members(both, {"fer": tmp_path / "fer", "fane": tmp_path / "fane"})
    lines = [f"{path.relative_to(tmp_path / 'fer')},3" for path in (tmp_path / "fer").rglob("*.png")]
    (tmp_path / "fer" / "ferplus_votes.csv").write_text("\n".join(["file,happiness", *lines]), encoding="utf-8")
    train = parts(both, found, tmp_path, ("train",))["train"]
    assert (train.votes["fer"].any(axis=1) == (train.labels["fer"] >= 0)).all() and not train.votes["fane"].any()
    fer = train.labels["domain"] == 0
    assert (train.weights["fane"][fer] == 0).all() and (train.weights["fer"][~fer] == 0).all()
    assert (train.weights["domain"] == 1).all()
    assert sorted(set(train.weights["fer"].tolist())) == [0.0, 1.0, 2.0]
    for given in ({"fer": tmp_path / "fer"}, {"fer": tmp_path, "fane": tmp_path, "fan": tmp_path}):
        with pytest.raises(InputError, match="expects --data fer=DIR --data fane=DIR, got fer"):
            members(both, given)
    with pytest.raises(InputError, match="the recipe tiny expects --data DIR, got x"):
        members(recipe(), {"x": tmp_path})
    found, _ = members(replace(both, data=replace(both.data, limit=8)), tmp_path)
    assert Counter((m.item.source, m.item.label) for m in found).total() == 4 * 8, "of every data set"


def test_a_test_part_is_held_out_where_the_data_bring_none(tmp_path: Path) -> None:
    pictures.write(tmp_path / "data" / "train", LABELS, 40)
    held = recipe("data.test=0.25")
    found, _ = members(held, tmp_path / "data")
    assert Counter(member.split for member in found) == {"train": 44, "validation": 16, "test": 20}
    pictures.write(tmp_path / "data" / "test", LABELS, 3, seed=1)
    found, _ = members(held, tmp_path / "data")
    assert Counter(member.split for member in found) == {"train": 60, "validation": 20}


def test_one_data_set_with_a_test_part_is_enough(tmp_path: Path) -> None:
    pictures.write(tmp_path / "one" / "train", LABELS, 20)
    pictures.write(tmp_path / "one" / "test", LABELS, 5, seed=1)
    pictures.write(tmp_path / "two", LABELS, 20, seed=2)
    both = replace(recipe(), heads=tuple(replace(recipe().heads[0], name=name, data=name) for name in ("one", "two")))
    found, _ = members(both, tmp_path)
    (tmp_path / "run").mkdir()
    write_recipe(both, tmp_path / "run" / "recipe.yaml")
    write_split(tmp_path / "run" / "split.csv", both, found)
    assert len(load_run(tmp_path / "run", tmp_path, ("test",))["test"]) == 10
    shutil.rmtree(tmp_path / "one" / "test")
    (tmp_path / "one" / "test").mkdir()
    with pytest.raises(InputError, match="expected a test part"):
        load_run(tmp_path / "run", tmp_path, ("test",))


def test_votes_that_name_no_picture_are_told(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    (data / "ferplus_votes.csv").write_text("file,happiness\ntrain/angry/other.png,4\n", encoding="utf-8")
    found, _ = members(recipe(), data)
    parts(recipe(), found, data, ("train", "validation"))
    assert "ferplus_votes.csv names none of the training pictures" in caplog.text
    (data / "ferplus_votes.csv").write_text("file,sadness\ntrain/angry/0000.png,many\n", encoding="utf-8")
    with pytest.raises(InputError, match="expected a number in every column of votes.*'many'"):
        parts(recipe(), found, data, ("train", "validation"))
    (data / "ferplus_votes.csv").write_text("picture,sadness\n0000.png,3\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"expected a column 'file' .*got \['picture', 'sadness'\]"):
        parts(recipe(), found, data, ("train", "validation"))


def test_a_table_that_names_some_rows_of_a_csv_says_nothing_of_the_others(tmp_path: Path, caplog) -> None:
    rows = [f"{number % 2 * 3},{' '.join([str(number)] * 48**2)},Training" for number in range(6)]
    (tmp_path / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]), encoding="utf-8")
    table = "file,group\nfer2013.csv#5,\nfer2013.csv#1,ann\nfer2013.csv#3,ann\n"
    (tmp_path / "groups.csv").write_text(table, encoding="utf-8")
    items = scan(tmp_path, "", LABELS, GREY).items
    names = named_groups(items, recipe("data.groups_file=groups.csv").data, {"": tmp_path})
    assert [names[1], names[3]] == ["ann", "ann"] and len(set(names)) == 5
    assert "4 of 6 pictures have no group" in caplog.text


def test_validation_holds_its_share_of_grouped_pictures_and_no_more() -> None:
    groups = [row // 4 if row < 80 else row for row in range(400)]
    splits = assign(groups, ["a"] * 400, {"validation": 0.2}, seed=1)
    inside = [split for row, split in enumerate(splits) if row < 80]
    assert splits.count("validation") == 80 and 4 <= inside.count("validation") <= 32


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


def test_no_picture_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow knows files by their content, and has Ghostscript draw what is PostScript."""
    Image.new("RGB", (24, 24)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "holiday.jpg")
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(SourceError, match="holiday.jpg: "):
        read_picture(tmp_path / "holiday.jpg")


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


def test_votes_are_those_of_the_part_and_class_that_the_row_names(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    rows = ["train/happy/a.png,9,", "test/happy/a.png,8,1", "train/angry/a.png,1,7"]
    path.write_text("\n".join(["file,happiness,anger", *rows]), encoding="utf-8")
    votes = ferplus.read(path)
    said = [dict(ferplus.of(votes, f"x/{row.split(',')[0]}")) for row in rows]
    assert said == [{"happy": 9, "angry": 0}, {"happy": 8, "angry": 1}, {"happy": 1, "angry": 7}]


def test_each_fold_is_held_out_and_of_the_rest_a_share_validates(data: Path) -> None:
    found, _ = members(recipe("data.near=0"), data)
    held = []
    for fold in fold_members(recipe("data.near=0"), found, 4):
        splits = [member.split for member in fold]
        assert (splits.count("test"), splits.count("validation")) == (20, 16)
        held += [member.item.file for member in fold if member.split == "test"]
    assert sorted(held) == sorted(member.item.file for member in found)

"""Data sets as parts: layouts, aliases, odd files, tables of votes."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("yaml")

import pictures  # noqa: E402
from PIL import Image  # noqa: E402
from small_data import GREY, LABELS, recipe, write_data  # noqa: E402

from edge_app.errors import InputError, SettingsError, SourceError  # noqa: E402
from edge_app.labels import canonical  # noqa: E402
from edge_app.media import read_picture  # noqa: E402
from trainer import ferplus  # noqa: E402
from trainer.data import load_run, members, parts, write_split  # noqa: E402
from trainer.feed import targets  # noqa: E402
from trainer.folders import has_test, scan  # noqa: E402
from trainer.recipe_file import apply, parse, write_recipe  # noqa: E402
from trainer.splits import assign, named_groups  # noqa: E402


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")


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


@pytest.mark.parametrize("seed", range(3))
def test_each_data_set_without_a_test_part_has_one_held_out(tmp_path: Path, seed: int) -> None:
    pictures.write(tmp_path / "one" / "train", LABELS, 20)
    pictures.write(tmp_path / "one" / "test", LABELS, 5, seed=1)
    pictures.write(tmp_path / "two", LABELS, 40, seed=2)
    for number in range(4):  # those stay out of the test part: the one data set has its own
        there = tmp_path / "one" / "train" / "happy" / f"t{number}.png"
        shutil.copy(tmp_path / "two" / "happy" / f"000{number}.png", there)
    for file in (tmp_path / "two").rglob("*.png"):
        file.rename(file.with_name(f"p{int(file.stem) // 2}_{file.name}"))
    changed = recipe("data.test=0.25", f"data.seed={seed}", "data.group='/(p[0-9]+)_'")
    both = replace(changed, heads=tuple(replace(changed.heads[0], name=name, data=name) for name in ("one", "two")))
    found, _ = members(both, tmp_path)
    counts = Counter((m.item.source, m.split) for m in found)
    assert counts["two", "test"] == 20 and counts["two", "validation"] == 16 and ("one", "test") not in counts
    assert counts["one", "validation"] == 11
    (tmp_path / "run").mkdir()
    write_recipe(both, tmp_path / "run" / "recipe.yaml")
    write_split(tmp_path / "run" / "split.csv", both, found)
    loaded = load_run(tmp_path / "run", tmp_path, ("train", "validation", "test"))
    test = loaded["test"]
    assert [int((test.labels[name] >= 0).sum()) for name in ("one", "two")] == [10, 20]
    assert sum(file.startswith("one/test/") for file in test.files) == 10
    assert [len(loaded[part]) for part in ("train", "validation")] == [33 + 44, 11 + 16]


def test_a_class_that_a_part_does_not_want_is_not_given_to_it() -> None:
    """Neither by its own groups nor by the smallest one of another class, where both share it."""
    groups, labels = [0, 0, *[1] * 5, *[2] * 5, 3, 4], ["a", "b", *"b" * 10, "a", "a"]
    shares = {"test": {"a": 0.0, "b": 0.1}}
    for seed in range(5):
        splits = assign(groups, labels, shares, seed)
        assert [label for label, split in zip(labels, splits, strict=True) if split == "test"] == ["b"] * 5


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


def test_pictures_that_memory_cannot_hold_are_refused_before_they_are_read(data: Path, monkeypatch) -> None:
    needed = 2 * 80 * 24 * 24
    for free in (needed, None):
        monkeypatch.setattr("edge_app.health.host.available", lambda _, free=free: free)
        assert len(members(recipe(), data)[0]) == 80
    monkeypatch.setattr("edge_app.health.host.available", lambda _: needed - 1)
    with pytest.raises(InputError, match=r"80 pictures of 24 px need 0\.0 GB.*smaller --set input\.size"):
        members(recipe(), data)


def test_a_table_that_names_some_rows_of_a_csv_says_nothing_of_the_others(tmp_path: Path, caplog) -> None:
    rows = [f"{number % 2 * 3},{' '.join([str(number)] * 48**2)},Training" for number in range(6)]
    (tmp_path / "fer2013.csv").write_text("\n".join(["emotion,pixels,Usage", *rows]), encoding="utf-8")
    table = "file,group\nfer2013.csv#5,\nfer2013.csv#1,ann\nfer2013.csv#3,ann\n"
    (tmp_path / "groups.csv").write_text(table, encoding="utf-8")
    items = scan(tmp_path, "", LABELS, GREY).items
    names = named_groups(items, recipe("data.groups_file=groups.csv").data, {"": tmp_path})
    assert [names[1], names[3]] == ["ann", "ann"] and len(set(names)) == 5
    assert "4 of 6 pictures have no group" in caplog.text


def test_no_picture_starts_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow knows files by their content, and has Ghostscript draw what is PostScript."""
    Image.new("RGB", (24, 24)).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "holiday.jpg")
    monkeypatch.setattr("subprocess.Popen", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(SourceError, match="holiday.jpg: "):
        read_picture(tmp_path / "holiday.jpg")


def test_votes_are_those_of_the_part_and_class_that_the_row_names(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    rows = ["train/happy/a.png,9,", "test/happy/a.png,8,1", "train/angry/a.png,1,7"]
    path.write_text("\n".join(["file,happiness,anger", *rows]), encoding="utf-8")
    votes = ferplus.read(path)
    said = [dict(ferplus.of(votes, f"x/{row.split(',')[0]}")) for row in rows]
    assert said == [{"happy": 9, "angry": 0}, {"happy": 8, "angry": 1}, {"happy": 1, "angry": 7}]

"""`calmcam train --check`: what stands in a folder, without training."""

from __future__ import annotations

import json
import shlex
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("keras")
pytest.importorskip("yaml")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # keras 3.15 on numpy 2

import cv2
import pictures  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from tiny_training import LABELS, TINY  # noqa: E402

from edge_app.cli import cli  # noqa: E402
from edge_app.errors import InputError  # noqa: E402
from trainer.data import members  # noqa: E402
from trainer.recipe_file import read_recipe  # noqa: E402
from trainer.runs import Request, start  # noqa: E402

pytest_plugins = ("training_fixtures",)


def test_check_reports_without_training(data: Path, tmp_path: Path) -> None:
    text = "\n".join(start(Request(TINY, data, (), tmp_path / "check", check=True)))
    assert "happy" in text and "unreadable: 0" in text and "fewer than 50" in text
    assert (tmp_path / "check" / "samples.jpg").stat().st_size > 1000
    assert "calmcam crop" not in text and "groups that stay together: 1" in text
    assert "divided into: 90 train, 30 validation, 0 test" in text


def test_check_tells_what_cannot_be_divided_and_what_a_test_folder_shares(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    for label in LABELS:
        for part, person in (("train", "p1"), ("test", "p1"), ("test", "p2")):
            (tmp_path / "data" / part / label).mkdir(parents=True, exist_ok=True)
            picture = random.integers(0, 255, (24, 24), np.uint8)
            cv2.imwrite(str(tmp_path / "data" / part / label / f"{person}_a.png"), picture)
    lines = start(Request(TINY, tmp_path / "data", ("data.group=/(p[0-9])_",), tmp_path / "check", check=True))
    assert any("groups that stay together: 2, but 1 stand in train and in test" in line for line in lines)
    assert any("cannot be trained on yet: " in line and "in the train part; give more groups" in line for line in lines)
    shutil.rmtree(tmp_path / "data" / "train" / LABELS[0])
    lines = start(Request(TINY, tmp_path / "data", (), tmp_path / "check-again", check=True))
    assert f"cannot be trained on yet: no training picture of {LABELS[0]}" in lines


def test_check_tells_the_division_that_training_will_make(tmp_path: Path) -> None:
    """Three persons in each data set; what the test part shows of them makes them one to nobody but its reader."""
    for number, (data, person) in enumerate((data, f"{data[0]}{n}") for data in ("one/train", "two") for n in range(3)):
        pictures.write(tmp_path / "raw" / person, LABELS, 12 - number, seed=number)
        for file in (tmp_path / "raw" / person).rglob("*.png"):
            there = tmp_path / data / file.parent.name / f"{person}_{file.name}"
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, there)
    for person, looks_like in (("t0", "t1"), ("t1", "t2")):
        for label in LABELS:
            (tmp_path / "one" / "test" / label).mkdir(parents=True, exist_ok=True)
            there = tmp_path / "one" / "test" / label / f"{person}_test.png"
            shutil.copy(tmp_path / "raw" / looks_like / label / "0000.png", there)
    heads = [{"name": name, "labels": [*LABELS], "data": name} for name in ("one", "two")]
    changes = (f"heads={json.dumps(heads)}", "data.test=0.2", "data.group=/([ot][0-9])_")
    lines = start(Request(TINY, tmp_path, changes, tmp_path / "check", check=True))
    counts = Counter((m.item.source, m.split) for m in members(read_recipe(TINY, changes), tmp_path)[0])
    counts["one", "test"] = 6
    told = {one: [f"{counts[one, part]} {part}" for part in ("train", "validation", "test")] for one in ("one", "two")}
    assert f"divided into: one {', '.join(told['one'])}; two {', '.join(told['two'])}" in lines, lines


def test_check_tells_of_a_backbone_that_learnt_from_what_would_judge(data: Path, run: Path, tmp_path: Path) -> None:
    changes = (f"backbone={run}", "data.seed=5")
    lines = start(Request(TINY, data, changes, tmp_path / "check", check=True))
    (told,) = (line for line in lines if "cannot be the backbone here; it learnt" in line)
    assert told.startswith("cannot be trained on yet: ") and not any("divided into" in line for line in lines)
    count = int(told.split("it learnt from ")[1].split()[0])
    listed = lines[lines.index(told) + 1 : lines.index(told) + 12]
    assert all(line.startswith("  train/") for line in listed[:10]) and listed[10] == f"  and {count - 10} more"
    assert listed[0].strip() in told and len(set(listed)) == 11
    damaged = Path(shutil.copytree(run, tmp_path / "damaged"))
    (damaged / "run.json").write_text("[]", encoding="utf-8")
    lines = start(Request(TINY, data, (f"backbone={damaged}",), tmp_path / "again", check=True))
    assert any(line.startswith("cannot be trained on yet: ") and "run.json: expected" in line for line in lines)


@pytest.mark.parametrize(("labels", "code"), [(LABELS, 0), ((*LABELS, "shy"), 2)])
def test_a_check_tells_everything_and_its_exit_code_whether_training_can_begin(tmp_path: Path, labels, code) -> None:
    """What is left out is said once, in the report."""
    pictures.write(tmp_path / "data", (*LABELS, "smug"), 3)
    (tmp_path / "data" / "happy" / "bad.png").write_bytes(b"none")
    words = ["train", TINY, "--check", "--data", str(tmp_path / "data"), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(cli, [*words, "--set", f"heads.0.labels={json.dumps(labels)}"])
    assert done.exit_code == code, done.output
    assert ("cannot be trained on yet" in done.stdout) == bool(code) and "sample sheet: " in done.stdout
    assert done.output.count("bad.png") == 1 and done.output.count("smug") == 1


def test_folders_of_other_names_are_answered_with_the_way_out(tmp_path: Path) -> None:
    pictures.write(tmp_path / "data", ("보통", "약올리기"), 3)
    with pytest.raises(InputError, match=r"보통/ \(3 files\).*--set 'heads.0.labels=\[.보통., .약올리기.\]'") as said:
        start(Request("teasing", tmp_path / "data", (), tmp_path / "run"))
    _, _, advice = str(said.value).partition(": --set ")
    changes = tuple(word for word in shlex.split(advice) if word != "--set")
    assert read_recipe("teasing", changes).heads[0].labels == ("보통", "약올리기")
    with pytest.raises(InputError, match="found 3 pictures in no such folder"):
        start(Request(TINY, tmp_path / "data" / "보통", (), tmp_path / "run"))


def test_the_data_are_looked_at_for_pictures_that_are_no_cut_faces(tmp_path: Path) -> None:
    for label in ("angry", "happy", "neutral"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(2):
            image = np.full((72, 128), 40 * number, np.uint8)
            cv2.imencode(".png", image)[1].tofile(tmp_path / "data" / label / f"{number}.png")
    text = "\n".join(start(Request(TINY, tmp_path / "data", (), tmp_path / "check", check=True)))
    assert "6 are far from square: expected cut faces; calmcam crop cuts them" in text


def test_any_folder_can_be_checked(data: Path, tmp_path: Path) -> None:
    pictures.write(tmp_path / "mine", ("약올리기", "보통"), 3)
    lines = start(Request(str(tmp_path / "mine"), None, (), tmp_path / "out", check=True))
    assert any("약올리기" in line and line.split()[1] == "3" for line in lines)
    pictures.write(tmp_path / "two", ("anger", "happy", "valid/Angry", "valid/Happiness"), 3)
    lines = start(Request(str(tmp_path / "two"), None, (), runs_dir=tmp_path / "runs", check=True))
    head = next(number for number, line in enumerate(lines) if line.split()[:1] == ["class"])
    assert [line.split()[1] for line in lines[head + 1 : head + 3]] == ["6", "6"], "its own words, one row each"
    assert "commonest sizes" in lines[head + 3] and (tmp_path / "runs" / "train" / "two-check").is_dir()
    pictures.write(tmp_path / "one", ("shy",), 3)
    with pytest.raises(InputError, match="one: expected two or more folders, one per class; found only shy/"):
        start(Request(str(tmp_path / "one"), None, check=True))


def test_a_check_of_pictures_without_class_folders_asks_for_some(tmp_path: Path) -> None:
    pictures.write(tmp_path, ("mine",), 3)
    with pytest.raises(InputError, match="mine: expected a folder per class, found 3 pictures beside them"):
        start(Request(str(tmp_path / "mine"), None, (), runs_dir=tmp_path / "runs", check=True))


def test_the_sample_sheet_has_a_row_for_every_class(tmp_path: Path) -> None:
    names = [f"약올리기{number}" for number in range(11)]
    pictures.write(tmp_path / "mine", names, 1)
    start(Request(str(tmp_path / "mine"), None, (), tmp_path / "out", check=True))
    sheet = cv2.imread(str(tmp_path / "out" / "samples.jpg"))
    rows = sheet[:, :96].reshape(11, 96, 96, 3)
    assert all(row.min() < 100 for row in rows), "each with its name"

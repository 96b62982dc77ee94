from __future__ import annotations

from pathlib import Path

import pytest

from edge_app.errors import SettingsError, SourceError
from edge_app.manifest import sha256
from edge_app.scoring.labelled import Exclusions, labelled, read_exclusions

LABELS = ("happy", "sad", "neutral")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Three classes of four files that are named like pictures; number 0 to 3 have the same content in every class."""
    folder = tmp_path / "data %20 '얼굴'"
    for name in ("happiness", "Sad", "neutral"):
        place = folder / name / "inner"
        place.mkdir(parents=True)
        for number in range(4):
            (place / f"기쁨 {name}{number}.{'png' if number else 'jpg'}").write_text(str(number))
        (place / "notes.txt").write_text("no picture")
    return folder


def test_labelled_knows_aliases_nested_files_and_hangul(data):
    samples, left_out = labelled(data, LABELS)
    assert (len(samples), left_out) == (12, 0)
    assert [s.truth for s in samples if s.name.startswith("happiness/")] == [LABELS.index("happy")] * 4


@pytest.mark.parametrize(
    ("line", "left_out"),
    [
        ("기쁨 Sad1.png", 1),
        ("inner/기쁨 neutral2.png", 1),
        ("ad1.png", 0),
        ("Sad/", 0),
        ("# nothing", 0),
        ("기쁨 Sad1.png  # with the hand", 1),
        ("기쁨 Sad1.png#", 0),
        ("C:\\pictures\\기쁨 Sad1.png", 0),
    ],
)
def test_excluded_by_name_path_end_or_folder(data, tmp_path, line, left_out):
    (tmp_path / "out.txt").write_text(f"{line}\n\n", encoding="utf-8")
    samples, found = labelled(data, LABELS, read_exclusions(tmp_path / "out.txt"))
    assert found == left_out
    assert len(samples) == (8 if line == "Sad/" else 12 - left_out)


def test_a_name_to_leave_out_that_fits_nothing_is_told(data, caplog):
    labelled(data, LABELS, Exclusions(ends=frozenset({"기쁨 Sad1.png", "gone.png"})))
    assert caplog.messages == [f"1 names to leave out fit no picture of {data}, gone.png for one"]


def test_excluded_by_content(data):
    path = data / "Sad" / "inner" / "기쁨 Sad1.png"
    twins = [p for p in data.rglob("*.png") if sha256(p) == sha256(path)]
    samples, left_out = labelled(data, LABELS, Exclusions(digests=frozenset({sha256(path)})))
    assert left_out == len(twins) == 3
    assert len(samples) == 9


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        ([], "no class folders; expected one folder per class: happy, sad, neutral"),
        (["happy"], "no picture in its class folders"),
        (["hapy"], "has no class 'hapy'; did you mean 'happy'"),
        (["happy", "contempt"], "leave it out with a line 'contempt/'"),
        (["train", "test"], "holds the parts test, train, expected class folders"),
    ],
)
def test_a_folder_that_is_no_labelled_folder_gets_a_sentence(tmp_path, make, sentence):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in make:
        (folder / name).mkdir()
    with pytest.raises(SourceError, match=sentence):
        labelled(folder, LABELS)


def test_an_exclusion_list_that_cannot_be_read_gets_a_sentence(tmp_path):
    with pytest.raises(SettingsError, match="cannot be read"):
        read_exclusions(tmp_path / "none.txt")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(SettingsError, match="expected UTF-8"):
        read_exclusions(tmp_path / "binary.txt")


def test_excluded_by_a_digest_in_capitals(data, tmp_path):
    """As PowerShell's Get-FileHash writes it."""
    path = data / "Sad" / "inner" / "기쁨 Sad1.png"
    (tmp_path / "out.txt").write_text(f"{sha256(path).upper()}\n", encoding="utf-8")
    _, left_out = labelled(data, LABELS, read_exclusions(tmp_path / "out.txt"))
    assert left_out == 3

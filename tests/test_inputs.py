from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_app.inputs import expand, stems
from edge_app.media import PICTURES, VIDEOS, pictures_below
from edge_app.runs import write_record


@pytest.fixture
def folder(tmp_path):
    for name in ("b.mp4", "a.JPG", "notes.md", "deep/c d.png", "deep/웃음.mkv"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


def names(items):
    return [item.path.name for item in items]


def test_a_folder_gives_all_media_below_it_in_order(folder):
    assert names(expand([str(folder)])) == ["a.JPG", "b.mp4", "c d.png", "웃음.mkv"]


def test_linked_folders_are_entered_once(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("disk")
    (elsewhere / "far.mp4").write_bytes(b"x")
    (folder / "deep" / "link").symlink_to(elsewhere)
    (elsewhere / "loop").symlink_to(folder)
    assert names(expand([str(folder)])) == ["a.JPG", "b.mp4", "c d.png", "far.mp4", "웃음.mkv"]
    (folder / "deep" / "up").symlink_to("..")  # no class folder takes its neighbours' pictures for its own
    assert [path.name for path in pictures_below(folder / "deep")] == ["c d.png"]


def test_hidden_files_and_earlier_runs_are_left_out_unless_named(folder):
    for name in ("._b.mp4", ".trash/e.mp4", "runs/annotate/b/b.mp4", "other/f.mp4"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    run = folder / "runs" / "annotate" / "b"
    write_record(run, {"versions": {"calmcam": "0.1.0"}})
    (folder / "other" / "run.json").write_text("[1]")  # not ours
    assert names(expand([str(folder)])) == ["a.JPG", "b.mp4", "c d.png", "웃음.mkv", "f.mp4"]
    assert names(expand([str(run)])) == names(expand([f"{run}/*"])) == ["b.mp4"]
    assert "only folders of earlier runs match" in expand([f"{run.parent}/*"])[0].problem  # what fits was not named


def test_a_pattern_gives_what_matches_and_is_named_like_media(folder):
    assert names(expand([f"{folder}/*"])) == ["a.JPG", "b.mp4", "c d.png", "웃음.mkv"]
    assert names(expand([f"{folder}/*.mp4"])) == ["b.mp4"]
    assert names(expand([f"{folder}/**/*.png"])) == ["c d.png"]


def test_a_file_is_taken_as_it_is_and_once(folder):
    path = str(folder / "notes.md")
    assert names(expand([path, path, str(folder / "b.mp4")])) == ["notes.md", "b.mp4"]
    assert names(expand([path, os.path.relpath(path)])) == ["notes.md"]


def test_a_name_with_brackets_that_exists_is_no_pattern(tmp_path):
    path = tmp_path / "clip[1]*.mp4"
    path.write_bytes(b"x")
    assert expand([str(path)])[0].path == path


def test_a_list_names_files_relative_to_itself(folder):
    (folder / "list.txt").write_text("# mine\nb.mp4\n\ndeep/c d.png\n")
    assert [item.path for item in expand([str(folder / "list.txt")])] == [folder / "b.mp4", folder / "deep/c d.png"]


def test_what_holds_nothing_is_said_and_does_not_stop_the_rest(folder, tmp_path_factory):
    empty = tmp_path_factory.mktemp("empty")
    items = expand([str(empty), f"{empty}/*.mp4", str(folder / "b.mp4"), "/nowhere/x.mp4"])
    assert [bool(item.problem) for item in items] == [True, True, False, False]
    assert "got an empty text" in expand([""])[0].problem  # an unset variable, not the current folder
    assert "in this folder, found none" in items[0].problem and "matches this pattern" in items[1].problem


@pytest.mark.parametrize("address", ["http://host/x.mp4", "rtsp://me:pa55@cam/[1].mp4?key=pa55"])
def test_an_address_is_sent_to_live(tmp_path, address):
    (tmp_path / "list.txt").write_text(f"{address}\n")
    for item in expand([address, "/nowhere/x.mp4"])[0], *expand([str(tmp_path / "list.txt")]):
        assert "expected a file, got an address; " in item.problem and "calmcam live --source" in item.problem
        assert item.problem.startswith(address[:7]) and "pa55" not in f"{item}"


def test_outputs_get_names_of_their_own():
    paths = [Path("a/v.mp4"), Path("b/v.mpg"), Path("V.jpg"), Path("v_2.mp4"), Path("w.mp4")]
    made = stems(paths)
    assert made[:2] == ["v", "v_2"] and made[4] == "w"
    assert len({name.lower() for name in made}) == len(paths)


def test_a_name_that_fills_the_file_system_leaves_room_for_an_ending():
    made = stems([Path(f"{folder}/{'표' * 83}.mp4") for folder in "ab"])
    assert made == ["표" * 66, "표" * 66 + "_2"] and len(os.fsencode(made[1] + ".mp4.part")) < 255


def test_no_suffix_is_both_picture_and_video():
    assert not PICTURES & VIDEOS


def test_a_list_that_notepad_saved_is_read(folder):
    (folder / "list.txt").write_text("b.mp4\r\ndeep/c d.png\r\n", encoding="utf-8-sig", newline="")
    assert [item.path for item in expand([str(folder / "list.txt")])] == [folder / "b.mp4", folder / "deep/c d.png"]


def test_two_stars_go_any_number_of_folders_down(folder):
    (folder / "deep" / "er").mkdir()
    for place in (folder, folder / "deep" / "er"):
        (place / "e.png").write_bytes(b"x")
    assert names(expand([f"{folder}/**/*.png"])) == ["c d.png", "e.png", "e.png"]


def test_a_text_that_is_no_list_is_one_input(folder):
    (folder / "notes.txt").write_text("Buy milk\n\nCall Anna\n" + "x" * 5000 + "\n")
    (only,) = expand([str(folder / "notes.txt")])
    assert only.path == folder / "notes.txt"
    assert "notes.txt: expected a picture, a video or a list of paths, found none of its 3 lines; they" in only.problem
    (folder / "notes.txt").write_text("gone.mp4\nb.mp4\n")
    assert names(expand([str(folder / "notes.txt")])) == ["gone.mp4", "b.mp4"]

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edge_app import addresses, runs
from edge_app.errors import OutputError
from edge_app.report import Report
from edge_app.settings import Settings


def test_every_run_gets_a_folder_of_its_own(tmp_path):
    made = [runs.open_folder(tmp_path / "annotate", "my clip 100%") for _ in range(3)]
    assert [folder.name for folder in made] == ["my_clip_100", "my_clip_100-2", "my_clip_100-3"]
    assert all(folder.is_dir() for folder in made)


def test_the_number_stands_behind_a_name_that_ends_in_a_letter(tmp_path):
    assert [runs.open_folder(tmp_path, "cam").name for _ in range(2)] == ["cam", "cam2"]


def test_hangul_stays_in_a_name_and_dots_do_not_lead_out(tmp_path):
    assert runs.open_folder(tmp_path, "웃음").name == "웃음"
    assert runs.open_folder(tmp_path, "../..").parent == tmp_path


def test_a_given_folder_that_holds_something_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("dear")
    with pytest.raises(OutputError, match="--exist-ok"):
        runs.given_folder(tmp_path, exist_ok=False)
    assert runs.given_folder(tmp_path, exist_ok=True) == tmp_path
    assert runs.given_folder(tmp_path / "new" / "deep", exist_ok=False).is_dir()


def test_a_file_in_the_way_is_left_alone(tmp_path):
    file = tmp_path / "out"
    file.write_text("dear")
    for call in (lambda: runs.given_folder(file, exist_ok=True), lambda: runs.open_folder(file, "run")):
        with pytest.raises(OutputError, match="name another one"):
            call()
    assert file.read_text() == "dear"


def test_a_record_says_what_made_the_run(tmp_path):
    report = Report(frames=3)
    runs.record(tmp_path, report, {"arguments": {"settings": Settings(), "path": Path("a b")}})
    read = json.loads((tmp_path / "run.json").read_text())
    assert read["arguments"]["settings"]["model"] == "emotions" and read["arguments"]["path"] == "a b"
    assert read["report"]["frames"] == 3 and read["versions"]["numpy"] and read["command"] and read["ended"]
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_record_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "run.json").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        runs.record(tmp_path, Report(), {})
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_secrets_of_an_address_are_not_written(tmp_path):
    runs.write_record(
        tmp_path, {"source": "rtsp://me:pa55@cam.local:554/live?token=pa55", "next": "http://cam/x?key=pa55"}
    )
    text = (tmp_path / "run.json").read_text()
    assert "pa55" not in text and "rtsp://cam.local:554/..." in text and '"http://cam/..."' in text


@pytest.mark.parametrize(
    ("address", "host"),
    [
        ("rtsp://cam.local:554/live", "cam.local:554"),
        ("rtsp://me:pa55@cam", "cam"),
        ("rtsp://me:@pa55@cam/a", "cam"),
        ("rtsp://me:@pa55@cam/a@b", "rtsp"),  # either may be the host, and the other one secret
        ("rtsp://me:p@pa55/word@cam/live", "rtsp"),
        ("rtsps://me:pa55@[fe80::1%eth0]:322/l", "[fe80::1%eth0]:322"),
        ("rtsps://nvr:7441/pa55", "nvr:7441"),
        ("rtsp://10.0.0.5:554/user=admin&password=pa55&channel=1", "10.0.0.5:554"),
        ("rtsp://me:x/pa55@cam/l", "cam"),
        ("rtsp://me:x?pa55@cam/l", "cam"),
        ("rtsp://me:x#pa55@cam/l", "cam"),
        ("rtsp://me:x pa55@cam/l", "cam"),
        ('rtsp://me:x"pa55@cam/l', "cam"),
        ("rtsp://me:x[pa55]y@cam/l", "cam"),
        ("rtsp://me:pa55／@cam", "cam"),
        ("http://cam/l;t=pa55", "cam"),
        ("http://cam#t=pa55", "cam"),
        ("srt://cam:1?passphrase=pa55", "cam:1"),
        ("udp://@:5000", ":5000"),
    ],
)
def test_of_an_address_only_the_host_is_told(tmp_path, address, host):
    assert addresses.public_host(address) == host
    runs.write_record(tmp_path, {"command": ["calmcam", f"--source={address}", address]})
    assert "pa55" not in (tmp_path / "run.json").read_text() and host in addresses.without_secrets(address)


def test_only_a_folder_that_was_made_here_is_removed(tmp_path):
    mine, made = tmp_path / "mine", tmp_path / "made"
    mine.mkdir()
    for folder in (mine, made):
        runs.discard_empty(runs.given_folder(folder, exist_ok=False))
    assert mine.is_dir() and not made.exists()

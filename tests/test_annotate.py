from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from clips import times, write_clip
from patience import PATIENCE
from small_model import write_model

from edge_app import runs
from edge_app.cli import cli
from edge_app.drawing.overlay import GREY, PALETTE
from edge_app.commands.journal import Journal
from edge_app.errors import OutputError
from edge_app.inputs import expand

ROOT = Path(__file__).parent.parent
ASTRONAUT = Path(__file__).parent / "cases" / "astronaut.jpg"


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    folder = tmp_path_factory.mktemp("material")
    write_model(folder / "model")
    write_clip(folder / "clip.mp4", frames=20, sound=True)
    write_clip(folder / "clip.avi", frames=8)
    shutil.copyfile(ASTRONAUT, folder / "face.jpg")
    return folder


@pytest.fixture
def annotate(material, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def call(*arguments):
        return CliRunner().invoke(cli, ["annotate", "--model", str(material / "model"), *map(str, arguments)])

    return call


def lines(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_videos_and_pictures_to_copies_results_and_a_table(annotate, material, tmp_path):
    result = annotate(material / "clip.mp4", material / "clip.avi", material / "face.jpg")
    folder = tmp_path / "runs" / "annotate" / "clip"
    assert result.exit_code == 0, result.output
    assert names(folder) == ["clip.mp4", "clip_2.mp4", "face.jpg", "results.csv", "results.jsonl", "run.json"]
    assert [line["source"] for line in lines(folder)] == ["clip.mp4"] * 20 + ["clip.avi"] * 8 + ["face.jpg"]
    rows = list(csv.DictReader((folder / "results.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) >= 29 and {row["source"] for row in rows} == {"clip.mp4", "clip.avi", "face.jpg"}
    assert "took s" in result.stdout.splitlines()[0]
    assert "clip.avi" in result.stdout and "results in runs/annotate/clip" in result.stdout
    run = json.loads((folder / "run.json").read_text())
    assert run["report"]["frames"] == 29 and len(run["model"]["sha256"]) == 64 and run["device"] == "cpu"
    assert [file["frames"] for file in run["files"]] == [20, 8, 1]
    assert "results" in run["report"]["ms"] and "" not in run["report"]["ms"]
    assert not any("ms" in file for file in run["files"])


def test_the_run_tells_what_its_files_are_and_what_was_damaged(annotate, material, tmp_path):
    raw = bytearray((material / "clip.mp4").read_bytes())
    with av.open(str(material / "clip.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        raw[packets[8].pos : packets[8].pos + packets[8].size] = b"\xff" * packets[8].size
    (tmp_path / "damaged.mp4").write_bytes(raw)
    result = annotate(material / "clip.mp4", "damaged.mp4", material / "face.jpg", "-o", "out", "--no-video")
    assert result.exit_code == 0, result.output
    files = json.loads((tmp_path / "out" / "run.json").read_text())["files"]
    clip = {"width": 320, "height": 240, "fps": 25.0}
    face = {"width": 512, "height": 512, "fps": None}
    assert [file["media"] for file in files] == [clip | {"damaged": 0}, clip | {"damaged": 1}, face | {"damaged": 0}]
    assert files[1]["frames"] == 19


def test_the_copy_keeps_time_and_sound(annotate, material, tmp_path):
    annotate(material / "clip.mp4", "-o", tmp_path / "out")
    copy = tmp_path / "out" / "clip.mp4"
    assert times(copy) == pytest.approx(times(material / "clip.mp4"), abs=1e-4)
    with av.open(str(copy)) as container:
        assert len(container.streams.audio) == 1 and container.streams.video[0].codec_context.name == "h264"


def test_the_sound_can_be_left_out(annotate, material, tmp_path):
    annotate(material / "clip.mp4", "-o", tmp_path / "out", "--no-audio")
    with av.open(str(tmp_path / "out" / "clip.mp4")) as container:
        assert not container.streams.audio


def test_a_part_and_a_stride_keep_the_clock_of_the_file(annotate, material, tmp_path):
    result = annotate(
        material / "clip.mp4", "-o", tmp_path / "out", "--start", "0:00.2", "--end", "0.6", "--vid-stride", 2
    )
    assert result.exit_code == 0, result.output
    assert [(line["frame"], line["t"]) for line in lines(tmp_path / "out")] == [(n, n / 25) for n in (5, 7, 9, 11, 13)]
    assert times(tmp_path / "out" / "clip.mp4") == pytest.approx([0, 0.08, 0.16, 0.24, 0.32], abs=1e-4)


def test_results_only(annotate, material, tmp_path):
    result = annotate(material / "clip.avi", "-o", tmp_path / "out", "--no-video")
    assert result.exit_code == 0
    assert names(tmp_path / "out") == ["results.csv", "results.jsonl", "run.json"]


def test_the_named_head_of_several_decides(annotate, material, tmp_path):
    assert annotate(material / "face.jpg", "--head", "tease", "-o", tmp_path / "out").exit_code == 0
    (line,) = lines(tmp_path / "out")
    (face,) = line["faces"]
    assert set(face["expression"]["probs"]) == {"non_teasing", "teasing"} and set(face["heads"]) == {"mood", "tease"}
    (row,) = csv.DictReader((tmp_path / "out" / "results.csv").read_text(encoding="utf-8").splitlines())
    assert "teasing" in row and "happy" not in row
    assert json.loads((tmp_path / "out" / "run.json").read_text())["model"]["head"] == "tease"
    code = annotate(material / "face.jpg", "--head", "teas")
    assert code.exit_code == 2 and "unknown head 'teas'; did you mean 'tease'?" in code.stderr


@pytest.mark.parametrize(("head", "ink"), [("tease", GREY), ("mood", PALETTE[1])])
def test_of_two_words_the_one_that_denies_is_grey(annotate, tmp_path, head, ink):
    cv2.imwrite(str(tmp_path / "face.png"), cv2.imread(str(ASTRONAUT)))
    assert annotate("face.png", "--head", head, "-o", "out").exit_code == 0
    (line,) = lines(tmp_path / "out")
    assert line["faces"][0]["expression"]["name"] in ("non_teasing", "happy", "sad", "neutral")
    drawn = cv2.imread(str(tmp_path / "out" / "face.png"), cv2.IMREAD_COLOR_RGB)
    assert [one for one in (GREY, PALETTE[1]) if (drawn == one).all(axis=2).sum() > 400] == [ink]


@pytest.mark.parametrize(("below", "unsure"), [("0", False), ("1", True)])
def test_a_threshold_may_take_the_place_of_the_models(annotate, material, tmp_path, below, unsure):
    options = ("--head", "tease", "--unsure-below", below, "--no-video", "-o", tmp_path / "out")
    assert annotate(material / "face.jpg", *options).exit_code == 0
    ((face,),) = (line["faces"] for line in lines(tmp_path / "out"))
    assert (face["unsure"], face.get("why")) == (unsure, "confidence" if unsure else None)
    asked = json.loads((tmp_path / "out" / "run.json").read_text())["arguments"]["settings"]
    assert asked["unsure_below"] == float(below)


def test_a_bad_input_does_not_stop_the_rest(annotate, material, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_text("hello")
    result = annotate(bad, material / "face.jpg", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "bad.mp4: expected a video" in result.stderr and "(failed)" in result.stdout
    assert names(tmp_path / "out") == ["face.jpg", "results.csv", "results.jsonl", "run.json"]


def test_what_can_be_read_of_a_cut_file_is_kept_and_said(annotate, material, tmp_path):
    whole = write_clip(tmp_path / "whole.mkv", frames=50)
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    result = annotate(cut, material / "face.jpg", "-o", tmp_path / "out")
    assert result.exit_code == 2
    assert "(broke off)" in result.stdout and "cut off" in result.stderr
    assert 20 < len(times(tmp_path / "out" / "cut.mp4")) < 50


def test_a_folder_is_worked_through_and_inputs_stay_as_they_were(annotate, material, tmp_path):
    before = {path.name: path.read_bytes() for path in material.iterdir() if path.is_file()}
    result = annotate(material, "-o", tmp_path / "out", "--no-video")
    assert result.exit_code == 0
    assert {line["source"] for line in lines(tmp_path / "out")} == {"clip.mp4", "clip.avi", "face.jpg"}
    assert {path.name: path.read_bytes() for path in material.iterdir() if path.is_file()} == before


def test_a_second_run_gets_a_folder_of_its_own(annotate, material, tmp_path):
    for _ in range(2):
        annotate(material / "face.jpg")
    assert names(tmp_path / "runs" / "annotate") == ["face", "face2"]


def test_a_full_folder_is_refused_unless_allowed(annotate, material, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "face.jpg").write_text("dear")
    assert annotate(material / "face.jpg", "-o", out).exit_code == 2
    assert (out / "face.jpg").read_text() == "dear" and names(out) == ["face.jpg"]
    result = annotate(material / "face.jpg", "-o", out, "--exist-ok")
    assert result.exit_code == 0 and "replaced" not in result.output
    assert (out / "face.jpg").stat().st_size > 1000
    (tmp_path / "face.jpg").write_text("no picture")
    shutil.copyfile(material / "face.jpg", tmp_path / "good.jpg")
    assert annotate(tmp_path / "face.jpg", tmp_path / "good.jpg", "-o", out, "--exist-ok").exit_code == 2
    entry, _ = json.loads((out / "run.json").read_text())["files"]
    assert entry["output"] is None, "that of the earlier run"


def test_results_of_an_earlier_run_are_replaced_and_it_is_said(annotate, material, tmp_path):
    out = tmp_path / "out"
    annotate(material / "clip.avi", "-o", out, "--no-video")
    (tmp_path / "bad.mp4").write_text("no video")
    assert "replaced" not in annotate(tmp_path / "bad.mp4", "-o", out, "--exist-ok").output
    result = annotate(material / "face.jpg", "-o", out, "--no-video", "--exist-ok")
    assert "out: results.csv, results.jsonl and run.json of an earlier run were replaced" in result.stdout
    assert [line["source"] for line in lines(out)] == ["face.jpg"]


def test_off_a_terminal_a_line_now_and_then_says_how_far_it_is(annotate, material, monkeypatch):
    assert "of 20 frames" not in annotate(material / "clip.mp4", "--no-video").stderr, "not in the first ten seconds"
    monkeypatch.setattr("edge_app.commands.progress.IN_LOG_S", 0.0)
    said = annotate(material / "clip.mp4", material / "face.jpg", "--no-video", "--vid-stride", 2).stderr.splitlines()
    assert re.fullmatch(r"\[1/2\] clip.mp4: 1 of 10 frames, 0:00:\d\d left", said[0])
    assert said[9] == "[1/2] clip.mp4: 10 of 10 frames, 0:00:00 left"
    assert said[11] == "[2/2] face.jpg: 1 of 1 frame, 0:00:00 left"


def test_a_length_that_was_passed_is_no_more_told(annotate, tmp_path, monkeypatch):
    one = write_clip(tmp_path / "one.ts", frames=10).read_bytes()
    (tmp_path / "two.ts").write_bytes(one[: len(one) // 188 * 188] * 2)
    monkeypatch.setattr("edge_app.commands.progress.IN_LOG_S", 0.0)
    said = annotate(tmp_path / "two.ts", "--no-video").stderr.splitlines()
    assert any(" of 10 frames, " in line for line in said)
    assert "[1/1] two.ts: 15 frames" in said


def test_sound_that_changes_its_layout_costs_no_more_than_that_sound(annotate, material, tmp_path, monkeypatch):
    """Broadcasts do, in kinds that MP4 cannot hold; here mp2 stands for those."""
    monkeypatch.setattr("edge_app.soundtrack.HELD_BY_MP4", frozenset())
    content = b""
    for layout in ("stereo", "mono"):
        part = tmp_path / f"{layout}.ts"
        with av.open(str(part), "w") as container:
            video = container.add_stream("mpeg2video", rate=25)
            sound = container.add_stream("mp2", rate=48000, layout=layout)
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            for _ in range(25):
                black = np.zeros((48, 64, 3), np.uint8)
                container.mux(video.encode(av.VideoFrame.from_ndarray(black, format="rgb24")))
            container.mux(video.encode())
            channels = 1 if layout == "mono" else 2
            for start in range(0, 48000, 1152):
                silence = np.zeros((1, 1152 * channels), np.int16)
                frame = av.AudioFrame.from_ndarray(silence, format="s16", layout=layout)
                frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
                container.mux(sound.encode(frame))
            container.mux(sound.encode())
        content += part.read_bytes()
    (tmp_path / "joined.ts").write_bytes(content)
    result = annotate(tmp_path / "joined.ts", material / "face.jpg", "-o", tmp_path / "out")
    assert result.exit_code == 0 and "pieces of its sound were left out" in result.stderr, result.output
    assert {"joined.mp4", "face.jpg", "run.json"} <= set(names(tmp_path / "out"))


def test_an_output_never_replaces_an_input(annotate, material, tmp_path):
    shutil.copyfile(material / "face.jpg", tmp_path / "face.jpg")
    before = (tmp_path / "face.jpg").read_bytes()
    result = annotate("face.jpg", "-o", ".", "--exist-ok")
    assert result.exit_code == 2 and "would replace the input" in result.stderr
    assert (tmp_path / "face.jpg").read_bytes() == before


def test_faces_are_pixelated_on_request(annotate, material, tmp_path):
    import cv2

    annotate(material / "face.jpg", "-o", tmp_path / "out", "--blur", "--labels", "ko")
    copy, original = (cv2.imread(str(folder / "face.jpg")) for folder in (tmp_path / "out", material))
    eyes = np.s_[100:140, 190:260]
    assert cv2.Laplacian(copy[eyes], cv2.CV_64F).var() < cv2.Laplacian(original[eyes], cv2.CV_64F).var() / 2


def test_inputs_of_the_same_name_are_told_apart_in_the_results(annotate, material, tmp_path):
    for folder in ("s01", "s02"):
        (tmp_path / folder).mkdir()
        shutil.copy(material / "clip.mp4", tmp_path / folder / "session.mp4")
        shutil.copy(material / "face.jpg", tmp_path / folder / "face.jpg")
    result = annotate("s01", "s02", material / "clip.avi", "--no-video", "-o", "out")
    assert result.exit_code == 0, result.output
    found = {line["source"] for line in lines(tmp_path / "out")}
    assert found == {"s01/face.jpg", "s01/session.mp4", "s02/face.jpg", "s02/session.mp4", "clip.avi"}
    assert all(name in result.stdout and f"{name}: " in result.stderr for name in found)


def test_an_end_before_the_start_is_refused(annotate, material):
    result = annotate(material / "clip.mp4", "--start", 3, "--end", 2)
    assert result.exit_code == 2 and "expected a time after --start" in result.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_finishes_the_files(material, tmp_path, number, code):
    write_clip(tmp_path / "long.avi", frames=1500, size=(64, 48))
    command = [sys.executable, "-m", "edge_app", "annotate", "--model", material / "model", "-o", tmp_path / "out"]
    command += [tmp_path / "long.avi", material / "clip.mp4"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        part, wait = tmp_path / "out" / "long.mp4.part", threading.Event()
        while process.poll() is None and not (part.exists() and part.stat().st_size):
            wait.wait(0.01)
        process.send_signal(number)
        said, _ = process.communicate(timeout=20 * PATIENCE)
    assert process.returncode == code
    assert "(stopped)" in said
    assert names(tmp_path / "out") == ["long.mp4", "results.csv", "results.jsonl", "run.json"]
    assert 0 < len(times(tmp_path / "out" / "long.mp4")) == len(lines(tmp_path / "out")) < 1500


def untimed(folder):
    return [{key: value for key, value in line.items() if key != "speed"} for line in lines(folder)]


@pytest.fixture(scope="module")
def interrupted(material, tmp_path_factory):
    """By signal, a folder in which four inputs are asked for, two are finished and the third is begun; "": all are."""
    folder = tmp_path_factory.mktemp("interrupted")
    write_clip(folder / "long.avi", frames=150, size=(64, 48))
    shutil.copyfile(material / "clip.mp4", folder / "other.mp4")
    files = [material / "clip.mp4", "other.mp4", "long.avi", material / "face.jpg"]
    made = {}
    for number in (0, signal.SIGKILL, signal.SIGINT):
        made[number] = folder / f"out {number}"
        command = [sys.executable, "-m", "edge_app", "annotate", "--model", material / "model", "--no-video", *files]
        around = os.environ | {"PYTHONPATH": str(ROOT)}
        with subprocess.Popen([*command, "-o", made[number]], cwd=folder, env=around, stderr=subprocess.PIPE) as process:
            done = made[number] / "unfinished.jsonl"
            while number and process.poll() is None and not (done.exists() and done.read_text().count("\n") == 3):
                threading.Event().wait(0.01)
            process.send_signal(number)
            said = process.communicate(timeout=60 * PATIENCE)[1].decode()
        assert (process.returncode != 0) == (number != 0), said
        assert ("go on with calmcam annotate --resume" in said) == (number == signal.SIGINT), said
    return made


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(
    ("number", "damage", "finished"),
    [
        (signal.SIGINT, lambda out: None, 2),
        (signal.SIGKILL, lambda out: None, 2),
        (signal.SIGKILL, lambda out: cut(out / "unfinished.jsonl", -9), 1),
        (signal.SIGKILL, lambda out: [path.unlink() for path in out.glob("results*")], 0),
    ],
    ids=["stopped", "killed", "a line cut", "results lost"],
)
def test_what_was_interrupted_goes_on_as_if_it_had_not_been(annotate, interrupted, tmp_path, number, damage, finished):
    out = Path(shutil.copytree(interrupted[number], tmp_path / "out"))
    damage(out)
    result = CliRunner().invoke(cli, ["annotate", "--resume", str(out)])
    assert result.exit_code == 0, result.output
    assert (f"{finished} of 4 inputs were finished before" in result.stderr) == bool(finished)
    whole = interrupted[0]
    assert names(out) == names(whole) and untimed(out) == untimed(whole)
    assert (out / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    run, other = (json.loads((folder / "run.json").read_text()) for folder in (out, whole))
    kept = ("input", "name", "output", "error", "media", "frames", "faces", "labels", "stopped")
    assert [[file[key] for key in kept] for file in run["files"]] == [[file[key] for key in kept] for file in other["files"]]
    assert [run["report"][key] for key in kept[5:]] == [other["report"][key] for key in kept[5:]]
    assert run["arguments"] | {"output_dir": None} == other["arguments"] | {"output_dir": None}
    assert (run["resumed"], other["resumed"]) == (1, 0)


@pytest.fixture
def broken_off(monkeypatch):
    """A context in which annotate ends, as if the machine did, when so many inputs are finished."""

    @contextlib.contextmanager
    def after(count):
        add, found = Journal.add, []

        def stop(self, outcome, sizes):
            add(self, outcome, sizes)
            found.append(outcome)
            if len(found) == count:
                raise OutputError("the machine is off")

        with monkeypatch.context() as patch:
            patch.setattr(Journal, "add", stop)
            yield

    return after


def test_a_run_may_be_interrupted_again_and_again(annotate, material, tmp_path, broken_off):
    """From other folders, with names that look like patterns, and an input whose copy cannot be made."""
    (tmp_path / "in").mkdir()
    for name in ("a [x].mp4", "b.mp4", "c.jpg"):
        shutil.copyfile(material / "clip.mp4", tmp_path / "in" / name)
    cv2.imwrite(str(tmp_path / "in" / "wide.bmp"), np.zeros((2, 70_000, 3), np.uint8))  # too wide for a JPEG
    whole, out = tmp_path / "whole", tmp_path / "out"
    assert annotate("in", "-o", whole).exit_code == 2
    with broken_off(1):
        assert "the machine is off" in annotate("in", "-o", out).stderr
    assert [item.path.name for item in expand(["."])] == ["a [x].mp4", "b.mp4", "c.jpg", "wide.bmp"]
    for elsewhere in ("in", ".."):
        os.chdir(elsewhere)
        with broken_off(1):
            assert "the machine is off" in CliRunner().invoke(cli, ["annotate", "--resume", str(out)]).stderr
    with (out / "unfinished.jsonl").open("a") as file:
        file.write('{"input": 3, "out')
    assert CliRunner().invoke(cli, ["annotate", "--resume", str(out)]).exit_code == 2
    assert names(out) == names(whole) and untimed(out) == untimed(whole)
    assert (out / "results.csv").read_bytes() == (whole / "results.csv").read_bytes()
    counts = [json.loads((folder / "run.json").read_text())["report"]["frames"] for folder in (out, whole)]
    assert counts[0] == counts[1] == len(lines(whole))


def test_results_of_an_earlier_run_are_not_gone_on_with(annotate, material, tmp_path, broken_off):
    assert annotate(material / "face.jpg", "-o", "out", "--no-video").exit_code == 0
    before = (tmp_path / "out" / "results.jsonl").read_bytes()
    assert annotate("none.mp4", "-o", "out", "--no-video", "--exist-ok").exit_code == 2
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == before and not (tmp_path / "out" / "unfinished.jsonl").exists()
    with broken_off(1):
        annotate(material / "clip.mp4", material / "clip.avi", "-o", "out", "--no-video", "--exist-ok")
    assert CliRunner().invoke(cli, ["annotate", "--resume", "out"]).exit_code == 0
    assert [line["source"] for line in lines(tmp_path / "out")] == ["clip.mp4"] * 20 + ["clip.avi"] * 8


def test_what_cannot_go_on_says_why(annotate, interrupted, material, tmp_path):
    out = Path(shutil.copytree(interrupted[signal.SIGKILL], tmp_path / "out"))

    def said(*words):
        result = CliRunner().invoke(cli, ["annotate", *map(str, words)])
        assert result.exit_code == 2 and names(out) == names(interrupted[signal.SIGKILL])
        return result.stderr

    assert "expected a run of annotate that was interrupted, found no unfinished.jsonl" in said("--resume", material)
    assert "--resume takes all from the run; leave out 'FILE...'" in said("a.mp4", "--resume", out)
    assert "--resume takes all from the run; leave out '--bars'" in said("--no-bars", "--resume", out)
    assert f"go on with --resume {out}, or begin anew with --exist-ok" in said(material / "clip.mp4", "-o", out)
    assert "Missing argument 'FILE...'" in said()
    with pytest.raises(OutputError, match="none: the output folder cannot be opened"), runs.alone(tmp_path / "none"):
        pass
    with runs.alone(out):
        assert "another calmcam works on this run" in said("--resume", out)
    journal = out / "unfinished.jsonl"
    journal.write_text(journal.read_text().replace('"sha256": "', '"sha256": "0', 1))
    assert "began with the model small int8 (0" in said("--resume", out)
    for text in ("", "{}\n", "[]\n", journal.read_text().replace('"stride"', '"strid"')):
        journal.write_text(text)
        assert "unfinished.jsonl: expected what annotate writes, got something else" in said("--resume", out)

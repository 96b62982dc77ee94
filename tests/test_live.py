from __future__ import annotations

import base64
import json
import os
import pty
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from contextlib import nullcontext, redirect_stderr
from dataclasses import replace
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import av
import pytest
from click.testing import CliRunner
from clips import times, write_clip
from patience import PATIENCE
from small_model import write_model

from edge_app.cli import cli
from edge_app.commands.console import StatusLine, status_line, summary
from edge_app.commands.live import _tell as tell
from edge_app.commands.recording import Spare
from edge_app.drawing.overlay import PALETTE
from edge_app.errors import InputError, OutputError
from edge_app.moments import read_results
from edge_app.pace import Paced, Repeated
from edge_app.report import Report
from edge_app.run import Stop, run
from edge_app.sinks import video
from edge_app.sources.synthetic import Source
from edge_app.track import KEEP_NEW_S
from edge_app.types import NO_FACES, Decision, Faces, Frame, Result, Sink, Status

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_model(tmp_path_factory.mktemp("model")))


def headless(model: str, *more: object) -> list[str]:
    """The command for a process of its own."""
    words = "-m edge_app live --source synthetic --no-show --model".split()
    return [sys.executable, *words, model, *map(str, more)]


@pytest.fixture
def live(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(Path(model).parent))
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    return lambda *arguments: CliRunner().invoke(cli, ["live", "--model", model, *map(str, arguments)])


def test_result_lines_on_standard_output_and_nothing_else_there(live, tmp_path):
    result = live("--source", "synthetic", "--no-show", "--json", "--frames", 3)
    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    ids = [line["faces"][0]["track_id"] for line in lines]
    assert ids == [1, 1, 1] or (ids[0] == 1 and len(ids) == 3 and lines[-1]["t"] > KEEP_NEW_S), (
        "unseen, it is forgotten"
    )
    assert "3 frames in" in result.stderr and "dropped" in result.stderr
    assert "%" not in result.stderr, "a log does not keep what people showed"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "hint"), [((), "; --web shows it in a browser"), (("--save",), ""), (("--web", "0"), ""), (("-o", "out"), "")]
)
def test_without_a_display_it_says_so_and_goes_on(live, words, hint):
    result = live("--source", "synthetic", "--frames", 2, *words)
    assert result.exit_code == 0
    assert f"there is no display ($DISPLAY is not set); going on without a window{hint}\n" in result.stderr
    assert "2 frames in" in result.stderr


def test_saving_writes_video_results_and_record(live, tmp_path):
    result = live("--source", "synthetic", "--no-show", "--save", "--frames", 10)
    folder = tmp_path / "runs" / "live" / "synthetic"
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in folder.iterdir()) == [
        "annotated.mp4",
        "results.csv",
        "results.jsonl",
        "run.json",
    ]
    assert len(times(folder / "annotated.mp4")) == len((folder / "results.jsonl").read_text().splitlines()) >= 10
    assert json.loads((folder / "run.json").read_text())["arguments"]["settings"]["source"] == "synthetic"


def test_what_a_service_does_stands_in_its_settings(live, tmp_path):
    (tmp_path / "calmcam.toml").write_text('source = "synthetic"\nsave = true\njson = true\nweb = "0"\n')
    result = live("--config", "calmcam.toml", "--no-show", "--frames", 2)
    assert result.exit_code == 0 and len(result.stdout.splitlines()) == 2, result.output
    assert "http://127.0.0.1:" in result.stderr
    assert (tmp_path / "runs" / "live" / "synthetic" / "annotated.mp4").exists()
    result = live("--config", "calmcam.toml", "--no-show", "--no-save", "--no-json", "--frames", 2, "-o", "out")
    assert result.exit_code == 0 and not result.stdout and len(list((tmp_path / "runs" / "live").iterdir())) == 1


@pytest.mark.parametrize(("head", "coloured"), [("mood", True), ("tease", False)])
def test_of_two_words_the_one_that_denies_is_grey(live, tmp_path, head, coloured):
    portrait = ROOT / "tests" / "cases" / "astronaut.jpg"
    assert live("--source", portrait, "--no-show", "--head", head, "-o", "out").exit_code == 0
    with av.open(str(tmp_path / "out" / "annotated.mp4")) as video:
        picture = next(video.decode(video=0)).to_ndarray(format="rgb24")
    assert ((abs(picture.astype(int) - PALETTE[1]) < 30).all(axis=2).sum() > 400) == coloured


def test_a_camera_that_lies_on_its_side_is_set_upright(live, tmp_path):
    write_clip(tmp_path / "clip.avi", frames=6, size=(160, 120), fps=30)
    result = live("--source", "clip.avi", "--no-show", "--rotate", 90, "--mirror", "-o", "out")
    assert result.exit_code == 0, result.output
    with av.open(str(tmp_path / "out" / "annotated.mp4")) as video:
        assert (video.streams.video[0].width, video.streams.video[0].height) == (120, 160)
    settings = json.loads((tmp_path / "out" / "run.json").read_text())["arguments"]["settings"]
    assert (settings["rotate"], settings["mirror"]) == (90, True)
    result = live("--source", "clip.avi", "--rotate", 45)
    assert result.exit_code == 2 and "rotate: expected one of 0, 90, 180, 270, got 45" in result.stderr


def test_a_clip_plays_at_its_own_pace_and_ends(live, tmp_path):
    write_clip(tmp_path / "clip.avi", frames=15, size=(160, 120), fps=30)
    result = live("--source", "clip.avi", "--no-show", "--json")
    assert result.exit_code == 0
    stamps = [json.loads(line)["t"] for line in result.stdout.splitlines()]
    assert stamps == sorted(stamps) and stamps[-1] == pytest.approx(14 / 30, abs=1e-4)


def test_a_clip_can_go_round_and_round_until_its_time_is_over(live, tmp_path):
    write_clip(tmp_path / "clip.avi", frames=6, size=(160, 120), fps=30)
    result = live("--source", "clip.avi", "--no-show", "--json", "--loop", "--paced", 100, "--seconds", PATIENCE)
    assert result.exit_code == 0
    assert max(json.loads(line)["frame"] for line in result.stdout.splitlines()) > 20


def test_a_password_from_the_environment_is_told_to_nobody_but_the_camera(live, tmp_path, monkeypatch):
    clip = write_clip(tmp_path / "clip.mp4", frames=6, size=(160, 120), fps=30).read_bytes()
    login, secret, asked = base64.b64encode(b"me:pa@55/w: %?"), "pa@55/w: %?", []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers.get("Authorization"))
            known = asked[-1] == f"Basic {login.decode()}"
            self.send_response(200 if known else 401)
            self.send_header("WWW-Authenticate", 'Basic realm="camera"')
            self.send_header("Content-Length", str(len(clip) if known else 0))
            self.end_headers()
            self.wfile.write(clip if known else b"")

        def log_message(self, *_):
            """Keep the tests' output clean."""

    monkeypatch.setenv("CAM_PASS", secret)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}).start()
        source = f"http://me:${{CAM_PASS}}@127.0.0.1:{server.server_address[1]}/clip.mp4"
        results = [live("--source", source, "--no-show", "--save", "-v", "--log-level", "debug")]
        clip = b"no film"
        results.append(live("--source", source, "--no-show", "--save", "-v", "--log-level", "debug"))
        server.shutdown()
    assert [result.exit_code for result in results] == [0, 2], results[0].output
    written = [path.read_text(errors="replace") for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert len(written) == 4
    for text in [*written, *(result.output for result in results)]:
        assert "pa@55" not in text and "pa%40" not in text and "55/w" not in text


def test_seconds_without_a_frame_are_an_error_and_leave_no_folder(live, tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
    result = live("--source", f"udp://127.0.0.1:{port}", "--no-show", "--save", "--seconds", 0.5)
    assert result.exit_code == 2
    assert f"Error: 127.0.0.1:{port}: no frame came within 0.5 s;" in result.stderr
    assert list((tmp_path / "runs" / "live").iterdir()) == []


@pytest.mark.parametrize("flag", ["--paced", "--seconds"])
@pytest.mark.parametrize("number", ["nan", "inf", "1e10", "1e-300"])
def test_a_number_that_no_clock_counts_is_refused(live, flag, number):
    result = live("--source", "synthetic", "--no-show", flag, number)
    assert result.exit_code == 2 and "expected a number from 0.001 to 1e9, got" in result.stderr


def test_a_run_that_never_began_leaves_no_folder(live, tmp_path):
    result = live("--source", tmp_path / "missing.mp4", "--no-show", "--save")
    assert result.exit_code == 2 and "there is no such file" in result.stderr
    assert list((tmp_path / "runs" / "live").iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_with_a_playable_video(model, tmp_path, number, code):
    command = headless(model, "--json")
    command += ["-o", str(tmp_path / "out")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for _ in range(10):
            process.stdout.readline()
        process.send_signal(number)
        _, said = process.communicate(timeout=20 * PATIENCE)
    assert process.returncode == code, said
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert len(times(tmp_path / "out" / "annotated.mp4")) == len(lines) >= 10
    assert "frames in" in said and "Traceback" not in said


@pytest.mark.parametrize("both", [False, True])
def test_a_reader_that_has_enough_ends_it_in_good_order(model, tmp_path, both):
    """As in `calmcam live --json | head -2`, and with 2>&1."""
    command = headless(model)
    errors = subprocess.STDOUT if both else subprocess.PIPE
    command += ["--json", "-o", str(tmp_path / "out")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True) as process:
        for _ in range(5):
            process.stdout.readline()
        process.stdout.close()
        said = "" if both else process.stderr.read()
    assert process.returncode == 141
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "annotated.mp4", "results.csv", "results.jsonl", "run.json"
    ]  # fmt: skip
    lines = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert len(times(tmp_path / "out" / "annotated.mp4")) == len(lines) >= 3
    assert "Error" not in said and "Traceback" not in said and "Exception" not in said


def test_a_lost_connection_ends_it_in_good_order(model, tmp_path):
    command = headless(model)
    child, terminal = pty.fork()
    if not child:
        os.chdir(ROOT)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever these tests were started with: nohup has it ignored
        os.execv(command[0], [*map(str, command), "-o", str(tmp_path / "out")])
    part = tmp_path / "out" / "results.jsonl.part"
    while not (part.exists() and part.stat().st_size):
        os.read(terminal, 1000)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 129
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "annotated.mp4", "results.csv", "results.jsonl", "run.json"
    ]  # fmt: skip
    assert times(tmp_path / "out" / "annotated.mp4")


class Ages(Sink):
    def __enter__(self):
        self.ages = []
        return super().__enter__()

    def write(self, result):
        super().write(result)
        self.ages.append(result.status.age_ms)


def test_a_slow_classifier_drops_frames_and_what_is_shown_stays_young():
    slow = 0.08 * PATIENCE  # s per frame, where a frame comes every 0.033 * PATIENCE
    pause = threading.Event()

    def detect(frame, faces):
        return replace(NO_FACES, device="fake")

    def classify(frame, faces):
        pause.wait(slow)
        return faces

    sink = Ages()
    source = Paced(Source(width=64, height=48, fps=30 / PATIENCE, count=60))
    report = run(source, [("detect", detect), ("classify", classify)], [sink], live=True)
    assert report.dropped > 20 and report.frames + report.dropped >= 59
    assert statistics.median(sink.ages) <= 2 * slow * 1e3


def result(faces, *, fps=29.96):
    import numpy as np

    frame = Frame(np.zeros((4, 4, 3), np.uint8), 0, 0, "cam0")
    return Result(frame, faces, {}, Status(fps, 11.2, 3, "cpu"))


def test_the_status_line_says_what_the_faces_express():
    import numpy as np

    said = (Decision("happy", 0.81, {}), Decision("unsure", 0.4, {}, True, "small"))
    faces = Faces(np.zeros((2, 4), np.float32), np.zeros(2, np.float32), decisions=said)
    line = status_line(result(faces), "reconnecting")
    assert line == "30.0 fps · age 11 ms · dropped 3 · cpu · 2 faces: happy 81 %, unsure · reconnecting · cam0"
    assert status_line(result(NO_FACES)).endswith("0 faces · cam0")
    logged = status_line(result(faces), said=False)
    assert logged.endswith("faces · cam0"), "a journal does not keep what people showed"


def test_a_rate_that_is_not_known_is_left_out():
    assert status_line(result(NO_FACES, fps=0.0)) == "age 11 ms · dropped 3 · cpu · 0 faces · cam0"


def test_the_status_line_says_that_a_lost_source_is_waited_for(capsys):
    source = SimpleNamespace(name="cam0", state="connected")
    with StatusLine(source, Stop()) as line:
        line.idle()
        source.state = "reconnecting"
        line.idle()
        line.idle()  # within the same twenty seconds
    assert capsys.readouterr().err == "reconnecting · cam0\n"


def test_in_a_log_the_status_line_comes_ever_more_seldom_and_says_when(tmp_path, monkeypatch):
    now = SimpleNamespace(seconds=0)
    monkeypatch.setattr("edge_app.commands.console.time.monotonic", lambda: float(now.seconds))
    log = tmp_path / "log"
    with log.open("w") as file, redirect_stderr(file), StatusLine(None, Stop()) as line:
        for now.seconds in range(3600):
            line.write(result(NO_FACES))
    lines = log.read_text().splitlines()
    assert len(lines) == 10, "0, 20, 60, 140, 300, 620 s, then every ten minutes"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d 30\.0 fps · .* · cam0", lines[-1])


def test_the_status_line_stops_the_run_after_so_many_results():
    stop = Stop()
    with StatusLine(None, stop, frames=2) as line:
        line.write(result(NO_FACES))
        assert not stop.requested
        line.write(result(NO_FACES))
    assert stop.requested


def test_what_could_not_be_kept_is_not_called_saved(tmp_path, capsys):
    with pytest.raises(OutputError, match="run.json: cannot be written"):
        tell(Report(frames=3, seconds=1.0), tmp_path / "removed", {})
    said = capsys.readouterr().err
    assert "3 frames in 1.0 s" in said and "saved in" not in said


def test_the_summary_counts():
    report = Report(frames=30, dropped=2, faces=28, seconds=1.0)
    report.labels.update({"happy": 21, "sad": 7})
    report.devices["cpu"] = 30
    report.spans_ms["age"] = [10.0, 12.0]
    text = summary(report)
    assert "30 frames in 1.0 s · 30.0 fps" in text and "dropped 2" in text and "happy 75 %, sad 25 %" in text
    assert summary(report, said=False).endswith("28 faces"), "a log does not keep what people showed"
    assert "fps" not in summary(Report(frames=1, seconds=5.0, live=True)), "of one frame no rate is known"
    assert summary(Report()) == "no frame in 0.0 s"


class Failing:
    """A sink that takes `most` results; the disk is full then, or at once when it is opened."""

    name = "video"

    def __init__(self, most: int) -> None:
        self.most, self.taken, self.closed = most, 0, 0

    def __enter__(self):
        if self.most < 0:
            raise OutputError("v.mp4: the disk is full")
        return self

    def write(self, result):
        if self.taken == self.most:
            raise OutputError("v.mp4: the disk is full")
        self.taken += 1

    def __exit__(self, *exc):
        self.closed += 1


@pytest.mark.parametrize("most", [-1, 0, 3])
def test_where_the_disk_takes_no_more_the_others_go_on(most, caplog):
    full, line = Failing(most), Failing(99)
    spare = Spare(full, "recording")
    run(Repeated(Source(), frames=10), [], [spare, line], live=False)
    assert line.taken == 10 and full.taken == max(0, most)
    assert full.closed == (most >= 0) and str(spare.error) == "v.mp4: the disk is full"
    assert caplog.text.count("recording has ended, the run goes on") == 1


def test_result_lines_that_nobody_takes_do_not_end_a_recording(model, tmp_path):
    with open("/dev/full", "w") as full:
        command = headless(model, "--json", "-o", tmp_path / "out", "--frames", 5)
        ended = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.returncode == OutputError.exit_code
    assert "No space left on device); make room or name another place with -o; --json has ended" in ended.stderr
    assert len((tmp_path / "out" / "results.jsonl").read_text().splitlines()) >= 5


@pytest.mark.parametrize("watched", [True, False])
def test_when_recording_and_result_lines_have_both_ended_only_who_watches_has_something(watched):
    spares: list[Spare] = []
    spares += Spare(Failing(2), "--json", spares), Spare(Failing(5), "recording", () if watched else spares)
    line = Failing(99)
    with nullcontext() if watched else pytest.raises(OutputError, match="the disk is full"):
        run(Repeated(Source(), frames=10), [], [*spares, line], live=False)
    assert line.taken == (10 if watched else 5) and all(spare.error for spare in spares)


@pytest.mark.parametrize("watched", [True, False])
def test_a_recording_that_breaks_off_is_told_at_the_end(live, tmp_path, monkeypatch, watched):
    monkeypatch.setattr(video.Sink, "write", Failing(0).write)
    options = ("--json",) if watched else ()
    ended = live("--source", "synthetic", "--no-show", "--save", "--frames", 5, *options)
    assert ended.exit_code == OutputError.exit_code and "the disk is full" in ended.stderr
    assert len(ended.stdout.splitlines()) == (5 if watched else 0)
    folder = tmp_path / "runs" / "live" / "synthetic"
    assert (folder / "run.json").is_file() and (folder / "results.jsonl").is_file() == watched


def test_what_a_killed_run_left_can_be_told(model, tmp_path):
    out = tmp_path / "out"
    command = headless(model, "-o", out)
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 20 * PATIENCE
        while not any(out.glob("*.jsonl.part")) or not (out / "results.jsonl.part").stat().st_size:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.kill()
    about = json.loads((out / "run.json").read_text())
    assert datetime.fromisoformat(about["started"]).tzinfo and about["arguments"]["settings"]["source"] == "synthetic"
    with pytest.raises(InputError, match="take the .part off the names"):
        list(read_results(out / "results.jsonl"))
    text = (out / "results.jsonl.part").read_text()
    (out / "results.jsonl").write_text(text[: text.rindex("\n") - 5])  # cut off within a line
    assert len(list(read_results(out / "results.jsonl"))) == text.count("\n") - 1

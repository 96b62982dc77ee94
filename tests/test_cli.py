from __future__ import annotations

import importlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import unicodedata
from contextlib import suppress
from pathlib import Path

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from clips import write_clip
from patience import PATIENCE
from small_model import write_model

from edge_app import cli as module
from edge_app.cli import COMMANDS, cli
from edge_app.commands.options import Seconds, Signals
from edge_app.errors import BackendError, SourceError

ROOT = Path(__file__).parent.parent
HEAVY = {"numpy", "cv2", "av", "mediapipe", "ai_edge_litert", "tensorflow", "keras", "rich", "jsonschema", "PIL"}


def calmcam(*arguments):
    return CliRunner().invoke(cli, arguments)


@pytest.fixture
def failing(monkeypatch):
    """`calmcam live` that raises what it is given."""

    def install(error):
        @click.command()
        def fails():
            raise error

        monkeypatch.setattr(importlib.import_module("edge_app.commands.live"), "live", fails)

    return install


def test_help_lists_every_command_and_imports_nothing_heavy():
    code = "import sys, edge_app.cli as c; c.cli(['--help'], standalone_mode=False); print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert all(f"  {name} " in run.stdout for name in COMMANDS)
    assert not HEAVY & {name.partition(".")[0] for name in run.stdout.splitlines()[-1].split()}


@pytest.mark.parametrize("name", [name for name, entry in COMMANDS.items() if entry[0].startswith("edge_app")])
def test_every_command_of_the_edge_has_help(name):
    result = calmcam(name, "--help")
    assert result.exit_code == 0 and result.output.startswith(f"Usage: cli {name}")
    assert "--log-level" in result.output


def test_an_unknown_command_names_the_nearest():
    result = calmcam("anotate", "x.mp4")
    assert result.exit_code == 2 and "unknown command 'anotate'; did you mean 'annotate'?" in result.stderr


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        ("predict", "annotate"),
        ("val", "evaluate"),
        ("deploy", "compile"),
        *((one, "live") for one in ("run", "track", "detect", "stream", "camera")),
    ],
)
def test_the_words_of_other_programs_are_known(word, ours):
    result = calmcam(word, "--source", "0")
    assert result.exit_code == 2 and f"unknown command {word!r}; did you mean {ours!r}?" in result.stderr


def test_an_unknown_option_names_the_nearest():
    result = calmcam("annotate", "--modle", "x", "y")
    assert result.exit_code == 2 and "--model" in result.stderr


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("live --input 0", "Did you mean '--source'?"),
        ("annotate --input a.mp4", "Name FILE without a flag."),
        ("annotate --source a.mp4", "Name FILE without a flag."),
        ("live --weights x", "Did you mean '--model'?"),
        ("evaluate --weights x --data y", "Name MODEL without a flag."),
        ("compile --hef x", "Name MODEL without a flag."),
        ("live --hef-path x", "Did you mean '--model'?"),
        ("annotate --max-det 3 x", "Did you mean '--max-faces'?"),
        ("annotate --project x y", "Did you mean '-o'?"),
        ("live --name x", "Did you mean '-o'?"),
        ("crop --output x y", "Did you mean '-o'?"),
        ("live --view-img", "Did you mean '--show'?"),
        ("doctor --source 0", "No such option '--source'."),
        ("live -i 0", "Did you mean '--source'?"),
        ("annotate -i a.mp4", "Name FILE without a flag."),
        ("doctor -i 0", "No such option '-i'."),
        ("live -m x", "Did you mean '--model'?"),
        ("live -n x", "Did you mean '--model'?"),
        ("evaluate -m x --data y", "Name MODEL without a flag."),
        ("live --frame-rate 30", "Did you mean '--fps'?"),
        ("live --debug", "Did you mean '-v'?"),
        ("models list --debug", "Did you mean '-v'?"),
        ("live --track", "No such option '--track'. live and annotate track faces without a flag."),
        ("live --list-models", "No such option '--list-models'. calmcam models lists them."),
        ("annotate --list-models", "calmcam models lists them."),
        ("train emotions --epochs 3", "No such option '--epochs'. Training takes it as --set stages.0.epochs=3 and so on."),
        ("train emotions --batch=16", "Training takes it as --set batch=64."),
        ("train emotions --imgsz 96", "Training takes it as --set input.size=96."),
        ("live --list-inputs", "No such option '--list-inputs'. calmcam doctor lists cameras."),
        ("live clip.mp4", "Got unexpected extra argument (clip.mp4). Name a camera, file or address with --source."),
        ("benchmark a.mp4 b.mp4", "(a.mp4 b.mp4). Name a camera, file or address with --source."),
        ("doctor clip.mp4", "Got unexpected extra argument (clip.mp4)"),
    ],
)
def test_the_flags_of_other_programs_are_known(words, hint):
    result = calmcam(*words.split())
    assert result.exit_code == 2 and result.stderr.splitlines()[-1].endswith(hint)


@pytest.mark.parametrize(("error", "code"), [(SourceError("a.mp4: no\n such file"), 2), (BackendError("lost"), 1)])
def test_our_errors_become_a_sentence_and_an_exit_code(failing, error, code):
    failing(error)
    result = calmcam("live")
    assert result.exit_code == code
    assert result.stderr == f"Error: {' '.join(str(error).split())}\n"


@pytest.mark.parametrize("arguments", [("-v", "live"), ("live", "-v")])
def test_with_v_comes_the_traceback(failing, arguments):
    failing(SourceError("no such file"))
    result = calmcam(*arguments)
    assert result.exit_code == 2
    assert "Traceback" in result.stderr and result.stderr.endswith("Error: no such file\n")


def test_what_nobody_expected_is_one_sentence_too(failing):
    failing(ZeroDivisionError("division by zero"))
    result = calmcam("live")
    assert result.exit_code == 1
    assert result.stderr == "Error: unexpected ZeroDivisionError: division by zero (-v shows where)\n"


def test_what_the_system_says_of_a_place_is_for_the_user(failing):
    failing(PermissionError(13, "Permission denied", "closed/x"))
    result = calmcam("live")
    assert result.exit_code == 2
    assert result.stderr == "Error: closed/x: Permission denied; check the place and its permissions (-v shows where)\n"


@pytest.mark.parametrize(
    ("last", "code", "says"),
    [
        (RuntimeError("release unlocked lock"), 130, "stopped\n"),
        (SourceError("the disk is full"), 2, "Error: the disk is full\n"),
    ],
)
def test_what_a_signal_breaks_is_no_failure(monkeypatch, last, code, says):
    @click.command()
    def stopped():
        try:
            raise KeyboardInterrupt
        finally:
            raise last

    monkeypatch.setattr(importlib.import_module("edge_app.commands.live"), "live", stopped)
    result = calmcam("live")
    assert (result.exit_code, result.stderr) == (code, says)


def test_a_command_whose_package_is_missing_says_what_to_install(monkeypatch):
    monkeypatch.setitem(module.COMMANDS, "train", ("surely_absent.cli:train", "Train.", "train"))
    result = calmcam("train")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: calmcam train needs the package 'surely_absent', which is not installed; in calmcam's folder: pip install '.[train]'\n"
    )
    assert "train" in calmcam("--help").output


@pytest.mark.parametrize("words", ["live --source synthetic", "models verify"])
def test_a_library_of_the_system_that_is_missing_is_named_by_the_doctor(tmp_path, words):
    said = "libGL.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "cv2.py").write_text(f"raise ImportError({said!r})")
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-m", "edge_app", *words.split()]
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1 and "unexpected" not in run.stderr
    assert f"cannot be loaded ({said}); calmcam doctor names the package\n" in run.stdout + run.stderr


@pytest.mark.parametrize("place", ["before", "after"])
def test_the_settings_file_may_be_named_before_and_after_the_command(tmp_path, place):
    config = tmp_path / "c.toml"
    config.write_text('model = "emotoins"')
    arguments = (
        ["--config", str(config), "annotate", "x.mp4"]
        if place == "before"
        else ["annotate", "x.mp4", "--config", str(config)]
    )
    result = calmcam(*arguments)
    assert result.exit_code == 2 and "unknown model 'emotoins'" in result.stderr


def test_version():
    from edge_app import __version__

    assert calmcam("--version").output == f"calmcam, version {__version__}\n"


@pytest.mark.parametrize(("text", "seconds"), [("12", 12), ("1.5", 1.5), ("2:03", 123), ("1:00:00.25", 3600.25)])
def test_times(text, seconds):
    assert Seconds().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "-1", "1:2:3:4", "soon", "1e3", "inf"])
def test_what_is_no_time(text):
    with pytest.raises(click.BadParameter, match="expected seconds or hh:mm:ss"):
        Seconds().convert(text, None, None)


def test_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals() as stop:
            signal.raise_signal(signal.SIGHUP)
        assert not stop.requested
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_first_signal_stops_in_good_order_and_a_later_second_at_once(monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    with Signals() as stop:
        assert stop.exit_code == 0
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop.requested and stop.exit_code == 143
        monkeypatch.setattr(Signals, "REPEATED", 0.0)
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(signal.SIGINT)
    assert ended.value.code == 130
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.parametrize("speaks", ["cp949", "ascii"])
def test_a_terminal_that_is_not_utf8(tmp_path, speaks):
    """Names are told as far as it can write them, JSON is JSON, and nothing that was done is lost."""
    clip, other = (write_clip(tmp_path / unicodedata.normalize(form, "한글.mp4"), frames=3) for form in ("NFD", "NFC"))
    model = write_model(tmp_path / "모델 é")
    where = {**os.environ, "PYTHONIOENCODING": speaks, "PYTHONUTF8": "0"}

    def calmcam(*words: object) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "edge_app", *map(str, words)]
        return subprocess.run(command, capture_output=True, cwd=ROOT, env=where, timeout=60 * PATIENCE)

    told = calmcam("annotate", clip, other, "--model", model, "-o", tmp_path / "out")
    assert told.returncode == 0, told.stderr
    assert len((tmp_path / "out" / "results.jsonl").read_text(encoding="utf-8").splitlines()) == 6
    told = calmcam("models", "show", model, "--json")
    assert json.loads(told.stdout)["folder"] == str(model)
    told = calmcam("live", "--source", clip, "--model", model, "--no-show", "--json")
    assert told.returncode == 0, told.stderr
    sources = {json.loads(line)["source"] for line in told.stdout.splitlines()}  # how many, a slow machine decides
    assert sources == {clip.name}


def begun(process: subprocess.Popen, number: int = signal.SIGTERM) -> subprocess.Popen:
    """`process`, once calmcam handles that signal in it."""
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
        if int(caught.split()[1], 16) >> number - 1 & 1:
            return process
        threading.Event().wait(0.005)
    raise AssertionError(f"it ended by itself: {process.communicate()}")


def started(*words: object, ignore: int | None = None, closed: int | None = None) -> subprocess.Popen:
    """`calmcam` in a process of its own; `ignore` is a signal that it is started deaf to, as nohup does."""

    def before() -> None:  # whatever these tests were started with
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN if number == ignore else signal.SIG_DFL)
        if closed is not None:
            os.close(closed)

    command = [sys.executable, "-m", "edge_app", *map(str, words)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, preexec_fn=before, **pipes)


LONG = ("benchmark", "--frames", 1_000_000, "--size", "160x120", "--no-startup")


@pytest.mark.parametrize(
    ("words", "number", "code"),
    [
        (LONG, signal.SIGINT, 130),
        (LONG, signal.SIGTERM, 143),
        (LONG, signal.SIGHUP, 129),
        (("doctor",), signal.SIGINT, 130),
        (("models", "verify"), signal.SIGTERM, 143),
        (("parity", "emotions", "--b", "int8", "--data", "/dev/zero"), signal.SIGINT, 130),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else None,
)
def test_a_signal_is_told_from_a_failure(words, number, code):
    process = begun(started(*words))
    process.send_signal(number)
    out, said = process.communicate(timeout=60 * PATIENCE)
    assert (process.returncode, out) == (code, "") and said.splitlines()[-1] == "stopped", said
    assert "Traceback" not in said and "Aborted" not in said


def test_nohup_is_respected_by_every_command():
    process = begun(started(*LONG, ignore=signal.SIGHUP))
    process.send_signal(signal.SIGHUP)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60 * PATIENCE)[1] == "stopped\n" and process.returncode == 143


def test_handlers_of_signals_are_given_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    assert calmcam("models", "list").exit_code == 0
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    return tmp_path


def test_each_demo_gets_a_folder_of_its_own_unless_one_is_named(elsewhere):
    (elsewhere / "c.toml").write_text(f'model = "{write_model(elsewhere / "model")}"\nruns_dir = "there"\n')
    (elsewhere / "demo").mkdir()
    (elsewhere / "demo" / "note.txt").touch()
    for words in ([], [], ["-o", "demo", "--exist-ok"]):
        result = calmcam("demo", "--config", "c.toml", *words)
        assert result.exit_code == 0, result.output
    folders = [
        elsewhere / "there" / "demo" / "portrait",
        elsewhere / "there" / "demo" / "portrait2",
        elsewhere / "demo",
    ]
    for folder in folders:
        assert (folder / "portrait.mp4").is_file() and (folder / "annotated" / "portrait.mp4").is_file()
    assert calmcam("demo", "-o", "demo").exit_code == 2


@pytest.mark.parametrize("text", ['modle = "emotions"', 'model = "face_detection"', "head = 5"])
def test_a_demo_that_annotates_nothing_leaves_nothing(elsewhere, text):
    (elsewhere / "c.toml").write_text(text)
    result = calmcam("demo", "--config", "c.toml")
    assert result.exit_code == 2 and "Error" in result.stderr, result.output
    assert not list(elsewhere.rglob("portrait*"))


def test_a_demo_that_is_stopped_while_it_draws_leaves_nothing(elsewhere):
    process = started("demo", "-o", elsewhere / "out")
    while process.poll() is None and not (elsewhere / "out" / "portrait.mp4.part").exists():
        threading.Event().wait(0.005)
    process.send_signal(signal.SIGTERM)
    assert process.communicate(timeout=60 * PATIENCE)[1] == "stopped\n" and process.returncode == 143
    assert not (elsewhere / "out").exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["models", "list"], 141),
        (["models", "show", "emotions"], 141),
        (["doctor"], 141),
        (["annotate", "face.jpg", "--model", "model", "-o", "out"], 141),
        (["annotate", "face.jpg", "text.png", "--model", "model", "-o", "out"], 2),
        (["evaluate", "model", "--data", "data", "-o", "out"], 141),
        (["evaluate", "model", "--data", "bad", "-o", "out"], 2),
    ],
    ids=lambda value: "-".join(value[:3]) if isinstance(value, list) else None,
)
def test_a_reader_that_has_gone_away_is_no_failure(tmp_path, words, code):
    write_model(tmp_path / "model")
    (tmp_path / "text.png").write_text("this is no picture")
    shutil.copy(ROOT / "edge_app" / "astronaut.jpg", tmp_path / "face.jpg")
    for name in ("data", "bad"):
        (tmp_path / name / "happy").mkdir(parents=True)
        shutil.copy(tmp_path / "face.jpg", tmp_path / name / "happy")
    shutil.copy(tmp_path / "text.png", tmp_path / "bad" / "happy")
    command = [sys.executable, "-m", "edge_app", *words]
    where = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=where, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert process.returncode == code, said
    assert "Traceback" not in said and "Exception" not in said and "BrokenPipe" not in said
    assert "-o" not in words or (tmp_path / "out" / "run.json").is_file()


@pytest.mark.parametrize("plain", [False, True])
def test_no_color_is_respected_by_every_line(plain):
    """On a terminal, where there is colour otherwise."""
    ours, theirs = os.openpty()
    where = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    command = [sys.executable, "-m", "edge_app", "models", "verify", "face_detection"]
    with subprocess.Popen(
        command, cwd=ROOT, env=where | ({"NO_COLOR": "1"} if plain else {}), stdout=theirs
    ) as process:
        os.close(theirs)
        said = os.read(ours, 10_000)
        with suppress(OSError):  # EIO is the end
            while more := os.read(ours, 10_000):
                said += more
    os.close(ours)
    assert process.returncode == 0 and b"ok" in said
    assert (b"\x1b" not in said) == plain


@pytest.mark.parametrize(
    ("words", "levels"),
    [
        ([], ("WARNING", "WARNING")),
        (["-v"], ("INFO", "WARNING")),
        (["-v", "--log-level", "warning"], ("WARNING", "WARNING")),
        (["--log-level", "debug"], ("DEBUG", "WARNING")),
        (["--log-level", "error"], ("ERROR", "ERROR")),
    ],
)
def test_the_level_that_is_named_holds(failing, words, levels):
    failing(click.exceptions.Exit(0))
    for arguments in ([*words, "live"], ["live", *words]):
        assert calmcam(*arguments).exit_code == 0
        assert logging.getLevelName(logging.getLogger().level) == levels[0]
        assert {logging.getLevelName(logging.getLogger(name).level) for name in ("PIL", "matplotlib")} == {levels[1]}


@pytest.mark.parametrize("journal", [False, True])
def test_a_line_of_a_log_says_when_unless_the_journal_does(tmp_path, journal):
    code = "import logging; from edge_app import cli; cli._log_to_stderr(); logging.getLogger('cam').warning('lost')"
    log = tmp_path / "log"
    with log.open("w") as file:
        place = os.fstat(file.fileno())
        named = f"{place.st_dev}:{place.st_ino if journal else 0}"  # a journal of another program's is no excuse
        subprocess.run(
            [sys.executable, "-c", code], stderr=file, env={**os.environ, "JOURNAL_STREAM": named}, check=True
        )
    time, line = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ", "WARNING cam: lost\n"
    assert re.fullmatch(line if journal else time + line, log.read_text())


@pytest.mark.parametrize("closed", [1, 2])
def test_a_stream_may_be_closed_from_the_start(closed):
    process = started("models", "verify", "face_detection", closed=closed)
    out, said = process.communicate(timeout=60 * PATIENCE)
    assert (process.returncode, said) == (0, "") and bool(out) == (closed == 2)


@pytest.mark.parametrize(
    ("words", "begun", "offered"),
    [
        ([], "av", ["average"]),
        (["annotate", "--device"], "", ["auto", "hailo", "cpu"]),
        (["live", "--rotate"], "1", ["180"]),
        (["live", "--model"], "emo", ["emotions"]),
        (["live", "--model"], "runs/", ["runs/"]),
        (["live", "--head"], "e", []),
    ],
)
def test_the_tab_key_offers_what_fits(words, begun, offered):
    found = ShellComplete(cli, {}, "calmcam", "_CALMCAM_COMPLETE").get_completions(words, begun)
    assert [one.value for one in found] == offered

"""Sinks write complete files or none; the smaller sinks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
from sink_items import ROOT, STATUS, faces, lines, noise, result, stamps, stamps_so_far, table, write_all

from edge_app.errors import InputError, OutputError
from edge_app.sinks import null, pictures, results, video, window
from edge_app.types import NO_FACES, Frame, Result


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and os.geteuid() == 0
    if (
        not mounted
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True).returncode
    ):
        pytest.skip("a small file system cannot be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def test_what_a_full_disk_took_of_a_recording_is_kept(tiny_disk: Path) -> None:
    with pytest.raises(OutputError, match=r"No space left on device\); make room"):
        write_all(video.Sink(tiny_disk / "out.mp4", preset="ultrafast", crf=40, recording=True), map(noise, range(90)))
    assert [path.name for path in tiny_disk.iterdir()] == ["out.mp4"]
    seen = 0
    with av.open(str(tiny_disk / "out.mp4")) as container, suppress(av.error.InvalidDataError):
        for frame in container.decode(video=0):
            assert frame.time == pytest.approx(seen * 0.04, abs=1e-3)
            seen += 1
    assert 0 < seen < 90


def test_a_recording_is_kept_when_the_disk_is_found_full_at_its_end(tiny_disk: Path) -> None:
    (tiny_disk / "other").write_bytes(bytes(40 * 1024))
    sink = video.Sink(tiny_disk / "out.mp4", recording=True)
    with pytest.raises(OutputError, match="No space left"), sink:
        for index in range(30):
            sink.write(noise(index // 30))
        (tiny_disk / "more").write_bytes(bytes(shutil.disk_usage(tiny_disk).free))
    assert stamps_so_far(tiny_disk / "out.mp4") is not None and (tiny_disk / "out.mp4").stat().st_size


@pytest.mark.parametrize("before", ["", "dear"])
def test_a_full_disk_keeps_whole_lines_and_what_was_there(tiny_disk: Path, before: str) -> None:
    table = tiny_disk / "r.csv"
    if before:
        table.write_text(before)
    with pytest.raises(OutputError, match=r"No space left on device\); make room"):
        write_all(results.Sink(tiny_disk / "r.jsonl", table), [result(faces=faces())] * 2000)
    assert {path.name for path in tiny_disk.iterdir()} == {"r.jsonl", "r.csv"}
    assert len(lines(tiny_disk / "r.jsonl")) > 20
    rows = table.read_text()
    assert rows == before or (not before and rows.count("\n") > 20 and rows.endswith("\n"))


@pytest.mark.parametrize("kind", ["video", "pictures"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tiny_disk: Path, kind: str) -> None:
    sink = {
        "video": video.Sink(tiny_disk / "out.mp4", preset="ultrafast"),
        "pictures": pictures.Sink(tiny_disk / "p.png"),
    }[kind]
    with pytest.raises(OutputError, match=r"No space left on device\); make room"):
        write_all(sink, map(noise, range(20)))
    assert list(tiny_disk.iterdir()) == []


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize(
    "moment", ["sinks.video.Sink._finish", "sinks.video.Sink._close", "sinks.video.settle", "sinks.results.settle"]
)
def test_what_a_second_signal_breaks_off_is_kept(tmp_path: Path, monkeypatch, moment: str, there: bool) -> None:
    """As far as it is on the disk, under its name or, where that is taken, with `.part` behind."""
    names = ("v.mp4", "r.jsonl", "r.csv")
    for name in names if there else ():
        (tmp_path / name).write_bytes(b"dear")
    sinks = (
        video.Sink(tmp_path / "v.mp4", preset="ultrafast", recording=True),
        results.Sink(*map(tmp_path.joinpath, names[1:])),
    )

    def signalled(*_: object, **__: object) -> None:
        monkeypatch.undo()  # the third is heard by nobody
        raise SystemExit(130)

    with pytest.raises(SystemExit), sinks[0], sinks[1]:
        for index in range(100):
            for sink in sinks:
                sink.write(noise(index))
        monkeypatch.setattr(f"edge_app.{moment}", signalled)
    kept = {name: tmp_path / (f"{name}.part" if (tmp_path / f"{name}.part").exists() else name) for name in names}
    assert len(list(tmp_path.iterdir())) == 3 + sum(path.suffix == ".part" for path in kept.values()) * there
    assert len(stamps_so_far(kept["v.mp4"])) > 20
    assert len(lines(kept["r.jsonl"])) == 100 and len(kept["r.csv"].read_text().splitlines()) == 101


def test_results_whose_folder_is_removed_end_the_run_at_once(tmp_path: Path) -> None:
    sink = results.Sink(tmp_path / "out" / "r.jsonl", tmp_path / "out" / "r.csv")
    with pytest.raises(OutputError, match="r.csv: cannot be written"), sink:
        sink.write(result(faces=faces()))
        shutil.rmtree(tmp_path / "out")
        late = time.monotonic() + 60
        while time.monotonic() < late:
            sink.write(result(faces=faces()))


@pytest.mark.parametrize("gone", ["folder", "part"])
def test_a_recording_whose_folder_or_part_is_removed_ends_the_run_at_once(tmp_path: Path, gone: str) -> None:
    folder, index = tmp_path / "out", 0
    sink = video.Sink(folder / "v.mp4", preset="ultrafast", recording=True)
    with pytest.raises(OutputError, match="v.mp4: cannot be written .it was removed meanwhile"), sink:
        while not (folder / "v.mp4.part").stat().st_size:
            sink.write(result(index := index + 1))
        shutil.rmtree(folder) if gone == "folder" else (folder / "v.mp4.part").unlink()
        late = time.monotonic() + 10
        while time.monotonic() < late:
            sink.write(result(index := index + 1))
    assert list(tmp_path.glob("out/*")) == []


def sinks_at(path: Path) -> list[object]:
    return [
        video.Sink(path / "o.mp4"),
        results.Sink(path / "r.jsonl"),
        results.Sink(csv=path / "r.csv"),
        pictures.Sink(path / "p.jpg"),
    ]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for sink in sinks_at(tmp_path / "file" / "sub"):
        with pytest.raises(OutputError, match="Not a directory"):
            write_all(sink, [result()])


@pytest.mark.skipif(not hasattr(os, "setresuid") or os.geteuid() != 0, reason="needs to become somebody else")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    code = (
        "import os, sys; sys.path.append('tests'); from pathlib import Path; import test_sinks as t; os.setresuid(65534, 65534, 65534)\n"
        "for sink in t.sinks_at(Path(sys.argv[1])):\n"
        "    try: t.write_all(sink, [t.result()])\n"
        "    except t.OutputError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "locked"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.count("Permission denied); check its permissions") == 4, done.stderr


WRITER = """
import signal, sys, threading; signal.signal(signal.SIGINT, signal.default_int_handler)  # a CI may ignore it
from pathlib import Path; from edge_app.sinks import results, video; from tests.sink_items import result
sinks = [results.Sink(Path(sys.argv[1]) / "r.jsonl"), video.Sink(Path(sys.argv[1]) / "v.mp4", preset="ultrafast")]
with sinks[0] as a, sinks[1] as b:
    pause = threading.Event()
    for index in range(100_000):
        a.write(result(index)), b.write(result(index))
        index == 5 and print("up", flush=True)
        pause.wait(0.01)
"""


def writer(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, folder], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout.readline() == b"up\n"
    return process


def test_an_interrupt_completes_the_files(tmp_path: Path) -> None:
    with writer(tmp_path) as process:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        finally:
            process.kill()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.jsonl", "v.mp4"]
    written = len(lines(tmp_path / "r.jsonl"))
    assert written - 1 <= len(stamps(tmp_path / "v.mp4")) <= written


def test_a_kill_costs_at_most_a_second_of_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(results, "time", SimpleNamespace(monotonic=lambda: now[0]))
    with results.Sink(tmp_path / "r.jsonl", tmp_path / "r.csv") as sink:
        for index in range(3):
            sink.write(result(index))
        now[0] += 1.0
        sink.write(result(3))
        assert len(lines(tmp_path / "r.jsonl.part")) == 4 and len(table(tmp_path / "r.csv.part")) == 4
        sink.write(result(4))
        now[0] += 1.0
        sink.idle()
        assert len(lines(tmp_path / "r.jsonl.part")) == 5 and not (tmp_path / "r.jsonl").exists()


def test_null_counts() -> None:
    sink = null.Sink()
    write_all(sink, [result(0, faces=faces()), result(1)])
    assert (sink.frames, sink.faces) == (2, 2)


@pytest.mark.parametrize("suffix", sorted(pictures.COPIES))
def test_pictures_keep_their_colours(tmp_path: Path, suffix: str) -> None:
    write_all(pictures.Sink(tmp_path / "sub" / f"p{suffix}"), [result(0), result(1)])
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == [f"p{suffix}", f"p_0001{suffix}"]
    read = cv2.cvtColor(cv2.imread(str(tmp_path / "sub" / f"p{suffix}")), cv2.COLOR_BGR2RGB)
    np.testing.assert_allclose(read[20, 20], (200, 40, 40), atol=4)


def test_pictures_of_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"expected a name that ends with .*got '.heic'"):
        pictures.Sink(tmp_path / "p.heic")


def test_pictures_too_large_for_their_format(tmp_path: Path) -> None:
    wide = Result(Frame(np.zeros((1, 70_000, 3), np.uint8), 0, 0), NO_FACES, {}, STATUS)
    with pytest.raises(InputError, match="cannot hold 70000 x 1 pixels") as caught:
        write_all(pictures.Sink(tmp_path / "p.jpg"), [wide])
    assert not isinstance(caught.value, OutputError)  # of this picture, so that a batch goes on with the others
    assert list(tmp_path.iterdir()) == []


def test_why_there_is_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    assert "DISPLAY is not set" in window.unavailable()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert "no XWayland" in window.unavailable()
    monkeypatch.setenv("DISPLAY", ":987")
    assert ":987 does not answer" in window.unavailable()


VIEWER = """
import sys, cv2; from pathlib import Path; from edge_app.sinks import window; from tests.sink_items import result
assert window.unavailable() is None
stops = []
with window.Sink(stop=lambda: stops.append("stop"), folder=Path(sys.argv[1])) as sink:
    sink.write(result(0)); sink.press(ord("p")); sink.write(result(80)); sink.press(ord("w"))
    sink.press(ord("p")); sink.write(result(80)); sink.press(ord("w"))
    assert not stops
    sink.press(27)
    cv2.destroyWindow("calmcam"); sink.write(result(2))
print(*stops)
"""


@pytest.mark.skipif(not shutil.which("Xvfb"), reason="needs Xvfb")
def test_a_window_holds_snaps_and_stops(tmp_path: Path) -> None:
    reader, writer_end = os.pipe()
    arguments = ["Xvfb", "-displayfd", str(writer_end), "-screen", "0", "800x600x24"]
    with subprocess.Popen(arguments, pass_fds=[writer_end], stderr=subprocess.DEVNULL) as server:
        os.close(writer_end)
        with os.fdopen(reader) as numbers:
            display = f":{numbers.readline().strip()}"
        environment = {**os.environ, "DISPLAY": display, "XDG_RUNTIME_DIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", VIEWER, tmp_path], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        server.terminate()
    assert done.stdout == "stop stop\n", done.stderr
    held, shown = (cv2.imread(str(tmp_path / f"snapshot_00{number}.png"))[20, 20].tolist() for number in (1, 2))
    assert (held, shown) == ([40, 40, 200], [40, 120, 200])

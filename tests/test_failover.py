"""Failover between the Hailo (its double) and LiteRT: no frame lost or doubled, in time, taken back, nothing leaked."""

from __future__ import annotations

import dataclasses
import errno
import gc
import logging
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from patience import PATIENCE

from edge_app.backends import litert
from edge_app.devices import choose, open_best
from edge_app.errors import BackendUnavailable, DeviceLost, ManifestError, ModelError, SettingsError
from edge_app.failover import Failover
from edge_app.manifest import Artifact, Input, Manifest
from edge_app.run import run
from edge_app.tasks.face_expression import Classify
from edge_app.types import Faces, Frame, Result

pytest_plugins = ("hailo_fixtures",)
ROOT = Path(__file__).parents[1]


def opened(hailo: ModuleType, manifest: Manifest, **options: Any) -> Failover:
    device, cpu = manifest.artifact("hailo8"), manifest.artifact("int8")
    options = {"delay": 0.001, "longest": 0.01, **options}
    return Failover(partial(hailo.Backend, device, timeout=0.3), partial(litert.Backend, cpu), (device, cpu), **options)


@pytest.fixture
def failover(hailo: ModuleType, compiled: Manifest) -> Iterator[Failover]:
    failover = opened(hailo, compiled)
    yield failover
    failover.close()


def until(failover: Failover, device: str, rows: np.ndarray, seconds: float = 5.0) -> None:
    """Keep classifying until `device` does it."""
    end = time.monotonic() + seconds
    while failover.device != device:
        failover.infer(rows)
        threading.Event().wait(0.001)
        assert time.monotonic() < end, f"still {failover.device}"


@pytest.mark.parametrize("knob", ["lose_at", "fail_at", "refuse_at", "hang_at"])
def test_the_same_batch_is_classified_at_once_and_the_device_taken_back(
    world: Any, failover: Failover, compiled: Manifest, crops: np.ndarray, knob: str
) -> None:
    before = failover.infer(crops)
    assert failover.device == "hailo"
    setattr(world, knob, world.transfers + 2)
    begun = time.monotonic()
    during = failover.infer(crops)
    assert time.monotonic() - begun < 1.0
    assert failover.device == "cpu"
    world.restore()
    until(failover, "hailo", crops)
    after = failover.infer(crops)
    assert set(before) == set(compiled.artifact("hailo8").outputs.values())
    for name in before:
        np.testing.assert_array_equal(before[name], during[name])
        np.testing.assert_array_equal(before[name], after[name])


def test_a_silent_loss_costs_less_than_a_second(
    world: Any, hailo: ModuleType, compiled: Manifest, crops: np.ndarray
) -> None:
    device, cpu = compiled.artifact("hailo8"), compiled.artifact("int8")
    failover = Failover(partial(hailo.Backend, device), partial(litert.Backend, cpu), (device, cpu))
    world.silent = True
    world.lose()
    begun = time.monotonic()
    failover.infer(crops)
    assert time.monotonic() - begun < 1.0
    failover.close()


def test_it_tells_what_happens(world: Any, failover: Failover, crops: np.ndarray, caplog: Any) -> None:
    with caplog.at_level(logging.INFO, "edge_app.failover"):
        world.lose()
        failover.infer(crops)
        threading.Event().wait(0.05)
        world.restore()
        until(failover, "hailo", crops)
    text = caplog.text
    assert "going on with the cpu" in text and "no Hailo device" in text and "the hailo is back after" in text


def test_two_threads_that_lose_the_device_at_once_lose_it_once(
    world: Any, failover: Failover, crops: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, both, closed = failover._device, threading.Barrier(2), []

    def infer(rows: np.ndarray) -> None:
        both.wait(PATIENCE)
        raise DeviceLost("the Hailo is gone")

    monkeypatch.setattr(device, "infer", infer)
    monkeypatch.setattr(device, "close", lambda close=device.close: (closed.append(1), close()))
    threads = [threading.Thread(target=failover.infer, args=(crops,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    until(failover, "hailo", crops)
    assert len(closed) == 1


def test_a_probe_that_cannot_be_started_is_tried_again(
    world: Any, failover: Failover, crops: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe, tried = failover._probe, []

    def out_of_memory() -> None:
        tried.append(1)
        if len(tried) < 3:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        probe()

    monkeypatch.setattr(failover, "_probe", out_of_memory)
    world.lose()
    failover.infer(crops)
    world.restore()
    until(failover, "hailo", crops)
    assert len(tried) >= 3


def test_waiting_doubles_until_it_serves_again(
    world: Any, hailo: ModuleType, compiled: Manifest, crops: np.ndarray, caplog: Any
) -> None:
    failover = opened(hailo, compiled, delay=0.01, longest=0.03)
    with caplog.at_level(logging.INFO, "edge_app.failover"):
        world.lose()
        failover.infer(crops)
        end = time.monotonic() + 5
        while sum("next try" in record.message for record in caplog.records) < 5 and time.monotonic() < end:
            threading.Event().wait(0.01)
    assert failover._delay == 0.03
    world.restore()
    until(failover, "hailo", crops)
    threading.Event().wait(0.15)  # it has served for more than four times the wait
    world.lose()
    failover.infer(crops)
    failover.close()


def test_500_losses_and_returns_leak_nothing(
    world: Any, hailo: ModuleType, compiled: Manifest, crops: np.ndarray
) -> None:
    failover = opened(hailo, compiled, delay=0.0001, longest=0.0001)

    def losses(count: int) -> tuple[int, int, list[int]]:
        for _ in range(count):
            world.lose()
            failover.infer(crops[:1])
            assert failover.device == "cpu"
            world.restore()
            until(failover, "hailo", crops[:0])
        gc.collect()
        alive = Counter(type(item).__name__ for item in gc.get_objects())
        kept = [alive[name] for name in ("Backend", "Configured", "Chip", "Bindings", "Job", "_Outcome")]
        return threading.active_count(), len(os.listdir("/proc/self/fd")), kept

    before = losses(5)
    assert losses(500) == before
    assert world.losses == 505
    failover.close()


def test_closing_waits_for_an_opening_and_closes_what_it_opened(
    world: Any, failover: Failover, crops: np.ndarray
) -> None:
    world.open_ms = 300
    world.lose()
    failover.infer(crops)
    world.restore()
    begun = time.monotonic()
    failover.close()  # what it opens meanwhile is closed, as the fixture checks
    assert time.monotonic() - begun < 2.5


def test_a_run_stands_still_for_an_opening_no_longer_and_loses_nothing(
    world: Any, failover: Failover, crops: np.ndarray
) -> None:
    """The double holds Python's lock while it opens, as HailoRT does."""
    expected, ends = failover.infer(crops[:1]), [time.monotonic()]
    world.open_ms, world.fail_at = 400, world.transfers + 1
    devices = []
    while "hailo" not in devices[-1:]:
        for name, values in failover.infer(crops[:1]).items():
            np.testing.assert_array_equal(values, expected[name])
        ends.append(time.monotonic())
        devices.append(failover.device)
    assert devices[0] == "cpu"
    assert 0.35 < np.diff(ends).max() < 0.4 + 0.3 * PATIENCE


@pytest.mark.parametrize(
    "changes, words",
    [
        ({"emits": "probabilities"}, "expected the same outputs, got logits of mood, tease and probabilities of mood"),
        ({"outputs": {"mood": "mood"}}, "expected the same outputs"),
        ({"input": {"height": 48}}, "one size and colour"),
    ],
)
def test_artifacts_that_cannot_stand_in_are_refused(compiled: Manifest, changes: dict, words: str) -> None:
    device, cpu = compiled.artifact("hailo8"), compiled.artifact("int8")
    if "input" in changes:
        changes = {"input": dataclasses.replace(cpu.input, **changes["input"])}
    with pytest.raises(ManifestError, match=words):
        Failover(dict, dict, (device, dataclasses.replace(cpu, **changes)))


def test_float_stand_in_gets_the_same_pixels(
    world: Any, hailo: ModuleType, compiled: Manifest, crops: np.ndarray
) -> None:
    device, cpu = compiled.artifact("hailo8"), compiled.artifact("float32")
    failover = Failover(partial(hailo.Backend, device), partial(litert.Backend, cpu), (device, cpu))
    near = failover.infer(crops)
    world.lose()
    for name, values in failover.infer(crops).items():
        assert np.abs(values - near[name]).max() < 1.0  # logits, grid 0.056
        assert np.corrcoef(values.ravel(), near[name].ravel())[0, 1] > 0.98
    failover.close()


class Clip:
    """Frames with `faces` each; a source and its detector in one."""

    live = False

    def __init__(self, count: int, crops: np.ndarray):
        self._count, self._crops = count, crops

    def __enter__(self) -> Iterator[Frame]:
        return (Frame(np.zeros((8, 8, 3), np.uint8), index, index) for index in range(self._count))

    def __exit__(self, *exc: object) -> None: ...

    def detect(self, frame: Frame, faces: Faces) -> Faces:
        n = len(self._crops)
        return Faces(np.zeros((n, 4), np.float32), np.ones(n, np.float32), crops=self._crops)


class Kept:
    name = "kept"

    def __init__(self) -> None:
        self.results: list[Result] = []

    def __enter__(self) -> Kept:
        return self

    def __exit__(self, *exc: object) -> None: ...

    def write(self, result: Result) -> None:
        self.results.append(result)


def test_offline_no_frame_is_lost_or_doubled_and_devices_are_counted(
    world: Any, failover: Failover, compiled: Manifest, crops: np.ndarray
) -> None:
    clip, kept = Clip(150, crops), Kept()
    classify = Classify(compiled, compiled.artifact("hailo8"), failover)
    world.lose_every, world.back_after, world.latency_ms = 151, 0.02, 0.2
    report = run(clip, [("detect", clip.detect), ("classify", classify)], [kept], live=False)
    world.lose_every = 0
    assert [result.frame.index for result in kept.results] == list(range(150))
    assert sum(report.devices.values()) == 150 and min(report.devices["hailo"], report.devices["cpu"]) > 0
    assert [result.status.device for result in kept.results] == [result.faces.device for result in kept.results]
    for result in kept.results:
        np.testing.assert_array_equal(result.faces.heads["mood"], kept.results[0].faces.heads["mood"])


def test_auto_takes_the_hailo_and_says_why(world: Any, compiled: Manifest, crops: np.ndarray) -> None:
    backend, variant, why = open_best(compiled, None, "auto")
    assert (variant, backend.device) == ("hailo8", "hailo")
    assert why == "hailo (HAILO8, HailoRT 4.23.0, small_hailo8.hef)"
    backend.infer(crops)
    backend.close()
    world.busy = True
    backend, variant, why = open_best(compiled, None, "auto")
    assert (variant, backend.device) == ("int8", "cpu") and "another process holds it" in why
    backend.close()


def test_devices_as_asked(world: Any, compiled: Manifest) -> None:
    assert choose(compiled, None, "cpu")[0] == "int8"
    half = dataclasses.replace(compiled, artifacts={"float16": compiled.artifact("float32")})
    assert choose(half, None, "auto")[0] == "float16"
    assert choose(compiled, "float32", "auto")[0] == "float32"
    world.lose()
    assert choose(compiled, None, "auto")[0] == "int8"
    with pytest.raises(BackendUnavailable, match="no Hailo device"):
        choose(compiled, None, "hailo")
    with pytest.raises(SettingsError, match="'hailo8' does not run on device 'cpu'"):
        choose(compiled, "hailo8", "cpu")
    with pytest.raises(SettingsError, match="'int8' does not run on device 'hailo'"):
        choose(compiled, "int8", "hailo")


def test_auto_without_a_hef_does_not_look_for_hailort(compiled: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_app.hailo_checks.NODES", "/nonexistent/hailo*")
    plain = dataclasses.replace(compiled, artifacts={"int8": compiled.artifact("int8")})
    sys.modules.pop("edge_app.backends.hailo", None)
    assert choose(plain, None, "auto") == ("int8", "cpu (int8): no /dev/hailo0, and no HEF of the model")
    monkeypatch.setattr("edge_app.hailo_checks.NODES", "/dev/null")
    assert choose(plain, None, "auto") == ("int8", "cpu (int8): the model has no HEF; calmcam compile makes one")
    assert "edge_app.backends.hailo" not in sys.modules


def test_damaged_hef(world: Any, compiled: Manifest) -> None:
    compiled.artifact("hailo8").path.write_bytes(b"")
    with pytest.raises(ModelError, match="hailo8.hef: expected .* bytes, got 0"):
        open_best(compiled, None, "hailo")
    backend, variant, why = open_best(compiled, None, "auto")
    assert variant == "int8" and "small_hailo8.hef" in why
    backend.close()


def test_live_run_loses_and_regains_the_device_under_load(compiled: Manifest) -> None:
    environ = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/doubles'}",
        "CALMCAM_DOUBLE": f"latency_ms=0.5 queue=8 lose_at=12 back_after={0.2 * PATIENCE}",
    }
    command = [sys.executable, "-m", "edge_app", "live", "--source", "synthetic", "--model", str(compiled.folder)]
    command += ["--device", "auto", "--no-show", "--frames", "150"]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60 * PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "HAILO8, HailoRT 4.23.0" in done.stderr
    assert "going on with the cpu" in done.stderr and "the hailo is back after" in done.stderr
    counts = dict(part.split()[-2:] for part in done.stderr.splitlines()[-1].split(" · ")[4].split(" + "))
    assert int(counts["hailo"]) + int(counts["cpu"]) == 150 and int(counts["hailo"]) > 15 and int(counts["cpu"]) > 5


class Lost:
    device = "hailo"

    def infer(self, batch):
        raise DeviceLost("gone")

    def close(self): ...


class Cpu:
    device = "cpu"

    def infer(self, batch):
        return {"mood": np.zeros((len(batch), 3), np.float32)}

    def close(self): ...


ARTIFACT = Artifact(Path("a"), "", 0, Input(32, 32, "rgb", "uint8"), {"mood": "mood"})


def test_a_device_that_is_lost_again_soon_is_waited_for_longer_and_a_steady_one_is_not(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("edge_app.failover.time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr(Failover, "_reopen", lambda *_: None)
    failover = Failover(Lost, Cpu, (ARTIFACT, ARTIFACT), delay=0.5, longest=1.5)
    for served, waited in [(0.1, 1.0), (0.1, 1.5), (0.1, 1.5), (6.1, 0.5), (1.9, 1.0)]:
        failover._device, failover._since = Lost(), now[0]
        now[0] += served
        failover.infer(np.zeros((1, 32, 32, 3), np.uint8))
        assert failover._delay == waited
    failover.close()


def test_a_device_that_comes_back_while_all_is_closed_is_closed_too():
    opened, closed, opening = [], [], threading.Event()

    def again():
        opened.append(Lost())
        opened[-1].close = partial(closed.append, opened[-1])
        if len(opened) == 2:
            opening.set()
            assert failover._closing.wait(5 * PATIENCE)
        return opened[-1]

    failover = Failover(again, Cpu, (ARTIFACT, ARTIFACT), delay=0.001)
    failover.infer(np.zeros((1, 32, 32, 3), np.uint8))
    assert opening.wait(5 * PATIENCE)
    failover.close()
    assert closed == opened and len(opened) == 2


@pytest.mark.parametrize("change", [{"dtype": "float32"}, {"scale": 1 / 255}, {"offset": -1.0}])
def test_a_device_takes_pixels_as_they_are(change):
    device = dataclasses.replace(ARTIFACT, input=dataclasses.replace(ARTIFACT.input, **change))
    with pytest.raises(ManifestError, match="expected raw uint8 pixels"):
        Failover(Lost, Cpu, (device, ARTIFACT))

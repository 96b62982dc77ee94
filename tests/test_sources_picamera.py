"""The reading loop of the Pi's own camera, on a double of Picamera2 (no Pi is here)."""

from __future__ import annotations

import itertools
import logging
import sys
import threading
import time
from types import ModuleType

import numpy as np
import pytest
from patience import PATIENCE

from edge_app import plugins, reconnect
from edge_app.background import Background
from edge_app.build import open_source
from edge_app.errors import MissingPackage, SourceError


class Picamera2:
    """What the source asks of picamera2.Picamera2 ; after `lost_after` pictures no more come until it is opened again.

    Like the original, closing it hangs while a job waits for a picture; here it raises.
    """

    plugged, lost_after, opened = True, 5, 0
    camera_controls = {"FrameDurationLimits": (16_000, 100_000, 33_333)}

    def __init__(self, number: int) -> None:
        self.taken, self.waits = 0, False
        Picamera2.opened += 1

    def __enter__(self) -> Picamera2:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    @staticmethod
    def global_camera_info() -> list[dict[str, str]]:
        return [{"Model": "imx708"}] if Picamera2.plugged else []

    def create_video_configuration(self, **wishes: object) -> dict[str, object]:
        return wishes

    def configure(self, configuration: dict[str, object]) -> None:
        self.configuration = configuration

    def camera_configuration(self) -> dict[str, object]:
        return self.configuration

    def start(self) -> None:
        """Nothing runs."""

    def capture_request(self, wait: bool) -> Picamera2:
        self.waits = True
        return self

    def get_result(self, timeout: float) -> Picamera2:
        if self.taken == self.lost_after:
            time.sleep(0.01)  # for `timeout`, shortened
            raise TimeoutError
        self.taken, self.waits = self.taken + 1, False
        return self

    def make_array(self, name: str) -> np.ndarray:
        width, height = self.configuration[name]["size"]
        return np.zeros((height, width, 3), np.uint8)

    def release(self) -> None:
        """Nothing is held."""

    def cancel_all_and_flush(self) -> None:
        self.waits = False

    def close(self) -> None:
        assert not self.waits
        if self.taken >= 0:
            self.taken = -1
            Picamera2.opened -= 1


@pytest.fixture
def picamera(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module = ModuleType("picamera2")
    module.Picamera2 = Picamera2
    monkeypatch.setitem(sys.modules, "picamera2", module)
    monkeypatch.delitem(sys.modules, "edge_app.sources.picamera", raising=False)
    monkeypatch.setattr(Picamera2, "opened", 0)
    monkeypatch.setattr(reconnect, "FIRST_DELAY", 0.02)
    yield plugins.load("sources", "picamera")
    sys.modules.pop("edge_app.sources.picamera", None)


def test_one_that_was_built_for_another_numpy_has_its_sentence(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "picamera2.py").write_text("raise ValueError('numpy.dtype size changed')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "edge_app.sources.picamera", raising=False)
    with pytest.raises(MissingPackage, match="cannot be loaded .numpy.dtype size changed.; run deploy/install.sh"):
        plugins.load("sources", "picamera")


def test_a_camera_that_stalls_is_opened_again(picamera: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with picamera.Source(width=64, height=48) as source:
        assert (source.state, source.live) == ("connected", True)
        frames = list(itertools.islice(source, 12))
    assert source.state == "closed" and Picamera2.opened == 0
    assert [frame.index for frame in frames] == list(range(12))
    assert all(frame.live for frame in frames)
    assert np.all(np.diff([frame.time_ns for frame in frames]) > 0)
    assert caplog.text.count("picamera: no frame for 1 s, reconnecting") == 2
    assert caplog.text.count("picamera: back after") == 2


def test_it_is_waited_for_until_the_end(
    picamera: ModuleType, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    before = threading.active_count()
    with picamera.Source(width=64, height=48) as source, Background(source) as frames:
        monkeypatch.setattr(Picamera2, "plugged", False)
        assert len(list(itertools.islice(frames, 5))) == 5
        deadline = time.monotonic() + 20 * PATIENCE
        while "still not there" not in caplog.text and time.monotonic() < deadline:
            time.sleep(0.01)
        assert source.state == "reconnecting"
        monkeypatch.setattr(reconnect, "LONGEST_DELAY", 600)
        begun = time.monotonic()
    assert time.monotonic() - begun < 2.0
    assert threading.active_count() == before and Picamera2.opened == 0
    assert "still not there: picamera: there is no such camera; found: none; check the ribbon cable" in caplog.text


def test_rpi_is_another_word_for_it(picamera: ModuleType) -> None:
    assert open_source("rpi", width=64).name == open_source("picamera").name == "picamera"


def test_one_that_is_not_there_at_the_start_is_an_error(picamera: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Picamera2, "plugged", False)
    with pytest.raises(SourceError, match="there is no such camera"), picamera.Source():
        pass

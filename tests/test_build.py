from __future__ import annotations

import threading
from pathlib import Path

import pytest
from small_model import write_model

from edge_app.build import Analysis, expression_model, open_source, source_kind
from edge_app.errors import MissingPackage, SettingsError
from edge_app.settings import Settings

ASTRONAUT = Path(__file__).parent / "cases" / "astronaut.jpg"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0", "camera"),
        ("/dev/video0", "camera"),
        ("picamera", "picamera"),
        ("/dev/v4l/by-id/usb-046d_C920-video-index0", "camera"),
        ("picamera:1", "picamera"),
        ("usb", "camera"),
        ("rpi", "picamera"),
        ("synthetic:4", "synthetic"),
        ("rtsp://me:pw@cam/live", "stream"),
        ("http://host/x.jpg", "stream"),
        ("missing.mp4", "video"),
        ("missing.JPG", "images"),
        ("some/*.jpg", "images"),
    ],
)
def test_a_text_names_its_source(text, kind):
    assert source_kind(text) == kind


def test_an_address_that_lacks_a_slash_is_no_file_and_is_not_said_again():
    with pytest.raises(SettingsError, match="expected an address such as rtsp://host/path") as error:
        source_kind("rtsp:/me:pa55@door/live")
    assert "pa55" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["10.0.0.5:554/stream", "me:pa55@10.0.0.5/live", "cam.lan:8554", "me:pa55@cam.lan:554/1"]
)
def test_an_address_without_its_beginning_is_no_file_and_is_not_said_again(text):
    with pytest.raises(SettingsError, match="expected an address such as rtsp://host:554/path") as error:
        source_kind(text)
    assert "pa55" not in str(error.value)


@pytest.mark.parametrize(("text", "meant"), [("picam", "picamera"), ("picamera0", "picamera"), ("synth", "synthetic")])
def test_a_camera_that_is_misspelt_is_no_file(text, meant, tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match=f"there is no '{text}'; did you mean '{meant}'"):
        source_kind(text)
    monkeypatch.chdir(tmp_path)
    (tmp_path / text).touch()
    assert source_kind(text) == "video"


def test_an_empty_source_is_not_the_current_folder():
    with pytest.raises(SettingsError, match="got an empty text"):
        source_kind("")


@pytest.mark.parametrize(
    ("head", "name", "kind"),
    [
        (b"\xff\xd8\xff\xe0", "a.mp4", "images"),
        (b"\x89PNG\r\n\x1a\n", "a", "images"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "a.bin", "images"),
        (b"RIFF\0\0\0\0AVI LIST", "a.jpg", "video"),
        (b"\0\0\0\x18ftypheic", "a.mp4", "images"),
        (b"\0\0\0\x18ftypisom", "a.jpg", "video"),
        (b"\x1aE\xdf\xa3", "a.png", "video"),
        (b"hello", "a.png", "images"),
        (b"hello", "a.mp4", "video"),
        (b"", "a.jpg", "images"),
    ],
)
def test_a_file_is_known_by_its_first_bytes_and_else_by_its_name(tmp_path, head, name, kind):
    (tmp_path / name).write_bytes(head + bytes(64) if head else b"")
    assert source_kind(str(tmp_path / name)) == kind


def test_a_folder_holds_pictures(tmp_path):
    assert source_kind(str(tmp_path)) == "images"


def test_usb_is_the_first_camera():
    assert open_source("usb").path == open_source("0").path == "/dev/video0"


def test_options_that_are_none_are_left_to_the_source():
    with open_source("synthetic", width=64, height=None) as source:
        assert next(iter(source)).image.shape == (720, 64, 3)


def test_a_source_whose_package_is_missing_says_so(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "picamera2", None)
    monkeypatch.delitem(sys.modules, "edge_app.sources.picamera", raising=False)
    with pytest.raises(MissingPackage, match="picamera2"), open_source("picamera"):
        pass


def test_stages_have_names_and_start_anew(tmp_path):
    with Analysis(Settings(model=str(write_model(tmp_path)), device="cpu")) as analysis:
        first, second = analysis.stages(), analysis.stages()
        record = analysis.record()
    assert [name for name, _ in first] == ["detect", "crop", "classify", "track", "decide"]
    assert first[0][1] is second[0][1] and first[3][1] is not second[3][1] and first[4][1] is not second[4][1]
    assert record["model"]["variant"] == "int8" and record["detector"]["variant"] == "full"


def test_what_fails_while_loading_leaves_nothing_open(tmp_path):
    before = threading.active_count()
    with pytest.raises(SettingsError, match="did you mean 'int8'"):
        Analysis(Settings(model=str(write_model(tmp_path)), variant="int9"))
    assert threading.active_count() == before


def test_a_detector_is_no_model_to_classify_with():
    with pytest.raises(SettingsError, match="expected a model for face_expression, got one for face_detection"):
        expression_model("face_detection")

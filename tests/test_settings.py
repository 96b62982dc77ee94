from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edge_app.errors import SettingsError
from edge_app.settings import FLAGS, Settings, default_path, filled, read_settings


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    default_path().parent.mkdir()
    return default_path()


def test_flag_goes_over_file_and_file_over_default(file):
    file.write_text('threads = 2\nlabels = "ko"\n')
    settings = read_settings().merged({"labels": "en", "conf": None})
    assert (settings.threads, settings.labels, settings.conf) == (2, "en", Settings().conf)


def test_without_a_file_the_defaults_hold(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert read_settings() == Settings()


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().threads = 2


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("thread = 2", "unknown key 'thread'; did you mean 'threads'?"),
        ("vid_stride = 2", "unknown key 'vid_stride' (known: "),
        ("threads = true", "threads: expected a whole number, got True"),
        ("threads = 1.5", "threads: expected a whole number, got 1.5"),
        ("conf = 1.5", "conf: expected 0.0 to 1.0, got 1.5"),
        ("unsure_below = 70", "unsure_below: expected 0.0 to 1.0, got 70"),
        ("model = 3", "model: expected a text, got 3"),
        ("source = 0", 'source: expected a text, got 0; write source = "0"'),
        ("web = 8080", 'web: expected a text, got 8080; write web = "8080"'),
        ("loop = true", "loop is a flag, no setting: calmcam live --loop"),
        ("rotate = 45", "rotate: expected one of 0, 90, 180, 270, got 45"),
        ("rotate = 90.0", "rotate: expected a whole number, got 90.0"),
        ("mirror = 1", "mirror: expected true or false, got 1"),
        ("blur = 1", "blur: expected true or false, got 1"),
        ('device = "hialo"', "unknown device 'hialo'; did you mean 'hailo'?"),
        ('labels = "kr"', "unknown labels 'kr'; did you mean 'ko'?"),
        ("[live]\nthreads = 2", "unknown key 'live'"),
        ("threads = ", "expected TOML"),
        ("conf = nan", "conf: expected 0.0 to 1.0, got nan"),
        ("threads = 0", "threads: expected 1 to 64, got 0"),
        ("max_faces = 0", "max_faces: expected 1 to 100, got 0"),
        ("fps = 0", "fps: expected 0.1 to 1000.0, got 0"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(file, text, sentence):
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        read_settings()
    assert sentence in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_file_of_windows_begins_with_a_mark(file):
    file.write_text("threads = 2", encoding="utf-8-sig")
    assert read_settings().threads == 2


def test_a_file_lies_below_config_where_nothing_else_is_said(monkeypatch):
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    assert default_path() == Path("/home/me/.config/calmcam/config.toml")


def test_numbers_of_numpy_and_paths_are_taken():
    settings = Settings().merged({"threads": np.int64(2), "conf": np.float32(0.5), "model": Path("a")})
    assert settings == Settings(threads=2, conf=0.5, model="a")
    assert (type(settings.threads), type(settings.conf), type(settings.model)) == (int, float, str)


def test_a_whole_number_serves_as_a_number(file):
    file.write_text("fps = 30\nconf = 1")
    assert read_settings().fps == 30


@pytest.mark.parametrize("key", ["source", "model", "runs_dir"])
def test_a_place_may_be_in_the_user_s_folder(file, monkeypatch, key):
    monkeypatch.setenv("HOME", "/home/me")
    file.write_text(f'{key} = "~/x"')
    assert getattr(read_settings(), key) == "/home/me/x"
    assert getattr(Settings().merged({key: "~x/~/y"}), key) == "~x/~/y"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("rtsp://me:${CAM_PASS}@cam/live", "rtsp://me:p%40ss%2F1%20%25%3F@cam/live"),
        ("rtsp://${CAM_HOST}:554/${CAM_HOST}", "rtsp://door:554/door"),
        ("${CAM_ALL}", "rtsp://me:pw@cam/live"),
        ("rtsp://cam/${CAM_PASS}", "rtsp://cam/p@ss/1 %?"),
        ("/media/${CAM_PASS}/a@b.mp4", "/media/p@ss/1 %?/a@b.mp4"),
        ("$CAM_HOST ${} {CAM_HOST} ${1}.mp4", "$CAM_HOST ${} {CAM_HOST} ${1}.mp4"),
    ],
)
def test_a_source_is_filled_from_the_environment(monkeypatch, source, expected):
    for name, value in {"PASS": "p@ss/1 %?", "HOST": "door", "ALL": "rtsp://me:pw@cam/live"}.items():
        monkeypatch.setenv(f"CAM_{name}", value)
    assert filled(source) == expected


def test_a_variable_that_is_not_set_is_named(monkeypatch):
    monkeypatch.delenv("CAM_PASS", raising=False)
    with pytest.raises(SettingsError, match="expected an environment variable CAM_PASS, it is not set; set it"):
        filled("rtsp://me:${CAM_PASS}@cam")


def test_a_file_that_was_named_must_exist(tmp_path):
    with pytest.raises(SettingsError, match="No such file"):
        read_settings(tmp_path / "none.toml")


def test_an_unreadable_encoding_is_refused(tmp_path):
    path = tmp_path / "latin.toml"
    path.write_bytes(b'model = "\xff"')
    with pytest.raises(SettingsError, match="expected TOML"):
        read_settings(path)


def test_what_is_called_a_flag_is_one_of_live_and_no_setting():
    from edge_app.commands.live import live

    known = {flag for option in live.params for flag in option.opts}
    assert {f"--{name}" for name in FLAGS} <= known and not set(FLAGS) & {field.name for field in dataclasses.fields(Settings)}

"""Faces cut out to train on: the folders stay, the framing is the edge's, bad inputs do not stop the rest."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from clips import write_clip
from patience import PATIENCE
from small_model import write_model

from edge_app.cli import cli
from edge_app.manifest import read_manifest
from edge_app.preprocess import crop_squares

ROOT = Path(__file__).parent.parent
ASTRONAUT = ROOT / "edge_app" / "astronaut.jpg"


@pytest.fixture
def labelled(tmp_path):
    """Two classes with the portrait, a clip, and what is no face and no picture."""
    for name in ("happy", "other/deep"):
        (tmp_path / "data" / name).mkdir(parents=True)
    shutil.copy(ASTRONAUT, tmp_path / "data" / "happy" / "웃음.jpg")
    shutil.copy(ASTRONAUT, tmp_path / "data" / "other" / "deep" / "a.jpg")
    cv2.imwrite(str(tmp_path / "data" / "other" / "deep" / "a.png"), cv2.imread(str(ASTRONAUT)))
    write_clip(tmp_path / "data" / "other" / "clip.mp4", frames=20)
    return tmp_path / "data"


@pytest.fixture
def crop(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    write_model(tmp_path / "model")

    def call(*arguments):
        return CliRunner().invoke(cli, ["crop", "--model", str(tmp_path / "model"), *map(str, arguments)])

    return call


def tree(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_folders_stay_and_a_clip_gives_every_tenth_frame(crop, labelled, tmp_path):
    result = crop(labelled, "-o", "out")
    assert result.exit_code == 0, result.output
    assert tree(tmp_path / "out") == [
        "crop.json", "happy/웃음.png", "other/clip.f000000.png", "other/clip.f000010.png",
        "other/deep/a.jpg.png", "other/deep/a.png.png", "run.json"
    ]  # fmt: skip
    assert "4 inputs, 5 pictures" in result.output and "faces in out" in result.output


def test_the_pictures_themselves_are_never_replaced(crop, labelled, tmp_path):
    before = {name: (labelled / name).read_bytes() for name in tree(labelled)}
    (tmp_path / "link").symlink_to(labelled)
    for out in (labelled, tmp_path / "link"):
        result = crop(labelled, "-o", out, "--exist-ok")
        assert result.exit_code == 2 and "would replace the pictures themselves" in result.stderr
    assert {name: (labelled / name).read_bytes() for name in tree(labelled)} == before


def test_faces_of_an_earlier_run_are_told(crop, labelled, tmp_path):
    assert crop(labelled, "-o", "out").exit_code == 0
    (labelled / "other" / "deep" / "a.jpg").rename(labelled / "happy" / "a.jpg")
    result = crop(labelled, "-o", "out", "--exist-ok", "--vid-stride", "20")
    assert "3 pictures of an earlier run left as they were, out/other/clip.f000010.png for one" in result.stderr
    assert "left" not in crop(labelled, "-o", "out2").output


def test_the_framing_is_that_of_the_manifest(crop, labelled, tmp_path):
    from edge_app.analyzer import Analyzer

    assert crop(labelled, "-o", "out").exit_code == 0
    image = cv2.cvtColor(cv2.imread(str(ASTRONAUT)), cv2.COLOR_BGR2RGB)
    with Analyzer(model=str(tmp_path / "model")) as analyzer:
        boxes = analyzer(image).faces.boxes[:1]
    x, y, side = crop_squares(boxes, read_manifest(tmp_path / "model" / "manifest.json").crop)[0]
    left, top, side = round(x - round(side) / 2), round(y - round(side) / 2), round(side)
    found = cv2.cvtColor(cv2.imread(str(tmp_path / "out" / "other" / "deep" / "a.png.png")), cv2.COLOR_BGR2RGB)
    assert json.loads((tmp_path / "out" / "crop.json").read_text())["crop"]["margin"] == 0.1, "for the trainer"
    np.testing.assert_array_equal(found, image[top : top + side, left : left + side])


def test_no_classifier_is_needed(crop, labelled, tmp_path):
    config = tmp_path / "calmcam" / "config.toml"
    config.parent.mkdir()
    config.write_text('device = "hailo"')
    (tmp_path / "model" / "small_int8.tflite").unlink()
    assert crop(labelled, "-o", "out").exit_code == 0
    about = json.loads((tmp_path / "out" / "run.json").read_text())
    assert about["model"]["name"] == "small" and about["detector"]["variant"] == "full"


def test_bad_and_faceless_inputs_are_named_and_the_rest_goes_on(crop, labelled, tmp_path):
    (labelled / "happy" / "text.png").write_text("no picture")
    cv2.imwrite(str(labelled / "happy" / "wall.png"), np.full((80, 80, 3), 90, np.uint8))
    whole = write_clip(tmp_path / "whole.mkv", frames=50)
    (labelled / "happy" / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    result = crop(labelled, "-o", "out")
    assert result.exit_code == 2
    assert "cut.mkv: the file is cut off" in result.stderr
    assert (tmp_path / "out" / "happy" / "cut.f000000.png").is_file()
    assert "5 of 7 inputs gave a face" in result.output
    assert "text.png: expected a picture" in result.stderr
    assert f"no face in {labelled / 'happy' / 'wall.png'}" in result.output
    assert (tmp_path / "out" / "happy" / "웃음.png").is_file()
    assert not list((tmp_path / "out").rglob("wall*"))


def test_pictures_without_a_class_folder_are_refused(crop, labelled):
    result = crop(labelled / "happy", "-o", "out")
    assert (
        result.exit_code == 2
        and "happy: expected a folder per class, got 1 files beside them, 웃음.jpg" in result.stderr
    )


def test_without_a_face_nothing_is_left(crop, tmp_path):
    (tmp_path / "walls" / "grey").mkdir(parents=True)
    cv2.imwrite(str(tmp_path / "walls" / "grey" / "wall.png"), np.full((80, 80, 3), 90, np.uint8))
    result = crop(tmp_path / "walls")
    assert result.exit_code == 2 and "no face was found" in result.stderr
    assert not list((tmp_path / "runs").rglob("*.png"))
    for wrong in ("missing", "walls/grey/wall.png", "walls/*"):
        refused = crop(tmp_path / wrong)
        assert refused.exit_code == 2 and "expected a folder that holds a folder" in refused.stderr
    full = crop(tmp_path / "walls", "-o", "walls")
    assert full.exit_code == 2 and "not empty" in full.stderr


def test_a_signal_says_how_far_it_came(labelled, tmp_path):
    write_clip(labelled / "other" / "long.mp4", frames=3000, size=(64, 48))
    write_model(tmp_path / "model")
    command = [
        sys.executable,
        "-m",
        "edge_app",
        "crop",
        labelled,
        "--model",
        tmp_path / "model",
        "-o",
        tmp_path / "out",
    ]
    with subprocess.Popen(
        [*command, "--vid-stride", "1"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        first = tmp_path / "out" / "happy" / "웃음.png"
        while process.poll() is None and not first.exists():
            threading.Event().wait(0.01)
        process.send_signal(signal.SIGTERM)
        said, errors = process.communicate(timeout=60 * PATIENCE)
    assert process.returncode == 143, errors
    assert said.startswith("stopped after ") and " of 5 inputs, " in said and "faces in" in said


def test_every_input_has_a_crop_of_its_own(crop, tmp_path):
    folder = tmp_path / "data" / "happy"
    folder.mkdir(parents=True)
    portrait = cv2.imread(str(ASTRONAUT))
    for name in ("a.jpg", "a.png", "a.jpg.png", "A.bmp", f"{'n' * 205}_0.jpg", f"{'n' * 205}_1.jpg"):
        cv2.imwrite(str(folder / name), portrait)
    assert crop(tmp_path / "data", "-o", "out").exit_code == 0
    made = [path.name.lower() for path in (tmp_path / "out" / "happy").iterdir()]
    assert len(set(made)) == 6 and {"a.png.png", "a.bmp.png"} < set(made)


def test_faces_that_are_cut_already_are_for_training_as_they_are(crop, labelled, tmp_path):
    for number in range(4):
        cv2.imwrite(str(labelled / "happy" / f"{number}.png"), np.full((48, 48, 3), 90, np.uint8))
    result = crop(labelled, "-o", "few")
    assert result.exit_code == 0 and "4 of 8 inputs gave a face" in result.output and "calmcam train" not in result.output
    for number in range(4, 8):
        cv2.imwrite(str(labelled / "happy" / f"{number}.png"), np.full((48, 48, 3), 90, np.uint8))
    result = crop(labelled, "-o", "most")
    assert result.exit_code == 0 and "4 of 12 inputs gave a face" in result.output
    assert "if these are cut faces, give the folder to calmcam train as it is" in result.stderr
    for number in range(8):
        cv2.imwrite(str(labelled / "happy" / f"{number}.png"), np.full((480, 640, 3), 90, np.uint8))
    assert "calmcam train" not in crop(labelled, "-o", "large").output

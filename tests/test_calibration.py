"""The crops that calibrate, and those that judge."""

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest
from compiling import CASES, CROPS, GRAPH, worst

from deploy.crops import divide, read_calibration
from deploy.faces import face_finder
from deploy.preflight import check_calibration
from edge_app.errors import InputError
from edge_app.manifest import find_model
from edge_app.preprocess import fit
from edge_app.settings import Settings


@pytest.mark.parametrize(
    ("crops", "state", "says"),
    [
        (None, "warning", "no crops"),
        (CROPS[:64], "refused", "64 crops, of which 8 judge the compiled network: 56 calibrate it, expected 1024"),
        (CROPS[:1087], "refused", "1087 crops, of which 64 judge the compiled network: 1023 calibrate it"),
        (CROPS[..., :1], "refused", "expected crops (N, 32, 32, 3)"),
        (CROPS.astype(np.float32), "refused", "uint8"),
        (np.zeros_like(CROPS), "refused", "span 0 of 255"),
        (np.repeat(CROPS[:8], 160, axis=0), "warning", "8 of 1280"),
        (np.repeat(CROPS[:160], 8, axis=0), "warning", "only 20 pictures judge the compiled network, expected 64"),
    ],
    ids=["none", "few", "one too few", "shape", "dtype", "range", "repeats", "few to judge"],
)
def test_calibration_crops_are_judged(crops, state, says):
    verdicts = check_calibration(GRAPH, crops)
    assert worst(verdicts) == state
    assert says in " ".join(verdict.text for verdict in verdicts)


def test_no_picture_calibrates_and_judges():
    """Not repeated or mirrored either: what `export` writes, a quarter more than it is asked for, always suffices."""
    for count in (5, 100, 160, 700, 1280):
        pool = np.concatenate([CROPS, CROPS[:, ::-1]])[:count]
        crops = np.concatenate([pool, pool[:, :, ::-1]])[np.arange(1280) % (2 * count)]
        calibrating, judging = divide(crops)
        assert len(calibrating) >= 1024 and len(judging) == min(64, max(1, count // 8))
        seen = {crop.tobytes() for crop in crops[calibrating]} | {
            crop[:, ::-1].tobytes() for crop in crops[calibrating]
        }
        assert not seen & {crop.tobytes() for crop in crops[judging]}
        assert not set(calibrating) & set(judging) and len({*calibrating}) == len(calibrating)
    assert [rows.size for rows in divide(CROPS[:0])] == [0, 0]


@pytest.mark.parametrize("colour", ["rgb", "gray"])
def test_crops_without_faces_are_warned_of(colour):
    image = cv2.cvtColor(cv2.imread(str(CASES / "astronaut.jpg")), cv2.COLOR_BGR2RGB)
    face = fit(image[40:200, 145:305], replace(find_model("emotions").artifact("float32").input, colour=colour))
    graph, noise = replace(GRAPH, input_shape=(1, *face.shape)), np.random.default_rng(2)
    faces = face + noise.integers(0, 4, (1088, *face.shape), np.uint8)
    with face_finder(Settings()) as has_face:
        assert not has_face(noise.integers(0, 256, face.shape, np.uint8)) and has_face(face)
        good = check_calibration(graph, faces, has_face)
        (told,) = check_calibration(graph, noise.integers(0, 256, faces.shape, np.uint8), has_face)
    assert [verdict.text for verdict in good] == ["1024 raw crops; 64 others judge the compiled network"]
    assert told.state == "warning" and re.match("a face is found in [0-9] of 32 crops looked at", told.text)
    assert "calibration.npz" in told.text


def test_a_detector_that_does_not_open_refuses_nothing(monkeypatch, caplog):
    monkeypatch.setattr("deploy.faces.open_detector", lambda settings: find_model("no such model"))
    with face_finder(Settings()) as has_face:
        assert worst(check_calibration(GRAPH, CROPS, has_face)) == "ok"
    assert "whether the calibration crops are faces cannot be told: unknown model" in caplog.text


@pytest.mark.parametrize("content", [None, b"", b"text", b"PK\x03\x04broken"])
def test_what_is_no_calibration_file_is_refused(tmp_path, content):
    path = tmp_path / "c.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="expected an .npz"):
        read_calibration(path, find_model("emotions").artifact("float32").input)


def test_faces_that_were_cut_calibrate_too(tmp_path, caplog):
    spec = find_model("emotions").artifact("float32").input
    (tmp_path / "happy").mkdir()
    for name, size in (("a.png", 30), ("happy/b.png", 96)):
        cv2.imwrite(str(tmp_path / name), np.full((size, size, 3), size, np.uint8))
    (tmp_path / "happy" / "c.png").write_text("no picture")
    crops = read_calibration(tmp_path, spec)
    assert crops.shape == (2, spec.height, spec.width, spec.channels) and crops.dtype == np.uint8
    assert [crops[0].max(), crops[1].min()] == [30, 96] and "c.png" in caplog.text


def test_a_folder_without_faces_calibrates_nothing(tmp_path):
    with pytest.raises(InputError, match="cut faces"):
        read_calibration(tmp_path, find_model("emotions").artifact("float32").input)

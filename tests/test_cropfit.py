from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("tensorflow")
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # keras 3.15 on numpy 2

from edge_app.cli import cli
from edge_app.errors import InputError
from edge_app.manifest import Crop
from edge_app.preprocess import crop_squares
from edge_app.scoring.evaluate import on_canvas
from edge_app.types import NO_FACES, Faces
from trainer import cropfit
from trainer.runs import Request, start

ROOT = Path(__file__).parent.parent
MARGIN, SHIFT = 0.12, -0.05


class Finder:
    """A detector from whose box `Crop(MARGIN, SHIFT)` makes the picture's square, give or take; blind for dark ones."""

    def __init__(self, noise=0.0):
        self._rng, self._noise = np.random.default_rng(0), noise

    def __call__(self, frame, faces):
        lit = np.argwhere(frame.image[..., 0] > 0)
        if not len(lit):
            return NO_FACES
        (top, left), (bottom, right) = lit.min(axis=0), lit.max(axis=0) + 1
        size = (right - left) / (1 + 2 * MARGIN)
        middle = np.array([(left + right) / 2, (top + bottom) / 2 - SHIFT * size]) + self._rng.normal(
            0, self._noise * size, 2
        )
        box = np.concatenate([middle - size / 2, middle + size / 2])[None].astype(np.float32)
        decoy = np.array([[0, 0, 20, 20]], np.float32)
        points = np.zeros((2, 6, 2), np.float32)
        points[:, 1, 0] = 1  # eyes level
        return Faces(np.concatenate([decoy, box]), np.array([0.9, 0.8], np.float32), points)


@pytest.fixture
def pictures():
    pictures = np.random.default_rng(1).integers(40, 255, (80, 24, 24, 1)).astype(np.uint8)
    pictures[::10] = 0
    return pictures


def test_the_boxes_of_a_known_detector_are_undone(pictures):
    placed = cropfit.place(pictures, Finder())
    assert placed.found == 0.9
    crop = cropfit.fitted(placed)
    assert (crop.margin, crop.shift) == (pytest.approx(MARGIN, abs=0.01), pytest.approx(SHIFT, abs=0.01))
    assert crop_squares(placed.boxes, crop) == pytest.approx(placed.squares, abs=5)


def test_what_the_detector_scatters_is_measured(pictures):
    placed = cropfit.place(pictures, Finder(noise=0.05))
    left = cropfit.jitter(placed, cropfit.fitted(placed))
    assert 0.03 < left.x < 0.06 and 0.03 < left.y < 0.06
    assert left.roll == 0


def test_too_few_faces_are_refused(pictures):
    with pytest.raises(InputError, match="expected 50 faces or more, found 36 in 40 pictures"):
        cropfit.fitted(cropfit.place(pictures[:40], Finder()))


def test_candidates_are_judged_on_the_faces_that_were_found(pictures):
    truth = np.arange(len(pictures)) % 2
    wide, right = Crop(0.9, 0.0), Crop(MARGIN, SHIFT)

    def classify(crops):
        """The first class where the crop is no more than half full."""
        return np.where((crops > 0).mean(axis=(1, 2, 3)) > 0.5, truth[np.arange(80) % 10 != 0], -1)

    found = cropfit.confirm(pictures, truth, [wide, right], Finder(), classify)
    assert [len(one.right) for one in found] == [72, 72]
    assert [one.accuracy for one in found] == [0.0, 1.0]
    assert [one.loss for one in found] == [100.0, 0.0]


def test_the_whole_measure_is_plain_values_in_the_end(pictures):
    truth = np.arange(len(pictures)) % 2
    fit = cropfit.measure(pictures, (pictures, truth), Finder(), lambda crops: np.zeros(len(crops), int))
    record = json.loads(json.dumps(fit.record()))
    assert Crop(**record["crop"]) == fit.fitted  # every candidate answers the same
    assert record["found"] == 0.9
    assert len(record["candidates"]) == 16


def candidate(crop, hits):
    right = np.arange(1000) < hits
    return cropfit.Candidate(crop, right, np.ones(1000, bool))


def test_noise_is_not_fitted():
    geometry, lucky = Crop(0.1, 0.0), Crop(0.1, 0.0, "roll")
    found = [candidate(geometry, 700), candidate(lucky, 701), candidate(Crop(0.2, 0.0), 600)]
    assert cropfit.chosen(found, geometry).crop == geometry
    assert cropfit.chosen([candidate(geometry, 700), candidate(lucky, 740)], geometry).crop == lucky


def test_the_canvas_is_the_one_of_evaluate(pictures):
    _, canvas, place, _ = next(cropfit.detected(pictures[1:2], Finder()))
    wanted, where = on_canvas(np.repeat(pictures[1], 3, axis=2))
    assert (canvas == wanted).all() and (place == where).all()


def test_the_command_measures_as_the_settings_say(tmp_path):
    face = cv2.imread(str(ROOT / "tests" / "cases" / "astronaut.jpg"))[60:240, 140:320]
    random = np.random.default_rng(0)
    for name in ("angry", "happy", "neutral"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(45):
            noisy = np.clip(face * random.uniform(0.8, 1.1) + random.normal(0, 4, face.shape), 0, 255)
            cv2.imwrite(str(tmp_path / "data" / name / f"{number}.png"), noisy.astype(np.uint8))

    def calmcam(*words):
        return CliRunner().invoke(cli, [*map(str, words)])

    out, config = tmp_path / "run", tmp_path / "c.toml"
    changes = ("stages.0.epochs=1", "data.near=0", "input.size=96")
    start(Request(str(ROOT / "tests" / "cases" / "tiny.yaml"), tmp_path / "data", changes, out))
    config.write_text('detector = "short"\nconf = 0.3\nhead = "of another model"\n')
    done = calmcam("fit-crop", out, "--config", config, "--conf", 0.35, "--pictures", 60)
    assert done.exit_code == 0, done.stderr
    found = json.loads((out / "crop.json").read_text())
    assert (found["detector"], found["conf"]) == ("short", 0.35)
    shutil.rmtree(out)
    config.write_text("detektor = 1")
    assert "unknown key 'detektor'" in calmcam("fit-crop", out, "--config", config).stderr

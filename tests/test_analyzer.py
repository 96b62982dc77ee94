from __future__ import annotations

import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from clips import write_clip
from patience import PATIENCE
from small_model import LABELS, write_model

from edge_app import Analyzer, plugins
from edge_app.errors import BackendError, SettingsError, SourceError
from edge_app.pace import Paced
from edge_app.preprocess import crop_faces
from edge_app.sources.synthetic import Source

ROOT = Path(__file__).parent.parent
ASTRONAUT = Path(__file__).parent / "cases" / "astronaut.jpg"


@pytest.fixture(scope="module")
def analyzer(tmp_path_factory):
    with Analyzer(model=str(write_model(tmp_path_factory.mktemp("model"))), device="cpu") as analyzer:
        yield analyzer


@pytest.fixture(scope="module")
def portrait():
    return cv2.cvtColor(cv2.imread(str(ASTRONAUT)), cv2.COLOR_BGR2RGB)


def test_a_picture_gives_its_face_and_what_it_expresses(analyzer, portrait):
    result = analyzer(portrait)
    assert len(result.faces) == 1 and result.faces.device == "cpu"
    (decision,) = result.faces.decisions
    assert decision.label in (*LABELS, "unsure") and set(decision.probs) == set(LABELS)
    assert sum(decision.probs.values()) == pytest.approx(1, abs=1e-5)


def test_pictures_stand_alone(analyzer, portrait):
    first, second = analyzer(portrait), analyzer(portrait)
    assert first.faces.ids.tolist() == second.faces.ids.tolist() == [1]
    assert first.faces.decisions[0].probs == second.faces.decisions[0].probs


def test_a_picture_without_faces_gives_none(analyzer):
    assert len(analyzer(np.full((48, 64, 3), 128, np.uint8)).faces) == 0


def test_a_view_that_is_not_contiguous_is_taken(analyzer, portrait):
    assert len(analyzer(portrait[:, ::-1]).faces) == 1


@pytest.mark.parametrize(
    "bad", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_picture_is_refused(analyzer, bad):
    with pytest.raises(ValueError, match="uint8"):
        analyzer(bad)


def test_crops_are_classified_as_in_a_picture(analyzer, portrait):
    faces = analyzer(portrait).faces
    analysis = analyzer._analysis
    crops = crop_faces(portrait, faces.boxes, faces.points, analysis.manifest.crop, analysis.artifact.input)
    (decision,) = analyzer.classify(crops)
    assert decision.probs == pytest.approx(dict(zip(LABELS, faces.heads["mood"][0].tolist(), strict=True)), abs=1e-6)


def test_crops_of_any_size_and_none(analyzer):
    crops = [np.zeros((48, 48, 3), np.uint8), np.zeros((200, 100), np.uint8)]
    assert len(analyzer.classify(crops)) == 2
    assert analyzer.classify([]) == []


def test_the_named_head_of_several_decides(tmp_path, portrait):
    with Analyzer(model=str(write_model(tmp_path)), device="cpu", head="tease") as analyzer:
        assert analyzer.labels == ("non_teasing", "teasing")
        (seen,) = analyzer(portrait).faces.decisions
        (cut,) = analyzer.classify([np.zeros((32, 32, 3), np.uint8)])
    assert set(seen.probs) == set(cut.probs) == {"non_teasing", "teasing"}


def test_a_threshold_may_take_the_place_of_the_models(tmp_path, portrait):
    with Analyzer(model=str(write_model(tmp_path)), device="cpu", head="tease", unsure_below=1) as analyzer:
        (seen,) = analyzer(portrait).faces.decisions
        (cut,) = analyzer.classify([np.zeros((32, 32, 3), np.uint8)])
    assert (seen.label, seen.why) == (cut.label, cut.why) == ("unsure", "confidence")


def test_a_doubtful_crop_is_unsure(tmp_path):
    from edge_app.manifest import Head

    heads = (Head("mood", "softmax", LABELS, 1000.0, 0.9), Head("tease", "sigmoid", ("non_teasing", "teasing")))
    with Analyzer(model=str(write_model(tmp_path, heads=heads)), device="cpu") as analyzer:
        (decision,) = analyzer.classify([np.zeros((32, 32, 3), np.uint8)])
    assert decision.unsure and decision.label == "unsure" and decision.why == "confidence"


def test_a_stream_gives_every_frame_of_a_file_and_keeps_identities(analyzer, tmp_path, portrait):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), portrait[..., ::-1])
    results = list(analyzer.stream(str(tmp_path)))
    assert [result.frame.index for result in results] == [0, 1, 2]
    assert all(len(result.faces.decisions) == 1 for result in results)


def test_leaving_a_stream_ends_it(analyzer):
    before = threading.active_count()
    for result in analyzer.stream("synthetic"):
        assert result.faces.ids is not None
        if result.frame.index == 3:
            break
    assert threading.active_count() == before


def test_one_analyzer_serves_several_threads(analyzer, portrait):
    """Streams are threads too: each gets its own answers."""
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 256, (1, 48, 48, 3), np.uint8) for _ in range(2)]
    wanted = [analyzer.classify(crop)[0].probs for crop in crops]
    wrong = []

    def ask(number):
        for _ in range(300):
            if analyzer.classify(crops[number])[0].probs != wanted[number]:
                wrong.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    for one, other in zip(analyzer.stream("synthetic"), analyzer.stream("synthetic"), strict=True):
        assert len(analyzer(portrait).faces) == 1
        if one.frame.index > 5 and other.frame.index > 5:
            break


LEFT_EARLY = """
import sys
from edge_app import Analyzer
results = Analyzer(model=sys.argv[1], device="cpu").stream(sys.argv[2])
print(next(results).frame.index)
"""


def test_a_stream_that_was_left_does_not_keep_the_program(tmp_path):
    clip = write_clip(tmp_path / "clip.mp4", frames=60)
    model = write_model(tmp_path / "model")
    done = subprocess.run(
        [sys.executable, "-c", LEFT_EARLY, model, clip], cwd=ROOT, capture_output=True, text=True, timeout=30 * PATIENCE
    )
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


def test_closing_ends_what_streams(tmp_path):
    with Analyzer(model=str(write_model(tmp_path / "model")), device="cpu") as analyzer:
        results = analyzer.stream("synthetic")
        next(results)
    assert len(list(results)) <= 2
    with pytest.raises(BackendError, match="closed"):
        next(analyzer.stream("synthetic"))


def test_a_slow_reader_of_a_live_source_sees_the_newest(analyzer, monkeypatch):
    monkeypatch.setattr("edge_app.analyzer.open_with", lambda *_: Paced(Source(fps=30)))
    ages, wait = [], threading.Event()
    for result in analyzer.stream("synthetic"):
        ages.append((time.monotonic_ns() - result.frame.captured_ns) / 1e9)
        if len(ages) == 6:
            break
        wait.wait(0.4 * PATIENCE)
    assert statistics.median(ages[1:]) < 0.4 * PATIENCE


def test_a_source_that_can_is_asked_for_size_and_rate(tmp_path):
    with Analyzer(model=str(write_model(tmp_path / "model")), device="cpu", width=320, height=240) as analyzer:
        assert next(analyzer.stream("synthetic")).frame.image.shape == (240, 320, 3)


def test_a_live_source_is_turned_and_a_file_is_not(tmp_path, monkeypatch):
    with Analyzer(model=str(write_model(tmp_path / "model")), device="cpu", rotate=90) as analyzer:
        assert next(analyzer.stream("synthetic")).frame.image.shape == (720, 1280, 3)
        monkeypatch.setattr("edge_app.analyzer.open_with", lambda *_: Paced(Source()))
        assert next(analyzer.stream("synthetic")).frame.image.shape == (1280, 720, 3)


@pytest.mark.parametrize("shape", [(48, 48), (48, 48, 3), (48, 48, 1)])
def test_one_crop_is_not_taken_for_many(analyzer, shape):
    with pytest.raises(ValueError, match="write .crop."):
        analyzer.classify(np.zeros(shape, np.uint8))


def test_what_goes_wrong_in_a_stream_is_raised(analyzer, tmp_path):
    before = threading.active_count()
    with pytest.raises(SourceError, match="no such file"):
        list(analyzer.stream(str(tmp_path / "missing.mp4")))
    assert threading.active_count() == before


def test_unknown_settings_are_refused():
    with pytest.raises(SettingsError, match="did you mean 'model'"):
        Analyzer(modle="emotions")


def test_the_crops_of_a_result_can_be_classified_again():
    """Grey crops have one channel; what `classify` is given may come from `analyzer(image)`."""
    with plugins.load("sources", "synthetic").Source() as source:
        image = source.render(0)
    with Analyzer() as analyzer:
        crops = analyzer(image).faces.crops
        assert [decision.label for decision in analyzer.classify(crops)] == ["happy"]


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((40, 40, 3), np.float32),
        np.zeros((40, 40, 3), np.uint16),
        np.zeros((40, 40, 4), np.uint8),
        np.zeros((40, 40, 2), np.uint8),
        np.zeros((0, 40, 3), np.uint8),
        np.zeros(40, np.uint8),
    ],
)
def test_what_is_no_crop_is_refused(analyzer, bad):
    with pytest.raises(ValueError, match=r"expected crops \(h, w, 3\) or \(h, w\) uint8, got"):
        analyzer.classify([np.zeros((40, 40, 3), np.uint8), bad])


def test_a_model_may_be_a_path_and_numbers_those_of_numpy(tmp_path):
    with Analyzer(model=write_model(tmp_path / "m"), conf=np.float32(0.5), threads=np.int64(1)) as one:
        assert (one.settings.model, one.settings.conf, one.settings.threads) == (str(tmp_path / "m"), 0.5, 1)

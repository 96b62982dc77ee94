from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge_app.errors import OutputError
from edge_app.scoring import plots


def test_confusion_is_dark_where_it_counts(tmp_path):
    path = tmp_path / "혼동 $1.png"
    plots.confusion(
        path, np.array([[90, 10, 0], [0, 0, 0]]), ["놀림", "b_$c$"], ["놀림", "b", "not found"], "모델 $x$ int8"
    )
    image = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape[0] > 200 and image.shape[1] > 300
    blue = (image[..., 0].astype(int) - image[..., 2]) > 60
    assert 0.02 < blue.mean() < 0.4
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_reliability_has_a_bar_where_answers_fell(tmp_path):
    path = tmp_path / "reliability.png"
    count = np.zeros(15, int)
    plots.reliability(path, np.zeros(15), np.zeros(15), count, 0.0, "none")
    empty = _blue(path)
    count[-1], accuracy, confidence = 7, np.zeros(15), np.zeros(15)
    accuracy[-1] = confidence[-1] = 0.95
    plots.reliability(path, confidence, accuracy, count, 0.01, "seven")
    assert _blue(path) > empty + 500


def test_a_place_that_cannot_be_written_to_gets_a_sentence(tmp_path):
    with pytest.raises(OutputError, match="x.png: cannot be written"):
        plots.confusion(tmp_path / "none" / "x.png", np.eye(2), ["a", "b"], ["a", "b"], "")


def _blue(path) -> int:  # noqa: ANN001
    image = cv2.imread(str(path)).astype(int)
    return int(((image[..., 0] - image[..., 2]) > 60).sum())

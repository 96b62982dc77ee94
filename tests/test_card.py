from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edge_app.commands.card_tables import _remarks
from edge_app.scoring.evaluate import Row
from edge_app.scoring.labelled import Sample
from edge_app.scoring.tally import Tally, judge


def test_a_face_not_found_is_an_error_and_lowers_recall():
    sure, other = np.array([0.9, 0.1], np.float32), np.array([0.2, 0.8], np.float32)
    judged = judge(np.array([0, 0, 0, 1]), [sure, None, other, other], ("a", "b"), 0.85)
    assert judged["accuracy"] == {"value": 0.5, "interval": pytest.approx([0.15, 0.85], abs=0.01), "hits": 2, "n": 4}
    assert judged["per_class"]["a"] == {"precision": 1.0, "recall": pytest.approx(1 / 3), "f1": 0.5, "support": 3}
    assert judged["confusion"]["matrix"] == [[1, 1, 1], [0, 1, 0]]
    assert judged["confusion"]["answers"] == ["a", "b", "not found"]
    assert judged["macro_f1"]["value"] == pytest.approx((0.5 + 2 / 3) / 2)
    assert judged["decided"]["share"] == pytest.approx(1 / 3)
    assert judged["decided"]["accuracy"]["value"] == 1.0


def test_nothing_found_is_no_crash():
    judged = judge(np.array([0, 1]), [None, None], ("a", "b"), 0.5)
    assert judged["accuracy"]["value"] == 0 and judged["not_found"] == 2 and judged["calibration"]["ece"] == 0


def test_frames_of_one_clip_are_right_or_wrong_together():
    widths = []
    for name in ("a/{clip}.f{frame:06d}.png", "a/{clip}_{frame}.png"):
        tally = Tally(("a", "b"), 0.5, detect=False)
        for clip in range(6):
            answer = np.array([0.1, 0.9] if clip == 5 else [0.9, 0.1], np.float32)
            for frame in range(20):
                tally.add(Row(Sample(Path("x.png"), name.format(clip=clip, frame=frame), 0), answer))
        said = "\n".join(_remarks({**tally.card(), "folder": "out"}))
        assert ("120 pictures of 6 clips, of which the intervals are\n" in said) is (".f{" in name)
        card = tally.card()["ready"]
        assert card["accuracy"]["value"] == pytest.approx(5 / 6)
        intervals = card["accuracy"]["interval"], card["macro_f1"]["interval"], card["decided"]["accuracy"]["interval"]
        widths.append([high - low for low, high in intervals])
    assert all(clips > 2 * alone for clips, alone in zip(*widths, strict=True))


def test_a_tally_of_nothing_but_unreadable_pictures_is_plain_json():
    tally = Tally(("a", "b"), 0.5, detect=True)
    tally.add(Row(Sample(Path("x.png"), "a/x.png", 0), problem="x.png: broken"))
    card = tally.card()
    assert card["pictures"] == 0 and card["unreadable"] == {"count": 1, "first": [["a/x.png", "x.png: broken"]]}
    assert json.loads(json.dumps(card, allow_nan=False)) == card

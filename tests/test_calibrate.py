from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from edge_app.heads import probabilities, softmax
from edge_app.manifest import Head
from edge_app.scoring import metrics
from trainer import calibrate

RNG = np.random.default_rng(3)


def drawn(heat, n=4000, classes=5):
    """Labels that are distributed as logits / heat say."""
    logits = RNG.normal(0, 2, (n, classes)) * heat
    probs = softmax((logits / heat).astype(np.float32))
    return np.array([RNG.choice(classes, p=row / row.sum()) for row in probs.astype(float)]), logits


@pytest.mark.parametrize("heat", [0.4, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found(heat):
    truth, logits = drawn(heat)
    assert calibrate.temperature(truth, logits) == pytest.approx(heat, rel=0.07)


def test_a_sigmoid_head_has_a_temperature_too():
    logits = RNG.normal(0, 3, (4000, 1))
    truth = (RNG.random(4000) < 1 / (1 + np.exp(-logits[:, 0] / 2))).astype(int)
    assert calibrate.temperature(truth, logits) == pytest.approx(2, rel=0.1)


def test_scaling_mends_an_overconfident_head():
    truth, logits = drawn(2.5)
    head = Head("mood", "softmax", tuple("abcde"))
    warm = calibrate.calibrated(head, truth, logits, range(4000))
    before = metrics.reliability(truth, probabilities(head, logits, softmax_inside=False)).ece
    after = metrics.reliability(truth, probabilities(warm, logits, softmax_inside=False)).ece
    assert before > 0.1 > 0.03 > after
    assert 0.35 < warm.unsure_below < 0.6  # calibrated: half right where half sure


def test_unlabelled_images_do_not_count():
    truth, logits = drawn(2.0)
    head = Head("mood", "softmax", tuple("abcde"))
    mixed = np.concatenate([truth, np.full(500, -1)]), np.concatenate([logits, RNG.normal(0, 50, (500, 5))])
    assert calibrate.calibrated(head, *mixed, range(4500)) == calibrate.calibrated(head, truth, logits, range(4000))


def test_pooling_adjacent_violators_by_hand():
    found = calibrate.steps(np.array([1.0, 0, 0, 1, 1, 0, 1]))
    assert [count for _, count in found] == [3, 3, 1]
    assert [mean for mean, _ in found] == pytest.approx([1 / 3, 2 / 3, 1])


def test_doubt_is_no_reason_to_stay_silent():
    probs = np.stack([np.linspace(0.51, 0.99, 400), np.linspace(0.49, 0.01, 400)], axis=1)
    truth = np.where(np.arange(400) < 100, np.arange(400) % 5 > 0, np.arange(400) % 20 > 10)  # 20 %, then 55 % right
    assert calibrate.unsure_below(truth.astype(int), probs) == pytest.approx(probs[100, 0], abs=0.02)


def test_a_few_pictures_and_only_right_answers_set_no_temperature():
    logits = RNG.normal(0, 1, (200, 3))
    assert calibrate.temperature(logits.argmax(axis=1), logits) == 1
    assert calibrate.temperature(logits[:49].argmin(axis=1), logits[:49]) == 1


def test_answers_that_tell_nothing_set_no_temperature():
    assert calibrate.temperature(RNG.integers(0, 3, 4000), RNG.normal(0, 5, (4000, 3))) == 1
    assert calibrate.temperature(np.r_[np.zeros(3999, int), 1], np.tile([1e-3, 0.0], (4000, 1))) == 1


def test_many_frames_of_few_clips_calibrate_nothing():
    truth, logits = drawn(2.5, n=200)
    head = Head("mood", "softmax", tuple("abcde"))
    assert calibrate.calibrated(head, truth, logits, np.arange(200) % 4) == head
    assert calibrate.calibrated(head, truth, logits, np.arange(200) % 5).temperature > 1.5


def test_where_everything_is_right_nothing_is_unsure():
    probs = np.array([[0.6, 0.4]] * 100, np.float32)
    assert calibrate.unsure_below(np.zeros(100, int), probs) == 0
    assert calibrate.unsure_below(np.ones(100, int), probs) == pytest.approx(0.6)
    assert calibrate.unsure_below(np.ones(10, int), probs[:10]) == 0


def test_the_order_of_equal_confidences_does_not_matter():
    confidence = np.repeat([0.55, 0.60], [50, 200])
    right = np.concatenate([np.arange(50) < 30, np.arange(200) >= 60])  # 60 and 70 %, here the wrong ones first
    probs = np.stack([confidence, 1 - confidence], axis=1)
    for order in (np.arange(250), np.arange(250)[::-1], RNG.permutation(250)):
        assert calibrate.unsure_below(np.where(right, 0, 1)[order], probs[order]) == 0


def test_the_head_gets_the_temperature_of_all_its_classes_and_the_threshold_of_what_is_calibrated():
    truth, logits = drawn(2.5)
    head = calibrate.calibrated(Head("mood", "softmax", tuple("abcde")), truth, logits, range(4000))
    assert head.temperature == calibrate.temperature(truth, logits)
    probs = probabilities(head, logits, softmax_inside=False)
    assert head.unsure_below == calibrate.unsure_below(truth, probs) > 0
    cold = probabilities(replace(head, temperature=1.0), logits, softmax_inside=False)
    assert head.unsure_below != calibrate.unsure_below(truth, cold)


def test_what_may_be_chance_is_no_doubt():
    """Four of ten right is below one half, and says nothing yet."""
    probs = np.stack([np.linspace(0.51, 0.99, 100), np.linspace(0.49, 0.01, 100)], axis=1)
    right = np.arange(100) >= 10
    right[[1, 4, 6, 8]] = True
    assert calibrate.unsure_below(np.where(right, 0, 1), probs) == 0


def test_the_threshold_is_the_first_confidence_that_is_good_enough():
    probs = np.stack([np.r_[np.full(100, 0.6), np.full(100, 0.8)], np.r_[np.full(100, 0.4), np.full(100, 0.2)]], axis=1)
    assert calibrate.unsure_below(np.r_[np.ones(100, int), np.zeros(100, int)], probs) == 0.8

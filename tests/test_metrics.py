from __future__ import annotations

import numpy as np
import pytest

from edge_app.scoring import metrics

TRUTH = np.array([0, 0, 0, 1, 1, 2])
SAID = np.array([0, 0, 1, 1, 1, 0])


def one_hot(labels, classes=3, p=0.9):
    rest = (1 - p) / (classes - 1)
    return np.where(np.arange(classes) == np.asarray(labels)[:, None], p, rest)


def test_confusion_has_the_truth_in_rows():
    assert metrics.confusion(TRUTH, SAID, 3).tolist() == [[2, 1, 0], [0, 2, 0], [1, 0, 0]]


@pytest.mark.parametrize("classes", [2, 7, 9, 20])
@pytest.mark.parametrize("right", [True, False])
def test_an_interval_holds_its_value_where_all_or_none_is_right(classes, right):
    truth = np.repeat(np.arange(classes), 20)
    matrix = metrics.confusion(truth, truth if right else (truth + 1) % classes, classes)
    low, high = metrics.bootstrap_macro_f1(matrix)
    assert low <= metrics.macro_f1(matrix) == float(right) <= high and 0 < high - low < 0.2


def test_a_confidence_on_an_edge_lies_below_it():
    bars = metrics.reliability(np.zeros(1, int), np.array([[0.6, 0.4]], np.float32), bins=5)
    assert bars.count.tolist() == [0, 0, 1, 0, 0]


def test_per_class_by_hand():
    result = metrics.per_class(metrics.confusion(TRUTH, SAID, 3))
    assert result.precision.tolist() == pytest.approx([2 / 3, 2 / 3, 0])
    assert result.recall.tolist() == pytest.approx([2 / 3, 1, 0])
    assert result.f1.tolist() == pytest.approx([2 / 3, 0.8, 0])
    assert result.support.tolist() == [3, 2, 1]


def test_macro_f1_leaves_out_classes_that_never_occur():
    four = metrics.confusion(TRUTH, SAID, 4)
    assert metrics.macro_f1(four) == pytest.approx((2 / 3 + 0.8 + 0) / 3)
    assert metrics.macro_f1(np.zeros((3, 3), int)) == 0


def test_wilson_against_published_values():
    # Newcombe 1998, table I, method 3: 81 of 263, 15 of 148, 0 of 20, 1 of 29
    expected = {
        (81, 263): (0.2553, 0.3662),
        (15, 148): (0.0624, 0.1605),
        (0, 20): (0, 0.1611),
        (1, 29): (0.0061, 0.1718),
    }
    for (hits, n), interval in expected.items():
        assert metrics.wilson(hits, n) == pytest.approx(interval, abs=5e-5)
    assert metrics.wilson(0, 0) == (0, 1)


def test_no_wrong_answer_in_few_is_no_certainty():
    low, high = metrics.bootstrap_macro_f1(np.diag([12, 12]))
    assert 0.85 < low < 0.97 and high == 1
    low, _ = metrics.bootstrap_macro_f1(np.diag([1200, 1200, 0]))
    assert low > 0.6  # a class that never occurs stays one that never occurs


def test_the_bootstrap_interval_holds_the_value_and_narrows_with_n():
    matrix = metrics.confusion(TRUTH, SAID, 3)
    few, many = metrics.bootstrap_macro_f1(matrix * 10), metrics.bootstrap_macro_f1(matrix * 1000)
    assert few[0] < metrics.macro_f1(matrix) < few[1]
    assert many[1] - many[0] < (few[1] - few[0]) / 5
    assert metrics.bootstrap_macro_f1(matrix) == metrics.bootstrap_macro_f1(matrix)


def test_calibration_error_of_known_answers():
    truth = np.zeros(100, int)
    said = np.r_[np.zeros(60, int), np.ones(40, int)]  # 60 % right
    assert metrics.reliability(truth, one_hot(said, p=0.9)).ece == pytest.approx(0.3)
    assert metrics.reliability(truth, one_hot(said, p=0.6)).ece == pytest.approx(0.0, abs=1e-9)


def test_reliability_bins_are_closed_above():
    bars = metrics.reliability(np.array([0, 0]), np.array([[1.0, 0.0], [0.8, 0.2]]), bins=5)
    assert bars.count.tolist() == [0, 0, 0, 1, 1]
    assert bars.confidence[3:].tolist() == [0.8, 1.0]


def test_score_of_everything():
    result = metrics.score(TRUTH, one_hot(SAID))
    assert (result.n, result.accuracy) == (6, pytest.approx(4 / 6))
    assert result.accuracy_interval == metrics.wilson(4, 6)
    assert result.ece == pytest.approx(abs(0.9 - 4 / 6))


def test_groups_of_one_change_nothing_and_copies_do_not_narrow():
    truth, said = np.tile(TRUTH, 20), np.tile(SAID, 20)
    alone = metrics.intervals(truth, said, 3)
    assert (
        metrics.intervals(truth, said, 3, np.arange(120)) == metrics.intervals(truth, said, 3, ["all"] * 120) == alone
    )
    same = np.repeat(np.arange(20), 6)  # of twenty persons one is as the other: drawing them says nothing
    assert metrics.intervals(truth, said, 3, same) == alone
    ((low, high), (a, b)) = metrics.intervals(
        truth, said, 3, np.arange(120) % 6
    )  # six persons, the same picture 20 times
    assert high - low > 3 * (alone[0][1] - alone[0][0]) and a <= alone[1][0] and b >= alone[1][1]


def test_the_interval_of_grouped_pictures_holds_the_truth_as_often_as_it_says():
    rng, persons, hits = np.random.default_rng(5), np.repeat(np.arange(20), 20), {True: 0, False: 0}
    for _ in range(200):
        right = rng.random(400) < rng.beta(4.25, 0.75, 20)[persons]  # of one person 85 % in the mean, of another all
        for grouped in hits:
            (low, high), _ = metrics.intervals(np.zeros(400, int), 1 - right, 2, persons if grouped else None)
            hits[grouped] += low <= 0.85 <= high
    assert hits[False] < 150 < 175 < hits[True]


def test_score_of_nothing():
    result = metrics.score(np.empty(0, int), np.empty((0, 3)))
    assert (result.n, result.accuracy, result.accuracy_interval, result.ece) == (0, 0, (0, 1), 0)


def test_agreement():
    result = metrics.agreement(one_hot([0, 1, 2, 2]), one_hot([0, 1, 2, 0]))
    assert (result.n, result.flips, result.agreement) == (4, 1, 0.75)
    assert result.mean_dp == pytest.approx(2 * 0.85 / 12)
    assert metrics.agreement(np.empty((0, 3)), np.empty((0, 3))).agreement == 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.score(TRUTH, np.full((6, 3), np.nan)), "finite numbers, got 6 rows"),
        (lambda: metrics.score(TRUTH, one_hot(SAID)[:5]), r"expected \(6, C\), got \(5, 3\)"),
        (lambda: metrics.confusion(TRUTH, SAID, 2), "truth: expected 0 to 1, got 0 to 2"),
        (lambda: metrics.agreement(np.ones((2, 3)), np.ones((3, 3))), "one shape"),
    ],
)
def test_what_cannot_be_scored_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_calibration_error_weighs_bins_by_their_pictures():
    probs = np.repeat([[0.9, 0.1], [0.6, 0.4]], [80, 20], axis=0)
    truth = np.r_[np.zeros(72, int), np.ones(8, int), np.ones(20, int)]  # 90 % right at 0.9, none at 0.6
    assert metrics.reliability(truth, probs).ece == pytest.approx(0.2 * 0.6)


def test_the_bootstrap_interval_is_one_of_95_percent():
    """With two classes alike macro-F1 is all but the accuracy, whose interval is known."""
    low, high = metrics.bootstrap_macro_f1(np.array([[900, 100], [100, 900]]))
    known = metrics.wilson(1800, 2000)
    assert high - low == pytest.approx(known[1] - known[0], rel=0.06)

"""The gate between two engines."""

from types import SimpleNamespace

import numpy as np
import pytest

from deploy.parity import Pair, check, compare, folder_pairs
from edge_app.errors import CalmcamError


def pairs(agree, n=20):
    right, wrong = np.float32([0.9, 0.1]), np.float32([0.1, 0.9])
    return [Pair(str(i), right, right if i < agree else wrong, 0) for i in range(n)]


def test_parity_counts_flips_and_finds_the_worst():
    found = compare(["happy", "sad"], pairs(agree=18))
    assert found.flips() == {"happy": 2, "sad": 0}
    assert found.summary()["accuracy_b"] == 0.9
    assert found.worst(1)[0] == ("18", pytest.approx(0.8))


def test_the_gate_fails_beyond_its_limits():
    check(compare(["happy", "sad"], pairs(agree=20)), 0.99, 0.0)
    with pytest.raises(CalmcamError, match="agree on 90.00%"):
        check(compare(["happy", "sad"], pairs(agree=18)), 0.95, 1.0)
    with pytest.raises(CalmcamError, match="10.00% less accurate"):
        check(compare(["happy", "sad"], pairs(agree=18)), 0.5, 0.05)
    with pytest.raises(CalmcamError, match="found none"):
        compare(["happy", "sad"], [])


def test_a_picture_that_one_pass_could_not_read_is_left_out_of_both():
    def row(name, probs):
        why = "" if probs is not None else f"{name}: cut"
        return SimpleNamespace(sample=SimpleNamespace(name=name, truth=1), ready=probs, problem=why)

    sure = np.float32([0.1, 0.9])
    one = [row("a", sure), row("b", None), row("c", sure)]
    other = [row("a", sure), row("b", sure), row("c", None)]
    bad = []
    found = compare(["happy", "sad"], folder_pairs(one, other, bad), bad)
    assert (found.names, found.truth.tolist()) == (("a",), [1])
    assert found.unreadable == (("b", "b: cut"), ("c", "c: cut"))


def test_the_gate_lets_pass_what_is_just_good_enough_and_more_accurate():
    found = compare(["happy", "sad"], pairs(agree=18))
    check(found, found.agreement.agreement, 0.1 + 1e-9)
    better = compare(["happy", "sad"], [Pair(p.name, p.b, p.a, p.truth) for p in pairs(agree=18)])
    check(better, 0.9, 0.0)


def test_accuracy_is_told_only_where_every_face_has_a_label():
    some = [*pairs(agree=2, n=2), Pair("x", np.float32([1, 0]), np.float32([1, 0]), None)]
    assert "accuracy_a" not in compare(["happy", "sad"], some).summary()

"""Tensors to calibrated probabilities."""

from __future__ import annotations

import numpy as np
import pytest

from edge_app.heads import probabilities, softmax
from edge_app.manifest import Head

THREE = Head("mood", "softmax", ("a", "b", "c"))
TWO = Head("tease", "sigmoid", ("no", "yes"))
LOGITS = np.array([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [500.0, -500.0, 0.0]])


def test_softmax_of_logits():
    p = probabilities(THREE, LOGITS, softmax_inside=False)
    assert p.dtype == np.float32
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(p[0], np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum(), rtol=1e-5)
    np.testing.assert_allclose(p[1], [1 / 3] * 3, rtol=1e-6)
    np.testing.assert_allclose(p[2], [1, 0, 0], atol=1e-6)


@pytest.mark.parametrize("head", [THREE, TWO])
def test_probabilities_inside_and_logits_mean_the_same(head):
    logits = np.array([[0.3, -1.0, 2.0], [4.0, 1.0, 0.5]], np.float32)[:, : 3 if head is THREE else 1]
    inside = softmax(logits) if head is THREE else 1 / (1 + np.exp(-logits))
    for temperature in (0.5, 1.0, 2.5):
        warm = Head(head.name, head.kind, head.labels, temperature=temperature)
        a, b = probabilities(warm, logits, softmax_inside=False), probabilities(warm, inside, softmax_inside=True)
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_sigmoid_head_has_its_positive_label_second():
    p = probabilities(TWO, np.array([[2.0], [-2.0]]), softmax_inside=False)
    assert p.shape == (2, 2)
    np.testing.assert_allclose(p[:, 1], [1 / (1 + np.exp(-2)), 1 / (1 + np.exp(2))], rtol=1e-5)
    np.testing.assert_allclose(p.sum(axis=1), 1)


def test_temperature_softens_and_keeps_the_order():
    cold, warm = (
        probabilities(Head("m", "softmax", ("a", "b", "c"), temperature=t), LOGITS[:1], softmax_inside=False)[0]
        for t in (1.0, 3.0)
    )
    assert warm.max() < cold.max()
    assert (warm.argsort() == cold.argsort()).all()


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(("head", "columns"), [(THREE, 3), (TWO, 1)])
def test_no_rows_and_certain_rows(head, columns, inside):
    assert probabilities(head, np.empty((0, columns)), softmax_inside=inside).shape == (0, len(head.labels))
    certain = np.zeros((1, columns), np.float32)
    certain[0, 0] = 1
    assert np.isfinite(probabilities(head, certain, softmax_inside=inside)).all()


@pytest.mark.filterwarnings("error")
def test_extreme_sigmoid_logits_do_not_overflow():
    p = probabilities(TWO, np.array([[-1000.0], [1000.0]]), softmax_inside=False)
    np.testing.assert_allclose(p, [[1, 0], [0, 1]], atol=1e-6)


def test_a_sigmoid_head_has_a_temperature_too():
    warm = Head(TWO.name, TWO.kind, TWO.labels, temperature=2.5)
    p = probabilities(warm, np.array([[2.0], [-2.0]]), softmax_inside=False)
    np.testing.assert_allclose(p[:, 1], [1 / (1 + np.exp(-0.8)), 1 / (1 + np.exp(0.8))], rtol=1e-5)

"""Make confidences mean what they say: one temperature per head, and the confidence below which nothing is decided."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from edge_app.heads import probabilities
from edge_app.manifest import Head
from edge_app.scoring.metrics import FEW, wilson

COLDEST, HOTTEST = 0.05, 20.0
FEWEST = 50  # validation images below which neither temperature nor unsure threshold is chosen, nor much known
GOLDEN = (np.sqrt(5) - 1) / 2


def temperature(truth: np.ndarray, logits: np.ndarray) -> float:
    """The temperature that makes `truth` (N,) most likely under logits (N, C), or (N, 1) of a sigmoid head.

    Guo et al. 2017 (arXiv 1706.04599), section 4.2. The loss has one minimum in log T; golden-section search finds it.
    1 where few images are known, or no answer is wrong, or the likelihood calls for ever more confidence, or ever less.
    """
    values = np.asarray(logits, np.float64)
    if values.shape[1] == 1:
        values = np.concatenate([np.zeros_like(values), values], axis=1)
    if len(truth) < FEWEST or (values.argmax(axis=1) == truth).all():
        return 1.0
    ends = low, high = np.log(COLDEST), np.log(HOTTEST)
    while high - low > 1e-5:
        a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
        if _loss(values, truth, a) < _loss(values, truth, b):
            high = b
        else:
            low = a
    best = (low + high) / 2
    return round(float(np.exp(best)), 4) if abs(best - np.array(ends)).min() > 0.01 else 1.0


def unsure_below(truth: np.ndarray, probs: np.ndarray) -> float:
    """The confidence below which answers are surely more often wrong than right: probabilities (N, C), `truth` (N,).

    Accuracy as a rising function of confidence is fitted by pooling adjacent violators (Ayer et al. 1955); the answer
    is where the last step ends that is below one half beyond its 95 % interval (Wilson), and 0 where there is none or
    there are too few images to tell.
    """
    if len(truth) < FEWEST:
        return 0.0
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == truth
    order = np.lexsort((~right, confidence))  # of equal confidences the right ones first: they end in one step
    end = start = 0
    for mean, count in steps(right[order].astype(float)):
        start += count
        if wilson(round(mean * count), count)[1] < 0.5:
            end = start
    return round(float(confidence[order[min(end, len(order) - 1)]]), 3) if end else 0.0


def steps(values: np.ndarray) -> list[tuple[float, int]]:
    """Heights and lengths of the non-decreasing step function nearest to values (N,) in squares."""
    found: list[tuple[float, int]] = []
    for value in values:
        mean, count = float(value), 1
        while found and found[-1][0] >= mean:
            before, size = found.pop()
            mean, count = (before * size + mean * count) / (size + count), size + count
        found.append((mean, count))
    return found


def calibrated(head: Head, truth: np.ndarray, logits: np.ndarray, groups: Sequence[str]) -> Head:
    """`head` with the temperature and the unsure threshold that its logits (N, C) on labelled images suggest.

    As it is where `groups` (N,) say that the images are of fewer than FEW people or clips: they are right or wrong together.
    """
    known = truth >= 0
    if len(set(np.array(groups)[known])) < FEW:
        return head
    warm = replace(head, temperature=temperature(truth[known], logits[known]))
    probs = probabilities(warm, logits[known], softmax_inside=False)
    return replace(warm, unsure_below=unsure_below(truth[known], probs))


def _loss(logits: np.ndarray, truth: np.ndarray, log_temperature: float) -> float:
    scaled = logits / np.exp(log_temperature)
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    return float((np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(truth)), truth]).mean())

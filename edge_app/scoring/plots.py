"""Pictures of a report card, drawn with Matplotlib, which MediaPipe brings along; no window, no global state."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.text import Text

from ..files import whole

DPI = 120
HANGUL = Path(__file__).parent.parent / "drawing" / "fonts" / "calmcam-sans-kr.ttf"


def confusion(path: Path, matrix: np.ndarray, truths: Sequence[str], answers: Sequence[str], title: str) -> None:
    """PNG of a confusion matrix (T, A) of counts: shares of the row as colour and per cent, counts below."""
    _save(confusion_figure(matrix, truths, answers, title), path)


def confusion_figure(matrix: np.ndarray, truths: Sequence[str], answers: Sequence[str], title: str = "") -> Figure:
    """The figure of `confusion`."""
    matrix = np.asarray(matrix)
    shares = matrix / np.maximum(1, matrix.sum(axis=1, keepdims=True))
    figure = Figure(figsize=(2.2 + 0.8 * len(answers), 1.8 + 0.7 * len(truths)), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        text = f"{share:.0%}\n{matrix[row, column]}" if matrix[row, column] else ""
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if share > 0.5 else "black")
    axes.set_xticks(range(len(answers)), answers, rotation=40, ha="right")
    axes.set_yticks(range(len(truths)), truths)
    axes.set(xlabel="answer", ylabel="truth", title=title)
    return figure


def reliability(
    path: Path, confidence: np.ndarray, accuracy: np.ndarray, count: np.ndarray, ece: float, title: str
) -> None:
    """PNG of a reliability diagram (Guo et al. 2017): accuracy per bin (B,) of confidence, and counts."""
    bins = len(count)
    edges = np.arange(bins) / bins
    figure = Figure(figsize=(5, 5.5), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    filled = np.asarray(count) > 0
    upper.bar(edges, np.where(filled, accuracy, 0), 1 / bins, align="edge", edgecolor="white", label="accuracy")
    upper.plot(np.asarray(confidence)[filled], np.asarray(accuracy)[filled], "ko", ms=3, label="mean confidence")
    upper.plot([0, 1], [0, 1], "--", color="grey", label="perfect")
    upper.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy", title=f"{title}: calibration error {ece:.3f}")
    upper.legend(loc="upper left", fontsize=8)
    lower.bar(edges, count, 1 / bins, align="edge", edgecolor="white", color="grey")
    lower.set(xlabel="confidence", ylabel="faces")
    _save(figure, path)


def written(figure: Figure) -> Figure:
    """The figure, ready to be saved: Hangul has its font, and a "$" begins no formula."""
    FigureCanvasAgg(figure)
    for text in figure.findobj(Text):
        text.set_parse_math(False)
        if not text.get_text().isascii():
            text.set_fontproperties(FontProperties(fname=str(HANGUL), size=text.get_fontsize()))
    return figure


def _save(figure: Figure, path: Path) -> None:
    with whole(path) as part:
        written(figure).savefig(part, dpi=DPI, format="png")

"""Pictures of a report as data URIs, drawn with Matplotlib without a window."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from edge_app.scoring.metrics import Reliability
from edge_app.scoring.plots import confusion_figure, written

DPI = 100


def embedded(path: Path) -> str:
    """A PNG file as data URI, "" when it is not there."""
    return _uri(path.read_bytes()) if path.is_file() else ""


def confusion(matrix: np.ndarray, labels: Sequence[str]) -> str:
    """A confusion matrix (C, C) of counts, truth in rows; colour and per cent are shares of the row."""
    return _drawn(confusion_figure(matrix, labels, labels))


def reliability(before: Reliability, after: Reliability) -> str:
    """Two reliability diagrams: accuracy per bin of confidence, before and after temperature scaling."""
    figure = Figure(figsize=(9, 4.2), layout="constrained")
    for axes, bars, title in zip(figure.subplots(1, 2), (before, after), ("temperature 1", "calibrated"), strict=True):
        bins = len(bars.count)
        edges = np.arange(bins) / bins
        axes.bar(edges, bars.accuracy, 1 / bins, align="edge", edgecolor="white", label="accuracy")
        axes.step(
            np.r_[edges, 1],
            np.r_[0, bars.count] / max(1, bars.count.max()) * 0.25,
            color="grey",
            label="pictures (shape)",
        )
        filled = bars.count > 0
        axes.plot(bars.confidence[filled], bars.accuracy[filled], "ko", ms=3)
        axes.plot([0, 1], [0, 1], "--", color="black", lw=0.8)
        axes.set(xlim=(0, 1), ylim=(0, 1), xlabel="confidence", ylabel="accuracy", title=f"{title}: ECE {bars.ece:.3f}")
        axes.legend(loc="upper left", fontsize=8)
    return _drawn(figure)


def histogram(truth: np.ndarray, probs: np.ndarray, labels: Sequence[str]) -> str:
    """Probability of each class (C panels): where it is the truth, and where it is not."""
    columns = min(4, len(labels))
    rows = -(-len(labels) // columns)
    figure = Figure(figsize=(3 * columns, 2.2 * rows), layout="constrained")
    panels = np.ravel(figure.subplots(rows, columns, squeeze=False))
    bins = np.linspace(0, 1, 21)
    for place, axes in enumerate(panels):
        if place >= len(labels):
            axes.axis("off")
            continue
        for mask, name in ((truth == place, "is"), (truth != place, "is not")):
            density = bool(mask.any())
            axes.hist(probs[mask, place], bins, density=density, alpha=0.6, label=f"{name} {labels[place]}")
        axes.set(xlim=(0, 1), yticks=[], title=labels[place])
        axes.legend(fontsize=7)
    return _drawn(figure)


def mistakes(pictures: np.ndarray, captions: Sequence[str]) -> str:
    """A grid of pictures (N, H, W, C) uint8 with captions."""
    columns = min(6, len(pictures))
    rows = -(-len(pictures) // columns)
    figure = Figure(figsize=(1.9 * columns, 2.3 * rows), layout="constrained")
    for axes in (panels := np.ravel(figure.subplots(rows, columns, squeeze=False))):
        axes.axis("off")
    for axes, picture, caption in zip(panels, pictures, captions, strict=False):
        axes.imshow(picture[..., 0] if picture.shape[2] == 1 else picture, cmap="gray", vmin=0, vmax=255)
        axes.set_title(caption, fontsize=7)
    return _drawn(figure)


def _drawn(figure: Figure) -> str:
    memory = io.BytesIO()
    written(figure).savefig(memory, dpi=DPI, format="png")
    return _uri(memory.getvalue())


def _uri(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode('ascii')}"

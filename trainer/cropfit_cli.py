"""`calmcam fit-crop RUN`: the face crop that fits a training run's pictures, measured and kept with the run."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from edge_app.build import open_detector
from edge_app.commands.options import settings_options
from edge_app.settings import Settings
from edge_app.tflite import quiet

from .cli import named

PICTURES = 1500  # of each part, spread evenly: a run takes about a minute


@click.command("fit-crop")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", multiple=True, metavar="DIR | NAME=DIR", help="The run's data, where it lies elsewhere now.")
@settings_options("detector", "conf", "min_size")
@click.option("--pictures", type=click.IntRange(1), default=PICTURES, show_default=True, help="At most so many of each part.")
@click.option("--head", default="", metavar="NAME", help="Head whose accuracy decides; default: the first.")
def fit_crop(run: Path, data: tuple[str, ...], settings: Settings, **flags: Any) -> None:
    """Measure on RUN's train part how the edge must cut faces, confirm it on validation, and write RUN/crop.json.

    `calmcam export RUN` then puts it into the manifest.
    """
    with quiet("TensorFlow"):
        from . import cropfit
        from .export import loaded
        from .parity import keras_logits
        from .record import write_json

    recipe, parts, model = loaded(run, named(data))
    head = recipe.head(flags["head"]) if flags["head"] else recipe.heads[0]
    train, validation = (_some(parts[name], head.name, flags["pictures"]) for name in ("train", "validation"))

    def classify(crops: np.ndarray) -> np.ndarray:
        values = keras_logits(model, crops)[head.name]
        return (values[:, 0] > 0).astype(int) if values.shape[1] == 1 else values.argmax(axis=1)

    with closing(open_detector(settings)[1]) as find:
        found = cropfit.measure(train[0], validation, find, classify)
    for one in found.candidates:
        loss = f"loses {one.loss:.2f} points of {len(one.right)} faces"
        click.echo(f"{_words(one.crop)}: accuracy {one.accuracy:.4f}, {loss}")
    click.echo(f"found {found.found:.1%} of {len(train[0])} train pictures; left over: {asdict(found.jitter)}")
    by = {"pictures": len(train[0]), "detector": settings.detector, "conf": settings.conf}
    write_json(run / "crop.json", found.record() | by)
    click.echo(f"{run / 'crop.json'}: {_words(found.best.crop)}")


def _words(crop: Any) -> str:
    return f"{{margin: {crop.margin:.3f}, shift: {crop.shift:.3f}, align: {crop.align}}}"


def _some(part: Any, head: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (M, H, W, C) and labels (M,) of a part, at most `count`, spread evenly."""
    rows = np.flatnonzero(part.labels[head] >= 0)
    if len(rows):
        rows = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
    return part.images[rows], part.labels[head][rows]

"""`calmcam fit-crop RUN`: the face crop that fits a training run's pictures, measured and kept with the run."""

from __future__ import annotations

import logging
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np

from edge_app.manifest import find_model, verify
from edge_app.tflite import quiet

from .cli import named

PICTURES = 1500  # of each part, spread evenly: a run takes about a minute


@click.command("fit-crop")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", multiple=True, metavar="DIR | NAME=DIR", help="The run's data, where it lies elsewhere now.")
@click.option(
    "--conf", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Least score of the detector."
)
@click.option("--pictures", type=click.IntRange(1), default=PICTURES, show_default=True, help="Of each part.")
@click.option("--head", default="", help="Head whose accuracy decides; default: the first.")
def fit_crop(run: Path, data: tuple[str, ...], **flags: Any) -> None:
    """Measure on RUN's train part how the edge must cut faces, confirm it on validation, and write RUN/crop.json.

    `calmcam export RUN` then puts it into the manifest.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with quiet("TensorFlow"):
        from edge_app.tasks.face_detection import Stage

        from . import cropfit
        from .export import loaded
        from .parity import keras_logits
        from .runs import write_json

    recipe, parts, model = loaded(run, named(data))
    head = recipe.head(flags["head"]) if flags["head"] else recipe.heads[0]
    detector = find_model("face_detection").artifact("full")
    verify(detector)
    find = Stage(detector.path, conf=flags["conf"], max_faces=5)
    logging.getLogger("trainer").setLevel(logging.INFO)
    try:
        train = _some(parts["train"], head.name, flags["pictures"])
        placed = cropfit.place(parts["train"].images[train], find)
        crop = cropfit.fitted(placed)
        rows = _some(parts["validation"], head.name, flags["pictures"])
        judged = parts["validation"].images[rows], parts["validation"].labels[head.name][rows]

        def classify(crops: np.ndarray) -> np.ndarray:
            values = keras_logits(model, crops)[head.name]
            return (values[:, 0] > 0).astype(int) if values.shape[1] == 1 else values.argmax(axis=1)

        found = cropfit.confirm(*judged, cropfit.candidates(crop), find, classify)
    finally:
        find.close()
    best = cropfit.chosen(found, crop)
    jitter = cropfit.jitter(placed, crop)
    for one in found:
        click.echo(
            f"{_words(one.crop)}: accuracy {one.accuracy:.4f}, loses {one.loss:.2f} points of {len(one.right)} faces"
        )
    click.echo(
        f"found {placed.found:.1%} of {placed.total} train pictures at conf {flags['conf']}; "
        f"left over: {asdict(jitter)}"
    )
    record = {"crop": asdict(best.crop), "fitted": asdict(crop), "found": placed.found, "pictures": placed.total}
    record |= {
        "jitter": asdict(jitter),
        "candidates": [asdict(one.crop) | {"accuracy": one.accuracy, "loss": one.loss} for one in found],
        "conf": flags["conf"],
    }
    write_json(run / "crop.json", record)
    click.echo(f"{run / 'crop.json'}: {_words(best.crop)}")


def _words(crop: Any) -> str:
    return f"{{margin: {crop.margin:.3f}, shift: {crop.shift:.3f}, align: {crop.align}}}"


def _some(part: Any, head: str, count: int) -> np.ndarray:
    """Rows (M,) of labelled pictures, at most `count`, spread evenly."""
    rows = np.flatnonzero(part.labels[head] >= 0)
    return rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)] if len(rows) else rows

"""`calmcam parity MODEL --a int8 --b hailo8`: do two artifacts of a model say the same?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import click
import cv2
import numpy as np

from edge_app import build
from edge_app.commands.evaluate import open_models
from edge_app.files import whole
from edge_app.media import read_picture
from edge_app.run import drain
from edge_app.scoring.evaluate import Ensemble, rows
from edge_app.scoring.labelled import labelled
from edge_app.settings import Settings

from .parity import Pair, Parity, check, compare, folder_pairs


@click.command()
@click.argument("model")
@click.option(
    "--a", "trusted", default="float32", show_default=True, metavar="VARIANT", help="The one that is trusted."
)
@click.option("--b", "judged", required=True, metavar="VARIANT", help="The one that is judged.")
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="Labelled folder of face crops, or a clip."
)
@click.option("--head", help="Which head of the model; default: the first.")
@click.option(
    "--min-agreement", type=click.FloatRange(0, 1), default=0.95, show_default=True, help="Least share of same answers."
)
@click.option(
    "--max-accuracy-loss", type=click.FloatRange(0, 1), default=0.01, show_default=True, help="Share of right answers."
)
@click.option(
    "--worst",
    type=click.Path(path_type=Path),
    metavar="FILE.png",
    help="Draw the worst crops; only if their licence allows.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def parity(
    model: str,
    trusted: str,
    judged: str,
    data: Path,
    head: str | None,
    min_agreement: float,
    max_accuracy_loss: float,
    worst: Path | None,
    as_json: bool,
) -> None:
    """Compare two variants of MODEL on the same faces; a limit that is passed is a non-zero exit code."""
    if worst and not data.is_dir():
        raise click.UsageError("--worst needs a labelled folder: a clip's crops are not kept")
    with ExitStack() as stack:
        a, b = (_open(model, variant, head, stack) for variant in (trusted, judged))
        found = compare(a.labels, _pairs(a, b, data))
    _show(found, trusted, judged, as_json)
    if worst:
        _draw(found, data, worst)
    check(found, min_agreement, max_accuracy_loss)


def _open(model: str, variant: str, head: str | None, stack: ExitStack) -> Ensemble:
    device = "hailo" if variant.startswith("hailo") else "cpu"
    return open_models([model], replace(Settings(), variant=variant, device=device), head, {}, stack)


def _pairs(a: Ensemble, b: Ensemble, data: Path) -> Iterator[Pair]:
    if data.is_dir():
        samples, _ = labelled(data, a.labels)
        yield from folder_pairs(*(rows(samples, side, read_picture) for side in (a, b)))
        return
    settings = Settings(model=str(a.members[0].manifest.folder), device="cpu")
    with build.Analysis(settings) as analysis, build.open_source(str(data)) as frames:
        for frame, faces in drain([("detect", analysis.detect)], frames):
            for row in range(len(faces)):
                yield Pair(
                    f"frame {frame.index} face {row}", *(side(side.cut(frame.image, faces, row)) for side in (a, b))
                )


def _show(found: Parity, a: str, b: str, as_json: bool) -> None:
    summary = found.summary()
    if as_json:
        click.echo(json.dumps(summary))
        return
    low, high = summary["agreement_interval"]
    click.echo(
        f"{a} and {b} agree on {summary['agreement']:.2%} of {summary['n']} faces (95 % {low:.2%} to {high:.2%})"
    )
    click.echo(f"mean absolute difference of probabilities: {summary['mean_absolute_difference']:.4f}")
    click.echo("flips by class of a: " + ", ".join(f"{label} {n}" for label, n in summary["flips"].items()))
    for side, name in (("a", a), ("b", b)) if found.truth is not None else ():
        low, high = summary[f"accuracy_{side}_interval"]
        click.echo(f"accuracy of {name}: {summary[f'accuracy_{side}']:.2%} (95 % {low:.2%} to {high:.2%})")
    click.echo("worst: " + ", ".join(f"{name} ({gap:.2f})" for name, gap in summary["worst"][:5]))


def _draw(found: Parity, data: Path, path: Path) -> None:
    """A row of the crops that differ most, 96 px each, to the PNG `path`; OutputError when it cannot be written."""
    crops = [cv2.resize(read_picture(data / name), (96, 96)) for name, _ in found.worst(10)]
    with whole(path) as part:
        cv2.imencode(".png", cv2.cvtColor(np.hstack(crops), cv2.COLOR_RGB2BGR))[1].tofile(part)

"""`calmcam parity MODEL --a int8 --b hailo8`: do two artifacts of a model say the same?"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import click
import cv2
import numpy as np

from edge_app import build
from edge_app.commands.console import echo_json
from edge_app.commands.evaluate import open_models
from edge_app.commands.options import settings_options
from edge_app.errors import SourceError
from edge_app.files import whole
from edge_app.media import read_picture
from edge_app.run import drain
from edge_app.scoring.evaluate import Ensemble, rows
from edge_app.scoring.labelled import labelled
from edge_app.settings import Settings

from .parity import Pair, Parity, check, compare, folder_pairs

UNREADABLE_SHOWN = 10


@click.command()
@click.argument("model")
@click.option(
    "--a", "trusted", default="float32", show_default=True, metavar="VARIANT", help="The one that is trusted."
)
@click.option("--b", "judged", required=True, metavar="VARIANT", help="The one that is judged.")
@click.option(
    "--data", required=True, type=click.Path(path_type=Path), help="Labelled folder of face crops, or a clip."
)
@settings_options("head", "threads", "detector", "conf", "max_faces", "min_size")
@click.option(
    "--min-agreement", type=click.FloatRange(0, 1), default=0.95, show_default=True, help="Least share of same answers."
)
@click.option(
    "--max-accuracy-loss",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="Most that the share of right answers may fall.",
)
@click.option(
    "--worst",
    type=click.Path(path_type=Path),
    metavar="FILE.png",
    help="Draw the worst crops; only if their licence allows.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def parity(
    ctx: click.Context,
    model: str,
    trusted: str,
    judged: str,
    data: Path,
    settings: Settings,
    min_agreement: float,
    max_accuracy_loss: float,
    worst: Path | None,
    as_json: bool,
) -> None:
    """Compare two variants of MODEL on the same faces; exit code 1 when a limit is passed.

    --detector, --conf, --max-faces and --min-size are for a clip, whose faces are found first.
    """
    if worst and not data.is_dir():
        raise click.UsageError("--worst needs a labelled folder: a clip's crops are not kept")
    unreadable: list[tuple[str, str]] = []
    with ExitStack() as stack:
        a, b = (_open(model, variant, settings, stack) for variant in (trusted, judged))
        found = compare(a.labels, _pairs(a, b, data, settings, unreadable), unreadable)
    _show(found, trusted, judged, as_json)
    if worst:
        _draw(found, data, worst)
    check(found, min_agreement, max_accuracy_loss)
    ctx.exit(SourceError.exit_code if unreadable else 0)


def _open(model: str, variant: str, settings: Settings, stack: ExitStack) -> Ensemble:
    device = "hailo" if variant.startswith("hailo") else "cpu"
    return open_models([model], replace(settings, variant=variant, device=device), {}, stack)


def _pairs(
    a: Ensemble, b: Ensemble, data: Path, settings: Settings, unreadable: list[tuple[str, str]]
) -> Iterator[Pair]:
    if data.is_dir():
        samples, _ = labelled(data, a.labels)
        yield from folder_pairs(*(rows(samples, side) for side in (a, b)), unreadable)
        return
    settings = replace(settings, model=str(a.members[0].manifest.folder), variant=None, device="cpu")
    with build.Analysis(settings) as analysis, build.open_source(str(data)) as frames:
        for frame, faces in drain([("detect", analysis.detect)], frames):
            for row in range(len(faces)):
                yield Pair(
                    f"frame {frame.index} face {row}", *(side(side.cut(frame.image, faces, row)) for side in (a, b))
                )


def _show(found: Parity, a: str, b: str, as_json: bool) -> None:
    summary = found.summary()
    if as_json:
        echo_json(summary)
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
    if found.unreadable:
        click.echo(f"{len(found.unreadable)} unreadable, not compared:")
        for _, why in found.unreadable[:UNREADABLE_SHOWN]:
            click.echo(f"  {why}")


def _draw(found: Parity, data: Path, path: Path) -> None:
    """A row of the crops that differ most, 96 px each, to the PNG `path`; OutputError when it cannot be written."""
    crops = [cv2.resize(read_picture(data / name), (96, 96)) for name, _ in found.worst(10)]
    with whole(path) as part:
        part.write_bytes(cv2.imencode(".png", cv2.cvtColor(np.hstack(crops), cv2.COLOR_RGB2BGR))[1])

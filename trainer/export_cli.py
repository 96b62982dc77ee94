"""`calmcam export RUN`: files for the edge out of a training run."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from edge_app.commands.options import settings_options
from edge_app.runs import free
from edge_app.settings import Settings
from edge_app.tflite import quiet

from .cli import named, talk


@click.command("export")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Model folder; default runs/export/RUN[N] or, with --name, NAME[N].",
)
@click.option("--data", multiple=True, metavar="DIR | NAME=DIR", help="The run's data, where it lies elsewhere now.")
@click.option(
    "--variants", default="", metavar="A,B", help="Which files, of float32,float16,dynamic,int8; default: the recipe's."
)
@click.option("--no-test", is_flag=True, help="Do not use the test part yet.")
@click.option("--exist-ok", is_flag=True, help="Replace the model folder when it is there.")
@click.option(
    "--show-mistakes", is_flag=True, help="The licence of the data allows showing its pictures in the report."
)
@click.option("--name", default="", help="Name of the model; default: the recipe's.")
@click.option("--licence", default="", help="Licence of the model, for its manifest and card.")
@click.option("--about", default="", metavar="TEXT", help="What the data are, for manifest and card.")
@settings_options()
def export(settings: Settings, run: Path, output_dir: Path | None, data: tuple[str, ...], **flags: Any) -> None:
    """Quantise the trained RUN, refuse what answers otherwise than it, score it, and write its manifest and card."""
    os.environ["KERAS_BACKEND"] = "tensorflow"  # the only one that exports; the .keras file is the same for all
    with quiet("TensorFlow"):
        from .export import Order
        from .export import export as do

    talk()
    out = output_dir or free(Path(settings.runs_dir) / "export", flags["name"] or run.name)
    order = Order(
        run=run,
        out=out,
        data=named(data),
        variants=tuple(filter(None, flags["variants"].split(","))),
        test=not flags["no_test"],
        exist_ok=flags["exist_ok"],
        mistakes=flags["show_mistakes"],
        name=flags["name"],
        licence=flags["licence"],
        about=flags["about"],
        command=shlex.join(["calmcam", *sys.argv[1:]]),
    )
    study = do(order)
    for line in _lines(study):
        click.echo(line)
    click.echo(f"{out}; report: {run / 'report.html'}; calibration crops: {run / 'calibration.npz'}")


def _lines(study: Any) -> list[str]:
    from .card import percent, three

    lines = [str(gate) for gate in study.gates]
    for row in study.scored:
        found = row.scores
        lines.append(
            f"{row.head}, {row.split}, {row.variant}: accuracy {percent(found.accuracy, found.accuracy_interval)}, "
            f"macro-F1 {three(found.macro_f1, found.macro_f1_interval)}, "
            f"ECE {row.ece_before:.3f} -> {found.ece:.3f}, n {found.n}"
        )
    sizes = {variant: artifact.bytes / 1e6 for variant, artifact in study.manifest.artifacts.items()}
    return lines + [f"{name}: {size:.2f} MB, {study.latency_ms[name]:.2f} ms per face" for name, size in sizes.items()]

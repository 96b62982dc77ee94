"""`calmcam average RUN RUN`: the mean of the weights of several runs, as a run."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import click

from edge_app.commands.options import settings_options
from edge_app.runs import discard_empty, output_folder
from edge_app.settings import Settings
from edge_app.tflite import quiet

from .cli import named


@click.command("average")
@click.argument("runs", metavar="RUN RUN...", nargs=-1, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output-dir",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Run folder; default: a new one in runs/average/.",
)
@click.option("--data", multiple=True, metavar="DIR | NAME=DIR", help="The runs' data, where it lies elsewhere now.")
@settings_options()
def average(settings: Settings, runs: tuple[Path, ...], output_dir: Path | None, data: tuple[str, ...]) -> None:
    """Average the weights of runs that began with the same ones, such as a run and further stages from it (a soup).

    `calmcam export` takes the mean like any run, with the division of the first, which must have learnt from all pictures
    that the others learnt from. Runs that began on their own cannot be averaged: the scores tell.
    """
    with quiet("TensorFlow"):
        from .average import average as do
        from .average import fitting

    opened = fitting(runs)
    out = output_folder(output_dir, Path(settings.runs_dir) / "average", runs[0].name, exist_ok=False)
    try:
        lines = do(opened, named(data), out, shlex.join(["calmcam", *sys.argv[1:]]))
    finally:
        discard_empty(out)
    for line in lines:
        click.echo(line)

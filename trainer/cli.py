"""`calmcam train`: the command line of the trainer. `train` parses, builds, calls and reports."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import click

from edge_app.errors import CalmcamError


def _data(values: tuple[str, ...]) -> Path | dict[str, Path] | None:
    named = [value.partition("=") for value in values]
    if len(values) == 1 and not named[0][1]:
        return Path(values[0])
    return {name: Path(path) for name, _, path in named} or None


@click.command()
@click.argument("recipe", required=False)
@click.option("--data", multiple=True, metavar="DIR | NAME=DIR", help="Folder with the labelled pictures, one per data set.")
@click.option("--set", "changes", multiple=True, metavar="KEY.SUB=VALUE", help="Change one key of the recipe.")
@click.option("--output-dir", "-o", type=click.Path(path_type=Path), help="Run folder; default runs/train/RECIPE[N].")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with a run that was ended.")
@click.option("--check", is_flag=True, help="Only look at the data and report.")
@click.option("--folds", type=click.IntRange(2), help="Grouped cross-validation instead of one run.")
@click.option("--compare-cnn", is_flag=True, help="Train the small plain CNN beside it.")
@click.option("--device", type=click.Choice(["auto", "cpu"]), default="auto", show_default=True)
@click.option("-v", "--verbose", is_flag=True, help="Show the traceback of an error.")
def train(recipe, data, changes, output_dir, resume, check, folds, compare_cnn, device, verbose) -> None:
    """Train a model as RECIPE says (teasing, multidomain, emotions, or a YAML file)."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    try:
        from .runs import Request, start

        click.echo(start(Request(recipe, _data(data), changes, output_dir, resume, check, folds, compare_cnn)))
    except CalmcamError as error:
        if verbose:
            raise
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(error.exit_code) from error


@click.group()
def main() -> None:
    """The trainer's commands, for use without the edge application."""


main.add_command(train)

if __name__ == "__main__":
    main()

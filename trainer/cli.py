"""`calmcam train`: parses, calls and says what came of it."""

from __future__ import annotations

import logging
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from edge_app.commands.options import settings_options
from edge_app.errors import InputError, MissingPackage, SettingsError, unknown
from edge_app.settings import Settings
from edge_app.tflite import quiet

BACKENDS = ("tensorflow", "jax", "torch")


@click.command()
@click.argument("recipe", required=False)
@click.option("--data", multiple=True, metavar="DIR | NAME=DIR", help="The labelled pictures, one folder per data set.")
@click.option("--set", "changes", multiple=True, metavar="KEY.SUB=VALUE", help="Change one key of the recipe.")
@click.option(
    "--output-dir",
    "-o",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Run folder; default: a new one in runs/train/.",
)
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with a run that was ended.")
@click.option("--check", is_flag=True, help="Only look at the data and report.")
@click.option("--folds", type=click.IntRange(2), metavar="N", help="Grouped cross-validation instead of one run.")
@click.option("--compare-cnn", is_flag=True, help="Train the small plain CNN beside it.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu"]),
    default="auto",
    show_default=True,
    help="cpu: leave a GPU alone that is there.",
)
@settings_options()
def train(settings: Settings, data: tuple[str, ...], output_dir: Path | None, device: str, **flags: Any) -> None:
    """Train a model as RECIPE says: teasing, multidomain, emotions, or a YAML file.

    With --check the data are looked at only; `calmcam train --check DIR` does so for any class folders.

    The same code runs on every Keras backend: KERAS_BACKEND=torch calmcam train ...
    """
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    talk()
    from .runs import Request, refuse_early, start

    request = Request(data=named(data), output=output_dir, runs_dir=Path(settings.runs_dir), **flags)
    if not request.check:
        _know_backend(os.environ.get("KERAS_BACKEND", "tensorflow"))
        refuse_early(request)
        with quiet("Keras"):
            from . import train as _  # noqa: F401 its backend talks while it loads
    lines = start(request)
    for line in lines:
        click.echo(line)
    if request.check:
        from .check import UNREADY

        if any(line.startswith(UNREADY) for line in lines):
            click.get_current_context().exit(InputError.exit_code)


def talk() -> None:
    """Have the trainer say how far it is, unless the command line names a log level."""
    named_level = getattr(click.get_current_context().find_root().obj, "level", "")
    logging.getLogger("trainer").setLevel(logging.NOTSET if named_level else logging.INFO)


def _know_backend(name: str) -> None:
    """SettingsError for what is no Keras backend that can train, MissingPackage for one that is not installed."""
    if name not in BACKENDS:
        raise SettingsError(f"KERAS_BACKEND: {unknown('backend', name, BACKENDS)}")
    if find_spec(name) is None:
        raise MissingPackage(
            f"KERAS_BACKEND={name} needs the package {name!r}, which is not installed; pip install {name}"
        )


def named(values: tuple[str, ...]) -> Path | dict[str, Path] | None:
    """`--data` as one folder or as folders by name; InputError for a mixture."""
    pairs = [value.partition("=") for value in values]
    if len(values) == 1 and not pairs[0][1]:
        return Path(values[0])
    if any(not equals for _, equals, _ in pairs):
        raise InputError(f"--data {' '.join(values)}: with several data sets expected NAME=DIR for each")
    return {name: Path(path) for name, _, path in pairs} or None

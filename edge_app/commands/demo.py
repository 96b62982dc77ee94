"""`calmcam demo`: a clip rendered from the NASA portrait, annotated like any other."""

from __future__ import annotations

from pathlib import Path

import click

from .. import plugins, runs
from ..run import run
from .annotate import annotate
from .options import output_options

SECONDS, SIZE, FPS = 6, (640, 360), 25


@click.command()
@output_options
@click.pass_context
def demo(ctx: click.Context, output_dir: Path | None, exist_ok: bool) -> None:
    """Annotate a short clip made from the NASA portrait.

    Shows that an installation works, without a camera and without a file of your own.
    """
    folder = runs.given_folder(output_dir or Path("demo"), exist_ok=exist_ok)
    clip = folder / "portrait.mp4"
    render(clip)
    ctx.invoke(annotate, inputs=(str(clip),), output_dir=folder / "annotated", exist_ok=exist_ok)


def render(path: Path) -> None:
    """Write the portrait under pan and zoom as an H.264 clip to `path`."""
    width, height = SIZE
    source = plugins.load("sources", "synthetic").Source(width=width, height=height, fps=FPS, count=SECONDS * FPS)
    sink = plugins.load("sinks", "video").Sink(path)
    run(source, [], [sink], live=False, draw=lambda result: result.frame.image)

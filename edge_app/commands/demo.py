"""`calmcam demo`: a clip rendered from the NASA portrait, annotated like any other."""

from __future__ import annotations

from pathlib import Path

import click

from .. import plugins, runs
from ..run import Stop, run
from ..settings import Settings
from .annotate import annotate
from .options import Signals, output_options, settings_options

SECONDS, SIZE, FPS = 6, (640, 360), 25


@click.command()
@settings_options()
@output_options
@click.pass_context
def demo(ctx: click.Context, settings: Settings, output_dir: Path | None, exist_ok: bool) -> None:
    """Annotate a short clip made from the NASA portrait.

    Shows that an installation works, without a camera and without a file of your own.
    """
    folder = runs.output_folder(output_dir, Path(settings.runs_dir) / "demo", "portrait", exist_ok=exist_ok)
    clip, annotated = folder / "portrait.mp4", folder / "annotated"
    try:
        with Signals() as stop:
            render(clip, stop)
        if stop.exit_code:
            click.echo("stopped", err=True)
            ctx.exit(stop.exit_code)
        ctx.invoke(annotate, inputs=(str(clip),), output_dir=annotated, exist_ok=exist_ok)
    finally:
        if not annotated.exists():
            clip.unlink(missing_ok=True)
        runs.discard_empty(folder)


def render(path: Path, stop: Stop | None = None) -> None:
    """Write the portrait under pan and zoom as an H.264 clip to `path`."""
    width, height = SIZE
    source = plugins.load("sources", "synthetic").Source(width=width, height=height, fps=FPS, count=SECONDS * FPS)
    sink = plugins.load("sinks", "video").Sink(path)
    run(source, [], [sink], live=False, draw=lambda result: result.frame.image, stop=stop)

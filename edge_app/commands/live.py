"""`calmcam live`: a camera, stream or clip, read as it comes; in a window where there is a display, else headless."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import click

from .. import plugins, runs
from ..addresses import public_host
from ..build import Analysis, open_with, turned
from ..drawing.overlay import overlay
from ..drawing.words import WORDS
from ..errors import OutputError, SourceError
from ..manifest import Head
from ..pace import Paced, Repeated
from ..report import Report
from ..run import Draw, Stop, run
from ..settings import Settings, filled
from ..types import Sink
from .console import StatusLine, summary
from .options import DRAWN, MODEL_SETTINGS, ClockRange, Signals, output_options, settings_options
from .recording import Begun, Spare

PICTURE = ("width", "height", "fps", "rotate", "mirror")


@click.command()
@settings_options("source", *MODEL_SETTINGS, "head", "unsure_below", *DRAWN, *PICTURE, "save", "json", "web", "mqtt")
@output_options
@click.option("--show/--no-show", default=True, help="Open a window, where there is a display.")
@click.option("--paced", is_flag=False, flag_value=0.0, type=ClockRange(0), default=None, metavar="[FPS]",
              help="Pace of a clip; without FPS its own, which is the default.")  # fmt: skip
@click.option("--loop", is_flag=True, help="Begin a clip again when it ends.")
@click.option("--frames", type=click.IntRange(1), help="Stop after so many results.")
@click.option("--seconds", type=ClockRange(0, min_open=True), help="Stop after so many seconds.")
@click.pass_context
def live(ctx: click.Context, settings: Settings, output_dir: Path | None, exist_ok: bool, **options: Any) -> None:
    """Watch a camera, a network stream or a clip.

    The newest frame wins: what is shown never lags, and frames that could not be looked at are counted as dropped.
    Ctrl-C ends the run in good order.
    """
    report = Report()
    source = _source(settings, options["paced"], options["loop"])
    with ExitStack() as stack:
        stop = stack.enter_context(Signals())
        analysis = stack.enter_context(Analysis(settings))
        click.echo(f"classifying on {analysis.why}", err=True)
        served = _served(analysis, source, settings)
        folder = _folder(settings, output_dir, exist_ok) if settings.save or output_dir else None
        show = options["show"] and _display(unseen=not folder and settings.web is None)
        about = {**analysis.record(), "arguments": {**ctx.params, "settings": settings}}
        said = [plugins.load("sinks", "results").Sink(stream=sys.stdout)] if settings.json else []
        kept = _recording(folder, about, analysis.head.labels) if folder else []
        if served or show or said and kept:  # somebody watches, reads or keeps on when the other takes no more
            rest: list[Spare] = []
            said = [Spare(sink, "--json", rest) for sink in said]
            kept = [Spare(sink, "recording", rest) for sink in kept]
            rest += [] if served or show else [*said, *kept]
        sinks = [*served, *said, *kept, *_sinks(source, folder, show, options, stop)]
        if options["seconds"]:
            stack.callback(_stop_after(options["seconds"], stop).cancel)
        draw = _draw(settings, analysis.head, show or folder or settings.web is not None)
        try:
            run(source, analysis.stages(), sinks, live=True, draw=draw, stop=stop, report=report)
        except BaseException:
            with suppress(OutputError):  # what ended the run is told
                _tell(report, folder, about)
            raise
        try:
            _tell(report, folder, about)
        except OutputError as error:
            if not stop.exit_code:
                raise
            click.echo(f"Error: {error}", err=True)  # the signal's exit code says more: a service was stopped
    lost = [one.error for one in (*said, *kept) if isinstance(one, Spare) and one.error]
    if lost and not stop.exit_code:
        raise lost[0]
    if options["seconds"] and not report.frames and not stop.exit_code:
        within = f"no frame came within {options['seconds']:g} s"
        raise SourceError(f"{source.name}: {within}; look at the source with calmcam doctor, or raise --seconds")
    ctx.exit(stop.exit_code)


def _tell(report: Report, folder: Path | None, about: dict[str, object]) -> None:
    """Sum the run up, in its folder and here, where nobody may read; of a run without a frame nothing is kept."""
    saved = ""
    try:
        if folder and report.frames:
            runs.record(folder, report, about)
            saved = f"\nsaved in {folder}"
    finally:
        if folder:
            runs.discard_empty(folder)
        if report.frames:
            click.echo(summary(report, said=bool(sys.stderr and sys.stderr.isatty())) + saved, err=True)


def _source(settings: Settings, paced: float | None, loop: bool) -> Any:
    source = turned(open_with(filled(settings.source), settings), settings)
    if source.live:
        return source
    return Paced(Repeated(source) if loop else source, fps=paced or None)


def _folder(settings: Settings, given: Path | None, exist_ok: bool) -> Path:
    """The output folder, named after the source: of an address, which may hold a password, after its host."""
    source = filled(settings.source)
    name = public_host(source) if "://" in source else Path(source).stem
    return runs.output_folder(given, Path(settings.runs_dir) / "live", name, exist_ok=exist_ok)


def _display(*, unseen: bool) -> bool:
    """Whether a window can be opened; says why not, and where else the picture can be seen that otherwise is `unseen`."""
    reason = plugins.load("sinks", "window").unavailable()
    if reason:
        hint = "; --web shows it in a browser" if unseen else ""
        click.echo(f"{reason}; going on without a window{hint}", err=True)
    return not reason


def _draw(settings: Settings, head: Head, wanted: object) -> Draw | None:
    return overlay(settings, "live", head.negative) if wanted else None


def _sinks(source: Any, folder: Path | None, show: bool, options: dict[str, Any], stop: Stop) -> list[Sink]:
    sinks: list[Sink] = []
    if show:
        sinks.append(plugins.load("sinks", "window").Sink(stop=stop, folder=folder or "."))
    if "NOTIFY_SOCKET" in os.environ:
        sinks.append(plugins.load("sinks", "systemd").Sink(waits=partial(_waits, source)))
    return [*sinks, StatusLine(source, stop, frames=options["frames"])]


def _waits(source: Any) -> bool:
    return getattr(source, "state", "") == "reconnecting"


def _recording(folder: Path, about: dict[str, object], labels: Sequence[str]) -> list[Sink]:
    video = plugins.load("sinks", "video").Sink(folder / "annotated.mp4", recording=True)
    results = plugins.load("sinks", "results").Sink(folder / "results.jsonl", folder / "results.csv", labels=labels)
    return [Begun(folder, about), video, results]


def _served(analysis: Analysis, source: Any, settings: Settings) -> list[Sink]:
    """What others on the network are told; a service waits for a broker that is not there yet."""
    sinks: list[Sink] = []
    if settings.web is not None:
        password, tell = os.environ.get("CALMCAM_WEB_PASSWORD", ""), partial(click.echo, err=True)
        words = WORDS[settings.labels]
        sinks.append(plugins.load("sinks", "web").Sink(settings.web, password=password, words=words, tell=tell))
    if settings.mqtt is not None:
        how = {
            "labels": analysis.head.labels,
            "waits": partial(_waits, source),
            "patient": "NOTIFY_SOCKET" in os.environ,
        }
        sinks.append(plugins.load("sinks", "mqtt").Sink(filled(settings.mqtt), **how))
    return sinks


def _stop_after(seconds: float, stop: Stop) -> threading.Timer:
    timer = threading.Timer(seconds, stop)
    timer.daemon = True
    timer.start()
    return timer

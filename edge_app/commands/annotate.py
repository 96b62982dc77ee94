"""`calmcam annotate`: files in, annotated copies, results and a table out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from .. import plugins, runs
from ..build import Analysis
from ..errors import InputError
from ..inputs import expand
from ..report import Report
from ..run import Stop
from ..settings import Settings
from .annotation import Annotation, Options, Outcome
from .console import for_tables, main_labels
from .options import DRAWN, MODEL_SETTINGS, Seconds, Signals, output_options, settings_options
from .progress import ProgressBar


@click.command()
@click.argument("inputs", nargs=-1, required=True, metavar="FILE...")
@settings_options(*MODEL_SETTINGS, "head", *DRAWN)
@output_options
@click.option("--start", type=Seconds(), help="Leave out what comes before, seconds or hh:mm:ss of the video.")
@click.option("--end", type=Seconds(), help="Leave out what comes after.")
@click.option("--vid-stride", "stride", type=click.IntRange(1), default=1, show_default=True, help="Every n-th frame.")
@click.option("--no-audio", "audio", is_flag=True, flag_value=False, default=True, help="Leave the sound out.")
@click.option("--no-video", "video", is_flag=True, flag_value=False, default=True, help="Write results only.")
@click.pass_context
def annotate(
    ctx: click.Context,
    inputs: tuple[str, ...],
    settings: Settings,
    output_dir: Path | None,
    exist_ok: bool,
    **options: Any,
) -> None:
    """Find and read the faces in videos and pictures.

    Each FILE may be a file, a folder (all media below it) or a pattern. Every input gets an annotated copy; all share
    results.jsonl and results.csv. A bad input does not stop the rest, but the exit code tells of it.
    """
    part = _checked(Options(**options))
    items = expand(inputs)
    outcomes: list[Outcome] = []
    with Signals() as stop, Analysis(settings) as analysis:
        name = Path(inputs[0]).resolve().name if os.path.isdir(inputs[0]) else items[0].path.stem
        folder = runs.output_folder(output_dir, Path(settings.runs_dir) / "annotate", name, exist_ok=exist_ok)
        job = Annotation(items, folder, settings, part)
        job.check_outputs()
        earlier, replaced, unread = (folder / "results.csv").exists(), False, None
        try:
            total = _work(job, analysis, stop, outcomes)
            if total.frames:
                about = {**analysis.record(), "arguments": {**ctx.params, "settings": settings}}
                _record(folder, total, outcomes, about)
                replaced = earlier
        finally:
            runs.discard_empty(folder)
            try:
                _report(outcomes, folder, replaced)
            except BrokenPipeError as error:
                unread = error
    code = stop.exit_code or max((outcome.error.exit_code for outcome in outcomes if outcome.error), default=0)
    if unread and not code:
        raise unread
    ctx.exit(code)


def _checked(part: Options) -> Options:
    if part.start is not None and part.end is not None and part.end <= part.start:
        raise InputError(f"--end {part.end:g} s: expected a time after --start {part.start:g} s")
    return part


def _work(job: Annotation, analysis: Analysis, stop: Stop, outcomes: list[Outcome]) -> Report:
    """Work on all inputs; `outcomes` grows meanwhile, so that it tells also of a run that fails. Returns the sum."""
    total = Report()
    labels = analysis.head.labels
    results = plugins.load("sinks", "results").Sink(
        job.folder / "results.jsonl", job.folder / "results.csv", labels=labels
    )
    with results, ProgressBar(len(job.inputs)) as bar:
        for outcome in job.outcomes(analysis, results, stop, bar.counter):
            outcomes.append(outcome)
            bar.done(outcome)
            total = total.merge(outcome.report)
            outcome.settle()
    return total


def _record(folder: Path, total: Report, outcomes: list[Outcome], about: dict[str, object]) -> None:
    files = [
        {"input": outcome.path.absolute(), "name": outcome.name, "output": outcome.output, "error": outcome.error, **outcome.summary}
        for outcome in outcomes
    ]
    runs.record(folder, total, {**about, "files": files})


def _report(outcomes: list[Outcome], folder: Path, replaced: bool) -> None:
    """Print a table, and whether results were `replaced`; one input that failed was told already and needs none."""
    if not any(outcome.report.frames for outcome in outcomes) and len(outcomes) < 2:
        return
    if replaced:
        click.echo(f"{folder}: results.csv, results.jsonl and run.json of an earlier run were replaced")
    console = for_tables(160)
    table = Table("input", "frames", "took s", "faces", "mainly", "output", box=None, pad_edge=False)
    for outcome in outcomes:
        report = outcome.report
        ending = "broke off" if outcome.partly else "failed" if outcome.error else "stopped" if report.stopped else ""
        where = " ".join(filter(None, (outcome.output and outcome.output.name, ending and f"({ending})")))
        cells = (outcome.name, report.frames, f"{report.seconds:.1f}", report.faces, main_labels(report.labels))
        table.add_row(*(Text(str(cell)) for cell in (*cells, where)))
    console.print(table)
    if folder.is_dir():
        console.print(f"results in {folder}", soft_wrap=True)

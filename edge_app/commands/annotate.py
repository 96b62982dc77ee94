"""`calmcam annotate`: files in, annotated copies, results and a table out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource
from rich.table import Table
from rich.text import Text

from .. import plugins, runs
from ..build import Analysis
from ..errors import InputError, OutputError
from ..inputs import expand
from ..report import Report
from ..run import Stop
from ..settings import Settings
from .annotation import Annotation, Options, Outcome
from .console import counted, for_tables, main_labels
from .journal import NAME, RESULTS, Journal, Unfinished, read_unfinished
from .options import DRAWN, MODEL_SETTINGS, Seconds, Signals, output_options, settings_options
from .progress import ProgressBar


@click.command()
@click.argument("inputs", nargs=-1, metavar="FILE...")
@settings_options(*MODEL_SETTINGS, "head", *DRAWN)
@output_options
@click.option("--start", type=Seconds(), help="Leave out what comes before, seconds or hh:mm:ss of the video.")
@click.option("--end", type=Seconds(), help="Leave out what comes after.")
@click.option("--vid-stride", "stride", type=click.IntRange(1), default=1, show_default=True, help="Every n-th frame.")
@click.option("--no-audio", "audio", is_flag=True, flag_value=False, default=True, help="Leave the sound out.")
@click.option("--no-video", "video", is_flag=True, flag_value=False, default=True, help="Write results only.")
@click.option("--resume", type=click.Path(path_type=Path), metavar="RUN", help="Go on with a run that was interrupted.")
@click.pass_context
def annotate(
    ctx: click.Context,
    inputs: tuple[str, ...],
    settings: Settings,
    output_dir: Path | None,
    exist_ok: bool,
    resume: Path | None = None,
    **options: Any,
) -> None:
    """Find and read the faces in videos and pictures.

    Each FILE may be a file, a folder (all media below it) or a pattern. Every input gets an annotated copy; all share
    results.jsonl and results.csv. A bad input does not stop the rest, but the exit code tells of it.

    What was interrupted goes on with --resume RUN, the output folder, and nothing else: inputs that were finished stay.
    """
    if not (inputs or resume):
        raise click.MissingParameter(ctx=ctx, param=next(one for one in ctx.command.params if one.name == "inputs"))
    run = _interrupted(ctx, resume) if resume else None
    with Signals() as stop, Analysis(run.job.settings if run else settings) as analysis:
        if run:
            _same_model(run, analysis)
        else:
            part = _checked(Options(**options))
            run = _new(inputs, {**ctx.params, "settings": settings}, part, analysis)
        folder, outcomes, journal = run.job.folder, list(run.outcomes), Journal(run.job.folder)
        earlier, replaced, unread = not resume and (folder / "results.csv").exists(), False, None
        try:
            total = _work(run, analysis, stop, outcomes, journal)
            if total.frames:
                _record(folder, total, outcomes, {**analysis.record(), "arguments": run.arguments})
                replaced = earlier
            if not stop.requested:
                journal.close()
        finally:
            if not any(outcome.complete for outcome in outcomes):
                journal.close()
            runs.discard_empty(folder)
            try:
                _report(outcomes, folder, replaced)
            except BrokenPipeError as error:
                unread = error
            journal.tell()
    code = stop.exit_code or max((outcome.error.exit_code for outcome in outcomes if outcome.error), default=0)
    if unread and not code:
        raise unread
    ctx.exit(code)


def _new(texts: tuple[str, ...], arguments: Mapping[str, Any], part: Options, analysis: Analysis) -> Unfinished:
    """A run of which nothing is finished, with its folder; `arguments` are all that the command was given."""
    settings, given, exist_ok = (arguments[key] for key in ("settings", "output_dir", "exist_ok"))
    if given and not exist_ok and (given / NAME).exists():
        raise OutputError(f"{given}: holds a run that was interrupted; go on with --resume, or begin anew with --exist-ok")
    items = expand(texts)
    name = Path(texts[0]).resolve().name if os.path.isdir(texts[0]) else items[0].path.stem
    folder = runs.output_folder(given, Path(settings.runs_dir) / "annotate", name, exist_ok=exist_ok)
    job = Annotation(items, folder, settings, part)
    job.check_outputs()
    run = Unfinished(job, arguments, analysis.record()["model"])
    Journal(folder).begin(run, analysis.manifest.folder)
    return run


def _interrupted(ctx: click.Context, folder: Path) -> Unfinished:
    """The run that was interrupted; a usage error when anything was named beside it."""
    for param in ctx.command.params:
        given = ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
        if given and param.expose_value and param.name != "resume":
            raise click.UsageError(f"--resume takes all from the run; leave out {param.get_error_hint(ctx)}", ctx)
    return read_unfinished(folder)


def _same_model(run: Unfinished, analysis: Analysis) -> None:
    now = analysis.record()["model"]
    if now != run.model:
        began, here = (f"{one['name']} {one['variant']} ({one['sha256'][:8]})" for one in (run.model, now))
        raise InputError(f"{run.job.folder}: began with the model {began}, here is {here} now; annotate anew")


def _checked(part: Options) -> Options:
    if part.start is not None and part.end is not None and part.end <= part.start:
        raise InputError(f"--end {part.end:g} s: expected a time after --start {part.start:g} s")
    return part


def _work(run: Unfinished, analysis: Analysis, stop: Stop, outcomes: list[Outcome], journal: Journal) -> Report:
    """Work on the inputs that are not finished; `outcomes` grows meanwhile, so that it tells also of a run that fails.

    Returns the sum of all.
    """
    job, total = run.job, Report()
    for outcome in outcomes:
        total = total.merge(outcome.report)
    finished = {outcome.number for outcome in outcomes}
    results = plugins.load("sinks", "results").Sink(
        *(job.folder / name for name in RESULTS), labels=analysis.head.labels, after=run.sizes
    )
    with results, ProgressBar(len(job.inputs), len(finished)) as bar:
        if finished:
            bar.say(f"{len(finished)} of {counted(len(job.inputs), 'input')} were finished before")
        for outcome in job.outcomes(analysis, results, stop, bar.counter, finished):
            outcomes.append(outcome)
            bar.done(outcome)
            total = total.merge(outcome.report)
            outcome.settle()
            if outcome.complete:
                journal.add(outcome, results.sizes())
    outcomes.sort(key=lambda outcome: outcome.number)
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

"""`calmcam annotate`: files in, annotated copies, results and a table out."""

from __future__ import annotations

import os
import shlex
from contextlib import ExitStack
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
from .console import counted, for_tables, main_labels, printable
from .journal import RESULTS, Journal, Unfinished, read_unfinished
from .options import DRAWN, MODEL_SETTINGS, Seconds, Signals, output_options, settings_options
from .progress import ProgressBar


@click.command()
@click.argument("inputs", nargs=-1, metavar="FILE...")
@settings_options(*MODEL_SETTINGS, "head", "unsure_below", *DRAWN)
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

    Each FILE may be a file, a folder (all media below it) or a pattern, or a .txt list of files, one path per line. Every
    input gets an annotated copy; all share results.jsonl and results.csv. A bad input does not stop the rest, but the exit
    code tells of it.

    What was interrupted goes on with --resume RUN, the output folder, and nothing else: inputs that were finished stay.
    """
    if not (inputs or resume):
        raise click.MissingParameter(ctx=ctx, param=next(one for one in ctx.command.params if one.name == "inputs"))
    outcomes: list[Outcome] = []
    unread = None
    with Signals() as stop, ExitStack() as held:
        run = _interrupted(ctx, resume, held) if resume else None
        analysis = held.enter_context(Analysis(run.job.settings if run else settings))
        if run:
            _same_model(run, analysis)
        else:
            job = _begun(inputs, settings, _checked(Options(**options)), output_dir, exist_ok)
            held.enter_context(runs.alone(job.folder))
            run = Unfinished(job, {**ctx.params, "settings": settings}, analysis.record()["model"])
        folder = run.job.folder
        earlier, replaced = not resume and (folder / "results.csv").exists(), False
        try:
            with Journal(run, analysis.manifest.folder) as journal:
                total = _work(run, analysis, stop, outcomes, journal)
                if total.frames:
                    _record(run, total, outcomes, analysis)
                    replaced = earlier
                if not stop.requested:
                    journal.end()
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


def _begun(
    texts: tuple[str, ...], settings: Settings, part: Options, output_dir: Path | None, exist_ok: bool
) -> Annotation:
    """A run that was not there before, with its folder."""
    if output_dir and not exist_ok and os.path.exists(output_dir / runs.UNFINISHED):
        left = f"{output_dir}: holds a run that was interrupted"
        raise OutputError(f"{left}; go on with --resume {output_dir}, or begin anew with --exist-ok")
    items = expand(texts)
    name = Path(texts[0]).resolve().name if os.path.isdir(texts[0]) else items[0].path.stem
    folder = runs.output_folder(output_dir, Path(settings.runs_dir) / "annotate", name, exist_ok=exist_ok)
    job = Annotation(items, folder, settings, part)
    job.check_outputs()
    return job


def _interrupted(ctx: click.Context, folder: Path, held: ExitStack) -> Unfinished:
    """The run that was interrupted, and nobody else's while `held`; a usage error when anything was named beside it."""
    for param in ctx.command.params:
        given = ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
        if given and param.expose_value and param.name != "resume":
            raise click.UsageError(f"--resume takes all from the run; leave out {param.get_error_hint(ctx)}", ctx)
    if os.path.isdir(folder):
        held.enter_context(runs.alone(folder))
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
    for outcome in run.outcomes:
        outcomes.append(outcome)
        total = total.merge(outcome.report)
    finished = {outcome.number for outcome in outcomes}
    results = plugins.load("sinks", "results").Sink(
        *(job.folder / name for name in RESULTS), labels=analysis.head.labels, after=run.sizes[-1] if run.sizes else (0, 0)
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


def _record(run: Unfinished, total: Report, outcomes: list[Outcome], analysis: Analysis) -> None:
    """Write `run.json`; of a run that was resumed, `ms` is of what was done since."""
    files = [
        {"input": outcome.path.absolute(), "name": outcome.name, "output": outcome.output, "error": outcome.error, **outcome.summary}
        for outcome in outcomes
    ]
    about = {**analysis.record(), "arguments": run.arguments, "resumed": run.resumed, "files": files}
    runs.record(run.job.folder, total, about)


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
        table.add_row(*(Text(printable(str(cell))) for cell in (*cells, where)))
    console.print(table)
    if folder.is_dir():
        console.print(f"results in {folder}", soft_wrap=True)
    if (folder / runs.UNFINISHED).exists():
        click.echo(f"go on with calmcam annotate --resume {shlex.quote(str(folder))}", err=True)

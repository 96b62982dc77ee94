"""`calmcam moments`: the best moments of an annotated clip, cut out."""

from __future__ import annotations

import csv
import json
import math
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from .. import plugins, runs
from ..build import open_file
from ..errors import InputError, OutputError, SourceError
from ..files import short, whole
from ..media import PICTURES, VIDEOS
from ..moments import Moment, find, read_results
from ..run import Stop, run
from ..settings import Settings
from ..types import Result, Sink
from .journal import RESULTS
from .options import Signals, output_options, settings_options

LOOSE = 4e-6  # s that times may be off: results have microseconds, the two ends of a recording its clock's ticks
SHOWN = 5  # names in a message
RECORDING = "annotated.mp4"  # what `live --save` writes


@dataclass(frozen=True, slots=True)
class Cut:
    """A clip that was made; times in seconds as `results.jsonl` has them."""

    path: Path
    moment: Moment
    start: float  # where its clock begins
    end: float


class _Reached(Sink):
    """Notes when the newest picture ends, in seconds of what is cut."""

    end = 0.0

    def write(self, result: Result) -> None:
        self.end = (result.frame.time_ns + result.frame.duration_ns) / 1e9


@click.command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path))
@click.option("--label", required=True, help="The expression that is looked for, as in the results or as drawn.")
@click.option("--top", type=click.IntRange(1), default=10, show_default=True, help="How many moments at most.")
@click.option("--least", type=click.FloatRange(0), default=0.5, show_default=True, help="Shortest moment, seconds.")
@click.option(
    "--most",
    type=click.FloatRange(0, min_open=True),
    default=30.0,
    show_default=True,
    help="Longest, seconds; a longer one comes apart, its surest part first.",
)
@click.option(
    "--gap", type=click.FloatRange(0), default=1.0, show_default=True, help="Longest pause within one, seconds."
)
@click.option(
    "--around",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Kept before and after, seconds; less where another moment is near.",
)
@click.option("--original", is_flag=True, help="Cut the clips themselves instead of their annotated copies.")
@settings_options()
@output_options
@click.pass_context
def moments(
    ctx: click.Context, folder: Path, settings: Settings, output_dir: Path | None, exist_ok: bool, **options: Any
) -> None:
    """Cut the best moments out of what was annotated.

    RUN is the folder that `calmcam annotate` or `live --save` has filled. The moments in which a face shows LABEL are
    ranked by confidence, beyond that of chance, times length; each becomes an MP4 with its sound (`live --save` records
    none), and moments.csv says when they were, and from where to where each was cut (cut_start, cut_end).
    """
    folder = _run_folder(folder)
    label, original, first = options["label"], options["original"], {}
    lines = _noting(first, read_results(folder / "results.jsonl"))
    found = find(lines, label, gap=options["gap"], least=options["least"], most=options["most"])
    if not found:
        click.echo(f"no moment of {label!r} in {folder}; a lower --least or a longer --gap may find some")
        return
    sources = dict.fromkeys(one.source for one in found)
    clips, blurred = _clips(folder, sources, original)
    if set(clips.values()) == {folder / RECORDING}:  # of a folder of pictures it has many sources, and one clock
        first = dict.fromkeys(first, min(first.values()))
    chosen = [one for one in found if one.source in clips][: options["top"]]
    if lacking := [source for source in sources if source not in clips]:
        more = f" and {len(lacking) - SHOWN} more" if len(lacking) > SHOWN else ""
        again = "annotate it again with --blur and without --no-video"
        mend = "" if original else f"; {again if blurred else 'try --original, which cuts videos themselves'}"
        what = "video" if original else "annotated clip"
        lack = f"{folder}: holds no {what} of {', '.join(lacking[:SHOWN])}{more}{mend}"
        if not chosen:
            raise InputError(lack)
        click.echo(lack, err=True)
    if original and blurred:
        click.echo(f"{folder}: the run was annotated with --blur, these clips show the faces unblurred", err=True)
    with Signals() as stop:
        name = f"{folder.resolve().name}_{_plain(found[0].label)}"
        out = runs.output_folder(output_dir, Path(settings.runs_dir) / "moments", name, exist_ok=exist_ok)
        try:
            if out.resolve() == folder.resolve():
                raise OutputError(f"{out}: the moments would replace the run itself; name another folder with -o")
            made, failed = _cut(chosen, clips, {} if original else first, out, options["around"], stop)
            if made:
                _write_table(out / "moments.csv", made)
                runs.end(out, {"arguments": {**ctx.params, "settings": settings}})
                click.echo(f"results in {out}")
        finally:
            runs.discard_empty(out)
    ctx.exit(stop.exit_code or max((error.exit_code for error in failed), default=0))


def _run_folder(path: Path) -> Path:
    """The folder of a run, which may be named by its results; InputError for another file."""
    if path.name in RESULTS and not os.path.isdir(path):
        return path.parent
    if os.path.isfile(path):
        do = f"; first calmcam annotate {shlex.quote(str(path))}" if path.suffix.lower() in VIDEOS else ""
        if path.with_name("results.jsonl").exists():
            do = f"; name {path.parent}"
        raise InputError(f"{path}: expected the folder of a run, got a file{do}")
    return path


def _noting(first: dict[str, float], lines: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The lines, while the time of each source's first one is noted."""
    for line in lines:
        first.setdefault(line["source"], line["t"])
        yield line


def _clips(folder: Path, sources: Iterable[str], original: bool) -> tuple[dict[str, Path], bool]:
    """What each source, as the results name it, is cut from, and whether faces were blurred in what was drawn.

    InputError when `run.json` does not tell of the run.
    """
    path = folder / "run.json"
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        blurred = bool(about.get("arguments", {}).get("settings", {}).get("blur"))
        if about.get("files") is None:  # of a camera
            if original:
                raise InputError(f"{folder}: was recorded live, where no original is kept; leave --original out")
            return dict.fromkeys(sources, folder / RECORDING), blurred
        return dict(_annotated(folder, about["files"], original)), blurred
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: expected what calmcam annotate or live --save wrote ({error})") from error


def _annotated(folder: Path, files: Sequence[dict], original: bool) -> Iterator[tuple[str, Path]]:
    for file in files:
        given, copy = Path(file["input"]), Path(file["output"] or "")
        video = copy.suffix == ".mp4" if file["output"] else given.suffix.lower() not in PICTURES
        if video and (original or file["output"]):
            clip = given if original else folder / copy.name
            yield file.get("name", given.name), clip


def _cut(
    chosen: Sequence[Moment],
    clips: Mapping[str, Path],
    first: Mapping[str, float],
    out: Path,
    around: float,
    stop: Stop,
) -> tuple[list[Cut], list[InputError]]:
    """Write a file for each moment; returns those that were made, and what could not be read.

    `first` is the time in the results of each source's first picture, with which its copy begins; nothing of originals,
    whose time it is.
    """
    made: list[Cut] = []
    failed: list[InputError] = []
    for number, moment in enumerate(chosen, start=1):
        clip = clips[moment.source]
        output = out / f"{number:02d}_{_plain(moment.label)}_{_stem(moment.source)}_{_clock(moment.start)}.mp4"
        earlier, reached = _version(output), _Reached()
        try:
            begins = plugins.load("sources", "video").begins(clip)
            late = first.get(moment.source, begins) - begins + LOOSE
            start, end = (t - late for t in _widened(moment, chosen, around))
            part = {"start": max(0.0, start), "end": end}
            sink = plugins.load("sinks", "video").Sink(output, audio_from=clip, **part)
            run(open_file(clip, **part), [], [sink, reached], live=False, draw=_as_it_is, stop=stop)
        except SourceError as error:
            failed.append(error.with_traceback(None))
            click.echo(f"{error}", err=True)
        written = _version(output) != earlier
        if stop.requested:
            if written:
                output.unlink(missing_ok=True)  # it lacks its end
            break
        if written:
            made.append(Cut(output, moment, part["start"] + late, reached.end + late))
            click.echo(f"{output}: {moment.end - moment.start:.1f} s, confidence {moment.confidence:.2f}")
    return made, failed


def _version(path: Path) -> tuple[int, int] | None:
    """Tells whether a file is still the one that was there; None without one."""
    try:
        about = path.stat()
    except FileNotFoundError:
        return None
    return about.st_ino, about.st_mtime_ns


def _widened(moment: Moment, chosen: Sequence[Moment], around: float) -> tuple[float, float]:
    """Start and end of what is cut out, `around` seconds more on both sides but no second that another one shows."""
    others = [other for other in chosen if other.source == moment.source and other is not moment]
    before = [(other.end + moment.start) / 2 for other in others if other.end <= moment.start]
    after = [(moment.end + other.start) / 2 for other in others if other.start >= moment.end]
    return max(moment.start - around, *before, -math.inf), min(moment.end + around, *after, math.inf)


def _as_it_is(result: Result) -> np.ndarray:
    return result.frame.image


def _write_table(path: Path, rows: Sequence[Cut]) -> None:
    with whole(path) as part, part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file:
        table = csv.writer(file)
        table.writerow(("file", "label", "source", "start", "end", "peak", "confidence", "cut_start", "cut_end"))
        for cut in rows:
            moment = cut.moment
            figures = (moment.start, moment.end, moment.peak, moment.confidence, cut.start, cut.end)
            table.writerow((cut.path.name, moment.label, moment.source, *(f"{figure:.3f}" for figure in figures)))


def _plain(label: str) -> str:
    """A label as part of a file's name."""
    return label.replace("/", "_")


def _stem(source: str) -> str:
    """A source's name without a media file's ending, so far as a file's name can hold it."""
    path = Path(source)
    return short(path.stem if path.suffix.lower() in VIDEOS else path.name)


def _clock(seconds: float) -> str:
    minutes, second = divmod(int(seconds), 60)
    return f"{minutes // 60:02d}-{minutes % 60:02d}-{second:02d}"

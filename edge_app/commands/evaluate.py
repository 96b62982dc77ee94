"""`calmcam evaluate MODEL... --data DIR`: the report card of what will run, on a labelled folder."""

from __future__ import annotations

import csv
import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from .. import devices, runs
from ..build import open_detector
from ..catalogue import check_answer
from ..errors import SettingsError, SourceError
from ..files import whole
from ..labels import same
from ..manifest import choose_head, find_model, installed
from ..scoring.evaluate import Ensemble, Member, Row, rows
from ..scoring.labelled import Exclusions, Sample, labelled, read_exclusions
from ..scoring.tally import Tally
from ..seen import mark, read_seen
from ..settings import Settings
from ..types import Stage
from .card_tables import show
from .console import Console, echo_json
from .crop import is_cut
from .options import Signals, output_options, settings_options

COLUMNS = ("picture", "truth", "answer", "confidence", "detect_answer", "detect_confidence", "problem")


def _no_pictures(ctx: click.Context, _: click.Parameter, models: tuple[str, ...]) -> tuple[str, ...]:
    """The models; SettingsError for a folder that is none, where --data, which is read first, was not given."""
    for name in models if "data" not in ctx.params else ():
        files = ("manifest.json", "recipe.yaml")
        if os.path.isdir(name) and not same(name, installed()) and not any((Path(name) / one).exists() for one in files):
            raise SettingsError(f"{name}: no model; pictures go to --data {shlex.quote(name)}")
    return models


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", callback=_no_pictures)
@click.option(
    "--data",
    required=True,
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder of <class>/ folders of cut faces.",
)
@settings_options("head", "unsure_below", "variant", "device", "threads", "detector", "conf", "min_size")
@click.option(
    "--detect",
    is_flag=True,
    help="The whole path too: the face picture on a plain canvas, face found, cropped, classified.",
)
@click.option("--margin", type=click.FloatRange(-0.5, 2, min_open=True), help="With --detect: crop margin to try.")
@click.option("--shift", type=click.FloatRange(-1, 1), help="With --detect: crop shift to try.")
@click.option("--align", type=click.Choice(["none", "roll"]), help="With --detect: crop alignment to try.")
@click.option(
    "--exclude",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Lists what to leave out, a line each: a file, the end of a path, a sha256, or class/.",
)
@output_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def evaluate(
    ctx: click.Context, models: tuple[str, ...], data: Path, settings: Settings, as_json: bool, **flags: Any
) -> None:
    """Report card of a MODEL (an installed name, or a folder) on labelled pictures; several models are averaged.

    Writes report.json, confusion.png, reliability.png, predictions.csv and run.json into a folder in runs/evaluate/. In
    predictions.csv confidence and p_* are of the ready crop; with --detect, detect_* are of the whole path, empty where no
    face was found.
    --margin, --shift and --align replace the manifest's, to choose them on pictures that the score is not taken from.
    The exit code is 2 when a picture could not be read.
    """
    exclude = read_exclusions(flags["exclude"]) if flags["exclude"] else Exclusions()
    crop = {name: flags[name] for name in ("margin", "shift", "align") if flags[name] is not None}
    if crop and not flags["detect"]:
        raise SettingsError(f"--{min(crop)} crops what the detector finds; it needs --detect")
    with Signals() as signals, ExitStack() as stack:
        ensemble = open_models(models, settings, crop, stack)
        samples, excluded = labelled(data, ensemble.labels, exclude)
        find = stack.enter_context(closing(open_detector(settings)[1])) if flags["detect"] else None
        folder = _folder(ensemble, settings, flags["output_dir"], flags["exist_ok"])
        tally = _work(samples, ensemble, find, folder, signals)
    seen, new = _seen(samples, tally, ensemble)
    told = {"folder": str(folder), "data": str(data), "excluded": excluded, "seen": seen}
    card = {**told, **_subject(ensemble), **tally.card(new)}
    _write(folder, card, {"arguments": {"models": models, "data": data, **flags}, "settings": settings})
    code = signals.exit_code or (SourceError.exit_code if tally.unreadable else 0)
    try:
        (echo_json if as_json else show)(card)
    except BrokenPipeError:
        if not code:
            raise
    ctx.exit(code)


def open_models(names: Iterable[str], settings: Settings, crop: dict[str, Any], stack: ExitStack) -> Ensemble:
    """The named models, opened as the settings say, with `crop` in place of their own; the caller's `stack` closes them."""
    members = []
    for name in names:
        manifest = find_model(name)
        manifest = replace(manifest, crop=replace(manifest.crop, **crop))
        chosen = choose_head(manifest, settings.head, settings.unsure_below)
        variant, _ = devices.choose(manifest, settings.variant, settings.device)
        artifact = manifest.artifact(variant)
        backend = devices.open_backend(artifact, threads=settings.threads)
        stack.callback(backend.close)
        check_answer(manifest, artifact, backend)
        members.append(Member(manifest, variant, artifact, chosen, backend))
    return Ensemble(members)


def _folder(ensemble: Ensemble, settings: Settings, given: Path | None, exist_ok: bool) -> Path:
    name = "+".join(dict.fromkeys(member.manifest.name for member in ensemble.members))
    return runs.output_folder(given, Path(settings.runs_dir) / "evaluate", name, exist_ok=exist_ok)


def _work(samples: list[Sample], ensemble: Ensemble, find: Stage | None, folder: Path, signals: Signals) -> Tally:
    """Look at all pictures; a signal ends it, and nothing is left."""
    tally = Tally(ensemble.labels, ensemble.unsure_below, detect=find is not None)
    photos = 0
    with _predictions(folder, ensemble.labels) as write, _progress(len(samples)) as advance:
        for row in rows(samples, ensemble, find):
            tally.add(row)
            photos += row.size is not None and not is_cut(*row.size)
            write(row)
            advance()
            if signals.exit_code:
                click.echo("stopped; nothing was kept", err=True)
                raise click.exceptions.Exit(signals.exit_code)
        if tally.unreadable and not len(tally):
            raise SourceError(f"none of the {len(samples)} pictures can be read; {tally.unreadable[0][1]}")
    if 2 * photos > len(tally):
        click.echo("these look like whole photos, not cut faces; cut them with calmcam crop first", err=True)
    return tally


def _seen(samples: list[Sample], tally: Tally, ensemble: Ensemble) -> tuple[dict[str, Any] | None, list[bool]]:
    """How many of the pictures that were read a model was made with, and what that means; None where none says with which.
    And of each of them whether it is new."""
    lists = [marks for member in ensemble.members if (marks := read_seen(member.manifest)) is not None]
    if not lists:
        return None, []
    known, unread = frozenset().union(*lists), {name for name, _ in tally.unreadable}
    new = [mark(sample.path) not in known for sample in samples if sample.name not in unread]
    count = len(new) - sum(new)
    told = f"{count:,} of {len(tally):,} pictures were learnt from (or chosen on): this is no score of new faces"
    return {"count": count, "note": told if count else ""}, new


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    console = Console(stderr=True, emoji=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("pictures", total=total)
        yield lambda: progress.advance(task)


@contextmanager
def _predictions(folder: Path, labels: tuple[str, ...]) -> Iterator[Callable[[Row], None]]:
    """Write `predictions.csv`, one line per picture; nothing is left of it when the work fails or is stopped."""
    try:
        with (
            whole(folder / "predictions.csv") as part,
            part.open("w", encoding="utf-8", errors="surrogateescape", newline="") as file,  # of any name
        ):
            lines = csv.writer(file)
            lines.writerow([*COLUMNS, *(f"{of}p_{label}" for of in ("", "detect_") for label in labels)])
            yield lambda row: lines.writerow(_line(row, labels))
    finally:
        runs.discard_empty(folder)


def _line(row: Row, labels: tuple[str, ...]) -> list[object]:
    """One line of `predictions.csv`: of the picture taken as a crop, and of the face found in it."""
    answers: list[object] = []
    each: list[object] = []
    for probs in (row.ready, row.found):
        answers += ["", ""] if probs is None else [labels[int(probs.argmax())], f"{probs.max():.4f}"]
        each += [""] * len(labels) if probs is None else [f"{p:.5f}" for p in probs]
    return [row.sample.name, labels[row.sample.truth], *answers, row.problem, *each]


def _subject(ensemble: Ensemble) -> dict[str, Any]:
    members = [
        {"name": m.manifest.name, "variant": m.variant, "file": m.artifact.path.name, "sha256": m.artifact.sha256,
         "device": m.backend.device, "crop": asdict(m.manifest.crop)} for m in ensemble.members
    ]  # fmt: skip
    return {"models": members, "head": ensemble.members[0].head.name}


def _write(folder: Path, card: dict[str, Any], call: dict[str, Any]) -> None:
    """`report.json`, the pictures of the whole path if it was walked, otherwise of the ready crops, and `run.json`."""
    from ..scoring import plots

    judged = card["detect"] or card["ready"]
    title = " + ".join(f"{model['name']} {model['variant']}" for model in card["models"])
    matrix, bars = judged["confusion"], judged["calibration"]
    plots.confusion(folder / "confusion.png", matrix["matrix"], matrix["truths"], matrix["answers"], title)
    plots.reliability(
        folder / "reliability.png", bars["confidence"], bars["accuracy"], bars["count"], bars["ece"], title
    )
    runs.write_record(folder, card, "report.json")
    runs.end(folder, {"models": card["models"], **call})

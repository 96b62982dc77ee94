"""`calmcam models list|show|verify`: what is installed, what it can do, whether its files are whole."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from .. import devices, plugins
from ..catalogue import CARD, Entry, best_score, chief_scores, entries, named, score_text, trials
from ..errors import ManifestError
from ..manifest import Head, Manifest
from .console import echo_json, for_tables

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(invoke_without_command=True)
@click.pass_context
def models(ctx: click.Context) -> None:
    """List, show and verify models; without a word more it lists them."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_models)


@models.command("list")
@click.argument("folder", required=False, type=click.Path(path_type=Path))
@as_json_option
def list_models(folder: Path | None = None, as_json: bool = False) -> None:
    """Installed models, or those in FOLDER."""
    found = entries(folder)
    if as_json:
        echo_json([_plain(entry) for entry in found], default=str)
        return
    table = Table("model", "task", "heads", "files", "best score", box=None, pad_edge=False)
    for entry in found:
        table.add_row(*(Text(cell) for cell in _row(entry)))
    console = for_tables(200)
    console.print(table)
    for entry in found:
        if entry.manifest is None:
            console.print(f"broken: {entry.problem}", soft_wrap=True)


@models.command(short_help="What MODEL is.")
@click.argument("model")
@as_json_option
def show(model: str, as_json: bool) -> None:
    """What MODEL (a name, or a folder) is: heads, crop, files, scores, data, licence, how it was made."""
    entry = named((model,))[0]
    if entry.manifest is None:
        raise ManifestError(entry.problem)
    if as_json:
        echo_json(_plain(entry), default=str)
        return
    table = Table("", "", box=None, pad_edge=False, show_header=False)
    for name, text in _facts(entry.manifest):
        table.add_row(name, Text(text))
    for_tables(200).print(table)


@models.command(short_help="Check every file of MODEL.")
@click.argument("names", nargs=-1, metavar="[MODEL]...")
@as_json_option
@click.pass_context
def verify(ctx: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """Check every file of MODEL (default: all): size, hash, loading, tensors, an answer. Exit code 1 when one fails."""
    rows: list[dict[str, Any]] = []
    for entry in named(names):
        if entry.manifest is None:
            rows.append({"model": entry.folder.name, "variant": "", "good": False, "text": entry.problem})
        else:
            rows += [asdict(trial) for trial in trials(entry.manifest, devices.open_backend, _detector)]
    if as_json:
        echo_json(rows)
    else:
        for row in rows:
            state = click.style("ok" if row["good"] else "broken", fg="green" if row["good"] else "red")
            click.echo(f"{state} {row['model']} {row['variant']}: {row['text']}")
    ctx.exit(0 if all(row["good"] for row in rows) else 1)


def _detector(path: Path) -> Any:
    return plugins.load("tasks", "face_detection").Stage(path)


def _row(entry: Entry) -> tuple[str, ...]:
    manifest = entry.manifest
    if manifest is None:
        return entry.folder.name, "broken", "", "", ""
    heads = "\n".join(f"{head.name}: {' '.join(head.labels)}" for head in manifest.heads)
    files = "\n".join(f"{variant} {_size(artifact.bytes)}" for variant, artifact in manifest.artifacts.items())
    best = score_text(best_score(manifest), of_head=len(manifest.heads) > 1) if manifest.heads else ""
    return manifest.folder.absolute().name, manifest.task, heads, files, best


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    crop = manifest.crop
    card = manifest.folder / CARD
    facts = [("model", manifest.folder.absolute().name), ("task", manifest.task), ("folder", str(manifest.folder))]
    facts += [("head", _head(head)) for head in manifest.heads]
    if manifest.heads:
        facts.append(
            ("crop", f"margin {crop.margin:g}, shift {crop.shift:g} of the longer side, alignment {crop.align}")
        )
    for variant, artifact in manifest.artifacts.items():
        size, spec = _size(artifact.bytes), artifact.input
        takes = f", takes {spec.width} x {spec.height} {spec.colour} {spec.dtype}" if spec else ""
        facts.append(("file", f"{variant}: {artifact.path.name}, {size}{takes}, sha256 {artifact.sha256}"))
        if (version := artifact.compiler.get("compiler", "unknown")) != "unknown":
            facts.append(("compiled", f"{variant} with the Dataflow Compiler {version}"))
    facts += [("score", score_text(score, of_head=len(manifest.heads) > 1)) for score in chief_scores(manifest)]
    facts += [("data", manifest.data), ("licence", manifest.licence), ("made by", manifest.command)]
    facts.append(("card", str(card) if card.is_file() else "none"))
    return [(name, text) for name, text in facts if text]


def _head(head: Head) -> str:
    confidences = "confidences are not calibrated"
    if head.temperature != 1 or head.unsure_below:
        confidences = f"temperature {head.temperature:g}, unsure below {head.unsure_below:g}"
    return f"{head.name}: {head.kind} over {', '.join(head.labels)}; {confidences}"


def _plain(entry: Entry) -> dict[str, Any]:
    """An entry as JSON values: the manifest as it is read, or why it cannot be."""
    if entry.manifest is None:
        return {"name": entry.folder.name, "folder": str(entry.folder), "problem": entry.problem}
    best = best_score(entry.manifest)
    return {**asdict(entry.manifest), "best_score": best, "problem": ""}


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"

"""`calmcam compile`: from a model folder to a HEF."""

from __future__ import annotations

from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path

import click

from edge_app.build import expression_model
from edge_app.commands.console import counted
from edge_app.commands.options import output_options, settings_options
from edge_app.errors import BackendUnavailable, MissingPackage, ModelError, SettingsError
from edge_app.hailo_checks import fits, present
from edge_app.hailo_probe import identify
from edge_app.runs import free
from edge_app.settings import Settings

STATES = {"ok": "green", "warning": "yellow", "refused": "red"}


@click.command(name="compile")
@click.argument("model")
@click.option(
    "--arch", type=click.Choice(["hailo8", "hailo8l"]), help="Chip to compile for; default: this computer's, else hailo8."
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="At least 1,088 faces: the .npz that export wrote, or a folder that calmcam crop filled.",
)
@output_options
@click.option(
    "--level", type=click.IntRange(0, 4), default=1, show_default=True, help="Optimisation level; 2 and up want a GPU."
)
@click.option("--preflight", is_flag=True, help="Only judge; needs no compiler.")
@click.option("--prepare", is_flag=True, help="Stop at the bundle that is carried to a machine with the compiler.")
@click.option("--import", "bundle", type=click.Path(path_type=Path), help="Take the HEF of a compiled bundle.")
@click.option("--allow-downgrade", is_flag=True, help="Accept what the compiler's log says about lower optimisation.")
@settings_options()
def compile_command(
    settings: Settings,
    model: str,
    arch: str | None,
    calibration: Path | None,
    output_dir: Path | None,
    exist_ok: bool,
    level: int,
    preflight: bool,
    prepare: bool,
    bundle: Path | None,
    allow_downgrade: bool,
) -> None:
    """Compile MODEL (name or folder) to a HEF for the Hailo-8, with preflight, calibration and parity gates.

    The output folder holds the bundle that is compiled, with the compiler's log; with --exist-ok it replaces a bundle.
    """
    from .bundle import read_bundle, write_bundle
    from .compile import import_bundle, run_bundle

    manifest = expression_model(model)
    if bundle:
        _registered(import_bundle(bundle, manifest), read_bundle(bundle)["arch"])
        return
    arch = arch or _chip_here()
    crops = _judge(manifest, arch, calibration, settings)
    if preflight:
        return
    if crops is None:
        raise SettingsError(
            "compile needs --calibration with at least 1,088 faces: the .npz that `calmcam export` wrote, or a folder of cut faces"
        )
    folder = output_dir or free(Path(settings.runs_dir) / "compile", f"{manifest.name}_{arch}")
    write_bundle(manifest, arch, crops, folder, level=level, exist_ok=exist_ok)
    for line in run_bundle(folder, "--check"):
        click.echo(line)
    mend = f"run its compile.py where the Dataflow Compiler is, then here calmcam compile {model} --import {folder}"
    if prepare:
        click.echo(f"{folder}: ready; {mend}")
        return
    if find_spec("hailo_sdk_client") is None:
        raise MissingPackage(f"the Dataflow Compiler is not here; {folder} is ready to be carried: {mend}")
    for line in run_bundle(folder, *(["--allow-downgrade"] if allow_downgrade else [])):
        click.echo(line)
    _registered(import_bundle(folder, manifest), arch)


def _chip_here() -> str:
    """The chip that this computer has, for which a HEF is wanted most likely; hailo8 without one."""
    try:
        return fits(identify())[0] if present() else "hailo8"
    except (BackendUnavailable, IndexError) as error:
        raise SettingsError(f"the Hailo here does not say which it is ({error}); say --arch hailo8 or hailo8l") from error


def _judge(manifest, arch: str, calibration: Path | None, settings: Settings):
    """Print the preflight's verdicts; returns the crops; ModelError when something is refused."""
    from . import preflight
    from .crops import read_calibration
    from .faces import face_finder
    from .graph import read_graph

    if "float32" not in manifest.artifacts:
        raise ModelError(
            f"{manifest.name}: has no float32 file, which is what is compiled; calmcam export RUN --variants float32,int8"
        )
    artifact = manifest.artifact("float32")
    graph, crops = read_graph(artifact.path), None
    if calibration:
        crops = read_calibration(calibration, artifact.input)
    with face_finder(settings) if calibration else nullcontext() as has_face:
        verdicts = preflight.preflight(graph, arch, crops, has_face)
    for (state, what, text, source), layers in _grouped(verdicts).items():
        where = f" (layers {' '.join(layers)})" if any(layers) else ""
        click.echo(f"{click.style(f'{state:8}', fg=STATES[state])} {what:20} {text} [{source}]{where}")
    counts = {state: sum(verdict.state == state for verdict in verdicts) for state in STATES}
    click.echo(f"{manifest.name} on {arch}: " + ", ".join(f"{n} {state}" for state, n in counts.items()))
    if counts["refused"]:
        raise ModelError(f"{manifest.name}: the preflight refuses {counted(counts['refused'], 'point')}, see above")
    return crops


def _grouped(verdicts) -> dict[tuple[str, str, str, str], list[str]]:
    """Layer numbers by state, kind, text and source: a network has few kinds of layers and many of each."""
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    for verdict in verdicts:
        number, _, kind = verdict.what.strip().partition(" ")
        what, layer = (kind, number) if number.isdecimal() else (verdict.what, "")
        groups.setdefault((verdict.state, what, verdict.text, verdict.source), []).append(layer)
    return groups


def _registered(manifest, arch: str) -> None:
    artifact = manifest.artifact(arch)
    click.echo(f"{artifact.path}: {artifact.bytes:,} bytes, registered as {manifest.name}/{arch}")

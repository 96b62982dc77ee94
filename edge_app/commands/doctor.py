"""`calmcam doctor`: what is there, what is broken, and the line that mends it."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import click

from ..errors import CalmcamError, SettingsError
from ..files import may_be_there
from ..health import hailo, host, pi, service
from ..health.checks import BROKEN, OK, WARNING, Check, Machine
from ..manifest import find_model
from ..settings import default_path, filled, read_settings
from .console import echo_json

COLOURS = {OK: "green", WARNING: "yellow", BROKEN: "red"}


def examine(machine: Machine, config: Path | None = None) -> list[Check]:
    """Every check of this computer, and of the settings file that is named or found."""
    found = [host.checks(machine), pi.checks(machine), hailo.checks(machine, _model(config)), service.checks(machine)]
    return [*(check for part in found for check in part), settings(config)]


def _model(config: Path | None) -> str:
    """The model that the settings name; "" where `settings` says what is wrong with them."""
    try:
        return read_settings(config).model
    except CalmcamError:
        return ""


def settings(config: Path | None) -> Check:
    """Whether the settings can be read, and the model and the password are there that they name."""
    path = config or default_path()
    try:
        found = read_settings(config)
        find_model(found.model)
    except CalmcamError as error:
        closed = isinstance(error.__cause__, PermissionError)
        return Check("settings", BROKEN, str(error), "ask again with sudo" if closed else f"correct {path}")
    try:
        filled(found.source + (found.mqtt or ""))
    except SettingsError as error:
        text, _, mend = str(error).partition("; ")
        return Check("settings", WARNING, f"{path}: {text}", f"{mend} (the service reads /etc/calmcam.env)")
    lack = "may not be looked at" if may_be_there(path) else "is not there"
    return Check("settings", OK, str(path) if os.path.isfile(path) else f"the defaults; {path} {lack}")


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """What is there, what is broken, and the line that mends it; exit code 1 when something is broken."""
    found = examine(Machine(), getattr(ctx.find_root().obj, "config", None))
    broken = sum(check.state == BROKEN for check in found)
    if as_json:
        echo_json({"broken": broken, "checks": [asdict(check) for check in found]})
    else:
        show(found)
    ctx.exit(1 if broken else 0)


def show(found: list[Check]) -> None:
    """One line per check, and the sum."""
    wide = max(len(check.name) for check in found)
    for check in found:
        state = click.style(f"{check.state:<8}", fg=COLOURS[check.state], bold=check.state == BROKEN)
        mend = f"; mend: {check.mend}" if check.mend else ""
        click.echo(f"{state} {check.name:<{wide}}  {check.text}{mend}")
    counts = [(sum(check.state == state for check in found), state) for state in (OK, WARNING, BROKEN)]
    click.echo(", ".join(f"{count} {state}" for count, state in counts if count))

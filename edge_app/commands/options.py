"""What several commands share: flags that are settings, the output folder, signals."""

from __future__ import annotations

import functools
import re
import signal
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import FrameType
from typing import Any

import click
from click.shell_completion import CompletionItem

from ..manifest import installed
from ..run import Stop
from ..settings import CHOICES, PLACES, RANGES, Settings, read_settings
from ..signals import heard

HELP = {
    "source": "Camera number or device, usb, picamera or rpi, file, URL, or synthetic.",
    "model": "Installed model, or a folder with a manifest.json.",
    "head": "Which head of the model; default: the first.",
    "unsure_below": "Confidence below which the answer is unsure; default: the model's own.",
    "variant": "Which file of the model: int8, float32, ...; default: what suits the device.",
    "device": "What classifies.",
    "threads": "Threads of each CPU interpreter.",
    "detector": "BlazeFace range: full for a room, short for a face close by.",
    "conf": "Detector confidence below which a face is ignored.",
    "max_faces": "Most faces per frame.",
    "min_size": "Shorter side in pixels below which a face is ignored.",
    "labels": "Language of the drawn labels.",
    "blur": "Pixelate the faces in what is drawn.",
    "bars": "Draw the probabilities beside each face.",
    "hud": "Draw the line in the corner: time, or rate, age and device.",
    "width": "Picture width asked of the camera, pixels; default: 1280.",
    "height": "Picture height asked of the camera, pixels; default: 720.",
    "fps": "Frames per second asked of the camera; default: 30.",
    "rotate": "Turn the pictures by so many degrees clockwise.",
    "mirror": "Change left and right over, after turning.",
    "save": "Write annotated video and results; -o says where, and implies it.",
    "json": "Write result lines (JSONL) to standard output.",
    "web": "Show it to browsers, port 8080 if none is named; without HOST to this computer only.",
    "mqtt": "Tell an MQTT broker who is there and what they show: mqtt://HOST/PREFIX.",
}
METAVARS = {
    "source": "PLACE",
    "model": "NAME|DIR",
    "head": "NAME",
    "variant": "NAME",
    "web": "[HOST:]PORT",
    "mqtt": "URL",
}
UNNAMED = {"web": "8080"}  # what a flag stands for that comes without a value
WHOLE = ("threads", "max_faces", "min_size", "width", "height", "rotate")
NUMBERS = dict.fromkeys(("unsure_below", "conf", "fps"), float) | dict.fromkeys(WHOLE, int)
DRAWN = ("labels", "blur", "bars", "hud")
MODEL_SETTINGS = ("model", "variant", "device", "threads", "detector", "conf", "max_faces", "min_size")


def settings_options(*names: str) -> Callable:
    """Add a flag per named setting; the command is called with `settings`: flag over file over default."""

    def decorate(command: Callable) -> Callable:
        @functools.wraps(command)
        def wrapped(*args: Any, **values: Any) -> Any:
            flags = {name: values.pop(name) for name in names}
            known = click.get_current_context().find_root().obj
            return command(*args, settings=read_settings(getattr(known, "config", None)).merged(flags), **values)

        for name in reversed(names):
            wrapped = _option(name)(wrapped)
        return wrapped

    return decorate


def as_flags(settings: Settings) -> list[str]:
    """What a command must be given to look at faces with these settings: every flag of `MODEL_SETTINGS` that is set."""
    values = {name: getattr(settings, name) for name in MODEL_SETTINGS}
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value is not None]


def output_options(command: Callable) -> Callable:
    """Add `-o/--output-dir` and `--exist-ok`."""
    path = click.Path(path_type=Path)
    allow = "Allow an output folder that holds something already; results there are replaced."
    command = click.option("--exist-ok", is_flag=True, help=allow)(command)
    return click.option(
        "-o", "--output-dir", type=path, metavar="DIR", help="Output folder; default: a new one in runs/COMMAND/."
    )(command)


def _option(name: str) -> Callable:
    default, text = getattr(Settings(), name), HELP[name]
    if default not in (None, False):
        text += f"  [default: {name if default is True else default}]"
    flag = f"--{name.replace('_', '-')}"
    if isinstance(default, bool):
        return click.option(f"{flag}/--no-{name}", name, default=None, help=text)
    how = {"is_flag": False, "flag_value": UNNAMED[name]} if name in UNNAMED else {}
    how |= {"type": NUMBERS.get(name, str), "metavar": _metavar(name), "shell_complete": _complete}
    return click.option(flag, name, default=None, help=text, **how)


def _metavar(name: str) -> str | None:
    if name in RANGES:
        return "{}..{}".format(*RANGES[name])
    return "|".join(map(str, CHOICES[name])) if name in CHOICES else METAVARS.get(name)


def _complete(_: click.Context, param: click.Parameter, begun: str) -> list[CompletionItem]:
    """What the tab key offers for the value of a setting."""
    names = installed() if param.name == "model" else CHOICES.get(param.name, ())
    found = [CompletionItem(name) for name in map(str, names) if name.startswith(begun)]
    return found or [CompletionItem(begun, type="file")] * (param.name in PLACES)


class Seconds(click.ParamType):
    """A time in seconds, `mm:ss` or `hh:mm:ss`, with decimals."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds >= 0; a usage error for anything else."""
        if isinstance(value, float):
            return value
        if not re.fullmatch(r"(\d+:){0,2}\d+(\.\d+)?", str(value).strip()):
            self.fail(f"expected seconds or hh:mm:ss, got {value!r}", param, ctx)
        seconds = 0.0
        for part in str(value).split(":"):
            seconds = seconds * 60 + float(part)
        return seconds


class ClockRange(click.FloatRange):
    """A range of what a clock can count, 0.001 to 1e9 or 0; infinity and NaN pass through click's own."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """A usage error for anything else."""
        number = super().convert(value, param, ctx)
        if number and not 1e-3 <= number <= 1e9:
            self.fail(f"expected a number from 0.001 to 1e9, got {value}", param, ctx)
        return number


class Signals(Stop, AbstractContextManager):
    """A stop that, while open, Ctrl-C, SIGTERM and a lost terminal request; a later second one ends at once.

    Not one within REPEATED seconds: who holds Ctrl-C down, or hits it twice, means one.
    """

    REPEATED = 1.0
    number = 0

    @property
    def exit_code(self) -> int:
        """128 + the signal's number, the shell's convention; 0 when none came."""
        return 128 + self.number if self.number else 0

    def __enter__(self) -> Signals:
        self._heard = heard(self._handle, signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        self._heard.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._heard.__exit__(None, None, None)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if not self.number:
            self.number, self._since = number, time.monotonic()
            self()
        elif time.monotonic() - self._since > self.REPEATED:
            signal.signal(number, signal.SIG_DFL)
            raise SystemExit(128 + number)

"""How a live run is told in a terminal: one line that renews itself, or a log line now and then; and a summary."""

from __future__ import annotations

import json
import os
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
from rich import console as rich
from rich.live import Live
from rich.text import Text

from ..files import stamp, takes_utf8
from ..report import Report
from ..run import Stop
from ..types import Result, Sink

ON_TERMINAL_S = 0.2
IN_LOG_S = 10.0
SELDOM_S = 600.0  # in the log of a run without an end, between whose lines the pause doubles up to this


class Console(rich.Console):
    """One whose reader has gone away raises BrokenPipeError; rich's would end the program, with 1."""

    def on_broken_pipe(self) -> None:
        raise  # what rich has caught


def for_tables(width: int) -> Console:
    """On stdout; `width` columns wide where that is no terminal."""
    return Console(width=None if sys.stdout.isatty() else width, highlight=False, markup=False, emoji=False)


def echo_json(value: Any, **how: Any) -> None:
    """Print `value` on stdout as `json.dumps` does with `how`; letters that it does not take are escaped."""
    click.echo(json.dumps(value, ensure_ascii=not takes_utf8(sys.stdout), **how))


class StatusLine(Sink):
    """A sink that says how the run does; with `frames` it stops the run after so many results."""

    def __init__(self, source: Any, stop: Stop, *, frames: int | None = None) -> None:
        self._source, self._stop, self._left = source, stop, frames
        self._console = Console(stderr=True, emoji=False)
        self._live = (
            Live(console=self._console, auto_refresh=False, transient=True) if self._console.is_terminal else None
        )
        self._every = ON_TERMINAL_S if self._live else IN_LOG_S
        self._told = 0.0

    def __enter__(self) -> StatusLine:
        self._told = time.monotonic() - self._every
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live:
            self._live.stop()

    def write(self, result: Result) -> None:
        state = getattr(self._source, "state", "")
        self._tell(lambda: status_line(result, state, said=self._live is not None))
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._stop()

    def idle(self) -> None:
        """Say that a lost source is waited for."""
        if getattr(self._source, "state", "") == "reconnecting":
            self._tell(lambda: f"reconnecting · {self._source.name}")

    def _tell(self, line: Callable[[], str]) -> None:
        if time.monotonic() - self._told < self._every:
            return
        self._told = time.monotonic()
        if self._live:
            self._live.update(Text(line(), no_wrap=True, overflow="ellipsis"), refresh=True)
        else:
            self._every = min(2 * self._every, SELDOM_S)
            with suppress(OSError):  # a log that takes no more is no reason to look away
                self._console.print(Text(stamp(sys.stderr) + line()), soft_wrap=True)


def status_line(result: Result, state: str = "", *, said: bool = True) -> str:
    """One line on how a run does: rate once it is known, age, drops, device, faces, and the source.

    What the faces express is `said` to who sits there, not to a log that is kept.
    """
    status, faces = result.status, result.faces
    words = ", ".join(
        f"{decision.label} {100 * decision.confidence:.0f} %" if not decision.unsure else "unsure"
        for decision in faces.decisions or ()
    )
    count = counted(len(faces), "face") + (f": {words}" if said and words else "")
    rates = (f"{status.fps:.1f} fps" if status.fps else "", f"age {status.age_ms:.0f} ms", f"dropped {status.dropped}")
    return " · ".join(part for part in (*rates, status.device, count, state, result.frame.source) if part)


def summary(report: Report, *, said: bool = True) -> str:
    """One line on what a run did; of what the faces express the shares, where they are `said` as by `status_line`."""
    if not report.frames:
        return f"no frame in {report.seconds:.1f} s"
    age = report.percentiles("age")
    parts = [
        f"{counted(report.frames, 'frame')} in {report.seconds:.1f} s",
        f"{report.fps:.1f} fps" if report.fps else "",
        f"age p50 {age['p50']:.1f} p95 {age['p95']:.1f} ms",
        f"dropped {report.dropped}",
        " + ".join(f"{device} {n}" for device, n in report.devices.items()),
        counted(report.faces, "face") + (f": {main_labels(report.labels)}" if said and report.labels else ""),
    ]
    return " · ".join(part for part in parts if part)


def counted(number: int, noun: str) -> str:
    """`1 face`, `2 faces`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def printable(text: str | Path) -> str:
    """A path, or what is said of one, on one line, whatever bytes the name holds."""
    whole = os.fsencode(text).decode(errors="replace")
    return "".join("\ufffd" if unicodedata.category(letter) == "Cc" else letter for letter in whole)


def main_labels(labels: Counter, most: int = 3) -> str:
    """The commonest labels with their shares."""
    total = sum(labels.values())
    return ", ".join(f"{label} {100 * n / total:.0f} %" for label, n in labels.most_common(most))

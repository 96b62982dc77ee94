"""Progress of long offline work: a bar with rate and remaining time, off a terminal a line now and then and per input."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from ..types import Result, Sink
from .annotation import Outcome
from .console import IN_LOG_S, Console, counted, printable


class Rate(ProgressColumn):
    """Frames per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.0f} frames/s" if task.speed else "")


class ProgressBar(AbstractContextManager):
    """Shows on stderr how far each of `inputs` inputs is, of which `finished` were so before."""

    def __init__(self, inputs: int, finished: int = 0) -> None:
        self._inputs, self._finished = inputs, finished
        self._console = Console(stderr=True, emoji=False)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
        self._progress = Progress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        )

    def __enter__(self) -> ProgressBar:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()

    def counter(self, number: int, source: Any) -> Counter | Teller:
        """A sink that tells of input `number`; `source.frames` says how far it has to go, None if unknown."""
        text = f"[{number + 1}/{self._inputs}] {source.name}"
        return Counter(self._progress, text, source) if self._console.is_terminal else Teller(self.say, text, source)

    def done(self, outcome: Outcome) -> None:
        """Say that an input is finished."""
        self._finished += 1
        report, place = outcome.report, f"[{self._finished}/{self._inputs}] "
        if outcome.error:
            line = f"{place if self._inputs > 1 else 'Error: '}{outcome.error}"
        else:
            did = f"{counted(report.frames, 'frame')}, {counted(report.faces, 'face')}"
            line = f"{place}{outcome.name}: {did}, {report.fps:.0f} frames/s"
        self.say(line, failed=bool(outcome.error))

    def say(self, line: str, *, failed: bool = False) -> None:
        """Print a line above the bar."""
        self._console.print(printable(line), style="red" if failed else None, markup=False, highlight=False, soft_wrap=True)


class Counter(Sink):
    """A sink that counts frames into a bar."""

    def __init__(self, progress: Progress, text: str, source: Any) -> None:
        self._progress, self._text, self._source = progress, escape(text), source

    def __enter__(self) -> Counter:
        self._task: TaskID = self._progress.add_task(self._text, total=self._source.frames)
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.remove_task(self._task)

    def write(self, _: Result) -> None:
        self._progress.advance(self._task)


class Teller(Sink):
    """A sink that says now and then how many frames are done, and when the others will be."""

    def __init__(self, say: Callable[[str], None], text: str, source: Any) -> None:
        self._say, self._text, self._source = say, text, source

    def __enter__(self) -> Teller:
        self._done = 0
        self._begun = self._told = time.monotonic()
        return self

    def write(self, _: Result) -> None:
        self._done += 1
        now = time.monotonic()
        if now - self._told >= IN_LOG_S:
            self._told = now
            self._say(f"{self._text}: {self._state(now - self._begun)}")

    def _state(self, seconds: float) -> str:
        total = self._source.frames
        if not total or self._done > total:  # of joined recordings the header tells of the first
            return counted(self._done, "frame")
        left = timedelta(seconds=round(seconds / self._done * (total - self._done)))
        return f"{self._done} of {counted(total, 'frame')}, {left} left"

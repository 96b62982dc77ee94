"""Signals that end a command, and streams whose reader has gone."""

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

Handler = Callable[[int, FrameType | None], None]


class Stopped(KeyboardInterrupt):
    """A signal asked for the end, as Ctrl-C does."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def heard(handler: Handler, *numbers: int) -> Iterator[None]:
    """While open, `handler` hears these signals.

    A lost terminal (an SSH connection that breaks) is not heard where it was to be ignored, as nohup asks; where it is,
    nothing is written to it any more.
    """

    def hear(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            _let_go_of_terminal()
        handler(number, frame)

    ignored = {signal.SIGHUP} if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else set()
    before = {number: signal.signal(number, hear) for number in numbers if number not in ignored}
    try:
        yield
    finally:
        for number, was in before.items():
            signal.signal(number, was)


def raise_stopped(number: int, _: FrameType | None) -> None:
    """A handler that ends a command as Ctrl-C does."""
    raise Stopped(number)


def let_go_of_pipes() -> None:
    """What still waits for a reader that has gone goes nowhere, or Python would complain of it at its end."""
    for stream in filter(None, (sys.stdout, sys.stderr)):  # either may have been closed from the start
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _let_go_of_terminal() -> None:
    """Writing to a terminal that is gone is an error: send it nowhere. (It is no `isatty` any more.)"""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(nowhere, stream)
    os.close(nowhere)

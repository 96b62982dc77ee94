"""Ask in a process of its own, which may hang or crash without harm."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PATIENCE = 20.0  # seconds until a child process counts as hanging
STATUS_HANGS, STATUS_ABSENT = 124, 127  # of the shell and of timeout(1)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a child process said."""

    status: int  # its exit code, STATUS_HANGS when it hung, STATUS_ABSENT when there is no such program
    out: str = ""
    err: str = ""

    @property
    def last_line(self) -> str:
        """The last line on stderr, where Python names an exception."""
        return (self.err.strip().splitlines() or [""])[-1]


def ask(
    command: Sequence[str], environment: Mapping[str, str] | None = None, *, patience: float | None = None
) -> Answer:
    """Run a command; one that gives no answer within `patience` seconds, by default PATIENCE, is left behind."""
    patience = PATIENCE if patience is None else patience
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            env={**os.environ, **(environment or {})},
        )
    except OSError as error:
        return Answer(STATUS_ABSENT, err=str(error))
    with contextlib.closing(child.stdout), contextlib.closing(child.stderr):
        try:
            out, err = child.communicate(timeout=patience)
        except subprocess.TimeoutExpired:
            child.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # what hangs in a driver cannot even be killed
                child.wait(1.0)
            return Answer(STATUS_HANGS, err=f"no answer within {patience:g} s")
    return Answer(child.returncode, out, err)

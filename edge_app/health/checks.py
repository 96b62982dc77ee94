"""What the checks of `calmcam doctor` are made of: a verdict, and a machine to look at that tests can replace."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

OK, WARNING, BROKEN = "ok", "warning", "broken"
PATIENCE = 20.0  # seconds until a child process counts as hanging
STATUS_HANGS, STATUS_ABSENT = 124, 127  # of the shell and of timeout(1)


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's report."""

    name: str
    state: str  # OK, WARNING or BROKEN
    text: str  # what is there
    mend: str = ""  # the command or deed that mends it; "" when nothing needs mending


@dataclass(frozen=True, slots=True)
class Answer:
    """What a child process said."""

    status: int  # its exit code, STATUS_HANGS after PATIENCE, STATUS_ABSENT when there is no such program
    out: str = ""
    err: str = ""

    @property
    def last_line(self) -> str:
        """The last line on stderr, where Python names an exception."""
        return (self.err.strip().splitlines() or [""])[-1]


def ask(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Answer:
    """Run a command in a process of its own, which may hang or crash without harm."""
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
    with child:
        try:
            out, err = child.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            return Answer(STATUS_HANGS, err=f"no answer within {PATIENCE:.0f} s")
    return Answer(child.returncode, out, err)


@dataclass(frozen=True, slots=True)
class Machine:
    """The computer that is looked at; with another `root` and other answers, one that was written down."""

    root: Path = Path("/")
    ask: Callable[..., Answer] = ask

    def path(self, name: str) -> Path:
        """Where the absolute path `name` lies."""
        return self.root / name.lstrip("/")

    def read(self, name: str) -> str:
        """Text of a file without NULs and outer blanks; "" when it cannot be read."""
        try:
            return self.path(name).read_bytes().decode(errors="replace").replace("\0", "").strip()
        except OSError:
            return ""

    def find(self, pattern: str) -> list[Path]:
        """Existing paths that match an absolute pattern, sorted."""
        return sorted(self.root.glob(pattern.lstrip("/")))

"""What the checks of `calmcam doctor` are made of: a verdict, and a machine to look at that tests can replace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..child import Answer, ask

OK, WARNING, BROKEN = "ok", "warning", "broken"


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the doctor's report."""

    name: str
    state: str  # OK, WARNING or BROKEN
    text: str  # what is there
    mend: str = ""  # the command or deed that mends it; "" when nothing needs mending


@dataclass(frozen=True, slots=True)
class Machine:
    """The computer that is looked at; with another `root` and other answers, one that was written down."""

    root: Path = Path("/")
    ask: Callable[..., Answer] = ask

    def path(self, name: str | Path) -> Path:
        """Where the absolute path `name` lies; what `find` gave is there already."""
        return name if isinstance(name, Path) else self.root / name.lstrip("/")

    def read(self, name: str | Path) -> str:
        """Text of a file, named absolutely or found, without NULs and outer blanks; "" when it cannot be read."""
        try:
            return self.path(name).read_bytes().decode(errors="replace").replace("\0", "").strip()
        except OSError:
            return ""

    def find(self, pattern: str) -> list[Path]:
        """Existing paths that match an absolute pattern, sorted."""
        return sorted(self.root.glob(pattern.lstrip("/")))

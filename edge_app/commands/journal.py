"""What an `annotate` that was interrupted had finished, so that `--resume` goes on there.

Beside the results lies `unfinished.jsonl` while a run goes on: first what was asked, then a line per finished input
with the bytes of results there were after it. What stands beyond them is of an input that is done again.
"""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from .. import runs
from ..errors import CalmcamError, InputError, OutputError, TruncatedError
from ..inputs import Input
from ..report import Report
from ..settings import Settings
from .annotation import Annotation, Options, Outcome

NAME = "unfinished.jsonl"
RESULTS = ("results.jsonl", "results.csv")


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What a run was asked to do, and how far it came."""

    job: Annotation
    arguments: Mapping[str, Any]  # for `run.json`
    model: Mapping[str, Any]  # the file that it began with
    outcomes: Sequence[Outcome] = ()  # of the inputs that are finished, in order
    sizes: Sequence[int] = (0, 0)  # bytes of `RESULTS` after them


class Journal:
    """Grows by a line per finished input."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME

    def begin(self, run: Unfinished, model: Path) -> None:
        """Write down all that another process needs to go on, in place of what is there; `model` is its folder.

        OutputError when that cannot be written.
        """
        job = run.job
        head = {
            "arguments": run.arguments,
            "inputs": [[str(one.path), one.problem] for one in job.inputs],
            "base": os.path.abspath(job.base),
            "settings": asdict(job.settings) | {"model": os.path.abspath(model)},
            "options": asdict(job.options),
            "model": run.model,
        }
        self._write("w", runs.public(head))

    def add(self, outcome: Outcome, sizes: Sequence[int]) -> None:
        """Write down that an input is finished; OutputError when that cannot be written."""
        error = str(outcome.error) if outcome.error else None
        output = outcome.output and outcome.output.name
        line = {"input": outcome.number, "output": output, "error": error, "sizes": list(sizes), **outcome.summary}
        self._write("a", line)

    def close(self) -> None:
        """There is nothing to go on with."""
        with suppress(OSError):
            self.path.unlink()

    def tell(self) -> None:
        """Say how to go on, when the run has not ended."""
        if self.path.exists():
            click.echo(f"go on with calmcam annotate --resume {shlex.quote(str(self.path.parent))}", err=True)

    def _write(self, mode: str, line: Mapping[str, Any]) -> None:
        try:
            with self.path.open(mode, encoding="ascii") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise OutputError.of(self.path, error) from error


def read_unfinished(folder: Path) -> Unfinished:
    """What was left in `folder`; InputError when there is nothing to go on with, or not all of it can be read.

    A line that was cut, and an input whose results did not reach the disk, count as not finished.
    """
    path = folder / NAME
    try:
        head, *lines = path.read_text(encoding="ascii").splitlines()
        asked = json.loads(head)
        inputs = [Input(Path(text), problem) for text, problem in asked["inputs"]]
        settings, options = Settings().merged(asked["settings"]), Options(**asked["options"])
        job = Annotation(inputs, folder, settings, options, Path(asked["base"]))
        outcomes, sizes = _finished(lines, job)
        return Unfinished(job, dict(asked["arguments"]), dict(asked["model"]), outcomes, sizes)
    except FileNotFoundError as error:
        raise InputError(f"{folder}: expected a run of annotate that was interrupted, found no {NAME}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, LookupError, CalmcamError) as error:
        raise InputError(f"{path}: expected what annotate writes, got something else ({error}); annotate anew") from error


def _finished(lines: Sequence[str], job: Annotation) -> tuple[list[Outcome], list[int]]:
    found, sizes = [], [0, 0]
    held = [_size(job.folder / name) for name in RESULTS]
    for text in lines:
        try:
            line = json.loads(text)
        except ValueError:
            break
        if any(size > there for size, there in zip(line["sizes"], held, strict=True)):
            break
        sizes = line.pop("sizes")
        number, output, error = (line.pop(key) for key in ("input", "output", "error"))
        outcome = job.outcome(number)
        outcome.output = output and job.folder / output
        outcome.error = TruncatedError(error) if error else None
        outcome.summary = line
        counts = {key: line[key] for key in ("frames", "dropped", "faces", "seconds")}
        outcome.report = Report(devices=Counter(line["devices"]), labels=Counter(line["labels"]), **counts)
        found.append(outcome)
    return found, sizes


def _size(path: Path) -> int:
    """Bytes that a run wrote into a file of results, whether it still had its name to get or not."""
    for one in (path.with_name(f"{path.name}.part"), path):
        with suppress(OSError):
            return one.stat().st_size
    return 0

"""What an `annotate` that was interrupted had finished, so that `--resume` goes on there.

Beside the results lies `unfinished.jsonl` while a run goes on: first what was asked, then a line per finished input
with the bytes of results there were after it. What stands beyond them is of an input that is done again.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import errors, runs
from ..errors import CalmcamError, InputError, OutputError
from ..files import whole
from ..inputs import Input
from ..report import Report
from ..settings import Settings
from .annotation import Annotation, Options, Outcome

RESULTS = ("results.jsonl", "results.csv")


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What a run was asked to do, and how far it came."""

    job: Annotation
    arguments: Mapping[str, Any]  # for `run.json`
    model: Mapping[str, Any]  # the file that it began with
    outcomes: Sequence[Outcome] = ()  # of the inputs that are finished, in their order
    sizes: Sequence[Sequence[int]] = ()  # bytes of `RESULTS` after each
    resumed: int = 0  # times


class Journal(AbstractContextManager):
    """Grows by a line per finished input. At its end it stays only where something was finished and something is left."""

    def __init__(self, run: Unfinished, model: Path) -> None:
        """Of `run`, whose model lies in the folder `model`."""
        self._run, self._model, self._ended = run, model, False
        self._path, self._finished = run.job.folder / runs.UNFINISHED, len(run.outcomes)

    def __enter__(self) -> Journal:
        """Write down all that another process needs to go on; OutputError when that cannot be written."""
        job, run = self._run.job, self._run
        head = {
            "arguments": run.arguments,
            "inputs": [[str(one.path), one.problem] for one in job.inputs],
            "base": os.path.abspath(job.base),
            "settings": asdict(job.settings) | {"model": os.path.abspath(self._model)},
            "options": asdict(job.options),
            "model": run.model,
            "resumed": run.resumed,
        }
        known = map(_line, run.outcomes, run.sizes)
        with whole(self._path) as part:
            part.write_text("".join(json.dumps(one) + "\n" for one in (runs.public(head), *known)), encoding="ascii")
        return self

    def add(self, outcome: Outcome, sizes: Sequence[int]) -> None:
        """Write down that an input is finished; OutputError when that cannot be written."""
        try:
            if not self._finished:  # what the results of an earlier run stand for is over
                for name in RESULTS:
                    self._path.with_name(name).unlink(missing_ok=True)
            self._finished += 1
            with self._path.open("a", encoding="ascii") as file:
                file.write(json.dumps(_line(outcome, sizes)) + "\n")
        except OSError as error:
            raise OutputError.of(self._path, error) from error

    def end(self) -> None:
        """Every input had its turn."""
        self._ended = True

    def __exit__(self, *exc: object) -> None:
        if self._ended or not self._finished:
            with suppress(OSError):
                self._path.unlink()


def read_unfinished(folder: Path) -> Unfinished:
    """What was left in `folder`; InputError when there is nothing to go on with, or not all of it can be read.

    A line that was cut, and an input whose results or copy did not reach the disk, end what counts as finished.
    """
    path = folder / runs.UNFINISHED
    try:
        head, *lines = path.read_text(encoding="ascii").splitlines()
        asked = json.loads(head)
        inputs = [Input(Path(text), problem) for text, problem in asked["inputs"]]
        settings, options = Settings().merged(asked["settings"]), Options(**asked["options"])
        job = Annotation(inputs, folder, settings, options, Path(asked["base"]))
        found = list(_finished(lines, job))
        outcomes, sizes = zip(*found, strict=True) if found else ((), ())
        return Unfinished(job, dict(asked["arguments"]), dict(asked["model"]), outcomes, sizes, asked["resumed"] + 1)
    except FileNotFoundError as error:
        raise InputError(f"{folder}: expected a run of annotate that was interrupted, found no {path.name}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, LookupError, AttributeError, CalmcamError) as error:
        raise InputError(f"{path}: expected what annotate writes, got something else ({error}); annotate anew") from error


def _line(outcome: Outcome, sizes: Sequence[int]) -> dict[str, Any]:
    error = outcome.error and [type(outcome.error).__name__, str(outcome.error)]
    output = outcome.output and outcome.output.name
    return {"input": outcome.number, "output": output, "error": error, "sizes": list(sizes), **outcome.summary}


def _finished(lines: Iterable[str], job: Annotation) -> Iterator[tuple[Outcome, Sequence[int]]]:
    """What became of each finished input, and the bytes of `RESULTS` after it."""
    held = [_size(job.folder / name) for name in RESULTS]
    for text in lines:
        try:
            line = json.loads(text)
        except ValueError:
            return
        number, output, error, sizes = (line.pop(key) for key in ("input", "output", "error", "sizes"))
        outcome = job.outcome(number)
        outcome.output = output and job.folder / output
        if any(size > there for size, there in zip(sizes, held, strict=True)) or output and not _size(outcome.output):
            return
        outcome.error = error and getattr(errors, error[0])(error[1])
        outcome.summary = line
        counts = {key: line[key] for key in ("frames", "dropped", "faces", "seconds")}
        outcome.report = Report(devices=Counter(line["devices"]), labels=Counter(line["labels"]), **counts)
        yield outcome, sizes


def _size(path: Path) -> int:
    """Bytes that a run wrote into a file of results, whether it still had its name to get or not."""
    for one in (path.with_name(f"{path.name}.part"), path):
        with suppress(OSError):
            return one.stat().st_size
    return 0

"""Where runs land: `runs/<command>/<name>[N]/` with a `run.json` that says what made it."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import itertools
import json
import logging
import os
import platform
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from .addresses import without_secrets
from .errors import OutputError
from .files import whole
from .report import Report

log = logging.getLogger(__name__)
UNFINISHED = "unfinished.jsonl"  # in the folder of a run that can be gone on with
PACKAGES = ("calmcam", "numpy", "opencv-contrib-python", "mediapipe", "ai-edge-litert", "av", "pillow")
MADE: set[Path] = set()  # output folders of this process


def open_folder(parent: Path, name: str) -> Path:
    """Make and return the `free` place of `name` in `parent`; OutputError when it cannot be made."""
    while not _made(folder := free(parent, name)):
        continue  # somebody else was faster
    return folder


def free(parent: Path, name: str) -> Path:
    """`parent/name`, or the first of `name2`, `name3`, ... where nothing is.

    A name that ends in a digit is numbered with a dash between.
    """
    name = re.sub(r"[^\w.-]+", "_", name).strip("._") or "run"
    dash = "-" if name[-1].isdigit() else ""
    names = itertools.chain([name], (f"{name}{dash}{number}" for number in itertools.count(2)))
    return next(folder for folder in (parent / one for one in names) if not os.path.lexists(folder))


def given_folder(folder: Path, *, exist_ok: bool) -> Path:
    """Make `folder`; OutputError when it cannot be made, or holds something already and `exist_ok` is not set."""
    _made(folder)
    if not exist_ok and any(folder.iterdir()):
        raise OutputError(f"{folder}: the output folder is not empty; name another one, or allow it with --exist-ok")
    return folder


def output_folder(given: Path | None, parent: Path, name: str, *, exist_ok: bool) -> Path:
    """The folder that the user named, made as `given_folder` does, else a free one in `parent`, as `open_folder` does."""
    return given_folder(given, exist_ok=exist_ok) if given else open_folder(parent, name)


def is_run(folder: Path) -> bool:
    """Whether calmcam wrote a `run.json` into `folder`, or was to write one when it was interrupted."""
    if os.path.exists(folder / UNFINISHED):
        return True
    try:
        return "calmcam" in json.loads((folder / "run.json").read_bytes())["versions"]
    except (OSError, ValueError, TypeError, LookupError):
        return False


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Nobody else works on the run in `folder` meanwhile; OutputError when somebody does already, or it cannot be opened.

    Where a network's file system cannot lock, nobody is kept out.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise OutputError(f"{folder}: the output folder cannot be opened ({error.strerror})") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise OutputError(
            f"{folder}: another calmcam works on this run; wait for it or name another folder"
        ) from error
    except OSError as error:
        log.debug("%s: cannot be locked (%s)", folder, error.strerror)
    try:
        yield
    finally:
        os.close(handle)


def discard_empty(folder: Path) -> None:
    """Remove a folder that was made here and in which nothing was left."""
    if folder.absolute() not in MADE:
        return
    with contextlib.suppress(OSError):
        folder.rmdir()


def write_record(folder: Path, record: Mapping[str, Any], name: str = "run.json") -> None:
    """Write a JSON file into `folder`, whole or not at all."""
    text = json.dumps(public(record), indent=2, ensure_ascii=False)
    with whole(folder / name) as part:
        part.write_text(text + "\n", encoding="utf-8", errors="backslashreplace")


def begin(folder: Path, more: Mapping[str, Any]) -> None:
    """Write a `run.json` that stands until the run has ended: the command, with which versions, and `more`."""
    write_record(folder, {"command": sys.argv, "versions": versions(), **more})


def end(folder: Path, more: Mapping[str, Any]) -> None:
    """Write the `run.json` of what has ended: `begin`'s, and when."""
    begin(folder, {"ended": datetime.now().astimezone().isoformat(timespec="seconds"), **more})


def record(folder: Path, report: Report, more: Mapping[str, Any]) -> None:
    """Write the `run.json` of a run that has ended: `more`, and what it did."""
    end(folder, {**more, "report": report.summary()})


def public(record: Mapping[str, Any]) -> Any:
    """The record in JSON's own types, without the secrets of addresses."""
    return _public(json.loads(json.dumps(record, default=_plain)))


def _public(value: Any) -> Any:
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, dict):
        return {key: _public(one) for key, one in value.items()}
    return [_public(one) for one in value] if isinstance(value, list) else value


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """What a run was made with: Python, machine, those of the packages that are installed."""
    found = {"python": platform.python_version(), "machine": f"{platform.system()} {platform.machine()}"}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _made(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True)
        MADE.add(folder.absolute())
    except FileExistsError as error:
        if not folder.is_dir():
            raise OutputError(f"{folder}: expected an output folder, got a file; name another one with -o") from error
        return False
    except OSError as error:
        raise OutputError(
            f"{folder}: the output folder cannot be made ({error.strerror}); name another one with -o"
        ) from error
    return True


def _plain(value: object) -> object:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)

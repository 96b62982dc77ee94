"""Files are written whole or not at all, streams in letters that they take."""

from __future__ import annotations

import codecs
import errno
import itertools
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

from .errors import OutputError


def takes_utf8(stream: TextIO | None) -> bool:
    """Whether all letters can be written there as they are; a console may speak cp949, or ASCII."""
    return codecs.lookup(getattr(stream, "encoding", None) or "utf-8").name == "utf-8"


def stamp(stream: TextIO | None) -> str:
    """The time, to begin a line of a log with; "" where somebody reads along, or the journal notes it (systemd.exec(5))."""
    try:
        file = os.fstat(stream.fileno())
    except (AttributeError, OSError, ValueError):  # no file is no log
        return ""
    dated = os.environ.get("JOURNAL_STREAM") == f"{file.st_dev}:{file.st_ino}"
    return "" if dated or stream.isatty() else time.strftime("%Y-%m-%d %H:%M:%S ")


def short(name: str) -> str:
    """`name` as far as a file's name holds it with a number and an ending: 200 bytes of 255, no letter halved."""
    while len(os.fsencode(name)) > 200:
        name = name[:-1]
    return name


def may_be_there(path: str | Path) -> bool:
    """Whether something is at `path`, or may be: where a folder above is closed, reading it says so."""
    try:
        os.stat(path)
    except (OSError, ValueError) as error:
        return isinstance(error, PermissionError)
    return True


def bytes_kept(file: int, path: Path) -> int:
    """Size in bytes of the open `file`; FileNotFoundError when it was removed meanwhile, and with it what it takes.

    One that was renamed, or replaced at `path`, still goes.
    """
    found = os.fstat(file)
    if not found.st_nlink and not path.exists():
        raise FileNotFoundError(errno.ENOENT, "it was removed meanwhile")
    return found.st_size


def settle(path: Path) -> None:
    """Have a file on the disk before it gets its name: a power cut leaves the old one or the new one, no empty one.

    A network's file system may not do that, and is not asked twice; OSError for a disk that is full or broken.
    """
    file = os.open(path, os.O_RDWR)
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno in (errno.EIO, errno.ENOSPC, errno.EDQUOT):
            raise
    finally:
        os.close(file)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside `path` to write to: it takes the place of `path` when the block ends well, else it is removed.

    Its suffix is that of `path`, which Keras, NumPy and Matplotlib look at. OutputError when it cannot be written.
    """
    part = path.with_name(f"{path.stem}.part{path.suffix}")
    try:
        yield part
        settle(part)
        part.replace(path)
    except OSError as error:
        raise OutputError.of(path, error) from error
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


def folder_beside(folder: Path) -> Path:
    """Make and return a new hidden folder beside `folder`, in which it can be made before it takes its place.

    OSError when it cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    for number in itertools.count():
        made = folder.with_name(f".{folder.name}.{os.getpid()}-{number}")
        with suppress(FileExistsError):
            made.mkdir()
            return made


def take_place(made: Path, folder: Path) -> None:
    """Put a folder that was made beside `folder` in its place; what was there goes. OSError leaves it as it was."""
    if folder.exists():
        old = folder_beside(folder)
        folder.rename(old)
        try:
            made.rename(folder)
        except OSError:
            old.rename(folder)
            raise
        shutil.rmtree(old)
    else:
        made.rename(folder)

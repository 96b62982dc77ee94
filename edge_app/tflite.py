"""What every engine that loads TFLite files needs: a look at the file first, and quiet on the terminal."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import ModelError

log = logging.getLogger(__name__)
_one_at_a_time = threading.Lock()


def check(path: Path) -> None:
    """ModelError unless `path` is readable and carries the TFLite identifier; engines may crash on other bytes."""
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}); expected a TFLite model") from error
    if head[4:8] != b"TFL3":
        raise ModelError(f"{path}: expected a TFLite model, got a file that starts with {head!r}; copy the model again")


@contextlib.contextmanager
def quiet(what: str) -> Iterator[Callable[[], str]]:
    """Send file descriptor 2 of this process to the debug log while `what` happens; gives what was said so far.

    LiteRT and MediaPipe report every tensor there, whatever their log level says. The descriptor belongs to the whole
    process, so keep the block short; nothing is lost, it is logged under `what` afterwards.
    """
    with _one_at_a_time:
        try:
            terminal = os.dup(2)
        except OSError:  # a service without stderr
            yield lambda: ""
            return
        memory = os.memfd_create("stderr")
        try:  # written out: a signal in the middle of an ExitStack would leave the terminal mute
            os.dup2(memory, 2)
            yield lambda: _text(memory)
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
            _report(what, memory)


def _report(what: str, memory: int) -> None:
    for line in _text(memory).splitlines():
        log.debug("%s: %s", what, line)
    os.close(memory)


def _text(memory: int) -> str:
    return os.pread(memory, os.fstat(memory).st_size, 0).decode(errors="replace")

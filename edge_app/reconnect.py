"""A live source that was lost comes back: how long is waited between attempts, and what is said about it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from .errors import SourceError

log = logging.getLogger(__name__)

FIRST_DELAY, LONGEST_DELAY = 0.5, 10.0  # s between attempts, doubled each time


def reconnect(name: str, lost: str, since_ns: int, connect: Callable[[], None], pause: Callable[[float], bool]) -> None:
    """Call `connect` until it raises no SourceError, or `pause` says that nobody waits any more.

    `lost` says why, `since_ns` when the last data came (monotonic clock); `pause` waits so many seconds, or shorter
    and returns False.
    """
    log.warning("%s: %s, reconnecting", name, lost)
    delay, told = FIRST_DELAY, log.warning
    while pause(delay):
        try:
            connect()
        except SourceError as error:
            told("%s: still not there: %s", name, error)
            told = log.debug
            delay = min(2 * delay, LONGEST_DELAY)
        else:
            log.warning("%s: back after %.1f s", name, (time.monotonic_ns() - since_ns) / 1e9)
            return

"""Run part of an iterator chain in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

log = logging.getLogger(__name__)

_IDLE_S = 0.1


class Background:
    """Iterate `items`, mapped through `fn`, in a thread, in order; what it raises is raised in the consumer.

    The producer waits for room before it asks for an item, so that what it works on is never older than needed.
    With `latest` it never waits: the oldest waiting item is dropped and counted. `idle` is called in the consumer's
    thread, some times a second, while nothing comes.
    """

    def __init__(
        self,
        items: Iterable,
        fn: Callable[[Any], Any] | None = None,
        *,
        size: int = 1,
        latest: bool = False,
        idle: Callable[[], None] | None = None,
    ) -> None:
        self._idle = idle
        self.dropped = 0
        self._source, self._fn, self._size, self._latest = items, fn, size, latest
        self._items: deque[Any] = deque()
        self._change = threading.Condition()
        self._open, self._error = True, None
        name = f"background-{getattr(fn, '__name__', 'source')}"
        self._thread = threading.Thread(target=self._produce, name=name, daemon=True)

    def __enter__(self) -> Background:
        try:
            self._thread.start()
        except BaseException:  # Ctrl-C while it starts: nobody would end it
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()
        if not self.join(2.0):
            log.error("%s did not stop within 2 s", self._thread.name)

    def join(self, seconds: float) -> bool:
        """Wait at most `seconds` for the thread to end; True when it has."""
        if self._thread.is_alive():
            self._thread.join(timeout=seconds)
        return not self._thread.is_alive()

    def stop(self) -> None:
        """End this stage and those before it; what waits is still handed out. Safe in a signal handler."""
        with self._change:
            self._open = False
            self._change.notify_all()
        stop_source = getattr(self._source, "stop", None)
        if callable(stop_source):
            stop_source()

    def drop_waiting(self) -> None:
        """Forget what waits, if this is a newest-wins hand-over: its consumer was busy and it has grown old.

        What waits when the source has ended is its last, nothing newer will come: that stays.
        """
        with self._change:
            if self._latest and self._open:
                self.dropped += len(self._items)
                self._items.clear()

    def __iter__(self) -> Iterator:
        while True:
            consumer_is_slower = bool(self._items)
            while not self._ready():
                self._idle()
            with self._change:
                if not self._items:
                    break
                item = self._items.popleft()
                if consumer_is_slower and isinstance(self._source, Background):
                    self._source.drop_waiting()
                self._change.notify_all()
            yield item
        if self._error:
            raise self._error

    def _ready(self) -> bool:
        """Wait for an item or the end; False when it is time to call `idle`, which must not hold the producer up."""
        with self._change:
            return self._change.wait_for(lambda: bool(self._items) or not self._open, _IDLE_S if self._idle else None)

    def _produce(self) -> None:
        try:
            items = iter(self._source)
            while self._room():
                item = next(items, self)  # self marks the end
                if item is self:
                    break
                self._put(self._fn(item) if self._fn else item)
        except Exception as error:
            self._error = error
        finally:
            with self._change:
                self._open = False
                self._change.notify_all()

    def _room(self) -> bool:
        with self._change:
            self._change.wait_for(lambda: self._latest or len(self._items) < self._size or not self._open)
            return self._open

    def _put(self, item: Any) -> None:
        with self._change:
            while len(self._items) >= self._size:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._change.notify_all()

"""A lost source comes back: the pauses grow up to a limit, and a journal is not filled meanwhile."""

from __future__ import annotations

import logging
import time

import pytest

from edge_app.errors import SourceError
from edge_app.reconnect import reconnect


@pytest.mark.parametrize("patience", [99, 7, 0])
def test_pauses_double_up_to_ten_seconds_and_one_failure_is_told(
    patience: int, caplog: pytest.LogCaptureFixture
) -> None:
    waits, failures = [], iter([SourceError("no route")] * 8)

    def connect() -> None:
        for failure in failures:
            raise failure

    def pause(seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) <= patience

    caplog.set_level(logging.DEBUG)
    reconnect("cam0", "no data for 5 s", time.monotonic_ns() - 3 * 10**9, connect, pause)
    assert waits == [0.5, 1, 2, 4, 8, 10, 10, 10, 10][: patience + 1]
    told = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert told[:1] == ["cam0: no data for 5 s, reconnecting"]
    assert told[1:2] == ["cam0: still not there: no route"][:patience]
    assert [line[:18] for line in told[2:]] == (["cam0: back after 3"] if patience > 8 else [])
    assert sum("still not there" in record.message for record in caplog.records) == min(8, patience)

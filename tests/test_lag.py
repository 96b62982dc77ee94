"""What counts as lag: what lies unread before a slow decoder, not a clock that runs wrong or is set."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from edge_app.lag import Lag, Skipping

SECOND = 10**9
GAP = SECOND // 25


def lags(came: Iterable[int], stamps: Iterable[int], waited: int) -> list[float]:
    """Seconds of lag, packet by packet."""
    lag = Lag()
    return [lag.of(moment, stamp, waited) / SECOND for moment, stamp in zip(came, stamps, strict=False)]


def test_what_is_taken_up_more_slowly_than_it_is_stamped_lags() -> None:
    found = lags(range(0, 20 * SECOND, 2 * GAP), range(0, 10 * SECOND, GAP), 0)
    assert found[-1] == pytest.approx(10, abs=0.1)


@pytest.mark.parametrize("share", [1.0004, 1.1, 2.0])
def test_a_clock_that_runs_wrong_is_no_lag(share: float) -> None:
    """Of a camera whose packets are waited for: it is not this computer that is late."""
    step = round(GAP * share)
    found = lags(range(0, step * 2000, step), range(0, GAP * 2000, GAP), step // 2)
    assert max(found) < 2 * (1 - 1 / share) + 0.1, "what it loses in two windows of a second"


def test_a_clock_that_drifts_is_followed_where_nothing_is_waited_for() -> None:
    step = round(GAP * 1.0004)
    assert max(lags(range(0, step * 20_000, step), range(0, GAP * 20_000, GAP), 0)) < 0.01


@pytest.mark.parametrize("jump", [-3600 * SECOND, -SECOND, 3600 * SECOND])
def test_a_clock_that_is_set_begins_anew(jump: int) -> None:
    stamps = [*range(0, 2 * SECOND, GAP), *range(2 * SECOND + jump, 4 * SECOND + jump, GAP)]
    assert max(map(abs, lags(range(0, 4 * SECOND, GAP), stamps, 0))) < 0.01


def test_a_burst_after_a_pause_of_the_network_is_late_and_then_not() -> None:
    came = [*range(0, 2 * SECOND, GAP), *[4 * SECOND] * 50, *range(4 * SECOND, 6 * SECOND, GAP)]
    found = lags(came, range(0, 6 * SECOND, GAP), 0)
    assert found[50] == pytest.approx(2, abs=0.1) and max(found[100:]) < 0.05


def test_key_frames_alone_are_decoded_until_the_next_of_them_after_it_has_caught_up() -> None:
    skipping = Skipping()

    def level(seconds: float, *, busy: bool = True, key: bool = False, at: float = 0) -> str:
        return skipping.choose(round(seconds * SECOND), round(at * SECOND), busy=busy, key=key)

    assert [level(0.9), level(1.2, busy=False), level(1.2), level(0.5), level(0.1)] == [
        *("DEFAULT", "DEFAULT", "NONREF", "NONREF", "DEFAULT")
    ]
    assert [level(1.2), level(1.6), level(1.2, key=True), level(0.1), level(0.1, key=True)] == [
        *("NONREF", "NONKEY", "NONKEY", "NONKEY", "DEFAULT")
    ]
    assert [level(2), level(2, busy=False), level(2, busy=False, key=True)] == ["NONKEY", "NONKEY", "DEFAULT"]
    assert [level(2), level(0.1, at=9), level(0.1, at=11)] == ["NONKEY", "NONKEY", "DEFAULT"], "no key frame comes"

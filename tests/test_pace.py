"""Any source as a camera: frames come at their time, not sooner, and for as long as asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from edge_app.background import Background
from edge_app.pace import Paced, Repeated
from edge_app.sources.synthetic import Source as Synthetic
from edge_app.types import Frame

FRAME = 1 / 30


def small(**options: object) -> Synthetic:
    return Synthetic(width=64, height=48, **options)


class Uneven(Synthetic):
    """Frames at 0, 20, 120 and 140 ms."""

    def __iter__(self) -> Iterator[Frame]:
        for index, millisecond in enumerate((0, 20, 120, 140)):
            yield Frame(self.render(index), index, millisecond * 10**6)


def test_frames_come_at_their_media_time() -> None:
    with Paced(Uneven(width=64, height=48)) as source:
        begun = time.monotonic_ns()
        frames = list(source)
    late = [(f.captured_ns - begun - f.time_ns) / 1e6 for f in frames]
    assert source.live
    assert [f.time_ns // 10**6 for f in frames] == [0, 20, 120, 140]
    assert min(late) >= 0
    assert min(late) < 100  # on a busy machine too


def test_a_rate_of_its_own_replaces_the_clock() -> None:
    with Paced(small(count=5), fps=50) as source:
        frames = list(source)
        assert (source.fps, source.frames) == (50, 5)
    assert [f.time_ns // 10**6 for f in frames] == [0, 20, 40, 60, 80]
    assert frames[-1].captured_ns - frames[0].captured_ns >= 70e6


def test_repeating_goes_on_with_index_and_time() -> None:
    with Paced(Repeated(small(count=4), frames=12)) as source:
        assert source.frames == 12
        frames = list(source)
    assert [f.index for f in frames] == list(range(12))
    np.testing.assert_allclose(np.diff([f.time_ns for f in frames]) / 1e9, FRAME, atol=1e-6)


def test_an_empty_source_is_not_repeated_for_ever() -> None:
    with Repeated(small(count=0)) as source:
        assert list(source) == []


def test_repeating_can_be_stopped_from_another_thread() -> None:
    with Repeated(small(count=2)) as source:
        threading.Timer(0.1, source.stop).start()
        assert len(list(source)) > 2


def test_repeating_can_be_stopped_while_it_opens_again() -> None:
    class Opened(Synthetic):
        """Is told to stop while it is opened for the second time, which forgets it."""

        times = 0

        def __enter__(self):
            self.times += 1
            if self.times == 2:
                repeated.stop()
            return super().__enter__()

    with Repeated(Opened(width=64, height=48, count=3)) as repeated:
        assert len(list(islice(repeated, 9))) == 3


def test_a_slow_taker_is_not_given_old_frames() -> None:
    with Paced(small()) as source, Background(source, latest=True) as frames:
        taken = iter(frames)
        first = next(taken)
        assert not threading.Event().wait(0.4)
        next(taken)
        newest = next(taken)
        age = (time.monotonic_ns() - newest.captured_ns) / 1e9
    assert newest.index - first.index >= 8
    assert age < 0.3
    assert frames.dropped >= 6


def test_leaving_ends_the_wait() -> None:
    before = threading.active_count()
    with Paced(small(fps=0.01, count=5)) as source, Background(source) as frames:
        next(iter(frames))
        begun = time.monotonic()
    assert time.monotonic() - begun < 1.5
    assert threading.active_count() == before


def test_the_name_is_known_before_it_is_opened() -> None:
    assert Paced(Repeated(small())).name == "synthetic"


def test_a_rate_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="fps > 0"):
        Paced(small(), fps=0)


class Late:
    """What begins at an hour of media time."""

    def __init__(self):
        self.inner = small(count=3)

    name, fps, frames = "late", 30.0, 3

    def __enter__(self):
        self.inner.__enter__()
        return self

    def __exit__(self, *exc):
        self.inner.__exit__(*exc)

    def stop(self):
        self.inner.stop()

    def __iter__(self):
        for frame in self.inner:
            yield replace(frame, time_ns=frame.time_ns + 3600 * 10**9)


def test_a_source_that_begins_late_is_not_waited_for() -> None:
    with Paced(Late()) as source:
        timer = threading.Timer(5, source.stop)
        timer.start()
        assert len(list(source)) == 3
        timer.cancel()

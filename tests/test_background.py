"""The hand-over between threads: order, limits, dropping, failures, and that no thread stays behind."""

from __future__ import annotations

import queue
import threading
import time

import pytest

from edge_app.background import Background


@pytest.fixture(autouse=True)
def no_thread_stays():
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before]
    for thread in left:
        thread.join(2)
    assert not [thread.name for thread in left if thread.is_alive()]


def wait(seconds: float) -> None:
    threading.Event().wait(seconds)


class Metronome:
    """Emits the time at which each of its items was made, every `seconds`."""

    def __init__(self, seconds: float, count: int):
        self._seconds, self._count, self._stopped = seconds, count, threading.Event()

    def __iter__(self):
        for _ in range(self._count):
            if self._stopped.wait(self._seconds):
                return
            yield time.monotonic()

    def stop(self) -> None:
        self._stopped.set()


@pytest.mark.parametrize("size", [1, 2, 7])
def test_nothing_is_lost_and_order_is_kept(size):
    with Background(range(200), lambda n: n * n, size=size) as squares:
        assert list(squares) == [n * n for n in range(200)]
        assert squares.dropped == 0


def test_chained():
    with Background(range(50), lambda n: n + 1) as more, Background(more, lambda n: n * 2, size=2) as twice:
        assert list(twice) == [2 * (n + 1) for n in range(50)]


def test_it_works_in_another_thread_and_no_further_ahead_than_its_room():
    seen, room = [], threading.Event()

    def note(n: int) -> int:
        seen.append((n, threading.current_thread().name))
        if n == 2:
            room.set()
        return n

    with Background(range(10), note, size=3) as items:
        room.wait(5)
        wait(0.05)
        assert [n for n, _ in seen] == [0, 1, 2], "three wait, and the fourth was not begun"
        assert {name for _, name in seen} == {"background-note"}
        assert list(items) == list(range(10))


def test_a_consumer_that_waits_is_called_now_and_then():
    called, here = threading.Event(), []

    def slow():
        yield 1
        assert called.wait(5)
        yield 2

    def idle():
        here.append(threading.current_thread())
        called.set()

    with Background(slow(), idle=idle) as items:
        assert list(items) == [1, 2]
    assert set(here) == {threading.current_thread()}


def test_newest_wins_and_the_others_are_counted():
    made = threading.Event()

    def numbers():
        yield from range(10)
        made.set()

    with Background(numbers(), latest=True) as newest:
        made.wait(5)
        newest._thread.join(5)
        assert list(newest) == [9]
        assert newest.dropped == 9


def until(condition) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        wait(0.001)


@pytest.fixture
def overloaded():
    """Gives `feed`, a newest-wins hand-over of what it is fed, and one after it that has 0 ready for a busy consumer."""
    feed = queue.SimpleQueue()
    with Background(iter(feed.get, None), latest=True) as newest, Background(newest, lambda n: n) as items:
        feed.put(0)
        until(lambda: items._items)
        yield feed, newest, items
        feed.put(None)


def test_what_grew_old_while_the_consumer_was_busy_is_not_handed_out(overloaded):
    feed, newest, items = overloaded
    for number in (1, 2):
        feed.put(number)
    until(lambda: newest.dropped == 1 and newest._items)
    taken = iter(items)
    assert next(taken) == 0 and newest.dropped == 2, "2 has waited, too"
    feed.put(3)
    assert next(taken) == 3


def test_the_last_of_all_is_handed_out_however_old(overloaded):
    feed, newest, items = overloaded
    feed.put(1)
    feed.put(None)
    until(lambda: not newest._thread.is_alive())
    assert list(items) == [0, 1] and newest.dropped == 0


@pytest.mark.parametrize("latest", [False, True])
def test_a_failing_source_is_raised_after_what_came_before(latest):
    def numbers():
        yield 1
        raise OSError("unplugged")

    seen = []
    with pytest.raises(OSError, match="unplugged"), Background(numbers(), latest=latest) as items:
        for item in items:
            seen.append(item)
    assert seen == [1]


def test_a_failing_function_is_raised_through_the_chain():
    def fail(n: int) -> int:
        if n == 3:
            raise ValueError("three")
        return n

    seen = []
    with (
        pytest.raises(ValueError, match="three"),
        Background(range(10), fail) as first,
        Background(first, lambda n: n) as second,
    ):
        for item in second:
            seen.append(item)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("size", [1, 3])
def test_a_consumer_that_leaves_early_ends_the_threads(size):
    with Background(iter(int, 1), size=size) as zeros, Background(zeros, lambda n: n + 1, size=size) as ones:
        for item in ones:
            assert item == 1
            break
    assert not left()


def test_a_consumer_that_fails_ends_the_threads():
    with pytest.raises(KeyError), Background(iter(int, 1)) as zeros:
        for _ in zeros:
            raise KeyError
    assert not left()


def left() -> list[threading.Thread]:
    """Threads of ours that still run."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("background-")]


def test_stop_hands_out_what_waits_and_reaches_a_source_that_waits():
    source = Metronome(0.01, 10**6)
    with Background(source) as times, Background(times, lambda n: n) as items:
        seen = 0
        for _ in items:
            seen += 1
            if seen == 3:
                items.stop()
        assert 3 <= seen <= 6


def test_under_overload_an_item_is_never_older_than_two_turns():
    """A source far too fast for the consumer, as in a live run: newest wins, one quick stage, one slow consumer."""
    ages, ends = [], []
    with (
        Background(Metronome(0.004, 250), latest=True) as newest,
        Background(newest, lambda made: made) as items,
    ):
        for made in items:
            wait(0.08)
            ends.append(time.monotonic())
            ages.append(ends[-1] - made)
    two_turns = [after - before for before, after in zip(ends, ends[2:], strict=False)]
    assert len(two_turns) >= 5
    late = [age > turns + 0.04 for age, turns in zip(ages[2:], two_turns, strict=True)]
    assert sum(late) <= len(late) // 3, "a thread may come late on a busy machine, but the age does not add up"
    assert newest.dropped > 100


def test_an_idle_consumer_gets_items_as_they_come():
    with Background(Metronome(0.02, 20), latest=True) as newest, Background(newest, lambda made: made) as items:
        ages = sorted(time.monotonic() - made for made in items)
    assert len(ages) + newest.dropped == 20
    assert ages[len(ages) // 2] < 0.05


class Interrupted(threading.Thread):
    """A thread that has begun when Ctrl-C comes, before `start` has returned."""

    def start(self) -> None:
        super().start()
        raise KeyboardInterrupt


def test_a_signal_while_it_starts_leaves_no_thread():
    background = Background(Metronome(0.01, 100_000))
    background._thread = Interrupted(target=background._produce, daemon=True)
    with pytest.raises(KeyboardInterrupt), background:
        raise AssertionError("it was not entered")

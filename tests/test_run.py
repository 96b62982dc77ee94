"""The one loop: nothing lost offline, newest wins live, the first failure ends it, no thread stays behind."""

from __future__ import annotations

import gc
import threading
import weakref
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from patience import PATIENCE

from edge_app.backends import fake
from edge_app.decide import Decider
from edge_app.errors import DeviceLost, OutputError, SourceError
from edge_app.manifest import Artifact, Crop, Head, Input, Manifest, find_model
from edge_app.pace import Paced
from edge_app.report import Report
from edge_app.run import Stop, _Clock, drain, run
from edge_app.sources.synthetic import Source
from edge_app.tasks import face_expression
from edge_app.tasks.face_detection import Stage
from edge_app.track import Tracker
from edge_app.types import NO_FACES, Faces, Frame, Result

MODES = pytest.mark.parametrize("live", [False, True], ids=["offline", "live"])
HEAD = Head("emotion", "softmax", ("calm", "happy"))
BOX = Faces(np.array([[10, 10, 60, 60]], np.float32), np.ones(1, np.float32))


@pytest.fixture(autouse=True)
def no_thread_stays():
    before = set(threading.enumerate())
    yield
    left = [thread for thread in threading.enumerate() if thread not in before and "background" in thread.name]
    for thread in left:
        thread.join(2)
    assert not [thread.name for thread in left if thread.is_alive()]


class Keep:
    """A sink that keeps results, notes that it was closed, and may fail."""

    name = "keep"

    def __init__(self, fail_at: int | None = None, wait_s: float = 0.0):
        self.results: list[Result] = []
        self.closed_with: list[type | None] = []
        self.arrived = threading.Semaphore(0)
        self._fail_at, self._wait_s = fail_at, wait_s

    def __enter__(self) -> Keep:
        return self

    def __exit__(self, kind, *exc) -> None:
        self.closed_with.append(kind)

    def write(self, result: Result) -> None:
        threading.Event().wait(self._wait_s)
        if len(self.results) == self._fail_at:
            raise OutputError("disk full")
        self.results.append(result)
        self.arrived.release()


class LockStep(Source):
    """A source that gives its next frame when the last one has arrived at `sink`: live, but nothing is dropped."""

    def __init__(self, sink: Keep, **options: object):
        super().__init__(**options)
        self._sink = sink

    def __iter__(self):
        for frame in super().__iter__():
            yield frame
            assert self._sink.arrived.acquire(timeout=10 * PATIENCE)


def small(**options: object) -> Source:
    return Source(**{"width": 160, "height": 120, "count": 40, **options})


def one_face(frame: Frame, faces: Faces) -> Faces:
    return BOX


def analysis() -> list:
    """Detector, crop, classifier, tracker, decision; the engine is a fake, everything else is real."""
    artifact = Artifact(Path("none"), "", 0, Input(48, 48, "gray", "uint8"), {"emotion": "emotion"})
    model = Manifest("m", "face_expression", (HEAD,), {"int8": artifact}, "none", Crop(0.1))
    backend = fake.Backend({"emotion": (2,)})
    return [
        ("crop", face_expression.Crop(model, artifact)),
        ("classify", face_expression.Classify(model, artifact, backend)),
        ("track", Tracker()),
        ("decide", Decider(HEAD)),
    ]


def test_offline_loses_nothing_and_keeps_order():
    keep = Keep(wait_s=0.001)
    report = run(small(), [("detect", one_face), ("track", Tracker())], [keep], live=False)
    assert [result.frame.index for result in keep.results] == list(range(40))
    assert all(result.faces.ids.tolist() == [1] for result in keep.results)
    assert (report.frames, report.dropped, report.faces, report.stopped) == (40, 0, 40, False)
    assert {"decode", "detect", "track", "keep", "age"} <= set(report.spans_ms)
    assert keep.closed_with == [None]


def test_live_drops_frames_when_a_stage_is_slow_and_stays_young():
    turn = 0.05

    def slow(frame: Frame, faces: Faces) -> Faces:
        threading.Event().wait(turn)
        return faces

    class Fast(Source):
        def __iter__(self):
            for frame in super().__iter__():
                yield frame
                threading.Event().wait(0.004)

    keep = Keep()
    options = {"width": 64, "height": 48, "count": 250}
    report = run(Fast(**options), [("detect", one_face), ("classify", slow)], [keep], live=True)
    assert report.dropped > 100
    assert report.frames + report.dropped == 250
    indices = [result.frame.index for result in keep.results]
    assert indices == sorted(set(indices))
    assert report.percentiles("age")["p50"] <= 2 * np.median(report.spans_ms["classify"]) + 10
    ages = report.spans_ms["age"]
    assert np.median(ages[-5:]) < np.median(ages[1:6]) + turn * 1e3, "the age does not grow"


def test_live_a_slow_first_stage_goes_on_with_the_newest_frame():
    """Frames 1 to 9 come while it works on frame 0, and the last when the next one has arrived."""
    keep, waits, burst = Keep(), threading.Event(), threading.Event()
    keep.idle = waits.set  # what waits for a consumer that is busy would be another matter

    class Burst(Source):
        def __iter__(self):
            for frame in super().__iter__():
                if frame.index == 1:
                    assert waits.wait(10 * PATIENCE)
                elif frame.index == 10:  # 9 was taken
                    burst.set()
                    assert all(keep.arrived.acquire(timeout=10 * PATIENCE) for _ in range(2))
                yield frame

    def slow(frame: Frame, faces: Faces) -> Faces:
        assert burst.wait(10 * PATIENCE)
        return faces

    report = run(Burst(width=64, height=48, count=11), [("detect", slow)], [keep], live=True)
    assert [result.frame.index for result in keep.results] == [0, 9, 10] and report.dropped == 8


def test_live_equals_offline():
    """The same frames give the same boxes, identities and decisions, whichever way the loop runs."""
    options = {"width": 640, "height": 480, "count": 20, "fps": 15.0, "faces": 2}
    offline, live = Keep(), Keep()
    with closing(Stage(find_model("face_detection").artifact("full").path)) as detect:
        run(Source(**options), [("detect", detect), *analysis()], [offline], live=False)
        report = run(LockStep(live, **options), [("detect", detect), *analysis()], [live], live=True)
        alone = list(drain([("detect", detect), *analysis()], _frames(Source(**options))))
    assert report.dropped == 0
    assert len(offline.results) == len(live.results) == len(alone) == 20
    assert sum(len(result.faces) for result in offline.results) >= 20
    for a, b, (_, c) in zip(offline.results, live.results, alone, strict=True):
        for other in (b.faces, c):
            np.testing.assert_array_equal(a.faces.boxes, other.boxes)
            np.testing.assert_array_equal(a.faces.ids, other.ids)
            np.testing.assert_array_equal(a.faces.crops, other.crops)
            assert [(d.label, d.confidence, d.probs) for d in a.faces.decisions] == [
                (d.label, d.confidence, d.probs) for d in other.decisions
            ]


def _frames(source: Source) -> list[Frame]:
    with source:
        return list(source)


@MODES
def test_a_failing_source_ends_the_run(live):
    keep, report = Keep(), Report()
    with pytest.raises(SourceError, match="camera unplugged at frame 5"):
        run(small(fail_at=5), [("detect", one_face)], [keep], live=live, report=report)
    assert keep.closed_with == [SourceError]
    assert report.frames + report.dropped == 5, "what came before was delivered"


@MODES
@pytest.mark.parametrize("place", ["detect", "classify"])
def test_a_failing_stage_ends_the_run(live, place):
    def lose(frame: Frame, faces: Faces) -> Faces:
        if frame.index >= 3:
            raise DeviceLost("gone")
        return faces

    stages = [("detect", lose if place == "detect" else one_face), ("classify", lose)]
    keep, report = Keep(), Report()
    with pytest.raises(DeviceLost, match="gone"):
        run(small(count=None), stages, [keep], live=live, report=report)  # without end: live, any frame may be dropped
    assert keep.closed_with == [DeviceLost]
    assert report.frames <= 3
    if not live:
        assert report.frames == 3


@MODES
def test_a_failing_sink_ends_the_run_and_the_others_are_closed(live):
    other, failing = Keep(), Keep(fail_at=4)
    with pytest.raises(OutputError, match="disk full"):
        run(small(count=None), [("detect", one_face)], [other, failing], live=live)
    assert other.closed_with == failing.closed_with == [OutputError]
    assert len(other.results) == 5


@MODES
def test_a_sink_that_cannot_be_opened_ends_the_run(live):
    class Closed(Keep):
        def __enter__(self):
            raise OutputError("no such folder")

    other = Keep()
    with pytest.raises(OutputError, match="no such folder"):
        run(small(), [("detect", one_face)], [other, Closed()], live=live)
    assert other.closed_with == [OutputError]
    assert not other.results


@MODES
def test_a_failing_drawing_ends_the_run(live):
    def draw(result: Result) -> np.ndarray:
        raise RuntimeError("no pen")

    with pytest.raises(RuntimeError, match="no pen"):
        run(small(), [("detect", one_face)], [Keep()], live=live, draw=draw)


@MODES
def test_what_is_drawn_is_the_frame_that_was_analysed(live):
    keep = Keep()

    def draw(result: Result) -> np.ndarray:
        return result.frame.image // 2

    run(small(), [("detect", one_face)], [keep], live=live, draw=draw)
    assert keep.results
    for result in keep.results:
        np.testing.assert_array_equal(result.picture, result.frame.image // 2)
        assert result.spans_ms["draw"] >= 0


@MODES
def test_stop_ends_an_endless_run_in_good_order(live):
    stop, report = Stop(), Report()

    class Stopping(Keep):
        def write(self, result: Result) -> None:
            super().write(result)
            if len(self.results) == 10:
                stop()

    keep = Stopping()
    run(small(count=None), [("detect", one_face)], [keep], live=live, stop=stop, report=report)
    assert report.stopped
    assert 10 <= report.frames <= 16
    assert len(keep.results) == report.frames
    assert keep.closed_with == [None]


@MODES
def test_stop_from_another_thread_and_before_the_start(live):
    stop = Stop()
    timer = threading.Timer(0.2, stop)
    timer.start()
    assert run(small(count=None), [("detect", one_face)], [Keep()], live=live, stop=stop).stopped
    timer.join()
    unopened = type("Unopened", (), {"stop": lambda self: None})()  # it would hang, as a stream that does not answer
    assert run(unopened, [("detect", one_face)], [Keep()], live=live, stop=stop).stopped


@MODES
def test_a_stop_reaches_a_source_that_waits_for_its_next_frame(live, caplog):
    stop, keep = Stop(), Keep()
    keep.arrived = SimpleNamespace(release=stop)
    report = run(Paced(small(count=None), fps=0.01), [("detect", one_face)], [keep], live=live, stop=stop)
    assert report.stopped and report.frames == 1
    assert "did not stop within" not in caplog.text


def test_nothing_comes_after_the_live_result_that_stopped_the_run():
    stop, keep = Stop(), Keep(wait_s=0.05)  # meanwhile the next one is found, and waits
    keep.arrived = type("Third", (), {"release": lambda _: len(keep.results) == 3 and stop()})()
    assert run(small(count=None), [("detect", one_face)], [keep], live=True, stop=stop).frames == 3


@MODES
def test_a_stop_that_serves_many_runs_holds_none_that_ended(live):
    stop, source = Stop(), small(count=3)
    gone = weakref.ref(source)
    run(source, [("detect", one_face)], [], live=live, stop=stop)
    del source
    gc.collect()
    assert gone() is None


@MODES
def test_an_empty_source_and_no_sink(live):
    report = run(small(count=0), [("detect", one_face)], [], live=live)
    assert (report.frames, report.dropped) == (0, 0)
    assert run(small(count=3), [("detect", one_face)], [], live=live).frames >= 1


def test_status_and_report_say_how_it_went():
    keep = Keep(wait_s=0.01)
    report = run(small(), [("detect", one_face), *analysis()], [keep], live=False)
    last = keep.results[-1]
    assert last.status.device == "fake"
    assert 10 < last.status.fps <= 110
    assert last.status.age_ms > 0
    assert report.devices == {"fake": 40}
    assert sum(report.labels.values()) == 40
    assert report.summary()["frames"] == 40
    assert report.merge(report).frames == 80


@pytest.mark.parametrize(("count", "rate"), [(1, 0.0), (2, 4.0), (3, 4.0)])
def test_a_live_rate_is_that_of_the_gaps_between_the_frames(count, rate):
    report = run(Paced(small(count=count), fps=4), [("detect", one_face)], [], live=True)
    assert report.frames == count
    assert report.fps == pytest.approx(rate, rel=0.1)
    assert report.merge(report).fps == report.fps
    assert report.summary()["fps"] == round(report.fps, 2)


def test_a_report_grows_over_the_runs_that_it_is_given_to():
    stop, report, keep = Stop(), Report(), Keep(wait_s=0.01)
    keep.arrived = SimpleNamespace(release=lambda: len(keep.results) == 5 and stop())
    run(small(count=None), [("detect", one_face)], [keep], live=True, stop=stop, report=report)
    before = report.frames, report.dropped, report.seconds
    assert before[0] == 5 and report.stopped
    run(small(count=0), [("detect", one_face)], [], live=True, report=report)
    assert report.stopped and (report.frames, report.dropped) == before[:2] and report.seconds > before[2]


def test_a_rate_offline_is_that_of_the_work():
    report = run(small(count=3), [("detect", one_face)], [Keep(wait_s=0.05)], live=False)
    assert report.fps == report.frames / report.seconds < 20


def test_drain_runs_in_the_callers_thread():
    names = []

    def note(frame: Frame, faces: Faces) -> Faces:
        names.append(threading.current_thread().name)
        return NO_FACES

    assert len(list(drain([("note", note)], _frames(small(count=3))))) == 3
    assert set(names) == {threading.current_thread().name}


def test_the_rate_is_that_of_the_last_two_seconds(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(
        "edge_app.run.time", SimpleNamespace(perf_counter=lambda: now[0], monotonic_ns=lambda: 15 * 10**6)
    )
    clock, frame = _Clock(), Frame(np.zeros((2, 2, 3), np.uint8), 0, 0, captured_ns=3 * 10**6)
    assert clock.status(frame, 0, "").age_ms == 12
    clock, rates = _Clock(), []
    for gap in [0.1] * 100 + [0.5] * 20:
        now[0] += gap
        rates.append(clock.status(frame, 0, "").fps)
    assert (rates[0], rates[99], rates[-1]) == (0.0, pytest.approx(10), pytest.approx(2))
    assert len(clock._times) <= 22, "what is older is forgotten"


def test_sinks_are_told_while_no_result_comes():
    idle = threading.Event()
    keep = Keep()
    keep.idle = idle.set

    class Waiting(Source):
        def __iter__(self):
            yield from super().__iter__()
            assert idle.wait(10)

    run(Waiting(width=160, height=120, count=2), [("detect", one_face)], [keep], live=True)
    assert idle.is_set()

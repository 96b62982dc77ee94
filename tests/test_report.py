from __future__ import annotations

import json
import math

import pytest

from edge_app import report as module
from edge_app.report import Report


def test_spans_become_percentiles():
    report = Report()
    for ms in range(1, 101):
        report.add({"detect": float(ms)})
    assert report.frames == 100
    assert report.percentiles("detect") == pytest.approx({"p50": 50.5, "p95": 95.05, "p99": 99.01})
    assert math.isnan(report.percentiles("draw")["p50"])


def test_a_span_of_every_second_frame_is_kept_to_the_end(monkeypatch):
    monkeypatch.setattr(module, "KEEP", 64)
    report = Report()
    for index in range(2000):
        report.add({"age": 1.0} | ({"infer": float(index)} if index % 2 else {}))
    assert max(report.spans_ms["infer"]) > 1900


def test_memory_stays_bounded_and_the_median_right(monkeypatch):
    monkeypatch.setattr(module, "KEEP", 100)
    report = Report()
    for index in range(10_000):
        report.add({"detect": float(index)})
    assert 40 <= len(report.spans_ms["detect"]) <= 100
    assert report.percentiles("detect")["p50"] == pytest.approx(5000, rel=0.1)


def test_the_bound_is_small_and_good_enough_for_the_rare():
    report = Report()
    for index in range(20_000):
        report.add({"detect": float(index % 1000)})
    assert len(report.spans_ms["detect"]) * 8 <= 32_768
    assert report.percentiles("detect")["p99"] == pytest.approx(990, rel=0.01)


def test_two_reports_add_up():
    one, other = Report(seconds=1.0), Report(seconds=3.0, stopped=True, dropped=2)
    one.add({"detect": 1.0})
    other.add({"detect": 3.0, "draw": 5.0})
    one.labels["happy"] += 2
    other.labels["happy"] += 1
    both = one.merge(other)
    assert (both.frames, both.dropped, both.seconds, both.fps, both.stopped) == (2, 2, 4.0, 0.5, True)
    assert (
        both.labels["happy"] == 3
        and list(both.spans_ms["detect"]) == [1.0, 3.0]
        and list(both.spans_ms["draw"]) == [5.0]
    )


def test_of_two_reports_that_kept_unequal_shares_neither_weighs_more():
    long, short = Report(), Report()
    for _ in range(97_000):
        long.add({"detect": 10.0})
    for _ in range(3_000):
        short.add({"detect": 1000.0})
    for both in (long.merge(short), short.merge(long), Report().merge(long).merge(short)):
        assert both.percentiles("detect") == {"p50": 10.0, "p95": 10.0, "p99": 1000.0}
        assert len(both.spans_ms["detect"]) <= module.KEEP


def test_of_many_short_reports_the_last_weigh_no_more():
    total = Report()
    for number in range(20_000):
        one = Report()
        one.add({"detect": 1.0 if number < 10_000 else 100.0})
        total = total.merge(one)
    samples = total.spans_ms["detect"]
    assert module.KEEP / 4 < len(samples) <= module.KEEP
    assert samples.count(1.0) / len(samples) == pytest.approx(0.5, abs=0.01)


def test_a_summary_is_plain():
    report = Report(seconds=2.0)
    report.add({"detect": 1.5})
    read = json.loads(json.dumps(report.summary()))
    assert read["ms"]["detect"]["p50"] == 1.5 and read["fps"] == 0.5


def test_nothing_has_no_rate():
    assert Report().fps == 0.0


def test_two_reports_add_up_in_everything():
    one, other = Report(stopped=True, faces=3, dropped=1), Report(faces=4, dropped=2)
    one.devices["hailo"] += 5
    other.devices.update(hailo=1, cpu=2)
    for both in (one.merge(other), other.merge(one)):
        assert (both.faces, both.dropped, both.stopped) == (7, 3, True)
        assert both.devices == {"hailo": 6, "cpu": 2}
        assert both.summary()["devices"] == {"hailo": 6, "cpu": 2}

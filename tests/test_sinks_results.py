"""The lines and the table of results."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from sink_items import LABELS, LABELS_OF, STATUS, faces, lines, result, table, write_all

from edge_app.moments import read_results
from edge_app.result_line import result_line
from edge_app.sinks import results
from edge_app.types import Faces


def test_a_stream_whose_reader_is_gone() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    with pytest.raises(BrokenPipeError):
        write_all(results.Sink(stream=stream), [result()])
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_a_line_says_what_the_design_says(tmp_path: Path) -> None:
    write_all(
        results.Sink(tmp_path / "r.jsonl"), [result(120, 4_004_000_123, faces=faces(), source="cam0"), result(121)]
    )
    first, second = lines(tmp_path / "r.jsonl")
    face = first["faces"][0]
    assert list(first) == ["frame", "t", "source", "faces", "speed", "device"]
    assert (first["frame"], first["t"], first["source"], first["device"]) == (120, 4.004, "cam0", "cpu")
    assert face == {
        "track_id": 3,
        "box": {"x1": 1.0, "y1": 2.0, "x2": 30.5, "y2": 40.0},
        "confidence": 0.97,
        "expression": {"name": "happy", "confidence": 0.8125, "probs": {"happy": 0.8125, "sad": 0.1875}},
        "unsure": False,
    }
    assert first["speed"] == {"detect": 1.235}
    assert (second["frame"], second["faces"]) == (121, [])


def test_unsure_and_undecided_faces(tmp_path: Path) -> None:
    items = [result(0, faces=faces(unsure=True)), result(1, faces=faces(decided=False))]
    write_all(results.Sink(tmp_path / "r.jsonl", tmp_path / "r.csv", labels=LABELS), items)
    unsure, undecided = (line["faces"][0] for line in lines(tmp_path / "r.jsonl"))
    assert (unsure["unsure"], unsure["why"], unsure["expression"]["name"]) == (True, "small", "unsure")
    assert "expression" not in undecided and "unsure" not in undecided
    rows = table(tmp_path / "r.csv")
    assert (rows[0]["unsure"], rows[0]["why"], rows[2]["unsure"], rows[2]["expression"]) == ("true", "small", "", "")


def test_the_other_heads_of_a_model_are_in_the_line() -> None:
    heads = {"emotion": np.array([[0.8125, 0.1875]] * 2, np.float32), "calm": np.array([[0.25, 0.75]] * 2, np.float32)}
    both = faces()
    both = Faces(both.boxes, both.scores, ids=both.ids, decisions=both.decisions, heads=heads, labels=LABELS_OF)
    assert result_line(result(faces=both))["faces"][1]["heads"] == {
        "emotion": {"happy": 0.8125, "sad": 0.1875},
        "calm": {"restless": 0.25, "calm": 0.75},
    }


def test_the_table_has_a_row_per_face_and_one_without(tmp_path: Path) -> None:
    write_all(results.Sink(csv=tmp_path / "r.csv", labels=LABELS), [result(0, faces=faces()), result(1)])
    rows = table(tmp_path / "r.csv")
    assert list(rows[0]) == ["frame", "t", "source", *results.FACE_COLUMNS, *LABELS]
    assert [(row["frame"], row["track_id"], row["x1"], row["happy"]) for row in rows] == [
        ("0", "3", "1.0", "0.8125"),
        ("0", "4", "32.0", "0.8125"),
        ("1", "", "", ""),
    ]
    assert rows[0]["t"] == "0.0" and rows[0]["unsure"] == "false"


def test_names_with_commas_quotes_hangul_and_no_utf8_at_all(tmp_path: Path) -> None:
    names = ['a,b "c".mp4', "한글.mp4", "line\nbreak.mp4", os.fsdecode(b"\xff.mp4")]
    write_all(results.Sink(tmp_path / "r.jsonl", tmp_path / "r.csv"), [result(source=name) for name in names])
    assert [line["source"] for line in lines(tmp_path / "r.jsonl")] == names
    assert [row["source"] for row in table(tmp_path / "r.csv")] == [*names[:3], "\\udcff.mp4"]


def test_many_runs_share_one_file(tmp_path: Path) -> None:
    shared = results.Sink(tmp_path / "r.jsonl", tmp_path / "r.csv", labels=LABELS)
    with shared:
        for name in ("a.mp4", "b.mp4"):
            write_all(shared, [result(source=name)])
            assert not (tmp_path / "r.jsonl").exists()
    assert [line["source"] for line in lines(tmp_path / "r.jsonl")] == ["a.mp4", "b.mp4"]
    assert len(table(tmp_path / "r.csv")) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.csv", "r.jsonl"]


def test_a_stream_gets_each_line_at_once(tmp_path: Path) -> None:
    with (tmp_path / "stream").open("w") as stream, results.Sink(stream=stream) as sink:
        sink.write(result(7))
        assert lines(tmp_path / "stream")[0]["frame"] == 7


def test_faces_stand_in_a_line_by_their_numbers(tmp_path: Path) -> None:
    both = replace(faces(), ids=np.array([4, 3]))
    line = result_line(result(faces=both))
    assert [(face["track_id"], face["box"]["x1"]) for face in line["faces"]] == [(3, 32.0), (4, 1.0)]


def test_times_are_kept_to_the_microsecond() -> None:
    assert result_line(result(0, 4_004_123_456))["t"] == 4.004123


def test_what_a_camera_saw_says_when_on_the_clock(tmp_path: Path) -> None:
    """The moment of the picture, which is a while ago when its line is written; none for a file, which was not seen."""
    before = datetime.now().astimezone()
    seen = replace(result(7), frame=replace(result(7).frame, live=True, captured_ns=time.monotonic_ns() - 10**10))
    write_all(results.Sink(tmp_path / "r.jsonl"), [seen, result(8)])
    camera, file = lines(tmp_path / "r.jsonl")
    assert list(camera)[:4] == ["frame", "t", "time", "source"] and "time" not in file
    taken = datetime.fromisoformat(camera["time"])
    assert taken.tzinfo and len(camera["time"].partition(".")[2]) == len("123+00:00")
    assert -0.01 < (taken - before).total_seconds() + 10 < 5
    assert len(list(read_results(tmp_path / "r.jsonl"))) == 2


@pytest.mark.parametrize(("of_faces", "of_run", "said"), [("hailo", "cpu", "hailo"), ("", "cpu", "cpu")])
def test_the_device_is_that_which_classified(of_faces: str, of_run: str, said: str) -> None:
    one = replace(result(), faces=replace(faces(), device=of_faces), status=replace(STATUS, device=of_run))
    assert result_line(one)["device"] == said

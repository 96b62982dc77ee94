"""The best moments: which stretches they are, and the clips that are cut."""

from __future__ import annotations

import csv
import json
import unicodedata

import av
import pytest
from click.testing import CliRunner
from clips import times, write_clip
from small_model import write_model

from edge_app.cli import cli
from edge_app.errors import InputError, SettingsError
from edge_app.moments import find, read_results
from edge_app.runs import UNFINISHED, is_run

LABELS = ("happy", "sad")


def line(t: float, *said: tuple[str, float], source: str = "a.mp4", unsure: bool = False) -> dict:
    """A frame whose faces say these words with these confidences."""
    faces = [
        {
            "expression": {"name": name, "confidence": sure, "probs": dict.fromkeys(LABELS, 0.5)},
            "unsure": unsure,
        }
        for name, sure in said
    ]
    return {"t": t, "source": source, "faces": faces}


def story(words: str, step: float = 0.1, source: str = "a.mp4") -> list[dict]:
    """A letter per frame: h is happy (0.8), H very happy (1.0), s sad, u unsure, a dot nobody."""
    said = {"h": [("happy", 0.8)], "H": [("happy", 1.0)], "s": [("sad", 0.9)], "u": [("happy", 0.9)], ".": []}
    return [line(i * step, *said[word], source=source, unsure=word == "u") for i, word in enumerate(words)]


@pytest.mark.parametrize(
    ("words", "gap", "least", "expected"),
    [
        ("sshhhhss", 0.0, 0.0, [(0.2, 0.6)]),
        ("hhhsshhh", 0.25, 0.0, [(0.0, 0.8)]),  # a pause of 0.2 s is bridged
        ("hhhsshhhh", 0.15, 0.0, [(0.5, 0.9), (0.0, 0.3)]),  # it is not, and the longer one leads
        ("hhh.ss.HHH", 0.0, 0.0, [(0.7, 1.0), (0.0, 0.3)]),  # as does the surer one
        ("h.hhh", 0.0, 0.25, [(0.2, 0.5)]),
        ("uuuss..", 0.0, 0.0, []),
    ],
)
def test_which_stretches_are_moments(words, gap, least, expected):
    found = find(story(words), "happy", gap=gap, least=least)
    assert [(round(one.start, 3), round(one.end, 3)) for one in found] == expected


def test_the_peak_and_the_mean():
    (moment,) = find(story("shhHhs"), "happy", gap=0.0, least=0.0)
    assert (round(moment.peak, 3), round(moment.confidence, 3)) == (0.3, 0.85)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("hhhhHhHhhh", [(0.4, 0.7), (0.0, 0.3), (0.7, 1.0), (0.3, 0.4)]),
        ("hhhhh", [(0.0, 0.3), (0.3, 0.5)]),
        ("hhhhhhhhhH", [(0.7, 1.0), (0.0, 0.3), (0.3, 0.6), (0.6, 0.7)]),
        ("Hhhhhhhs", [(0.0, 0.3), (0.3, 0.6), (0.6, 0.7)]),
        ("hHhs", [(0.0, 0.3)]),
        ("HshhhssshH", [(0.2, 0.5), (0.8, 1.0), (0.0, 0.1)]),  # a pause in it makes none surer
    ],
)
def test_a_long_moment_comes_apart_the_surest_part_first(words, expected):
    found = find(story(words), "happy", gap=0.35, least=0.0, most=0.3)
    assert [(round(one.start, 3), round(one.end, 3)) for one in found] == expected


def test_what_is_said_of_a_part_is_of_that_part():
    first, second, *_ = find(story("hhhhhHHHhh"), "happy", gap=0.0, least=0.2, most=0.3)
    assert (round(first.peak, 3), first.confidence) == (0.5, 1.0)
    assert (round(second.peak, 3), round(second.confidence, 3)) == (0.0, 0.8)


@pytest.mark.parametrize(
    ("most", "expected"),
    [(0.25, [(0.0, 0.25), (0.3, 0.5)]), (0.05, [(0.0, 0.05), (0.1, 0.15), (0.2, 0.25), (0.3, 0.35), (0.4, 0.45)])],
)
def test_a_part_is_never_longer_also_where_frames_are(most, expected):
    found = find(story("hhhhh"), "happy", least=0.0, most=most)
    assert [(round(one.start, 3), round(one.end, 3)) for one in found] == expected


def two_words(*acts: tuple[float, float]) -> list[dict]:
    """Of (seconds, probability of teasing), 25 frames a second, what a head of two words says."""
    lines: list[dict] = []
    for seconds, yes in acts:
        for _ in range(round(25 * seconds)):
            probs = {"non_teasing": 1 - yes, "teasing": yes}
            name = max(probs, key=probs.__getitem__)
            face = {"expression": {"name": name, "confidence": probs[name], "probs": probs}, "unsure": False}
            lines.append({"t": round(len(lines) / 25, 6), "source": "a.mp4", "faces": [face]})
    return lines


def test_what_is_hardly_surer_than_chance_weighs_little_however_long():
    found = find(two_words((2, 0.1), (29, 0.53), (2, 0.1), (14, 0.99), (2, 0.1)), "teasing")
    assert [(one.start, one.end) for one in found] == [(33, 47), (2, 31)]
    assert [one.weight for one in found] == pytest.approx([0.49 * 14, 0.03 * 29])


def test_what_is_no_surer_than_chance_is_no_moment():
    assert not find(two_words((2, 0.1), (3, 0.5)), "teasing") + find(two_words((3, 0.5)), "non_teasing")


def test_a_word_that_another_leads_already_does_not_count():
    lines = two_words((2, 0.1), (2, 0.8), (1, 0.46))
    for one in lines[100:]:  # it is still said
        one["faces"][0]["expression"].update(name="teasing", confidence=0.46)
    (moment,) = find(lines, "teasing", gap=0.0)
    assert (moment.start, moment.end) == (2, 4) and moment.confidence == pytest.approx(0.8)


def test_a_long_recording_comes_apart_soon():
    found = find(two_words((900, 0.8)), "teasing", most=2.0)
    assert [one.start for one in found] == list(range(0, 900, 2))


def test_sources_do_not_run_into_each_other_and_any_face_counts():
    lines = story("ssh", source="a.mp4") + story("hss", source="b.mp4")
    lines += [line(9.0, ("sad", 0.9), ("happy", 0.7), source="c.mp4"), line(9.1, source="c.mp4")]
    found = find(lines, "happy", gap=5.0, least=0.0)
    assert {one.source for one in found} == {"a.mp4", "b.mp4", "c.mp4"}
    assert all(abs(one.end - one.start - 0.1) < 1e-6 for one in found)


def test_an_outage_is_no_moment():
    (moment,) = find([line(0.0, ("happy", 0.9)), line(60.0)], "happy", gap=1.0, least=0.5)
    assert moment.end == 1.0


def test_a_label_that_nobody_knows():
    with pytest.raises(SettingsError, match="did you mean 'happy'"):
        find(story("hh"), "hapy")


DAMAGED = [
    '{"t": 0}',
    '{"t": "now", "source": "a", "faces": []}',
    '{"t": NaN, "source": "a", "faces": []}',
    '{"t": 0, "source": "a", "faces": [1]}',
    '{"t": 0, "source": "a", "faces": [{"expression": {"name": "happy"}}]}',
    '{"t": 0, "source": "a", "faces": [{"expression": {"name": "happy", "confidence": 0.9, "probs": 3}}]}',
    '{"t": 0, "source": "a", "faces": [{"expression": {"name": "happy", "confidence": 0.9, "probs": {"happy": "?"}}}]}',
]


@pytest.mark.parametrize("content", [None, "no json", "[]", *DAMAGED])
def test_what_is_no_results_file(tmp_path, content):
    if content is not None:
        (tmp_path / "results.jsonl").write_text(content + "\n")
    with pytest.raises(InputError, match="results.jsonl: expected the results"):
        list(read_results(tmp_path / "results.jsonl"))


@pytest.fixture
def annotated(tmp_path):
    """A run as `annotate` leaves it, begun at 1 s, of a clip of 4 s: happy from 2 to 3 s of the clip's time."""
    write_clip(tmp_path / "clip.mp4", frames=100, sound=True)
    run = tmp_path / "run"
    run.mkdir()
    write_clip(run / "clip.mp4", frames=75, sound=True)
    said = [line(1 + i / 25, ("happy" if 25 <= i < 50 else "sad", 0.9), source="clip.mp4") for i in range(75)]
    (run / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in said))
    about = {
        "arguments": {"start": 1.0},
        "files": [{"input": str(tmp_path / "clip.mp4"), "output": str(run / "clip.mp4")}],
    }
    (run / "run.json").write_text(json.dumps(about))
    return run


def moments(run, *options):
    return CliRunner().invoke(cli, ["moments", str(run), "--label", "happy", *map(str, options)])


def seconds(path):
    with av.open(str(path)) as container:
        return container.duration / 1e6, len(container.streams.audio)


@pytest.mark.parametrize(("options", "first"), [((), 25), (("--original",), 50)])
def test_a_moment_is_cut_with_its_sound(annotated, tmp_path, options, first):
    result = moments(annotated, "-o", tmp_path / "out", "--around", 0.2, *options)
    assert result.exit_code == 0, result.output
    cut = tmp_path / "out" / "01_happy_clip_00-00-02.mp4"
    assert len(times(cut)) == 35 and abs(seconds(cut)[0] - 1.4) < 0.1 and seconds(cut)[1] == 1
    whole = tmp_path / "clip.mp4" if options else annotated / "clip.mp4"
    with av.open(str(whole)) as container:
        expected = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)][first - 5]
    with av.open(str(cut)) as container:
        got = next(container.decode(video=0)).to_ndarray(format="gray")
    assert abs(got.astype(int) - expected).mean() < 3
    (row,) = csv.DictReader((tmp_path / "out" / "moments.csv").read_text().splitlines())
    assert (row["label"], row["start"], row["end"], row["confidence"]) == ("happy", "2.000", "3.000", "0.900")
    assert (row["cut_start"], row["cut_end"]) == ("1.800", "3.200")


@pytest.mark.parametrize(("options", "begins"), [((), "1.000"), (("--original",), "0.000")])
def test_a_cut_begins_and_ends_where_its_clip_does(annotated, tmp_path, options, begins):
    assert moments(annotated, "-o", tmp_path / "out", "--around", 9, *options).exit_code == 0
    (row,) = csv.DictReader((tmp_path / "out" / "moments.csv").read_text().splitlines())
    assert (row["cut_start"], row["cut_end"], row["start"]) == (begins, "4.000", "2.000")


@pytest.mark.parametrize(("around", "frames"), [(0.2, (30, 25)), (0.5, (40, 33))])
def test_no_second_is_cut_out_twice(annotated, tmp_path, around, frames):
    shown = [*range(10, 25), *range(40, 60)]  # 0.6 s lie between
    said = [line(1 + i / 25, ("happy" if i in shown else "sad", 0.9), source="clip.mp4") for i in range(75)]
    (annotated / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in said))
    result = moments(annotated, "-o", tmp_path / "out", "--gap", 0, "--around", around)
    assert result.exit_code == 0
    cuts = [len(times(cut)) for cut in sorted((tmp_path / "out").glob("*.mp4"))]
    assert cuts == pytest.approx(frames, abs=1)


def test_parts_of_one_moment_are_cut_out_without_a_second_twice(annotated, tmp_path):
    result = moments(annotated, "-o", tmp_path / "out", "--least", 0.1, "--most", 0.4, "--around", 0.2)
    assert result.exit_code == 0
    rows = list(csv.DictReader((tmp_path / "out" / "moments.csv").read_text().splitlines()))
    assert [row["start"] for row in rows] == ["2.000", "2.400", "2.800"]
    assert [row["cut_start"] for row in rows] == ["1.800", "2.400", "2.800"]
    assert [row["cut_end"] for row in rows] == ["2.400", "2.800", "3.200"]
    assert [len(times(tmp_path / "out" / row["file"])) for row in rows] == [15, 10, 10]


def test_no_moment_is_told_and_leaves_nothing(annotated, tmp_path):
    result = moments(annotated, "-o", tmp_path / "out", "--least", 5)
    assert result.exit_code == 0 and "no moment of 'happy'" in result.output and not (tmp_path / "out").exists()


def test_a_copy_that_is_gone(annotated, tmp_path):
    (annotated / "clip.mp4").unlink()
    result = moments(annotated, "-o", tmp_path / "out")
    assert result.exit_code == 2 and "clip.mp4" in result.output and not (tmp_path / "out").exists()


def test_a_run_without_copies(annotated, tmp_path):
    about = json.loads((annotated / "run.json").read_text())
    about["files"][0]["output"] = None
    (annotated / "run.json").write_text(json.dumps(about))
    result = moments(annotated, "-o", tmp_path / "out")
    assert result.exit_code == 2 and "no annotated clip of clip.mp4; try --original" in result.output
    assert moments(annotated, "-o", tmp_path / "out", "--original").exit_code == 0


@pytest.fixture
def blurred(annotated):
    """The same run, with --blur."""
    about = json.loads((annotated / "run.json").read_text())
    about["arguments"]["settings"] = {"blur": True}
    (annotated / "run.json").write_text(json.dumps(about))
    return annotated


def test_faces_that_were_blurred_are_not_shown_by_advice(blurred, tmp_path):
    about = json.loads((blurred / "run.json").read_text())
    about["files"][0]["output"] = None
    (blurred / "run.json").write_text(json.dumps(about))
    result = moments(blurred, "-o", tmp_path / "out")
    assert result.exit_code == 2 and "annotate it again with --blur" in result.stderr and "--original" not in result.stderr


def test_faces_that_were_blurred_are_not_shown_without_a_word(blurred, tmp_path):
    result = moments(blurred, "-o", tmp_path / "bare", "--original")
    assert result.exit_code == 0 and "run was annotated with --blur, these clips show the faces unblurred" in result.stderr
    assert "unblurred" not in moments(blurred, "-o", tmp_path / "drawn").stderr


def test_originals_of_a_run_without_blur_need_no_word(annotated, tmp_path):
    assert "unblurred" not in moments(annotated, "-o", tmp_path / "out", "--original").stderr


def test_a_recording_has_no_original(annotated):
    (annotated / "run.json").write_text("{}")
    result = moments(annotated, "--original")
    assert result.exit_code == 2 and "no original is kept" in result.output


def test_a_recording_of_live(annotated, tmp_path):
    (annotated / "run.json").write_text("{}")
    write_clip(annotated / "annotated.mp4", frames=100)
    result = moments(annotated, "-o", tmp_path / "out", "--top", 1)
    assert result.exit_code == 0, result.output
    assert len(times(tmp_path / "out" / "01_happy_clip_00-00-02.mp4")) == 75


@pytest.mark.parametrize("content", ["", "[]", '{"files": 3, "arguments": {}}', '{"files": [{}], "arguments": {}}'])
def test_a_run_file_that_is_damaged(annotated, content):
    (annotated / "run.json").write_text(content)
    result = moments(annotated)
    assert result.exit_code == 2 and "run.json: expected" in result.output


@pytest.mark.parametrize("label", ["joy", "Happy", "행복", unicodedata.normalize("NFD", "행복")])
def test_a_label_may_be_named_as_it_is_drawn_or_called_elsewhere(label):
    assert len(find(story("shhhs"), label, gap=0.0, least=0.0)) == 1


@pytest.mark.parametrize(("label", "names"), [("화남", ("행복", "화남")), ("joy", ("happy", "joy"))])
def test_a_label_is_first_what_the_results_call_it(label, names):
    lines = [line(i / 10, (name, 0.9)) for i, name in enumerate((*names, label, label))]
    for one in lines:
        one["faces"][0]["expression"]["probs"] = dict.fromkeys(names, 0.5)
    (moment,) = find(lines, label, gap=0.0, least=0.0)
    assert round(moment.start, 3) == 0.1


def test_the_last_line_counts_unless_it_was_cut_off(tmp_path, caplog):
    path, lines = tmp_path / "results.jsonl", story("hhs", source="얼굴.mp4")
    text = "\n".join(json.dumps(one, ensure_ascii=False) for one in lines).encode()
    path.write_bytes(text)
    assert list(read_results(path)) == lines and not caplog.text
    path.write_bytes(text[: text.rindex("얼".encode()) + 1])  # within a letter
    assert list(read_results(path)) == lines[:2] and "cut off" in caplog.text


def test_a_recording_is_cut_by_the_time_of_its_first_picture(annotated, tmp_path):
    """A stream that took 2.5 s to answer: the results begin there, the file at 0."""
    (annotated / "run.json").write_text("{}")
    write_clip(annotated / "annotated.mp4", frames=100)
    said = [line(2.5 + i / 25, ("happy" if 50 <= i < 75 else "sad", 0.9), source="cam:554") for i in range(100)]
    (annotated / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in said))
    result = moments(annotated, "-o", tmp_path / "out", "--around", 0)
    assert result.exit_code == 0, result.output
    cut = tmp_path / "out" / "01_happy_cam:554_00-00-04.mp4"
    assert len(times(cut)) == 25
    (row,) = csv.DictReader((tmp_path / "out" / "moments.csv").read_text().splitlines())
    assert (row["cut_start"], row["cut_end"]) == ("4.500", "5.500")
    with av.open(str(annotated / "annotated.mp4")) as container:
        expected = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)][50]
    with av.open(str(cut)) as container:
        assert abs(next(container.decode(video=0)).to_ndarray(format="gray").astype(int) - expected).mean() < 3


def test_a_copy_whose_original_is_gone_and_called_like_a_pattern(annotated, tmp_path):
    about = json.loads((annotated / "run.json").read_text())
    about["files"][0]["input"] = "elsewhere/My talk [dQw4w9WgXcQ].mp4"
    (annotated / "run.json").write_text(json.dumps(about))
    results = annotated / "results.jsonl"
    results.write_text(results.read_text().replace("clip.mp4", "My talk [dQw4w9WgXcQ].mp4"))
    result = moments(annotated, "-o", tmp_path / "out")
    assert result.exit_code == 0 and (tmp_path / "out" / "01_happy_My talk [dQw4w9WgXcQ]_00-00-02.mp4").exists()


def test_what_was_passed_over_is_said(annotated, tmp_path):
    results = annotated / "results.jsonl"
    results.write_text(results.read_text() + results.read_text().replace("clip.mp4", "other.mp4"))
    result = moments(annotated, "-o", tmp_path / "out")
    assert result.exit_code == 0 and "no annotated clip of other.mp4; try --original" in result.stderr


def test_what_was_cut_out_is_no_input_of_the_next_run(annotated, tmp_path):
    assert moments(annotated, "-o", tmp_path / "out").exit_code == 0
    assert is_run(tmp_path / "out")


def test_a_moment_of_no_length_keeps_what_is_around_it(annotated, tmp_path):
    said = [line(1.0, ("happy", 0.9), source="clip.mp4")]
    (annotated / "results.jsonl").write_text(json.dumps(said[0]) + "\n")
    result = moments(annotated, "-o", tmp_path / "out", "--least", 0)
    assert result.exit_code == 0 and len(times(tmp_path / "out" / "01_happy_clip_00-00-01.mp4")) == 25


def test_the_run_itself_is_never_replaced(annotated):
    before = (annotated / "run.json").read_bytes()
    result = moments(annotated, "-o", annotated, "--exist-ok")
    assert result.exit_code == 2 and "would replace the run itself" in result.stderr
    assert (annotated / "run.json").read_bytes() == before


def test_the_original_is_the_file_that_was_read_wherever_one_is_now(tmp_path, monkeypatch):
    for day, frames in (("day1", 30), ("day2", 50)):
        (tmp_path / day).mkdir()
        write_clip(tmp_path / day / "clip.mp4", frames=frames)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "day1")
    model = write_model(tmp_path / "model")
    done = CliRunner().invoke(cli, ["annotate", "clip.mp4", "--model", str(model), "--no-video", "-o", "run"])
    assert done.exit_code == 0, done.output
    said = [line(i / 25, ("happy", 0.9), source="clip.mp4") for i in range(30)]
    (tmp_path / "day1" / "run" / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in said))
    monkeypatch.chdir(tmp_path / "day2")
    result = moments("../day1/run", "--original", "-o", tmp_path / "out")
    assert result.exit_code == 0 and len(times(tmp_path / "out" / "01_happy_clip_00-00-00.mp4")) == 30


def test_what_was_cut_before_is_not_told_as_new(annotated, tmp_path):
    assert moments(annotated, "-o", tmp_path / "out").exit_code == 0
    cut = tmp_path / "out" / "01_happy_clip_00-00-02.mp4"
    before = cut.read_bytes()
    (annotated / "clip.mp4").write_bytes(b"gone")
    result = moments(annotated, "-o", tmp_path / "out", "--exist-ok")
    assert result.exit_code == 2 and "confidence" not in result.output and cut.read_bytes() == before


def test_a_recording_of_many_pictures_has_one_clock(annotated, tmp_path):
    (annotated / "run.json").write_text("{}")
    (annotated / "clip.mp4").rename(annotated / "annotated.mp4")
    said = [line(i / 25, ("happy" if i >= 50 else "sad", 0.9), source=f"{i // 50}.png") for i in range(75)]
    (annotated / "results.jsonl").write_text("".join(json.dumps(one) + "\n" for one in said))
    assert moments(annotated, "-o", tmp_path / "out", "--around", 0).exit_code == 0
    with av.open(str(annotated / "annotated.mp4")) as container:
        expected = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)][50]
    with av.open(str(tmp_path / "out" / "01_happy_1.png_00-00-02.mp4")) as container:
        got = next(container.decode(video=0)).to_ndarray(format="gray")
    assert abs(got.astype(int) - expected).mean() < 3


def test_a_clip_that_was_not_annotated_is_told_so(annotated, tmp_path):
    result = moments(tmp_path / "clip.mp4")
    assert result.exit_code == 2
    assert f"clip.mp4: expected the folder of a run, got a file; first calmcam annotate {tmp_path / 'clip.mp4'}" in result.stderr
    result = moments(annotated / "clip.mp4")  # the copy, which need not be annotated again
    assert result.exit_code == 2 and f"expected the folder of a run, got a file; name {annotated}" in result.stderr


@pytest.mark.parametrize("name", ["results.jsonl", "results.csv"])
def test_a_run_may_be_named_by_its_results(annotated, tmp_path, name):
    (annotated / "results.csv").touch()
    result = moments(annotated / name, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "01_happy_clip_00-00-02.mp4").exists()


def test_a_run_that_was_interrupted_is_gone_on_with(annotated):
    (annotated / "results.jsonl").rename(annotated / "results.jsonl.part")
    assert "take the .part off" in moments(annotated).stderr  # of live
    (annotated / UNFINISHED).touch()
    result = moments(annotated)
    assert result.exit_code == 2 and f"calmcam annotate --resume {annotated}" in result.stderr and ".part" not in result.stderr

"""A video has the times and the pictures that it was given."""

from __future__ import annotations

import re
import shutil
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from sink_items import STATUS, clip, copy, decoded_sound, noise, result, stamps, stamps_so_far, write_all

from edge_app.errors import OutputError
from edge_app.sinks import results, video
from edge_app.sources.video import Source
from edge_app.types import NO_FACES, Frame, Result


def test_time_stamps_survive_exactly_with_a_variable_rate(tmp_path: Path) -> None:
    uneven = [0, 40, 80, 200, 201, 333, 1000, 1040, 1500]
    source = clip(tmp_path / "in.mkv", uneven)
    output = copy(source, tmp_path / "out.mp4")
    assert stamps(output) == stamps(source) == [Fraction(stamp, 1000) for stamp in uneven]


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60), Fraction(25)])
def test_broadcast_rates_are_exact(tmp_path: Path, rate: Fraction) -> None:
    items = [result(i, round(i / rate * 1_000_000_000), duration_ns=round(1_000_000_000 / rate)) for i in range(30)]
    write_all(video.Sink(tmp_path / "out.mp4", preset="ultrafast"), items)
    assert stamps(tmp_path / "out.mp4") == [i / rate for i in range(30)]
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].duration * container.streams.video[0].time_base == 30 / rate


def test_the_last_picture_lasts_as_long_as_it_did(tmp_path: Path) -> None:
    items = [result(0, 0), result(1, 500_000_000), result(2, 1_000_000_000, duration_ns=40_000_000)]
    write_all(video.Sink(tmp_path / "out.mp4"), items)
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.duration * stream.time_base == Fraction(104, 100)


@pytest.mark.parametrize("preset", ["veryfast", "ultrafast"])
@pytest.mark.parametrize(
    "shown",  # ms
    [[40] * 50 + [5000], [3000, 3000, 1000], [200, 67] * 20 + [40], [40, 40, 40, 4880, 40, 9000], [3 * 3600 * 1000]],
)
def test_the_copy_ends_with_the_last_picture_whatever_is_decoded_last(
    tmp_path: Path, shown: list[int], preset: str
) -> None:
    begins = np.cumsum([0, *shown[:-1]]).tolist()
    items = [
        result(number, begin * 10**6, duration_ns=length * 10**6)
        for number, (begin, length) in enumerate(zip(begins, shown, strict=True))
    ]
    write_all(video.Sink(tmp_path / "out.mp4", preset=preset), items)
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.duration * stream.time_base == Fraction(sum(shown), 1000)
        assert container.duration == sum(shown) * 1000
    with Source(tmp_path / "out.mp4") as source:
        last = list(source)[-1]
    assert last.time_ns + last.duration_ns == sum(shown) * 10**6


def test_output_is_h264_420_in_601_colours(tmp_path: Path) -> None:
    write_all(video.Sink(tmp_path / "out.mp4"), [result(index) for index in range(3)])
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        picture = next(container.decode(video=0))
    assert (context.name, context.pix_fmt, picture.colorspace, picture.color_range) == ("h264", "yuv420p", 6, 1)
    np.testing.assert_allclose(picture.to_ndarray(format="rgb24")[24, 32], (200, 40, 40), atol=4)


def test_pictures_are_compressed_as_the_interface_says(tmp_path: Path) -> None:
    """x264 writes what it was asked for into the stream."""
    asked = [{}, {"crf": 23, "preset": "veryfast"}, {"crf": 23, "preset": "ultrafast"}]
    for number, options in enumerate(asked):
        write_all(video.Sink(tmp_path / f"{number}.mp4", **options), [result()])
    told = [re.search(rb"x264 .* options: ([^\0]+)", (tmp_path / f"{n}.mp4").read_bytes())[1] for n in range(3)]
    assert told[0] == told[1] != told[2] and b"crf=23.0" in told[0]


def test_what_was_drawn_is_written(tmp_path: Path) -> None:
    drawn = np.zeros((48, 64, 3), np.uint8)
    base = result()
    write_all(video.Sink(tmp_path / "out.mp4"), [Result(base.frame, base.faces, {}, STATUS, drawn)])
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert next(container.decode(video=0)).to_ndarray(format="rgb24").max() < 8


@pytest.mark.parametrize("size", [(63, 47), (1, 1), (2, 2), (64, 47), (321, 240)])
def test_odd_sizes_are_padded(tmp_path: Path, size: tuple[int, int]) -> None:
    write_all(video.Sink(tmp_path / "out.mp4"), [result(index, size=size) for index in range(2)])
    with av.open(str(tmp_path / "out.mp4")) as container:
        pictures_ = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert pictures_[0].shape[:2] == (size[1] + size[1] % 2, size[0] + size[0] % 2)
    np.testing.assert_allclose(pictures_[0][-1, -1], (200, 40, 40), atol=5)


@pytest.mark.parametrize("size", [(64, 48), (63, 47), (322, 240), (150, 478), (2, 2), (1, 7), (6, 4), (70, 90)])
def test_every_pixel_arrives(tmp_path: Path, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (size[1], size[0], 3), np.uint8) for _ in range(50)]  # x264 looks 40 ahead
    items = (Result(Frame(image, i, i * 40_000_000), NO_FACES, {}, STATUS) for i, image in enumerate(images))
    write_all(video.Sink(tmp_path / "out.mp4", crf=0), items)  # without loss
    with av.open(str(tmp_path / "out.mp4")) as container:
        found = [frame.to_ndarray() for frame in container.decode(video=0)]
    even = [side + side % 2 for side in size]
    for planes, image in zip(found, images, strict=True):
        np.testing.assert_array_equal(planes, cv2.cvtColor(video.fitted(image, *even), cv2.COLOR_RGB2YUV_I420))


def test_a_changed_size_is_fitted_into_the_first(tmp_path: Path) -> None:
    write_all(video.Sink(tmp_path / "out.mp4"), [result(0, size=(64, 48)), result(1, size=(48, 64))])
    with av.open(str(tmp_path / "out.mp4")) as container:
        second = list(container.decode(video=0))[1].to_ndarray(format="rgb24")
    assert second.shape == (48, 64, 3)
    assert second[24, 2].max() < 30 < second[24, 32].max()


def test_time_stamps_that_stand_still_are_made_to_rise(tmp_path: Path) -> None:
    write_all(video.Sink(tmp_path / "out.mp4"), [result(index, 0) for index in range(4)])
    assert len(set(stamps(tmp_path / "out.mp4"))) == 4


def test_names_that_look_like_something_else(tmp_path: Path) -> None:
    path = tmp_path / '50% of:it\'s "한글" #1.mp4'
    write_all(video.Sink(path), [result()])
    assert [item.name for item in tmp_path.iterdir()] == [path.name]


def test_a_run_that_fails_leaves_a_playable_file_of_what_came_before(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mp4", range(0, 2000, 40), sound="aac")
    with pytest.raises(RuntimeError, match="elsewhere"):
        with video.Sink(tmp_path / "out.mp4", audio_from=source) as sink:
            for index in range(10):
                sink.write(result(index))
            raise RuntimeError("elsewhere")
    assert len(stamps(tmp_path / "out.mp4")) == 10
    assert decoded_sound(tmp_path / "out.mp4")[1] == pytest.approx(0.4, abs=0.05)


def test_nothing_written_leaves_nothing(tmp_path: Path) -> None:
    write_all(video.Sink(tmp_path / "out.mp4"), [])
    write_all(results.Sink(tmp_path / "r.jsonl", tmp_path / "r.csv"), [])
    assert list(tmp_path.iterdir()) == []


def test_the_input_is_never_replaced(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mp4", [0, 40])
    before = source.read_bytes()
    with pytest.raises(OutputError, match="would replace the input"):
        write_all(video.Sink(source, audio_from=source), [result()])
    assert source.read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_what_was_recorded_two_seconds_ago_outlasts_a_kill(tmp_path: Path) -> None:
    """Quiet pictures, which would wait long in a buffer; the copies are what a kill would leave."""
    still = np.full((240, 320, 3), 90, np.uint8)
    with video.Sink(tmp_path / "v.mp4", recording=True) as sink:
        for index in range(250):
            sink.write(Result(Frame(still, index, index * 40_000_000), NO_FACES, {}, STATUS))
        left = shutil.copy(tmp_path / "v.mp4.part", tmp_path / "left.mp4")
    # x264 at its default holds some 60 pictures back
    assert stamps_so_far(left)[-1] > 10 - 2 - 2.5
    assert len(stamps_so_far(tmp_path / "v.mp4")) == 250


def test_a_copy_can_be_played_before_it_is_loaded(tmp_path: Path) -> None:
    write_all(video.Sink(tmp_path / "out.mp4"), [result(index) for index in range(3)])
    content = (tmp_path / "out.mp4").read_bytes()
    assert 0 < content.index(b"moov") < content.index(b"mdat")


def test_the_preset_is_the_one_that_was_asked_for(tmp_path: Path) -> None:
    said = {}
    for preset in ("ultrafast", "veryfast"):
        write_all(video.Sink(tmp_path / f"{preset}.mp4", preset=preset), map(noise, range(3)))
        said[preset] = b"cabac=1" in (tmp_path / f"{preset}.mp4").read_bytes()  # x264 writes its options down
    assert said == {"ultrafast": False, "veryfast": True}


def test_a_recording_that_fails_does_not_replace_what_was_there(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "out.mp4").write_bytes(b"dear")
    sink = video.Sink(tmp_path / "out.mp4", preset="ultrafast", recording=True)
    with pytest.raises(OutputError, match="No space left"), sink:
        for index in range(60):
            sink.write(noise(index))

        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(sink, "_push", full)
        sink.write(noise(60))
    assert (tmp_path / "out.mp4").read_bytes() == b"dear"


def test_frames_say_how_long_they_last(tmp_path: Path) -> None:
    with Source(clip(tmp_path / "in.mp4", range(0, 200, 40))) as source:
        assert [round(frame.duration_ns / 1e6) for frame in source] == [40] * 5


def test_a_slow_recording_that_is_whole_is_not_called_cut(tmp_path: Path) -> None:
    """Of one picture in two seconds; the last one's length is not known."""
    for name in ("in.mkv", "in.mp4", "in.avi", "in.webm", "in.ts"):
        base = 1000 if name != "in.avi" else 25
        with Source(clip(tmp_path / name, [0, 2 * base, 4 * base, 6 * base], base=base)) as source:
            assert len(list(source)) == 4, name


@pytest.mark.parametrize("preset", ["veryfast", "ultrafast"])  # with B-frames, and without
def test_a_recording_goes_on_after_a_night_without_a_camera(tmp_path, preset):
    """MP4 holds no sample of 2^31 ticks: 99 minutes of ours."""
    night = 10 * 3600 * 10**9
    moments = [*range(0, 10**9, 10**8), *range(night, night + 10**9, 10**8)]
    sink = video.Sink(tmp_path / "out.mp4", preset=preset, recording=True)
    write_all(sink, [result(number, moment) for number, moment in enumerate(moments)])
    with av.open(str(tmp_path / "out.mp4")) as container:
        shown = [frame.time for frame in container.decode(video=0)]
    for moment in moments:
        assert min(abs(moment / 1e9 - one + shown[0]) for one in shown) < 1e-3
    assert max(after - before for before, after in zip(shown, shown[1:], strict=False)) < 5401

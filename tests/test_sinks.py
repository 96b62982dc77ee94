"""Sinks write complete files or none, with the times and the sound of their source."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from av.stream import Disposition

from edge_app.errors import InputError, OutputError, SourceError
from edge_app.moments import read_results
from edge_app.result_line import result_line
from edge_app.sinks import null, pictures, results, video, window
from edge_app.sources.video import Source
from edge_app.types import NO_FACES, Decision, Faces, Frame, Result, Status

ROOT = Path(__file__).parent.parent
MEDIA = ROOT.parent / "shared" / "media" / "videos"
STATUS = Status(30.0, 20.0, 0, "cpu")
LABELS = ("happy", "sad")
LABELS_OF = {"emotion": LABELS, "calm": ("restless", "calm")}


def result(
    index: int = 0,
    time_ns: int | None = None,
    *,
    size: tuple[int, int] = (64, 48),
    faces: Faces = NO_FACES,
    source: str = "clip.mp4",
    duration_ns: int = 0,
) -> Result:
    image = np.full((size[1], size[0], 3), (200, 40 + index % 128, 40), np.uint8)
    time_ns = index * 40_000_000 if time_ns is None else time_ns
    return Result(Frame(image, index, time_ns, source, duration_ns=duration_ns), faces, {"detect": 1.23456}, STATUS)


def faces(*, decided: bool = True, unsure: bool = False) -> Faces:
    decision = Decision(
        "unsure" if unsure else "happy", 0.8125, {"happy": 0.8125, "sad": 0.1875}, unsure, "small" if unsure else ""
    )
    boxes = np.array([[1.004, 2, 30.5, 40], [32, 2, 60, 40]], np.float32)
    return Faces(
        boxes,
        np.array([0.97, 0.5], np.float32),
        ids=np.array([3, 4]),
        decisions=(decision, decision) if decided else None,
        device="cpu",
    )


def write_all(sink: object, items: Sequence[Result]) -> None:
    with sink:
        for item in items:
            sink.write(item)


# --- video


def clip(
    path: Path,
    stamps: Sequence[int],
    *,
    sound: str = "",
    sound_format: str = "",
    base: int = 1000,
    seconds: float = 0,
    options: dict[str, str] | None = None,
) -> Path:
    """A video of 64x48 with a picture at each of `stamps` (in 1/base s) and perhaps a tone."""
    with av.open(str(path), "w", options=options or {}) as output:
        stream = output.add_stream("mpeg4" if path.suffix != ".webm" else "libvpx", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, base)
        audio = output.add_stream(sound, rate=48000) if sound else None
        if audio:
            audio.layout = "mono"
        for number, stamp in enumerate(stamps):
            image = np.full((48, 64, 3), number * 3 % 256, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = stamp, Fraction(1, base)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if audio:
            wave = np.sin(np.arange(round(48000 * (seconds or (stamps[-1] / base + 0.04)))) * 0.06)
            for start in range(0, len(wave), 960):
                samples = wave[None, start : start + 960]
                form = sound_format or audio.codec_context.format.name
                samples = (samples * 20000).astype(np.int16) if form.startswith("s16") else samples.astype(np.float32)
                frame = av.AudioFrame.from_ndarray(samples, format=form, layout="mono")
                frame.rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
                output.mux(audio.encode(frame))
            output.mux(audio.encode(None))
    return path


def copy(source: Path, output: Path, **cut: float | None) -> Path:
    with Source(source, start=cut.get("start") or 0.0, end=cut.get("end")) as frames:
        with video.Sink(output, audio_from=source, preset="ultrafast", **cut) as sink:
            for frame in frames:
                sink.write(Result(frame, NO_FACES, {}, STATUS))
    return output


def stamps(path: Path) -> list[Fraction]:
    """Seconds of each picture, from the container's start as the players have it."""
    with av.open(str(path)) as container:
        origin = min(s.start_time * s.time_base for s in container.streams if s.start_time is not None)
        return sorted(frame.pts * frame.time_base - origin for frame in container.decode(video=0))


def sound(path: Path, track: int = 0) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=track) if packet.size]


def decoded_sound(path: Path) -> tuple[float, float, np.ndarray]:
    """Start and end in s, and samples of the first channel."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    first, last = frames[0], frames[-1]
    samples = np.concatenate([frame.to_ndarray()[0].astype(np.float64) for frame in frames])
    return (
        float(first.pts * first.time_base),
        float(last.pts * last.time_base) + last.samples / last.sample_rate,
        samples,
    )


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


def test_output_is_h264_420_in_601_colours(tmp_path: Path) -> None:
    write_all(video.Sink(tmp_path / "out.mp4"), [result(index) for index in range(3)])
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        picture = next(container.decode(video=0))
    assert (context.name, context.pix_fmt, picture.colorspace, picture.color_range) == ("h264", "yuv420p", 6, 1)
    np.testing.assert_allclose(picture.to_ndarray(format="rgb24")[24, 32], (200, 40, 40), atol=4)


def test_what_was_drawn_is_written(tmp_path: Path) -> None:
    drawn = np.zeros((48, 64, 3), np.uint8)
    base = result()
    write_all(video.Sink(tmp_path / "out.mp4"), [Result(base.frame, base.faces, {}, STATUS, drawn)])
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert next(container.decode(video=0)).to_ndarray(format="rgb24").max() < 8


@pytest.mark.parametrize(
    "name,codec", [("in.mp4", "aac"), ("in.mkv", "mp2"), ("in.webm", "libopus"), ("in.ts", "aac"), ("in.mkv", "flac")]
)
def test_sound_that_mp4_holds_is_copied_bit_by_bit(tmp_path: Path, name: str, codec: str) -> None:
    source = clip(tmp_path / name, range(0, 1000, 40), sound=codec)
    output = copy(source, tmp_path / "out.mp4")
    before, after = sound(source), sound(output)
    if name == "in.ts":  # there each packet carries a header of seven bytes (ADTS) that MP4 has no place for
        before = [packet[7:] for packet in before]
    assert after == before and len(after) > 10
    assert stamps(output) == stamps(source)
    assert decoded_sound(output)[0] - float(min(stamps(output))) == pytest.approx(shift_of(source), abs=0.002)


def shift_of(path: Path) -> float:
    """How much later sound begins than pictures."""
    with av.open(str(path)) as container:
        first = next(container.decode(video=0))
    return decoded_sound(path)[0] - float(first.pts * first.time_base)


@pytest.mark.parametrize("name,codec,form", [("in.mov", "pcm_s16le", "s16"), ("in.avi", "adpcm_ms", "s16")])
def test_other_sound_becomes_aac(tmp_path: Path, name: str, codec: str, form: str) -> None:
    source = clip(tmp_path / name, range(0, 1000, 40), sound=codec, sound_format=form)
    output = copy(source, tmp_path / "out.mp4")
    with av.open(str(output)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
    start, end, samples = decoded_sound(output)
    assert start == pytest.approx(0, abs=0.025) and end == pytest.approx(1.0, abs=0.03)
    assert samples[4800:9600].std() == pytest.approx(20000 / 32768 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize(("name", "codec"), [("in.ts", "aac"), ("in.mpg", "mp2")])
def test_sound_of_joined_recordings_goes_on(tmp_path: Path, name: str, codec: str) -> None:
    one = clip(tmp_path / name, range(0, 1000, 40), sound=codec)
    joined = tmp_path / f"joined_{name}"
    joined.write_bytes(one.read_bytes() * 3)
    output = copy(joined, tmp_path / "out.mp4")
    assert len(stamps(output)) == 75
    assert len(sound(output)) == 3 * len(sound(one))
    start, end, _ = decoded_sound(output)
    assert end - start == pytest.approx(3.0, abs=0.1)


def test_damaged_sound_is_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw = bytearray(clip(tmp_path / "in.ts", range(0, 2000, 40), sound="aac").read_bytes())
    heads = [place for place in range(len(raw) // 3, len(raw) - 2) if raw[place] == 0xFF and raw[place + 1] == 0xF1]
    for place in heads[:5]:
        raw[place : place + 2] = b"\0\0"  # no longer the head of a packet of ADTS
    (tmp_path / "in.ts").write_bytes(raw)
    output = copy(tmp_path / "in.ts", tmp_path / "out.mp4")
    assert len(stamps(output)) == 50 and len(sound(output)) > 50
    assert "damaged pieces of its sound were left out" in caplog.text


def test_slow_mp3_which_mp4_does_not_take_becomes_aac(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "in.avi"), "w") as container:
        pictures, tone = container.add_stream("mpeg4", rate=25), container.add_stream("libmp3lame", rate=11025)
        pictures.width, pictures.height, pictures.pix_fmt, tone.layout = 64, 48, "yuv420p", "mono"
        for number in range(25):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(pictures.encode(frame))
        wave = av.AudioFrame.from_ndarray(np.zeros((1, 11025), np.float32), format="fltp", layout="mono")
        wave.rate, wave.pts, wave.time_base = 11025, 0, Fraction(1, 11025)
        container.mux([*pictures.encode(None), *tone.encode(wave), *tone.encode(None)])
    with av.open(str(copy(tmp_path / "in.avi", tmp_path / "out.mp4"))) as container:
        assert container.streams.audio[0].codec_context.name == "aac"


def test_a_cut_begins_at_zero_with_its_own_sound(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mkv", range(0, 3000, 40), sound="mp2")
    output = copy(source, tmp_path / "out.mp4", start=1.0, end=2.0)
    times = stamps(output)
    assert len(times) == 25 and times[0] < 0.02  # FFmpeg 8.0 counts from the 10 ms that mp2 needs to warm up
    assert [time - times[0] for time in times] == [Fraction(stamp, 1000) for stamp in range(0, 1000, 40)]
    assert len(sound(output)) == pytest.approx(1.0 / 0.024, abs=1.5)
    before, after = sound(source), sound(output)
    assert after[0] in before and b"".join(after) in b"".join(before)


def test_sound_ends_with_the_pictures_when_they_end_early(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mp4", range(0, 4000, 40), sound="aac")
    with Source(source) as frames, video.Sink(tmp_path / "out.mp4", audio_from=source, preset="ultrafast") as sink:
        for frame in frames:
            if frame.time_ns >= 1_000_000_000:
                break
            sink.write(Result(frame, NO_FACES, {}, STATUS))
    assert decoded_sound(tmp_path / "out.mp4")[1] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("name", ["in.mp4", "in.mkv"])
@pytest.mark.parametrize("begin", ["0", "60"])
def test_sound_that_outlasts_the_pictures_is_whole(tmp_path: Path, name: str, begin: str) -> None:
    late = {"output_ts_offset": begin}
    source = clip(tmp_path / name, range(0, 1000, 40), sound="aac", seconds=2.0, options=late)
    assert sound(copy(source, tmp_path / "out.mp4")) == sound(source)


def recording(path: Path) -> Path:
    """Pictures of 1 s and three sound tracks of which the second is the one to play, as recorders make them."""
    names = ("Game", "Voice", "Music")
    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        tracks = [output.add_stream(codec, rate=48000, layout="mono") for codec in ("aac", "aac", "pcm_s16le")]
        tracks[1].disposition = Disposition.default
        for name, track in zip(names, tracks, strict=True):
            track.metadata.update(title=name, language="kor")
        for number in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number, np.uint8), format="rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        for pitch, track in enumerate(tracks, start=1):
            wave = (np.sin(np.arange(48000)[None] * 0.03 * pitch) * 20000).astype(np.int16)
            for begin in range(0, 48000, 960):
                frame = av.AudioFrame.from_ndarray(wave[:, begin : begin + 960], format="s16", layout="mono")
                frame.rate, frame.pts, frame.time_base = 48000, begin, Fraction(1, 48000)
                output.mux(track.encode(frame))
            output.mux(track.encode(None))
    return path


@pytest.mark.parametrize("start", [None, 0.4])
@pytest.mark.parametrize("name", ["in.mkv", "in.mov"])
def test_every_sound_track_is_kept_with_its_name(tmp_path: Path, name: str, start: float | None) -> None:
    source = recording(tmp_path / name)
    output = copy(source, tmp_path / "out.mp4", start=start)
    for track in (0, 1):
        packets = sound(source, track)
        assert len(packets) > 40 and 25 < len(sound(output, track)) <= len(packets)
        assert sound(output, track) == packets[-len(sound(output, track)) :]
    with av.open(str(output)) as container:
        tracks = container.streams.audio
        assert [track.codec_context.name for track in tracks] == ["aac"] * 3
        assert [track.metadata["name"] for track in tracks] == ["Game", "Voice", "Music"]
        assert [bool(track.disposition & Disposition.default) for track in tracks] == [False, True, False]
        assert {track.language for track in tracks} == {"kor"}
        length = 1.0 - (start or 0)
        assert [float(track.duration * track.time_base) for track in tracks] == pytest.approx([length] * 3, abs=0.05)


def test_no_sound_where_none_is_asked_for_or_there(tmp_path: Path) -> None:
    write_all(video.Sink(tmp_path / "silent.mp4", audio_from=clip(tmp_path / "in.mp4", [0, 40])), [result()])
    write_all(video.Sink(tmp_path / "none.mp4"), [result()])
    for name in ("silent.mp4", "none.mp4"):
        with av.open(str(tmp_path / name)) as container:
            assert [stream.type for stream in container.streams] == ["video"]


@pytest.mark.parametrize("size", [(63, 47), (1, 1), (2, 2), (64, 47), (321, 240)])
def test_odd_sizes_are_padded(tmp_path: Path, size: tuple[int, int]) -> None:
    write_all(video.Sink(tmp_path / "out.mp4"), [result(index, size=size) for index in range(2)])
    with av.open(str(tmp_path / "out.mp4")) as container:
        pictures_ = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert pictures_[0].shape[:2] == (size[1] + size[1] % 2, size[0] + size[0] % 2)
    np.testing.assert_allclose(pictures_[0][-1, -1], (200, 40, 40), atol=5)


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


def test_sound_from_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(SourceError, match="sound cannot be read"):
        write_all(video.Sink(tmp_path / "out.mp4", audio_from=tmp_path / "text.mp4"), [result()])
    assert not (tmp_path / "out.mp4").exists() and not (tmp_path / "out.mp4.part").exists()


@pytest.mark.parametrize("name", ["v02_pexels_emotions_woman.mp4", "v03_grid_talk_man1.mpg", "v10_intel_asl_sorry.mkv"])
def test_real_clips_keep_time_and_sound(tmp_path: Path, name: str) -> None:
    if not (MEDIA / name).exists():
        pytest.skip("no shared media here")
    output = copy(MEDIA / name, tmp_path / "out.mp4", end=2.0)
    wanted = [stamp for stamp in stamps(MEDIA / name) if stamp < 2]
    np.testing.assert_allclose([float(s) for s in stamps(output)], [float(s) for s in wanted], atol=2e-6)
    if "v10" not in name:
        packets = sound(output)
        assert packets == sound(MEDIA / name)[: len(packets)] and len(packets) > 70


# --- places that cannot be written to


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = shutil.which("mount") and os.geteuid() == 0
    if (
        not mounted
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True).returncode
    ):
        pytest.skip("a small file system cannot be mounted here")
    yield place
    subprocess.run(["umount", place], check=True)


def noise(index: int) -> Result:
    image = np.random.default_rng(index).integers(0, 256, (240, 320, 3), np.uint8)
    return Result(Frame(image, index, index * 40_000_000), NO_FACES, {}, STATUS)


def test_what_a_full_disk_took_of_a_recording_is_kept(tiny_disk: Path) -> None:
    with pytest.raises(OutputError, match=r"No space left on device\); make room"):
        write_all(video.Sink(tiny_disk / "out.mp4", preset="ultrafast", crf=40, recording=True), map(noise, range(90)))
    assert [path.name for path in tiny_disk.iterdir()] == ["out.mp4"]
    seen = 0
    with av.open(str(tiny_disk / "out.mp4")) as container, suppress(av.error.InvalidDataError):
        for frame in container.decode(video=0):
            assert frame.time == pytest.approx(seen * 0.04, abs=1e-3)
            seen += 1
    assert 0 < seen < 90


def test_a_recording_is_kept_when_the_disk_is_found_full_at_its_end(tiny_disk: Path) -> None:
    (tiny_disk / "other").write_bytes(bytes(40 * 1024))
    sink = video.Sink(tiny_disk / "out.mp4", recording=True)
    with pytest.raises(OutputError, match="No space left"), sink:
        for index in range(30):
            sink.write(noise(index // 30))
        (tiny_disk / "more").write_bytes(bytes(shutil.disk_usage(tiny_disk).free))
    assert stamps_so_far(tiny_disk / "out.mp4") is not None and (tiny_disk / "out.mp4").stat().st_size


@pytest.mark.parametrize("before", ["", "dear"])
def test_a_full_disk_keeps_whole_lines_and_what_was_there(tiny_disk: Path, before: str) -> None:
    table = tiny_disk / "r.csv"
    if before:
        table.write_text(before)
    with pytest.raises(OutputError, match=r"No space left on device\); make room"):
        write_all(results.Sink(tiny_disk / "r.jsonl", table), [result(faces=faces())] * 2000)
    assert {path.name for path in tiny_disk.iterdir()} == {"r.jsonl", "r.csv"}
    assert len(lines(tiny_disk / "r.jsonl")) > 20
    rows = table.read_text()
    assert rows == before or (not before and rows.count("\n") > 20 and rows.endswith("\n"))


@pytest.mark.parametrize("kind", ["video", "pictures"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tiny_disk: Path, kind: str) -> None:
    sink = {
        "video": video.Sink(tiny_disk / "out.mp4", preset="ultrafast"),
        "pictures": pictures.Sink(tiny_disk / "p.png"),
    }[kind]
    with pytest.raises(OutputError, match=r"No space left on device\); make room"):
        write_all(sink, map(noise, range(20)))
    assert list(tiny_disk.iterdir()) == []


def test_results_whose_folder_is_removed_end_the_run_at_once(tmp_path: Path) -> None:
    sink = results.Sink(tmp_path / "out" / "r.jsonl", tmp_path / "out" / "r.csv")
    with pytest.raises(OutputError, match="r.csv: cannot be written"), sink:
        sink.write(result(faces=faces()))
        shutil.rmtree(tmp_path / "out")
        late = time.monotonic() + 60
        while time.monotonic() < late:
            sink.write(result(faces=faces()))


@pytest.mark.parametrize("gone", ["folder", "part"])
def test_a_recording_whose_folder_or_part_is_removed_ends_the_run_at_once(tmp_path: Path, gone: str) -> None:
    folder, index = tmp_path / "out", 0
    sink = video.Sink(folder / "v.mp4", preset="ultrafast", recording=True)
    with pytest.raises(OutputError, match="v.mp4: cannot be written .it was removed meanwhile"), sink:
        while not (folder / "v.mp4.part").stat().st_size:
            sink.write(result(index := index + 1))
        shutil.rmtree(folder) if gone == "folder" else (folder / "v.mp4.part").unlink()
        late = time.monotonic() + 10
        while time.monotonic() < late:
            sink.write(result(index := index + 1))
    assert list(tmp_path.glob("out/*")) == []


def sinks_at(path: Path) -> list[object]:
    return [
        video.Sink(path / "o.mp4"),
        results.Sink(path / "r.jsonl"),
        results.Sink(csv=path / "r.csv"),
        pictures.Sink(path / "p.jpg"),
    ]


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for sink in sinks_at(tmp_path / "file" / "sub"):
        with pytest.raises(OutputError, match="Not a directory"):
            write_all(sink, [result()])


@pytest.mark.skipif(not hasattr(os, "setresuid") or os.geteuid() != 0, reason="needs to become somebody else")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    code = (
        "import os, sys; from pathlib import Path; import tests.test_sinks as t; os.setresuid(65534, 65534, 65534)\n"
        "for sink in t.sinks_at(Path(sys.argv[1])):\n"
        "    try: t.write_all(sink, [t.result()])\n"
        "    except t.OutputError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "locked"], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.count("Permission denied); check its permissions") == 4, done.stderr


def test_a_stream_whose_reader_is_gone() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    stream = os.fdopen(writer, "w")
    with pytest.raises(BrokenPipeError):
        write_all(results.Sink(stream=stream), [result()])
    with pytest.raises(BrokenPipeError):
        stream.close()


# --- results


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


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


WRITER = """
import signal, sys, threading; signal.signal(signal.SIGINT, signal.default_int_handler)  # a CI may ignore it
from pathlib import Path; import tests.test_sinks as t
sinks = [t.results.Sink(Path(sys.argv[1]) / "r.jsonl"), t.video.Sink(Path(sys.argv[1]) / "v.mp4", preset="ultrafast")]
with sinks[0] as a, sinks[1] as b:
    pause = threading.Event()
    for index in range(100_000):
        a.write(t.result(index)), b.write(t.result(index))
        index == 5 and print("up", flush=True)
        pause.wait(0.01)
"""


def writer(folder: Path) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, folder], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout.readline() == b"up\n"
    return process


def test_an_interrupt_completes_the_files(tmp_path: Path) -> None:
    with writer(tmp_path) as process:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        finally:
            process.kill()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.jsonl", "v.mp4"]
    written = len(lines(tmp_path / "r.jsonl"))
    assert written - 1 <= len(stamps(tmp_path / "v.mp4")) <= written


def test_a_kill_costs_at_most_a_second_of_lines(tmp_path: Path) -> None:
    with writer(tmp_path) as process:
        deadline = time.monotonic() + 10
        part = tmp_path / "r.jsonl.part"
        while not part.stat().st_size and time.monotonic() < deadline:
            os.sched_yield()
        process.kill()
    assert not (tmp_path / "r.jsonl").exists()
    assert json.loads(part.read_text().splitlines()[0])["frame"] == 0


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


def stamps_so_far(path: Path) -> list[float]:
    """Of a file that is being written."""
    found = []
    with suppress(av.FFmpegError), av.open(str(path)) as container:
        found.extend(frame.time for frame in container.decode(video=0))
    return found


# --- the other sinks


def test_null_counts() -> None:
    sink = null.Sink()
    write_all(sink, [result(0, faces=faces()), result(1)])
    assert (sink.frames, sink.faces) == (2, 2)


@pytest.mark.parametrize("suffix", sorted(pictures.COPIES))
def test_pictures_keep_their_colours(tmp_path: Path, suffix: str) -> None:
    write_all(pictures.Sink(tmp_path / "sub" / f"p{suffix}"), [result(0), result(1)])
    assert sorted(path.name for path in (tmp_path / "sub").iterdir()) == [f"p{suffix}", f"p_0001{suffix}"]
    read = cv2.cvtColor(cv2.imread(str(tmp_path / "sub" / f"p{suffix}")), cv2.COLOR_BGR2RGB)
    np.testing.assert_allclose(read[20, 20], (200, 40, 40), atol=4)


def test_pictures_of_an_unknown_format(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"expected a name that ends with .*got '.heic'"):
        pictures.Sink(tmp_path / "p.heic")


def test_pictures_too_large_for_their_format(tmp_path: Path) -> None:
    wide = Result(Frame(np.zeros((1, 70_000, 3), np.uint8), 0, 0), NO_FACES, {}, STATUS)
    with pytest.raises(InputError, match="cannot hold 70000 x 1 pixels") as caught:
        write_all(pictures.Sink(tmp_path / "p.jpg"), [wide])
    assert not isinstance(caught.value, OutputError)  # of this picture, so that a batch goes on with the others
    assert list(tmp_path.iterdir()) == []


def test_why_there_is_no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("DISPLAY", raising=False)
    assert "DISPLAY is not set" in window.unavailable()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert "no XWayland" in window.unavailable()
    monkeypatch.setenv("DISPLAY", ":987")
    assert ":987 does not answer" in window.unavailable()


VIEWER = """
import sys, cv2; from pathlib import Path; import tests.test_sinks as t
assert t.window.unavailable() is None
stops = []
with t.window.Sink(stop=lambda: stops.append("stop"), folder=Path(sys.argv[1])) as sink:
    sink.write(t.result(0)); sink.press(ord("p")); sink.write(t.result(80)); sink.press(ord("w"))
    sink.press(ord("p")); sink.write(t.result(80)); sink.press(ord("w"))
    assert not stops
    sink.press(27)
    cv2.destroyWindow("calmcam"); sink.write(t.result(2))
print(*stops)
"""


@pytest.mark.skipif(not shutil.which("Xvfb"), reason="needs Xvfb")
def test_a_window_holds_snaps_and_stops(tmp_path: Path) -> None:
    reader, writer_end = os.pipe()
    arguments = ["Xvfb", "-displayfd", str(writer_end), "-screen", "0", "800x600x24"]
    with subprocess.Popen(arguments, pass_fds=[writer_end], stderr=subprocess.DEVNULL) as server:
        os.close(writer_end)
        with os.fdopen(reader) as numbers:
            display = f":{numbers.readline().strip()}"
        environment = {**os.environ, "DISPLAY": display, "XDG_RUNTIME_DIR": str(tmp_path)}
        done = subprocess.run(
            [sys.executable, "-c", VIEWER, tmp_path], cwd=ROOT, env=environment, capture_output=True, text=True
        )
        server.terminate()
    assert done.stdout == "stop stop\n", done.stderr
    held, shown = (cv2.imread(str(tmp_path / f"snapshot_00{number}.png"))[20, 20].tolist() for number in (1, 2))
    assert (held, shown) == ([40, 40, 200], [40, 120, 200])


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


@pytest.mark.parametrize("offset", ["0", "60"])
@pytest.mark.parametrize(
    ("name", "codec", "form"), [("in.mkv", "aac", ""), ("in.ts", "aac", ""), ("in.mkv", "pcm_s16le", "s16")]
)
def test_sound_stays_with_its_picture_whatever_the_clock_begins_with(
    tmp_path: Path, name: str, codec: str, form: str, offset: str
) -> None:
    late = {"output_ts_offset": offset}
    source = clip(tmp_path / name, range(0, 1000, 40), sound=codec, sound_format=form, options=late)
    with av.open(str(copy(source, tmp_path / "out.mp4"))) as container:
        begins = [float(stream.start_time * stream.time_base) for stream in container.streams]
    assert begins == pytest.approx([0, 0], abs=0.05)


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


def test_sound_of_an_odd_rate_becomes_aac_of_a_usual_one(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "in.avi"), "w") as container:
        pictures, tone = container.add_stream("mpeg4", rate=25), container.add_stream("pcm_s16le", rate=37800)
        pictures.width, pictures.height, pictures.pix_fmt, tone.layout = 64, 48, "yuv420p", "mono"
        for number in range(25):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(pictures.encode(frame))
        wave = av.AudioFrame.from_ndarray(np.zeros((1, 37800), np.int16), format="s16", layout="mono")
        wave.rate, wave.pts, wave.time_base = 37800, 0, Fraction(1, 37800)
        container.mux([*pictures.encode(None), *tone.encode(wave), *tone.encode(None)])
    with av.open(str(copy(tmp_path / "in.avi", tmp_path / "out.mp4"))) as container:
        assert (container.streams.audio[0].codec_context.name, container.streams.audio[0].rate) == ("aac", 48000)


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


def test_a_recording_goes_on_after_a_night_without_a_camera(tmp_path):
    """MP4 holds no sample of 2^31 ticks: 99 minutes of ours."""
    night = 10 * 3600 * 10**9
    moments = [*range(0, 10**9, 10**8), *range(night, night + 10**9, 10**8)]
    sink = video.Sink(tmp_path / "out.mp4", preset="ultrafast", recording=True)
    write_all(sink, [result(number, moment) for number, moment in enumerate(moments)])
    with av.open(str(tmp_path / "out.mp4")) as container:
        shown = [frame.time for frame in container.decode(video=0)]
    for moment in moments:
        assert min(abs(moment / 1e9 - one) for one in shown) < 1e-3
    assert max(after - before for before, after in zip(shown, shown[1:], strict=False)) < 5401

"""A copy has the sound of its source."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from sink_items import MEDIA, STATUS, clip, copy, decoded_sound, result, sound, stamps, write_all

from edge_app.errors import SourceError
from edge_app.sinks import video
from edge_app.sources.video import Source
from edge_app.types import NO_FACES, Result


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


def silent(path: Path, codec: str, rate: int, form: str) -> Path:
    """A second of black pictures and of silence."""
    with av.open(str(path), "w") as container:
        pictures, tone = container.add_stream("mpeg4", rate=25), container.add_stream(codec, rate=rate)
        pictures.width, pictures.height, pictures.pix_fmt, tone.layout = 64, 48, "yuv420p", "mono"
        for number in range(25):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            container.mux(pictures.encode(frame))
        samples = np.zeros((1, rate), np.int16 if form == "s16" else np.float32)
        wave = av.AudioFrame.from_ndarray(samples, format=form, layout="mono")
        wave.rate, wave.pts, wave.time_base = rate, 0, Fraction(1, rate)
        container.mux([*pictures.encode(None), *tone.encode(wave), *tone.encode(None)])
    return path


def test_slow_mp3_which_mp4_does_not_take_becomes_aac(tmp_path: Path) -> None:
    source = silent(tmp_path / "in.avi", "libmp3lame", 11025, "fltp")
    with av.open(str(copy(source, tmp_path / "out.mp4"))) as container:
        assert container.streams.audio[0].codec_context.name == "aac"


@pytest.mark.parametrize(("name", "begin"), [("in.mkv", "0"), ("in.ts", "0"), ("in.ts", "100"), ("in.mkv", "100")])
def test_a_cut_begins_at_zero_with_its_own_sound(tmp_path: Path, name: str, begin: str) -> None:
    source = clip(tmp_path / name, range(0, 3000, 40), sound="mp2", options={"output_ts_offset": begin})
    output = copy(source, tmp_path / "out.mp4", start=1.0, end=2.0)
    times = stamps(output)
    assert len(times) == 25 and times[0] < 0.02  # FFmpeg 8.0 counts from the 10 ms that mp2 needs to warm up
    assert [time - times[0] for time in times] == [Fraction(stamp, 1000) for stamp in range(0, 1000, 40)]
    with av.open(str(source)) as container:
        origin = min(stream.start_time * stream.time_base for stream in container.streams)
        packets = [packet for packet in container.demux(audio=0) if packet.size]
    wanted = [bytes(packet) for packet in packets if 1 <= packet.pts * packet.time_base - origin < 2]
    assert sound(output) == wanted and len(wanted) > 40


def test_sound_ends_with_the_pictures_when_they_end_early(tmp_path: Path) -> None:
    source = clip(tmp_path / "in.mp4", range(0, 4000, 40), sound="aac")
    with Source(source) as frames, video.Sink(tmp_path / "out.mp4", audio_from=source, preset="ultrafast") as sink:
        for frame in frames:
            if frame.time_ns >= 1_000_000_000:
                break
            sink.write(Result(frame, NO_FACES, {}, STATUS))
    assert decoded_sound(tmp_path / "out.mp4")[1] == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("stride", [15, 96])
def test_sound_and_length_stay_whole_when_pictures_are_left_out(tmp_path: Path, stride: int) -> None:
    source = clip(tmp_path / "in.mp4", range(0, 4000, 40), sound="aac")
    output = copy(source, tmp_path / "out.mp4", stride=stride)
    assert sound(output) == sound(source)
    with av.open(str(output)) as container:
        stream = container.streams.video[0]
        assert stream.duration * stream.time_base == 4


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


def test_sound_of_an_odd_rate_becomes_aac_of_a_usual_one(tmp_path: Path) -> None:
    source = silent(tmp_path / "in.avi", "pcm_s16le", 37800, "s16")
    with av.open(str(copy(source, tmp_path / "out.mp4"))) as container:
        assert (container.streams.audio[0].codec_context.name, container.streams.audio[0].rate) == ("aac", 48000)

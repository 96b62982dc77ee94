"""Video files of every shape: the clock is kept, cuts are exact, bad files are refused with a sentence."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from not_root import told

from edge_app.background import Background
from edge_app.errors import SourceError, TruncatedError
from edge_app.sources.video import Source
from edge_app.types import Frame

COUNT, RATE = 60, 30
SECOND = 10**9
UNEVEN = np.cumsum([0] + [20, 50, 20, 200] * 15)[:COUNT].tolist()


def numbered(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A picture whose left upper quarter is red and whose grey elsewhere tells its number."""
    image = np.full((height, width, 3), 40 + 3 * number, np.uint8)
    image[: height // 2, : width // 2] = (220, 20, 20)
    return image


def number_of(image: np.ndarray) -> int:
    return round((float(image[-8:, -8:].mean()) - 40) / 3)


def write(
    path: Path,
    *,
    codec: str = "libx264",
    stamps: Sequence[int] | None = None,
    turn: int | None = None,
    pix_fmt: str = "yuv420p",
    sound: bool = False,
    options: dict[str, str] | None = None,
    aspect: Fraction | None = None,
    offset: int = 0,
    gop: int = 12,
) -> Path:
    """COUNT numbered frames; `stamps` are in milliseconds, `offset` delays the pictures against the sound."""
    with av.open(str(path), "w", options=options or {}) as container:
        video = container.add_stream(codec, rate=RATE)
        video.width, video.height, video.pix_fmt = 64, 48, pix_fmt
        video.codec_context.gop_size = gop
        if codec == "libx264":
            video.options = {"preset": "veryfast", "crf": "16"}
        if stamps:
            video.codec_context.time_base = Fraction(1, 1000)
        if turn is not None:
            video.set_display_rotation(turn)
        if aspect:
            video.codec_context.sample_aspect_ratio = aspect
        if sound:
            add_sound(container, "mp2" if path.suffix == ".mpg" else "aac")
        for number in range(COUNT):
            frame = av.VideoFrame.from_ndarray(numbered(number), format="rgb24")
            frame.pts = stamps[number] if stamps else number + offset
            frame.time_base = Fraction(1, 1000) if stamps else Fraction(1, RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return path


def add_sound(container: av.container.OutputContainer, codec: str) -> None:
    sound = container.add_stream(codec, rate=48000)
    for start in range(0, 96000, 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        container.mux(sound.encode(frame))
    container.mux(sound.encode())


def frames(path: Path, **options: float) -> list[Frame]:
    with Source(path, **options) as source:
        return list(source)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "libx264"), ("a.avi", "mpeg4"), ("a.mpg", "mpeg2video")],
)
@pytest.mark.parametrize("start", [0.0, 0.45, 1.5])
def test_every_frame_and_exact_cuts_in_any_container(tmp_path: Path, name: str, codec: str, start: float) -> None:
    path = write(tmp_path / name, codec=codec)
    with Source(path) as source:
        assert (source.name, source.fps) == (name, RATE)
        whole = list(source)
        assert source.frames is not None and abs(source.frames - COUNT) <= 8  # a program stream's length is a guess
    assert [frame.index for frame in whole] == list(range(COUNT))
    np.testing.assert_allclose([number_of(frame.image) for frame in whole], range(COUNT), atol=1)
    np.testing.assert_allclose([frame.time_ns / SECOND for frame in whole], np.arange(COUNT) / RATE, atol=1e-3)
    part = frames(path, start=start, end=1.8, stride=3)
    kept = [frame for frame in whole if start <= frame.time_ns / SECOND < 1.8][::3]
    assert [(f.index, f.time_ns) for f in part] == [(f.index, f.time_ns) for f in kept]
    for one, other in zip(part, kept, strict=True):
        np.testing.assert_array_equal(one.image, other.image)


@pytest.mark.parametrize("number", [1, 2, 25, 32])
def test_a_time_as_results_have_it_is_that_picture(tmp_path: Path, number: int) -> None:
    path = write(tmp_path / "a.mp4")
    moment = round(frames(path)[number].time_ns / SECOND, 6)
    assert [number_of(frame.image) for frame in frames(path, start=moment)[:2]] == [number, number + 1]
    assert number_of(frames(path, end=moment)[-1].image) == number - 1


def test_a_part_of_a_file_that_cannot_be_sought_in(tmp_path: Path) -> None:
    """A cut Matroska file whose sound begins two seconds before its pictures."""
    whole = write(tmp_path / "whole.mkv", sound=True, offset=2 * RATE)
    path = tmp_path / "cut.mkv"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    for start, number in ((1.1, 0), (2.0, 0), (2.05, 2)):
        with Source(path, start=start) as source:
            assert number_of(next(iter(source)).image) == number


@pytest.mark.parametrize(("codec", "gop"), [("libx264", 100), ("libx264", 20), ("mpeg2video", 12)])
@pytest.mark.parametrize("start", [0.04, 0.3, 1.9])
def test_a_start_before_the_second_key_frame_of_a_transport_stream(
    tmp_path: Path, codec: str, gop: int, start: float
) -> None:
    path = write(tmp_path / "a.ts", codec=codec, gop=gop)
    first = frames(path, start=start)[0]
    assert first.index == number_of(first.image) == math.ceil(start * RATE)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_what_lies_long_before_a_start_is_not_decoded(tmp_path: Path, name: str) -> None:
    class Counting(Source):
        packets = 0

        def _decode(self, packet: av.Packet | None) -> list[av.VideoFrame]:
            self.packets += 1
            return super()._decode(packet)

    with Counting(write(tmp_path / name), start=1.9) as source:
        assert number_of(next(iter(source)).image) == 57
    assert source.packets < COUNT / 2, "the key frames are twelve pictures apart"


def test_a_picture_stamped_as_the_one_before_it_leaves_the_others_where_they_are(tmp_path: Path) -> None:
    whole, path = write(tmp_path / "whole.mkv", codec="mpeg4"), tmp_path / "a.mkv"
    with av.open(str(whole)) as source, av.open(str(path), "w") as container:
        stream, last = container.add_stream_from_template(source.streams.video[0]), 0
        for number, packet in enumerate(packet for packet in source.demux(video=0) if packet.size):
            if number in (20, 40):
                packet.pts = packet.dts = last
            last, packet.stream = packet.pts, stream
            container.mux(packet)
    wanted, got = ([frame.time_ns for frame in frames(one)] for one in (whole, path))
    assert got[19] < got[20] < got[21]
    assert [moment for moment in got if moment in wanted] == np.delete(wanted, (20, 40)).tolist()


def test_joined_recordings_go_on_where_the_one_before_ended(tmp_path: Path) -> None:
    one, path = write(tmp_path / "one.ts", stamps=UNEVEN), tmp_path / "a.ts"
    path.write_bytes(one.read_bytes() * 3)
    steps = np.diff([frame.time_ns for frame in frames(path)]) / 10**6
    for part in range(3):
        assert steps[part * COUNT :][: COUNT - 1] == pytest.approx(np.diff(UNEVEN), abs=1)
    assert len(steps) == 3 * COUNT - 1 and max(steps[COUNT - 1 :: COUNT]) < 300


@pytest.mark.parametrize("stride", [1, 7, 100])
@pytest.mark.parametrize("cut", [{}, {"start": 0.5}, {"end": 1.3}])
def test_it_says_how_many_frames_come(clip: Path, stride: int, cut: dict[str, float]) -> None:
    with Source(clip, stride=stride, **cut) as source:
        assert source.frames == len(list(source))


@pytest.mark.parametrize(
    ("turn", "corner"), [(None, (0, 0)), (0, (0, 0)), (90, (-1, 0)), (180, (-1, -1)), (270, (0, -1))]
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_rotation_is_honoured(tmp_path: Path, turn: int | None, corner: tuple[int, int], suffix: str) -> None:
    """A display matrix turns the picture anticlockwise: at 90 degrees what was left above comes to left below."""
    path = write(tmp_path / f"a.{suffix}", turn=turn)
    with Source(path) as source:
        frame = next(iter(source))
    assert frame.image.shape[1::-1] == ((48, 64) if turn in (90, 270) else (64, 48))
    red = frame.image[..., 0].astype(int) - frame.image[..., 2]
    assert red[corner] > 150
    assert (red > 100).mean() == pytest.approx(0.25, abs=0.05)


def test_variable_frame_rate_keeps_its_time_stamps(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", stamps=UNEVEN)
    assert [frame.time_ns // 10**6 for frame in frames(path)] == UNEVEN


def test_time_counts_from_the_container_when_sound_begins_first(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", sound=True, offset=15)
    first = frames(path)[0]
    assert first.time_ns / SECOND == pytest.approx(0.5, abs=0.03)
    assert first.index == 0


@pytest.mark.parametrize(
    ("name", "stamps", "ends"),
    [("a.mp4", None, 2.0), ("a.ts", None, 2.0), ("a.mp4", UNEVEN, 4.18), ("a.mkv", UNEVEN, 4.18)],
)
@pytest.mark.parametrize(
    "cut", [{}, {"stride": 7}, {"stride": 100}, {"end": 1.51}, {"end": 1.51, "stride": 40}, {"end": 9}]
)
def test_a_frame_lasts_until_the_next_one_and_the_last_until_the_end(
    tmp_path: Path, name: str, stamps: list[int] | None, ends: float, cut: dict[str, float]
) -> None:
    """A decoder's own lengths are those of packets: of none in a transport stream, of others where B-frames are."""
    got = frames(write(tmp_path / name, stamps=stamps), **cut)
    begins = [frame.time_ns / SECOND for frame in got]
    until = [(frame.time_ns + frame.duration_ns) / SECOND for frame in got]
    assert until[:-1] == pytest.approx(begins[1:])
    assert until[-1] == pytest.approx(min(ends, cut.get("end", 9)), abs=0.01)


def test_the_last_picture_of_a_cut_file_lasts_no_longer_than_it_did(tmp_path: Path, clip: Path) -> None:
    path, got = tmp_path / "cut.mp4", []
    path.write_bytes(clip.read_bytes()[: clip.stat().st_size * 7 // 10])
    with pytest.raises(TruncatedError), Source(path) as source:
        got.extend(source)
    assert got[-1].duration_ns / SECOND == pytest.approx(1 / RATE, abs=1e-3)


def test_ten_bits(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mkv", codec="ffv1", pix_fmt="yuv420p10le")
    np.testing.assert_allclose([number_of(frame.image) for frame in frames(path)], range(COUNT), atol=1)


def test_pictures_of_an_odd_width_are_contiguous(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "odd.avi"), "w") as container:
        video = container.add_stream("ffv1", rate=RATE)
        video.width, video.height, video.pix_fmt = 63, 48, "gray"
        container.mux(video.encode(av.VideoFrame.from_ndarray(np.full((48, 63), 90, np.uint8), format="gray")))
        container.mux(video.encode())
    (frame,) = frames(tmp_path / "odd.avi")
    assert frame.image.shape == (48, 63, 3) and frame.image.flags.c_contiguous


def test_square_pixels(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", aspect=Fraction(3, 2))
    with Source(path) as source:
        assert next(iter(source)).image.shape == (48, 96, 3)


def test_raw_stream_without_a_clock_takes_its_rate(tmp_path: Path) -> None:
    path = write(tmp_path / "a.h264")
    with av.open(str(path)) as container:
        assert {packet.pts for packet in container.demux()} == {None}
    got = frames(path)
    assert [number_of(frame.image) for frame in got] == list(range(COUNT))
    np.testing.assert_allclose([frame.time_ns for frame in got], np.arange(COUNT) / RATE * SECOND, atol=COUNT)
    part = frames(path, start=1.0)
    assert [(frame.index, frame.time_ns) for frame in part] == [(frame.index, frame.time_ns) for frame in got[30:]]


def test_frame_size_may_change_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    one, two = tmp_path / "one.ts", tmp_path / "two.ts"
    for part, size in ((one, (64, 48)), (two, (96, 80))):
        with av.open(str(part), "w") as container:
            video = container.add_stream("mpeg2video", rate=RATE)
            video.width, video.height, video.pix_fmt = *size, "yuv420p"
            for number in range(20):
                frame = av.VideoFrame.from_ndarray(numbered(number, *size), format="rgb24")
                container.mux(video.encode(frame))
            container.mux(video.encode())
    path.write_bytes(one.read_bytes() + two.read_bytes())
    got = frames(path)
    heights = [frame.image.shape[0] for frame in got]
    assert heights.count(80) == 20
    assert heights.count(48) >= 19  # the decoder drops the last frame that it holds back
    steps = np.diff([frame.time_ns for frame in got]) / SECOND
    np.testing.assert_allclose(steps, 1 / RATE, atol=2e-3)  # also where the second recording's clock starts again


@pytest.mark.parametrize(("name", "codec"), [("song.mp4", "aac"), ("song.mp3", "mp3")])
@pytest.mark.parametrize("covers", [0, 1])
def test_cover_of_a_song_is_no_video(tmp_path: Path, name: str, codec: str, covers: int) -> None:
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        for _ in range(covers):
            cover = container.add_stream("mjpeg", rate=1)
            cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
            cover.disposition = Disposition.attached_pic
        add_sound(container, codec)
        if covers:
            picture = av.VideoFrame.from_ndarray(numbered(0), format="rgb24")
            container.mux([*cover.encode(picture), *cover.encode()])
    with pytest.raises(SourceError, match="only sound"), Source(path):
        pass


@pytest.mark.parametrize("name", ["a b.mp4", 'it\'s "so".mp4', "100%.mp4", "%03d.mp4", "웃음.mp4", "a:b.mp4", "-a.mp4"])
def test_unusual_names(tmp_path: Path, name: str, clip: Path) -> None:
    path = tmp_path / name
    path.write_bytes(clip.read_bytes())
    assert len(frames(path)) == COUNT


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MP4 with its index in front."""
    return write(tmp_path_factory.mktemp("clip") / "clip.mp4", options={"movflags": "faststart"})


@pytest.fixture(scope="module")
def matroska(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("clip") / "clip.mkv", sound=True)


@pytest.fixture(scope="module")
def interleave(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("clip") / "clip.avi", codec="mpeg4")


@pytest.mark.parametrize("kind", ["clip", "matroska", "interleave"])
def test_cut_in_the_middle_gives_what_can_be_read_and_says_so(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    whole: Path = request.getfixturevalue(kind)
    path = tmp_path / whole.name
    path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.7)])
    got: list[Frame] = []
    with pytest.raises(TruncatedError, match=r"read up to \d\.\d s of 2\.\d s") as caught, Source(path) as source:
        got.extend(source)
    assert 15 < len(got) < COUNT - 5
    assert f"up to {(got[-1].time_ns / SECOND) + 1 / RATE:.1f} s" in str(caught.value)


def test_a_whole_file_is_not_called_cut(clip: Path, matroska: Path, interleave: Path) -> None:
    assert len(frames(clip)) == len(frames(matroska)) == len(frames(interleave)) == COUNT


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [("a.mkv", "libx264", False), ("a.mkv", "libx264", True), ("a.webm", "libvpx", False), ("a.wmv", "wmv2", False)],
)
def test_a_file_whose_pictures_begin_late_is_whole(tmp_path: Path, name: str, codec: str, sound: bool) -> None:
    """The headers of these say when the pictures end, not how long they last."""
    path = write(tmp_path / name, codec=codec, sound=sound, offset=60 * RATE)
    with Source(path) as source:
        assert (len(list(source)), source.frames) == (COUNT, COUNT)
    begin = 60.0 if sound else 0.0
    with Source(path, start=begin + 0.5, end=begin + 1.0) as source:
        assert len(list(source)) == source.frames == 15


@pytest.mark.parametrize(("sound", "seconds"), [(False, "2.0"), (True, "62.0")])
def test_a_cut_file_whose_pictures_begin_late(tmp_path: Path, sound: bool, seconds: str) -> None:
    path = write(tmp_path / "a.mkv", sound=sound, offset=60 * RATE)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.7)])
    with pytest.raises(TruncatedError, match=rf"read up to \d+\.\d s of {seconds} s"):
        frames(path)


def test_a_length_that_is_none_is_not_believed(tmp_path: Path, matroska: Path) -> None:
    raw, tag = matroska.read_bytes(), b"00:00:02."
    assert tag in raw
    (tmp_path / "a.mkv").write_bytes(raw.replace(tag, b"ab:cd:ef."))
    assert len(frames(tmp_path / "a.mkv")) == COUNT


def test_damaged_packets_are_left_out_and_counted(tmp_path: Path, clip: Path, caplog: pytest.LogCaptureFixture) -> None:
    raw = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.is_keyframe][2]
        raw[packet.pos : packet.pos + 8] = b"\xff" * 8
    path = tmp_path / "a.mp4"
    path.write_bytes(raw)
    with Source(path) as source:
        got = list(source)
    assert len(got) >= COUNT - 13
    assert source.damaged >= 1
    assert "damaged packets" in caplog.text


def make_bad(kind: str, folder: Path, clip: Path) -> Path:
    path = folder / "a.mp4"
    if kind == "folder":
        path.mkdir()
    elif kind == "zero bytes":
        path.touch()
    elif kind == "text":
        path.write_text("no video at all\n" * 50)
    elif kind == "before index":
        late = write(folder / "late.mp4")
        path.write_bytes(late.read_bytes()[: late.stat().st_size // 2])
    elif kind == "all damaged":
        raw = bytearray(clip.read_bytes())
        start = raw.index(b"mdat") + 4
        raw[start:] = b"\xff" * (len(raw) - start)
        path.write_bytes(raw)
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("missing", "no such file"),
        ("folder", "a device or a folder"),
        ("zero bytes", "zero bytes"),
        ("text", "expected a video"),
        ("before index", "cut off before its index"),
        ("all damaged", "can be decoded"),
    ],
)
def test_bad_input_is_refused_when_opened(tmp_path: Path, clip: Path, kind: str, says: str) -> None:
    path = make_bad(kind, tmp_path, clip)
    with pytest.raises(SourceError, match=says) as caught, Source(path):
        pass
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_no_permission(tmp_path: Path, clip: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(clip.read_bytes())
    path.chmod(0)
    tmp_path.chmod(0o755)
    said = told(tmp_path, "from pathlib import Path; from edge_app import media", "media.check_file(Path('a.mp4'), 'video')")
    assert said.startswith("SourceError a.mp4: cannot be read")


@pytest.mark.parametrize(
    "options",
    [{"start": 3.0}, {"start": 1.0, "end": 1.0}, {"stride": 0}, {"start": -1.0}, {"start": 0.501, "end": 0.502}],
)
def test_senseless_cuts_are_refused(clip: Path, options: dict[str, float]) -> None:
    with pytest.raises(SourceError, match="expected"), Source(clip, **options):
        pass


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.ts", "libx264"), ("a.mpg", "mpeg2video")]
)
def test_a_start_past_the_end_is_told_where_the_end_is(tmp_path: Path, name: str, codec: str) -> None:
    path = write(tmp_path / name, codec=codec)
    with pytest.raises(SourceError, match=r"its last picture is at 1\.97 s\), got 100 s"), Source(path, start=100):
        pass


def test_what_reading_cost_is_told_once(clip: Path) -> None:
    begun = time.perf_counter()
    costs = [frame.decode_ms for frame in frames(clip)]
    assert min(costs) > 0 and sum(costs) <= (time.perf_counter() - begun) * 1e3


def test_it_can_be_opened_again(clip: Path) -> None:
    source = Source(clip)
    counts = []
    for _ in range(2):
        with source:
            counts.append(len(list(source)))
    assert counts == [COUNT, COUNT]


def test_leaving_while_another_thread_reads_ends_that_thread(clip: Path) -> None:
    before = threading.active_count()
    with Source(clip) as source, Background(source) as background:
        assert next(iter(background)).index == 0
    assert threading.active_count() == before


# --- colours


def write_plain(path: Path, form: str, values: tuple[int, int, int], size: tuple[int, int], **tags: int) -> Path:
    """Two pictures of one Y, Cb, Cr, stored without loss and with these tags (ITU-T H.273)."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = *size, form
        for name, tag in tags.items():
            setattr(stream.codec_context, name, tag)
        for index in range(2):
            picture = av.VideoFrame(*size, form)
            for plane, value in zip(picture.planes, values, strict=True):
                count = plane.buffer_size // (2 if "10" in form else 1)
                plane.update(np.full(count, value, np.uint16 if "10" in form else np.uint8).tobytes())
            picture.pts = index
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("size", "values", "tags"),
    [
        ((1280, 720), (73, 111, 203), {}),  # HD that says nothing is BT.709, as players have it
        ((1280, 720), (73, 111, 203), {"colorspace": 1}),
        ((640, 480), (85, 103, 203), {}),
        ((1280, 720), (85, 103, 203), {"colorspace": 6}),
    ],
)
def test_colours_are_those_that_players_show(tmp_path: Path, size, values, tags) -> None:
    with Source(write_plain(tmp_path / "a.mkv", "yuv420p", values, size, color_range=1, **tags)) as source:
        assert np.allclose(next(iter(source)).image[9, 9], (200, 30, 30), atol=4)


def test_hdr_is_brought_down_to_what_a_screen_shows(tmp_path: Path) -> None:
    """The reference white of HLG is 75 % of its range (ITU-R BT.2408): read as SDR it would be a grey of 191."""
    tags = {"colorspace": 9, "color_primaries": 9, "color_trc": 18, "color_range": 1}
    path = write_plain(tmp_path / "a.mkv", "yuv420p10le", (64 + 657, 512, 512), (64, 64), **tags)
    with Source(path) as source:
        assert next(iter(source)).image.min() > 210

"""One contract for every source: a source is done when it passes."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from edge_app import plugins
from edge_app.background import Background
from edge_app.build import source_kind
from edge_app.errors import SourceError
from edge_app.pace import Paced, Repeated
from edge_app.run import Stop, run
from edge_app.turn import Turned
from edge_app.types import Frame

WIDTH, HEIGHT, COUNT, RATE = 64, 48, 12, 30


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clip.mp4, clip.ts and three pictures."""
    folder = tmp_path_factory.mktemp("media")
    for name in ("clip.mp4", "clip.ts"):
        with av.open(str(folder / name), "w") as container:
            video = container.add_stream("mpeg2video" if name.endswith("ts") else "mpeg4", rate=RATE)
            video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for number in range(COUNT):
                image = np.full((HEIGHT, WIDTH, 3), 20 * number, np.uint8)
                container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            container.mux(video.encode())
    for number in range(3):
        Image.new("RGB", (WIDTH, HEIGHT), (number, 0, 0)).save(folder / f"{number}.png")
    return folder


def make(kind: str, media: Path) -> object:
    """A source of that kind that gives at least three frames."""
    if kind == "paced":
        return Paced(make("synthetic", media), fps=100)
    if kind == "repeated":
        return Repeated(make("images", media), frames=7)
    if kind == "turned":
        return Turned(make("stream", media), 90, mirror=True)
    module = plugins.load("sources", kind)
    if kind == "video":
        return module.Source(media / "clip.mp4")
    if kind == "images":
        return module.Source(media)
    if kind == "camera":
        return module.Source("0")
    if kind == "stream":
        return module.Source(f"file:{media / 'clip.mp4'}", timeout=2)
    return module.Source(width=WIDTH, height=HEIGHT, count=COUNT)


KINDS = [
    "video",
    "images",
    "synthetic",
    "paced",
    "repeated",
    "stream",
    "turned",
    pytest.param("camera", marks=pytest.mark.skipif(not Path("/dev/video0").exists(), reason="no camera here")),
]


@pytest.mark.parametrize("kind", KINDS)
def test_contract(kind: str, media: Path) -> None:
    with make(kind, media) as source:
        assert isinstance(source.live, bool)
        assert source.live is (kind in ("camera", "stream", "paced", "turned"))
        assert isinstance(source.name, str) and source.name
        assert source.fps is None or source.fps > 0
        assert source.frames is None or source.frames >= 3
        entered = time.monotonic_ns()
        frames = [frame for frame, _ in zip(source, range(3), strict=False)]
    assert len(frames) == 3
    assert all(isinstance(frame, Frame) for frame in frames)
    for frame in frames:
        assert frame.image.dtype == np.uint8 and frame.image.flags.c_contiguous
        assert frame.captured_ns > entered - 5 * 10**9
        assert frame.decode_ms >= 0 and frame.source
        frame.image[:] = 0  # it belongs to the taker
    assert np.all(np.diff([frame.index for frame in frames]) > 0)
    assert np.all(np.diff([frame.time_ns for frame in frames]) > 0)
    assert np.all(np.diff([frame.captured_ns for frame in frames]) >= 0)


@pytest.mark.parametrize("kind", ["video", "images", "synthetic", "paced", "repeated"])
def test_it_can_be_opened_again_and_gives_the_same(kind: str, media: Path) -> None:
    source = make(kind, media)
    runs = []
    for _ in range(2):
        with source:
            runs.append([(frame.index, frame.image.tobytes()) for frame in source])
    assert runs[0] == runs[1]
    assert len(runs[0]) == source.frames


@pytest.mark.parametrize("kind", KINDS)
def test_leaving_ends_the_thread_that_reads(kind: str, media: Path) -> None:
    before = threading.active_count()
    with make(kind, media) as source, Background(source) as frames:
        next(iter(frames))
        begun = time.monotonic()
    assert time.monotonic() - begun < 2.0
    assert threading.active_count() == before


@pytest.mark.parametrize("kind", KINDS)
def test_stop_ends_the_iteration(kind: str, media: Path) -> None:
    with make(kind, media) as source:
        frames = iter(source)
        next(frames)
        source.stop()
        assert len(list(frames)) <= 1


def test_a_source_that_fails_ends_the_run_with_its_error() -> None:
    module = plugins.load("sources", "synthetic")
    before = threading.active_count()
    for live in (False, True):
        source = module.Source(width=WIDTH, height=HEIGHT, fail_at=5)
        with pytest.raises(SourceError, match="unplugged"):
            run(source, [("none", lambda frame, faces: faces)], [], live=live)
    assert threading.active_count() == before


def test_a_stop_reaches_a_source_that_waits() -> None:
    """A frame every 100 s: only a source that is told can end in time."""
    source = Paced(plugins.load("sources", "synthetic").Source(width=WIDTH, height=HEIGHT, fps=0.01))
    stop = Stop()
    threading.Timer(0.3, stop).start()
    begun = time.monotonic()
    report = run(source, [("none", lambda frame, faces: faces)], [], live=True, stop=stop)
    assert time.monotonic() - begun < 1.5
    assert report.stopped


@pytest.mark.parametrize("kind", ["video", "images", "stream"])
def test_unusable_things_are_refused_in_one_sentence(kind: str, tmp_path: Path) -> None:
    path = tmp_path / 'it\'s "100%" 얼굴.bin'
    path.write_bytes(b"neither picture nor film")
    spec = f"file:{path}" if kind == "stream" else str(path)
    with pytest.raises(SourceError) as caught, plugins.load("sources", kind).Source(spec):
        pass
    assert "얼굴.bin" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("0", "camera"),
        ("/dev/video2", "camera"),
        ("picamera:1", "picamera"),
        ("synthetic:4", "synthetic"),
        ("rtsp://door/1", "stream"),
        ("udp://@:5000", "stream"),
        ("{media}", "images"),
        ("{media}/0.png", "images"),
        ("{media}/[0-9].png", "images"),
        ("{media}/list.txt", "images"),
        ("{media}/clip.ts", "video"),
        ("missing.mkv", "video"),
    ],
)
def test_a_text_chooses_its_source(text: str, kind: str, media: Path) -> None:
    assert source_kind(text.format(media=media)) == kind

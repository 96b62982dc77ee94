"""What sinks are given, and how what they wrote is read."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from edge_app.sinks import video
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


def copy(source: Path, output: Path, stride: int = 1, **cut: float | None) -> Path:
    with Source(source, start=cut.get("start") or 0.0, end=cut.get("end"), stride=stride) as frames:
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


def noise(index: int) -> Result:
    image = np.random.default_rng(index).integers(0, 256, (240, 320, 3), np.uint8)
    return Result(Frame(image, index, index * 40_000_000), NO_FACES, {}, STATUS)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def stamps_so_far(path: Path) -> list[float]:
    """Of a file that is being written."""
    found = []
    with suppress(av.FFmpegError), av.open(str(path)) as container:
        found.extend(frame.time for frame in container.decode(video=0))
    return found

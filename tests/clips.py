"""Small real media files with a face in them, for tests of whole commands."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from edge_app.sources.synthetic import Source


def write_clip(
    path: Path,
    *,
    frames: int = 20,
    size: tuple[int, int] = (320, 240),
    fps: int = 25,
    faces: int = 1,
    sound: bool = False,
) -> Path:
    """An MPEG-4 part 2 video of the wandering portrait, with a tone in AAC if `sound`."""
    with av.open(str(path), "w") as container, Source(width=size[0], height=size[1], fps=fps, faces=faces) as source:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        tone = container.add_stream("aac", rate=48000) if sound else None
        for index in range(frames):
            picture = av.VideoFrame.from_ndarray(source.render(index), format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if tone:
            _write_tone(container, tone, frames / fps)
    return path


def _write_tone(container: av.container.OutputContainer, stream: av.AudioStream, seconds: float) -> None:
    wave = 0.2 * np.sin(np.arange(round(seconds * 48000)) * 2 * np.pi * 440 / 48000, dtype=np.float32)
    frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = 48000, 0, Fraction(1, 48000)
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def write_sound(path: Path, seconds: float = 1.0) -> Path:
    """A file with sound only."""
    with av.open(str(path), "w") as container:
        _write_tone(container, container.add_stream("aac", rate=48000), seconds)
    return path


def times(path: Path) -> list[float]:
    """Presentation times of a video's frames in seconds."""
    with av.open(str(path)) as container:
        return [frame.time for frame in container.decode(video=0)]

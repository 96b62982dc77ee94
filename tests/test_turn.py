from __future__ import annotations

import numpy as np
import pytest

from edge_app.build import turned
from edge_app.pace import Paced
from edge_app.settings import Settings
from edge_app.sources.synthetic import Source
from edge_app.turn import Turned


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("rotate", [0, 90, 180, 270])
def test_pictures_are_turned_clockwise_then_mirrored(rotate: int, mirror: bool) -> None:
    with Source(width=64, height=48, count=2) as plain:
        before = list(plain)
    with Turned(Source(width=64, height=48, count=2), rotate, mirror=mirror) as source:
        after = list(source)
    for one, other in zip(before, after, strict=True):
        expected = np.rot90(one.image, -rotate // 90)
        np.testing.assert_array_equal(other.image, expected[:, ::-1] if mirror else expected)
        assert other.image.flags.c_contiguous and other.image.flags.writeable
        assert (other.index, other.time_ns, other.source) == (one.index, one.time_ns, one.source)


def test_all_else_is_the_source_s_own() -> None:
    inner = Source(width=64, height=48, fps=25, count=9)
    inner.state = "connected"  # as cameras and streams have
    with Turned(inner, 90) as source:
        assert (source.name, source.fps, source.frames, source.live) == ("synthetic", 25, 9, False)
        inner.state = "reconnecting"
        assert source.state == "reconnecting"
        frames = iter(source)
        next(frames)
        source.stop()
        assert len(list(frames)) <= 1
        with pytest.raises(AttributeError, match="failed"):
            source.failed  # noqa: B018


def test_a_paced_one_is_turned() -> None:
    with Paced(Turned(Source(width=64, height=48, count=2), 270), fps=1000) as source:
        assert [frame.image.shape for frame in source] == [(64, 48, 3)] * 2


def test_where_nothing_is_asked_nothing_is_wrapped() -> None:
    source = Source()
    assert turned(source, Settings()) is source
    assert isinstance(turned(source, Settings(mirror=True)), Turned)

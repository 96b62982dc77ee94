"""The synthetic source: same index, same pixels, and the truth about where the faces are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edge_app.errors import SourceError
from edge_app.sources.synthetic import PORTRAIT, Source


def test_same_index_gives_same_pixels() -> None:
    with Source(width=320, height=180, count=20) as one, Source(width=320, height=180, count=20) as other:
        frames = list(one)
        np.testing.assert_array_equal(frames[7].image, other.render(7))
    assert [frame.index for frame in frames] == list(range(20))
    assert frames[-1].time_ns == round(19e9 / 30)
    assert not np.array_equal(frames[0].image, frames[19].image)


@pytest.mark.parametrize("faces", [0, 1, 3, 4])
def test_boxes_lie_inside_and_apart_and_move(faces: int) -> None:
    with Source(f"synthetic:{faces}", count=100) as source:
        boxes = np.array([source.boxes(index) for index in range(100)])
    assert boxes.shape == (100, faces, 4)
    assert np.all(boxes[..., :2] >= 0)
    assert np.all(boxes[..., 2:] <= (1280, 720))
    assert np.all(boxes[..., 2:] - boxes[..., :2] > 60)
    if faces:
        assert np.ptp(boxes[:, :, 0], axis=0).min() > 20
    if faces == 4:
        assert np.all(boxes[:, 0, 2] < boxes[:, 1, 0])
        assert np.all(boxes[:, 0, 3] < boxes[:, 2, 1])


def test_the_detector_finds_every_face_where_the_truth_says() -> None:
    vision = pytest.importorskip("mediapipe.tasks.python.vision")
    from mediapipe import Image as MpImage
    from mediapipe import ImageFormat
    from mediapipe.tasks.python import BaseOptions

    from edge_app.manifest import model_folders

    model = model_folders()[0] / "face_detection" / "face_detection_full_range_sparse.tflite"
    options = vision.FaceDetectorOptions(base_options=BaseOptions(model_asset_path=str(model)))
    with vision.FaceDetector.create_from_options(options) as detector, Source("synthetic:4") as source:
        for index in (0, 40, 80, 120, 160):
            image = MpImage(image_format=ImageFormat.SRGB, data=source.render(index))
            found = [d.bounding_box for d in detector.detect(image).detections]
            middles = sorted((b.origin_x + b.width / 2, b.origin_y + b.height / 2) for b in found)
            truth = source.boxes(index)
            expected = sorted(map(tuple, (truth[:, :2] + truth[:, 2:]) / 2))
            np.testing.assert_allclose(middles, expected, atol=12)


def test_another_picture(tmp_path: Path) -> None:
    path = tmp_path / "red.png"
    Image.new("RGB", (50, 50), "red").save(path)
    with Source(picture=path, count=1) as source:
        left, top, right, bottom = source.boxes(0)[0].astype(int)
        assert np.all(source.render(0)[top:bottom, left:right] == (255, 0, 0))


def test_unplugged_at_a_frame() -> None:
    got = []
    with pytest.raises(SourceError, match="unplugged at frame 3"), Source(width=64, height=48, fail_at=3) as source:
        got.extend(source)
    assert [frame.index for frame in got] == [0, 1, 2]


@pytest.mark.parametrize("spec", ["synthetic:many", "synthetics", "synthetic:-1"])
def test_unknown_spec(spec: str) -> None:
    with pytest.raises(SourceError, match="expected 'synthetic'"):
        Source(spec)


def test_unreadable_picture(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected a picture"), Source(picture=tmp_path / "none.png"):
        pass


def test_the_portrait_is_shipped_with_the_package() -> None:
    assert PORTRAIT.parent.name == "edge_app"
    with Image.open(PORTRAIT) as portrait:
        assert portrait.size == (512, 512)

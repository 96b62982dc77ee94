"""A decoder's pictures as players show them: in sRGB whatever the matrix, range or HDR curve, upright, undistorted."""

from __future__ import annotations

from fractions import Fraction

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

# By quarter turns, anticlockwise.
_TURNS = (None, cv2.ROTATE_90_COUNTERCLOCKWISE, cv2.ROTATE_180, cv2.ROTATE_90_CLOCKWISE)
# Numbers of ITU-T H.273.
BT709 = 1
UNSPECIFIED = 2
HDR = (16, 18)  # transfer characteristics PQ (SMPTE ST 2084) and HLG (ITU-R BT.2100)
HD = 720  # lines from which players take an unspecified matrix for BT.709's


class ToRgb:
    """Called with a picture and the aspect of its pixels, where the stream tells it: (H, W, 3) uint8 RGB. One per stream."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, picture: av.VideoFrame, aspect: Fraction | None = None) -> np.ndarray:
        wide = aspect is not None and Fraction(1, 8) < aspect < 8
        width = max(2, round(picture.width * aspect)) if wide else picture.width
        how: dict[str, int] = {}
        if picture.color_trc in HDR:
            how = {"dst_colorspace": BT709, "dst_color_trc": BT709, "dst_color_primaries": BT709}
        elif picture.colorspace == UNSPECIFIED and picture.height >= HD:
            how = {"src_colorspace": BT709}
        rgb = self._reformatter.reformat(picture, width=width, format="rgb24", threads=1, **how).to_ndarray()
        return _upright(np.ascontiguousarray(rgb), picture)  # of an odd width the rows end in padding


def _upright(image: np.ndarray, picture: av.VideoFrame) -> np.ndarray:
    """Turn a picture as its display matrix says (ISO 14496-12, 6.2.2), in quarter turns.

    PyAV tells the angle only, so a mirroring matrix is taken for a half turn. `picture.side_data`, which holds the
    whole matrix, must not be touched: PyAV 18.1 frees it twice and the process dies at a later garbage collection.
    """
    turn = _TURNS[round(picture.rotation / 90) % 4]
    return image if turn is None else cv2.rotate(image, turn)

"""A decoder's pictures in the colours that players show: sRGB, whatever the file's matrix, range or HDR curve."""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import VideoReformatter

# Numbers of ITU-T H.273.
BT709 = 1
UNSPECIFIED = 2
HDR = (16, 18)  # transfer characteristics PQ (SMPTE ST 2084) and HLG (ITU-R BT.2100)
HD = 720  # lines from which players take an unspecified matrix for BT.709's


class ToRgb:
    """Called with a picture and, where that differs, the width it is shown at: (H, W, 3) uint8 RGB. One per stream."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, picture: av.VideoFrame, width: int | None = None) -> np.ndarray:
        how: dict[str, int] = {}
        if picture.color_trc in HDR:
            how = {"dst_colorspace": BT709, "dst_color_trc": BT709, "dst_color_primaries": BT709}
        elif picture.colorspace == UNSPECIFIED and picture.height >= HD:
            how = {"src_colorspace": BT709}
        rgb = self._reformatter.reformat(picture, width=width, format="rgb24", threads=1, **how).to_ndarray()
        return np.ascontiguousarray(rgb)  # of an odd width the rows end in padding

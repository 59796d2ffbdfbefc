"""Colours of clips are those that OpenCV decodes, to the bit."""

import av
import cv2
import numpy as np
import pytest

from pipeline.files.pixels.frames import Video
from tests.pipeline.files.made_clips import OPENCV, require_pixels_of_opencv

BT_709 = 1  # matrices of colours, ITU-T H.273, table 4
BT_2020 = 9
COLOURED = 3  # frames of a coloured clip
PIXELS = (
    "yuv420p",
    "yuvj420p",
    "nv12",
    "yuv422p",
    "yuv444p",
    "yuv420p10le",
    "yuv422p10le",
    "yuv444p10le",
)

pytestmark = pytest.mark.skipif(
    OPENCV < (4, 13), reason="OpenCV before 4.13 takes all clips for BT.601"
)


@pytest.mark.parametrize("matrix", [None, BT_709, BT_2020])
@pytest.mark.parametrize("pix_fmt", PIXELS)
def test_colours_are_those_of_opencv(tmp_path, pix_fmt, matrix):
    rng = np.random.default_rng(0)
    width, height = size = (130, 66)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        if matrix is not None:
            stream.codec_context.colorspace = matrix
        for _ in range(COLOURED):
            spots = rng.integers(0, 256, (height // 4, width // 4, 3), np.uint8)
            image = cv2.resize(spots, size, interpolation=cv2.INTER_CUBIC)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        container.mux(stream.encode(None))
    video = Video(tmp_path, "a.mp4")
    require_pixels_of_opencv(video, [*video.read(range(COLOURED))])

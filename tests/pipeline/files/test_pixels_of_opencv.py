"""Most clips have the pixels that OpenCV decodes, to the bit. `ClipRecord.otherwise` names the
others.
"""

import av
import cv2
import numpy as np
import pytest

from pipeline.files.pixels.frames import Video
from tests.pipeline.files.made_clips import INTERLACED_CLIPS, WHOLE, N, content

OTHERWISE = {*INTERLACED_CLIPS, "hlg.mp4", "pq.mp4", "wide_pixels.mp4", "dv.avi", "h263.3gp"}
OPENCV = tuple(map(int, cv2.__version__.split(".")[:2]))
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


def opencv_frames(file):
    """All frames (H, W, 3) RGB as OpenCV decodes them."""
    capture = cv2.VideoCapture(str(file))
    images = []
    has_frame, image = capture.read()
    while has_frame:
        images.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
        has_frame, image = capture.read()
    capture.release()
    return images


def require_same_frames(file, n_frames):
    video = Video(file.parent, file.name)
    assert not video.record().otherwise
    expected = opencv_frames(file)
    assert len(expected) == n_frames
    for frame, image in zip(video.read(range(n_frames)), expected, strict=True):
        assert frame.image is not None
        np.testing.assert_array_equal(frame.image, image)


@pytest.mark.parametrize("name", [clip.name for clip in WHOLE if clip.name not in OTHERWISE])
def test_clips_of_all_kinds_have_the_pixels_of_opencv(tmp_path, name):
    if name.startswith("av1.") and OPENCV >= (5, 0):
        pytest.skip("OpenCV 5.0 opens no AV1; the pipeline decodes with PyAV")
    (tmp_path / name).write_bytes(content(name))
    require_same_frames(tmp_path / name, N)


@pytest.mark.parametrize("matrix", [None, BT_709, BT_2020])
@pytest.mark.parametrize("size", [(128, 64), (130, 66)])
@pytest.mark.parametrize("pix_fmt", PIXELS)
def test_colours_are_those_of_opencv(tmp_path, pix_fmt, size, matrix):
    rng = np.random.default_rng(0)
    width, height = size
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
    require_same_frames(tmp_path / "a.mp4", COLOURED)

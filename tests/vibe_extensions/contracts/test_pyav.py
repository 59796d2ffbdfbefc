"""PyAV gives the frames of a video that `read` gives: turned, cut and counted as these."""

import struct
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.files.pixels.frames import Video
from tests.pipeline.datasets.by_hand import encode
from vibe_extensions.contracts.single_rows import VideoByPyAV

SCENE = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (120, 160, 3), np.uint8), (0, 0), 3)
N = 12
ONE = 1 << 16
MATRICES = {  # of a track's header (ISO/IEC 14496-12, 8.3.2): quarter turns, clockwise
    0: (ONE, 0, 0, ONE),
    1: (0, ONE, -ONE, 0),
    2: (-ONE, 0, 0, -ONE),
    3: (0, -ONE, ONE, 0),
}
pytestmark = pytest.mark.skipif(find_spec("av") is None, reason="PyAV is needed: pip install -e '.[pages]'")


@pytest.fixture(scope="module")
def mp4(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """96 x 64 px, 12 frames, each of another part of the scene."""
    images = [SCENE[3 * i : 3 * i + 64, 4 * i : 4 * i + 96] for i in range(N)]
    return encode(tmp_path_factory.mktemp("video") / "x.mp4", images, fps=20).read_bytes()


def turned(data: bytes, quarters: int) -> bytes:
    """With another matrix in the track's header, version 0."""
    at = data.index(b"tkhd") + 4 + 40
    a, b, c, d = MATRICES[quarters]
    return data[:at] + struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30) + data[at + 36 :]


def begins_later(data: bytes, frames: int) -> bytes:
    """With an edit list that leaves the first frames out."""
    at = data.index(b"elst") + 16
    scale = struct.unpack(">I", data[data.index(b"mdhd") + 16 :][:4])[0]
    return data[:at] + struct.pack(">i", frames * scale // 20) + data[at + 4 :]


@pytest.mark.parametrize("quarters", MATRICES)
def test_a_rotation_flag_is_followed(tmp_path: Path, mp4: bytes, quarters: int) -> None:
    (tmp_path / "x.mp4").write_bytes(turned(mp4, quarters))
    ours, theirs = ([f.image for f in kind(tmp_path, "x.mp4").read([0, 4, 11])] for kind in (Video, VideoByPyAV))
    for one, other in zip(ours, theirs, strict=True):
        assert one is not None
        assert one.shape == ((96, 64, 3) if quarters % 2 else (64, 96, 3))
        np.testing.assert_allclose(np.asarray(other, int), one, atol=2)


@pytest.mark.parametrize("left_out", [0, 1, 5])
def test_an_edit_list_is_followed(tmp_path: Path, mp4: bytes, left_out: int) -> None:
    (tmp_path / "x.mp4").write_bytes(begins_later(mp4, left_out))
    ours, theirs = (list(kind(tmp_path, "x.mp4").read(range(N + 1))) for kind in (Video, VideoByPyAV))
    kinds = [""] * (N - left_out) + ["video_ended"] * (left_out + 1)
    assert [f.kind for f in theirs] == [f.kind for f in ours] == kinds
    assert theirs[-1].problem == ours[-1].problem
    for one, other in zip(ours[: N - left_out], theirs, strict=False):
        np.testing.assert_allclose(np.asarray(other.image, int), one.image, atol=2)
    first = SCENE[3 * left_out :][:64, 4 * left_out :][:, :96, ::-1]
    assert np.abs(np.asarray(theirs[0].image, int) - first).mean() < 6  # of a compressed picture


@pytest.mark.parametrize("content", [b"", b"#EXTM3U\nhttp://example.org/x.ts\n", b"RIFF\x10\0\0\0AVI " + bytes(100)])
def test_what_is_no_video_is_a_problem_of_every_frame(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.mp4").write_bytes(content)
    frames = list(VideoByPyAV(tmp_path, "x.mp4").read([0, 7]))
    assert [frame.kind for frame in frames] == ["video_unreadable"] * 2
    assert all(frame.image is None and frame.problem for frame in frames)

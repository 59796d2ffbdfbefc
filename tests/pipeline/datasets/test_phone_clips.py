"""A folder of clips as phones write them, from its first line in the documentation to features in a
cache.

The clips are demo people, so that the demo detector sees them: turned by metadata, in HEVC, at an
uneven rate.
"""

import shutil
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from pipeline import datasets
from pipeline.__main__ import main
from pipeline.accounting import Accounting
from pipeline.files.pixels.frames import Video
from pipeline.files.raw import MARKER
from pipeline.skeletons import convert
from tests.pipeline.datasets.by_hand import standing, write_alphapose, write_video

av = pytest.importorskip("av", reason="PyAV, which writes the clips, is not installed")

N = 48  # frames: more than the 40 that a stretch needs


NAME = "2024/IMG_0001.MOV"


class Scene(NamedTuple):
    """What all clips show."""

    images: list[np.ndarray]  # N times (H, W, 3) RGB
    joints: list[np.ndarray]  # of each actor (N, 17, 2 or more) px
    marker: Path


@pytest.fixture(scope="module")
def scene(embedded: Any) -> Scene:
    """A demo clip of 28 frames forwards and backwards."""
    take = next(take for take in embedded.takes("kinetics") if len(take.actors) == 1)
    raw = embedded.raw("kinetics")
    there = [frame.image for frame in Video(raw, f"{take.shot.file}").read(range(28))]
    order = [*range(28), *range(26, 26 - (N - 28), -1)]
    joints = [convert(actor.kp_2d[order], source="spin49", target="coco") for actor in take.actors]
    return Scene([there[t] for t in order], joints, raw / MARKER)


def write(file: Path, scene: Scene) -> None:
    """The scene at 30 frames a second in HEVC; every second frame comes two thirds of a frame
    late.
    """
    file.parent.mkdir(parents=True)
    with av.open(str(file), "w", format="mov") as container:
        stream = container.add_stream("hevc", rate=30)
        images = [np.ascontiguousarray(np.rot90(image)) for image in scene.images]
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "12", "x265-params": "log-level=none"}
        stream.codec_context.time_base = Fraction(1, 1000)
        for t, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(1000 * (t + t % 2 * 2 / 3) / 30), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    turn(file)


def turn(file: Path) -> None:
    """Set its rotation flag to a quarter turn, as of a phone that is held upright."""
    data = bytearray(file.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 36  # version and flags, times to volume
    data[at : at + 36] = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    file.write_bytes(data)


def test_a_turned_clip_of_uneven_rate_in_hevc_is_read_as_it_is_shown(
    tmp_path: Path, scene: Scene
) -> None:
    write(tmp_path / NAME, scene)
    shutil.copy(scene.marker, tmp_path / MARKER)
    source = Video(tmp_path, NAME)
    (frame,) = source.read([N - 1])
    assert frame.image is not None
    assert frame.image.shape == scene.images[0].shape
    assert np.abs(frame.image.astype(float) - scene.images[-1]).mean() < 8
    assert main(["detect", str(tmp_path), "--out", str(tmp_path / "keypoints")]) == 0
    report = Accounting()
    (track,) = datasets.get("videos").tracks(tmp_path, "train", report=report)
    assert track.frame_index.tolist() == list(range(N))
    found = convert(track.kp_2d, source="spin49", target="coco")
    apart = [np.linalg.norm(found[..., :2] - one[..., :2], axis=-1) for one in scene.joints]
    # px; people are 130 px high
    assert min(np.median(distance[found[..., 2] > 0]) for distance in apart) < 4
    (account,) = report
    assert any("the frame rate varies" in note for note in account.notes)
    shown = tmp_path.with_name(f"{tmp_path.name}.mp4")  # upright, as the frames are
    assert main(["show", "videos", "train", "--raw", str(tmp_path), "--out", str(shown)]) == 0
    with av.open(str(shown)) as container:
        images = [image.to_ndarray(format="rgb24") for image in container.decode(video=0)]
    assert len(images) == N and images[0].shape == scene.images[0].shape
    assert np.median(np.abs(images[-1].astype(float) - scene.images[-1])) < 8


@pytest.mark.parametrize("is_turned", [True, False])
def test_keypoints_of_the_picture_before_it_is_turned_are_refused(
    is_turned: bool, tmp_path: Path
) -> None:
    """AlphaPose's file states no size. Joints right of the image by less than a tenth of its width
    are possible in any other clip, and noted.
    """
    clip = write_video(tmp_path / "a.mov", N, size=(160, 120) if is_turned else (120, 160), step=0)
    if is_turned:
        turn(clip)
    assert Video(tmp_path, "a.mov").size() == (120, 160)
    joints = standing("coco", 117, 60)  # between 102 and 132
    write_alphapose(tmp_path / "keypoints/a.json", dict.fromkeys(range(N), joints))
    report = Accounting()
    tracks = list(datasets.get("videos").tracks(tmp_path, "train", report=report))
    (account,) = report
    if is_turned:
        assert account.set_aside == "keypoints_outside" and not tracks
        words = "joints beyond it: those of the stored 160 x 120 image. Run the detector on"
        assert words in account.message
    else:
        assert "29% of the joints are beyond the border of the image" in account.notes

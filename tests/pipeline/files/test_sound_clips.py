"""Clips without damage lose no frame: a grid of codecs, containers and groups of pictures."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest

from pipeline.files.pixels.frames import Video
from tests.pipeline.files.made_clips import Clip, number_in

FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
X264 = ("bf=0", "bf=2", "bf=3:b-pyramid=normal:ref=4", "bf=2:open-gop=1", "bf=0:intra-refresh=1")
KINDS: list[tuple[str, str, dict[str, str]]] = [  # encoder, container, options
    *(
        ("libx264", end, {"x264-params": one})
        for end, one in product(("mp4", "mkv", "ts", "avi", "flv", "mov", "fragments.mp4"), X264)
    ),
    *(
        ("libx265", end, {"x265-params": f"log-level=none:{one}"})
        for end, one in product(("mp4", "mkv", "ts"), ("bframes=0", "open-gop=1", "open-gop=0"))
    ),
    *(
        (codec, end, {"bf": bf})
        for codec, end, bf in [
            *product(["mpeg4"], ("mp4", "avi", "mkv"), "02"),
            *product(["mpeg2video", "mpeg1video"], ("mkv", "ts", "mpg"), "02"),
        ]
    ),
    *product(["libvpx", "libvpx-vp9"], ("webm", "mkv"), [{"cpu-used": "8"}]),
    ("libsvtav1", "mkv", {"preset": "12"}),
    ("mjpeg", "avi", {}),
    ("mjpeg", "mov", {}),
]
GRID = [(*kind, *shape) for kind, shape in product(KINDS, (("5", 25), ("12", 30), ("99", 24)))]


def made(codec: str, end: str, options: dict[str, str], group: str, rate: int) -> Clip:
    clip = Clip(f"x.{end}", codec, 15 + int(group) % 9, rate, size=(64, 48))
    clip.options = {"g": group, **options}
    if codec != "libsvtav1":
        clip.options["b"] = "2M"
    if end.startswith("fragments"):
        clip.muxer = FRAGMENTS
    if codec == "mjpeg":
        clip.pix_fmt = "yuvj420p"
    return clip


def require_whole(folder: Path, name: str, data: bytes, expected: list[int]) -> None:
    (folder / name).write_bytes(data)
    video = Video(folder, name)
    frames = list(video.read(range(video.count_frames())))
    shown = [-1 if frame.image is None else number_in(frame.image) for frame in frames]
    assert shown == expected
    assert not [remark for remark in video.record().remarks() if "damaged" in remark]


@pytest.mark.parametrize("number", range(1, len(GRID), len(GRID) // 12))
def test_a_sound_clip_loses_no_frame(tmp_path: Path, number: int) -> None:
    clip = made(*GRID[number])
    require_whole(tmp_path, clip.name, clip.encode(), list(range(clip.n_frames)))


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(GRID)))
def test_no_sound_clip_loses_a_frame(tmp_path: Path, number: int) -> None:
    clip = made(*GRID[number])
    require_whole(tmp_path, clip.name, clip.encode(), list(range(clip.n_frames)))


def from_second_group(packets: list[Any]) -> list[Any]:
    """The packets from the second key frame on, as a cutting tool leaves them."""
    keys = [index for index, packet in enumerate(packets) if packet.is_keyframe]
    return packets[keys[1] :]


def without_marks(packets: list[Any]) -> list[Any]:
    kept = from_second_group(packets)
    for packet in kept:
        packet.is_keyframe = False
    return kept


@pytest.mark.parametrize("end", ["mp4", "fragments.mp4", "mkv"])
def test_a_key_frame_need_not_be_marked(tmp_path: Path, end: str) -> None:
    clip = made("libx264", end, {"x264-params": "bf=2"}, "8", 25)
    clip.change = without_marks
    require_whole(tmp_path, clip.name, clip.encode(), list(range(8, clip.n_frames)))


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_leading_pictures_without_their_group_are_no_damage(tmp_path: Path, codec: str) -> None:
    """They are drawn over frames before the cut, and no player shows them."""
    options = {"x264-params": "bf=2:open-gop=1", "x265-params": "log-level=none:open-gop=1"}
    clip = made(codec, "mkv", options, "8", 25)
    clip.change = from_second_group
    data = clip.encode()
    (tmp_path / clip.name).write_bytes(data)
    video = Video(tmp_path, clip.name)
    frames = list(video.read(range(video.count_frames())))
    assert all(frame.image is not None for frame in frames)
    assert not [remark for remark in video.record().remarks() if "damaged" in remark]

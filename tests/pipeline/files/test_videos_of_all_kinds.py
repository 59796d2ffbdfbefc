"""Clips of all containers, codecs and oddities: the number painted into a frame is the number that reading gives it."""

import functools
from pathlib import Path
from typing import Any

import pytest

from pipeline.files.pixels.frames import Video
from tests.pipeline.files.made_clips import HEIGHT, WIDTH, Clip, number_in, zero

X265 = {"x265-params": "log-level=none"}
INTERLACED = {"flags": "+ilme+ildct", "x264-params": "interlaced=1:tff=1"}
N = 40

WHOLE = [
    Clip("h264.mp4"),
    Clip("h264_b_frames.mp4", options={"bf": "3"}),
    Clip("h264_fragments.mp4", muxer={"movflags": "frag_keyframe+empty_moov"}),
    Clip("h264_header_first.mp4", muxer={"movflags": "faststart"}),
    Clip("h264_open_gop.mkv", options={"bf": "2", "x264-params": "open-gop=1"}),
    Clip("h264_refresh.mp4", options={"x264-params": "intra-refresh=1"}),
    Clip("h264_422.mp4", pix_fmt="yuv422p"),
    Clip("h264_444.mp4", pix_fmt="yuv444p"),
    Clip("h264_10_bit.mp4", pix_fmt="yuv420p10le"),
    Clip("h264_grey.mp4", pix_fmt="gray"),
    Clip("h264_odd.mp4", size=(WIDTH + 1, HEIGHT + 1), pix_fmt="yuv444p"),
    Clip("h264.mov"),
    Clip("h264.mkv"),
    Clip("h264.avi", options={"bf": "0"}),
    Clip("h264_b_frames.avi", options={"bf": "2"}),
    Clip("h264.ts"),
    Clip("h264.m2ts", muxer={"mpegts_m2ts_mode": "1"}),
    Clip("h264.flv"),
    Clip("h264.3gp"),
    Clip("hevc.mp4", "libx265", options=X265),
    Clip("hevc.mkv", "libx265", options=X265),
    Clip("hevc.ts", "libx265", options=X265),
    Clip("hevc_10_bit.mp4", "libx265", options=X265, pix_fmt="yuv420p10le"),
    Clip("mpeg4.mp4", "mpeg4"),
    Clip("mpeg4.avi", "mpeg4"),
    Clip("mpeg4_b_frames.avi", "mpeg4", options={"bf": "2"}),
    Clip("mpeg4_b_frames.mp4", "mpeg4", options={"bf": "2"}),
    Clip("mpeg4.mkv", "mpeg4"),
    Clip("mpeg2.mpg", "mpeg2video"),
    Clip("mpeg2_b_frames.mpg", "mpeg2video", options={"bf": "2"}),
    Clip("mpeg2.ts", "mpeg2video", options={"bf": "2"}),
    Clip("mpeg2.mkv", "mpeg2video"),
    Clip("mjpeg.avi", "mjpeg", pix_fmt="yuvj420p"),
    Clip("mjpeg.mov", "mjpeg", pix_fmt="yuvj420p"),
    Clip("vp8.webm", "libvpx"),
    Clip("vp8_hidden_references.webm", "libvpx", options={"auto-alt-ref": "1", "lag-in-frames": "12"}),
    Clip("vp9.webm", "libvpx-vp9", options={"cpu-used": "8"}),
    Clip(
        "vp9_hidden_references.mkv", "libvpx-vp9", options={"cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "12"}
    ),
    Clip("av1.mkv", "libsvtav1", options={"preset": "12"}),
    Clip("av1.mp4", "libsvtav1", options={"preset": "12"}),
    Clip("wmv2.wmv", "wmv2"),
    Clip("flv1.flv", "flv"),
    Clip("ffv1.mkv", "ffv1"),
    Clip("prores.mov", "prores_ks", pix_fmt="yuv422p10le"),
    Clip("uneven.mp4", times=[33 * i + 5 * (i % 3) for i in range(N)]),
    Clip("uneven.mkv", times=[33 * i + 5 * (i % 3) for i in range(N)]),
    Clip("uneven.webm", "libvpx", times=[33 * i + 5 * (i % 3) for i in range(N)]),
    Clip("pause.mkv", times=[40 * i + 2000 * (i > 20) for i in range(N)]),
    Clip("late_start.mkv", times=[40 * i + 5000 for i in range(N)]),
    Clip("interlaced.mp4", options=INTERLACED),
    Clip("interlaced.ts", options=INTERLACED),
    Clip("interlaced_mpeg2.ts", "mpeg2video", options={"flags": "+ilme+ildct"}),
    Clip("interlaced_mpeg2_b_frames.mpg", "mpeg2video", options={"flags": "+ilme+ildct", "bf": "2"}),
    Clip("interlaced_mpeg4.avi", "mpeg4", options={"flags": "+ilme+ildct"}),
]


@functools.cache
def content(name: str) -> bytes:
    """The bytes of a clip of `WHOLE`."""
    (clip,) = (clip for clip in WHOLE if clip.name == name)
    return clip.encode()


def numbers(video: Video) -> list[Any]:
    """The painted number of each frame, or the kind of its problem."""
    frames = video.read(range(video.count_frames()))
    return [number_in(frame.image) if frame.image is not None else frame.kind for frame in frames]


@pytest.mark.parametrize("name", [clip.name for clip in WHOLE])
def test_each_frame_has_the_number_that_is_painted_into_it(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(content(name))
    video = Video(tmp_path, name)
    assert numbers(video) == list(range(N))
    assert not video.record().lost
    few = [0, 1, 7, 8, N - 1]
    shown = [frame.image for frame in video.read(few)]
    assert [number_in(image) for image in shown if image is not None] == few


@pytest.mark.parametrize("name", [clip.name for clip in WHOLE if clip.name.startswith("interlaced")])
def test_an_interlaced_clip_is_noted(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(content(name))
    assert Video(tmp_path, name).record().remarks() == [f"interlaced: {N} frames of two fields"]


DAMAGED = [
    "h264.mp4",
    "h264_b_frames.mp4",
    "h264.mkv",
    "h264.mov",
    "h264.flv",
    "hevc.mp4",
    "mpeg4.mp4",
    "mpeg4.avi",
    "mjpeg.avi",
    "vp9.webm",
    "vp8.webm",
    "av1.mkv",
    "wmv2.wmv",
]


@pytest.mark.parametrize("threads", ["1", "4"])
@pytest.mark.parametrize("packet", [0, 17, N - 1])
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_packet_shifts_no_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, packet: int, threads: str
) -> None:
    monkeypatch.setenv("VIDEO_THREADS", threads)
    (tmp_path / name).write_bytes(zero(content(name), packet))
    video = Video(tmp_path, name)
    lost = video.record().lost
    assert video.count_frames() == N
    assert 1 <= len(lost) <= 10  # a group of pictures
    found = numbers(video)
    assert [number for number, kind in enumerate(found) if kind == "frame_damaged"] == list(lost)
    in_group = range(10 * (packet // 10), 10 * (packet // 10) + 10)
    assert [number for number in found if number != "frame_damaged" and number not in in_group] == [
        number for number in range(N) if number not in in_group and number not in lost
    ]
    (remark,) = video.record().remarks()
    assert "cannot be decoded" in remark

"""Clips of all containers, codecs and oddities: the number painted into a frame is the number that
reading gives it.
"""

import json
import os
import struct
from dataclasses import replace

import av
import numpy as np
import pytest

from pipeline.errors import RawDataError
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.files.pixels.decode import is_cut_off
from pipeline.files.pixels.frames import Video
from pipeline.files.pixels.video import CODECS, OpenVideo, open_video
from tests.pipeline.files.made_clips import (
    DAMAGED,
    HEIGHT,
    INTERLACED_CLIPS,
    MATRIX,
    OPENCV,
    OTHERWISE,
    WHOLE,
    WIDTH,
    Clip,
    N,
    content,
    find_packet,
    number_in,
    require_pixels_of_opencv,
    trimmed,
    with_matrix,
    write_two_streams,
    zero,
)

REMARKS = {  # of the clips that are unusual; others have none
    **{name: [f"interlaced: {N} frames of two fields"] for name in INTERLACED_CLIPS},
    "uneven.mkv": ["30.303 frames a second by their times, 25 by the header"],
    "uneven.webm": ["30.303 frames a second by their times, 25 by the header"],
    "pause.mkv": [
        "10.955 frames a second by their times, 25 by the header",
        "the frame rate varies: from 40 to 2040 ms a frame",
    ],
    "doubled_times.mkv": ["the frame rate varies: from 0 to 80 ms a frame"],
    "hlg.mp4": ["HDR clip (HLG), shown as SDR"],
    "pq.mp4": ["HDR clip (PQ), shown as SDR"],
    "wide_pixels.mp4": ["128 x 64 pixels that are not square, shown as 171 x 64"],
    "dv.avi": [
        f"interlaced: {N} frames of two fields",
        "720 x 576 pixels that are not square, shown as 768 x 576",
    ],
    "h263.3gp": ["176 x 144 pixels that are not square, shown as 192 x 144"],
    "slow_motion.mp4": ["filmed at 240 frames a second, played at 30: slow motion"],
}


def numbers(video):
    """The painted number of each frame, or the kind of its problem."""
    frames = video.read(range(video.count_frames()))
    return [number_in(frame.image) if frame.image is not None else frame.kind for frame in frames]


@pytest.mark.parametrize("name", [clip.name for clip in WHOLE])
def test_each_frame_has_the_number_that_is_painted_into_it_and_opencvs_pixels(tmp_path, name):
    (tmp_path / name).write_bytes(content(name))
    video = Video(tmp_path, name)
    frames = list(video.read(range(video.count_frames())))
    assert [number_in(frame.image) for frame in frames] == list(range(N))
    opens = OPENCV >= (4, 13) and not (name.startswith("av1.") and OPENCV >= (5, 0))
    if opens and name not in OTHERWISE:
        require_pixels_of_opencv(video, frames)
    assert not video.record().lost
    assert video.record().remarks() == REMARKS.get(name, [])
    few = [0, 1, 7, 8, N - 1]
    shown = [frame.image for frame in video.read(few)]
    assert [number_in(image) for image in shown if image is not None] == few


@pytest.mark.promise("pixels")
@pytest.mark.parametrize("packet", [0, 17, N - 1])
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_packet_shifts_no_frame(tmp_path, name, packet):
    (tmp_path / name).write_bytes(zero(content(name), packet))
    video = Video(tmp_path, name)
    lost = video.record().lost
    assert video.count_frames() == N
    # a group of pictures, and those of an open one that are drawn over it
    assert 1 <= len(lost) <= (15 if name == "hevc.mp4" else 10)
    found = numbers(video)
    assert [number for number, kind in enumerate(found) if kind == "frame_damaged"] == list(lost)
    in_group = range(10 * (packet // 10), 10 * (packet // 10) + 10)
    assert [number for number in found if number != "frame_damaged" and number not in in_group] == [
        number for number in range(N) if number not in in_group and number not in lost
    ]
    (remark,) = video.record().remarks()
    assert "cannot be decoded" in remark


def test_an_avi_is_cut_off_if_its_header_states_more_bytes(tmp_path):
    whole = content("mjpeg.avi")
    of_a_pipe = whole[:4] + b"\xff" * 4 + whole[8:]  # a writer that could not go back and fill it
    results = {}
    for name, data in {"whole": whole, "cut": whole[:-1], "pipe": of_a_pipe}.items():
        (tmp_path / name).write_bytes(data)
        results[name] = is_cut_off(tmp_path / name)
    assert results == {"whole": False, "cut": True, "pipe": False}


class FailingAtItsEnd:
    """A container whose last packet, which is empty, is refused by the decoder."""

    def __init__(self, container):
        self.container = container

    def __getattr__(self, name):
        return getattr(self.container, name)

    def demux(self, stream):
        for packet in self.container.demux(stream):
            yield packet if packet.size else RefusedPacket()


class RefusedPacket:
    size = 0
    pts = None
    dts = None
    is_keyframe = False

    def decode(self):
        raise av.InvalidDataError(0, "refused")


def test_a_decoder_that_fails_at_the_end_adds_no_frame(tmp_path):
    (tmp_path / "mjpeg.avi").write_bytes(content("mjpeg.avi"))
    with av.open(str(tmp_path / "mjpeg.avi")) as container:
        frames = [*OpenVideo(FailingAtItsEnd(container)).frames()]
    assert [frame.number for frame in frames if frame.decoded is not None] == list(range(N))
    assert len(frames) == N


@pytest.mark.parametrize(
    "name", ["h264.mp4", "h264_b_frames.mp4", "hevc.mp4", "mpeg4_b_frames.mp4"]
)
@pytest.mark.parametrize("n_hidden", [10, 13])  # a key frame is the first that is shown, or not
def test_frames_count_from_the_first_one_that_a_trimmed_clip_shows(tmp_path, name, n_hidden):
    (tmp_path / name).write_bytes(trimmed(content(name), n_hidden))
    video = Video(tmp_path, name)
    assert numbers(video) == list(range(n_hidden, N))
    assert video.record().n_hidden == n_hidden


@pytest.mark.parametrize("name", ["h264.ts", "mpeg2_b_frames.mpg"])
def test_joined_recordings_are_one_clip(tmp_path, name):
    (tmp_path / name).write_bytes(2 * content(name))
    video = Video(tmp_path, name)
    assert numbers(video) == 2 * list(range(N))
    record = video.record()
    assert record.fps == pytest.approx(25, rel=1e-3)
    assert record.remarks() == ["times begin anew 1 time: several recordings in one file"]


@pytest.mark.parametrize("kind", MATRIX)
def test_frames_are_turned_and_mirrored_as_the_header_says(tmp_path, kind):
    upright = {
        "mirrored": lambda image: image[:, ::-1],
        "a quarter turn": np.rot90,
        "a half turn": lambda image: np.rot90(image, 2),
        "mirrored and turned": lambda image: image.transpose(1, 0, 2),
    }
    (tmp_path / "a.mp4").write_bytes(with_matrix(content("h264.mp4"), kind))
    video = Video(tmp_path, "a.mp4")
    images = [frame.image for frame in video.read(range(N))]
    assert [number_in(upright[kind](image)) for image in images if image is not None] == list(
        range(N)
    )
    assert video.size() == (
        (HEIGHT, WIDTH) if "turn" in kind and "half" not in kind else (WIDTH, HEIGHT)
    )
    assert video.record().remarks() == (
        ["mirrored, as its header says"] if "mirrored" in kind else []
    )


@pytest.mark.parametrize("name", ["two.mkv", "two.ts", "two.mp4"])
def test_one_of_two_streams_is_read_for_everything(tmp_path, name):
    write_two_streams(tmp_path / name, (WIDTH // 2, HEIGHT // 2), (WIDTH, HEIGHT))
    video = Video(tmp_path, name)
    of_stream = {WIDTH: list(range(N)), WIDTH // 2: list(range(200, 185, -1))}
    width = video.size()[0]
    assert numbers(video) == of_stream[width]
    number = 1 if width < WIDTH else 2
    assert video.record().remarks() == [f"2 video streams: number {number} is read"]


def with_metadata(packets):
    """JPEGs that say in their EXIF data that they are turned: PyAV has no name for these."""
    entry = struct.pack(">HHHIHHI", 1, 0x0112, 3, 1, 6, 0, 0)
    exif = b"Exif\0\0MM\0*\0\0\0\x08" + entry
    changed = []
    for packet in packets:
        content = bytes(packet)
        header = b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif
        other = av.Packet(content[:2] + header + content[2:])
        for name in ("pts", "dts", "stream", "time_base", "duration", "is_keyframe"):
            setattr(other, name, getattr(packet, name))
        changed.append(other)
    return changed


def test_metadata_without_a_name_costs_no_clip(tmp_path):
    clip = Clip("a.avi", "mjpeg", pix_fmt="yuvj420p", change=with_metadata)
    (tmp_path / "a.avi").write_bytes(clip.encode())
    video = Video(tmp_path, "a.avi")
    assert video.size() == (HEIGHT, WIDTH)
    images = [frame.image for frame in video.read(range(N))]
    assert [number_in(np.rot90(image)) for image in images if image is not None] == list(range(N))


@pytest.mark.parametrize("name", CODECS)
def test_codecs_have_one_name_whichever_decoder_reads_them(name):
    assert av.Codec(name, "r").canonical_name == name


@pytest.mark.parametrize(
    ("name", "codec"), [("h264.mp4", b"avc1"), ("h264.mkv", b"V_MPEG4/ISO/AVC")]
)
def test_a_codec_that_ffmpeg_does_not_know_is_named(tmp_path, name, codec):
    unknown = codec[:-1] + b"Q"
    (tmp_path / name).write_bytes(content(name).replace(codec, unknown))
    with pytest.raises(RawDataError, match=unknown.decode()):
        Video(tmp_path, name).header()


@pytest.mark.parametrize("packet", [1, 17, 30])
def test_a_chunk_of_an_avi_without_its_header_shifts_no_frame(tmp_path, packet):
    data = content("mpeg4.avi")
    start = find_packet(data, packet).start
    (tmp_path / "a.avi").write_bytes(data[: start - 8] + bytes(8) + data[start:])
    found = numbers(Video(tmp_path, "a.avi"))
    assert len(found) == N
    assert found[packet] == "frame_damaged"
    assert all(kind in (number, "frame_damaged") for number, kind in enumerate(found))


@pytest.mark.parametrize("name", ["h264.flv", "h264_fragments.mp4"])
def test_a_file_that_is_cut_off_is_noted(tmp_path, name):
    (tmp_path / name).write_bytes(content(name)[:-40])
    assert "the file is cut off" in str(Video(tmp_path, name).record().remarks())


def test_a_rate_that_is_a_clock_states_no_frames(tmp_path):
    of_a_browser = Clip(
        "a.webm", "libvpx", times=[37 * i + i % 7 for i in range(N)], muxer={"live": "1"}
    )
    (tmp_path / "a.webm").write_bytes(of_a_browser.encode())
    assert (Video(tmp_path, "a.webm").header().n_frames or N) < 2 * N


@pytest.mark.parametrize("first", ["interlaced", "progressive"])
def test_a_clip_that_changes_between_interlaced_and_progressive_has_all_its_frames(tmp_path, first):
    parts = [content("h264.ts"), content("interlaced.ts")]
    joined = b"".join(parts if first == "progressive" else reversed(parts))
    (tmp_path / "a.ts").write_bytes(joined)
    video = Video(tmp_path, "a.ts")
    assert numbers(video) == 2 * list(range(N))
    assert f"interlaced: {N} frames of two fields" in video.record().remarks()


def test_frames_of_another_size_are_scaled_to_the_first_ones(tmp_path):
    larger = Clip("large.ts", size=(2 * WIDTH, 2 * HEIGHT)).encode()
    (tmp_path / "a.ts").write_bytes(content("h264.ts") + larger)
    video = Video(tmp_path, "a.ts")
    assert numbers(video) == 2 * list(range(N))
    images = [frame.image for frame in video.read(range(2 * N))]
    assert {image.shape for image in images if image is not None} == {(HEIGHT, WIDTH, 3)}
    assert f"{N} frames of another size, scaled to the first frame's" in video.record().remarks()


def test_a_share_of_repeated_frames_is_noted(tmp_path):
    clip = Clip("a.mp4")
    clip.paint = lambda number: number // 4
    (tmp_path / "a.mp4").write_bytes(clip.encode())
    assert Video(tmp_path, "a.mp4").record().remarks() == [
        "75% of the frames repeat the one before"
    ]


@pytest.mark.parametrize(
    "clip",
    [
        Clip("a.mp4"),
        Clip("a.mov", "png", pix_fmt="rgb24"),
        Clip("a.mkv", "ffv1", pix_fmt="gray16le"),
        Clip("10_bit.mov", "prores_ks", pix_fmt="yuv422p10le"),
    ],
    ids=lambda clip: clip.pix_fmt,
)
def test_frames_that_differ_at_the_right_edge_alone_repeat_nothing(tmp_path, clip):
    changing = replace(clip, paint=lambda number: 128 * (number % 2))  # the last of eight columns
    (tmp_path / clip.name).write_bytes(changing.encode())
    video = Video(tmp_path, clip.name)
    assert numbers(video) == [128 * (number % 2) for number in range(N)]
    assert video.record().remarks() == []


@pytest.mark.parametrize(
    "name", ["h264.mp4", "uneven.mkv", "pause.mkv", "dv.avi", "hlg.mp4", "h264_b_frames.avi"]
)
def test_a_record_is_restored_from_json(tmp_path, name):
    (tmp_path / name).write_bytes(content(name))
    record = Video(tmp_path, name).record()
    restored = ClipRecord.from_dict(json.loads(json.dumps(record.as_dict())))
    assert restored.remarks() == record.remarks()
    assert restored.fps == pytest.approx(record.fps, nan_ok=True)
    assert restored.clock.tolist() == record.clock.tolist()
    assert restored.view == record.view
    assert ClipRecord.from_dict({**record.as_dict(), "aspect": [1, 0]}) is None
    assert ClipRecord.from_dict({**record.as_dict(), "version": 1}) is None
    assert ClipRecord.from_dict({"n": 40}) is None


@pytest.mark.parametrize("damage", [None, 17])
@pytest.mark.parametrize("name", ["h264.mp4", "h264_b_frames.mp4"])
def test_videos_that_are_decoded_in_turn_do_not_take_each_other_s_numbers(tmp_path, name, damage):
    """Another video's frames come, and it is closed, while one is decoded."""
    data = content(name)
    if damage is not None:
        data = zero(data, damage)
    (tmp_path / name).write_bytes(data)
    expected = numbers(Video(tmp_path, name))
    videos = [Video(tmp_path, name).read(range(N)) for _ in range(2)]
    shown = [[], []]
    for step in range(2 * N):
        if step == N:
            del videos[1]  # half-way
        turn = step % len(videos)
        frame = next(videos[turn], None)
        if frame is not None:
            problem = frame.kind
            shown[turn].append(problem if frame.image is None else number_in(frame.image))
    assert shown[0] == expected
    assert shown[1] == expected[: len(shown[1])]


def test_an_av1_clip_can_be_closed_while_its_decoder_works(tmp_path):
    """Its decoder lets go of packets, which takes the GIL."""
    policy = os.sched_getscheduler(0)
    (tmp_path / "av1.mkv").write_bytes(
        Clip("av1.mkv", "libsvtav1", options={"preset": "12"}).encode()
    )
    assert os.sched_getscheduler(0) == policy  # the encoder changes it
    for n_read in range(90):
        with open_video(tmp_path / "av1.mkv") as video:
            frames = video.frames()
            for _ in range(1 + n_read % 30):
                next(frames)
        del video, frames

"""Clips without damage that were cut, or that state one wrong time, lose no frame that can be
decoded. Whole ones are read in test_videos_of_all_kinds.py.
"""

import io

import av
import pytest
from av.bitstream import BitStreamFilterContext

from pipeline.errors import RawDataError
from pipeline.files.pixels.frames import Video
from tests.pipeline.files.made_clips import Clip, number_in, trimmed

FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}


def made(codec, end, options, change):
    """A clip of 23 frames in groups of 8, whose packets are changed."""
    clip = Clip(f"x.{end}", codec, 23, size=(64, 48), change=change)
    clip.options = {"g": "8", "b": "2M", **options}
    if end.startswith("fragments"):
        clip.muxer = FRAGMENTS
    return clip


def test_an_encrypted_clip_is_called_encrypted(tmp_path):
    clip = Clip("x.mp4", "libx264", 5, size=(64, 48))
    key = "0123456789abcdef0123456789abcdef"
    clip.muxer = {
        "encryption_scheme": "cenc-aes-ctr",
        "encryption_key": key,
        "encryption_kid": key,
    }
    (tmp_path / "x.mp4").write_bytes(clip.encode())
    with pytest.raises(RawDataError, match="it is encrypted"):
        Video(tmp_path, "x.mp4").record()


def require_whole(folder, name, data, expected):
    (folder / name).write_bytes(data)
    video = Video(folder, name)
    frames = list(video.read(range(video.count_frames())))
    shown = [-1 if frame.image is None else number_in(frame.image) for frame in frames]
    assert shown == expected
    assert not [remark for remark in video.record().remarks() if "damaged" in remark]


def from_second_group(packets):
    """The packets from the second key frame on, as a cutting tool leaves them."""
    keys = [index for index, packet in enumerate(packets) if packet.is_keyframe]
    return packets[keys[1] :]


def from_fifth(packets):
    """The packets from the middle of a group on, as a recorded broadcast begins."""
    return packets[4:]


def without_marks(packets):
    kept = from_second_group(packets)
    for packet in kept:
        packet.is_keyframe = False
    return kept


def without_any_mark(packets):
    """The packets' own marks go, too: their messages (SEI), which name a point of recovery."""
    kept = without_marks(packets)
    remover = BitStreamFilterContext("filter_units=remove_types=6", kept[0].stream)
    return [packet for each in [*kept, None] for packet in remover.filter(each)]


def without_first_mark(packets):
    packets[0].is_keyframe = False
    return packets


OPEN_GROUPS = {"x264-params": "bf=2:open-gop=1", "x265-params": "log-level=none:open-gop=1"}
# A group's first frames, in the order of their times, are drawn over the group's key frame alone.
LEADING = {"x265-params": "log-level=none:radl=3:b-adapt=0:bframes=4:scenecut=0:min-keyint=8"}
UNMARKED = {"x264-params": "bf=1:open-gop=1:ref=1"}
X265_CLOSED = {"x265-params": "log-level=none:open-gop=0"}
CUT = {  # encoder, container, options
    "no mark of the container, MP4": ("libx264", "mp4", {}, without_marks),
    "no mark of the container, fragment": ("libx264", "fragments.mp4", {}, without_marks),
    "no mark of the container, Matroska": ("libx264", "mkv", {}, without_marks),
    "no mark, fragment": ("libx264", "fragments.mp4", UNMARKED, without_any_mark),
    "no mark, Matroska": ("libx264", "mkv", UNMARKED, without_any_mark),
    "no mark, MPEG-TS": ("libx264", "ts", UNMARKED, without_any_mark),
    "leading, without their references, H.264": ("libx264", "mkv", OPEN_GROUPS, from_second_group),
    "leading, without their references, HEVC": ("libx265", "mkv", OPEN_GROUPS, from_second_group),
    # VVC has the same frames, but PyAV has no encoder for it.
    "leading, with their references": ("libx265", "mkv", LEADING, from_second_group),
    "middle of a group, H.264": ("libx264", "mkv", {}, from_fifth),
    "middle of a group, MPEG-2": ("mpeg2video", "ts", {"bf": "2"}, from_fifth),
    "middle of a group, HEVC": ("libx265", "mkv", OPEN_GROUPS, from_fifth),
    "middle of a group, HEVC, MPEG-TS": ("libx265", "ts", X265_CLOSED, from_fifth),
    "middle of a group, HEVC, fragment": ("libx265", "fragments.mp4", X265_CLOSED, from_fifth),
}
EDITED = {  # encoder, options
    "H.264": ("libx264", {"x264-params": "bf=2"}),
    "HEVC": ("libx265", X265_CLOSED),
    "MPEG-4": ("mpeg4", {"bf": "2"}),
}


def decoded(data):
    """The numbers in the frames that PyAV decodes, without an error or a mark of damage."""
    numbers = []
    with av.open(io.BytesIO(data)) as container:
        for frame in container.decode(video=0):
            assert not frame.is_corrupt
            numbers.append(number_in(frame.to_ndarray(format="rgb24")))
    return numbers


@pytest.mark.parametrize("name", CUT)
def test_a_sound_clip_that_is_cut_has_all_frames_that_can_be_decoded(tmp_path, name):
    codec, end, options, change = CUT[name]
    clip = made(codec, end, options, change)
    data = clip.encode()
    expected = decoded(data)
    assert len(expected) > 11
    require_whole(tmp_path, clip.name, data, expected)


@pytest.mark.parametrize("name", EDITED)
def test_an_edit_list_may_begin_without_a_marked_key_frame(tmp_path, name):
    codec, options = EDITED[name]
    clip = made(codec, "mp4", options, without_first_mark)
    data = trimmed(clip.encode(), 3)
    assert decoded(data) == list(range(3, clip.n_frames))
    require_whole(tmp_path, clip.name, data, decoded(data))


def with_wrong_time(order, n_frames):
    """A change of packets: one of them comes `n_frames` earlier or later than it should."""

    def change(packets):
        for packet in packets:
            packet.dts -= 10  # containers refuse frames that are shown before they are decoded
        packets[order].pts += n_frames
        return packets

    return change


MISTIMED = {  # encoder, container, options
    "HEVC, MP4": ("libx265", "mp4", X265_CLOSED),
    "HEVC, MPEG-TS": ("libx265", "ts", X265_CLOSED),
    "HEVC, open groups, Matroska": ("libx265", "mkv", OPEN_GROUPS),
    "H.264, MP4": ("libx264", "mp4", {"bf": "3"}),
    "H.264, open groups, Matroska": ("libx264", "mkv", OPEN_GROUPS),
    "MPEG-4, MP4": ("mpeg4", "mp4", {"bf": "2"}),
    "MPEG-2, Matroska": ("mpeg2video", "mkv", {"bf": "2"}),
    "AV1, Matroska": ("libsvtav1", "mkv", {"preset": "12", "b": "0"}),
    "VP9, WebM": ("libvpx-vp9", "webm", {"cpu-used": "8"}),
}


@pytest.mark.parametrize(("order", "n_frames"), [(6, -3), (12, 30), (16, -3), (16, 100_000)])
@pytest.mark.parametrize("name", MISTIMED)
def test_a_frame_with_a_wrong_time_loses_nothing(tmp_path, name, order, n_frames):
    codec, end, options = MISTIMED[name]
    clip = made(codec, end, options, with_wrong_time(order, n_frames))
    require_whole(tmp_path, clip.name, clip.encode(), list(range(clip.n_frames)))
    record = Video(tmp_path, clip.name).record()
    assert record.remarks() == []
    assert record.fps == pytest.approx(25)

"""Every packet of clips of many kinds is damaged: no frame that is given shows another frame, or
is drawn over damage, and what is lost does not depend on the number of cores.
`python tests/pipeline/files/test_damage_corpus.py` prints the figures of docs/clips/video-files.md.
"""

import io
import itertools
import os
import struct
import tempfile
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest

from pipeline.files.pixels.frames import Video
from pipeline.files.pixels.survey import Survey
from tests.pipeline.files import made_clips
from tests.pipeline.files.made_clips import Clip, Image

N = 36  # frames, a key frame every 12
SIZE = (320, 192)
NOISE = np.random.default_rng(0)
TEXTURE = NOISE.integers(60, 190, (2 * SIZE[1], 2 * SIZE[0]), np.uint8)
X265 = {"x265-params": "log-level=none"}
OPEN = {"bf": "2", "x264-params": "open-gop=1"}
SLICES = {"bf": "2", "x264-params": "slices=3"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}


def paint(number, width, height):
    """A number's bits, in front of a moving texture, which makes packets as large as real ones."""
    moved = np.roll(TEXTURE, (2 * number, 3 * number), (0, 1))[:height, :width]
    image = np.repeat(moved[..., None], 3, axis=2)
    middle = made_clips.paint(number, width // 2, height // 2)
    image[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = middle
    return image


def clip(name, codec="libx264", **options):
    # x264 makes a slice for each thread
    options = {"g": "12", "threads": "1", **options}
    return Clip(name, codec, n_frames=N, size=SIZE, options=options, image=paint)


def fragments():
    made = clip("h264_fragments.mp4", bf="2")
    made.muxer = FRAGMENTS
    return made


def pictures():
    made = clip("mjpeg.avi", "mjpeg")
    made.pix_fmt = "yuvj420p"
    return made


CLIPS = {
    "h264.mp4": lambda: clip("h264.mp4", bf="0"),
    "h264_slices.mp4": lambda: clip("h264_slices.mp4", **SLICES),
    "h264_b_frames.mkv": lambda: clip("h264_b_frames.mkv", bf="3"),
    "h264_open_gop.mkv": lambda: clip("h264_open_gop.mkv", **OPEN),
    "h264_fragments.mp4": fragments,
    "h264.flv": lambda: clip("h264.flv", bf="2"),
    "h264_b_frames.avi": lambda: clip("h264_b_frames.avi", bf="2"),
    "h264_open_gop.ts": lambda: clip("h264_open_gop.ts", **OPEN),
    "hevc.mp4": lambda: clip("hevc.mp4", "libx265", **X265),
    "mpeg2_b_frames.mkv": lambda: clip("mpeg2_b_frames.mkv", "mpeg2video", bf="2"),
    "mpeg2_b_frames.ts": lambda: clip("mpeg2_b_frames.ts", "mpeg2video", bf="2"),
    "mpeg4.avi": lambda: clip("mpeg4.avi", "mpeg4"),
    "mpeg4_b_frames.mp4": lambda: clip("mpeg4_b_frames.mp4", "mpeg4", bf="2"),
    "mjpeg.avi": pictures,
    "vp9.mkv": lambda: clip("vp9.mkv", "libvpx-vp9", **{"cpu-used": "8"}),
    "av1.mkv": lambda: clip("av1.mkv", "libsvtav1", preset="12"),
}
# 1, 2 and 4, as far as there are so many: FFmpeg's own number of threads
CORES = sorted({min(n, len(os.sched_getaffinity(0))) for n in (1, 2, 4)})
GROSS = ("half", "zeros", "noise")  # ways of damage
FINE = ("flips", "overwritten")
# where no decoder can know of all gross damage, as docs/clips/video-files.md says
SILENT = {"vp9.mkv", "av1.mkv", "h264_open_gop.ts"}


def holes(data, name):
    """Where the packets are; of a transport stream, every eighth one of its own packets."""
    if name.endswith(".ts"):
        starts = range(0, len(data), 188)
        video = [at for at in starts if struct.unpack_from(">H", data, at + 1)[0] & 0x1FFF == 256]
        return [slice(at, at + 188) for at in video[1::8]]
    with av.open(io.BytesIO(data)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    places = []
    end = 0
    for packet in packets:
        start = data.index(packet, end)
        end = start + len(packet)
        places.append(slice(start, end))
    return places


def damage(data, place, way):
    """The file with a packet that is zeroed by half, zeroed, overwritten with noise, that has two
    other bytes behind its first quarter, or whose last quarter is overwritten with 0x5a.
    """
    n_bytes = place.stop - place.start
    quarter = n_bytes // 4
    noise = np.random.default_rng(place.start)
    flipped = bytearray(data[place])
    for at in noise.integers(quarter, n_bytes, 2):
        flipped[at] ^= int(noise.integers(1, 256))
    content = {
        "half": data[place][: n_bytes // 2] + bytes(n_bytes - n_bytes // 2),
        "zeros": bytes(n_bytes),
        "noise": np.random.default_rng(place.start).bytes(n_bytes),
        "flips": bytes(flipped),
        "overwritten": data[place][: n_bytes - quarter] + quarter * b"\x5a",
    }[way]
    return data[: place.start] + content + data[place.stop :]


class Read(NamedTuple):
    images: Sequence[Image | None]
    remarks: list[str]


@contextmanager
def on_cores(n_cores):
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:n_cores])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def read(folder, name, data):
    (folder / name).write_bytes(data)
    images = []
    for frame in Video(folder, name).read(itertools.count(), Survey()):
        if frame.record is not None:
            return Read(images, frame.record.remarks())
        if frame.kind == "video_unreadable":
            break
        images.append(frame.image)
    return Read([], ["unreadable"])


def read_sound(folder, name):
    """A clip's bytes, and all of its images."""
    data = CLIPS[name]().encode()
    sound = read(folder, name, data)
    assert len(sound.images) == N
    assert sound.remarks == []
    return data, sound


def find_wrong(found, sound):
    """Numbers of the frames whose image is not that of the sound clip."""
    wrong = []
    for number, image in enumerate(found.images):
        if image is None:
            continue
        expected = sound.images[number] if number < N else None
        is_same = expected is not None and expected.shape == image.shape
        if not is_same or np.abs(image.astype(int) - expected).max() > 2:
            wrong.append(number)
    return wrong


FAST = ["h264.mp4", "h264_open_gop.mkv", "h264_fragments.mp4", "hevc.mp4", "mpeg2_b_frames.mkv"]


@pytest.mark.parametrize("name", [*FAST, "mjpeg.avi", "h264_b_frames.avi"])
def test_a_half_lost_packet_gives_no_frame_of_another(tmp_path, name):
    data, sound = read_sound(tmp_path, name)
    places = holes(data, name)
    assert len(places) == N
    for place in places[1:26:6]:
        found = read(tmp_path, name, damage(data, place, "half"))
        assert find_wrong(found, sound) == []
        if found.remarks != ["unreadable"]:
            assert len(found.images) == N
            assert "cannot be decoded" in found.remarks[0]


def read_on_any_cores(folder, name, data):
    """What is read on one core, and must be read on several."""
    with on_cores(1):
        one = read(folder, name, data)
    for n_cores in CORES[1:]:
        with on_cores(n_cores):
            more = read(folder, name, data)
        assert more.remarks == one.remarks
        assert len(more.images) == len(one.images)
        for image, expected in zip(more.images, one.images, strict=True):
            np.testing.assert_array_equal(image, expected)
    return one


SLICED = ["h264_slices.mp4", "h264_open_gop.mkv", "hevc.mp4", "mpeg2_b_frames.mkv", "mpeg4.avi"]


@pytest.mark.parametrize("name", [*SLICED, "vp9.mkv", "av1.mkv", "mjpeg.avi"])
def test_what_is_lost_is_equal_for_any_number_of_cores(tmp_path, name):
    small = CLIPS[name]()
    small.n_frames = 12
    small.size = (160, 96)
    small.options |= {"g": "6", "slices": "4"}
    data = small.encode()
    for place in holes(data, name)[1::4]:
        for way in ("half", *FINE):
            read_on_any_cores(tmp_path, name, damage(data, place, way))


@pytest.mark.parametrize("way", FINE)
def test_damage_inside_a_slice_is_noticed(tmp_path, way):
    name = "h264_slices.mp4"
    data, _ = read_sound(tmp_path, name)
    places = holes(data, name)[::4]
    found = [read(tmp_path, name, damage(data, place, way)) for place in places]
    n_noticed = sum("cannot be decoded" in str(each.remarks) for each in found)
    assert n_noticed > len(places) / 2


@pytest.mark.slow
@pytest.mark.parametrize("name", CLIPS)
def test_no_damage_of_any_packet_gives_a_frame_of_another(tmp_path, name):
    _, _, n_wrong = count_damage(tmp_path, name, GROSS)
    if name not in SILENT:
        assert n_wrong == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", CLIPS)
def test_all_that_is_lost_is_equal_for_any_number_of_cores(tmp_path, name):
    count_damage(tmp_path, name, FINE)


def count_damage(folder, name, ways):
    """Numbers of damaged files, of lost rows and of wrong rows in all of them."""
    data, sound = read_sound(folder, name)
    counts = np.zeros(3, int)
    for place in holes(data, name):
        for way in ways:
            found = read_on_any_cores(folder, name, damage(data, place, way))
            n_lost = sum(image is None for image in found.images)
            counts += [1, n_lost, len(find_wrong(found, sound))]
    n_files, n_lost, n_wrong = counts.tolist()
    return n_files, n_lost, n_wrong


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        for each in CLIPS:
            for ways in (GROSS, FINE[:1], FINE[1:]):
                counts = count_damage(Path(home), each, ways)
                print(each, ways[-1], *counts, sep=" | ", flush=True)  # noqa: T201

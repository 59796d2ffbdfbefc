import pickle
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.files.pixels.decode import PictureError, decode, picture_size
from pipeline.files.pixels.frames import Video, below
from pipeline.files.pixels.pictures import Pictures
from pipeline.files.pixels.sources import parse
from tests.pipeline.datasets.by_hand import write_video
from tests.pipeline.files.made_clips import Clip
from tests.raising import pipeline_refuses, raw_refuses

NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)


def jpeg(picture=NOISE, *options):
    """RGB -> JPEG bytes."""
    return bytes(cv2.imencode(".jpg", picture[..., ::-1], list(options))[1])


def png(picture=NOISE):
    return bytes(cv2.imencode(".png", picture[..., ::-1])[1])


def encode(change, options):
    """A clip of 60 frames, a group in 20, whose packets `change` has changed."""
    clip = Clip("x.avi", "mpeg4", 60, size=(64, 48), options={"g": "20", **options}, change=change)
    return clip.encode()


def pause(packets):
    """A second and a half without packets, which an AVI fills with empty ones."""
    for packet in packets[30:]:
        packet.dts += 37
        packet.pts += 37
    return packets


def join_two(packets):
    """Two pictures in packet 30, and one that is not coded in the next: as DivX did."""
    for i, content in (
        (30, bytes(packets[30]) + bytes(packets[31])),
        (31, b"\0\0\1\xb6\x50\x0f\x7f"),
    ):
        packet, packets[i] = packets[i], type(packets[i])(content)
        for key in ("dts", "pts", "time_base", "stream"):
            setattr(packets[i], key, getattr(packet, key))
    return packets


@pytest.mark.parametrize(
    "options",
    [
        (),
        (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        (cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    ],
)
def test_a_whole_jpeg_is_accepted_and_every_shorter_one_refused(options):
    data = jpeg(NOISE, *options)
    assert decode(data).shape == (48, 64, 3)
    for end in {1, 2, 3, 20, 200, len(data) // 2, len(data) - 3, len(data) - 2, len(data) - 1}:
        with pytest.raises(PictureError):
            decode(data[:end])


def test_a_png_cut_short_or_with_a_flipped_bit_is_refused():
    data = bytearray(png())
    for end in (8, 20, 30, 100, -13, -1):
        with pytest.raises(PictureError, match="cut short"):
            decode(bytes(data[:end]))
    data[len(data) // 2] ^= 1
    with pytest.raises(PictureError, match="wrong checksum"):
        decode(bytes(data))


def test_a_thumbnail_inside_the_header_does_not_end_the_picture():
    thumbnail = jpeg(NOISE[:8, :8])
    exif = b"\xff\xe1" + struct.pack(">H", len(thumbnail) + 2) + thumbnail
    data = jpeg()
    nested = data[:2] + exif + data[2:]
    assert picture_size(nested) == (64, 48)
    assert decode(nested).shape == (48, 64, 3)
    with pytest.raises(PictureError, match="cut short"):
        decode(nested[: 2 + len(exif) + 400])


def test_fill_bytes_before_a_marker_do_no_harm():
    data = jpeg()
    assert decode(data[:2] + b"\xff\xff" + data[2:]).shape == (48, 64, 3)


@pytest.mark.parametrize("encode", [jpeg, png])
def test_a_header_that_claims_a_huge_picture_is_refused_before_decoding(encode):
    data = bytearray(encode())
    huge = struct.pack(">HH", 60000, 60000) if encode is jpeg else struct.pack(">II", 60000, 60000)
    place = (
        data.index(struct.pack(">HH", 48, 64))
        if encode is jpeg
        else data.index(struct.pack(">II", 64, 48))
    )
    data[place : place + len(huge)] = huge
    for read in (decode, picture_size):
        with pytest.raises(PictureError, match="60000 x 60000 px"):
            read(bytes(data))


@pytest.mark.parametrize(
    ("data", "kind"), [(b"", "picture_empty"), (b"GIF89a.....", "picture_format")]
)
def test_what_is_no_picture_is_named(data, kind):
    with pytest.raises(PictureError) as caught:
        decode(data)
    assert caught.value.kind == kind
    assert pickle.loads(pickle.dumps(caught.value)).kind == kind


def test_names_with_other_numbers_of_digits_are_other_files(tmp_path):
    for name in (
        "image_00001.jpg",
        "image_1.jpg",
        "image_000002.jpg",
        "image_00003.jpg.part",
        "image_123456.jpg",
    ):
        (tmp_path / name).touch()
    assert Pictures(tmp_path, "image_{:05d}.jpg").indices().tolist() == [1, 123456]


def test_a_video_gives_the_frames_asked_for_in_order(tmp_path):
    write_video(tmp_path / "x.avi", 20, 12.5, (64, 48))
    (tmp_path / "x.avi").rename(tmp_path / "a%02d.avi")  # which is no sequence of pictures
    video = Video(tmp_path, "a%02d.avi")
    assert (video.header(), video.size()) == ((20, 12.5, 64, 48), (64, 48))
    video.require_decodable()
    frames = list(video.read([0, 3, 4, 19]))
    assert [frame.index for frame in frames] == [0, 3, 4, 19]
    np.testing.assert_allclose([frame.image.mean() for frame in frames], [0, 15, 20, 95], atol=2)
    assert frames[0].image.shape == (48, 64, 3)


def test_frames_after_the_end_are_problems(tmp_path):
    write_video(tmp_path / "x.avi", 5)
    frames = list(Video(tmp_path, "x.avi").read([3, 4, 5, 100]))
    assert [frame.kind for frame in frames] == ["", "", "video_ended", "video_ended"]
    assert frames[-1].problem.endswith("x.avi ends after 5 frames")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"#EXTM3U\nhttp://example.org/x.ts\n", "is no video of a known kind"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "is no video of a known kind"),
        (b"RIFF\x10\0\0\0AVI " + bytes(100), "cannot be opened"),
        (None, "cannot be read: No such file"),
    ],
)
def test_what_is_no_video_is_a_problem_of_every_frame(tmp_path, content, words):
    if content is not None:
        (tmp_path / "x.mp4").write_bytes(content)
    video = Video(tmp_path, "x.mp4")
    frames = list(video.read([0, 7]))
    assert [frame.kind for frame in frames] == ["video_unreadable"] * 2
    assert words in frames[0].problem
    for ask in (video.header, video.size, video.require_decodable):
        with raw_refuses("video that can be decoded") as caught:
            ask()
        assert caught.value.reason == "video_unreadable"


@pytest.mark.parametrize(
    "spec",
    [
        "pictures:frames/0001/{:06d}.jpg+1",
        "video:train/abseiling/a+b: c.mp4",
        "record:train/a@1+2.tfrecord@30+17",
    ],
)
def test_a_source_survives_its_spec_and_pickling(spec):
    source = parse(Path("raw"), spec)
    assert source.spec == spec
    assert parse(Path("raw"), source.spec) == source == pickle.loads(pickle.dumps(source))
    assert len({source, parse(Path("raw"), spec)}) == 1


RECORDS = ["", "x.tfrecord", "x@5+", "x@+5", "@1+2", "x@-1+2", "x@1+2\n", f"x@{'9' * 19}+1"]
PATTERNS = ["a/1.jpg", "{:06d}/{:06d}.jpg", "{:06d}/a.jpg", "a/{}.jpg"]


@pytest.mark.parametrize(("change", "options"), [(pause, {}), (join_two, {"bf": "2"})])
def test_frames_of_unusual_files_are_counted(change, options, tmp_path):
    (tmp_path / "x.avi").write_bytes(encode(change, options))
    video = Video(tmp_path, "x.avi")
    assert video.count_frames() == 60
    assert [frame.index for frame in video.read(range(60))] == list(range(60))
    assert next(iter(video.read([60]))).kind == "video_ended"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        *((spec, "expected one of") for spec in ("", "x.mp4", "http://example.org/x.mp4")),
        *((f"pictures:{{:06d}}.jpg{number}", "does not end in '\\+'") for number in ("", "+-1")),
        *((f"pictures:{pattern}+0", "needs one number") for pattern in PATTERNS),
        *(
            (f"record:{rest}", "does not end in '@', the first byte, '\\+' and the length")
            for rest in RECORDS
        ),
    ],
)
def test_specs_of_no_known_form_are_refused(spec, words):
    with pipeline_refuses(words):
        parse(Path("raw"), spec)


@pytest.mark.parametrize(
    "path", ["/etc/x.mp4", "../x.mp4", "a/../../x.mp4", "a\\..\\x.mp4", "a\0b"]
)
def test_paths_that_lead_out_of_the_raw_folder_are_refused(path):
    with pipeline_refuses("must be below raw"):
        below(Path("raw"), path)
    for spec in (f"video:{path}", f"pictures:{path}/{{:06d}}.jpg+0", f"record:{path}@0+10"):
        with pipeline_refuses("must be below raw"):
            parse(Path("raw"), spec)

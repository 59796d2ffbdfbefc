"""Pictures or a video: what is there is found by names, and how it is numbered too."""

import contextlib
from pathlib import Path

import numpy as np
import pytest

from pipeline.accounting import VideoAccount
from pipeline.clips.labels.checks import find_cause
from pipeline.datasets.shared.images import (
    frames_there,
    inputs,
    pictures_or_video,
    require_frames,
)
from pipeline.datasets.shared.in_pixels import DETECTED_OUTSIDE, require_pixels
from pipeline.errors import RawDataError, reading_refused
from pipeline.files.pixels.frames import Video
from pipeline.files.pixels.pictures import Pictures
from pipeline.files.pixels.sources import picture_pattern
from tests.pipeline.datasets.by_hand import standing, touch, write_video
from tests.raising import raw_refuses

FOLDER = Path("S1/video_0")


def make(raw, *names, folder=FOLDER):
    touch(raw / folder, *names)
    return raw


@pytest.mark.parametrize(
    ("names", "pattern", "indices"),
    [
        (["frame_000001.jpg", "frame_000003.jpg"], "frame_{:06d}.jpg", [1, 3]),
        (["1.png", "2.png", "10.png"], "{:01d}.png", [1, 2, 10]),
        (["099.jpg", "100.jpg", "1000.jpg"], "{:03d}.jpg", [99, 100, 1000]),
        (["cam0_take2_0007.JPG", "cam0_take2_0008.JPG"], "cam0_take2_{:04d}.JPG", [7, 8]),
        (["S1 Seq1.0001.jpeg"], "S1 Seq1.{:04d}.jpeg", [1]),
        (["999999.jpg", "1000000.jpg", "000001.jpg"], "{:06d}.jpg", [1, 999999, 1000000]),
    ],
)
def test_the_numbering_is_told_by_the_names(tmp_path, names, pattern, indices):
    found = picture_pattern(make(tmp_path, *names), FOLDER)
    assert found == Pictures(tmp_path, f"{FOLDER.as_posix()}/{pattern}")
    assert found.indices().tolist() == indices
    assert all(found.path(index).is_file() for index in indices)


def test_of_two_manners_of_naming_the_one_with_more_pictures_counts(tmp_path):
    make(tmp_path, "b_001.jpg", "b_002.jpg", "a_001.jpg", "readme.txt", "cover.jpg", ".b_000.jpg")
    assert picture_pattern(tmp_path, FOLDER) == Pictures(tmp_path, "S1/video_0/b_{:03d}.jpg")
    make(tmp_path, "a_002.jpg")
    assert picture_pattern(tmp_path, FOLDER) == Pictures(tmp_path, "S1/video_0/a_{:03d}.jpg")
    assert (
        picture_pattern(tmp_path, Path("none"))
        is picture_pattern(tmp_path, FOLDER / "readme.txt")
        is None
    )
    make(tmp_path, "001.jpg", folder=Path("take {:06d}"))
    with raw_refuses("take"):
        picture_pattern(tmp_path, Path("take {:06d}"))


@pytest.mark.parametrize(
    "name",
    # no UTF-8
    [
        "a{:06d}001.jpg",
        "back\\slash_001.jpg",
        "x.jpg",
        "001.gif",
        "1" * 30 + ".jpg",
        "f\udcff_001.jpg",
    ],
)
def test_names_that_no_pattern_can_hold_are_no_pictures(tmp_path, name):
    assert picture_pattern(make(tmp_path, name), FOLDER) is None
    make(tmp_path, "frame_1.jpg", "frame_2.jpg")
    assert picture_pattern(tmp_path, FOLDER) == Pictures(tmp_path, "S1/video_0/frame_{:01d}.jpg")


def test_what_decides_about_the_pixels_is_what_is_looked_at_for_changes(tmp_path):
    account = VideoAccount("x")
    places = [Path("none"), FOLDER, Path("other")], [Path("V/a.avi"), Path("V/a.mp4")]
    assert inputs(tmp_path, *places) == ((), ())
    with raw_refuses(r"or a video: none or S1/video_0 or .* V/a\.mp4, found neither") as caught:
        pictures_or_video(tmp_path, *places, 1, account)
    assert caught.value.reason == "no_picture"
    make(tmp_path, "a.avi", "a.mp4", folder=Path("V"))
    make(tmp_path, "Thumbs.db", "._1.jpg")  # no pictures yet, and they may come
    assert inputs(tmp_path, *places) == ((Path("V/a.avi"), Path("V/a.mp4")), (FOLDER,))
    assert pictures_or_video(tmp_path, *places, 1, account) == Video(tmp_path, "V/a.avi")
    make(tmp_path, "1.jpg")
    make(tmp_path, "1.jpg", folder=Path("other"))
    assert inputs(tmp_path, *places) == ((), (FOLDER, Path("other")))
    assert pictures_or_video(tmp_path, *places, 1, account) == Pictures(
        tmp_path, "S1/video_0/{:01d}.jpg", 1
    )
    not_used = [
        "V/a.mp4 is not used: V/a.avi is",
        *(f"{p} is not used: S1/video_0 is" for p in ("other", "V/a.avi")),
    ]
    assert account.notes == [*not_used, "V/a.mp4 is not used: S1/video_0 is"]


def test_a_missing_picture_and_those_beyond_the_labels_are_noted(tmp_path):
    make(tmp_path, *(f"f_{i:03d}.jpg" for i in (1, 2, 4, 5, 6)))
    account = VideoAccount("x")
    source = pictures_or_video(tmp_path, [FOLDER], [], 4, account)
    assert frames_there(source, 4, account).tolist() == [True, True, False, True]
    assert account.notes == [
        "4 frames are labelled, 5 are there: the last 2 not used",
        "1 of 4 labelled frames have no picture, the first is f_003.jpg",
    ]


@pytest.mark.parametrize(
    ("there", "labels", "other"),
    [
        (3000, 6000, True), (3001, 6000, True), (3002, 6000, False), (3911, 6145, False),
        (6000, 6000, False),
        (5998, 6000, False), (12000, 6000, True), (240, 6000, True), (14, 28, True), (5, 10, False), (99, 298, True),
        (1, 6000, False),
    ],
)  # fmt: skip
def test_pictures_at_another_rate_are_refused_and_a_video_that_ends_early_is_not(
    there, labels, other, tmp_path
):
    make(tmp_path, f"{0:06d}.jpg", f"{there - 1:06d}.jpg")  # a gap is no matter: they reach so far
    source = Pictures(tmp_path, "S1/video_0/{:06d}.jpg")
    with raw_refuses("another rate") if other else contextlib.nullcontext():
        frames_there(source, labels, VideoAccount("x"))


def test_half_the_pictures_are_refused_but_not_every_second_one_under_its_own_number(tmp_path):
    make(tmp_path, *(f"{i:06d}.jpg" for i in range(0, 600, 2)))
    source = Pictures(tmp_path, "S1/video_0/{:06d}.jpg")
    account = VideoAccount("x")
    assert frames_there(source, 600, account).sum() == 300
    require_frames(Path("labels"), source, list(range(0, 600, 2)), account)
    assert account.notes[-1] == "labels of one frame in 2, from 0 to 598"
    half = Path("half")
    make(tmp_path, *(f"{i:06d}.jpg" for i in range(300)), folder=half)
    with raw_refuses("one for each of 600 labels, found 300") as caught:
        frames_there(Pictures(tmp_path, "half/{:06d}.jpg"), 600, VideoAccount("x"))
    assert caught.value.reason == "frame_count_mismatch"


def cut_at_start(file, n_frames):
    """What `ffmpeg -ss ... -c copy` does: an edit list hides the first frames, which the header
    counts on.
    """
    data = bytearray(file.read_bytes())
    scale = int.from_bytes(data[(at := data.find(b"mdhd")) + 16 : at + 20])
    at = data.find(b"elst")
    duration = int.from_bytes(data[at + 12 : at + 16])  # ms
    data[at + 12 : at + 16] = (duration - 1000 * n_frames // 25).to_bytes(4)
    data[at + 16 : at + 20] = (n_frames * scale // 25).to_bytes(4)
    file.write_bytes(data)


@pytest.fixture
def video(tmp_path):
    """60 frames of 160 x 120."""
    write_video(tmp_path / "clip.mp4", 60)
    return Video(tmp_path, "clip.mp4")


@pytest.mark.parametrize(
    ("frames", "every", "words"),
    [
        (
            range(60),
            True,
            ["40 frames that decode", "header states 60", "its edit list hides the others"],
        ),
        (range(41), False, ["header states 60"]),
        (range(1, 41), True, ["counted from 1", "0 to 39"]),
        ([1, 5, 40], False, ["counted from 1"]),
        (range(70), True, ["labels of the 40 frames", "up to frame 69"]),
        (range(37), True, ["up to frame 36"]),
    ],
)
def test_labels_of_other_frames_than_those_that_decode_are_refused(video, frames, every, words):
    cut_at_start(video.place, 20)
    with pytest.raises(RawDataError) as caught:
        require_frames(Path("labels"), video, list(frames), VideoAccount("x"), every=every)
    assert caught.value.reason == "frame_count_mismatch"
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("frames", "every", "note"),
    [
        (range(60), True, ""),
        ([10, 12, 13, 14, 15, 16, 19], False, ""),
        ([], True, ""),
        (range(1, 60), False, "counted from 1"),
        (range(30), False, "labels of the frames 0 to 29 alone, of 60"),
        ([*range(10), *range(50, 60)], False, "labels of 20 of the frames 0 to 59"),
    ],
)
def test_labels_of_these_frames_pass(video, frames, every, note):
    account = VideoAccount("x")
    require_frames(Path("labels"), video, list(frames), account, every=every)
    assert bool(account.notes) == bool(note)
    assert note in "".join(account.notes)


def test_a_release_s_labels_of_hidden_frames_are_refused_and_a_shorter_video_is_not(video):
    account = VideoAccount("x")
    assert frames_there(video, 62, account).sum() == 60  # as long as its header states
    cut_at_start(video.place, 1)
    with raw_refuses(r"header states 60 frames and 59 decode \(its edit list hides"):
        frames_there(video, 60, account)
    # those that end early are noted
    require_frames(Path("labels"), video, list(range(58)), account)
    frames_there(video, 58, account)
    assert [note for note in account.notes if "edit list" in note] == [
        "the edit list hides 1 of 60 frames: labels count those that are shown"
    ] * 2


def people_in(width, height):
    """(40, 25, 3) persons of a sixth of the picture's height, all over it."""
    x, y = np.linspace(0.1, 0.9, 40) * width, (0.5 + 0.4 * np.sin(np.arange(40))) * height
    return np.stack([standing("body_25", x[i], y[i], scale=height / 240) for i in range(40)])


HALF_OUTSIDE = people_in(640, 480) + np.array([300, 0, 0])


@pytest.mark.parametrize(
    ("keypoints", "words"),
    [
        (
            people_in(640, 480) / [640, 480, 1],
            r"up to \(0.\d+, 0.\d+\): in shares of the image. Multiply x \(and w\) by 640, y",
        ),
        (people_in(640, 480)[:1] / [640, 480, 1], r"up to \(0.1394, 0.5833\). See it"),
        (people_in(1920, 1440), "% of them far outside. See it"),
        (people_in(640, 480) - [700, 0, 0], "100% of them far outside. See it"),
        (people_in(640, 480) * [0.02, 0.02, 1] + [300, 200, 0], "persons of 1.6 px. See it"),
        (HALF_OUTSIDE, "far outside. See it"),
    ],
)
def test_keypoints_that_are_not_in_the_picture_are_refused_with_what_is_seen(keypoints, words):
    with raw_refuses(words) as caught:
        require_pixels(
            Path("labels"), keypoints, (640, 480), skeleton="body_25", find_cause=find_cause
        )
    assert caught.value.reason == "keypoints_outside"
    assert "640 x 480" in str(caught.value)


@pytest.mark.parametrize(
    "keypoints",
    [
        people_in(640, 480),
        people_in(640, 480) * [1, -1, 1] + [0, 480, 0],  # upside down
        # cut off by the border
        np.stack([standing("body_25", x, 450, scale=12) for x in np.linspace(0, 640, 30)]),
        people_in(640, 480) * np.r_[np.ones(2), np.zeros(23)][:, None],  # two joints
        people_in(640, 480) * np.r_[np.ones(9), np.zeros(16)][:, None],  # seated, no legs
        np.zeros((30, 25, 3)),
        np.zeros((0, 25, 3)),
        people_in(1280, 960)[:1],  # too few to decide
    ],
)
def test_keypoints_in_the_picture_pass(keypoints):
    require_pixels(Path("labels"), keypoints, (640, 480))


def test_a_factor_of_2_in_the_picture_s_middle_is_refused_for_detectors():
    keypoints = np.stack([standing("body_25", x, 240, scale=4) for x in np.linspace(250, 390, 30)])
    require_pixels(Path("labels"), keypoints, (640, 480), DETECTED_OUTSIDE)
    with raw_refuses("of them far outside"):
        require_pixels(Path("labels"), keypoints * [2, 2, 1], (640, 480), DETECTED_OUTSIDE)


def test_refused_labels_can_be_read_on_to_check_them_further(video):
    with reading_refused() as refusals:
        require_frames(Path("labels"), video, list(range(70)), VideoAccount("x"))
        require_pixels(Path("labels"), people_in(1280, 960), (160, 120))
    assert [error.reason for error in refusals] == ["frame_count_mismatch", "keypoints_outside"]
    with pytest.raises(RawDataError):
        require_frames(Path("labels"), video, list(range(70)), VideoAccount("x"))

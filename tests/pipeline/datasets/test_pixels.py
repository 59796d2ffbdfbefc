"""Pictures or a video: what is there is found by names, and how it is numbered too."""

import contextlib
from pathlib import Path

import pytest

from pipeline.accounting import VideoAccount
from pipeline.datasets.pixels import frames_there, inputs, pictures_or_video
from pipeline.errors import RawDataError
from pipeline.pixels.frames import Pictures, Video
from pipeline.pixels.numbered import picture_pattern

FOLDER = Path("S1/video_0")


def make(raw: Path, *names: str, folder: Path = FOLDER) -> Path:
    (raw / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        (raw / folder / name).touch()
    return raw


@pytest.mark.parametrize(
    ("names", "pattern", "first", "indices"),
    [
        (["frame_000000.jpg", "frame_000001.jpg"], "frame_{:06d}.jpg", 0, [0, 1]),
        (["frame_000001.jpg", "frame_000003.jpg"], "frame_{:06d}.jpg", 1, [0, 2]),
        (["1.png", "2.png", "10.png"], "{:01d}.png", 1, [0, 1, 9]),
        (["9.jpg", "10.jpg", "100.jpg"], "{:01d}.jpg", 9, [0, 1, 91]),
        (["99.jpg", "100.jpg"], "{:02d}.jpg", 99, [0, 1]),
        (["099.jpg", "100.jpg", "1000.jpg"], "{:03d}.jpg", 99, [0, 1, 901]),
        (["cam0_take2_0007.JPG", "cam0_take2_0008.JPG"], "cam0_take2_{:04d}.JPG", 7, [0, 1]),
        (["S1 Seq1.0001.jpeg"], "S1 Seq1.{:04d}.jpeg", 1, [0]),
        (["999999.jpg", "1000000.jpg", "000001.jpg"], "{:06d}.jpg", 1, [0, 999998, 999999]),
    ],
)
def test_the_numbering_is_told_by_the_names(
    tmp_path: Path, names: list[str], pattern: str, first: int, indices: list[int]
) -> None:
    found = picture_pattern(make(tmp_path, *names), FOLDER)
    assert found == Pictures(tmp_path, f"{FOLDER.as_posix()}/{pattern}", first)
    assert found.indices().tolist() == indices
    assert all(found.path(index).is_file() for index in indices)


def test_of_two_manners_of_naming_the_one_with_more_pictures_counts(tmp_path: Path) -> None:
    make(tmp_path, "b_001.jpg", "b_002.jpg", "a_001.jpg", "readme.txt", "cover.jpg", ".b_000.jpg")
    assert picture_pattern(tmp_path, FOLDER) == Pictures(tmp_path, "S1/video_0/b_{:03d}.jpg", 1)
    make(tmp_path, "a_002.jpg")
    assert picture_pattern(tmp_path, FOLDER) == Pictures(tmp_path, "S1/video_0/a_{:03d}.jpg", 1)


@pytest.mark.parametrize("name", ["a{:06d}001.jpg", "back\\slash_001.jpg", "x.jpg", "001.gif", "1" * 30 + ".jpg"])
def test_names_that_no_pattern_can_hold_are_no_pictures(tmp_path: Path, name: str) -> None:
    assert picture_pattern(make(tmp_path, name), FOLDER) is None
    make(tmp_path, "frame_1.jpg", "frame_2.jpg")
    assert picture_pattern(tmp_path, FOLDER) == Pictures(tmp_path, "S1/video_0/frame_{:01d}.jpg", 1)


def test_a_name_of_other_bytes_than_utf_8_is_no_picture(tmp_path: Path) -> None:
    make(tmp_path)
    (tmp_path / FOLDER / b"f\xff_001.jpg".decode(errors="surrogateescape")).touch()
    assert picture_pattern(tmp_path, FOLDER) is None


def test_a_folder_that_no_pattern_can_hold_is_refused_by_name(tmp_path: Path) -> None:
    folder = Path("take {:06d}")
    make(tmp_path, "001.jpg", folder=folder)
    with pytest.raises(RawDataError, match="take"):
        picture_pattern(tmp_path, folder)


@pytest.mark.parametrize("missing", [Path("none"), Path("file")])
def test_without_a_folder_there_are_no_pictures(tmp_path: Path, missing: Path) -> None:
    (tmp_path / "file").touch()
    assert picture_pattern(tmp_path, missing) is None


def test_pictures_win_over_a_video_and_a_note_says_so(tmp_path: Path) -> None:
    make(tmp_path, "1.jpg")
    make(tmp_path, "a.avi", folder=Path("V"))
    account = VideoAccount("x")
    found = pictures_or_video(tmp_path, [Path("none"), FOLDER], [Path("V/a.avi")], account)
    assert found == Pictures(tmp_path, "S1/video_0/{:01d}.jpg", 1)
    assert account.notes == ["V/a.avi is not used: S1/video_0 is"]
    make(tmp_path, "1.jpg", folder=Path("other"))
    assert pictures_or_video(tmp_path, [FOLDER, Path("other")], [], VideoAccount("x")) == found


def test_a_video_is_used_where_the_picture_folder_is_empty(tmp_path: Path) -> None:
    make(tmp_path)
    make(tmp_path, "a.mp4", "a.avi", folder=Path("V"))
    account = VideoAccount("x")
    found = pictures_or_video(tmp_path, [FOLDER], [Path("V/a.avi"), Path("V/a.mp4")], account)
    assert found == Video(tmp_path, "V/a.avi")
    assert account.notes == ["V/a.mp4 is not used: V/a.avi is"]


def test_what_else_lies_in_a_picture_folder_does_not_hide_a_video_from_its_inputs(tmp_path: Path) -> None:
    make(tmp_path, "Thumbs.db", ".DS_Store", "._1.jpg", "readme.txt")
    make(tmp_path, "a.avi", folder=Path("V"))
    places = [FOLDER, Path("none")], [Path("V/a.avi"), Path("V/a.mp4")]
    assert inputs(tmp_path, *places) == ((Path("V/a.avi"),), (FOLDER,))
    assert pictures_or_video(tmp_path, *places, VideoAccount("x")) == Video(tmp_path, "V/a.avi")
    make(tmp_path, "1.jpg")
    assert inputs(tmp_path, *places) == ((), (FOLDER,))


def test_neither_is_an_error_that_names_the_places(tmp_path: Path) -> None:
    with pytest.raises(RawDataError, match=r"or a video: S1/video_0 or V/a\.avi, found neither") as caught:
        pictures_or_video(tmp_path, [FOLDER], [Path("V/a.avi")], VideoAccount("x"))
    assert caught.value.reason == "no_picture"


def test_what_decides_about_the_pixels_is_what_is_looked_at_for_changes(tmp_path: Path) -> None:
    videos = [Path("V/a.avi")]
    assert inputs(tmp_path, [FOLDER], videos) == ((), ())
    make(tmp_path, "a.avi", folder=Path("V"))
    assert inputs(tmp_path, [FOLDER], videos) == ((Path("V/a.avi"),), ())
    make(tmp_path)  # empty: pictures may come
    assert inputs(tmp_path, [FOLDER], videos) == ((Path("V/a.avi"),), (FOLDER,))
    make(tmp_path, "1.jpg")
    assert inputs(tmp_path, [FOLDER], videos) == ((), (FOLDER,))


def test_a_missing_picture_and_those_beyond_the_labels_are_noted(tmp_path: Path) -> None:
    make(tmp_path, *(f"f_{i:03d}.jpg" for i in (4, 5, 7, 8, 9)))
    account = VideoAccount("x")
    source = picture_pattern(tmp_path, FOLDER)
    assert source is not None
    assert frames_there(source, 4, account).tolist() == [True, True, False, True]
    assert account.notes == [
        "4 frames are labelled, 5 are there: the last 2 not used",
        "1 of 4 labelled frames have no picture, the first is f_006.jpg",
    ]


@pytest.mark.parametrize(
    ("there", "labels", "other"),
    [
        (3000, 6000, True), (3001, 6000, True), (3002, 6000, False), (3911, 6145, False), (6000, 6000, False),
        (5998, 6000, False), (12000, 6000, True), (240, 6000, True), (14, 28, False), (1, 6000, False),
    ],
)  # fmt: skip
def test_pictures_at_another_rate_are_refused_and_a_video_that_ends_early_is_not(
    there: int, labels: int, other: bool, tmp_path: Path
) -> None:
    make(tmp_path, f"{0:06d}.jpg", f"{there - 1:06d}.jpg")  # a gap is no matter: they reach so far
    source = Pictures(tmp_path, "S1/video_0/{:06d}.jpg")
    with pytest.raises(RawDataError, match="another rate") if other else contextlib.nullcontext():
        frames_there(source, labels, VideoAccount("x"))


def test_half_the_pictures_are_refused_but_not_every_second_one_under_its_own_number(tmp_path: Path) -> None:
    make(tmp_path, *(f"{i:06d}.jpg" for i in range(0, 600, 2)))
    source = Pictures(tmp_path, "S1/video_0/{:06d}.jpg")
    assert frames_there(source, 600, VideoAccount("x")).sum() == 300
    half = Path("half")
    make(tmp_path, *(f"{i:06d}.jpg" for i in range(300)), folder=half)
    with pytest.raises(RawDataError, match="one for each of 600 labels, found 300") as caught:
        frames_there(Pictures(tmp_path, "half/{:06d}.jpg"), 600, VideoAccount("x"))
    assert caught.value.reason == "frame_count_mismatch"

"""The reader of one video: who is in it by keypoints or boxes, and mistakes by file and line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.accounting import VideoAccount
from pipeline.datasets.new_video import NewVideo, raw_folder
from pipeline.errors import ConfigError, RawDataError
from pipeline.files.formats.labels.detections import read_results
from tests.pipeline.datasets.by_hand import standing, write_video

N = 12  # frames of the video
HEADER = "track,frame,x,y,w,h\n"


@pytest.fixture
def video(tmp_path) -> Path:
    """N frames, 25 a second."""
    return write_video(tmp_path / "clip.mp4", N, size=(320, 240))


def read(video: Path, **labels):
    """(tracks, account); errors are raised."""
    reader = NewVideo.of(video, **labels)
    raw = raw_folder(video)
    (found,) = reader.videos(raw, reader.split)
    account = VideoAccount(found.name)
    tracks = reader.read(raw, reader.split, found, account, None)
    account.check()
    return tracks, account


def person(x: float, order: str = "body_25") -> list[float]:
    """Somebody of 60 x 80 px, x + 100 px from the left."""
    return [float(number) for number in standing(order, x + 100, 120, scale=2).ravel()]


def openpose(folder: Path, people: Any = N, name: str = "clip_{:012d}_keypoints.json", first: int = 0) -> Path:
    """`people`: of each frame; a number: so many frames with one person."""
    people = [[person(i)] for i in range(people)] if isinstance(people, int) else people
    folder.mkdir()
    for i, persons in enumerate(people, start=first):
        content = {"people": [{"pose_keypoints_2d": numbers} for numbers in persons]}
        (folder / name.format(i)).write_text(json.dumps(content))
    return folder


# ---------------------------------------------------------------------------------------------------- keypoints


def test_a_person_who_is_missed_for_a_moment_is_bridged_with_boxes_in_between(video, tmp_path) -> None:
    people = [[] if 4 <= i <= 6 else [person(i)] for i in range(N)]
    (track,), account = read(video, keypoints=openpose(tmp_path / "k", people))
    np.testing.assert_array_equal(track.frame_index, np.arange(N))
    assert (account.found, account.kept) == (N, N)
    assert account.notes == ["3 frames between detections are predicted with interpolated boxes"]
    between = np.linspace(track.bbox[3], track.bbox[7], 5)
    np.testing.assert_allclose(track.bbox[3:8], between, rtol=1e-6)
    assert (track.kp_2d[4:7] == 0).all()
    assert (track.kp_2d[[3, 7]][..., 2] > 0).any()
    two = [person(0), person(120)]
    people = [two[:1] if i == 4 else two[1:] if i == 6 else two for i in range(N)]
    tracks, account = read(video, keypoints=openpose(tmp_path / "two", people))
    assert [len(track.frame_index) for track in tracks] == [N, N]
    assert (account.found, account.kept) == (2 * N, 2 * N)
    assert account.notes == ["2 frames between detections of 2 tracks are predicted with interpolated boxes"]


def two_scenes(folder: Path) -> Path:
    """N dark frames, then N light ones."""
    file = folder / "scenes.mp4"
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*"mp4v"), 25.0, (320, 240))
    for i in range(2 * N):
        writer.write(np.full((240, 320, 3), 40 if i < N else 220, np.uint8))
    writer.release()
    return file


def test_no_one_is_linked_across_a_cut_unless_the_labels_name_the_person(tmp_path) -> None:
    video, still = two_scenes(tmp_path), [[person(0)]] * (2 * N)
    tracks, account = read(video, keypoints=openpose(tmp_path / "k", still, "scenes_{:012d}_keypoints.json"))
    assert [track.frame_index.tolist() for track in tracks] == [list(range(N)), list(range(N, 2 * N))]
    assert any(note.startswith(f"2 scenes, from the frames 0, {N}") for note in account.notes)
    boxes = tmp_path / "scenes.csv"
    boxes.write_text(HEADER + "".join(f"7,{i},100,60,60,120\n" for i in range(2 * N)))
    (track,), account = read(video, boxes=boxes)
    assert (len(track.frame_index), account.notes) == (2 * N, [])


def test_a_detection_of_another_clip_is_refused(video, tmp_path) -> None:
    images = [{"id": i + 1, "frame_index": i, "file_name": f"{i}.jpg"} for i in range(N)]
    found = [{"image_id": i + 1, "category_id": 1, "keypoints": person(0, "coco")} for i in range(N)]
    text = json.dumps({"images": images, "annotations": found})
    (tmp_path / "clip.mp4.json").write_text('{"info": {"clip_digest": "0"},\n' + text[1:])
    with pytest.raises(RawDataError, match="another clip's"):
        read(video, keypoints=tmp_path / "clip.mp4.json")


def test_keypoints_that_are_named_after_another_video_are_noted(video, tmp_path) -> None:
    _, own = read(video, keypoints=openpose(tmp_path / "own"))
    _, other = read(video, keypoints=openpose(tmp_path / "other", name="dance_{:012d}_keypoints.json"))
    assert own.notes == []
    assert len(other.notes) == 1 and "check that they belong together" in other.notes[0]


def test_a_folder_without_keypoints_says_what_was_expected(video, tmp_path) -> None:
    (tmp_path / "k").mkdir()
    with pytest.raises(RawDataError, match=r"expected clip_<12 digits>_keypoints.json.*found none"):
        read(video, keypoints=tmp_path / "k")


@pytest.mark.parametrize(("n_files", "fits"), [(N - 3, False), (N - 2, True), (N, True), (N + 1, False)])
def test_the_last_frames_may_be_missing_and_no_others(video, tmp_path, n_files, fits) -> None:
    folder = openpose(tmp_path / "k", n_files)
    if fits:
        assert read(video, keypoints=folder)[1].kept == n_files
        return
    with pytest.raises(RawDataError, match=f"labels of the {N} frames .*found labels up to frame {n_files - 1}"):
        read(video, keypoints=folder)


def write_shots(folder: Path, name: str, first: int) -> Path:
    folder.mkdir()
    for i in range(first, first + N):
        cv2.imwrite(str(folder / name.format(i)), np.full((240, 320, 3), 9, np.uint8))
    return folder


def test_pictures_are_matched_by_their_names(tmp_path) -> None:
    shots = write_shots(tmp_path / "shots", "img_{:03d}.png", 7)
    (track,), _ = read(shots, keypoints=openpose(tmp_path / "k", name="img_{:03d}_keypoints.json", first=7))
    np.testing.assert_array_equal(track.frame_index, np.arange(N))
    assert np.isnan(track.fps)


@pytest.mark.parametrize("detector", ["alphapose", "openpose"])
@pytest.mark.parametrize("frames", [range(1, N + 1), range(1, N)])
def test_pictures_counted_from_1_are_matched_by_their_numbers(tmp_path, detector, frames) -> None:
    shots, labels = write_shots(tmp_path / "shots", "{:06d}.jpg", 1), tmp_path / "k"
    if detector == "alphapose":
        results = [{"image_id": f"{i:06d}.jpg", "keypoints": person(i, "coco"), "idx": 7} for i in frames]
        labels.write_text(json.dumps(results))
    else:
        openpose(labels, [[person(i)] for i in frames], "{:06d}.json", first=1)
    (track,), _ = read(shots, keypoints=labels)
    assert track.name == f"shots/{7 if detector == 'alphapose' else 0}"
    assert track.frames.path(int(track.frame_index[0])).name == "000001.jpg"
    assert len(track.frame_index) == len(frames)
    np.testing.assert_allclose(track.kp_2d[:, :, 0].max(axis=1), [max(person(i)[::3]) for i in frames])


# -------------------------------------------------------------------------------------------------------- boxes


def test_boxes_are_made_square_about_their_centre_in_any_order_of_lines(video, tmp_path) -> None:
    file = tmp_path / "boxes.csv"
    file.write_text("score," + HEADER + "0.5,b,1,10,20,30,50\n0.4,a,2,0,0,8,4\n0.9,b,0,12,20,30,50\n")
    tracks, _ = read(video, boxes=file, min_frames=1)
    a, b = tracks
    assert (a.crop_scale, b.crop_scale) == (1.1, 1.1)
    assert (a.name, b.name) == ("clip/a", "clip/b")
    np.testing.assert_array_equal(b.frame_index, [0, 1])
    np.testing.assert_array_equal(b.bbox, [[27, 45, 50, 50], [25, 45, 50, 50]])
    np.testing.assert_array_equal(a.bbox, [[4, 2, 8, 8]])
    tracks, account = read(video, boxes=file, min_frames=2)
    assert ([track.name for track in tracks], dict(account.dropped)) == (["clip/b"], {"track_too_short": 1})


@pytest.mark.parametrize(
    ("text", "told"),  # other lines are as in MOT: test_detections.py
    [
        ("track,frame,x,y\na,0,1,1\n", "'line 1': expected track,frame,x,y,w,h.*without w, h"),
        ("", "'line 1': expected track,frame,x,y,w,h"),
        (HEADER + "a,0,1,1,5,5\na,0,2,2,5,5\n", "'line 3': expected one box a frame, found track 'a' a second time"),
        (HEADER + "a,-1,1,1,5,5\n", "'line 2': expected a track and a whole number.*'-1'"),
        (HEADER + "a,1.5,1,1,5,5\n", "'line 2': expected a track and a whole number"),
        (HEADER + ",1,1,1,5,5\n", "'line 2': expected a track and a whole number"),
        (HEADER + "a,1,1,1,0,5\n", "'line 2': expected a box x y w h with a width and a height .*0.0, 5.0"),
    ],
)
def test_a_mistake_in_the_boxes_is_told_by_its_line(tmp_path, text, told) -> None:
    file = tmp_path / "boxes.csv"
    file.write_text(text)
    with pytest.raises(RawDataError, match=told):
        read_results(file)


# ------------------------------------------------------------------------------------------------------- places


def test_a_stand_in_s_video_is_known_as_one_however_deep_it_lies_and_a_link_gives_its_own_name(video, tmp_path) -> None:
    deep = tmp_path / "data/train/lunge"
    deep.mkdir(parents=True)
    shutil.move(video, deep / "clip.mp4")
    assert raw_folder(deep / "clip.mp4") == deep.resolve()
    (tmp_path / "data/STAND_IN.json").write_text("{}")
    assert raw_folder(deep / "clip.mp4") == (tmp_path / "data").resolve()
    link = tmp_path / "link.mp4"
    link.symlink_to(deep / "clip.mp4")
    assert raw_folder(link) == (tmp_path / "data").resolve()
    (tmp_path / "data/STAND_IN.json").unlink()  # a link to anything else gives its own name
    (track,), _ = read(link, keypoints=openpose(tmp_path / "k", name="link_{:012d}_keypoints.json"))
    assert (track.name, track.frames.path) == ("link/0", "link.mp4")


def test_what_is_not_there_is_told_before_anything_is_read(video, tmp_path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        NewVideo.of(tmp_path / "none.mp4", keypoints=tmp_path)
    with pytest.raises(ConfigError, match=r"--boxes .*no such file"):
        NewVideo.of(video, boxes=tmp_path / "none.csv")
    for labels in ({}, {"keypoints": tmp_path, "boxes": video}):
        with pytest.raises(ConfigError, match="expected keypoints or boxes"):
            NewVideo.of(video, **labels)


def test_a_file_that_is_no_video_is_told(tmp_path) -> None:
    (tmp_path / "clip.mp4").write_text("<html>")
    with pytest.raises(RawDataError, match="no MP4, AVI"):
        read(tmp_path / "clip.mp4", keypoints=openpose(tmp_path / "k", 1))


UNITS = "expected boxes in pixels .* normalised .* multiply x and w by 320, y and h by 240"


@pytest.mark.parametrize(
    ("lines", "reason", "words"),
    [
        ([f"a,{i},0.4,0.3,0.1,0.3" for i in range(N)], "keypoints_outside", UNITS),  # as YOLO writes them
        ([f"a,{i},40,30,50,90" for i in range(1, N + 1)], "frame_count_mismatch", "counted from 1"),  # as MOT does
        ([f"a,{i},1,1,20,40" for i in range(N + 10)], "frame_count_mismatch", f"labels up to frame {N + 9}"),
        ([f"a,{i},900,700,50,90" for i in range(N)] * 5, "keypoints_outside", "another"),
    ],
)
def test_boxes_in_other_units_or_of_other_frames_are_refused(video, tmp_path, lines, reason, words) -> None:
    file = tmp_path / "boxes.csv"
    file.write_text(HEADER + "".join(line.replace("a,", f"{i // N},", 1) + "\n" for i, line in enumerate(lines)))
    with pytest.raises(RawDataError, match=words) as caught:
        read(video, boxes=file)
    assert caught.value.reason == reason

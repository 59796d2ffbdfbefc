from pathlib import Path

import numpy as np
import pytest

from pipeline import datasets
from pipeline.people.boxes import smooth_boxes
from pipeline.people.skeletons import JOINTS
from tests.pipeline.datasets.by_hand import (
    coco,
    read_one,
    require,
    standing,
    touch,
    write_coco,
    write_json,
    write_video,
)
from tests.pipeline.datasets.made_kinetics import CLIP, SIZE, N, person, result, write_openpose

KINETICS = datasets.get("kinetics")
SPIN49 = JOINTS["spin49"]


def write_alphapose(raw, results, clip=CLIP):
    write_json(raw / "keypoints/train" / clip / f"{clip}.json", results)


def read(raw, split="train"):
    tracks, account = read_one(KINETICS, raw, split)
    # Most tests have keypoints of a clip's first frames alone, which is noted (test_images.py).
    account["notes"] = [
        note for note in account["notes"] if not note.startswith("labels of the frames 0 to")
    ]
    return tracks, account


@pytest.fixture
def raw(tmp_path):
    write_video(tmp_path / f"train/abseiling/{CLIP}.mp4", N, size=SIZE)
    return tmp_path


def test_confidence_is_the_score_clipped_to_1_and_0_under_03_and_frames_with_fewer_than_6_joints_are_dropped(
    raw,
):
    joints, five, six, none = person(), person(), person(), np.zeros((25, 3))
    joints[:4, 2] = [1.04, 0.3, 0.29, 0]
    five[5:, 2], six[6:, 2] = 0.2, 0.2
    write_openpose(raw, {t: [joints] for t in range(30)} | {10: [five], 11: [six, none]})
    frames = [t for t in range(30) if t != 10]
    dropped = {"too_few_visible_joints": 1, "no_visible_joint": 1}
    (track,) = require(read(raw), [frames], dropped)
    np.testing.assert_allclose(track.kp_2d[0, :5, 2], [1, 0.3, 0, 0, 0.9], rtol=1e-6)


def test_frames_before_the_first_box_and_after_the_last_are_dropped_and_shift_no_other(raw):
    # Somebody who comes late; of 0.3 joints count as visible, and only above it for a box.
    unsure = {10, 11, 12, 58, 59}
    write_openpose(
        raw, {t: [person(100 + 2 * t, 0.3 if t in unsure else 0.9)] for t in range(10, 60)}
    )
    (track,) = require(read(raw), [range(13, 58)], {"no_box": 5})
    alone, _, _ = smooth_boxes(np.stack([person(100 + 2 * t) for t in range(13, 58)]))
    np.testing.assert_allclose(track.bbox, alone * [1, 1, 1.1, 1.1], rtol=1e-6)


@pytest.mark.parametrize("form", [0, [[0.0], [0.0]]])
def test_alphapose_that_did_not_track_calls_everybody_0(raw, form):
    # As it writes it without --pose_track (AlphaPose's issues 750 and 761), lists in a list where
    # it merged detections.
    results = [
        result(t, x, idx=[0.0]) for t in range(30) for x in ((100, 500) if t % 2 else (500, 100))
    ]
    write_alphapose(raw, [*results[:-1], results[-1] | {"idx": form}])
    tracks, account = read(raw)
    assert [float(track.kp_2d[:, SPIN49.index("nose"), 0].mean()) for track in tracks] == [100, 500]
    assert (account["kept"], account["dropped"]) == (60, {})


@pytest.mark.parametrize("form", [lambda k: k, lambda k: [k], lambda k: [[float(k)], [9.0]]])
def test_alphaposes_identities_are_taken_when_it_tracked(raw, form):
    # The two change places at frame 15; linking would not follow them, the identities do.
    # Of one given twice in a frame, the surer person has it; under 25 frames no one is a track.
    results = [
        result(t, 100 if (k == 3) == (t < 15) else 500, idx=form(k))
        for t in range(30)
        for k in (12, 3)
    ]
    results += [
        result(4, 600, score=0.4, idx=form(3)),
        *(result(t, 300, idx=form(7)) for t in range(24)),
    ]
    write_alphapose(raw, results)
    tracks, account = read(raw)
    assert [track.name.rpartition("/")[2] for track in tracks] == ["3", "12"]
    assert account["dropped"] == {"duplicate_person": 1, "track_too_short": 24}
    assert account["tracks_dropped"] == {"track_too_short": 1}
    nose = SPIN49.index("nose")
    assert tracks[0].kp_2d[:, nose, 0].tolist() == [100] * 15 + [500] * 15


@pytest.mark.parametrize(("back", "segments"), [(50, [("1", 45)]), (51, [("1", 25)])])
def test_a_tracked_person_who_is_away_for_over_a_second_comes_back_as_another_track(
    raw, back, segments
):
    write_alphapose(raw, [result(t, idx=1) for t in [*range(25), *range(back, 70)]])
    tracks, _ = read(raw)
    assert [(track.name.rpartition("/")[2], len(track.frame_index)) for track in tracks] == segments


@pytest.mark.promise("problems of Kinetics")
def test_hidden_files_and_folders_are_no_clips_and_keypoints_alone_are_one(raw):
    write_openpose(raw)
    before = list(KINETICS.videos(raw, "train"))
    folder = Path("keypoints/train") / CLIP
    assert [video.files for video in before] == [(Path(f"train/abseiling/{CLIP}.mp4"),)]
    assert (before[0].folders, before[0].label_folders) == ((), (folder,))
    # of a Mac, and others
    touch(raw / "train/abseiling", f"._{CLIP}.mp4")
    touch(raw / "train/.cache", "clip.mp4")
    touch(raw / "train", "._flat.mp4")
    touch(raw / "keypoints/train/.ipynb_checkpoints")
    assert list(KINETICS.videos(raw, "train")) == before
    touch(raw / "val", "b.avi", "notes.txt")
    touch(raw / "val/zumba", "a.webm")
    touch(raw / "val/abseiling", "c.mkv", "d.mp4.part")
    touch(raw / "val/abseiling/deep", "e.mp4")
    names = [video.name for video in KINETICS.videos(raw, "val")]
    assert names == ["val/abseiling/c", "val/b", "val/zumba/a"]
    named = (raw / folder).rename(raw / f"{folder}.mp4")
    (video,) = KINETICS.videos(raw, "train")
    assert video.label_folders == (named.relative_to(raw),)
    named.rename(raw / folder)
    (raw / f"train/abseiling/{CLIP}.mp4").unlink()
    found = read(raw)
    require(found, [], refused="video_missing")
    assert (found[1]["name"], found[1]["found"]) == (f"train/{CLIP}", 30)


def test_people_whose_clip_is_missing_count_with_boxes_and_in_crops(raw):
    (raw / f"train/abseiling/{CLIP}.mp4").unlink()
    at_corner = standing("coco", 15, 20)
    for more in ({"box": [80, 175, 40, 50]}, {"keypoints": at_corner.ravel().tolist()}):
        write_alphapose(raw, [result(t, **more) for t in range(30)])
        found = read(raw)
        require(found, [], refused="video_missing")
        assert found[1]["found"] == 30


def test_of_two_files_of_keypoints_and_two_containers_one_is_read_and_the_other_told(raw):
    (raw / f"train/abseiling/{CLIP}.webm").touch()
    write_openpose(raw)
    write_alphapose(raw, [])
    (track,), account = read(raw)
    assert track.frames.path.endswith(".mp4")
    same = f"{CLIP}.webm is not used: {CLIP}.mp4 is the same clip"
    assert f"{CLIP}.json is not used: OpenPose's files are" in account["notes"]
    assert same in account["notes"]


def test_numbers_of_16_digits_are_names_of_videos_and_no_frames(tmp_path):
    write_video(tmp_path / "train/1700000000000000.mp4", 60, size=SIZE)
    folder = write_openpose(tmp_path, {t: [person()] for t in range(60)}, clip="1700000000000000")
    assert read(tmp_path)[1]["kept"] == 60
    for t, file in enumerate(sorted(folder.iterdir())):
        file.rename(folder / f"{1700000000000000 + 40000 * t}.json")  # times in microseconds
    account = read(tmp_path)[1]
    assert account["set_aside"] == "frame_count_mismatch"
    assert "1700000002360000" in account["message"]


@pytest.mark.promise("problems of Kinetics")
@pytest.mark.parametrize("flat", [False, True])
def test_detect_s_output_over_the_raw_folder_is_found_where_the_clip_is(flat, tmp_path):
    folder = "train" if flat else "train/abseiling"
    write_video(tmp_path / f"{folder}/{CLIP}.mp4", 40, size=SIZE)
    file = tmp_path / f"keypoints/{folder}/{CLIP}.mp4.json"
    write_coco(file, coco([person(order="coco")] * 40), cuts=[10, 0, 10, -3])
    (video,) = KINETICS.videos(tmp_path, "train")
    assert (video.name, video.files[1:]) == (f"{folder}/{CLIP}", (file.relative_to(tmp_path),))
    # no one is linked over the cut that detect found
    require(read(tmp_path), [range(10, 40)], {"track_too_short": 10})


def test_a_tracker_s_boxes_alone_give_tracks_without_joints(raw):
    file = raw / f"keypoints/train/{CLIP}.txt"
    file.parent.mkdir(parents=True)
    file.write_text(
        "".join(
            f"{t + 1},5,{11 + t},21,30,60,0.9\n{t + 1},6,300,200,30,60,0.1\n" for t in range(30)
        )
    )
    (track,), account = read(raw)
    assert track.name.endswith("/5")
    np.testing.assert_allclose(track.bbox[:2], [[25, 50, 60, 60], [26, 50, 60, 60]])
    assert (track.crop_scale, track.kp_2d.any()) == (1.1, False)
    assert account["dropped"] == {"low_score": 30}

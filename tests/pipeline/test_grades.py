"""Grades of people whose shake, slide and stretched limb are planted."""

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from pipeline.clips import files as clips
from pipeline.files.pixels.frames import Video
from pipeline.grades import BLAZE_JOINTS, grade
from pipeline.grades.words import WORDS, Grade
from pipeline.people.skeletons import BLAZE_12, JOINTS
from tests.pipeline.made_grades import (
    AT,
    FRONT,
    RECORD,
    T,
    flat,
    grades_of_people,
    person,
    solid,
)

UNKNOWN_CAMERAS = (
    {"extrinsics": np.full((T, 4, 4), np.nan)},
    {"extrinsics": np.full((T, 4, 4), np.inf)},
    {"up": np.full((T, 3), np.nan)},
    {"up": np.full((T, 3), np.inf)},
)


def shaken(size):
    return np.random.default_rng(1).normal(0, size, (T, 13, 3))


@pytest.mark.parametrize(("side", "step", "fps"), [(400, 1, 25), (400, 2, 60), (90, 1, math.nan)])
def test_a_planted_shake_is_found_with_its_size_in_any_resolution_and_rate(side, step, fps):
    walk = np.linspace([0, 0, 0], [9, 0, 0], T)[:, None]
    found = grade(flat(person(shaken(0.02) + walk), side, step), fps)  # 2 cm of a box of 2 m
    assert found.jitter_2d_percent == pytest.approx(1, rel=0.15)
    assert found.visible_percent == 100


def test_one_shaking_joint_is_enough_in_3d_and_in_a_stream_of_joints():
    joints = person(shaken(0.03) * (np.arange(13) == AT["lwrist"])[:, None])
    assert grade(solid(joints)).jitter_3d_mm == pytest.approx(30, rel=0.1)
    blaze = np.zeros((T, 33, 4))
    blaze[:, BLAZE_12] = np.concatenate([joints[:, 1:], np.full((T, 12, 1), 0.9)], axis=-1)
    columns = flat(person()) | {BLAZE_JOINTS: blaze.reshape(T, 132)}
    assert grade(columns).jitter_3d_mm == pytest.approx(30, rel=0.1)
    blaze[..., 3] = 0.1  # not seen
    assert math.isnan(grade(columns | {BLAZE_JOINTS: blaze}).jitter_3d_mm)


def test_fast_smooth_motion_and_gaps_are_no_shake():
    wave = np.zeros((T, 13, 3))
    # 0.6 m, 1.5 times a second
    wave[:, AT["lwrist"], 1] = 0.3 * np.sin(2 * np.pi * 1.5 * np.arange(T) / 30)
    columns = flat(person(wave))
    assert grade(columns, 30).jitter_2d_percent < 0.2
    columns["frame_index"] = columns["frame_index"] + 50 * (np.arange(T) // 20)
    columns["kp_2d"][..., 0] += 40 * (np.arange(T) // 20 % 2)[:, None]  # elsewhere after each gap
    assert grade(columns, 30).jitter_2d_percent < 0.2


@pytest.mark.parametrize("factor", [1.1, 1.5])
def test_a_limb_that_is_longer_in_half_of_the_frames_is_found_with_its_size(factor):
    longer = np.zeros((T, 13, 3))
    longer[::2, AT["rankle"]] = (factor - 1) * (FRONT[AT["rankle"]] - FRONT[AT["rknee"]])
    expected = pytest.approx(100 * (factor - 1) / (factor + 1), rel=1e-3)  # of two lengths 1 and f
    found = grade(flat(person(longer)) | solid(person(longer)))
    assert (found.limb_spread_2d_percent, found.limb_spread_3d_percent) == (expected, expected)
    assert grade(flat(person()) | solid(person())).limb_spread_3d_percent == pytest.approx(
        0, abs=1e-3
    )


def walk(slide):
    """(T, 13, 3): steps of 0.5 s at 30 frames a second, the standing foot sliding at so many
    m/s.
    """
    t = np.arange(T) / 30
    joints = np.array(person())
    for foot, phase in (("lankle", 0), ("rankle", 0.5)):
        cycles, swing = np.floor(t + phase), np.clip((t + phase) % 1 * 2 - 1, 0, 1)
        joints[:, AT[foot], 0] += cycles + swing - phase + slide * t
        joints[:, AT[foot], 1] += 0.25 * np.sin(np.pi * swing)
    joints[:, [i for i in AT.values() if i not in (AT["lankle"], AT["rankle"])], 0] += (
        1 + slide
    ) * t[:, None]
    return joints


def clip(raw, moved=()):
    """A clip's name, with a file of `detect` by which the camera moved in these frames."""
    images = [
        {"id": t + 1, "frame_index": t} | ({"camera": [1.0] * 8} if t in moved else {})
        for t in range(T + 7)
    ]
    (raw / "keypoints").mkdir(exist_ok=True)
    lines = ",\n".join(map(json.dumps, images))
    first = '{"info": {"description": "python -m pipeline detect"},\n"images": [\n'
    (raw / "keypoints/a.mp4.json").write_text(f'{first}{lines}\n],\n"annotations": []}}')
    return Video(raw, "a.mp4")


@pytest.mark.parametrize("speed", [0, 0.1, 0.4])
def test_a_planted_slide_is_found_with_its_speed(speed, tmp_path):
    slide = person(np.linspace([0, 0, 0], [speed * T / 30, 0, 0], T)[:, None])
    for joints in (slide, walk(speed)):
        found = grade(flat(joints) | solid(joints), 30, clip(tmp_path))
        assert found.skating_3d_cm_s == pytest.approx(100 * speed, rel=0.03, abs=0.5)
        slide = grade(flat(joints), 30, clip(tmp_path)).skating_2d_percent_s
        assert slide == pytest.approx(50 * speed, rel=0.03, abs=0.3)


def test_feet_are_graded_only_while_the_camera_stands(tmp_path, monkeypatch):
    columns = flat(walk(0.4))
    columns["kp_2d"][200:, :, 0] += 30 * np.arange(200)[:, None]  # the camera turns
    turns = clip(tmp_path, tuple(range(207, 407)))
    opened = []
    read_info = clips.read_info
    monkeypatch.setattr(clips, "read_info", lambda file: opened.append(file) or read_info(file))
    for _track in range(3):  # of one clip, whose file is read once
        assert grade(columns, 30, turns).skating_2d_percent_s == pytest.approx(20, rel=0.03)
    assert len(opened) == 1
    assert math.isnan(
        grade(columns, 30, clip(tmp_path, tuple(range(0, 407, 3)))).skating_2d_percent_s
    )
    # by another detector
    assert math.isnan(grade(columns, 30, Video(tmp_path, "b.mp4")).skating_2d_percent_s)
    assert math.isnan(grade(columns, math.nan, turns).skating_2d_percent_s)
    moving = np.tile(np.eye(4), (T, 1, 1)) + np.arange(T)[:, None, None] * 0.01
    for more in ({"extrinsics": moving}, *UNKNOWN_CAMERAS):
        assert math.isnan(grade(solid(walk(0.4), **more), 30).skating_3d_cm_s)


@pytest.mark.filterwarnings("error")
def test_a_camera_that_is_unknown_in_the_first_row_is_that_of_the_known_ones():
    extrinsics = np.tile(np.eye(4), (T, 1, 1))
    extrinsics[0] = np.inf
    found = grade(solid(walk(0.4), extrinsics=extrinsics), 30).skating_3d_cm_s
    assert found == pytest.approx(grade(solid(walk(0.4)), 30).skating_3d_cm_s, rel=0.01)


def test_a_track_without_joints_has_no_grade_and_a_hidden_joint_counts():
    columns = flat(person())
    # OpenPose's; another has the wrist
    columns["kp_2d"][::2, :, 2] *= (np.arange(49) != 7).astype(np.float32)
    assert grade(columns).visible_percent == 100
    columns["kp_2d"][:, :, 2] = 0
    assert asdict(grade(columns)) == pytest.approx(asdict(Grade()), nan_ok=True)
    assert str(grade(columns)) == "no joints"


def test_where_frames_are_uneven_speeds_are_by_time(tmp_path):
    # of 30 a second
    shown = np.sort(np.random.default_rng(3).choice(np.arange(T), 320, replace=False))
    record = replace(RECORD, times=np.append(np.zeros(7), shown / 30 + 1))
    columns = {name: values[shown] for name, values in flat(walk(0.4)).items()}
    columns["frame_index"] = np.arange(7, 7 + len(shown))
    assert not record.is_even
    fps = record.fps_of(columns["frame_index"])
    found = grade(columns, fps, clip(tmp_path), record)
    assert found.skating_2d_percent_s == pytest.approx(20, rel=0.03)
    assert grade(columns, record.fps, clip(tmp_path)).skating_2d_percent_s != pytest.approx(
        20, rel=0.05
    )


def joints_named(*ends):
    return [i for i, name in enumerate(JOINTS["spin49"]) if name.lower().endswith(ends)]


def unseen(*ends, share=1.0):
    """Hide joints in this share of the frames."""

    def hide(columns):
        columns["kp_2d"][: round(share * T), joints_named(*ends)] = 0

    return hide


def noise(size):
    """Of so many boxes; columns of `flat` have a box of 400 px."""

    def add(columns):
        shift = np.random.default_rng(0).normal(0, 400 * size, columns["kp_2d"][..., :2].shape)
        columns["kp_2d"][..., :2] += shift

    return add


def elsewhere(columns):
    """Somebody else's joints, a box away, for ten frames at a time."""
    is_other = np.arange(T) // 10 % 2 == 1
    columns["kp_2d"][is_other, :, 0] += 400


def beyond_left_edge(columns):
    """The image's edge is in the middle of the body."""
    columns["kp_2d"][..., 0] -= 500


def nothing(columns):
    pass


@pytest.mark.parametrize(
    ("change", "word", "reason"),
    [
        (nothing, "good", ""),
        (unseen("wrist", share=0.5), "good", ""),
        (unseen("knee", "ankle"), "doubtful", "knees and ankles are seen in 0 % of the frames"),
        (unseen("knee", "ankle", share=0.3), "good", ""),
        (unseen("elbow", "wrist"), "doubtful", "elbows and wrists are seen in 0 %"),
        (unseen("elbow", "wrist", "knee", "ankle", "hip"), "bad", "17 % of 12 joints visible"),
        (noise(0.005), "good", ""),
        (noise(0.025), "doubtful", "the worst joint shakes by 2."),
        (noise(0.1), "bad", "the worst joint shakes by 1"),
        (elsewhere, "doubtful", "joints jump in 2"),
        (beyond_left_edge, "doubtful", "the image's edge cuts the person in 100 % of the frames"),
    ],
)  # fmt: skip
def test_a_planted_defect_of_joints_in_the_image_has_its_word(change, word, reason):
    columns = flat(person())
    columns["frame_index"] = np.arange(T)
    change(columns)
    found = grade(columns, 30, None, replace(RECORD, stored=(1000, 1000)))
    assert (found.word, reason in found.verdict) == (word, True)
    assert (found.reasons == []) == (word == "good")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"n_repeated": T // 2}, "50 % of the frames or poses repeat the one before"),
        ({"lost": tuple(range(40))}, "10 % of the clip's frames cannot be decoded"),
    ],
)
def test_a_defect_of_the_clip_is_one_of_its_tracks(changed, reason):
    columns = flat(person())
    clip = replace(RECORD, stored=(1000, 1000), **changed)
    assert grade(columns, 30, None, clip).verdict == f"doubtful: {reason}"


def test_people_who_cover_each_other_most_of_the_time_are_doubtful():
    alone = flat(person(np.array([4, 0, 0])))
    behind = flat(person(np.array([0.1, 0, 0])))
    first, second, third = grades_of_people([flat(person()), behind, alone])
    assert first.verdict == "doubtful: others cover the person's box in 100 % of the frames"
    assert second.overlap_percent == 100
    assert (third.word, third.overlap_percent) == ("good", 0)
    crossing = flat(person(np.linspace([-4, 0, 0], [4, 0, 0], T)[:, None]))
    both = grades_of_people([flat(person()), crossing])
    assert [found.word for found in both] == ["good", "good"]


def motion():
    """SMPL's parameters of somebody who stands upright, z up, and sways a little."""
    pose = np.zeros((200, 72))
    pose[:, 0] = np.pi / 2  # SMPL's y is the world's z
    pose[:, 3] = 0.05 * np.sin(np.arange(200) / 10)
    trans = np.tile([0.0, 0.0, 0.95], (200, 1))
    return {"frame_index": np.arange(200), "pose": pose, "trans": trans}


def test_planted_defects_of_a_motion_are_found_with_their_size():
    assert grade(motion(), 25).verdict == "good"

    jump = motion()
    jump["trans"][100:] += [0.9, 1.2, 0]
    found = grade(jump, 25)
    assert found.root_jump_m == pytest.approx(1.5)
    assert found.root_speed_m_s == pytest.approx(1.5 * 25)
    assert found.word == "bad" and "the root jumps by 1.5 m" in found.reasons

    flip = motion()
    flip["pose"][100, 9] = np.pi  # a turn of 180 degrees in a frame
    assert grade(flip, 25).joint_speed_deg_s == pytest.approx(180 * 25, rel=1e-3)
    assert grade(flip, 25).word == "doubtful"

    sunk = motion()
    sunk["trans"][50:58, 2] -= 0.4
    assert grade(sunk, 25).below_floor_percent == pytest.approx(4)
    assert "feet are below the floor in 4.0 % of the frames" in grade(sunk, 25).reasons

    slides = motion()
    slides["trans"][:, 0] += np.arange(200) * 0.6 / 25
    assert grade(slides, 25).skating_3d_cm_s == pytest.approx(60, rel=0.05)
    assert grade(slides, 25).reasons == [
        f"feet slide by {grade(slides, 25).skating_3d_cm_s:.2g} cm a second in 3D"
    ]


def test_a_number_is_written_without_an_exponent_and_says_whether_it_is_of_3d_joints():
    bad = Grade(91, jitter_2d_percent=1.53, jitter_3d_mm=104, skating_3d_cm_s=203)
    assert bad.reasons == [
        "the worst joint shakes by 1.5 % of the box",
        "the worst joint shakes by 104 mm in 3D",
        "feet slide by 203 cm a second in 3D",
    ]


@pytest.mark.parametrize(
    ("first", "n", "word", "percent"),
    [(0, 200, "doubtful", 99.5), (50, 61, "doubtful", 30), (50, 31, "good", 15)],
)
def test_a_body_that_does_not_move_is_doubtful_also_beside_an_image(first, n, word, percent):
    """A pose is held for `n` frames, while the root goes on, and the camera turns about it."""
    still = motion()
    still["pose"][first : first + n] = still["pose"][first]
    still["trans"][:, 0] += np.arange(200) / 100
    in_image = {name: column[:200] for name, column in flat(person()).items()}
    turned = still["pose"].copy()
    turned[:, :3] += np.arange(200)[:, None] / 100
    for columns in (still, in_image | {"pose": turned}):
        found = grade(columns, 25)
        assert found.repeated_percent == pytest.approx(percent)
        assert found.word == word
        told = f"{percent:.0f} % of the frames or poses repeat the one before"
        assert (told in found.reasons) == (word == "doubtful")


def test_a_motion_with_unknown_frames_is_graded_by_its_longest_known_stretch():
    unknown = motion()
    unknown["pose"][40:50] = np.nan
    unknown["trans"][45:60] = np.nan
    unknown["trans"][60:] += [5, 0, 0]  # no jump: what is between is not known
    unknown["trans"][20:] += [3, 0, 0]  # in the shorter stretch
    assert grade(unknown, 25).verdict == "good"
    gap = motion()
    gap["frame_index"][100:] += 50
    gap["trans"][100:] += [4, 0, 0]
    assert grade(gap, 25).verdict == "good"
    unknown["trans"][:] = np.nan
    assert grade(unknown, 25).verdict == "no joints"


def test_the_worst_numbers_of_two_tracks_have_the_worse_word():
    bad = Grade(20, jitter_2d_percent=0.5)
    doubtful = Grade(90, jitter_2d_percent=2)
    both = Grade.worst_of([bad, doubtful])
    assert asdict(both) == pytest.approx(asdict(Grade.worst_of([doubtful, bad])), nan_ok=True)
    assert (both.visible_percent, both.jitter_2d_percent, both.word) == (20, 2, "bad")
    assert len(both.reasons) == 2
    assert Grade.worst_of([Grade(), doubtful]).word == "doubtful"
    assert [bad.word, doubtful.word, Grade(90).word] == [*WORDS]


def test_boxes_of_a_crowd_are_covered_as_pair_by_pair():
    """Of one that covers much of another one, none, or the other way round; in some frames."""
    rng = np.random.default_rng(2)
    people = []
    for _ in range(12):
        places = person(rng.uniform(-1.5, 1.5, (T, 1, 3))) * rng.uniform(0.5, 1.5)
        columns = flat(places)
        is_there = rng.random(T) < 0.7
        people.append({name: rows[is_there] for name, rows in columns.items()})
    boxes = []
    for columns in people:
        seen = columns["kp_2d"][columns["kp_2d"][..., 2] > 0][:, :2].reshape(
            len(columns["bbox"]), -1, 2
        )
        boxes.append(
            dict(
                zip(
                    columns["frame_index"],
                    np.stack([seen.min(axis=1), seen.max(axis=1)], axis=1),
                    strict=True,
                )
            )
        )
    for number, found in enumerate(grades_of_people(people)):
        covered = []
        for frame, (low, high) in boxes[number].items():
            shares = [0.0]
            for other in boxes[:number] + boxes[number + 1 :]:
                if frame in other:
                    common = np.minimum(high, other[frame][1]) - np.maximum(low, other[frame][0])
                    shares.append(np.prod(np.maximum(common, 0)) / np.prod(high - low))
            covered.append(max(shares) > 0.4)
        assert 0 < np.mean(covered) < 1
        assert found.overlap_percent == pytest.approx(100 * np.mean(covered))

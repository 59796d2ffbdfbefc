"""Bodies in files of whole bodies, with the names and keys of MMPose's Halpe-136 and COCO-WholeBody."""

import numpy as np
import pytest

from pipeline.clips.labels.label_content import HANDS_NOT_READ
from pipeline.files.formats import large_json
from pipeline.people.skeletons import joint_names
from tests.pipeline.clips.labels.made_detections import (
    COCO_NAMES,
    EVERY,
    N,
    body,
    coco_object,
    read,
    write,
)
from tests.pipeline.datasets import made_people as made
from tests.raising import raw_refuses

FEET_OF_HALPE = [
    f"{side}_{joint}" for joint in ("big_toe", "small_toe", "heel") for side in ("left", "right")
]
FEET_OF_COCO = [
    f"{side}_{joint}" for side in ("left", "right") for joint in ("big_toe", "small_toe", "heel")
]
FINGERS = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")


def hand(side):
    return [f"{side}_wrist", *(f"{side}_{finger}{n}" for finger in FINGERS for n in range(1, 5))]


FACE = [f"face-{n}" for n in range(68)]
BODY_OF_HALPE = [*COCO_NAMES, "head", "neck", "hip", *FEET_OF_HALPE]
HALPE = [*BODY_OF_HALPE, *FACE, *hand("left"), *hand("right")]  # configs/_base_/datasets/halpe.py


def whole_body(t):
    """(136, 3) in Halpe's order; face and hands are anywhere near the body."""
    rest = np.random.default_rng(t).uniform(150, 250, (110, 3))
    rest[:, 2] = 0.5
    return np.concatenate([body(t, "halpe_26"), rest])


@pytest.mark.parametrize("writer", [made.demo, made.coco])
def test_mmposes_halpe_136_names_both_wrists_twice_and_the_arms_are_read(writer, tmp_path):
    assert (len(HALPE), HALPE.count("left_wrist"), HALPE[115]) == (136, 2, "right_wrist")
    found = read(
        write(tmp_path / "k", writer([[made.person(whole_body(t))] for t in EVERY], HALPE))
    )
    names = joint_names(found.skeleton)
    assert len(names) == 17 + 6
    ours = joint_names("halpe_26")
    columns = [ours.index(name) for name in names]
    for t, people in enumerate(found.keypoints):
        np.testing.assert_allclose(people, body(t, "halpe_26")[None, columns], atol=1e-9)
    assert HANDS_NOT_READ in found.unread
    assert not any("thumb" in name or "hand" in name for name in found.unread["joints not read"])


@pytest.mark.parametrize(
    "names",
    [
        # the arm's wrist a second time, and the root of a hand a third time
        [*COCO_NAMES[:16], "left_wrist"],
        [*COCO_NAMES, *hand("left"), *hand("left")],
        # of another side
        [*COCO_NAMES, "left_wrist", "right_thumb1"],
    ],
)
def test_any_other_name_that_is_there_twice_is_refused(names, tmp_path):
    people = [[made.person(np.resize(body(t), (len(names), 3)))] for t in EVERY]
    with raw_refuses(r"each once, found 'left_(wrist|hand_root)' twice"):
        read(write(tmp_path / "k", made.demo(people, names)))


def test_a_wrist_that_a_thumb_follows_is_the_arms_if_it_is_the_only_one(tmp_path):
    names = [*COCO_NAMES[:9], *COCO_NAMES[10:], "left_wrist", "left_thumb1"]
    order = [*range(9), *range(10, 17), 9, 9]
    people = [[made.person(body(t)[order])] for t in EVERY]
    found = read(write(tmp_path / "k", made.demo(people, names)))
    wrist = joint_names(found.skeleton).index("lwrist")
    assert [people[0, wrist].tolist() for people in found.keypoints] == [
        body(t)[9].tolist() for t in EVERY
    ]


def with_feet(names=COCO_NAMES, lacking=()):
    """COCO-WholeBody's annotations: feet under a key of their own, by visibility."""
    content = coco_object(face_kpts=[0] * 204, foot_valid=True)
    content["categories"][1]["keypoints"] = names
    for t in EVERY:
        entry = content["annotations"][t]
        if t not in lacking:
            feet = body(t, "coco_feet")[17:].copy()
            feet[:, 2] = [2, 1, 0, 2, 2, 2]
            entry["foot_kpts"] = feet.ravel().tolist()
    return content


@pytest.mark.parametrize("large", [1 << 22, 0])  # bytes; larger JSON is read by parts
def test_coco_wholebodys_feet_are_joints(large, tmp_path, monkeypatch):
    monkeypatch.setattr(large_json, "LARGE", large)
    found = read(write(tmp_path / "k", {"": with_feet(lacking=(0, 3))}))
    assert joint_names(found.skeleton) == joint_names("coco_feet")
    for t, (person,) in enumerate(found.keypoints):
        expected = body(t, "coco_feet")
        expected[17:, 2] = [1, 1, 0, 1, 1, 1]
        if t in (0, 3):
            expected[17:] = 0
        np.testing.assert_allclose(person, expected, atol=1e-9)
    assert found.unread["keys not read"] == {"face_kpts": N}


def test_feet_that_the_joints_name_are_those_and_not_read_twice(tmp_path):
    content = with_feet([*COCO_NAMES, *FEET_OF_COCO])
    for t in EVERY:
        entry = content["annotations"][t]
        named = body(t, "coco_feet")
        named[:, 0] += 1
        entry["keypoints"] = named.ravel().tolist()
        del entry["keypoint_scores"]
    found = read(write(tmp_path / "k", {"": content}))
    for t, (person,) in enumerate(found.keypoints):
        np.testing.assert_allclose(person[:, 0], body(t, "coco_feet")[:, 0] + 1)
    assert found.unread["keys not read"]["foot_kpts"] == N


def test_feet_of_another_number_are_refused_by_place(tmp_path):
    content = with_feet()
    del content["annotations"][2]["foot_kpts"][-1]
    with raw_refuses(r"annotations\[2\]\.foot_kpts.*18 numbers"):
        read(write(tmp_path / "k", {"": content}))

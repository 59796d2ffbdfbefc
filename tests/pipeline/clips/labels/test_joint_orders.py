"""A joint order is named, stated, fixed by the format or assumed, and refused where people's bodies
contradict it: projected motions of the demo body in every known layout, and real output.
"""

import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pipeline.clips.labels.checks import LOOK
from pipeline.clips.labels.detections import read_detections
from pipeline.clips.labels.joint_orders import ORDER_NAMES, ORDERS, StatedOrder
from pipeline.clips.labels.label_content import Stated
from pipeline.people import skeletons
from tests.pipeline.clips.labels.made_people import (
    COCO,
    N_FRAMES,
    POSES,
    exchange,
    in_order,
    joints_of,
    motion,
    results,
    seen,
    without,
)
from tests.pipeline.datasets import made_people as made
from tests.raising import raw_refuses

SAMPLES = Path(__file__).parents[4].parent / "shared" / "data"
SIZE = (1280, 720)
SETTING = "[videos] joints"
OPENPOSE = skeletons.joint_names("openpose_coco")

# --------------------------------------------------------------------------------------------------
# people


@pytest.fixture(scope="module")
def hard():
    """Symmetrical poses from the front, obliquely, from the side and from behind, upright and
    upside down.
    """
    made = {}
    for name, rotations in POSES.items():
        pose = np.random.default_rng(1).normal(0, 0.03, (N_FRAMES, 24, 3))
        pose[:, 0] = 0
        for joint, rotation in rotations.items():
            pose[:, joint] += rotation
        joints = joints_of(pose)
        for degrees in (0, 50, 90, 180):
            for upside_down in (False, True):
                made[name, degrees, upside_down] = seen(joints, degrees, upside_down=upside_down)
    return made


def first_frame(caught):
    """The number of the first frame that a message names."""
    return re.search(r"first in frame (\d+)", str(caught.value))[1]


@pytest.fixture
def read(tmp_path):
    """Read what a file holds."""

    def read(content, stated=None):
        file = tmp_path / "clip.json"
        file.write_text(json.dumps(content))
        stated_order = Stated(StatedOrder(stated, SETTING))
        return read_detections(file, "clip", lambda: [SIZE], stated_order)

    return read


# --------------------------------------------------------------------------------------------------
# where an order comes from


@pytest.mark.parametrize("order", ORDER_NAMES)
def test_a_stated_order_is_taken_and_nothing_is_assumed(order, read):
    people = in_order(motion()[::5], skeletons.joint_names(order))
    found = read(results(people), order)
    assert (found.skeleton, found.is_order_assumed) == (order, False)
    np.testing.assert_allclose(np.concatenate(found.keypoints), people, atol=1e-9)


@pytest.mark.parametrize("n_joints", [*ORDERS, 133, 136])
def test_without_a_statement_the_usual_order_is_assumed(n_joints, read):
    usual = ORDERS[{133: 23, 136: 26}.get(n_joints, n_joints)][0]
    people = np.zeros((100, n_joints, 3))
    body_joints = in_order(motion()[::5][:100], skeletons.joint_names(usual))
    people[: len(body_joints), : body_joints.shape[1]] = body_joints
    found = read(results(people[: len(body_joints)]))
    assert (found.skeleton, found.is_order_assumed) == (usual, True)


@pytest.mark.parametrize("order", ["body_25", "openpose_coco"])
def test_openposes_files_fix_their_order(order, read):
    people = in_order(motion()[::5], skeletons.joint_names(order))
    pages = [{"people": [{"pose_keypoints_2d": person.ravel().tolist()}]} for person in people]
    found = read(pages)
    assert (found.skeleton, found.is_order_assumed) == (order, False)


def test_a_stated_order_of_another_number_of_joints_is_an_error_that_names_the_setting(read):
    people = in_order(motion()[:3], COCO)
    with raw_refuses(r"body_25, which \[videos\] joints states, found 17"):
        read(results(people), "body_25")


# --------------------------------------------------------------------------------------------------
# orders that bodies contradict

LIMB_BY_LIMB = [
    *COCO[:5],
    *("lshoulder", "lelbow", "lwrist", "rshoulder", "relbow", "rwrist"),
    *("lhip", "lknee", "lankle", "rhip", "rknee", "rankle"),
]
WRONG = {
    "OpenPose's without its last": OPENPOSE[:17],
    "limb by limb": LIMB_BY_LIMB,
    "3DHP's": skeletons.joint_names("mpi_inf_3dhp_test"),
    "Human3.6M's": skeletons.joint_names("h36m"),
    "lifters'": skeletons.joint_names("h36m_lifters"),
    "legs first": [*COCO[11:], *COCO[:11]],
    "elbows for wrists": exchange(COCO, "elbow", "wrist"),
    "knees for ankles": exchange(COCO, "knee", "ankle"),
    "shoulders for hips": exchange(COCO, "shoulder", "hip"),
    "left and right hip": [{"lhip": "rhip", "rhip": "lhip"}.get(name, name) for name in COCO],
    "shuffled": list(np.random.default_rng(1).permutation(COCO)),
}


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("stated", [None, "coco", "posetrack"])
def test_17_joints_in_another_order_are_refused(wrong, stated, read):
    with raw_refuses("cannot be in it") as caught:
        read(results(in_order(motion(), WRONG[wrong])), stated)
    assert caught.value.reason == "unknown_joint_order"
    assert str(caught.value).endswith(f", first in frame {first_frame(caught)}. {LOOK}")


@pytest.mark.parametrize(("order", "stored"), [
    ("body_25", "body_25b"), ("body_25", "insta_variety"), ("body_25b", "body_25"),
    ("openpose_coco", "coco_neck"), ("coco_neck", "openpose_coco"), ("h36m", "coco"),
])  # fmt: skip
def test_a_message_proposes_no_order(order, stored, read):
    people = in_order(motion(), skeletons.joint_names(stored))
    with raw_refuses("cannot be in it") as caught:
        read(results(people), order)
    named = {name for name in ORDER_NAMES if re.search(rf"\b{name}\b", str(caught.value))}
    assert named == {order}


def test_names_that_bodies_contradict_are_refused(read):
    people = in_order(motion(), WRONG["knees for ankles"])
    frames = [[made.person(points)] for points in people]
    content = made.coco(frames, [skeletons.coco_name(j) for j in COCO], size=SIZE)[""]
    with raw_refuses("ankles lie between hips and knees"):
        read(content)


# --------------------------------------------------------------------------------------------------
# right files

LEGS, FACE = ("knee", "ankle", "toe", "heel"), ("nose", "eye", "ear", "head")
UPPER = (*FACE, "neck", "shoulder", "elbow", "wrist")


HIDDEN = itertools.product(
    ("coco", "h36m", "body_25", "halpe_26"), (LEGS, FACE, UPPER, ("elbow", "wrist"))
)


@pytest.mark.parametrize(("order", "hidden"), [*((order, ()) for order in ORDER_NAMES), *HIDDEN])
def test_no_pose_side_or_part_of_the_body_is_refused(order, hidden, read, hard):
    names = skeletons.joint_names(order)
    for name, person in {**hard, "moving": motion()[::3]}.items():
        found = read(results(without(in_order(person, names), names, hidden)), order)
        assert found.skeleton == order, name


def test_people_who_stand_on_their_heads_are_refused_unless_their_order_is_stated(read, hard):
    people = results(in_order(hard["standing", 50, True], COCO))
    with raw_refuses("24 of 24 people stand on their heads"):
        read(people)
    assert read(people, "coco").skeleton == "coco"


@pytest.mark.parametrize("side", "lr")
@pytest.mark.parametrize("parts", [("shoulder", "hip"), ("hip", "knee", "ankle")])
def test_one_side_alone_is_not_refused(side, parts, read, hard):
    for person in hard.values():
        people = in_order(person, COCO)
        others = [j for j, name in enumerate(COCO) if name not in [side + part for part in parts]]
        people[:, others] = 0
        assert read(results(people)).skeleton == "coco"


def test_a_cartwheel_is_not_refused(read):
    people = in_order(motion()[:84], COCO)
    turns = Rotation.from_rotvec(np.linspace(0, 2 * np.pi, 84)[:, None] * [0, 0, 1]).as_matrix()
    middle = people[..., :2].mean(axis=1, keepdims=True)
    people[..., :2] = np.einsum("tab,tjb->tja", turns[:, :2, :2], people[..., :2] - middle) + middle
    assert read(results(people)).skeleton == "coco"


def test_a_few_people_prove_nothing(read):
    found = read(results(in_order(motion()[::22], WRONG["knees for ankles"])))
    assert (found.skeleton, found.is_order_assumed) == ("coco", True)


# --------------------------------------------------------------------------------------------------
# real output of OpenPose: 551 people in 74 frames


@pytest.fixture(scope="module")
def real():
    """(P, 25, 3) of each frame."""
    folder = SAMPLES / "openpose/json"
    if not folder.is_dir():
        pytest.skip("the real samples are not beside the checkout")
    return [
        np.reshape(
            [p["pose_keypoints_2d"] for p in json.loads(file.read_text())["people"]], (-1, 25, 3)
        )
        for file in sorted(folder.glob("*.json"))
    ]


WRITERS = {  # of frames of people (J, 3) with these names
    "OpenPose": lambda frames, names: [*made.openpose(frames).values()],
    "results": lambda frames, names: made.results(frames)[""],
    "MMPose": lambda frames, names: made.inferencer(frames)[""],
    "MMPose's demo": lambda frames, names: made.demo(frames, names)[""],
    "COCO": lambda frames, names: made.coco(frames, names, size=SIZE)[""],
}


@pytest.mark.parametrize("kept", ["all", "2 frames", "8 frames", "20 frames", "left", "legs"])
@pytest.mark.parametrize("writer", WRITERS)
def test_real_people_are_read_as_body_25_in_every_format(writer, kept, read, real):
    names = [name.removeprefix("OP ") for name in skeletons.joint_names("body_25")]
    frames = real
    if kept.endswith("frames"):
        frames = real[: int(kept.split()[0])]
    elif kept != "all":
        parts = {"left": ("R",), "legs": ("Nose", "Neck", "Eye", "Ear", "Should", "Elb", "Wri")}
        frames = [people.copy() for people in real]
        for people in frames:
            hidden = [
                j
                for j, n in enumerate(names)
                if n.startswith(parts[kept]) or n[1:].startswith(parts[kept][1:] or "-")
            ]
            people[:, hidden] = 0
    people = [[made.person(points) for points in frame] for frame in frames]
    found = read(WRITERS[writer](people, names))
    expected = np.concatenate(frames)
    stored = np.concatenate(found.keypoints)
    columns = [*range(25)]
    if writer in ("MMPose's demo", "COCO"):  # "Neck" alone is no known name
        columns = [j for j, name in enumerate(names) if name not in ("Neck", "MidHip")]
    else:
        assert found.skeleton == "body_25"
    np.testing.assert_allclose(stored[..., :2], expected[:, columns, :2], atol=1e-9)
    assert found.is_order_assumed == (writer in ("results", "MMPose"))

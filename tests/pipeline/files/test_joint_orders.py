"""A detector's joint order is told by geometry: procedural bodies in every known layout, and real
output.
"""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from pipeline import skeletons
from pipeline.body import Body
from pipeline.errors import RawDataError
from pipeline.files.formats.people.joint_orders import ORDERS, _check_named_order, order_joints

KNOWN = [order for orders in ORDERS.values() for order in orders]
N_FRAMES = 24


body = functools.cache(Body.stand_in)


def find_order(place, sequence):
    return order_joints(place, sequence, None).skeleton


def seen(pose, yaw):
    """(T, 49, 3) joints in px of the procedural body, turned about the vertical; the score of each
    is 0.9.
    """
    pose[:, 0] = [np.pi, 0, 0]  # the camera's y points down
    rotmat = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(N_FRAMES, 24, 3, 3)
    rotmat[:, 0] = Rotation.from_rotvec(yaw[:, None] * [0, 1, 0]).as_matrix() @ rotmat[:, 0]
    numbers = torch.tensor(rotmat, dtype=torch.float32)
    joints = body().joints(betas=torch.zeros(N_FRAMES, 10), rotmat=numbers).double().numpy()
    return np.concatenate([400 + 300 * joints[..., :2], np.full((N_FRAMES, 49, 1), 0.9)], axis=-1)


@pytest.fixture(scope="module")
def spin49():
    """From all sides, some upside down."""
    joints = seen(
        np.random.default_rng(0).normal(0, 0.25, (N_FRAMES, 24, 3)),
        np.linspace(0, 2 * np.pi, N_FRAMES),
    )
    joints[::4, :, :2] = 800 - joints[::4, :, :2]
    return joints


# Radians by joint of the body model: both sides alike, so that seen from the side they are over
# each other.
ARMS_DOWN = {16: (0, 0, -1.3), 17: (0, 0, 1.3)}
ARMS_FORWARD = {16: (0, -1.5, 0), 17: (0, 1.5, 0)}
SQUAT = {1: (-2, 0, 0), 2: (-2, 0, 0), 4: (2.2, 0, 0), 5: (2.2, 0, 0)}
SEATED = {1: (-1.5, 0, 0), 2: (-1.5, 0, 0), 4: (1.5, 0, 0), 5: (1.5, 0, 0)}
POSES = {
    "standing": ARMS_DOWN,
    "arms forward": ARMS_FORWARD,
    "squatting": ARMS_FORWARD | SQUAT,
    "seated": ARMS_DOWN | SEATED,
    "bent": ARMS_DOWN | {1: (-1.5, 0, 0), 2: (-1.5, 0, 0)},
}
FACE, LEGS = ("nose", "eye"), ("knee", "ankle", "toe", "heel")


@pytest.fixture(scope="module")
def hard():
    """Symmetrical poses from the front, obliquely, from the side and from behind, upright and
    upside down.
    """
    made = {}
    for name, rotations in POSES.items():
        for degrees in (0, 50, 90, 180):
            pose = np.random.default_rng(0).normal(0, 0.03, (N_FRAMES, 24, 3))
            for joint, rotation in rotations.items():
                pose[:, joint] += rotation
            joints = seen(pose, np.radians(degrees) + np.linspace(-0.1, 0.1, N_FRAMES))
            upside_down = joints.copy()
            upside_down[..., :2] = 800 - joints[..., :2]
            made |= {
                f"{name} at {degrees}": joints,
                f"{name} at {degrees}, upside down": upside_down,
            }
    return made


def frames(spin49, order):
    """One person a frame. Midpoints are where the layouts define them; face and hands of whole-body
    layouts lack.
    """
    named = dict(zip(skeletons.joint_names("spin49"), np.moveaxis(spin49, 1, 0), strict=True))
    named["OP Neck"] = (named["lshoulder"] + named["rshoulder"]) / 2
    named["OP MidHip"] = (named["lhip"] + named["rhip"]) / 2
    named["hip"] = named["OP MidHip"]
    nothing = np.zeros((N_FRAMES, 3))
    return list(
        np.stack([named.get(joint, nothing) for joint in skeletons.joint_names(order)], axis=1)[
            :, None
        ]
    )


@pytest.mark.parametrize("order", KNOWN)
def test_an_order_is_told_from_those_of_the_same_length(order, spin49):
    assert find_order(Path(), frames(spin49, order)) == order


@pytest.mark.parametrize("order", ["coco", "openpose_coco", "body_25", "halpe_26"])
def test_an_order_that_is_not_known_fits_none(order, spin49):
    shuffled = np.random.default_rng(1).permutation(len(skeletons.joint_names(order)))
    with pytest.raises(
        RawDataError,
        match=f"{len(shuffled)} joints in an order that is not known.*: as {order}, bones",
    ):
        find_order(Path(), [persons[:, shuffled] for persons in frames(spin49, order)])


@pytest.mark.parametrize("order", ["coco", "body_25", "body_25b", "halpe_26"])
def test_one_tangled_frame_in_three_does_not_decide(order, spin49):
    sequence = frames(spin49, order)
    rng = np.random.default_rng(2)
    for number in range(0, N_FRAMES, 3):
        sequence[number] = rng.permuted(sequence[number], axis=1)
    assert find_order(Path(), sequence) == order


@pytest.mark.parametrize("hidden", [(), LEGS, (*FACE, "ear"), ("wrist",)])
@pytest.mark.parametrize(
    "order", ["coco", "openpose_coco", "body_25", "body_25b", "halpe_26", "coco_feet"]
)
def test_hard_poses_with_hidden_parts_are_no_false_alarm(order, hidden, spin49, hard):
    away = [
        i
        for i, joint in enumerate(skeletons.joint_names(order))
        if any(part in joint.lower() for part in hidden)
    ]
    for name, joints in {**hard, "from all sides": spin49}.items():
        sequence = frames(joints, order)
        for persons in sequence:
            persons[:, away] = 0
        assert find_order(Path(), sequence) == order, name


@pytest.mark.parametrize("order", ["coco", "body_25", "halpe_26"])
def test_two_joints_decide_nothing(order, spin49):
    sequence = frames(spin49, order)
    for persons in sequence:
        persons[:, 2:] = 0
    assert find_order(Path(), sequence) == order


SIDES = ("coco", "openpose_coco", "body_25", "halpe_26", "coco_feet")


def joints(sequence):
    return np.concatenate(sequence)


def exchanged(sequence, order, *parts):
    """With the sides of some joints exchanged."""
    names = skeletons.joint_names(order)
    others = skeletons.opposite_joints(order)
    columns = [
        others[j] if any(part in name.lower() for part in parts) else j
        for j, name in enumerate(names)
    ]
    return [persons[:, columns] for persons in sequence]


@pytest.mark.parametrize("order", SIDES)
def test_hips_of_the_other_side_are_refused(order, spin49):
    with pytest.raises(RawDataError, match=f"as {order}, .*shoulders and hips crossed"):
        find_order(Path(), exchanged(frames(spin49, order), order, "lhip", "rhip"))


@pytest.mark.parametrize("pixels", [60, 600])
@pytest.mark.parametrize("order", ["h36m", "h36m_lifters", "posetrack"])
def test_17_joints_without_names_are_never_read_in_another_order(order, pixels, hard):
    """Of people of these sizes in all poses: most are recognised, the others refused."""
    found = []
    for person in hard.values():
        sequence = frames(person * [pixels / 600, pixels / 600, 1], order)
        try:
            found.append(find_order(Path(), sequence))
        except RawDataError as error:
            assert error.reason == "unknown_joint_order"
    assert {*found} == {order} and len(found) > len(hard) / 2


@pytest.mark.parametrize("order", SIDES)
def test_names_that_the_numbers_contradict_are_refused_with_the_order_that_fits(
    order, spin49, hard
):
    names = skeletons.joint_names(order)
    for person in (spin49, *hard.values()):
        named = joints(frames(person, order))
        assert not _check_named_order(Path(), names, named, named)
    named = joints(frames(spin49, order))
    with pytest.raises(RawDataError, match=f"names that the numbers contradict.* fit {order}"):
        _check_named_order(Path(), names[::-1], named, named)


@pytest.mark.parametrize("share", [0.01, 0.02])
@pytest.mark.parametrize("order", ["coco", "openpose_coco", "body_25", "halpe_26"])
def test_joints_that_shake_are_no_false_alarm(order, share, hard):
    """By shares of the person's height, about 600 px."""
    rng = np.random.default_rng(3)
    for name, person in hard.items():
        shaken = person + rng.normal(0, 600 * share, person.shape) * [1, 1, 0]
        assert find_order(Path(), frames(shaken, order)) == order, name

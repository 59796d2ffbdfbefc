"""A detector's joint order is told by geometry: procedural bodies in every known layout, and real
output.
"""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline import skeletons
from pipeline.body import Body
from pipeline.errors import RawDataError
from pipeline.files.formats.people.detections import find_order
from pipeline.files.formats.people.found import ORDERS

KNOWN = [order for orders in ORDERS.values() for order in orders]
N_FRAMES = 24

Frames = list[NDArray[np.float64]]


body = functools.cache(Body.stand_in)


def seen(pose: NDArray[np.float64], yaw: NDArray[np.float64]) -> NDArray[np.float64]:
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
def spin49() -> NDArray[np.float64]:
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
def hard() -> dict[str, NDArray[np.float64]]:
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


def frames(spin49: NDArray[np.float64], order: str) -> Frames:
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
def test_an_order_is_told_from_those_of_the_same_length(
    order: str, spin49: NDArray[np.float64]
) -> None:
    assert find_order(Path(), frames(spin49, order)) == order


@pytest.mark.parametrize("order", ["coco", "openpose_coco", "body_25", "halpe_26"])
def test_an_order_that_is_not_known_fits_none(order: str, spin49: NDArray[np.float64]) -> None:
    shuffled = np.random.default_rng(1).permutation(len(skeletons.joint_names(order)))
    with pytest.raises(
        RawDataError,
        match=f"{len(shuffled)} joints in an order that is not known: as {order}, bones",
    ):
        find_order(Path(), [persons[:, shuffled] for persons in frames(spin49, order)])


@pytest.mark.parametrize("order", ["coco", "body_25", "body_25b", "halpe_26"])
def test_one_tangled_frame_in_three_does_not_decide(
    order: str, spin49: NDArray[np.float64]
) -> None:
    sequence = frames(spin49, order)
    rng = np.random.default_rng(2)
    for number in range(0, N_FRAMES, 3):
        sequence[number] = rng.permuted(sequence[number], axis=1)
    assert find_order(Path(), sequence) == order


@pytest.mark.parametrize(
    "hidden", [(), LEGS, FACE, (*FACE, "ear"), ("ankle", "toe", "heel"), ("wrist",)]
)
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
def test_two_joints_decide_nothing(order: str, spin49: NDArray[np.float64]) -> None:
    sequence = frames(spin49, order)
    for persons in sequence:
        persons[:, 2:] = 0
    assert find_order(Path(), sequence) == order

"""A small body with Anny's names, made here: every keypoint is a vertex that hangs on one bone."""

import numpy as np
import torch

from pipeline.extras.bodies import fitting
from pipeline.extras.bodies.body import PARAMETERS, AnnyBody
from pipeline.extras.bodies.body_file import BodyArrays
from pipeline.extras.bodies.fitting import BONES
from pipeline.people.rotations import axis_angle_to_matrix
from pipeline.people.skeletons import BLAZE

MIDDLE = {  # bone -> parent, head in m; the body faces -y, z is up, its left is at +x
    "root": ("", (0, 0, 0)),
    "spine04": ("root", (0, 0, 0.1)),
    "spine02": ("spine04", (0, 0, 0.3)),
    "neck01": ("spine02", (0, 0, 0.5)),
    "head": ("neck01", (0, 0, 0.6)),
}
LEFT = {
    "upperleg01": ("root", (0.1, 0, 0)),
    "lowerleg01": ("upperleg01", (0.12, 0, -0.4)),
    "foot": ("lowerleg01", (0.14, 0, -0.8)),
    "toe2-1": ("foot", (0.14, -0.15, -0.85)),
    "clavicle": ("spine02", (0.03, 0, 0.45)),
    "upperarm01": ("clavicle", (0.18, 0, 0.45)),
    "lowerarm01": ("upperarm01", (0.35, 0, 0.25)),
    "wrist": ("lowerarm01", (0.5, -0.05, 0.1)),
    "finger1-2": ("wrist", (0.5, -0.1, 0.05)),
    "finger2-1": ("wrist", (0.55, -0.08, 0.03)),
    "finger5-1": ("wrist", (0.55, 0.0, 0.03)),
}
KEYPOINTS = {  # keypoint -> bone, place in m; None: the bone's head
    "nose": ("head", (0, -0.12, 0.65)),
    "eye": ("head", (0.03, -0.1, 0.68)),
    "ear": ("head", (0.07, 0, 0.66)),
    "shoulder": ("upperarm01", None),
    "elbow": ("lowerarm01", None),
    "wrist": ("wrist", None),
    "hip": ("upperleg01", None),
    "knee": ("lowerleg01", None),
    "ankle": ("foot", None),
    "big_toe": ("foot", (0.12, -0.2, -0.86)),
    "small_toe": ("foot", (0.2, -0.16, -0.86)),
    "heel": ("foot", (0.14, 0.05, -0.86)),
}


def mirror(place, side):
    return np.array(place) * [1 if side == "L" else -1, 1, 1]


def make_body():
    """`height` makes it 40 % taller, `proportions` its legs 20 % longer; the other parameters
    change nothing.
    """
    bones = dict(MIDDLE)
    for side in "LR":
        for name, (parent, head) in LEFT.items():
            bones[f"{name}.{side}"] = (
                parent if parent in MIDDLE else f"{parent}.{side}",
                tuple(mirror(head, side)),
            )
    numbers = {name: i for i, name in enumerate(bones)}
    heads = np.array([head for _, head in bones.values()], np.float32)
    vertices, weights, names = [], [], []
    for name, (bone, place) in KEYPOINTS.items():
        for side in "L" if name == "nose" else "LR":
            names.append(name if name == "nose" else f"{'left' if side == 'L' else 'right'}_{name}")
            number = numbers[bone if bone in bones else f"{bone}.{side}"]
            vertices.append(heads[number] if place is None else mirror(place, side))
            weights.append(np.eye(len(bones))[number])
    template = np.array(vertices, np.float32)

    def shapes(points):
        legs = 0.2 * np.where(points[:, 2:] < 0, points, 0)
        return np.repeat([np.zeros_like(points), 0.4 * points, legs], 72, axis=0).astype(np.float32)

    n = len(bones)
    identity = np.tile(np.eye(3, dtype=np.float32), (n, 1, 1))
    return BodyArrays(
        template=template,
        shapes=shapes(template),
        faces=np.array([[0, 1, 2], [0, 2, 1], [3, 4, 5], [5, 4, 3]], np.int32),
        weights=np.array(weights, np.float32),
        keypoints=np.eye(len(names), dtype=np.float32),
        heads=heads,
        head_shapes=shapes(heads),
        # Distinct singular values, the nearest rotation is the identity.
        orientations=identity * np.array([1.5, 1.0, 0.5], np.float32),
        orientation_shapes=np.zeros((216, n, 3, 3), np.float32),
        references=identity,
        parents=np.array([numbers.get(parent, -1) for parent, _ in bones.values()], np.int32),
        bone_names=np.array([*bones]),
        keypoint_names=np.array(names),
    )


TO_CAMERA = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # upright, facing the camera


def height_of(body, rest):
    return float(np.ptp(body.points(rest)[:, 2].numpy()))


def plant(arrays, n, parameters):
    """Joints (n, 33, 4) of a body that turns, walks and waves, about the middle of the hips; and
    its height in m.
    """
    body = AnnyBody(arrays, BONES)
    rest = body.shape(torch.tensor([parameters.get(name, 0.5) for name in PARAMETERS]))
    angles, t = torch.zeros(n, len(BONES), 3), torch.arange(n) / 15
    for side, sign in (("L", 1), ("R", -1)):
        angles[:, BONES.index(f"upperleg01.{side}"), 0] = 0.6 * sign * torch.sin(t)
        angles[:, BONES.index(f"lowerleg01.{side}"), 0] = 0.5 - 0.4 * torch.cos(t)
        angles[:, BONES.index(f"upperarm01.{side}"), 1] = -0.9 * sign * torch.sin(t / 2)
        angles[:, BONES.index(f"lowerarm01.{side}"), 2] = 0.7 * sign * torch.cos(t / 3)
    angles[:, BONES.index("spine04"), 2] = 0.2 * torch.sin(t)
    matrices = axis_angle_to_matrix(angles)
    matrices[:, 0] = TO_CAMERA @ axis_angle_to_matrix(torch.stack([0 * t, 0 * t, t / 2], 1))
    shown = body.pose(body.keypoint_levers(rest), matrices, torch.zeros(n, 3)).numpy()
    blaze, own, *_ = fitting._match_points(body)
    joints = np.zeros((n, len(BLAZE), 4))
    joints[:, blaze, :3], joints[..., 3] = shown[:, own], 1
    hips = [BLAZE.index("left_hip"), BLAZE.index("right_hip")]
    joints[..., :3] -= joints[:, hips, :3].mean(1, keepdims=True)
    return joints, height_of(body, rest)

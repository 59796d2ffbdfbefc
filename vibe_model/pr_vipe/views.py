"""Made-up cameras about 3D poses, and how far poses are from one another.  windows -> [training, evaluation]

A pose is (13, 3) in the order of KEYPOINTS_13: x to the right, y down, z away from the camera, in torso sizes about the
middle of the hips (`metrics.normalise_13`).
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.features.networks.pr_vipe import TORSO
from pipeline.skeletons import KEYPOINTS_13
from vibe_model.rotations import axis_angle_to_matrix

LARGEST: Final = (math.radians(30), math.pi, math.radians(30))  # turns about x, y and z, either way
NEAREST: Final = 0.25  # torso sizes before the camera: what is nearer is not seen
LIMBS: Final = tuple(
    (KEYPOINTS_13.index(side + a), KEYPOINTS_13.index(side + b))
    for side in "lr"
    for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
)


class Views(NamedTuple):
    """Poses as made-up cameras see them."""

    keypoints: Tensor  # (N, 13, 3) x, y, visibility; the focal length is 1
    poses: Tensor  # (N, 13, 3) in the camera's axes, about the hips


def seen(poses: Tensor, shown: Tensor, *, depth: float, noise: float = 0.0) -> Views:
    """Poses (N, 13, 3) by a camera each, drawn from torch's generator. shown: (N, 13) joints that there are.

    The camera looks at the hips from `depth` torso sizes. noise: of keypoints, in sizes of the torso as it is seen.
    """
    n = len(poses)
    largest = poses.new_tensor(LARGEST)
    turns = axis_angle_to_matrix(torch.diag_embed((2 * torch.rand(n, 3).to(poses) - 1) * largest))  # (N, 3, 3, 3)
    elevation, azimuth, roll = turns.unbind(1)
    turned = poses @ (roll @ elevation @ azimuth).mT
    z = turned[..., 2] + depth
    xy = turned[..., :2] / z.clamp(min=NEAREST)[..., None]
    if noise:
        torso = xy[:, TORSO]
        size = (torso[:, :, None] - torso[:, None]).norm(dim=-1).amax((1, 2))
        xy = xy + noise * size[:, None, None] * torch.randn(xy.shape).to(poses)
    visible = shown & (z > NEAREST)
    return Views(torch.cat((xy, visible[..., None].to(poses)), dim=-1), turned)


def foreshortened(poses: Tensor, depth: float, degrees: float = 15.0) -> Tensor:
    """Is a limb within so many degrees of the ray that it is seen along? (N, 13, 3) as seen -> (N,)."""
    points = poses + poses.new_tensor((0.0, 0.0, depth))
    first, second = (points[:, [limb[end] for limb in LIMBS]] for end in (0, 1))
    along, ray = second - first, first + second
    cosine = (along * ray).sum(-1).abs() / (along.norm(dim=-1) * ray.norm(dim=-1)).clamp(min=1e-12)
    is_foreshortened: Tensor = (cosine > math.cos(math.radians(degrees))).any(-1)
    return is_foreshortened


def pose_distances(poses: Tensor, others: Tensor) -> Tensor:
    """NP-MPJPE of every pose, aligned to every other one: normalised (A, J, 3), (B, J, 3) -> (A, B).

    `metrics.np_mpjpe` of all pairs at once, on any device.
    """
    source, goal = (points - points.mean(1, keepdim=True) for points in (poses, others))
    u, singular, vt = torch.linalg.svd(torch.einsum("bjx,ajy->abxy", goal, source))
    sign = torch.ones_like(singular)
    sign[..., -1] = torch.where(torch.linalg.det(u @ vt) < 0, -1.0, 1.0)  # no reflections
    scale = (singular * sign).sum(-1) / source.square().sum((-2, -1)).clamp(min=1e-12)[:, None]
    similarity = scale[..., None, None] * (u * sign[..., None, :]) @ vt
    found: Tensor = (torch.einsum("abxy,ajy->abjx", similarity, source) - goal).norm(dim=-1).mean(-1)
    return found


def flat_distances(keypoints: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
    """The baseline's: the mean distance of 2D keypoints, in torso sizes, after the best similarity in the picture.

    (A, J, 2) and (B, J, 2), centred and normalised by the torso -> (A, B).
    """
    a, b = (points[..., 0] + 1j * points[..., 1] for points in (keypoints, others))
    a, b = (points - points.mean(1, keepdims=True) for points in (a, b))
    turn = (a.conj() @ b.T) / np.maximum((abs(a) ** 2).sum(1), 1e-12)[:, None]  # (A, B) scale and rotation
    rows = [abs(turn[i][:, None] * a[i] - b).mean(1) for i in range(len(a))]
    return np.array(rows, np.float64)

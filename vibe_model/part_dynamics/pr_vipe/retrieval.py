"""Virtual views of 3D poses, and pose retrieval across cameras.  [training, evaluation]

A pose is (13, 3) in the order of KEYPOINTS_13: x right, y down, z forward, in torso sizes relative
to the middle of the hips (`metrics.normalise_13`). Retrieval follows Sun et al., ECCV 2020: views
of one camera are queries, those of another one the gallery. Hit@k is the share of queries with the
same pose (NP-MPJPE <= 0.1) among the k nearest views.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.rotations import axis_angle_to_matrix
from pipeline.skeletons import KEYPOINTS_13
from vibe_model.constants import constant
from vibe_model.part_dynamics.pr_vipe.losses import KAPPA
from vibe_model.part_dynamics.pr_vipe.network import TORSO, PrVIPE
from vibe_model.part_dynamics.pr_vipe.poses import NOSE, PoseSet

RANKS: Final = (1, 10, 20)
AT_ONCE: Final = 64  # queries compared at once
# rotations about x, y and z in both directions
LARGEST: Final = (math.radians(30), math.pi, math.radians(30))
_TINY: Final = 1e-30  # instead of 0, to divide by
_EQUAL: Final = 1e-7  # difference of two eigenvalues that count as one, relative to the norm
NEAREST: Final = 0.25  # torso sizes from the camera; nearer points are invisible
LIMBS: Final = tuple(
    (KEYPOINTS_13.index(side + a), KEYPOINTS_13.index(side + b))
    for side in "lr"
    for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
)


class Views(NamedTuple):
    """Poses seen by virtual cameras."""

    keypoints: Tensor  # (N, 13, 3) x, y, visibility; focal length 1
    poses: Tensor  # (N, 13, 3) in camera axes, relative to the hips


def render_views(poses: Tensor, shown: Tensor, *, depth: float, noise: float = 0.0) -> Views:
    """Project poses (N, 13, 3) by random cameras, one each, from torch's generator.

    The cameras look at the hips from `depth` torso sizes. shown: (N, 13) known joints. noise:
    Standard deviation of the keypoints, in projected torso sizes.
    """
    n = len(poses)
    largest = constant(LARGEST, poses)
    # (N, 3, 3, 3)
    turns = axis_angle_to_matrix(torch.diag_embed((2 * torch.rand(n, 3).to(poses) - 1) * largest))
    elevation, azimuth, roll = turns.unbind(1)
    turned = poses @ (roll @ elevation @ azimuth).mT
    z = turned[..., 2] + depth
    xy = turned[..., :2] / z.clamp(min=NEAREST)[..., None]
    if noise:
        torso = xy[:, constant(TORSO, xy)]
        size = (torso[:, :, None] - torso[:, None]).norm(dim=-1).amax((1, 2))
        xy = xy + noise * size[:, None, None] * torch.randn(xy.shape).to(poses)
    visible = shown & (z > NEAREST)
    return Views(torch.cat((xy, visible[..., None].to(poses)), dim=-1), turned)


def has_foreshortened_limb(poses: Tensor, depth: float, degrees: float = 15.0) -> Tensor:
    """Whether a limb is within `degrees` of its viewing ray: (N, 13, 3) in camera axes -> (N,)."""
    points = poses + poses.new_tensor((0.0, 0.0, depth))
    first, second = (points[:, [limb[end] for limb in LIMBS]] for end in (0, 1))
    along = second - first
    ray = first + second
    cosine = (along * ray).sum(-1).abs() / (along.norm(dim=-1) * ray.norm(dim=-1)).clamp(min=1e-12)
    is_foreshortened: Tensor = (cosine > math.cos(math.radians(degrees))).any(-1)
    return is_foreshortened


def pose_distances(poses: Tensor, others: Tensor) -> Tensor:
    """NP-MPJPE of all pairs of normalised poses (A, J, 3), (B, J, 3) -> (A, B), as
    `metrics.np_mpjpe`.
    """
    source, goal = (points - points.mean(1, keepdim=True) for points in (poses, others))
    products = torch.einsum("bjx,ajy->abxy", goal, source)
    rotation = _closest_rotations(products)
    scale = (rotation * products).sum((-2, -1)) / source.square().sum((-2, -1)).clamp(min=1e-12)[
        :, None
    ]
    similarity = scale[..., None, None] * rotation
    found: Tensor = (
        (torch.einsum("abxy,ajy->abjx", similarity, source) - goal).norm(dim=-1).mean(-1)
    )
    return found


def _closest_rotations(products: Tensor) -> Tensor:
    """Rotations R (..., 3, 3) with the largest trace of R^T M for matrices M, computed in float64
    without an SVD.

    R's quaternion is the eigenvector of the largest eigenvalue of a 4 x 4 matrix (Horn, JOSA A
    1987), whose eigenvalues are sums of M's singular values a >= b >= |c|, c with the sign of
    det(M). Where the largest one is not single, any of its eigenvectors is taken.
    """
    m = products.double()
    m = m / m.flatten(-2).norm(dim=-1).clamp(min=_TINY)[..., None, None]
    # eigenvalues in closed form
    deviation = m.mT @ m - torch.eye(3, dtype=m.dtype, device=m.device) / 3
    p = (deviation.square().sum((-2, -1)) / 6).sqrt()
    angle = (torch.linalg.det(deviation) / (2 * p**3).clamp(min=_TINY)).clamp(-1, 1).acos() / 3
    largest = 1 / 3 + 2 * p * angle.cos()
    a = largest.sqrt()
    rest = (1 - largest).clamp(min=0)
    bc = torch.linalg.det(m) / largest.sqrt()
    b = ((rest + (rest.square() - 4 * bc.square()).clamp(min=0).sqrt()) / 2).sqrt()
    c = torch.minimum(torch.maximum(bc / b.clamp(min=_TINY), -b), b)
    horn = _quaternion_products(m.device)
    matrix = (m.flatten(-2) @ horn.T).reshape(*m.shape[:-2], 4, 4)
    space = torch.eye(4, dtype=m.dtype, device=m.device).expand(matrix.shape)
    # project it out, unless it equals the largest
    for eigenvalue in (c - a - b, b - a - c, a - b - c):
        projected = matrix @ space - eigenvalue[..., None, None] * space
        size = projected.abs().amax((-2, -1), keepdim=True)
        space = torch.where(size > _EQUAL, projected / size, space)
    space = space @ space  # squares the remainders of the others
    column = space.abs().sum(-2, keepdim=True).argmax(-1, keepdim=True)
    quaternion = space.gather(-1, column.expand(*space.shape[:-1], 1))
    pairs = quaternion @ quaternion.mT / quaternion.square().sum(-2, keepdim=True)
    return (pairs.flatten(-2) @ horn).view(m.shape).to(products)


@functools.cache
def _quaternion_products(device: torch.device) -> Tensor:
    """(16, 9): a unit quaternion's products q_i q_j, w first, times this are its rotation
    matrix.
    """

    def rotation(q: Tensor) -> Tensor:  # quadratic in q
        w = q[0]
        v = q[1:]
        eye = torch.eye(3, dtype=q.dtype)
        across: Tensor = torch.linalg.cross(v.expand(3, 3), eye).mT
        return (w * w - v @ v) * eye + 2 * torch.outer(v, v) + 2 * w * across

    units = torch.eye(4, dtype=torch.float64)
    forms = [rotation(p + q) - rotation(p) - rotation(q) for p in units for q in units]
    return (torch.stack(forms) / 2).reshape(16, 9).to(device)


def flat_distances(
    keypoints: NDArray[np.floating], others: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Baseline: mean distance of 2D keypoints in torso sizes after the best 2D similarity
    transform.

    (A, J, 2) and (B, J, 2), centred and normalised by the torso -> (A, B).
    """
    a, b = (points[..., 0] + 1j * points[..., 1] for points in (keypoints, others))
    a, b = (points - points.mean(1, keepdims=True) for points in (a, b))
    # (A, B) scale and rotation
    turn = (a.conj() @ b.T) / np.maximum((abs(a) ** 2).sum(1), 1e-12)[:, None]
    rows = [abs(turn[i][:, None] * a[i] - b).mean(1) for i in range(len(a))]
    return np.array(rows, np.float64)


def hits(distances: NDArray[np.floating], pose_distances: NDArray[np.floating]) -> dict[str, float]:
    """hit_1, hit_10, hit_20 in %, from distances of views and NP-MPJPE, each (queries, gallery)."""
    order = np.argsort(distances, axis=1, kind="stable")[:, : max(RANKS)]
    same = np.take_along_axis(np.asarray(pose_distances) <= KAPPA, order, axis=1)
    return {f"hit_{k}": 100 * float(same[:, :k].any(1).mean()) for k in RANKS}


def evaluate(
    embedding: PrVIPE, poses: PoseSet, *, most: int, depth: float, samples: int, seed: int
) -> dict[str, float]:
    """Evaluate retrieval among at most `most` poses: between two virtual cameras, and between real
    cameras.

    Returns:
        hit_* and the baseline's procrustes_hit_*; cameras_hit_* and so on between real cameras, as
        means over pairs; numbers of poses and instants; std_foreshortened and std_other, the mean
        standard deviation of views with and without a limb along the viewing ray. Depends on `seed`
        only.
    """
    device = next(embedding.parameters()).device
    chosen = np.unique(np.linspace(0, len(poses) - 1, min(most, len(poses))).astype(np.int64))
    instants = poses.instants[
        np.linspace(0, len(poses.instants) - 1, min(most, len(poses.instants))).astype(np.int64)
    ]
    was_training = embedding.training
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        embedding.eval()
        shown = torch.from_numpy(poses.shown[chosen])
        points = torch.from_numpy(poses.poses[chosen])
        views = [render_views(points, shown, depth=depth) for _ in range(2)]
        between = _between(poses, chosen, chosen)
        pairs = [
            (first.keypoints, second.keypoints, between)
            for first, second in itertools.permutations(views)
        ]
        results: dict[str, float] = {
            "poses": len(chosen),
            **_means(embedding, pairs, samples, device),
        }
        stds = []
        along = []
        for view in views:
            stds.append(embedding(PrVIPE.normalise(view.keypoints)[0].to(device))[1].mean(1).cpu())
            along.append(has_foreshortened_limb(view.poses, depth))
        std = torch.cat(stds)
        is_along = torch.cat(along)
        for name, part in (("std_foreshortened", is_along), ("std_other", ~is_along)):
            if part.any():
                results[name] = float(std[part].mean())
        real = []
        for a, b in itertools.permutations(range(instants.shape[1] if len(instants) else 0), 2):
            rows = instants[(instants[:, [a, b]] >= 0).all(1)]
            if len(rows):
                kp_a, kp_b = (torch.from_numpy(poses.kp_2d[rows[:, camera]]) for camera in (a, b))
                real.append((kp_a, kp_b, _between(poses, rows[:, a], rows[:, b])))
        if real:
            cameras = _means(embedding, real, samples, device)
            results |= {
                "instants": len(instants),
                **{f"cameras_{name}": value for name, value in cameras.items()},
            }
    embedding.train(was_training)
    return results


def _between(
    poses: PoseSet, queries: NDArray[np.int64], gallery: NDArray[np.int64]
) -> NDArray[np.float32]:
    """NP-MPJPE of queries and gallery, without the nose if it is unknown in any pose."""
    joints = np.ones(poses.shown.shape[1], np.bool_)
    joints[NOSE] = poses.shown[np.concatenate([queries, gallery]), NOSE].all()
    all_poses = torch.from_numpy(poses.poses[gallery][:, joints])
    parts = torch.split(torch.from_numpy(poses.poses[queries][:, joints]), AT_ONCE)
    distances: NDArray[np.float32] = torch.cat(
        [pose_distances(part, all_poses) for part in parts]
    ).numpy()
    return distances


def _means(
    embedding: PrVIPE,
    pairs: list[tuple[Tensor, Tensor, NDArray[np.float32]]],
    samples: int,
    device: torch.device,
) -> dict[str, float]:
    """Mean hits over (queries, gallery, NP-MPJPE), of the embedding and of the baseline."""
    every = []
    for queries, gallery, between in pairs:
        normalised = [PrVIPE.normalise(points)[0] for points in (queries, gallery)]
        (mean_a, std_a), (mean_b, std_b) = (embedding(points.to(device)) for points in normalised)
        distances = embedding.distances(mean_a, std_a, mean_b, std_b, samples)
        flat_a, flat_b = (points[:, :26].reshape(-1, 13, 2).numpy() for points in normalised)
        plain = hits(flat_distances(flat_a, flat_b), between)
        every.append(
            hits(distances.cpu().numpy(), between)
            | {f"procrustes_{name}": value for name, value in plain.items()}
        )
    return {
        name: float(np.mean([hits_of_pair[name] for hits_of_pair in every])) for name in every[0]
    }

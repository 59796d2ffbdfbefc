"""Virtual views of 3D poses, and pose retrieval across cameras.  [training, evaluation]

A pose is (13, 3) in the order of KEYPOINTS_13: x right, y down, z forward, in torso sizes relative
to the middle of the hips (`metrics.normalise_13`). Training renders pairs of views by
`render_views`, and validates by `evaluate`.

Retrieval follows Sun et al., ECCV 2020, section 4: views of one camera are queries, those of
another one the gallery. Hit@k is the share of queries with the same pose (NP-MPJPE <= 0.1) among
the k nearest views, by the embedding's matching probability. The baseline compares 2D keypoints.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pipeline.people.rotations import axis_angle_to_matrix
from pipeline.people.skeletons import Doubles, Floats, Ints
from vibe_model.devices import constant
from vibe_model.networks import evaluating
from vibe_model.part_dynamics.pr_vipe.losses import KAPPA, pose_distances
from vibe_model.part_dynamics.pr_vipe.network import N_POINTS, PrVIPE, point_numbers
from vibe_model.part_dynamics.pr_vipe.poses import PoseSet

RANKS: Final = (1, 10, 20)
AT_ONCE: Final = 64  # queries compared at once
_TILT: Final = math.radians(30)
# of rotations about x (elevation), y (azimuth) and z (roll), in both directions, as the authors'
LARGEST_ANGLES: Final = (_TILT, math.pi, _TILT)
NEAREST: Final = 0.25  # torso sizes from the camera; nearer points are invisible
_LIMB_STARTS: Final = point_numbers("shoulder", "elbow", "hip", "knee")
_LIMB_ENDS: Final = point_numbers("elbow", "wrist", "knee", "ankle")


class _Views(NamedTuple):
    """Poses seen by virtual cameras."""

    keypoints: Tensor  # (N, 13, 3) x, y, visibility; focal length 1
    poses: Tensor  # (N, 13, 3) in camera axes, relative to the hips


class _Pair(NamedTuple):
    """Views of two cameras."""

    queries: Tensor  # (Q, 13, 3) keypoints
    gallery: Tensor  # (G, 13, 3)
    pose_distances: Floats  # (Q, G) NP-MPJPE


def render_views(poses: Tensor, shown: Tensor, *, depth: float, noise: float = 0.0) -> _Views:
    """Project poses (N, 13, 3) by random cameras, one each, from torch's generator.

    The cameras look at the hips from `depth` torso sizes. shown: (N, 13) known joints. noise:
    Standard deviation of the keypoints, in projected torso sizes.
    """
    shares = torch.rand(len(poses), 3).to(poses)
    angles = (2 * shares - 1) * constant(LARGEST_ANGLES, poses)
    turns = axis_angle_to_matrix(torch.diag_embed(angles))
    elevation, azimuth, roll = turns.unbind(1)
    turn = roll @ elevation @ azimuth
    turned = poses @ turn.mT

    # perspective projection with focal length 1
    z = turned[..., 2:] + depth
    xy = turned[..., :2] / z.clamp(min=NEAREST)
    if noise:
        lengths = PrVIPE.torso_sides(xy).norm(dim=-1)
        size = lengths.amax((1, 2))
        deviation = noise * size[:, None, None]
        xy = xy + deviation * torch.randn(xy.shape).to(poses)
    visible = shown[..., None] & (z > NEAREST)
    visible = visible.to(poses)
    keypoints = torch.cat((xy, visible), dim=-1)
    return _Views(keypoints, turned)


def _has_foreshortened_limb(poses: Tensor, depth: float) -> Tensor:
    """Whether a limb is within 15 degrees of its viewing ray: (N, 13, 3) in camera axes -> (N,)."""
    points = poses + poses.new_tensor((0.0, 0.0, depth))
    start = points[:, _LIMB_STARTS]
    end = points[:, _LIMB_ENDS]
    limb = end - start
    ray = start + end
    cosine = functional.cosine_similarity(limb, ray, dim=-1)
    is_foreshortened = cosine.abs() > math.cos(math.radians(15.0))
    return is_foreshortened.any(-1)


def _flat_distances(keypoints: Floats, others: Floats) -> Doubles:
    """Baseline: mean distance of 2D keypoints in torso sizes after the best 2D similarity
    transform.

    (A, J, 2) and (B, J, 2), centred and normalised by the torso -> (A, B).

    With points as complex numbers, scale and rotation are one factor w. The least squares of
    w source - goal are at w = <source, goal> / |source|^2.
    """
    source = _centred_complex(keypoints)
    goal = _centred_complex(others)
    squares = abs(source) ** 2
    spread = squares.sum(1, keepdims=True)
    products = source.conj() @ goal.T
    turns = products / np.maximum(spread, 1e-12)  # (A, B)
    rows = []
    for pose, turn in zip(source, turns, strict=True):
        aligned = turn[:, None] * pose
        errors = abs(aligned - goal)
        rows.append(errors.mean(1))
    return np.array(rows, np.float64)


def _centred_complex(points: Floats) -> NDArray[np.complexfloating]:
    """Points (N, J, 2) relative to their mean, as complex numbers (N, J)."""
    x, y = np.moveaxis(points, -1, 0)
    numbers: NDArray[np.complexfloating] = x + 1j * y
    numbers -= numbers.mean(1, keepdims=True)
    return numbers


def _hits(distances: Floats, between_poses: Floats) -> dict[str, float]:
    """hit_1, hit_10, hit_20 in %, from distances of views and NP-MPJPE, each (queries, gallery)."""
    order = np.argsort(distances, axis=1, kind="stable")
    is_same = np.take_along_axis(between_poses <= KAPPA, order, axis=1)
    shares = {}
    for k in RANKS:
        is_hit = is_same[:, :k].any(1)
        shares[f"hit_{k}"] = 100 * float(is_hit.mean())
    return shares


def evaluate(
    embedding: PrVIPE, poses: PoseSet, *, most: int, depth: float, samples: int, seed: int
) -> dict[str, float]:
    """Evaluate retrieval among at most `most` poses: between two virtual cameras, and between real
    cameras. Depends on `seed` only.

    Returns, as means over pairs of cameras (hits in %):

        poses                                    number of poses
        hit_1, hit_10, hit_20                    between virtual cameras
        procrustes_hit_1, ...                    the baseline's
        std_foreshortened, std_other             mean standard deviation of views with and without
                                                 a limb along the viewing ray
        instants                                 number of instants, with real cameras only
        cameras_hit_1, cameras_procrustes_hit_1, ...    between real cameras
    """
    rows = _spread_rows(len(poses), most)
    points = torch.from_numpy(poses.poses[rows])
    shown = torch.from_numpy(poses.shown[rows])
    distances = _distances_between(poses, rows, rows)
    results: dict[str, float] = {"poses": len(rows)}
    with torch.random.fork_rng(devices=[]), torch.no_grad(), evaluating(embedding):
        torch.manual_seed(seed)
        first = render_views(points, shown, depth=depth)
        second = render_views(points, shown, depth=depth)
        virtual_pairs = [
            _Pair(first.keypoints, second.keypoints, distances),
            _Pair(second.keypoints, first.keypoints, distances),
        ]
        results |= _mean_hits(embedding, virtual_pairs, samples)
        results |= _mean_stds(embedding, [first, second], depth)

        instant_rows = _spread_rows(len(poses.instants), most)
        instants = poses.instants[instant_rows]
        real_pairs = _real_pairs(poses, instants)
        if real_pairs:
            results["instants"] = len(instants)
            for name, value in _mean_hits(embedding, real_pairs, samples).items():
                results[f"cameras_{name}"] = value
    return results


def _spread_rows(n_rows: int, most: int) -> Ints:
    """Choose at most `most` of `n_rows` rows, spread evenly."""
    return np.linspace(0, n_rows - 1, min(most, n_rows), dtype=np.int64)


def _real_pairs(poses: PoseSet, instants: Ints) -> list[_Pair]:
    """Make a pair of views for each two cameras that saw some instants together.

    instants: (I, C) rows of `poses` by instant and camera; -1: the camera did not see it.
    """
    kp_2d = torch.from_numpy(poses.kp_2d)
    pairs = []
    for first, second in itertools.permutations(instants.T, 2):
        is_pair = (first >= 0) & (second >= 0)
        if is_pair.any():
            queries = first[is_pair]
            gallery = second[is_pair]
            distances = _distances_between(poses, queries, gallery)
            pairs.append(_Pair(kp_2d[queries], kp_2d[gallery], distances))
    return pairs


def _distances_between(poses: PoseSet, queries: Ints, gallery: Ints) -> Floats:
    """NP-MPJPE of rows of `poses`, without the nose if it is unknown in any of them."""
    compared = np.concatenate([queries, gallery])
    joints = poses.shown[compared].all(axis=0)
    points = torch.from_numpy(poses.poses[:, joints])
    goal = points[gallery]
    parts = []
    for some_queries in torch.split(points[queries], AT_ONCE):
        parts.append(pose_distances(some_queries, goal))
    distances: Floats = torch.cat(parts).numpy()
    return distances


def _mean_hits(embedding: PrVIPE, pairs: list[_Pair], samples: int) -> dict[str, float]:
    """Mean hits over pairs of cameras, of the embedding and of the baseline."""
    device = embedding.b.device
    by_name = defaultdict(list)
    for pair in pairs:
        queries, _ = PrVIPE.normalise(pair.queries)
        gallery, _ = PrVIPE.normalise(pair.gallery)
        mean_a, std_a = embedding(queries.to(device))
        mean_b, std_b = embedding(gallery.to(device))
        distances = embedding.distances(mean_a, std_a, mean_b, std_b, samples)
        shares = _hits(distances.cpu().numpy(), pair.pose_distances)
        flat = _flat_distances(_coordinates(queries), _coordinates(gallery))
        baseline = _hits(flat, pair.pose_distances)
        for name, share in shares.items():
            by_name[name].append(share)
            by_name[f"procrustes_{name}"].append(baseline[name])
    return {name: float(np.mean(shares)) for name, shares in by_name.items()}


def _coordinates(normalised: Tensor) -> Floats:
    """(N, 39) of `PrVIPE.normalise` -> (N, 13, 2)."""
    coordinates: Floats = normalised[:, : 2 * N_POINTS].numpy()
    return coordinates.reshape(-1, N_POINTS, 2)


def _mean_stds(embedding: PrVIPE, views: list[_Views], depth: float) -> dict[str, float]:
    """Mean standard deviation of views with and without a foreshortened limb."""
    stds = []
    masks = []
    for view in views:
        normalised, _ = PrVIPE.normalise(view.keypoints)
        _, std = embedding(normalised.to(embedding.b.device))
        stds.append(std.mean(1).cpu())
        masks.append(_has_foreshortened_limb(view.poses, depth))
    is_foreshortened = torch.cat(masks)
    std = torch.cat(stds)
    parts = {"std_foreshortened": std[is_foreshortened], "std_other": std[~is_foreshortened]}
    means = {}
    for name, part in parts.items():
        if len(part):
            means[name] = float(part.mean())
    return means

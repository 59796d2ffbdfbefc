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
from collections import defaultdict
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pipeline.rotations import axis_angle_to_matrix
from pipeline.skeletons import Doubles, Floats, Ints
from vibe_model.constants import constant
from vibe_model.networks import evaluating
from vibe_model.part_dynamics.pr_vipe.losses import KAPPA
from vibe_model.part_dynamics.pr_vipe.network import N_POINTS, PrVIPE, point_numbers
from vibe_model.part_dynamics.pr_vipe.poses import PoseSet

RANKS: Final = (1, 10, 20)
AT_ONCE: Final = 64  # queries compared at once
_TILT: Final = math.radians(30)
# of rotations about x, y and z, in both directions
LARGEST_ANGLES: Final = (_TILT, math.pi, _TILT)
_TINY: Final = 1e-30  # instead of 0, to divide by
_EQUAL: Final = 1e-7  # difference of two eigenvalues that count as one, relative to the norm
NEAREST: Final = 0.25  # torso sizes from the camera; nearer points are invisible
_LIMB_STARTS: Final = point_numbers("shoulder", "elbow", "hip", "knee")
_LIMB_ENDS: Final = point_numbers("elbow", "wrist", "knee", "ankle")


class Views(NamedTuple):
    """Poses seen by virtual cameras."""

    keypoints: Tensor  # (N, 13, 3) x, y, visibility; focal length 1
    poses: Tensor  # (N, 13, 3) in camera axes, relative to the hips


class _Pair(NamedTuple):
    """Views of two cameras."""

    queries: Tensor  # (Q, 13, 3) keypoints
    gallery: Tensor  # (G, 13, 3)
    pose_distances: Floats  # (Q, G) NP-MPJPE


def render_views(poses: Tensor, shown: Tensor, *, depth: float, noise: float = 0.0) -> Views:
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
    return Views(keypoints, turned)


def has_foreshortened_limb(poses: Tensor, depth: float, degrees: float = 15.0) -> Tensor:
    """Whether a limb is within `degrees` of its viewing ray: (N, 13, 3) in camera axes -> (N,)."""
    points = poses + poses.new_tensor((0.0, 0.0, depth))
    start = points[:, _LIMB_STARTS]
    end = points[:, _LIMB_ENDS]
    limb = end - start
    ray = start + end
    cosine = functional.cosine_similarity(limb, ray, dim=-1)
    is_foreshortened = cosine.abs() > math.cos(math.radians(degrees))
    return is_foreshortened.any(-1)


def pose_distances(poses: Tensor, others: Tensor) -> Tensor:
    """NP-MPJPE of all pairs of normalised poses (A, J, 3), (B, J, 3) -> (A, B), as
    `metrics.np_mpjpe`.
    """
    source = poses - poses.mean(1, keepdim=True)
    goal = others - others.mean(1, keepdim=True)
    products = torch.einsum("bjx,ajy->abxy", goal, source)
    rotation = _closest_rotations(products)
    trace = (rotation * products).sum((-2, -1))
    spread = source.square().sum((-2, -1))
    scale = trace / spread.clamp(min=1e-12)[:, None]
    similarity = scale[..., None, None] * rotation
    aligned = torch.einsum("abxy,ajy->abjx", similarity, source)
    errors: Tensor = (aligned - goal).norm(dim=-1)
    return errors.mean(-1)


def _closest_rotations(products: Tensor) -> Tensor:
    """Rotations R (..., 3, 3) with the largest trace of R^T M for matrices M, computed in float64
    without an SVD.

    R's quaternion is the eigenvector of the largest eigenvalue of a 4 x 4 matrix (Horn, JOSA A
    1987), whose eigenvalues are sums of M's singular values a >= b >= |c|, c with the sign of
    det(M). Where the largest one is not single, any of its eigenvectors is taken.
    """
    matrix = products.double()
    norm = torch.linalg.matrix_norm(matrix, keepdim=True)
    matrix = matrix / norm.clamp(min=_TINY)
    of_quaternion = _quaternion_products(matrix.device)
    flat = matrix.flatten(-2) @ of_quaternion.T
    horn = flat.view(*matrix.shape[:-2], 4, 4)

    a, b, c = _singular_values(matrix)[..., None, None]
    other_eigenvalues = (  # the largest is a + b + c
        c - a - b,
        b - a - c,
        a - b - c,
    )
    # The product of (H - eigenvalue) over them projects onto the largest one's eigenvectors.
    projector = torch.eye(4).to(horn)
    for eigenvalue in other_eigenvalues:
        product = horn @ projector - eigenvalue * projector
        size = product.abs().amax((-2, -1), keepdim=True)
        # left out if it equals the largest: the product would be 0
        projector = torch.where(size > _EQUAL, product / size, projector)
    projector = projector @ projector  # squares the remainders of the others

    # its columns are multiples of the quaternion; the largest is the most exact
    sizes = projector.abs().sum(-2, keepdim=True)
    largest = sizes.argmax(-1, keepdim=True)
    quaternion = torch.take_along_dim(projector, largest, -1)  # (..., 4, 1)
    squared = quaternion.square().sum(-2, keepdim=True)
    pairs = quaternion @ quaternion.mT / squared
    rotation = pairs.flatten(-2) @ of_quaternion
    return rotation.view_as(matrix).to(products)


def _singular_values(matrix: Tensor) -> Tensor:
    """a >= b >= |c| of matrices M (..., 3, 3) of Frobenius norm 1, c with the sign of det(M) -> (3,
    ...).

    a^2 is the largest eigenvalue of M^T M, in closed form (Smith, CACM 1961); the others follow
    from b^2 + c^2 = 1 - a^2 and b c = det(M) / a.
    """
    third = torch.eye(3).to(matrix) / 3
    deviation = matrix.mT @ matrix - third
    squares = deviation.square().sum((-2, -1))
    p = (squares / 6).sqrt()
    twice_cubed = (2 * p**3).clamp(min=_TINY)
    cosine = torch.linalg.det(deviation) / twice_cubed
    angle = cosine.clamp(-1, 1).acos() / 3
    largest = 1 / 3 + 2 * p * angle.cos()

    a = largest.sqrt()
    bc = torch.linalg.det(matrix) / a
    rest = (1 - largest).clamp(min=0)
    discriminant = rest.square() - 4 * bc.square()
    root = discriminant.clamp(min=0).sqrt()
    b = ((rest + root) / 2).sqrt()
    c = bc / b.clamp(min=_TINY)
    c = torch.maximum(c, -b)
    c = torch.minimum(c, b)
    return torch.stack((a, b, c))


@functools.cache
def _quaternion_products(device: torch.device) -> Tensor:
    """(16, 9): a unit quaternion's products q_i q_j, w first, times this are its rotation
    matrix.
    """

    def rotation(q: Tensor) -> Tensor:  # quadratic in q
        w = q[0]
        v = q[1:]
        eye = torch.eye(3, dtype=q.dtype)
        outer = torch.outer(v, v)
        across: Tensor = torch.linalg.cross(v.expand(3, 3), eye).mT
        real = w * w - v @ v
        return real * eye + 2 * outer + 2 * w * across

    products = []
    units = torch.eye(4).double()
    for p, q in itertools.product(units, units):
        twice = rotation(p + q) - rotation(p) - rotation(q)
        products.append(twice.flatten() / 2)
    return torch.stack(products).to(device)


def flat_distances(keypoints: Floats, others: Floats) -> Doubles:
    """Baseline: mean distance of 2D keypoints in torso sizes after the best 2D similarity
    transform.

    (A, J, 2) and (B, J, 2), centred and normalised by the torso -> (A, B).
    """
    source = _centred_complex(keypoints)
    goal = _centred_complex(others)
    squares = abs(source) ** 2
    spread = squares.sum(1, keepdims=True)
    products = source.conj() @ goal.T
    turns = products / np.maximum(spread, 1e-12)  # (A, B) scale and rotation
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


def hits(distances: Floats, between_poses: Floats) -> dict[str, float]:
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
    cameras.

    Returns:
        hit_* and the baseline's procrustes_hit_*; cameras_hit_* and so on between real cameras, as
        means over pairs; numbers of poses and instants; std_foreshortened and std_other, the mean
        standard deviation of views with and without a limb along the viewing ray. Depends on `seed`
        only.
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
        forth = _Pair(first.keypoints, second.keypoints, distances)
        back = _Pair(second.keypoints, first.keypoints, distances)
        results |= _mean_hits(embedding, [forth, back], samples)
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
        shares = hits(distances.cpu().numpy(), pair.pose_distances)
        flat = flat_distances(_coordinates(queries), _coordinates(gallery))
        baseline = hits(flat, pair.pose_distances)
        for name, share in shares.items():
            by_name[name].append(share)
            by_name[f"procrustes_{name}"].append(baseline[name])
    return {name: float(np.mean(shares)) for name, shares in by_name.items()}


def _coordinates(normalised: Tensor) -> Floats:
    """(N, 39) of `PrVIPE.normalise` -> (N, 13, 2)."""
    coordinates: Floats = normalised[:, : 2 * N_POINTS].numpy()
    return coordinates.reshape(-1, N_POINTS, 2)


def _mean_stds(embedding: PrVIPE, views: list[Views], depth: float) -> dict[str, float]:
    """Mean standard deviation of views with and without a foreshortened limb."""
    stds = []
    along = []
    for view in views:
        normalised, _ = PrVIPE.normalise(view.keypoints)
        _, std = embedding(normalised.to(embedding.b.device))
        stds.append(std.mean(1).cpu())
        along.append(has_foreshortened_limb(view.poses, depth))
    is_along = torch.cat(along)
    std = torch.cat(stds)
    parts = {"std_foreshortened": std[is_along], "std_other": std[~is_along]}
    means = {}
    for name, part in parts.items():
        if len(part):
            means[name] = float(part.mean())
    return means

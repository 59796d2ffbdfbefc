"""Pr-VIPE's losses, and the distances of 3D poses that they read.  windows -> [training]

Sun et al., ECCV 2020, with two details of the authors' implementation (google-research, poem):
semi-hard negatives, and a mean over triplets with a positive loss. Rows of the (B, B) distances are
anchors, columns are matches; the diagonal has each anchor's own match, another view of its pose.

`pose_distances` compares every pose of a batch with every other, and in retrieval every query with
the gallery: millions of similarity transforms of 3 x 3 matrices. A batched SVD of them is slow, so
the best rotations are computed in closed form.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Final

import torch
from torch import Tensor

KAPPA: Final = 0.1  # NP-MPJPE in torso sizes from which two poses are different
MARGIN: Final = math.log(2)  # of the triplets' ratio of probabilities
_TINY: Final = 1e-30  # instead of 0, to divide by, in float64
_LEAST_SPREAD: Final = 1e-12  # the same of a pose's squared size, in float32
_EQUAL: Final = 1e-7  # difference of two eigenvalues that count as one, relative to the norm


def triplet_ratio(distances: Tensor, pose_distances: Tensor) -> Tensor:
    """Mean of max(0, D(i, i+) - D(i, i-) + ln 2) over triplets in which it is positive, a scalar.

    An anchor's negative is the nearest match of a different pose that is farther than its own
    match; anchors without one are ignored. distances: (B, B), -log of matching probabilities;
    pose_distances: (B, B) NP-MPJPE.
    """
    to_own = distances.diagonal()  # (B,)
    is_other = ~torch.eye(len(distances), dtype=torch.bool, device=distances.device)
    is_different = pose_distances >= KAPPA
    is_farther = distances > to_own[:, None]
    semi_hard = is_other & is_different & is_farther

    nearest = torch.where(semi_hard, distances, torch.inf).amin(1)  # (B,)
    # without a negative, a distance whose hinge is 0
    negative = torch.where(semi_hard.any(1), nearest, to_own + 2 * MARGIN)
    difference = to_own - negative
    hinge = (difference + MARGIN).clamp(min=0)
    n_positive = (hinge > 0).sum()
    return hinge.sum() / n_positive.clamp(min=1)


def positive_pairwise(distances: Tensor) -> Tensor:
    """Mean distance of anchors (B, B) to their own match, a scalar."""
    return distances.diagonal().mean()


def prior(mean: Tensor, std: Tensor) -> Tensor:
    """Mean over poses of the KL divergence from the standard normal distribution, in nats. (N,
    size) each -> scalar.
    """
    squares = std.square() + mean.square()
    divergence = squares - 1 - 2 * std.log()
    return 0.5 * divergence.sum(-1).mean()


def pose_distances(poses: Tensor, others: Tensor) -> Tensor:
    """NP-MPJPE of all pairs of normalised poses (A, J, 3), (B, J, 3) -> (A, B): the mean distance
    of the joints after the best similarity transform (`metrics.np_mpjpe`), on any device.
    """
    source = poses - poses.mean(1, keepdim=True)
    goal = others - others.mean(1, keepdim=True)
    # the least squares of scale * R source - goal, with M = sum over joints of goal source^T:
    # R has the largest trace of R^T M, and scale = trace(R^T M) / |source|^2
    correlation = torch.einsum("bjx,ajy->abxy", goal, source)  # M
    rotation = _closest_rotations(correlation)
    trace = (rotation * correlation).sum((-2, -1))  # of R^T M
    squared_size = source.square().sum((-2, -1))
    scale = trace / squared_size.clamp(min=_LEAST_SPREAD)[:, None]
    similarity = scale[..., None, None] * rotation
    aligned = torch.einsum("abxy,ajy->abjx", similarity, source)
    errors: Tensor = (aligned - goal).norm(dim=-1)
    return errors.mean(-1)


def _closest_rotations(correlation: Tensor) -> Tensor:
    """Rotations R (..., 3, 3) with the largest trace of R^T M for matrices M, computed in float64
    without an SVD.

    R's quaternion is the eigenvector of the largest eigenvalue of a 4 x 4 matrix (Horn, JOSA A
    1987), whose eigenvalues are sums of M's singular values a >= b >= |c|, c with the sign of
    det(M). Where the largest one is not single, any of its eigenvectors is taken.
    """
    matrix = correlation.double()
    norm = torch.linalg.matrix_norm(matrix, keepdim=True)
    matrix = matrix / norm.clamp(min=_TINY)
    quaternion_to_rotation = _quaternion_to_rotation(matrix.device)
    # trace(R(q)^T M) = q^T H q
    flat = matrix.flatten(-2) @ quaternion_to_rotation.T
    horn = flat.view(*matrix.shape[:-2], 4, 4)

    a, b, c = _singular_values(matrix)[..., None, None]
    other_eigenvalues = (  # the largest is a + b + c
        c - a - b,
        b - a - c,
        a - b - c,
    )
    # The product of (H - eigenvalue) over them, in any order, projects onto the largest one's
    # eigenvectors. A factor is left out if its eigenvalue equals the largest: the product would be
    # 0.
    projector = torch.eye(4).to(horn)
    for eigenvalue in other_eigenvalues:
        product = horn @ projector - eigenvalue * projector
        size = product.abs().amax((-2, -1), keepdim=True)
        projector = torch.where(size > _EQUAL, product / size, projector)
    projector = projector @ projector  # squares the remainders of the others

    # its columns are multiples of the quaternion; the largest is the most exact
    sizes = projector.abs().sum(-2, keepdim=True)
    largest = sizes.argmax(-1, keepdim=True)
    quaternion = torch.take_along_dim(projector, largest, -1)  # (..., 4, 1)
    squared = quaternion.square().sum(-2, keepdim=True)
    products = quaternion @ quaternion.mT / squared  # q_i q_j of the unit quaternion
    rotation = products.flatten(-2) @ quaternion_to_rotation
    return rotation.view_as(matrix).to(correlation)


def _singular_values(matrix: Tensor) -> Tensor:
    """a >= b >= |c| of matrices M (..., 3, 3) of Frobenius norm 1, c with the sign of det(M) -> (3,
    ...).

    a^2 is the largest eigenvalue of A = M^T M, which has trace 1 (Smith, CACM 1961):

        B = A - I / 3,  p = sqrt(|B|^2 / 6),  a^2 = 1 / 3 + 2 p cos(acos(det(B) / (2 p^3)) / 3)

    b^2 and c^2 have the sum 1 - a^2 and the product (b c)^2 = (det(M) / a)^2: they are the roots of
    a quadratic equation.
    """
    third = torch.eye(3).to(matrix) / 3
    deviation = matrix.mT @ matrix - third  # B
    squares = deviation.square().sum((-2, -1))
    p = (squares / 6).sqrt()
    twice_cubed = (2 * p**3).clamp(min=_TINY)
    determinant = torch.linalg.det(deviation)
    cosine = determinant / twice_cubed
    angle = cosine.clamp(-1, 1).acos() / 3
    above_mean = 2 * p * angle.cos()
    a_squared = 1 / 3 + above_mean

    a = a_squared.sqrt()
    bc = torch.linalg.det(matrix) / a
    total = (1 - a_squared).clamp(min=0)  # b^2 + c^2
    discriminant = total.square() - 4 * bc.square()
    root = discriminant.clamp(min=0).sqrt()
    b_squared = (total + root) / 2
    b = b_squared.sqrt()
    c = bc / b.clamp(min=_TINY)
    c = torch.maximum(c, -b)
    c = torch.minimum(c, b)
    return torch.stack((a, b, c))


@functools.cache
def _quaternion_to_rotation(device: torch.device) -> Tensor:
    """The matrix (16, 9) that maps the products q_i q_j of a unit quaternion, w first, to its
    rotation matrix.

    By polarisation: the bilinear form of a quadratic function R is (R(p + q) - R(p) - R(q)) / 2.
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
        separate = rotation(p) + rotation(q)
        twice = rotation(p + q) - separate
        products.append(twice.flatten() / 2)
    return torch.stack(products).to(device)

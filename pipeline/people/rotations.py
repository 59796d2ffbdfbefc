"""Rotations: 6D, matrices, axis-angle.  features -> windows -> [training, evaluation]

Functions of tensors have finite gradients at every rotation, also at the identity and at half a
turn.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.people.skeletons import Doubles, Floats

# Squared angle (or sine) below which a series replaces the closed form; its first omitted term is
# 1e-14 relative.
_SMALL: Final = 1e-7


def rotation_6d_to_matrix(rotation_6d: Tensor) -> Tensor:
    """Convert 6D rotations to matrices, by Gram-Schmidt (Zhou et al., CVPR 2019, eq. 15).

    rotation_6d: (..., 6), the rows of a (3, 2) matrix whose columns are the two vectors -> (..., 3,
    3).
    """
    columns = rotation_6d.reshape(*rotation_6d.shape[:-1], 3, 2)  # (..., 6) -> (..., 3, 2)
    first, second = columns.unbind(-1)  # (..., 3) each
    x = functional.normalize(first, dim=-1)
    along_x = (x * second).sum(-1, keepdim=True) * x
    y = functional.normalize(second - along_x, dim=-1)
    z = torch.linalg.cross(x, y)
    return torch.stack((x, y, z), dim=-1)  # (..., 3, 3), as columns


def matrix_to_axis_angle(matrix: Tensor) -> Tensor:
    """Convert rotations (..., 3, 3) to axis times angle, (..., 3) rad, with angles of at most pi.

    At exactly half a turn, either sign of the axis is right, and one of them is returned.
    """
    quaternion = _matrix_to_quaternion(matrix)  # (..., 4), w first
    # q and -q are one rotation; w >= 0 is the one of at most half a turn.
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    w = quaternion[..., :1]
    axis = quaternion[..., 1:]  # its length is the sine of half the angle
    sine_squared = axis.square().sum(-1, keepdim=True)
    is_small = sine_squared < _SMALL
    # The other branch must be finite: where() multiplies its gradient by 0, and 0 * inf is nan.
    ones = torch.ones_like(w)
    sine = torch.where(is_small, ones, sine_squared).sqrt()
    cosine = torch.where(is_small, w, ones)
    # angle / sin(angle / 2): the axis here has the length sin(angle / 2)
    first_order = 2 / cosine
    third_order = (2 / 3) * sine_squared / cosine**3
    series = first_order - third_order
    closed_form = 2 * torch.atan2(sine, w) / sine
    factor = torch.where(is_small, series, closed_form)
    return axis * factor


def axis_angle_to_matrix(axis_angle: Tensor) -> Tensor:
    """Rodrigues' formula: (..., 3) axis times angle in rad -> (..., 3, 3)."""
    angle_squared = axis_angle.square().sum(-1)[..., None, None]  # (..., 1, 1)
    x, y, z = axis_angle.unbind(-1)
    zero = torch.zeros_like(x)
    elements = (
        *(zero, -z, y),
        *(z, zero, -x),
        *(-y, x, zero),
    )
    cross = torch.stack(elements, dim=-1).reshape(*x.shape, 3, 3)  # [axis_angle]x
    identity = torch.eye(3, dtype=axis_angle.dtype, device=axis_angle.device)

    first_order = _sinc(angle_squared) * cross
    # (1 - cos t) / t^2 as 0.5 sinc(t / 2)^2: without the cancellation near 0.
    half_sinc = _sinc(angle_squared / 4)
    second_order = 0.5 * half_sinc.square() * (cross @ cross)
    return identity + first_order + second_order


def nearest_rotations(matrix: Floats) -> Doubles:
    """The rotation nearest to each matrix (..., 3, 3) by least squares; never a reflection."""
    u, _, vt = np.linalg.svd(matrix.astype(np.float64))
    is_mirror = np.linalg.det(u @ vt) < 0
    sign = np.where(is_mirror, -1.0, 1.0)
    u[..., -1] *= sign[..., None]
    rotation: Doubles = u @ vt
    return rotation


def _sinc(x_squared: Tensor) -> Tensor:
    """sin(x) / x as a function of x^2, smooth at 0."""
    is_small = x_squared < _SMALL
    ones = torch.ones_like(x_squared)
    x = torch.where(is_small, ones, x_squared).sqrt()
    series = 1 - x_squared / 6
    closed_form = x.sin() / x
    return torch.where(is_small, series, closed_form)


def _matrix_to_quaternion(matrix: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 4) unit quaternions, w first, of either sign (Shepperd 1978).

    Row i of the table is 4 q_i * q. The row of the largest component is never near zero:
    normalising it is well conditioned, and needs no square root of a difference.
    """
    rows = matrix.unbind(-2)
    r00, r01, r02 = rows[0].unbind(-1)
    r10, r11, r12 = rows[1].unbind(-1)
    r20, r21, r22 = rows[2].unbind(-1)

    ww = 1 + r00 + r11 + r22
    xx = 1 + r00 - r11 - r22
    yy = 1 - r00 + r11 - r22
    zz = 1 - r00 - r11 + r22
    wx = r21 - r12
    wy = r02 - r20
    wz = r10 - r01
    xy = r10 + r01
    xz = r02 + r20
    yz = r21 + r12
    products = (
        *(ww, wx, wy, wz),
        *(wx, xx, xy, xz),
        *(wy, xy, yy, yz),
        *(wz, xz, yz, zz),
    )
    table = torch.stack(products, dim=-1).reshape(*r00.shape, 4, 4)

    largest = table.diagonal(dim1=-2, dim2=-1).argmax(-1)  # (...)
    index = largest[..., None, None].expand(*largest.shape, 1, 4)
    row = table.gather(-2, index).squeeze(-2)
    return functional.normalize(row, dim=-1)

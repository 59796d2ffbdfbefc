"""SMPL's linear blend skinning in NumPy: pose and shape -> vertices and joints.  [motion] -> pixels and labels -> raw

Loper et al., "SMPL: A Skinned Multi-Person Linear Model", 2015, equations 2-10. NumPy, not the torch body that the
pipeline uses downstream: labels written here are thereby an independent check of that one, and no process that renders
has to import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.skeletons import JOINTS, convert
from pipeline.synthetic.body.body import VERTEX_IDS

if TYPE_CHECKING:
    from pipeline.smpl.assets import SmplArrays

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]

_SURFACE_POINTS: Final = [VERTEX_IDS[n.removeprefix("vertex_")] for n in JOINTS["smpl54"] if n.startswith("vertex_")]
CHUNK: Final = 64  # frames skinned at a time: 64 x 6890 x 12 numbers are 42 MB


class Skinned(NamedTuple):
    """T frames of one body, in the frame of `trans`."""

    verts: Array  # (T, V, 3) m
    joints: Array  # (T, 24, 3) m, SMPL's own


def rest_joints(body: SmplArrays, betas: Floats) -> Array:
    """The 24 joints of the shaped body in its rest pose, (24, 3) m."""
    return np.asarray(body.J_regressor @ _shaped(body, betas), np.float64)


def skin(
    body: SmplArrays, betas: Floats, pose: Floats, trans: Floats, vertices: NDArray[np.intp] | None = None
) -> Skinned:
    """Pose a body of one shape.

    betas (10,), pose (T, 72) axis-angle in rad, trans (T, 3) m; `vertices` restricts the result to V of the 6890.
    The root turns about its own joint, not about the origin, as in SMPL.
    """
    chosen = slice(None) if vertices is None else vertices
    shaped = _shaped(body, betas)
    rest = np.asarray(body.J_regressor @ shaped, np.float64)
    shaped, weights = shaped[chosen], np.asarray(body.weights[chosen], np.float64)
    posedirs = np.asarray(body.posedirs[chosen], np.float64).reshape(-1, 207)
    rotations = Rotation.from_rotvec(np.asarray(pose, np.float64).reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    turns, joints = _chain(rotations, rest, body.parents)
    joints = joints + np.asarray(trans)[:, None]
    verts = np.empty((len(joints), len(shaped), 3))
    for start in range(0, len(joints), CHUNK):
        part = slice(start, start + CHUNK)
        corrective = (rotations[part, 1:] - np.eye(3)).reshape(-1, 207) @ posedirs.T  # (t, 3 V), eq. 9
        posed_rest = shaped + corrective.reshape(-1, len(shaped), 3)
        offsets = joints[part] - np.einsum("tjab,jb->tja", turns[part], rest)
        transforms = np.concatenate([turns[part], offsets[..., None]], axis=-1).reshape(-1, 24, 12)
        blended = (weights @ transforms).reshape(-1, len(shaped), 3, 4)
        verts[part] = np.einsum("tvab,tvb->tva", blended[..., :3], posed_rest) + blended[..., 3]
    return Skinned(verts, joints)


def spin49(body: SmplArrays, skinned: Skinned) -> Array:
    """The joints of `pipeline.skeletons`' spin49 of a fully skinned body, (T, 49, 3) m."""
    verts = skinned.verts
    surface = verts[:, _SURFACE_POINTS]
    regressed = body.J_regressor_extra @ verts
    smpl54 = np.concatenate([skinned.joints, surface, regressed], axis=1)
    return np.asarray(convert(smpl54, source="smpl54", target="spin49"), np.float64)


def _shaped(body: SmplArrays, betas: Floats) -> Array:
    return np.asarray(body.v_template + body.shapedirs @ np.asarray(betas), np.float64)


def _chain(rotations: Array, rest: Array, parents: NDArray[Any]) -> tuple[Array, Array]:
    """Rotations relative to parents (T, 24, 3, 3) -> global ones and joint positions (T, 24, 3), trans 0; eq. 3-4."""
    turns, joints = rotations.copy(), np.empty((*rotations.shape[:2], 3))
    joints[:, 0] = rest[0]
    for j in range(1, len(rest)):
        parent = int(parents[j])
        turns[:, j] = turns[:, parent] @ rotations[:, j]
        joints[:, j] = joints[:, parent] + turns[:, parent] @ (rest[j] - rest[parent])
    return turns, joints

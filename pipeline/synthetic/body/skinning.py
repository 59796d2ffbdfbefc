"""SMPL's linear blend skinning in NumPy: pose and shape -> vertices, joints, normals.  [motion] -> pixels and labels

Loper et al., "SMPL: A Skinned Multi-Person Linear Model", 2015, equations 2-10. NumPy, not the torch body that the
pipeline uses downstream: labels written here are thereby an independent check of that one, and no process that renders
has to import torch.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial.transform import Rotation

from pipeline.skeletons import JOINTS, convert
from pipeline.smpl.assets import SmplArrays
from pipeline.synthetic.body.body import VERTEX_IDS

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
    turns, joints = rotations.copy(), np.empty((len(rotations), 24, 3))  # global, eq. 3-4
    joints[:, 0] = rest[0]
    for j in range(1, 24):
        parent = int(body.parents[j])
        turns[:, j] = turns[:, parent] @ rotations[:, j]
        joints[:, j] = joints[:, parent] + turns[:, parent] @ (rest[j] - rest[parent])
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
    regressed = body.J_regressor_extra @ skinned.verts
    smpl54 = np.concatenate([skinned.joints, skinned.verts[:, _SURFACE_POINTS], regressed], axis=1)
    return np.asarray(convert(smpl54, source="smpl54", target="spin49"), np.float64)


def _shaped(body: SmplArrays, betas: Floats) -> Array:
    return np.asarray(body.v_template + body.shapedirs @ np.asarray(betas), np.float64)


class SmoothNormals:
    """Which way the surface faces at the vertices of bodies of one topology: faces (F, 3), outward-oriented."""

    def __init__(self, faces: NDArray[Any]) -> None:
        self.faces = np.asarray(faces, np.int64)
        self.n_vertices = int(self.faces.max()) + 1
        corners = np.ones(self.faces.size, np.float32)
        rows, columns = self.faces.ravel(), np.repeat(np.arange(len(self.faces)), 3)
        self._faces_at_vertex = sparse.csr_array((corners, (rows, columns)), shape=(self.n_vertices, len(self.faces)))

    def __call__(self, verts: Floats) -> NDArray[np.float32]:
        """(V, 3) -> (V, 3) unit vectors outwards, averaged over the faces around a vertex, weighted by their area."""
        corners = verts.astype(np.float32)[self.faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        smooth = self._faces_at_vertex @ normals
        smooth /= np.linalg.norm(smooth, axis=1, keepdims=True) + np.float32(1e-20)
        return np.asarray(smooth, np.float32)

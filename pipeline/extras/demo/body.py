"""The procedural body in SMPL's format, posed in NumPy.  [body files] -> motion -> raw

SMPL may not be redistributed; this body replaces it in everything that runs without a licence. It
has 6890 vertices, 24 joints, SMPL's keys, and the vertices that other code selects by number (nose,
toes, heels, finger tips) in SMPL's places. It is not measured: results with it are functional tests
only, as a marker file and a key record.

The script that made the two `.npz` files beside this module is `tools/make_demo_body.py` of commit
82862ad1. Whoever commits other files raises `VERSION`.

Posing follows equations 2-10 of Loper et al., "SMPL: A Skinned Multi-Person Linear Model", 2015, in
NumPy: labels are an independent check of the pipeline's torch body.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cache import GENDERS
from pipeline.people.skeletons import JOINTS, Doubles, Floats, convert
from pipeline.people.smpl_files import SmplArrays

VERSION: Final = 1  # raised whenever the body changes
FILES: Final = ("body_shape.npz", "body_rig.npz")

VERTEX_IDS: Final = {  # smplx's extra joints (its table "smplh")
    "nose": 332, "leye": 2800, "reye": 6260, "lear": 583, "rear": 4071,
    "lbigtoe": 3216, "rbigtoe": 6617, "lsmalltoe": 3226, "rsmalltoe": 6624, "lheel": 3387,
    "rheel": 6787,
    "lthumb": 2746, "rthumb": 6191, "lindex": 2319, "rindex": 5782, "lmiddle": 2445,
    "rmiddle": 5905,
    "lring": 2556, "rring": 6016, "lpinky": 2673, "rpinky": 6133,
}  # fmt: skip
_SURFACE_POINTS: Final = [
    VERTEX_IDS[n.removeprefix("vertex_")] for n in JOINTS["smpl54"] if n.startswith("vertex_")
]
CHUNK: Final = 64  # frames skinned at a time: 64 x 6890 x 12 numbers are 42 MB


@cache
def procedural(gender: str = "neutral") -> SmplArrays:
    """The body, with read-only arrays, since it is cached."""
    arrays = _load_arrays()
    row = GENDERS.index(gender)
    gendered = {
        "v_template": arrays["v_template"][row],
        "digest": str(arrays["digest"][row]),
    }
    return SmplArrays(**(arrays | gendered), stand_in=True)


@cache
def _load_arrays() -> dict[str, Any]:
    """Load the arrays; `v_template` and `digest` have a row for each gender."""
    arrays: dict[str, Any] = {}
    for file in FILES:
        with np.load(Path(__file__).with_name(file)) as stored:
            arrays |= stored
    for array in arrays.values():
        array.setflags(write=False)
    return arrays


class _Skinned(NamedTuple):
    """T frames of one body, in the coordinates of `trans`."""

    verts: Doubles  # (T, V, 3) m
    joints: Doubles  # (T, 24, 3) m, SMPL's own


def rest_joints(body: SmplArrays, betas: Floats) -> Doubles:
    """Joints (24, 3) m of the shaped body in its rest pose."""
    return np.asarray(body.J_regressor @ _shape_vertices(body, betas), np.float64)


def skin(
    body: SmplArrays,
    betas: Floats,
    pose: Floats,
    trans: Floats,
    vertices: NDArray[np.intp] | None = None,
) -> _Skinned:
    """Pose a body of one shape.

    betas (10,), pose (T, 72) axis-angle in rad, trans (T, 3) m; `vertices`: indices of the V
    vertices to compute. The root rotates about its joint, not about the origin, as in SMPL.
    """
    chosen = slice(None) if vertices is None else vertices
    shaped = _shape_vertices(body, betas)[chosen]
    rest_pose = rest_joints(body, betas)
    weights = np.asarray(body.weights[chosen], np.float64)
    posedirs = _posedirs(body)[chosen].reshape(-1, 207)
    axis_angle = np.asarray(pose, np.float64).reshape(-1, 3)
    rotations = Rotation.from_rotvec(axis_angle).as_matrix().reshape(-1, 24, 3, 3)

    turns = rotations.copy()
    joints = np.empty((len(rotations), 24, 3))  # global, eq. 3-4
    joints[:, 0] = rest_pose[0]
    for j in range(1, 24):
        parent = int(body.parents[j])
        turns[:, j] = turns[:, parent] @ rotations[:, j]
        bone = rest_pose[j] - rest_pose[parent]
        joints[:, j] = joints[:, parent] + turns[:, parent] @ bone
    joints = joints + np.asarray(trans)[:, None]

    verts = np.empty((len(joints), len(shaped), 3))
    for start in range(0, len(joints), CHUNK):
        part = slice(start, start + CHUNK)
        pose_feature = (rotations[part, 1:] - np.eye(3)).reshape(-1, 207)
        corrective = pose_feature @ posedirs.T  # (t, 3 V), eq. 9
        posed_rest = shaped + corrective.reshape(-1, len(shaped), 3)
        offsets = joints[part] - np.einsum("tjab,jb->tja", turns[part], rest_pose)
        transforms = np.concatenate([turns[part], offsets[..., None]], axis=-1)  # (t, 24, 3, 4)
        blended = weights @ transforms.reshape(-1, 24, 12)
        blended = blended.reshape(-1, len(shaped), 3, 4)
        turned = np.einsum("tvab,tvb->tva", blended[..., :3], posed_rest)
        verts[part] = turned + blended[..., 3]
    return _Skinned(verts, joints)


def spin49(body: SmplArrays, skinned: _Skinned) -> Doubles:
    """Joints (T, 49, 3) m of spin49 from all vertices."""
    regressed = body.J_regressor_extra @ skinned.verts
    on_surface = skinned.verts[:, _SURFACE_POINTS]
    smpl54 = np.concatenate([skinned.joints, on_surface, regressed], axis=1)
    return np.asarray(convert(smpl54, source="smpl54", target="spin49"), np.float64)


@cache
def _posedirs(body: SmplArrays) -> Doubles:
    """Pose blend shapes (V, 3, 207) as float64, cached since the conversion is slow."""
    return np.asarray(body.posedirs, np.float64)


def _shape_vertices(body: SmplArrays, betas: Floats) -> Doubles:
    """Vertices (V, 3) m of the shaped body in its rest pose."""
    offsets = body.shapedirs @ np.asarray(betas)
    return np.asarray(body.v_template + offsets, np.float64)

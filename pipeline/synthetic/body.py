"""The procedural body: what SMPL's files hold, made by rule, and posed in NumPy.  [body files] -> motion -> raw

SMPL may not be redistributed, so everything that can be run without a licence runs on this body: 6890 vertices, 24
joints, the same keys, and the same places for the vertices that other code picks by number (nose, toes, heels, finger
tips). It is no measured body: results obtained with it show that the pipeline works and nothing else. A marker file in
its folder and a key in its model files record that.

It is posed by equations 2-10 of Loper et al., "SMPL: A Skinned Multi-Person Linear Model", 2015: here in NumPy, not by
the torch body that the pipeline uses downstream. So labels are an independent check of that one, and no process that
renders has to import torch.
"""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial.transform import Rotation

from pipeline.skeletons import JOINTS, convert
from pipeline.smpl.assets import MEAN_PARAMS, REGRESSOR_EXTRA, REGRESSOR_H36M, SmplArrays
from pipeline.synthetic import rig
from pipeline.synthetic.surface import Surface, surface

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]

VERSION: Final = 1  # raised whenever the body changes

VERTEX_IDS: Final = {  # where smplx finds its extra joints (its table "smplh", which SMPL shares)
    "nose": 332, "leye": 2800, "reye": 6260, "lear": 583, "rear": 4071,
    "lbigtoe": 3216, "rbigtoe": 6617, "lsmalltoe": 3226, "rsmalltoe": 6624, "lheel": 3387, "rheel": 6787,
    "lthumb": 2746, "rthumb": 6191, "lindex": 2319, "rindex": 5782, "lmiddle": 2445, "rmiddle": 5905,
    "lring": 2556, "rring": 6016, "lpinky": 2673, "rpinky": 6133,
}  # fmt: skip
_SURFACE_POINTS: Final = [VERTEX_IDS[n.removeprefix("vertex_")] for n in JOINTS["smpl54"] if n.startswith("vertex_")]
_EXTRA: Final = [n.removeprefix("extra_") for n in JOINTS["smpl54"] if n.startswith("extra_")]
_GENDER_BETAS: Final = {  # in the order of `rig.shape_blend_shapes`
    "neutral": np.zeros(10),
    "male": np.array([0.8, 0.0, 0.3, 0.3, 1.5, -0.8, 0.0, 0.8, 0.3, 0.3]),
    "female": np.array([-0.8, -0.2, -0.2, -0.3, -1.3, 1.2, 0.0, -0.6, -0.3, -0.3]),
}
_RELAXED: Final = {  # degrees, of the left side and the middle
    "pelvis": (180, 0, 0), "l_hip": (-6, 0, 3), "l_knee": (10, 0, 0), "l_ankle": (-4, 0, 0),
    "l_collar": (0, 0, -6), "l_shoulder": (0, -8, -58), "l_elbow": (0, -18, 0), "head": (4, 0, 0),
}  # fmt: skip
CHUNK: Final = 64  # frames skinned at a time: 64 x 6890 x 12 numbers are 42 MB


@cache
def procedural(gender: str = "neutral") -> SmplArrays:
    """The body in memory. It is deterministic and computed once in a process, so its arrays are read-only."""
    skin = _numbered(surface())
    weights = rig.skinning_weights(skin)
    shapedirs = np.stack(list(rig.shape_blend_shapes(skin.vertices, weights).values()), axis=-1)
    template = skin.vertices + shapedirs @ _GENDER_BETAS[gender]
    if gender == "female":
        template = template + rig.female_chest(skin)
    arrays = SmplArrays(
        v_template=template,
        shapedirs=shapedirs,
        posedirs=rig.pose_blend_shapes(skin, weights),
        J_regressor=rig.joint_regressor(skin, weights),
        weights=weights,
        parents=rig.PARENTS.astype(np.int64),
        faces=skin.faces,
        J_regressor_extra=rig.landmark_regressor(skin, _EXTRA),
        J_regressor_h36m=rig.landmark_regressor(skin, JOINTS["h36m"]),
        mean_pose=relaxed_pose()[..., :2].reshape(-1),
        mean_shape=np.zeros(10),
        mean_cam=np.array([0.9, 0.0, 0.0]),
        stand_in=True,
        digest="",
    )
    digest = hashlib.sha256()
    for field in fields(arrays):
        value = getattr(arrays, field.name)
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
            digest.update(f"{field.name} {value.dtype} {value.shape}\n".encode())
            digest.update(np.ascontiguousarray(value).tobytes())
    return replace(arrays, digest=digest.hexdigest())


def write_files(folder: Path) -> None:
    """Write every file that a folder of SMPL's has, for three genders."""
    for gender in _GENDER_BETAS:
        arrays = procedural(gender)
        kintree = np.stack([arrays.parents, np.arange(len(arrays.parents))])
        content = {  # the keys and types of SMPL's own pickles
            "v_template": arrays.v_template,
            "shapedirs": arrays.shapedirs,
            "posedirs": arrays.posedirs,
            "J_regressor": sparse.csc_matrix(arrays.J_regressor),
            "J": arrays.J_regressor @ arrays.v_template,
            "weights": arrays.weights,
            "kintree_table": (kintree % 2**32).astype(np.uint32),  # the root's parent, -1, is 4294967295
            "f": arrays.faces.astype(np.uint32),
            "bs_type": "lrotmin",
            "bs_style": "lbs",
            "stand_in": True,
        }
        (folder / f"SMPL_{gender.upper()}.pkl").write_bytes(pickle.dumps(content, protocol=2))
    neutral = procedural()
    np.save(folder / REGRESSOR_EXTRA, neutral.J_regressor_extra)
    np.save(folder / REGRESSOR_H36M, neutral.J_regressor_h36m)
    np.savez(folder / MEAN_PARAMS, pose=neutral.mean_pose, shape=neutral.mean_shape, cam=neutral.mean_cam)


def relaxed_pose() -> Array:
    """(24, 3, 3) standing at ease, seen by a camera whose y points down: the root is turned by pi about x."""
    degrees = _RELAXED | {f"r_{name[2:]}": (x, -y, -z) for name, (x, y, z) in _RELAXED.items() if name[:2] == "l_"}
    pose = np.tile(np.eye(3), (len(rig.JOINT_NAMES), 1, 1))
    for name, angles in degrees.items():
        pose[rig.JOINT_NAMES.index(name)] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    return pose


def _numbered(skin: Surface) -> Surface:
    """The same surface with its landmarks at SMPL's vertex numbers."""
    v, part = skin.vertices, skin.part

    def extreme(where: NDArray[np.bool_], score: Array) -> int:
        return int(np.flatnonzero(where)[score[where].argmax()])

    def near(*place: float) -> int:
        return int(((v - place) ** 2).sum(axis=1).argmin())

    landmarks = {
        "nose": extreme((part == "head") & (v[:, 0] == 0), v[:, 2]),
        "leye": near(0.032, 0.446, 0.095),
        "lear": extreme(part == "head", v[:, 0]),
        "lbigtoe": near(0.085, -1.150, 0.165),
        "lsmalltoe": near(0.152, -1.152, 0.135),
        "lheel": near(0.096, -1.145, -0.085),
        "lthumb": extreme((part == "thumb") & (v[:, 0] > 0), v[:, 2]),
    }
    landmarks |= {f"l{name}": extreme(part == name, v[:, 0]) for name in ("index", "middle", "ring", "pinky")}
    landmarks |= {f"r{name[1:]}": int(skin.mirror[k]) for name, k in landmarks.items() if name.startswith("l")}
    order = np.arange(len(v))  # new number -> old number
    for name, old in landmarks.items():
        new, now = VERTEX_IDS[name], int(np.flatnonzero(order == old)[0])
        order[[new, now]] = order[[now, new]]
    rank = np.argsort(order)  # old number -> new number
    return Surface(v[order], rank[skin.faces], part[order], rank[skin.mirror[order]])


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
    shaped, rest = _shaped(body, betas)[chosen], rest_joints(body, betas)
    weights = np.asarray(body.weights[chosen], np.float64)
    posedirs = _posedirs(body)[chosen].reshape(-1, 207)
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


@cache
def _posedirs(body: SmplArrays) -> Array:
    """(V, 3, 207): converting them takes as long as posing a few bodies."""
    return np.asarray(body.posedirs, np.float64)


def _shaped(body: SmplArrays, betas: Floats) -> Array:
    return np.asarray(body.v_template + body.shapedirs @ np.asarray(betas), np.float64)

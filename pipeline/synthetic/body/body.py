"""The procedural body: what SMPL's files hold, made by rule.  [body files] -> rendered raw datasets, tests, demo runs

SMPL may not be redistributed, so everything that can be run without a licence runs on this body: 6890 vertices, 24
joints, the same keys, and the same places for the vertices that other code picks by number (nose, toes, heels, finger
tips). It is no measured body: results obtained with it show that the pipeline works and nothing else. A marker file in
its folder and a key in its model files record that.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial.transform import Rotation

from pipeline.raw.stand_in import MARKER
from pipeline.smpl.assets import MEAN_PARAMS, REGRESSOR_EXTRA, REGRESSOR_H36M, SmplArrays
from pipeline.synthetic.body import rig
from pipeline.synthetic.body.surface import Surface, surface

VERSION: Final = 1  # raised whenever the body changes

VERTEX_IDS: Final = {  # where smplx finds its extra joints (its table "smplh", which SMPL shares)
    "nose": 332, "leye": 2800, "reye": 6260, "lear": 583, "rear": 4071,
    "lbigtoe": 3216, "rbigtoe": 6617, "lsmalltoe": 3226, "rsmalltoe": 6624, "lheel": 3387, "rheel": 6787,
    "lthumb": 2746, "rthumb": 6191, "lindex": 2319, "rindex": 5782, "lmiddle": 2445, "rmiddle": 5905,
    "lring": 2556, "rring": 6016, "lpinky": 2673, "rpinky": 6133,
}  # fmt: skip
H36M_ORDER: Final = (
    "hip", "lhip", "lknee", "lankle", "rhip", "rknee", "rankle", "spine", "neck", "head", "headtop",
    "lshoulder", "lelbow", "lwrist", "rshoulder", "relbow", "rwrist",
)  # fmt: skip

_GENDER_BETAS: Final = {  # in the order of `rig.SHAPES`
    "neutral": np.zeros(10),
    "male": np.array([0.8, 0.0, 0.3, 0.3, 1.5, -0.8, 0.0, 0.8, 0.3, 0.3]),
    "female": np.array([-0.8, -0.2, -0.2, -0.3, -1.3, 1.2, 0.0, -0.6, -0.3, -0.3]),
}


@cache
def procedural(gender: str = "neutral") -> SmplArrays:
    """The body in memory. It is deterministic and computed once in a process, so its arrays are read-only."""
    skin = _numbered(surface())
    weights = rig.skinning_weights(skin)
    shapedirs = rig.shape_blend_shapes(skin.vertices, weights)
    template = skin.vertices + shapedirs @ _GENDER_BETAS[gender]
    if gender == "female":
        template = template + rig.female_chest(skin.vertices, rig.vertex_normals(skin.vertices, skin.faces))
    arrays = SmplArrays(
        v_template=template,
        shapedirs=shapedirs,
        posedirs=rig.pose_blend_shapes(skin, weights),
        J_regressor=rig.joint_regressor(skin, weights),
        weights=weights,
        parents=rig.PARENTS.astype(np.int64),
        faces=skin.faces,
        J_regressor_extra=rig.landmark_regressor(skin, rig.EXTRA_ORDER),
        J_regressor_h36m=rig.landmark_regressor(skin, H36M_ORDER),
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


def write(folder: Path | str) -> None:
    """Write every file that a folder of SMPL's has, for three genders, and the marker of demo data."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # The marker first, so that a folder half-written by a killed run is recognised.
    note = {"what": "procedural stand-in for SMPL; not a measured body", "version": VERSION}
    (folder / MARKER).write_text(json.dumps(note, indent=2) + "\n")
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


def relaxed_pose() -> NDArray[np.float64]:
    """(24, 3, 3) standing at ease, seen by a camera whose y points down: the root is turned by pi about x."""
    degrees = {
        "pelvis": (180, 0, 0), "l_hip": (-6, 0, 3), "l_knee": (10, 0, 0), "l_ankle": (-4, 0, 0),
        "l_collar": (0, 0, -6), "l_shoulder": (0, -8, -58), "l_elbow": (0, -18, 0), "head": (4, 0, 0),
    }  # fmt: skip
    degrees |= {f"r_{name[2:]}": (x, -y, -z) for name, (x, y, z) in degrees.items() if name.startswith("l_")}
    pose = np.tile(np.eye(3), (len(rig.JOINT_NAMES), 1, 1))
    for name, angles in degrees.items():
        pose[rig.JOINT_NAMES.index(name)] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    return pose


def _numbered(skin: Surface) -> Surface:
    """The same surface with its landmarks at SMPL's vertex numbers."""
    v, part = skin.vertices, skin.part

    def extreme(where: NDArray[np.bool_], score: NDArray[np.float64]) -> int:
        return int(np.flatnonzero(where)[score[where].argmax()])

    def near(x: float, y: float, z: float) -> int:
        return int(((v - (x, y, z)) ** 2).sum(axis=1).argmin())

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
    order = np.arange(len(skin.vertices))  # new number -> old number
    for name, old in landmarks.items():
        new, now = VERTEX_IDS[name], int(np.flatnonzero(order == old)[0])
        order[[new, now]] = order[[now, new]]
    rank = np.argsort(order)  # old number -> new number
    return Surface(skin.vertices[order], rank[skin.faces], skin.part[order], rank[skin.mirror[order]])

"""Shape blend shapes of the stand-in body: ten ways in which people differ.  [rest shape -> rig] -> rendered datasets

Each direction is a smooth displacement of the rest surface, in metres per unit of beta, of the size that SMPL's first
ten have: with betas within +-2 the result is still a person.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from pipeline.synthetic.body.parts import Points, Scalars
from pipeline.synthetic.body.rig import JOINT_NAMES, JOINTS, PARENTS

NAMES: Final = (
    "stature",
    "girth",
    "leg_length",
    "arm_length",
    "shoulder_width",
    "hip_width",
    "belly",
    "chest_depth",
    "head_size",
    "limb_girth",
)


_LIMBS: Final = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")  # joints whose bones are arms and legs


def shape_blend_shapes(vertices: Points, weights: Points) -> Points:
    """(V, 3, 10) in the order of NAMES. Mirror images move as mirror images."""
    x, y, z = vertices.T
    side, across = np.sign(x), np.abs(x)
    zero = np.zeros_like(x)
    radial = _from_bones(vertices, weights)
    limb = weights[:, [k for k, name in enumerate(JOINT_NAMES) if name[2:] in _LIMBS]].sum(axis=1)[:, None]
    trunk = weights[:, [k for k, name in enumerate(JOINT_NAMES) if name[:2] not in ("l_", "r_", "he", "ne")]].sum(
        axis=1
    )
    head = weights[:, JOINT_NAMES.index("head")][:, None]
    hip, shoulder, skull = (JOINTS[JOINT_NAMES.index(name)] for name in ("l_hip", "l_shoulder", "head"))
    upper = _rise(y, 0.02, 0.20)
    lower = 1 - _rise(y, -0.30, -0.05)
    front = np.clip(z, 0, None) / 0.10
    columns = {
        "stature": 0.030 * (vertices - JOINTS[0]),
        "girth": 0.055 * radial * (1 - 0.7 * head),
        "leg_length": np.stack([zero, -0.035 * np.clip(hip[1] - y, 0, 0.75), zero], axis=-1),
        "arm_length": np.stack([0.035 * side * np.clip(across - shoulder[0], 0, 0.6), zero, zero], axis=-1),
        "shoulder_width": np.stack([0.012 * side * np.clip(across / shoulder[0], 0, 1) * upper, zero, zero], axis=-1),
        "hip_width": np.stack([0.008 * side * np.clip(across / 0.10, 0, 1) * lower, zero, zero], axis=-1),
        "belly": np.stack([zero, zero, 0.020 * front * _near(y, -0.09, 0.09) * trunk], axis=-1),
        "chest_depth": np.stack([zero, zero, 0.010 * z / 0.10 * _near(y, 0.13, 0.10) * trunk], axis=-1),
        "head_size": 0.025 * head * (vertices - skull),
        "limb_girth": 0.050 * limb * radial,
    }
    return np.stack([columns[name] for name in NAMES], axis=-1)


def female_chest(vertices: Points, normals: Points) -> Points:
    """(V, 3) the displacement that the female template has and no beta gives."""
    x, y, z = vertices.T
    bump = _near(np.abs(x), 0.072, 0.045) * _near(y, 0.110, 0.050) * np.clip(normals[:, 2], 0, 1) * (z > 0)
    return np.asarray(0.025 * bump[:, None] * np.array([0.0, -0.25, 1.0]))


def _near(value: Scalars, centre: float, width: float) -> Scalars:
    return np.asarray(np.exp(-(((value - centre) / width) ** 2)))


def _rise(value: Scalars, low: float, high: float) -> Scalars:
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _from_bones(vertices: Points, weights: Points) -> Points:
    """(V, 3) from the nearest point of the blended bones to the vertex: outwards, as far as it is thick."""
    ends = _bone_ends()
    start, along = JOINTS, ends - JOINTS
    length = np.maximum((along**2).sum(axis=1), 1e-9)
    offset = vertices[:, None] - start  # (V, 24, 3)
    t = np.clip(np.einsum("vjk,jk->vj", offset, along) / length, 0, 1)
    outwards: Points = np.einsum("vj,vjk->vk", weights, offset - t[..., None] * along)
    return outwards


def _bone_ends() -> Points:
    """(24, 3) where each joint's bone ends: at its child in the same chain; leaves go on past the joint."""
    ends = JOINTS.copy()
    for k in range(len(JOINTS)):
        children = [c for c, parent in enumerate(PARENTS) if parent == k]
        chain = [c for c in children if JOINT_NAMES[c][:2] == JOINT_NAMES[k][:2]] or children
        if JOINT_NAMES[k] in ("pelvis", "spine3"):
            chain = [c for c in children if JOINTS[c, 0] == 0]
        ends[k] = JOINTS[chain[0]] if chain else JOINTS[k] + 0.6 * (JOINTS[k] - JOINTS[PARENTS[k]])
    return ends

"""Make the demo body: its surface, skeleton, skinning, regressors and blend shapes, by rule.

    .venv/bin/python -m tools.make_demo_body

writes the files that `pipeline/demo/body.py` reads. The same code on the same machine gives the
same bytes; on another one floats may differ in their last digits. Whoever commits other files
raises `VERSION` there.

Everything is computed from the mirror-symmetric surface by rules that treat left and right alike,
so the rig is mirror-symmetric too. A shape blend shape is a smooth displacement of the rest
surface, in metres per unit of beta, of the size that SMPL's first ten have: with betas within +-2
the result is still a person.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.demo import body
from pipeline.files.formats.smpl_files import GENDERS
from pipeline.skeletons import JOINTS as NAMES
from pipeline.skeletons import opposite_joints
from tools.demo_body_surface import MIRROR, Points, Scalars, Surface, neighbour_mean, surface

# SMPL's joints in its order: name, parent, rest position in metres. Right joints mirror the left
# ones.
_SKELETON: Final = """\
pelvis      -1     0.0  -0.220  -0.005
l_hip        0   0.085  -0.310  -0.008
r_hip        0  -0.085  -0.310  -0.008
spine1       0     0.0  -0.110  -0.015
l_knee       1   0.100  -0.700   0.000
r_knee       2  -0.100  -0.700   0.000
spine2       3     0.0   0.020  -0.010
l_ankle      4   0.098  -1.085  -0.030
r_ankle      5  -0.098  -1.085  -0.030
spine3       6     0.0   0.075  -0.002
l_foot       7   0.112  -1.140   0.085
r_foot       8  -0.112  -1.140   0.085
neck         9     0.0   0.285  -0.025
l_collar     9   0.075   0.205  -0.014
r_collar     9  -0.075   0.205  -0.014
head        12     0.0   0.356  -0.012
l_shoulder  13   0.175   0.222  -0.016
r_shoulder  14  -0.175   0.222  -0.016
l_elbow     16   0.440   0.215  -0.030
r_elbow     17  -0.440   0.215  -0.030
l_wrist     18   0.690   0.219  -0.030
r_wrist     19  -0.690   0.219  -0.030
l_hand      20   0.780   0.217  -0.030
r_hand      21  -0.780   0.217  -0.030
"""
_ROWS: Final = [line.split() for line in _SKELETON.splitlines()]
JOINT_NAMES: Final = tuple(row[0] for row in _ROWS)
PARENTS: Final = np.array([int(row[1]) for row in _ROWS])
JOINTS: Final = np.array([row[2:] for row in _ROWS], np.float64)
_REST: Final = dict(zip(JOINT_NAMES, JOINTS, strict=True))
# The joint on the other side of the body, or the joint itself.
_PARTNER: Final = np.array(
    opposite_joints([f"smpl_{name.replace('_', '')}" for name in JOINT_NAMES])
)
# of LSP and Human3.6M that are not joints of SMPL, m; those on the right mirror the left ones
_LANDMARKS: Final = {
    "lhip": (0.092, -0.318, -0.004),
    "hip": (0.0, -0.262, -0.005),
    "pelvis": (0.0, -0.262, -0.005),
    "spine": (0.0, -0.010, -0.010),
    "thorax": (0.0, 0.225, -0.025),
    "neck": (0.0, 0.262, -0.030),
    "jaw": (0.0, 0.345, 0.030),
    "head": (0.0, 0.440, 0.010),
    "headtop": (0.0, 0.545, 0.005),
}
_GENDER_BETAS: Final = {  # in the order of `shape_blend_shapes`
    "neutral": np.zeros(10),
    "male": np.array([0.8, 0.0, 0.3, 0.3, 1.5, -0.8, 0.0, 0.8, 0.3, 0.3]),
    "female": np.array([-0.8, -0.2, -0.2, -0.3, -1.3, 1.2, 0.0, -0.6, -0.3, -0.3]),
}
_RELAXED: Final = {  # degrees, of the left side and the middle
    "pelvis": (180, 0, 0),
    "l_hip": (-6, 0, 3),
    "l_knee": (10, 0, 0),
    "l_ankle": (-4, 0, 0),
    "l_collar": (0, 0, -6),
    "l_shoulder": (0, -8, -58),
    "l_elbow": (0, -18, 0),
    "head": (4, 0, 0),
}
# the arrays of the first file; both stay below 1 MB
_SHAPE: Final = {"v_template", "shapedirs", "digest"}
DIFFUSION_STEPS: Final = 18  # of skinning weights: blends over about 4 cm to each side of a joint
MAX_BONES: Final = 4


def _rigid_joints(surface: Surface) -> NDArray[np.int64]:
    """(V,) the joint that each vertex would follow if skinning were rigid."""
    side, y, z = surface.vertices.T
    x = np.abs(side)
    part = surface.part
    foot = part == "foot"
    arm = part == "arm"
    hand = np.isin(part, ["palm", "index", "middle", "ring", "pinky"])
    collar = (part == "torso") & (x > 0.075) & (y > 0.130)
    groin = y < -0.370 + 0.75 * (x - 0.02)  # the line of the hip's crease
    leg = (part == "leg") | foot | groin
    label = np.zeros(len(x), np.int64)

    def attach(region: NDArray[np.bool_], name: str) -> None:
        label[region] = JOINT_NAMES.index(name)

    # Later rules overrule earlier ones.
    attach(y > _REST["spine1"][1], "spine1")
    attach(y > _REST["spine2"][1], "spine2")
    attach(y > _REST["spine3"][1] + 0.02, "spine3")
    attach(collar, "l_collar")
    attach(part == "neck", "neck")
    attach(part == "head", "head")
    attach(leg, "l_hip")
    attach(y < _REST["l_knee"][1], "l_knee")
    attach((y < _REST["l_ankle"][1]) | foot, "l_ankle")
    attach(foot & (z > _REST["l_foot"][2]), "l_foot")
    attach(arm, "l_collar")
    for name in ("l_shoulder", "l_elbow", "l_wrist"):
        attach(arm & (x > _REST[name][0]), name)
    attach((part == "thumb") | hand, "l_wrist")
    attach(hand & (x > _REST["l_hand"][0]), "l_hand")
    return np.where(side < 0, _PARTNER[label], label)


def skinning_weights(surface: Surface) -> Points:
    """(V, 24) rows that sum to 1 over at most 4 joints: rigid labels, diffused along the surface.

    Along the surface, not through space: fingers and thighs that are side by side stay independent.
    """
    weights = np.eye(len(JOINTS))[_rigid_joints(surface)]
    neighbours = neighbour_mean(surface.faces, len(weights))
    for _ in range(DIFFUSION_STEPS):
        weights = 0.5 * (weights + neighbours @ weights)
    weights = (weights + weights[surface.mirror][:, _PARTNER]) / 2
    smallest = np.sort(weights, axis=1)[:, -MAX_BONES, None]
    # A tie at the border would keep five: left and right bones of a middle vertex are equal by
    # symmetry.
    is_largest = weights >= smallest
    is_tied = is_largest.sum(axis=1, keepdims=True) > MAX_BONES
    is_largest = np.where(is_tied, weights > smallest, is_largest)
    weights = np.where(is_largest, weights, 0.0)
    weights[weights < 1e-4] = 0.0
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def joint_regressor(surface: Surface, weights: Points) -> Points:
    """(24, V) non-negative rows that sum to 1: each joint from the ring of skin where it meets its
    parent's bone.
    """
    rings = weights * weights[:, np.maximum(PARENTS, 0)]
    rings[:, 0] = weights[:, 0]
    rings[rings < 0.02] = 0.0
    pairs = zip(JOINTS, rings.T, strict=True)
    return np.stack([_weights_for(joint, surface.vertices, ring) for joint, ring in pairs])


def landmark_regressor(surface: Surface, names: Iterable[str]) -> Points:
    """(names, V) like `joint_regressor`, for landmarks of LSP and Human3.6M: "rhip", "Spine
    (H36M)", ...
    """
    rows = []
    for name in names:
        spot = _landmark(name.removesuffix(" (H36M)").lower())
        distance = np.linalg.norm(surface.vertices - spot, axis=1)
        # the two dozen nearest vertices, and as much again around them
        reach = 1.6 * np.sort(distance)[24]
        ring = (distance < reach).astype(np.float64)
        rows.append(_weights_for(spot, surface.vertices, ring))
    return np.stack(rows)


def _landmark(name: str) -> NDArray[np.float64]:
    """Where a landmark is: as listed, or at SMPL's joint of that name ("lknee" for "l_knee")."""
    if name.startswith("r"):
        return np.asarray(_landmark(f"l{name[1:]}") * MIRROR)
    if name in _LANDMARKS:
        return np.array(_LANDMARKS[name])
    return np.asarray(_REST[f"l_{name[1:]}"])


def _weights_for(target: Scalars, vertices: Points, prior: Scalars) -> Scalars:
    """The weights nearest to `prior` (least relative entropy) whose weighted mean of vertices is
    `target`.

    They are prior * exp(slope . v), normalised: never negative. Newton's method on the convex dual.
    """
    support = np.flatnonzero(prior > 0)
    offsets = vertices[support] - target
    base = prior[support]
    slope = np.zeros(3)
    for _ in range(100):
        tilted = base * np.exp(np.clip(offsets @ slope, -50, 50))
        tilted /= tilted.sum()
        mean = tilted @ offsets
        if np.abs(mean).max() < 1e-12:
            break
        moment = (offsets * tilted[:, None]).T @ offsets
        spread = moment - np.outer(mean, mean)
        step = np.linalg.solve(spread, mean)
        change = np.abs(offsets @ step).max()  # of an exponent; above 1, the step is shortened
        slope -= step * min(1.0, 1.0 / max(change, 1e-12))
    else:
        raise AssertionError(
            f"no ring of skin around {target}: the surface and the skeleton disagree"
        )
    weights = np.zeros(len(vertices))
    weights[support] = tilted
    return weights


def pose_blend_shapes(surface: Surface, weights: Points) -> NDArray[np.float32]:
    """(V, 3, 207): small correctives, zero at rest and mirror-symmetric by construction.

    For joint k turned by R, with E = R - I: near the joint the skin moves outwards by the volume
    that linear blending loses, which grows as 1 - cos(angle) = -trace(E) / 2, and shears a little
    with E itself.
    """
    normals = vertex_normals(surface)
    correctives = np.zeros((len(normals), 3, len(JOINTS) - 1, 3, 3))
    for k in range(1, len(JOINTS)):
        blend = 4 * weights[:, k] * weights[:, PARENTS[k]]  # 1 half-way between the two bones
        distance = np.linalg.norm(surface.vertices - JOINTS[k], axis=1)
        radius = min(distance @ blend / blend.sum(), 0.06)
        lost = 0.18 * radius * blend[:, None] * normals
        shear = 0.03 * radius * blend[:, None] * normals
        for axis in range(3):
            correctives[:, :, k - 1, axis, axis] -= lost / 2
            correctives[:, axis, k - 1, axis, :] += shear
    return correctives.reshape(len(normals), 3, -1).astype(np.float32)


def vertex_normals(surface: Surface) -> Points:
    """(V, 3) unit normals, area-weighted."""
    a, b, c = surface.vertices[surface.faces.T]
    normal = np.cross(b - a, c - a)
    total = np.zeros_like(surface.vertices)
    for corner in surface.faces.T:
        np.add.at(total, corner, normal)
    return np.asarray(total / np.linalg.norm(total, axis=1, keepdims=True))


# joints whose bones are arms and legs
_LIMBS: Final = ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")


def shape_blend_shapes(vertices: Points, weights: Points) -> dict[str, Points]:
    """What each beta is of -> (V, 3), in order. Mirror images move as mirror images."""
    x, y, z = vertices.T
    side = np.sign(x)
    across = np.abs(x)
    radial = _from_bones(vertices, weights)
    limbs = [k for k, name in enumerate(JOINT_NAMES) if name[2:] in _LIMBS]
    limb = weights[:, limbs].sum(axis=1)[:, None]
    central = [k for k, name in enumerate(JOINT_NAMES) if name[:2] not in ("l_", "r_", "he", "ne")]
    trunk = weights[:, central].sum(axis=1)
    head = weights[:, JOINT_NAMES.index("head")][:, None]
    shoulder = _REST["l_shoulder"][0]
    upper = _rise(y, 0.02, 0.20)
    lower = 1 - _rise(y, -0.30, -0.05)
    front = np.clip(z, 0, None) / 0.10
    leg = np.clip(_REST["l_hip"][1] - y, 0, 0.75)
    arm = np.clip(across - shoulder, 0, 0.6)
    to_shoulder = np.clip(across / shoulder, 0, 1)
    to_hip = np.clip(across / 0.10, 0, 1)
    return {
        "stature": 0.030 * (vertices - JOINTS[0]),
        "girth": 0.055 * radial * (1 - 0.7 * head),
        "leg_length": _along(1, -0.035 * leg),
        "arm_length": _along(0, 0.035 * side * arm),
        "shoulder_width": _along(0, 0.012 * side * to_shoulder * upper),
        "hip_width": _along(0, 0.008 * side * to_hip * lower),
        "belly": _along(2, 0.020 * front * _near(y, -0.09, 0.09) * trunk),
        "chest_depth": _along(2, 0.010 * z / 0.10 * _near(y, 0.13, 0.10) * trunk),
        "head_size": 0.025 * head * (vertices - _REST["head"]),
        "limb_girth": 0.050 * limb * radial,
    }


def _along(axis: int, amount: Scalars) -> Points:
    """(V, 3) displacements along one axis."""
    displacement = np.zeros((len(amount), 3))
    displacement[:, axis] = amount
    return displacement


def female_chest(surface: Surface) -> Points:
    """(V, 3) the displacement that the female template has and no beta gives."""
    x, y, z = surface.vertices.T
    bump = _near(np.abs(x), 0.072, 0.045) * _near(y, 0.110, 0.050)
    facing = np.clip(vertex_normals(surface)[:, 2], 0, 1)
    bump = bump * facing * (z > 0)
    return np.asarray(0.025 * bump[:, None] * np.array([0.0, -0.25, 1.0]))


def _near(value: Scalars, centre: float, width: float) -> Scalars:
    return np.asarray(np.exp(-(((value - centre) / width) ** 2)))


def _rise(value: Scalars, low: float, high: float) -> Scalars:
    t = np.clip((value - low) / (high - low), 0, 1)
    return np.asarray(t * t * (3 - 2 * t))


def _from_bones(vertices: Points, weights: Points) -> Points:
    """(V, 3) from the nearest point of the blended bones to the vertex: outwards, as far as it is
    thick.
    """
    along = _bone_ends() - JOINTS
    length = np.maximum((along**2).sum(axis=1), 1e-9)
    offset = vertices[:, None] - JOINTS  # (V, 24, 3)
    share = np.einsum("vjk,jk->vj", offset, along) / length
    nearest = np.clip(share, 0, 1)[..., None] * along
    outwards: Points = np.einsum("vj,vjk->vk", weights, offset - nearest)
    return outwards


def _bone_ends() -> Points:
    """(24, 3) where each joint's bone ends: at its child in the same chain; leaves go on past the
    joint.
    """
    ends = JOINTS.copy()
    for k, name in enumerate(JOINT_NAMES):
        children = np.flatnonzero(k == PARENTS)
        chain = [c for c in children if JOINT_NAMES[c][:2] == name[:2]] or children
        if name in ("pelvis", "spine3"):
            chain = [c for c in children if JOINTS[c, 0] == 0]
        if len(chain):
            ends[k] = JOINTS[chain[0]]
        else:
            ends[k] += 0.6 * (JOINTS[k] - JOINTS[PARENTS[k]])
    return ends


def relaxed_pose() -> Points:
    """(24, 3, 3) standing at ease, seen by a camera whose y points down: the root is turned by pi
    about x.
    """
    degrees = np.zeros((len(JOINT_NAMES), 3))
    for name, (x, y, z) in _RELAXED.items():
        joint = JOINT_NAMES.index(name)
        degrees[joint] = (x, y, z)
        if name.startswith("l_"):
            degrees[_PARTNER[joint]] = (x, -y, -z)
    return np.asarray(Rotation.from_euler("xyz", degrees, degrees=True).as_matrix())


def arrays() -> dict[str, NDArray[Any]]:
    """The fields of SmplArrays; `v_template` (3, 6890, 3) and `digest` (3,), sha256, have a row for
    each gender.
    """
    skin = surface()
    weights = skinning_weights(skin)
    shapedirs = np.stack(list(shape_blend_shapes(skin.vertices, weights).values()), axis=-1)
    templates = {gender: skin.vertices + shapedirs @ _GENDER_BETAS[gender] for gender in GENDERS}
    templates["female"] = templates["female"] + female_chest(skin)
    prefix = "extra_"
    extra = [name.removeprefix(prefix) for name in NAMES["smpl54"] if name.startswith(prefix)]
    shared: dict[str, NDArray[Any]] = {
        "shapedirs": shapedirs,
        "posedirs": pose_blend_shapes(skin, weights),
        "J_regressor": joint_regressor(skin, weights),
        "weights": weights,
        "parents": PARENTS.astype(np.int64),
        "faces": skin.faces,
        "J_regressor_extra": landmark_regressor(skin, extra),
        "J_regressor_h36m": landmark_regressor(skin, NAMES["h36m"]),
        "mean_pose": relaxed_pose()[..., :2].reshape(-1),
        "mean_shape": np.zeros(10),
        "mean_cam": np.array([0.9, 0.0, 0.0]),
    }
    digests = [digest({"v_template": template} | shared) for template in templates.values()]
    return {"v_template": np.stack(list(templates.values())), **shared, "digest": np.array(digests)}


def digest(of_one_gender: dict[str, NDArray[Any]]) -> str:
    """Sha256 over names, types, shapes and bytes."""
    total = hashlib.sha256()
    for name, value in of_one_gender.items():
        total.update(f"{name} {value.dtype} {value.shape}\n".encode())
        total.update(np.ascontiguousarray(value).tobytes())
    return total.hexdigest()


def main() -> None:
    """Write the files, below 1 MB each."""
    parser = argparse.ArgumentParser(description="Write the demo body's files.")
    product = Path(body.__file__).parent
    parser.add_argument(
        "--out", type=Path, default=product, help="the folder (default: the product)"
    )
    folder = parser.parse_args().out
    shape: dict[str, Any] = arrays()
    others = {name: shape.pop(name) for name in list(shape) if name not in _SHAPE}
    for file, content in zip(body.FILES, (shape, others), strict=True):
        np.savez_compressed(folder / file, **content)


if __name__ == "__main__":
    main()

"""Sequences of actions as plausible SMPL motion on the ground.  [motion] -> pixels and labels

`perform` makes a motion for `scene`:

    _choreograph        actions one after the other, as angles of DOFS
    _keep_footing       angles of thighs and feet, relative to the ground, become angles of joints
    _to_smpl            SMPL's pose
    _stand              the position in which the feet are on the ground and do not slide

The world is y-up in metres, with the ground at y = 0. SMPL's rest pose is a T-pose: y up, facing
+z, the person's left is +x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Final

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation
from scipy.special import softmax

from pipeline.extras.demo.actions import ACTIONS, DOFS, SIDED, Sampler
from pipeline.extras.demo.body import procedural, skin
from pipeline.people.skeletons import Doubles, Floats

INDEX: Final = {name: i for i, name in enumerate(DOFS)}
LOW, HIGH, RELAXED = np.array([*DOFS.values()], np.float64).T
SMOOTHING_S: Final = 0.05  # sigma over time
BLEND_S: Final = 0.6  # from one action to the next
ACTION_S: Final = (1.6, 3.2)  # shortest and longest duration of an action
FOOT_HOLD: Final = 0.7  # share of the pelvis's rotation that the feet do not follow
GRIP_M: Final = 0.008  # height above the lowest point up to which points of the sole bear weight


@dataclass(frozen=True, slots=True, eq=False)
class ActorMotion:
    """T frames of one person in the world."""

    angles: Doubles  # (T, D) degrees, in the order of `DOFS`
    pose: Doubles  # (T, 72) rad
    betas: Doubles  # (10,)
    trans: Doubles  # (T, 3) m
    heading: float  # rad about the vertical, 0 faces +z


def random_betas(rng: Generator) -> Doubles:
    """Plausible shape parameters (10,)."""
    betas = rng.normal(0, 0.7, 10)
    return np.asarray(betas.clip(-2, 2))


def perform(
    rng: Generator,
    betas: Doubles,
    facing: float,
    n_frames: int,
    fps: float,
    actions: Sequence[str] = (),
) -> ActorMotion:
    """Make a new motion: actions drawn from `actions` (all when empty), each with its own tempo and
    amplitude.

    It begins at the origin of the ground, facing `facing` (rad; 0 is +z, pi / 2 is +x). Feet
    that bear weight do not slide: the body moves over them.
    """
    t = np.arange(n_frames) / fps
    angles = _choreograph(t, rng, actions or tuple(ACTIONS))
    sigma = SMOOTHING_S * fps
    limited = _keep_footing(angles).clip(LOW, HIGH)
    angles = gaussian_filter1d(limited, sigma, axis=0, mode="nearest")

    pose = _to_smpl(angles, facing)
    trans = _stand(betas, pose, sigma)
    return ActorMotion(angles, pose, betas, trans, facing)


def _to_smpl(angles: Floats, heading: float) -> Doubles:
    """Convert angles (T, D) in degrees and a heading in rad to SMPL poses (T, 72) in rad.

    Heading 0 faces +z, a positive one is turned towards +x. The body stays y-up.
    """
    radians = np.radians(angles)
    freedoms = dict(zip(DOFS, radians.T, strict=True))
    joints = _trunk(SimpleNamespace(**freedoms), heading)
    # SMPL numbers a right joint one above the left one
    for side, side_sign, offset in (("l", 1, 0), ("r", -1, 1)):
        of_limb = {name: freedoms[f"{side}_{name}"] for name in SIDED}
        limb = SimpleNamespace(**of_limb)
        rotations = _arm(limb, side_sign) | _leg(limb, side_sign)
        for left_joint, rotation in rotations.items():
            joints[left_joint + offset] = rotation
    pose = np.zeros((len(angles), 24, 3))
    for joint, rotation in joints.items():
        pose[:, joint] = rotation.as_rotvec()
    return pose.reshape(-1, 72)


def _sole_vertices() -> NDArray[np.intp]:
    """Vertices of both soles: within 1.5 cm of the lowest of each foot (ankle and foot joints 7, 10
    and 8, 11).
    """
    soles = []
    body = procedural()
    for joints in ((7, 10), (8, 11)):
        weight = body.weights[:, joints].sum(axis=1)
        foot = np.flatnonzero(weight > 0.9)
        height = body.v_template[foot, 1]
        soles.append(foot[height < height.min() + 0.015])
    return np.concatenate(soles)


def _choreograph(t: Doubles, rng: Generator, repertoire: Sequence[str]) -> Doubles:
    """Angles (T, D) in degrees of a blended sequence of actions."""
    duration = float(t[-1] - t[0])
    action_s = rng.uniform(*ACTION_S)
    n_actions = max(1, round(duration / action_s))

    action = ""  # the one before
    angles = np.zeros((len(t), len(DOFS)))
    for weight in _blend_weights(t, n_actions):
        # no action twice in a row, if there is another one
        candidates = [name for name in repertoire if name != action]
        action = str(rng.choice(candidates or list(repertoire)))
        curves = ACTIONS[action](Sampler(t, rng))

        # other angles are relaxed with a personal offset
        offset = rng.normal(0, 1.5, len(DOFS))
        relaxed = RELAXED + offset
        acted = np.tile(relaxed, (len(t), 1))
        for freedom, curve in curves.items():
            acted[:, INDEX[freedom]] = curve
        angles += weight[:, None] * acted
    return angles


def _blend_weights(t: Doubles, n: int) -> Doubles:
    """Weights (n, T) of n actions of equal length in each frame, which sum to 1.

    The first action begins before all frames. Each other one takes over from the action before
    within BLEND_S around its start.
    """
    duration = t[-1] - t[0]
    starts = t[0] + duration * np.arange(1, n) / n
    since = t - starts[:, None]
    ramps = np.clip(since / BLEND_S + 0.5, 0, 1)
    first = np.ones_like(t)
    after_last = np.zeros_like(t)
    begun = np.vstack([first, ramps, after_last])  # share of actions 0 .. n begun
    weights: Doubles = begun[:-1] - begun[1:]
    return weights


def _keep_footing(angles: Doubles) -> Doubles:
    """Convert thigh and foot angles to angles of hips and ankles, (T, D) degrees.

    Actions give thigh and foot relative to the ground; SMPL's joints are relative to their parents.
    """
    converted = angles.copy()
    column = dict(zip(DOFS, converted.T, strict=True))  # views
    pitch = column["pelvis_pitch"]
    roll = column["pelvis_roll"]
    held_yaw = FOOT_HOLD * column["pelvis_yaw"]
    for side, side_sign in (("l", 1), ("r", -1)):
        # the shank leans by knee - flex, which the ankle undoes: the foot stays level
        lean = column[f"{side}_knee"] - column[f"{side}_flex"]
        column[f"{side}_ankle"] += lean
        # the pelvis takes the hips along: each hip turns as far back, against the yaw in part
        column[f"{side}_flex"] += pitch
        column[f"{side}_abduct"] -= side_sign * roll
        column[f"{side}_turnout"] -= side_sign * held_yaw
    return converted


def _stand(betas: Doubles, pose: Doubles, sigma: float) -> Doubles:
    """Translation (T, 3) that puts the lowest point of the soles on the ground, without foot
    sliding.
    """
    trans = np.zeros((len(pose), 3))
    posed = skin(procedural(), betas, pose, trans, _sole_vertices())
    soles = posed.verts
    height = soles[..., 1]
    lowest = height.min(axis=1)

    # How far the soles slide between frames: the mean of their points by the weight that they bear.
    # The body moves as far back.
    above = height - lowest[:, None]
    weight = softmax(-above / GRIP_M, axis=1)  # (T, V)
    share = (weight[1:] + weight[:-1]) / 2
    horizontal = soles[..., [0, 2]]
    steps = np.diff(horizontal, axis=0)  # (T - 1, V, 2) m along x and z
    weighted = steps * share[..., None]
    slide = weighted.sum(axis=1)

    trans[1:, [0, 2]] = np.cumsum(-slide, axis=0)
    trans[:, 1] = -lowest
    trans = gaussian_filter1d(trans, sigma / 2, axis=0, mode="nearest")
    start = trans[0] * (1, 0, 1)
    return np.asarray(trans - start)


def _trunk(angles: SimpleNamespace, heading: float) -> dict[int, Rotation]:
    """Rotations of the pelvis, and of the joints that share the angles of the spine and of the
    head.
    """
    yaw = heading + angles.pelvis_yaw
    spine = _turn_yxz(angles.spine_turn / 3, angles.spine_bend / 3, angles.spine_side / 3)
    head = _turn_yxz(angles.head_turn / 2, angles.head_nod / 2, angles.head_tilt / 2)
    return {
        0: _turn_yxz(yaw, angles.pelvis_pitch, angles.pelvis_roll),
        3: spine,
        6: spine,
        9: spine,
        12: head,
        15: head,
    }


def _arm(limb: SimpleNamespace, side_sign: int) -> dict[int, Rotation]:
    """Rotations of one side's arm, by the left side's joints. side_sign: 1 left, -1 right."""
    sine = np.sin(limb.plane)
    cosine = side_sign * np.cos(limb.plane)
    # the shoulder blade takes a part of a high raise
    shrug = 0.3 * np.maximum(limb.lift - np.pi / 3, 0)
    blade_up = _turn("z", cosine * shrug)
    blade_ahead = _turn("y", -side_sign * 0.5 * shrug * sine)

    axis = np.stack([-sine, np.zeros_like(sine), cosine], axis=-1)
    raised = limb.lift - shrug
    swing = Rotation.from_rotvec(axis * raised[:, None])  # from hanging into the plane
    right_angle = np.full_like(raised, -side_sign * np.pi / 2)
    hang = _turn("z", right_angle)  # from the T-pose
    twisted = _turn("x", -limb.twist)
    return {
        13: blade_up * blade_ahead,
        16: swing * hang * twisted,
        18: _turn("y", -side_sign * limb.elbow),
        20: _turn("z", side_sign * limb.wrist),
    }


def _leg(limb: SimpleNamespace, side_sign: int) -> dict[int, Rotation]:
    """Rotations of one side's leg, by the left side's joints. side_sign: 1 left, -1 right."""
    flexed = _turn("x", -limb.flex)
    abducted = _turn("z", side_sign * limb.abduct)
    turned_out = _turn("y", side_sign * limb.turnout)
    return {
        1: flexed * abducted * turned_out,
        4: _turn("x", limb.knee),
        7: _turn("x", -limb.ankle),
        10: _turn("x", -limb.toes),
    }


def _turn(axis: str, angle: Floats) -> Rotation:
    return Rotation.from_euler(axis, angle[:, None])


def _turn_yxz(y: Floats, x: Floats, z: Floats) -> Rotation:
    return _turn("y", y) * _turn("x", x) * _turn("z", z)

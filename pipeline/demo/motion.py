"""Sequences of actions as plausible SMPL motion on the ground.  [motion] -> pixels and labels

The world is y-up in metres, with the ground at y = 0. SMPL's rest pose is a T-pose: y up, facing
+z, the person's left is +x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation
from scipy.special import softmax

from pipeline.demo.actions import ACTIONS, DOFS
from pipeline.demo.body import procedural, skin

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]

INDEX: Final = {name: i for i, name in enumerate(DOFS)}
LOW, HIGH, RELAXED = np.array([*DOFS.values()], np.float64).T
# mirrored
_CHANGE_SIGN: Final = (
    "pelvis_roll",
    "pelvis_yaw",
    "spine_side",
    "spine_turn",
    "head_tilt",
    "head_turn",
)

# degrees before a limit in which an angle is compressed
SOFTNESS: Final = np.minimum(6.0, (HIGH - LOW) / 4)
SMOOTHING_S: Final = 0.05  # sigma over time
BLEND_S: Final = 0.6  # from one action to the next
ACTION_S: Final = (1.6, 3.2)  # shortest and longest duration of an action
FOOT_HOLD: Final = 0.7  # share of the pelvis's rotation that the feet do not follow
GRIP_M: Final = 0.008  # height above the lowest point up to which points of the sole bear weight


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """T frames of one person in the world."""

    fps: float
    actions: tuple[str, ...]  # in the order in which they begin
    angles: Array  # (T, D) degrees, in the order of `DOFS`
    pose: Array  # (T, 72) rad
    betas: Array  # (10,)
    trans: Array  # (T, 3) m
    heading: Array  # (T,) rad about the vertical, 0 faces +z


def random_betas(rng: np.random.Generator) -> Array:
    """Plausible shape parameters (10,)."""
    return np.asarray(np.clip(rng.normal(0, 0.7, 10), -2, 2))


def perform(
    rng: np.random.Generator,
    betas: Array,
    facing: float,
    n_frames: int,
    fps: float,
    actions: Sequence[str] = (),
) -> Motion:
    """Make a new motion: actions drawn from `actions` (all when empty), each with its own tempo and
    amplitude.

    It begins at the origin of the ground, facing about `facing` (rad; 0 is +z, pi / 2 is +x). Feet
    that bear weight do not slide: the body moves over them.
    """
    t = np.arange(n_frames) / fps
    chosen, angles, hop = _choreograph(t, rng, actions or tuple(ACTIONS))
    sigma = SMOOTHING_S * fps
    angles = gaussian_filter1d(_within_limits(_keep_footing(angles)), sigma, axis=0, mode="nearest")
    swing = np.radians(12) * rng.uniform(0.2, 1)  # a slow, smooth change of direction
    heading = facing + swing * np.sin(2 * np.pi * (rng.uniform(0.08, 0.25) * t + rng.uniform()))
    pose = _to_smpl(angles, heading)
    return Motion(fps, chosen, angles, pose, betas, _stand(betas, pose, hop, sigma), heading)


def _mirror(angles: Floats) -> Array:
    """The motion with left and right swapped, (T, D) degrees."""
    swapped = {"l": "r", "r": "l"}
    source = [INDEX[swapped[n[0]] + n[1:] if n[:2] in ("l_", "r_") else n] for n in DOFS]
    sign = np.array([-1.0 if name in _CHANGE_SIGN else 1.0 for name in DOFS])
    return np.asarray(angles[:, source] * sign, np.float64)


def _within_limits(angles: Floats) -> Array:
    """Angles (T, D) degrees, smoothly limited to their ranges.

    The identity except near a limit, which an angle approaches exponentially: `clip` would make its
    velocity jump.
    """
    over = np.maximum(angles - (HIGH - SOFTNESS), 0)
    under = np.maximum((LOW + SOFTNESS) - angles, 0)
    eased_over, eased_under = (SOFTNESS * -np.expm1(-excess / SOFTNESS) for excess in (over, under))
    return np.asarray(angles - over + eased_over + under - eased_under, np.float64)


def _to_smpl(angles: Floats, heading: Floats) -> Array:
    """Angles (T, D) in degrees and heading (T,) in rad about the vertical -> SMPL pose (T, 72)
    axis-angle in rad.

    Heading 0 faces +z, a positive one is turned towards +x. The body stays y-up.
    """
    a = {name: np.radians(angles[:, i]) for name, i in INDEX.items()}
    joints = {
        0: _turn("y", heading + a["pelvis_yaw"])
        * _turn("x", a["pelvis_pitch"])
        * _turn("z", a["pelvis_roll"])
    }
    spine = (
        _turn("y", a["spine_turn"] / 3)
        * _turn("x", a["spine_bend"] / 3)
        * _turn("z", a["spine_side"] / 3)
    )
    head = (
        _turn("y", a["head_turn"] / 2)
        * _turn("x", a["head_nod"] / 2)
        * _turn("z", a["head_tilt"] / 2)
    )
    joints |= {3: spine, 6: spine, 9: spine, 12: head, 15: head}
    joints |= _limbs(a, "l", mirrored=1) | _limbs(a, "r", mirrored=-1)
    pose = np.zeros((len(angles), 24, 3))
    for j, rotation in joints.items():
        pose[:, j] = rotation.as_rotvec()
    return pose.reshape(-1, 72)


def sole_vertices() -> NDArray[np.intp]:
    """Vertices of both soles: within 1.5 cm of the lowest of each foot (ankle and foot joints 7, 10
    and 8, 11).
    """
    soles = []
    body = procedural()
    for joints in ((7, 10), (8, 11)):
        foot = np.flatnonzero(body.weights[:, joints].sum(axis=1) > 0.9)
        height = body.v_template[foot, 1]
        soles.append(foot[height < height.min() + 0.015])
    return np.concatenate(soles)


def _choreograph(
    t: Array, rng: np.random.Generator, repertoire: Sequence[str]
) -> tuple[tuple[str, ...], Array, Array]:
    """Names, angles (T, D) and height above the ground (T,) of a blended sequence of actions."""
    duration = float(t[-1] - t[0])
    n_actions = max(1, round(duration / rng.uniform(*ACTION_S)))
    starts = np.concatenate([[-np.inf], t[0] + duration * np.arange(1, n_actions) / n_actions])
    ramps = [np.clip((t - start) / BLEND_S + 0.5, 0, 1) for start in starts]
    # from 0 to 1 with level ends
    begun = np.stack([x * x * (3 - 2 * x) for x in ramps] + [np.zeros_like(t)])
    names: list[str] = []
    angles = np.zeros((len(t), len(DOFS)))
    hop = np.zeros_like(t)
    for share in begun[:-1] - begun[1:]:  # of each action; they sum to 1
        options = [name for name in repertoire if names[-1:] != [name]] or list(repertoire)
        names.append(str(rng.choice(options)))
        curves = ACTIONS[names[-1]](t, rng)
        hop += share * curves.pop("hop", 0.0)
        # Other angles are relaxed with a personal offset; half of the actions are mirrored.
        acted = np.tile(RELAXED + rng.normal(0, 1.5, len(DOFS)), (len(t), 1))
        for name, curve in curves.items():
            acted[:, INDEX[name]] = curve
        angles += share[:, None] * (_mirror(acted) if rng.random() < 0.5 else acted)
    return tuple(names), angles, hop


def _keep_footing(angles: Array) -> Array:
    """Convert thigh and foot angles to angles of hips and ankles, (T, D) degrees."""
    column = {name: angles[:, i] for name, i in INDEX.items()}
    out = angles.copy()
    for side, sign in (("l", 1), ("r", -1)):
        out[:, INDEX[f"{side}_ankle"]] += column[f"{side}_knee"] - column[f"{side}_flex"]
        out[:, INDEX[f"{side}_flex"]] += column["pelvis_pitch"]
        out[:, INDEX[f"{side}_abduct"]] -= sign * column["pelvis_roll"]
        out[:, INDEX[f"{side}_turnout"]] -= sign * FOOT_HOLD * column["pelvis_yaw"]
    return out


def _stand(betas: Array, pose: Array, hop: Array, sigma: float) -> Array:
    """Translation (T, 3) that puts the lowest point of the soles on the ground (plus `hop`) without
    foot sliding.
    """
    soles = skin(procedural(), betas, pose, np.zeros((len(pose), 3)), sole_vertices()).verts
    lowest = soles[..., 1].min(axis=1)
    weight = softmax(-(soles[..., 1] - lowest[:, None]) / GRIP_M, axis=1)
    slides = np.diff(soles[..., [0, 2]], axis=0)
    shares = (weight[1:] + weight[:-1]) / 2
    trans = np.zeros((len(pose), 3))
    trans[1:, [0, 2]] = np.cumsum(-(slides * shares[..., None]).sum(axis=1), axis=0)
    trans[:, 1] = hop - lowest
    trans = gaussian_filter1d(trans, sigma / 2, axis=0, mode="nearest")
    return np.asarray(trans - [trans[0, 0], 0, trans[0, 2]])


def _limbs(a: dict[str, Array], side: str, mirrored: int) -> dict[int, Rotation]:
    """Rotations of one side's arm and leg; SMPL numbers the right joints one above the left
    ones.
    """
    right = int(mirrored < 0)
    raised = a[f"{side}_raise"]
    plane = a[f"{side}_plane"]
    # the shoulder blade takes a part of a high raise
    shrug = 0.3 * np.maximum(raised - np.pi / 3, 0)
    axis = np.stack([-np.sin(plane), np.zeros_like(plane), mirrored * np.cos(plane)], axis=-1)
    swing = Rotation.from_rotvec(axis * (raised - shrug)[:, None])  # from hanging into the plane
    hang = _turn("z", np.full_like(raised, -mirrored * np.pi / 2))  # from the T-pose
    hip = _turn("x", -a[f"{side}_flex"]) * _turn("z", mirrored * a[f"{side}_abduct"])
    return {
        13 + right: _turn("z", mirrored * shrug * np.cos(plane))
        * _turn("y", -mirrored * 0.5 * shrug * np.sin(plane)),
        16 + right: swing * hang * _turn("x", -a[f"{side}_twist"]),
        18 + right: _turn("y", -mirrored * a[f"{side}_elbow"]),
        20 + right: _turn("z", mirrored * a[f"{side}_wrist"]),
        1 + right: hip * _turn("y", mirrored * a[f"{side}_turnout"]),
        4 + right: _turn("x", a[f"{side}_knee"]),
        7 + right: _turn("x", -a[f"{side}_ankle"]),
        10 + right: _turn("x", -a[f"{side}_toes"]),
    }


def _turn(axis: str, angle: Floats) -> Rotation:
    return Rotation.from_euler(axis, angle[:, None])

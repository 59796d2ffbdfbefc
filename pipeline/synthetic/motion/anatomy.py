"""Joint angles as people name them, their limits, and their SMPL pose.  [motion] -> pixels and labels -> raw

A motion is written in degrees of freedom that have a meaning (`l_knee`: flexion of the left knee) and a range that a
person can reach; only here do they become SMPL's 24 axis-angles. SMPL's rest pose is a T-pose: y up, facing +z, the
person's left is +x.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]


class Dof(NamedTuple):
    """One degree of freedom, in degrees: its range and its value in relaxed standing."""

    low: float
    high: float
    relaxed: float = 0.0


_CENTRAL: Final = {
    "pelvis_pitch": Dof(-25, 70),  # leaning forward is positive
    "pelvis_roll": Dof(-25, 25),  # towards the person's right is positive
    "pelvis_yaw": Dof(-50, 50),  # turning left is positive, here and below
    "spine_bend": Dof(-25, 80, 3),
    "spine_side": Dof(-35, 35),
    "spine_turn": Dof(-50, 50),
    "head_nod": Dof(-45, 45, 3),
    "head_tilt": Dof(-35, 35),
    "head_turn": Dof(-70, 70),
}
_SIDED: Final = {
    "raise": Dof(4, 172, 12),  # upper arm: 0 hangs, 90 level, 180 overhead
    "plane": Dof(-40, 125, 25),  # of that raise: 0 sideways, 90 forward, above it across the chest
    "twist": Dof(-80, 80),  # about the upper arm; outward is positive
    "elbow": Dof(2, 145, 18),
    "wrist": Dof(-60, 60),
    "flex": Dof(-25, 120, 2),  # hip: the thigh forward
    "abduct": Dof(-15, 60, 4),  # hip: the leg sideways
    "turnout": Dof(-30, 45, 6),  # hip: the toes outward
    "knee": Dof(1, 140, 4),
    "ankle": Dof(-40, 38),  # toes up is positive
    "toes": Dof(-5, 50),  # bent up against the foot, as when the heel lifts
}
DOFS: Final[dict[str, Dof]] = _CENTRAL | {f"{side}_{name}": dof for side in "lr" for name, dof in _SIDED.items()}
INDEX: Final = {name: i for i, name in enumerate(DOFS)}
LOW: Final = np.array([dof.low for dof in DOFS.values()])
HIGH: Final = np.array([dof.high for dof in DOFS.values()])
RELAXED: Final = np.array([dof.relaxed for dof in DOFS.values()])
_MIRRORED: Final = ("pelvis_roll", "pelvis_yaw", "spine_side", "spine_turn", "head_tilt", "head_turn")  # change sign


def relaxed(n_frames: int) -> Array:
    """(T, D) degrees of a person who stands and does nothing: what actions start from."""
    return np.repeat(RELAXED[None], n_frames, axis=0)


def mirror(angles: Floats) -> Array:
    """The same motion with left and right exchanged, (T, D) degrees."""
    swapped = {"l": "r", "r": "l"}
    source = [INDEX[swapped[n[0]] + n[1:] if n[:2] in ("l_", "r_") else n] for n in DOFS]
    sign = np.array([-1.0 if name in _MIRRORED else 1.0 for name in DOFS])
    return np.asarray(angles[:, source] * sign, np.float64)


def within_limits(angles: Floats, softness: float = 6.0) -> Array:
    """Angles bent into their ranges without a kink, (T, D) degrees.

    The identity except near a limit: beyond `limit - softness` an angle approaches the limit exponentially, so that a
    velocity never jumps where `clip` would stop it dead.
    """
    soft = np.minimum(softness, (HIGH - LOW) / 4)
    over = np.maximum(angles - (HIGH - soft), 0)
    under = np.maximum((LOW + soft) - angles, 0)
    eased_over, eased_under = (soft * -np.expm1(-excess / soft) for excess in (over, under))
    return np.asarray(angles - over + eased_over + under - eased_under, np.float64)


def to_smpl(angles: Floats, heading: Floats) -> Array:
    """Angles (T, D) in degrees and heading (T,) in rad about the vertical -> SMPL pose (T, 72) axis-angle in rad.

    Heading 0 faces +z, a positive one is turned towards +x. The body stays y-up.
    """
    a = {name: np.radians(angles[:, i]) for name, i in INDEX.items()}
    joints = {0: _turn("y", heading + a["pelvis_yaw"]) * _turn("x", a["pelvis_pitch"]) * _turn("z", a["pelvis_roll"])}
    spine = _turn("y", a["spine_turn"] / 3) * _turn("x", a["spine_bend"] / 3) * _turn("z", a["spine_side"] / 3)
    head = _turn("y", a["head_turn"] / 2) * _turn("x", a["head_nod"] / 2) * _turn("z", a["head_tilt"] / 2)
    joints |= {3: spine, 6: spine, 9: spine, 12: head, 15: head}
    joints |= _limbs(a, "l", mirrored=1) | _limbs(a, "r", mirrored=-1)
    pose = np.zeros((len(angles), 24, 3))
    for j, rotation in joints.items():
        pose[:, j] = rotation.as_rotvec()
    return pose.reshape(-1, 72)


def _limbs(a: dict[str, Array], side: str, mirrored: int) -> dict[int, Rotation]:
    """Rotations of one side's arm and leg; SMPL numbers the right joints one above the left ones."""
    right = int(mirrored < 0)
    raised, plane = a[f"{side}_raise"], a[f"{side}_plane"]
    shrug = 0.3 * np.maximum(raised - np.pi / 3, 0)  # the shoulder blade takes a part of a high raise
    axis = np.stack([-np.sin(plane), np.zeros_like(plane), mirrored * np.cos(plane)], axis=-1)
    swing = Rotation.from_rotvec(axis * (raised - shrug)[:, None])  # from hanging into the plane
    hang = _turn("z", np.full_like(raised, -mirrored * np.pi / 2))  # from the T-pose
    hip = _turn("x", -a[f"{side}_flex"]) * _turn("z", mirrored * a[f"{side}_abduct"])
    return {
        13 + right: _turn("z", mirrored * shrug * np.cos(plane)) * _turn("y", -mirrored * 0.5 * shrug * np.sin(plane)),
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

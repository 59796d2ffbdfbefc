"""Actions as curves of joint angles.  [motion] -> pixels and labels

An action, such as `_walk`, makes the `ActionCurves` of the degrees of freedom that it moves; the
others stay relaxed. Its amplitudes, tempo and phase are random, within bounds chosen by eye.
`pipeline.extras.demo.motion` calls the actions of ACTIONS.

Words of the actions:
    phase: of the movement, in rad; it grows by 2 pi a beat.
    limbs: arm and leg of one side. Loops take the left side first, with a `sign` or `shift` by
        which the sides differ: the right leg walks half a beat after the left one.
    up, down, behind, ...: how far the movement is, 0 to 1 at each time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.random import Generator
from scipy.interpolate import PchipInterpolator

from pipeline.extras.demo.freedoms import CENTRAL, SIDED, ActionCurves, Limbs
from pipeline.people.skeletons import Doubles

TAU: Final = 2 * np.pi


@dataclass(frozen=True)
class Sampler:
    """Draws amplitudes, tempo and phase of an action."""

    t: Doubles  # (T,) s
    rng: Generator

    def draw(self, low: float, high: float) -> float:
        """A random number between two."""
        return self.rng.uniform(low, high)

    def beat(self, low: float, high: float) -> Doubles:
        """Phase in rad of a random tempo between `low` and `high` beats per second."""
        return TAU * (self.draw(low, high) * self.t + self.rng.uniform())


def _pulse(phase: Doubles, sharpness: float = 1.0) -> Doubles:
    """0..1 once per beat; a higher sharpness spends more of the beat near 0."""
    return ((1 - np.cos(phase)) / 2) ** sharpness


def _walk(sampler: Sampler) -> ActionCurves:
    """Walk forward; the stride determines the speed."""
    phase = sampler.beat(0.75, 1.1)
    stride = sampler.draw(20, 30)  # of the thigh, to either side
    knee_bend = sampler.draw(45, 65)
    arm_swing = sampler.draw(15, 45)
    elbow_bend = sampler.draw(15, 60)
    limbs = []
    for phase_shift, sign in ((0.0, -1), (np.pi, 1)):
        leg_phase = phase + phase_shift
        ahead = np.maximum(np.sin(leg_phase), 0) ** 2
        behind = np.maximum(-np.sin(leg_phase), 0) ** 2
        forward = sign * arm_swing * np.sin(phase)
        side = Limbs(
            flex=stride * (np.sin(leg_phase) + 0.15),
            knee=6 + knee_bend * _pulse(leg_phase + 1.15 * np.pi, 2),
            ankle=10 * ahead - 35 * behind,
            toes=30 * behind,
            lift=14 + np.abs(forward),
            plane=35 + 55 * np.tanh(forward / 10),
            elbow=elbow_bend + 0.4 * forward,
        )
        limbs.append(side)
    return ActionCurves(
        limbs, pelvis_yaw=6 * np.sin(phase), spine_turn=-10 * np.sin(phase), spine_bend=4
    )


def _march(sampler: Sampler) -> ActionCurves:
    """March on the spot, with high knees and bent, pumping arms."""
    phase = sampler.beat(0.7, 1.2)
    knee_height = sampler.draw(55, 100)
    arm_height = sampler.draw(35, 70)
    limbs = []
    for sign in (1, -1):
        leg_lift = sign * np.sin(phase)
        knee_up = np.maximum(leg_lift, 0) ** 1.5
        arm_pump = np.maximum(-leg_lift, 0) ** 1.5
        side = Limbs(
            flex=knee_height * knee_up,
            knee=5 + knee_height * 1.05 * knee_up,
            ankle=-15 * knee_up,
            lift=12 + arm_height * arm_pump,
            plane=25 + 65 * arm_pump,
            elbow=60 + 30 * arm_pump,
        )
        limbs.append(side)
    return ActionCurves(limbs, spine_turn=8 * np.sin(phase))


def _wave(sampler: Sampler) -> ActionCurves:
    """Wave one hand beside the head."""
    phase = sampler.beat(1.2, 2.2)
    sway = np.sin(sampler.beat(0.15, 0.3))
    left = Limbs(
        lift=105 + sampler.draw(-10, 45) + 8 * sway,
        plane=sampler.draw(-5, 40),
        elbow=sampler.draw(55, 95) + sampler.draw(18, 35) * np.sin(phase),
        twist=55 + 15 * np.sin(phase),
    )
    right = Limbs(elbow=20 + 15 * sway)
    return ActionCurves((left, right), spine_side=-6 + 5 * sway, head_turn=15 * sway)


def _squat(sampler: Sampler) -> ActionCurves:
    """Squat down and up, arms forward for balance."""
    deepest = sampler.draw(70, 105)
    depth = deepest * _pulse(sampler.beat(0.35, 0.6))
    stance = sampler.draw(6, 20)
    forward = sampler.draw(0.5, 1.0) * depth
    limbs = Limbs(
        flex=0.9 * depth,
        knee=4 + 1.25 * depth,
        abduct=stance + 0.12 * depth,
        turnout=10 + 0.2 * depth,
        lift=14 + forward,
        plane=30 + 0.6 * depth,
        elbow=15 + 0.1 * depth,
    )
    return ActionCurves(
        (limbs, limbs),
        pelvis_pitch=0.38 * depth,
        spine_bend=5 + 0.1 * depth,
        head_nod=-0.25 * depth,
    )


def _arm_raise(sampler: Sampler) -> ActionCurves:
    """Raise and lower both arms, together or in turn, in a random plane."""
    phase = sampler.beat(0.3, 0.7)
    lag = sampler.rng.choice([0.0, np.pi / 2, np.pi])
    plane = sampler.draw(0, 95)
    highest = sampler.draw(100, 165)
    elbow_bend = sampler.draw(5, 45)
    first_up = _pulse(phase)
    second_up = _pulse(phase + lag)
    limbs = []
    for arm_up in (first_up, second_up):
        side = Limbs(lift=12 + highest * arm_up, plane=plane, elbow=10 + elbow_bend * arm_up)
        limbs.append(side)
    return ActionCurves(limbs, spine_side=8 * (second_up - first_up), head_nod=-10 * first_up)


def _jumping_jacks(sampler: Sampler) -> ActionCurves:
    """Hop with arms and legs apart, then together."""
    phase = sampler.beat(0.8, 1.3)
    apart = _pulse(phase)
    leg_spread = sampler.draw(18, 30)
    highest = sampler.draw(120, 155)
    landing = np.cos(phase) ** 2
    jump = np.sin(phase) ** 2
    limbs = Limbs(
        lift=10 + highest * apart,
        plane=8,
        elbow=12 + 15 * apart,
        abduct=2 + leg_spread * apart,
        knee=8 + 14 * landing,
        flex=4 + 8 * landing,
        ankle=-25 * jump,
    )
    return ActionCurves((limbs, limbs), hop=sampler.draw(0.04, 0.10) * jump)


def _kick(sampler: Sampler) -> ActionCurves:
    """Swing one leg back and forward, as if to kick a ball."""
    phase = sampler.beat(0.45, 0.75)
    swing_back = _pulse(phase + 1.2, 3)
    swing_forward = _pulse(phase, 3)
    kick_height = sampler.draw(50, 95)
    right = Limbs(
        flex=kick_height * swing_forward - 22 * swing_back,
        knee=8 + 80 * swing_back + 12 * swing_forward,
        ankle=-70 * swing_back - 25 * swing_forward,
        abduct=4 + sampler.draw(0, 25) * swing_forward,
        lift=20 + 40 * swing_forward,
        plane=-10,
        elbow=25,
    )
    left = Limbs(
        knee=8 + 12 * swing_forward,
        flex=6 + 6 * swing_forward,
        lift=20 + 50 * swing_forward,
        plane=40 + 40 * swing_forward,
        elbow=30,
    )
    return ActionCurves(
        (left, right),
        spine_bend=6 + 15 * swing_forward,
        pelvis_pitch=-12 * swing_forward,
        spine_turn=18 * (swing_forward - swing_back),
    )


def _box(sampler: Sampler) -> ActionCurves:
    """Box: guard up, straight punches with left and right in turn."""
    phase = sampler.beat(0.7, 1.3)
    arm_reach = sampler.draw(60, 85)
    limbs = []
    for sign in (-1, 1):
        punch = np.maximum(sign * np.sin(phase), 0) ** 2
        side = Limbs(
            lift=38 + (arm_reach - 30) * punch,
            plane=62 + 28 * punch,
            elbow=122 - 112 * punch,
            twist=-10,
            knee=22 + 8 * punch,
            flex=16 + sign * 12,
        )
        limbs.append(side)
    return ActionCurves(
        limbs, spine_turn=28 * np.sin(phase), pelvis_yaw=12 * np.sin(phase), spine_bend=12
    )


def _bow(sampler: Sampler) -> ActionCurves:
    """Bow from the hips, arms hanging or held back."""
    down = _pulse(sampler.beat(0.25, 0.45), 1.5)
    depth = sampler.draw(0.6, 1.0)
    arm_lift = 10
    arm_plane = 85
    if sampler.draw(0, 1) > 0.5:
        arm_lift = 25
        arm_plane = -35
    limbs = Limbs(
        flex=-6 * down,
        lift=arm_lift + 40 * depth * down,
        plane=arm_plane,
        elbow=15 + 20 * down,
    )
    return ActionCurves(
        (limbs, limbs),
        pelvis_pitch=45 * depth * down,
        spine_bend=4 + 45 * depth * down,
        head_nod=20 * down,
    )


def _look_around(sampler: Sampler) -> ActionCurves:
    """Turn head and trunk, with one hand at the hip and the other at the brow."""
    phase = sampler.beat(0.3, 0.55)
    nod = np.sin(sampler.beat(0.12, 0.25))
    right = Limbs(lift=42, plane=-15, twist=-45, elbow=sampler.draw(70, 95))
    left = Limbs(lift=75 + 25 * nod, plane=75, elbow=105 + 20 * np.sin(phase))
    return ActionCurves(
        (left, right),
        head_turn=55 * np.sin(phase),
        spine_turn=35 * np.sin(phase - 0.4),
        pelvis_yaw=18 * np.sin(phase - 0.8),
        head_nod=15 * nod,
    )


def _lunge(sampler: Sampler) -> ActionCurves:
    """Lunge: one leg in front, down until the other knee is near the ground, and up."""
    down = _pulse(sampler.beat(0.35, 0.6))
    thigh_forward = sampler.draw(20, 35)
    depth = sampler.draw(45, 65)
    front_bend = thigh_forward + depth * down
    arms = {"lift": 35 + 45 * down, "plane": -5 + 20 * down, "elbow": 95 - 60 * down}
    left = Limbs(flex=front_bend, knee=front_bend, **arms)
    right = Limbs(
        ankle=-25 - 25 * down,
        flex=-16 - 6 * down,
        knee=12 + 75 * down,
        toes=20 + 25 * down,
        **arms,
    )
    return ActionCurves((left, right), spine_bend=3 + 8 * down)


def _side_bend(sampler: Sampler) -> ActionCurves:
    """Bend to the left and the right, with the upper arm over the head."""
    phase = sampler.beat(0.25, 0.5)
    lean = np.sin(phase) * sampler.draw(0.7, 1.0)
    limbs = []
    for sign in (1, -1):
        over = np.maximum(sign * lean, 0)
        side = Limbs(
            lift=35 + 120 * over, plane=5, elbow=60 - 35 * over, abduct=16, knee=4 + 14 * over
        )
        limbs.append(side)
    return ActionCurves(limbs, spine_side=32 * lean, pelvis_roll=8 * lean, head_tilt=20 * lean)


def _swing(sampler: Sampler) -> ActionCurves:
    """Swing a racket's forehand: back, through, and across the chest."""
    phase = sampler.beat(0.45, 0.8)
    through = np.sin(phase + 0.4 * np.sin(phase))
    arm_height = sampler.draw(55, 85)
    left = Limbs(
        lift=60 - 15 * through,
        plane=55 + 20 * through,
        elbow=55 + 20 * through,
        knee=26 + 14 * through,
        flex=18 + 10 * through,
        abduct=16,
    )
    right = Limbs(
        lift=arm_height + 12 * through,
        plane=45 + 70 * through,
        elbow=40 + 30 * through,
        twist=15 * through,
        knee=26 - 14 * through,
        flex=18 - 10 * through,
        abduct=16,
    )
    return ActionCurves(
        (left, right),
        spine_turn=42 * through,
        pelvis_yaw=25 * through,
        spine_bend=10,
        head_turn=-20 * through,
    )


def _throw(sampler: Sampler) -> ActionCurves:
    """Throw overarm, with a step of the other leg."""
    phase = sampler.beat(0.4, 0.7)
    wind_up = _pulse(phase + 1.3, 2)
    release = _pulse(phase, 2)
    step = sampler.draw(30, 75)
    right = Limbs(
        lift=35 + 75 * np.maximum(wind_up, release),
        plane=20 - 35 * wind_up + 65 * release,
        elbow=40 + 60 * wind_up - 25 * release,
        twist=65 * wind_up - 35 * release,
        knee=14 + 12 * release,
    )
    left = Limbs(
        lift=25 + 60 * wind_up,
        plane=70,
        elbow=25 + 40 * release,
        flex=5 + step * wind_up + 15 * release,
        knee=8 + step * wind_up + 15 * release,
    )
    return ActionCurves(
        (left, right),
        spine_turn=-35 * wind_up + 35 * release,
        spine_bend=5 + 28 * release,
        pelvis_yaw=-20 * wind_up + 18 * release,
    )


_Bounds = Mapping[str, tuple[float, float]]  # freedom -> centre and half-width in degrees
# of random poses
_ARMS_DANCE: Final[_Bounds] = {
    "lift": (80, 75), "plane": (45, 55), "twist": (0, 45), "elbow": (60, 55), "wrist": (0, 30),
}  # fmt: skip
_LEGS_DANCE: Final[_Bounds] = {
    "flex": (28, 38), "abduct": (14, 20), "turnout": (8, 15), "knee": (35, 40), "ankle": (0, 15),
}  # fmt: skip
_TRUNK_SWAYS: Final[_Bounds] = {
    "pelvis_pitch": (6, 14), "pelvis_roll": (0, 9), "pelvis_yaw": (0, 25), "spine_bend": (10, 22),
    "spine_side": (0, 20), "spine_turn": (0, 32), "head_nod": (0, 22), "head_tilt": (0, 15),
    "head_turn": (0, 40),
}  # fmt: skip


def _random_poses(sampler: Sampler, spread: float, limb_bounds: _Bounds) -> ActionCurves:
    """Move through random poses, 0.45 to 0.9 s apart, by monotone cubic interpolation.

    spread: factor of the half-widths. limb_bounds: of the freedoms of arms and legs to move.
    """
    t = sampler.t
    knots = [t[0] - sampler.draw(0, 0.5)]
    while knots[-1] < t[-1] or len(knots) < 2:
        knots.append(knots[-1] + sampler.draw(0.45, 0.9))

    def curve(bounds: tuple[float, float], clip: Callable[[Doubles], Doubles]) -> Doubles:
        centre, half = bounds
        poses = centre + spread * half * sampler.rng.uniform(-1, 1, len(knots))
        return np.asarray(PchipInterpolator(knots, clip(poses))(t))

    trunk = {name: curve(bounds, CENTRAL[name].clip) for name, bounds in _TRUNK_SWAYS.items()}
    sides: tuple[dict[str, Doubles], ...] = ({}, {})
    for name, bounds in limb_bounds.items():
        for side in sides:
            side[name] = curve(bounds, SIDED[name].clip)
    return ActionCurves([Limbs(**side) for side in sides], **trunk)


def _dance(sampler: Sampler) -> ActionCurves:
    """Move through random poses of the whole body, for the widest variety."""
    return _random_poses(sampler, 0.75, {**_ARMS_DANCE, **_LEGS_DANCE})


def _reach(sampler: Sampler) -> ActionCurves:
    """Move arms, trunk and head through random poses while standing."""
    return _random_poses(sampler, 1.0, _ARMS_DANCE)


ACTIONS: Final[Mapping[str, Callable[[Sampler], ActionCurves]]] = {
    "walk": _walk,
    "march": _march,
    "wave": _wave,
    "squat": _squat,
    "arm_raise": _arm_raise,
    "jumping_jacks": _jumping_jacks,
    "kick": _kick,
    "box": _box,
    "bow": _bow,
    "look_around": _look_around,
    "lunge": _lunge,
    "side_bend": _side_bend,
    "swing": _swing,
    "throw": _throw,
    "dance": _dance,
    "reach": _reach,
}

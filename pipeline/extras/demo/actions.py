"""Actions as curves of joint angles.  [motion] -> pixels and labels

Motion is described by degrees of freedom with a meaning (`l_knee`: flexion of the left knee) and a
range, DOFS. Thigh angles are relative to the vertical and foot angles to the ground (toes up is
positive), independent of the pelvis.

An action, such as `_walk`, makes the curves of the degrees of freedom that it moves, by name; the
others stay relaxed. Its amplitudes, tempo and phase are random, within bounds chosen by eye.
`pipeline.extras.demo.motion` calls the actions of ACTIONS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.random import Generator
from scipy.interpolate import PchipInterpolator

from pipeline.people.skeletons import Doubles

TAU: Final = 2 * np.pi
SIDES: Final = "lr"


class _Range(NamedTuple):
    """Degrees of a degree of freedom."""

    low: float
    high: float
    relaxed: float = 0  # in relaxed standing


# of the arm and the leg of one side
SIDED: Final[Mapping[str, _Range]] = {
    # upper arm: 0 hangs, 90 level, 180 overhead
    "lift": _Range(4, 172, 12),
    # of that raise: 0 sideways, 90 forward, above it across the chest
    "plane": _Range(-40, 125, 25),
    "twist": _Range(-80, 80),  # about the upper arm; outward is positive
    "elbow": _Range(2, 145, 18),
    "wrist": _Range(-60, 60),
    "flex": _Range(-25, 120, 2),  # hip: the thigh forward
    "abduct": _Range(-15, 60, 4),  # hip: the leg sideways
    "turnout": _Range(-30, 45, 6),  # hip: the toes outward
    "knee": _Range(1, 140, 4),
    "ankle": _Range(-40, 38),  # toes up is positive
    "toes": _Range(-5, 50),  # bent up against the foot, as when the heel lifts
}
DOFS: Final[Mapping[str, _Range]] = {
    "pelvis_pitch": _Range(-25, 70),  # leaning forward is positive
    "pelvis_roll": _Range(-25, 25),  # towards the person's right is positive
    "pelvis_yaw": _Range(-50, 50),  # turning left is positive, here and below
    "spine_bend": _Range(-25, 80, 3),
    "spine_side": _Range(-35, 35),
    "spine_turn": _Range(-50, 50),
    "head_nod": _Range(-45, 45, 3),
    "head_tilt": _Range(-35, 35),
    "head_turn": _Range(-70, 70),
    **{f"{side}_{name}": dof for side in SIDES for name, dof in SIDED.items()},
}
Curve = Doubles | float  # (T,) degrees, or one number for all times
Curves = dict[str, Curve]  # by name in DOFS


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


def _limbs(sides: str, **curves: Curve) -> Curves:
    """The same curves of arm and leg for these sides."""
    return {f"{side}_{name}": curve for side in sides for name, curve in curves.items()}


def _pulse(phase: Doubles, sharpness: float = 1.0) -> Doubles:
    """0..1 once per beat; a higher sharpness spends more of the beat near 0."""
    return ((1 - np.cos(phase)) / 2) ** sharpness


def _walk(sampler: Sampler) -> Curves:
    """Walk forward; the stride determines the speed."""
    phase = sampler.beat(0.75, 1.1)
    stride = sampler.draw(20, 30)  # of the thigh, to either side
    knee_bend = sampler.draw(45, 65)
    arm_swing = sampler.draw(15, 45)
    elbow_bend = sampler.draw(15, 60)
    curves: Curves = {
        "pelvis_yaw": 6 * np.sin(phase),
        "spine_turn": -10 * np.sin(phase),
        "spine_bend": 4,
    }
    # the right leg walks half a beat after the left one, arms against the legs
    for side, half_beat, sign in (("l", 0.0, -1), ("r", np.pi, 1)):
        leg_phase = phase + half_beat
        ahead = np.maximum(np.sin(leg_phase), 0) ** 2
        behind = np.maximum(-np.sin(leg_phase), 0) ** 2
        forward = sign * arm_swing * np.sin(phase)
        curves |= _limbs(
            side,
            flex=stride * (np.sin(leg_phase) + 0.15),
            knee=6 + knee_bend * _pulse(leg_phase + 1.15 * np.pi, 2),
            ankle=10 * ahead - 35 * behind,
            toes=30 * behind,
            lift=14 + np.abs(forward),
            plane=35 + 55 * np.tanh(forward / 10),
            elbow=elbow_bend + 0.4 * forward,
        )
    return curves


def _march(sampler: Sampler) -> Curves:
    """March on the spot, with high knees and bent, pumping arms."""
    phase = sampler.beat(0.7, 1.2)
    knee_height = sampler.draw(55, 100)
    arm_height = sampler.draw(35, 70)
    curves: Curves = {"spine_turn": 8 * np.sin(phase)}
    for side, sign in (("l", 1), ("r", -1)):
        leg_lift = sign * np.sin(phase)
        knee_up = np.maximum(leg_lift, 0) ** 1.5
        arm_pump = np.maximum(-leg_lift, 0) ** 1.5
        curves |= _limbs(
            side,
            flex=knee_height * knee_up,
            knee=5 + knee_height * 1.05 * knee_up,
            ankle=-15 * knee_up,
            lift=12 + arm_height * arm_pump,
            plane=25 + 65 * arm_pump,
            elbow=60 + 30 * arm_pump,
        )
    return curves


def _wave(sampler: Sampler) -> Curves:
    """Wave one hand beside the head."""
    side, other = sampler.rng.permutation(list(SIDES))
    sign = 1 if side == "l" else -1
    phase = sampler.beat(1.2, 2.2)
    sway = np.sin(sampler.beat(0.15, 0.3))
    waving = _limbs(
        side,
        lift=105 + sampler.draw(-10, 45) + 8 * sway,
        plane=sampler.draw(-5, 40),
        elbow=sampler.draw(55, 95) + sampler.draw(18, 35) * np.sin(phase),
        twist=55 + 15 * np.sin(phase),
    )
    trunk = {"spine_side": sign * (5 * sway - 6), "head_turn": 15 * sway}
    return waving | trunk | _limbs(other, elbow=20 + 15 * sway)


def _squat(sampler: Sampler) -> Curves:
    """Squat down and up, arms forward for balance."""
    deepest = sampler.draw(70, 105)
    depth = deepest * _pulse(sampler.beat(0.35, 0.6))
    stance = sampler.draw(6, 20)
    forward = sampler.draw(0.5, 1.0) * depth
    limbs = _limbs(
        SIDES,
        flex=0.9 * depth,
        knee=4 + 1.25 * depth,
        abduct=stance + 0.12 * depth,
        turnout=10 + 0.2 * depth,
        lift=14 + forward,
        plane=30 + 0.6 * depth,
        elbow=15 + 0.1 * depth,
    )
    trunk = {"pelvis_pitch": 0.38 * depth, "spine_bend": 5 + 0.1 * depth}
    return limbs | trunk | {"head_nod": -0.25 * depth}


def _arm_raise(sampler: Sampler) -> Curves:
    """Raise and lower both arms, together or in turn, in a random plane."""
    phase = sampler.beat(0.3, 0.7)
    lag = sampler.rng.choice([0.0, np.pi / 2, np.pi])
    plane = sampler.draw(0, 95)
    highest = sampler.draw(100, 165)
    elbow_bend = sampler.draw(5, 45)
    first_up = _pulse(phase)
    second_up = _pulse(phase + lag)
    curves: Curves = {"spine_side": 8 * (second_up - first_up), "head_nod": -10 * first_up}
    for side, arm_up in zip(SIDES, (first_up, second_up), strict=True):
        curves |= _limbs(
            side, lift=12 + highest * arm_up, plane=plane, elbow=10 + elbow_bend * arm_up
        )
    return curves


# Of random poses: centre and half-width in degrees.
_POSES: Final[Mapping[str, tuple[float, float]]] = {
    "lift": (80, 56), "plane": (45, 41), "twist": (0, 34), "elbow": (60, 41), "wrist": (0, 22),
    "flex": (28, 28), "abduct": (14, 15), "turnout": (8, 11), "knee": (35, 30), "ankle": (0, 11),
    "pelvis_pitch": (6, 10), "pelvis_roll": (0, 7), "pelvis_yaw": (0, 19), "spine_bend": (10, 16),
    "spine_side": (0, 15), "spine_turn": (0, 24), "head_nod": (0, 16), "head_tilt": (0, 11),
    "head_turn": (0, 30), "toes": (0, 0),
}  # fmt: skip


def _random_poses(sampler: Sampler) -> Curves:
    """Move through random poses, 0.45 to 0.9 s apart, by monotone cubic interpolation."""
    t = sampler.t
    knots = [t[0] - sampler.draw(0, 0.5)]
    while knots[-1] < t[-1] or len(knots) < 2:
        knots.append(knots[-1] + sampler.draw(0.45, 0.9))
    curves: Curves = {}
    for name, dof in DOFS.items():
        centre, half = _POSES[name.removeprefix("l_").removeprefix("r_")]
        poses = centre + half * sampler.rng.uniform(-1, 1, len(knots))
        curves[name] = PchipInterpolator(knots, poses.clip(dof.low, dof.high))(t)
    return curves


ACTIONS: Final[Mapping[str, Callable[[Sampler], Curves]]] = {
    "walk": _walk,
    "march": _march,
    "squat": _squat,
    "arm_raise": _arm_raise,
    "wave": _wave,
    "random_poses": _random_poses,
}

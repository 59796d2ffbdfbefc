"""Actions as curves of joint angles.  [motion] -> pixels and labels

Motion is described by degrees of freedom with a meaning (`l_knee`: flexion of the left knee) and a
range. An action, such as `_walk`, sets `ActionCurves`, degrees over time, for the degrees of
freedom that it moves; the others stay relaxed. Its amplitudes, tempo and phase are random.
`pipeline.demo.motion` calls the actions of ACTIONS.

Thigh angles are relative to the vertical and foot angles to the ground (toes up is positive),
independent of the pelvis.

Words of the actions:
    phase: of the movement, in rad; it grows by 2 pi a beat.
    limbs: arm and leg of one side. Loops take the left side first, with a `sign` or `shift` by
        which the sides differ: the right leg walks half a beat after the left one.
    up, down, behind, ...: how far the movement is, 0 to 1 at each time.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

import numpy as np
from numpy.random import Generator
from scipy.interpolate import PchipInterpolator

from pipeline.skeletons import Doubles

TAU: Final = 2 * np.pi

# Degrees of freedom in degrees: lowest, highest, and in relaxed standing.
_CENTRAL: Final = {
    "pelvis_pitch": (-25, 70, 0),  # leaning forward is positive
    "pelvis_roll": (-25, 25, 0),  # towards the person's right is positive
    "pelvis_yaw": (-50, 50, 0),  # turning left is positive, here and below
    "spine_bend": (-25, 80, 3),
    "spine_side": (-35, 35, 0),
    "spine_turn": (-50, 50, 0),
    "head_nod": (-45, 45, 3),
    "head_tilt": (-35, 35, 0),
    "head_turn": (-70, 70, 0),
}
SIDED: Final = {
    "lift": (4, 172, 12),  # upper arm: 0 hangs, 90 level, 180 overhead
    "plane": (-40, 125, 25),  # of that raise: 0 sideways, 90 forward, above it across the chest
    "twist": (-80, 80, 0),  # about the upper arm; outward is positive
    "elbow": (2, 145, 18),
    "wrist": (-60, 60, 0),
    "flex": (-25, 120, 2),  # hip: the thigh forward
    "abduct": (-15, 60, 4),  # hip: the leg sideways
    "turnout": (-30, 45, 6),  # hip: the toes outward
    "knee": (1, 140, 4),
    "ankle": (-40, 38, 0),  # toes up is positive
    "toes": (-5, 50, 0),  # bent up against the foot, as when the heel lifts
}
SIDES: Final = "lr"
DOFS: Final = dict(_CENTRAL)  # of the whole person: spine_bend, l_knee, r_knee
for _side in SIDES:
    DOFS.update({f"{_side}_{name}": dof for name, dof in SIDED.items()})


class ActionCurves(SimpleNamespace):
    """The curves of an action. Those of trunk and head are attributes, named by their freedom.

    `limbs` has the curves of the left arm and leg, then of the right ones. A curve is (T,) degrees,
    or one number for all times.
    """

    def __init__(self, t: Doubles, rng: Generator) -> None:
        """t: (T,) s. rng: of amplitudes, tempo and phase."""
        self.t = t
        self.rng = rng
        self.hop: Any = 0.0  # m above the ground
        self.limbs = (SimpleNamespace(), SimpleNamespace())

    def draw(self, low: float, high: float) -> float:
        """A random number between two."""
        return self.rng.uniform(low, high)

    def beat(self, low: float, high: float) -> Doubles:
        """Phase in rad of a random tempo between `low` and `high` beats per second."""
        return TAU * (self.draw(low, high) * self.t + self.rng.uniform())

    def by_freedom(self) -> dict[str, Any]:
        """The curves by degree of freedom, and `hop`."""
        curves = dict(vars(self))
        del curves["t"], curves["rng"]
        for side, limbs in zip(SIDES, curves.pop("limbs"), strict=True):
            for name, curve in vars(limbs).items():
                curves[f"{side}_{name}"] = curve
        return curves


Action = Callable[[ActionCurves], None]


def _pulse(phase: Doubles, sharpness: float = 1.0) -> Doubles:
    """0..1 once per beat; a higher sharpness spends more of the beat near 0."""
    return ((1 - np.cos(phase)) / 2) ** sharpness


def _walk(body: ActionCurves) -> None:
    """Walk forward; the stride determines the speed."""
    phase = body.beat(0.75, 1.1)
    stride = body.draw(20, 30)  # of the thigh, to either side
    knee_bend = body.draw(45, 65)
    arm_swing = body.draw(15, 45)
    elbow_bend = body.draw(15, 60)
    body.pelvis_yaw = 6 * np.sin(phase)
    body.spine_turn = -10 * np.sin(phase)
    body.spine_bend = 4
    for limbs, phase_shift, sign in zip(body.limbs, (0.0, np.pi), (-1, 1), strict=True):
        leg_phase = phase + phase_shift
        ahead = np.maximum(np.sin(leg_phase), 0) ** 2
        behind = np.maximum(-np.sin(leg_phase), 0) ** 2
        limbs.flex = stride * (np.sin(leg_phase) + 0.15)
        limbs.knee = 6 + knee_bend * _pulse(leg_phase + 1.15 * np.pi, 2)
        limbs.ankle = 10 * ahead - 35 * behind
        limbs.toes = 30 * behind
        forward = sign * arm_swing * np.sin(phase)
        limbs.lift = 14 + np.abs(forward)
        limbs.plane = 35 + 55 * np.tanh(forward / 10)
        limbs.elbow = elbow_bend + 0.4 * forward


def _march(body: ActionCurves) -> None:
    """March on the spot, with high knees and bent, pumping arms."""
    phase = body.beat(0.7, 1.2)
    knee_height = body.draw(55, 100)
    arm_height = body.draw(35, 70)
    body.spine_turn = 8 * np.sin(phase)
    for limbs, sign in zip(body.limbs, (1, -1), strict=True):
        leg_lift = sign * np.sin(phase)
        knee_up = np.maximum(leg_lift, 0) ** 1.5
        arm_pump = np.maximum(-leg_lift, 0) ** 1.5
        limbs.flex = knee_height * knee_up
        limbs.knee = 5 + knee_height * 1.05 * knee_up
        limbs.ankle = -15 * knee_up
        limbs.lift = 12 + arm_height * arm_pump
        limbs.plane = 25 + 65 * arm_pump
        limbs.elbow = 60 + 30 * arm_pump


def _wave(body: ActionCurves) -> None:
    """Wave one hand beside the head."""
    phase = body.beat(1.2, 2.2)
    sway = np.sin(body.beat(0.15, 0.3))
    left, right = body.limbs
    left.lift = 105 + body.draw(-10, 45) + 8 * sway
    left.plane = body.draw(-5, 40)
    elbow_bend = body.draw(55, 95)
    left.elbow = elbow_bend + body.draw(18, 35) * np.sin(phase)
    left.twist = 55 + 15 * np.sin(phase)
    body.spine_side = -6 + 5 * sway
    body.head_turn = 15 * sway
    right.elbow = 20 + 15 * sway


def _squat(body: ActionCurves) -> None:
    """Squat down and up, arms forward for balance."""
    deepest = body.draw(70, 105)
    depth = deepest * _pulse(body.beat(0.35, 0.6))
    stance = body.draw(6, 20)
    body.pelvis_pitch = 0.38 * depth
    body.spine_bend = 5 + 0.1 * depth
    body.head_nod = -0.25 * depth
    forward = body.draw(0.5, 1.0) * depth
    for limbs in body.limbs:
        limbs.flex = 0.9 * depth
        limbs.knee = 4 + 1.25 * depth
        limbs.abduct = stance + 0.12 * depth
        limbs.turnout = 10 + 0.2 * depth
        limbs.lift = 14 + forward
        limbs.plane = 30 + 0.6 * depth
        limbs.elbow = 15 + 0.1 * depth


def _arm_raise(body: ActionCurves) -> None:
    """Raise and lower both arms, together or in turn, in a random plane."""
    phase = body.beat(0.3, 0.7)
    lag = body.rng.choice([0.0, np.pi / 2, np.pi])
    plane = body.draw(0, 95)
    highest = body.draw(100, 165)
    elbow_bend = body.draw(5, 45)
    first_up = _pulse(phase)
    second_up = _pulse(phase + lag)
    for limbs, arm_up in zip(body.limbs, (first_up, second_up), strict=True):
        limbs.lift = 12 + highest * arm_up
        limbs.plane = plane
        limbs.elbow = 10 + elbow_bend * arm_up
    body.spine_side = 8 * (second_up - first_up)
    body.head_nod = -10 * first_up


def _jumping_jacks(body: ActionCurves) -> None:
    """Hop with arms and legs apart, then together."""
    phase = body.beat(0.8, 1.3)
    apart = _pulse(phase)
    leg_spread = body.draw(18, 30)
    highest = body.draw(120, 155)
    landing = np.cos(phase) ** 2
    jump = np.sin(phase) ** 2
    body.hop = body.draw(0.04, 0.10) * jump
    for limbs in body.limbs:
        limbs.lift = 10 + highest * apart
        limbs.plane = 8
        limbs.elbow = 12 + 15 * apart
        limbs.abduct = 2 + leg_spread * apart
        limbs.knee = 8 + 14 * landing
        limbs.flex = 4 + 8 * landing
        limbs.ankle = -25 * jump


def _kick(body: ActionCurves) -> None:
    """Swing one leg back and forward, as if to kick a ball."""
    phase = body.beat(0.45, 0.75)
    swing_back = _pulse(phase + 1.2, 3)
    swing_forward = _pulse(phase, 3)
    kick_height = body.draw(50, 95)
    left, right = body.limbs
    right.flex = kick_height * swing_forward - 22 * swing_back
    right.knee = 8 + 80 * swing_back + 12 * swing_forward
    right.ankle = -70 * swing_back - 25 * swing_forward
    right.abduct = 4 + body.draw(0, 25) * swing_forward
    right.lift = 20 + 40 * swing_forward
    right.plane = -10
    right.elbow = 25
    left.knee = 8 + 12 * swing_forward
    left.flex = 6 + 6 * swing_forward
    left.lift = 20 + 50 * swing_forward
    left.plane = 40 + 40 * swing_forward
    left.elbow = 30
    body.spine_bend = 6 + 15 * swing_forward
    body.pelvis_pitch = -12 * swing_forward
    body.spine_turn = 18 * (swing_forward - swing_back)


def _box(body: ActionCurves) -> None:
    """Box: guard up, straight punches with left and right in turn."""
    phase = body.beat(0.7, 1.3)
    arm_reach = body.draw(60, 85)
    body.spine_turn = 28 * np.sin(phase)
    body.pelvis_yaw = 12 * np.sin(phase)
    body.spine_bend = 12
    for limbs, sign in zip(body.limbs, (-1, 1), strict=True):
        punch = np.maximum(sign * np.sin(phase), 0) ** 2
        limbs.lift = 38 + (arm_reach - 30) * punch
        limbs.plane = 62 + 28 * punch
        limbs.elbow = 122 - 112 * punch
        limbs.twist = -10
        limbs.knee = 22 + 8 * punch
        limbs.flex = 16 + sign * 12


def _bow(body: ActionCurves) -> None:
    """Bow from the hips, arms hanging or held back."""
    down = _pulse(body.beat(0.25, 0.45), 1.5)
    depth = body.draw(0.6, 1.0)
    body.pelvis_pitch = 45 * depth * down
    body.spine_bend = 4 + 45 * depth * down
    body.head_nod = 20 * down
    arm_lift = 10
    arm_plane = 85
    if body.draw(0, 1) > 0.5:
        arm_lift = 25
        arm_plane = -35
    for limbs in body.limbs:
        limbs.flex = -6 * down
        limbs.lift = arm_lift + 40 * depth * down
        limbs.plane = arm_plane
        limbs.elbow = 15 + 20 * down


def _look_around(body: ActionCurves) -> None:
    """Turn head and trunk, with one hand at the hip and the other at the brow."""
    phase = body.beat(0.3, 0.55)
    nod = np.sin(body.beat(0.12, 0.25))
    left, right = body.limbs
    body.head_turn = 55 * np.sin(phase)
    body.spine_turn = 35 * np.sin(phase - 0.4)
    body.pelvis_yaw = 18 * np.sin(phase - 0.8)
    body.head_nod = 15 * nod
    right.lift = 42
    right.plane = -15
    right.twist = -45
    right.elbow = body.draw(70, 95)
    left.lift = 75 + 25 * nod
    left.plane = 75
    left.elbow = 105 + 20 * np.sin(phase)


def _lunge(body: ActionCurves) -> None:
    """Lunge: one leg in front, down until the other knee is near the ground, and up."""
    down = _pulse(body.beat(0.35, 0.6))
    thigh_forward = body.draw(20, 35)
    depth = body.draw(45, 65)
    left, right = body.limbs
    left.flex = thigh_forward + depth * down
    left.knee = left.flex
    right.ankle = -25 - 25 * down
    right.flex = -16 - 6 * down
    right.knee = 12 + 75 * down
    right.toes = 20 + 25 * down
    body.spine_bend = 3 + 8 * down
    for limbs in body.limbs:
        limbs.lift = 35 + 45 * down
        limbs.plane = -5 + 20 * down
        limbs.elbow = 95 - 60 * down


def _side_bend(body: ActionCurves) -> None:
    """Bend to the left and the right, with the upper arm over the head."""
    phase = body.beat(0.25, 0.5)
    lean = np.sin(phase) * body.draw(0.7, 1.0)
    body.spine_side = 32 * lean
    body.pelvis_roll = 8 * lean
    body.head_tilt = 20 * lean
    for limbs, side in zip(body.limbs, (lean, -lean), strict=True):
        over = np.maximum(side, 0)
        limbs.lift = 35 + 120 * over
        limbs.plane = 5
        limbs.elbow = 60 - 35 * over
        limbs.abduct = 16
        limbs.knee = 4 + 14 * over


def _swing(body: ActionCurves) -> None:
    """Swing a racket's forehand: back, through, and across the chest."""
    phase = body.beat(0.45, 0.8)
    through = np.sin(phase + 0.4 * np.sin(phase))
    arm_height = body.draw(55, 85)
    left, right = body.limbs
    body.spine_turn = 42 * through
    body.pelvis_yaw = 25 * through
    body.spine_bend = 10
    body.head_turn = -20 * through
    right.lift = arm_height + 12 * through
    right.plane = 45 + 70 * through
    right.elbow = 40 + 30 * through
    right.twist = 15 * through
    left.lift = 60 - 15 * through
    left.plane = 55 + 20 * through
    left.elbow = 55 + 20 * through
    for limbs, sign in zip(body.limbs, (1, -1), strict=True):
        limbs.knee = 26 + sign * 14 * through
        limbs.flex = 18 + sign * 10 * through
        limbs.abduct = 16


def _throw(body: ActionCurves) -> None:
    """Throw overarm, with a step of the other leg."""
    phase = body.beat(0.4, 0.7)
    wind_up = _pulse(phase + 1.3, 2)
    release = _pulse(phase, 2)
    step = body.draw(30, 75)
    left, right = body.limbs
    right.lift = 35 + 75 * np.maximum(wind_up, release)
    right.plane = 20 - 35 * wind_up + 65 * release
    right.elbow = 40 + 60 * wind_up - 25 * release
    right.twist = 65 * wind_up - 35 * release
    right.knee = 14 + 12 * release
    left.lift = 25 + 60 * wind_up
    left.plane = 70
    left.elbow = 25 + 40 * release
    left.flex = 5 + step * wind_up + 15 * release
    left.knee = 8 + step * wind_up + 15 * release
    body.spine_turn = -35 * wind_up + 35 * release
    body.spine_bend = 5 + 28 * release
    body.pelvis_yaw = -20 * wind_up + 18 * release


_DANCED: Final = {  # centre and half-width in degrees of the random poses
    "lift": (80, 75), "plane": (45, 55), "twist": (0, 45), "elbow": (60, 55), "wrist": (0, 30),
    "flex": (28, 38), "abduct": (14, 20), "turnout": (8, 15), "knee": (35, 40), "ankle": (0, 15),
}  # fmt: skip
_SWAYED: Final = {
    "pelvis_pitch": (6, 14), "pelvis_roll": (0, 9), "pelvis_yaw": (0, 25), "spine_bend": (10, 22),
    "spine_side": (0, 20), "spine_turn": (0, 32), "head_nod": (0, 22), "head_tilt": (0, 15),
    "head_turn": (0, 40),
}  # fmt: skip
_LEG_FREEDOMS: Final = ("flex", "abduct", "turnout", "knee", "ankle")


def _move_at_random(body: ActionCurves, *, spread: float, legs: bool) -> None:
    """Move through random poses, 0.45 to 0.9 s apart, by monotone cubic interpolation."""
    t = body.t
    knots = [t[0] - body.draw(0, 0.5)]
    while knots[-1] < t[-1] or len(knots) < 2:
        knots.append(knots[-1] + body.draw(0.45, 0.9))

    def draw(centre: float, half: float, dof: tuple[float, ...]) -> Any:
        low, high, _ = dof
        poses = centre + spread * half * body.rng.uniform(-1, 1, len(knots))
        return PchipInterpolator(knots, np.clip(poses, low, high))(t)

    for name, sway in _SWAYED.items():
        setattr(body, name, draw(*sway, _CENTRAL[name]))
    for name, dance in _DANCED.items():
        if legs or name not in _LEG_FREEDOMS:
            for limbs in body.limbs:
                setattr(limbs, name, draw(*dance, SIDED[name]))


def _dance(body: ActionCurves) -> None:
    """Move through random poses of the whole body, for the widest variety."""
    _move_at_random(body, spread=0.75, legs=True)


def _reach(body: ActionCurves) -> None:
    """Move arms, trunk and head through random poses while standing."""
    _move_at_random(body, spread=1.0, legs=False)


ACTIONS: Final[dict[str, Action]] = {
    action.__name__.removeprefix("_"): action
    for action in (
        _walk, _march, _wave, _squat, _arm_raise, _jumping_jacks, _kick, _box, _bow, _look_around,
        _lunge, _side_bend, _swing, _throw, _dance, _reach,
    )
}  # fmt: skip

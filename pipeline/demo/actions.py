"""Actions as curves of joint angles.  [motion] -> pixels and labels

Motion is described by degrees of freedom with a meaning (`l_knee`: flexion of the left knee) and a
range. An action is a function of time in seconds and a random generator for amplitudes, tempo and
phase. It returns `Curves`: degrees over time for the degrees of freedom that it moves; the others
stay relaxed. Thigh angles are relative to the vertical and foot angles to the ground (toes up is
positive), independent of the pelvis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

Times = NDArray[np.float64]
# degree of freedom -> (T,) degrees; "hop" -> m above the ground
Curves = dict[str, NDArray[np.floating[Any]] | float]
Action = Callable[[Times, np.random.Generator], Curves]

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
_SIDED: Final = {
    "raise": (4, 172, 12),  # upper arm: 0 hangs, 90 level, 180 overhead
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
DOFS: Final = _CENTRAL | {f"{side}_{name}": dof for side in "lr" for name, dof in _SIDED.items()}


def _beat(t: Times, rng: np.random.Generator, low: float, high: float) -> Times:
    """Phase in rad of a random tempo between `low` and `high` beats per second."""
    return TAU * (rng.uniform(low, high) * t + rng.uniform())


def _pulse(phase: Times, sharpness: float = 1.0) -> Times:
    """0..1 once per beat; a higher sharpness spends more of the beat near 0."""
    return ((1 - np.cos(phase)) / 2) ** sharpness


def _walk(t: Times, rng: np.random.Generator) -> Curves:
    """Walk forward; the stride determines the speed."""
    phase = _beat(t, rng, 0.75, 1.1)
    stride = rng.uniform(20, 30)
    lift = rng.uniform(45, 65)  # degrees: of the thigh either way, of the knee
    swing = rng.uniform(15, 45)
    bent = rng.uniform(15, 60)
    curves: Curves = {
        "pelvis_yaw": 6 * np.sin(phase),
        "spine_turn": -10 * np.sin(phase),
        "spine_bend": 4,
    }
    for side, shift, sign in (("l", 0.0, -1), ("r", np.pi, 1)):
        leg = phase + shift
        forward = sign * swing * np.sin(phase)
        ahead = np.maximum(np.sin(leg), 0) ** 2
        behind = np.maximum(-np.sin(leg), 0) ** 2
        curves |= {
            f"{side}_flex": stride * (np.sin(leg) + 0.15),
            f"{side}_ankle": 10 * ahead - 35 * behind,
        }
        curves |= {
            f"{side}_knee": 6 + lift * _pulse(leg + 1.15 * np.pi, 2),
            f"{side}_toes": 30 * behind,
        }
        curves |= {
            f"{side}_raise": 14 + np.abs(forward),
            f"{side}_plane": 35 + 55 * np.tanh(forward / 10),
        }
        curves[f"{side}_elbow"] = bent + 0.4 * forward
    return curves


def _march(t: Times, rng: np.random.Generator) -> Curves:
    """On the spot, knees high, arms bent and pumping."""
    phase = _beat(t, rng, 0.7, 1.2)
    high = rng.uniform(55, 100)
    arm = rng.uniform(35, 70)
    curves: Curves = {"spine_turn": 8 * np.sin(phase)}
    for side, sign in (("l", 1), ("r", -1)):
        up = np.maximum(sign * np.sin(phase), 0) ** 1.5
        pump = np.maximum(-sign * np.sin(phase), 0) ** 1.5
        curves |= {
            f"{side}_flex": high * up,
            f"{side}_knee": 5 + high * 1.05 * up,
            f"{side}_ankle": -15 * up,
        }
        curves |= {
            f"{side}_raise": 12 + arm * pump,
            f"{side}_plane": 25 + 65 * pump,
            f"{side}_elbow": 60 + 30 * pump,
        }
    return curves


def _wave(t: Times, rng: np.random.Generator) -> Curves:
    """One hand beside the head, to and fro."""
    phase = _beat(t, rng, 1.2, 2.2)
    slow = _beat(t, rng, 0.15, 0.3)
    curves: Curves = {
        "l_raise": 105 + rng.uniform(-10, 45) + 8 * np.sin(slow),
        "l_plane": rng.uniform(-5, 40),
    }
    curves |= {
        "l_elbow": rng.uniform(55, 95) + rng.uniform(18, 35) * np.sin(phase),
        "l_twist": 55 + 15 * np.sin(phase),
    }
    curves |= {
        "spine_side": -6 + 5 * np.sin(slow),
        "head_turn": 15 * np.sin(slow),
        "r_elbow": 20 + 15 * np.sin(slow),
    }
    return curves


def _squat(t: Times, rng: np.random.Generator) -> Curves:
    """Down and up, arms forward for balance."""
    depth = rng.uniform(70, 105) * _pulse(_beat(t, rng, 0.35, 0.6))
    wide = rng.uniform(6, 20)
    curves: Curves = {
        "pelvis_pitch": 0.38 * depth,
        "spine_bend": 5 + 0.1 * depth,
        "head_nod": -0.25 * depth,
    }
    forward = rng.uniform(0.5, 1.0) * depth
    for side in "lr":
        curves |= {f"{side}_flex": 0.9 * depth, f"{side}_knee": 4 + 1.25 * depth}
        curves |= {f"{side}_abduct": wide + 0.12 * depth, f"{side}_turnout": 10 + 0.2 * depth}
        curves |= {
            f"{side}_raise": 14 + forward,
            f"{side}_plane": 30 + 0.6 * depth,
            f"{side}_elbow": 15 + 0.1 * depth,
        }
    return curves


def _arm_raise(t: Times, rng: np.random.Generator) -> Curves:
    """Both arms up and down, together or in turn, in a random plane."""
    phase = _beat(t, rng, 0.3, 0.7)
    lag = rng.choice([0.0, np.pi / 2, np.pi])
    plane = rng.uniform(0, 95)
    top = rng.uniform(100, 165)
    bent = rng.uniform(5, 45)
    curves: Curves = {}
    for side, shift in (("l", 0.0), ("r", lag)):
        up = _pulse(phase + shift)
        curves |= {
            f"{side}_raise": 12 + top * up,
            f"{side}_plane": plane,
            f"{side}_elbow": 10 + bent * up,
        }
    return curves | {
        "spine_side": 8 * (_pulse(phase + lag) - _pulse(phase)),
        "head_nod": -10 * _pulse(phase),
    }


def _jumping_jacks(t: Times, rng: np.random.Generator) -> Curves:
    """Arms and legs apart and together, with a hop."""
    phase = _beat(t, rng, 0.8, 1.3)
    out = _pulse(phase)
    legs = rng.uniform(18, 30)
    top = rng.uniform(120, 155)
    curves: Curves = {"hop": rng.uniform(0.04, 0.10) * np.sin(phase) ** 2}
    for side in "lr":
        curves |= {
            f"{side}_raise": 10 + top * out,
            f"{side}_plane": 8,
            f"{side}_elbow": 12 + 15 * out,
        }
        curves |= {f"{side}_abduct": 2 + legs * out, f"{side}_knee": 8 + 14 * np.cos(phase) ** 2}
        curves |= {
            f"{side}_flex": 4 + 8 * np.cos(phase) ** 2,
            f"{side}_ankle": -25 * np.sin(phase) ** 2,
        }
    return curves


def _kick(t: Times, rng: np.random.Generator) -> Curves:
    """One leg back and through, as at a ball."""
    phase = _beat(t, rng, 0.45, 0.75)
    back = _pulse(phase + 1.2, 3)
    front = _pulse(phase, 3)
    high = rng.uniform(50, 95)
    curves: Curves = {"r_flex": high * front - 22 * back, "r_knee": 8 + 80 * back + 12 * front}
    curves |= {"r_ankle": -70 * back - 25 * front, "r_abduct": 4 + rng.uniform(0, 25) * front}
    curves |= {"l_knee": 8 + 12 * front, "l_flex": 6 + 6 * front, "spine_bend": 6 + 15 * front}
    curves |= {"pelvis_pitch": -12 * front, "spine_turn": 18 * (front - back), "l_elbow": 30}
    curves |= {"l_raise": 20 + 50 * front, "l_plane": 40 + 40 * front, "r_raise": 20 + 40 * front}
    return curves | {"r_plane": -10, "r_elbow": 25}


def _box(t: Times, rng: np.random.Generator) -> Curves:
    """Guard up, straight punches left and right in turn."""
    phase = _beat(t, rng, 0.7, 1.3)
    reach = rng.uniform(60, 85)
    curves: Curves = {
        "spine_turn": 28 * np.sin(phase),
        "pelvis_yaw": 12 * np.sin(phase),
        "spine_bend": 12,
    }
    for side, sign in (("l", -1), ("r", 1)):
        punch = np.maximum(sign * np.sin(phase), 0) ** 2
        curves |= {f"{side}_raise": 38 + (reach - 30) * punch, f"{side}_plane": 62 + 28 * punch}
        curves |= {f"{side}_elbow": 122 - 112 * punch, f"{side}_twist": -10}
        curves |= {f"{side}_knee": 22 + 8 * punch, f"{side}_flex": 16 + sign * 12}
    return curves


def _bow(t: Times, rng: np.random.Generator) -> Curves:
    """From the hips, arms hanging or back."""
    down = _pulse(_beat(t, rng, 0.25, 0.45), 1.5)
    depth = rng.uniform(0.6, 1.0)
    curves: Curves = {
        "pelvis_pitch": 45 * depth * down,
        "spine_bend": 4 + 45 * depth * down,
        "head_nod": 20 * down,
    }
    back = rng.uniform(0, 1) > 0.5
    for side in "lr":
        curves |= {
            f"{side}_flex": -6 * down,
            f"{side}_raise": (25 if back else 10) + 40 * depth * down,
        }
        curves |= {f"{side}_plane": (-35 if back else 85), f"{side}_elbow": 15 + 20 * down}
    return curves


def _look_around(t: Times, rng: np.random.Generator) -> Curves:
    """Head and trunk turn, one hand at the hip, the other at the brow."""
    slow = _beat(t, rng, 0.3, 0.55)
    slower = _beat(t, rng, 0.12, 0.25)
    hip = rng.uniform(70, 95)
    curves: Curves = {
        "head_turn": 55 * np.sin(slow),
        "spine_turn": 35 * np.sin(slow - 0.4),
        "l_plane": 75,
    }
    curves |= {
        "pelvis_yaw": 18 * np.sin(slow - 0.8),
        "head_nod": 15 * np.sin(slower),
        "r_twist": -45,
    }
    curves |= {"r_raise": 42, "r_plane": -15, "r_elbow": hip}
    return curves | {"l_raise": 75 + 25 * np.sin(slower), "l_elbow": 105 + 20 * np.sin(slow)}


def _lunge(t: Times, rng: np.random.Generator) -> Curves:
    """One leg in front, down towards the other knee and up."""
    down = _pulse(_beat(t, rng, 0.35, 0.6))
    front = rng.uniform(20, 35)
    deep = rng.uniform(45, 65)
    curves: Curves = {
        "l_flex": front + deep * down,
        "l_knee": front + deep * down,
        "r_ankle": -25 - 25 * down,
    }
    curves |= {
        "r_flex": -16 - 6 * down,
        "r_knee": 12 + 75 * down,
        "r_toes": 20 + 25 * down,
        "spine_bend": 3 + 8 * down,
    }
    for side in "lr":
        curves |= {
            f"{side}_raise": 35 + 45 * down,
            f"{side}_plane": -5 + 20 * down,
            f"{side}_elbow": 95 - 60 * down,
        }
    return curves


def _side_bend(t: Times, rng: np.random.Generator) -> Curves:
    """Left and right, the upper arm over the head."""
    lean = np.sin(_beat(t, rng, 0.25, 0.5)) * rng.uniform(0.7, 1.0)
    curves: Curves = {"spine_side": 32 * lean, "pelvis_roll": 8 * lean, "head_tilt": 20 * lean}
    for side, sign in (("l", -1), ("r", 1)):
        over = np.maximum(-sign * lean, 0)
        curves |= {
            f"{side}_raise": 35 + 120 * over,
            f"{side}_plane": 5,
            f"{side}_elbow": 60 - 35 * over,
        }
        curves |= {f"{side}_abduct": 16, f"{side}_knee": 4 + 14 * over}
    return curves


def _swing(t: Times, rng: np.random.Generator) -> Curves:
    """A racket's forehand: back, through, across the chest."""
    phase = _beat(t, rng, 0.45, 0.8)
    through = np.sin(phase + 0.4 * np.sin(phase))
    high = rng.uniform(55, 85)
    curves: Curves = {"spine_turn": 42 * through, "pelvis_yaw": 25 * through, "spine_bend": 10}
    curves |= {
        "r_raise": high + 12 * through,
        "r_plane": 45 + 70 * through,
        "r_elbow": 40 + 30 * through,
    }
    curves |= {
        "l_raise": 60 - 15 * through,
        "l_plane": 55 + 20 * through,
        "l_elbow": 55 + 20 * through,
    }
    for side, sign in (("l", 1), ("r", -1)):
        curves |= {
            f"{side}_knee": 26 + sign * 14 * through,
            f"{side}_flex": 18 + sign * 10 * through,
        }
        curves |= {f"{side}_abduct": 16}
    return curves | {"r_twist": 15 * through, "head_turn": -20 * through}


def _throw(t: Times, rng: np.random.Generator) -> Curves:
    """An overarm throw with a step of the other leg."""
    phase = _beat(t, rng, 0.4, 0.7)
    wind = _pulse(phase + 1.3, 2)
    release = _pulse(phase, 2)
    curves: Curves = {
        "r_raise": 35 + 75 * np.maximum(wind, release),
        "r_plane": 20 - 35 * wind + 65 * release,
    }
    curves |= {"r_elbow": 40 + 60 * wind - 25 * release, "r_twist": 65 * wind - 35 * release}
    curves |= {"l_raise": 25 + 60 * wind, "l_plane": 70, "l_elbow": 25 + 40 * release}
    curves |= {"spine_turn": -35 * wind + 35 * release, "pelvis_yaw": -20 * wind + 18 * release}
    curves |= {"spine_bend": 5 + 28 * release, "r_knee": 14 + 12 * release}
    lift = rng.uniform(30, 75)
    return curves | {
        "l_flex": 5 + lift * wind + 15 * release,
        "l_knee": 8 + lift * wind + 15 * release,
    }


_DANCED: Final = {  # centre and half-width in degrees of the random poses
    "raise": (80, 75), "plane": (45, 55), "twist": (0, 45), "elbow": (60, 55), "wrist": (0, 30),
    "flex": (28, 38), "abduct": (14, 20), "turnout": (8, 15), "knee": (35, 40), "ankle": (0, 15),
}  # fmt: skip
_SWAYED: Final = {
    "pelvis_pitch": (6, 14), "pelvis_roll": (0, 9), "pelvis_yaw": (0, 25), "spine_bend": (10, 22),
    "spine_side": (0, 20), "spine_turn": (0, 32), "head_nod": (0, 22), "head_tilt": (0, 15),
    "head_turn": (0, 40),
}  # fmt: skip
_OF_LEGS: Final = ("flex", "abduct", "turnout", "knee", "ankle")


def _through_random_poses(
    t: Times, rng: np.random.Generator, *, spread: float, legs: bool
) -> Curves:
    """Monotone cubic interpolation between random poses 0.45 to 0.9 s apart."""
    knots = [t[0] - rng.uniform(0, 0.5)]
    while knots[-1] < t[-1] or len(knots) < 2:
        knots.append(knots[-1] + rng.uniform(0.45, 0.9))
    ranges = dict(_SWAYED)
    ranges |= {
        f"{side}_{n}": r for n, r in _DANCED.items() if legs or n not in _OF_LEGS for side in "lr"
    }
    curves: Curves = {}
    for name, (centre, half) in ranges.items():
        drawn = centre + spread * half * rng.uniform(-1, 1, len(knots))
        curves[name] = PchipInterpolator(knots, np.clip(drawn, *DOFS[name][:2]))(t)
    return curves


def _dance(t: Times, rng: np.random.Generator) -> Curves:
    """Random poses of the whole body, for the widest variety."""
    return _through_random_poses(t, rng, spread=0.75, legs=True)


def _reach(t: Times, rng: np.random.Generator) -> Curves:
    """Arms, trunk and head to random places, standing."""
    return _through_random_poses(t, rng, spread=1.0, legs=False)


ACTIONS: Final[dict[str, Action]] = {
    action.__name__.removeprefix("_"): action
    for action in (
        _walk, _march, _wave, _squat, _arm_raise, _jumping_jacks, _kick, _box, _bow, _look_around,
        _lunge, _side_bend,
        _swing, _throw, _dance, _reach,
    )
}  # fmt: skip

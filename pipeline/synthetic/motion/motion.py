"""Actions one after the other, standing on the ground: a plausible SMPL motion.  [motion] -> pixels and labels -> raw

The world is y-up with the ground at y = 0, in metres.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.special import softmax

from pipeline.synthetic.body.skinning import skin
from pipeline.synthetic.motion import anatomy
from pipeline.synthetic.motion.actions import ACTIONS, Curves

if TYPE_CHECKING:
    from pipeline.smpl.assets import SmplArrays

Array = NDArray[np.float64]

SMOOTHING_S: Final = 0.05  # sigma over time: a muscle does not change its mind within a frame
BLEND_S: Final = 0.6  # from one action to the next
ACTION_S: Final = (1.6, 3.2)  # an action lasts between these before the next begins
FOOT_HOLD: Final = 0.7  # how much of a turn of the pelvis the feet do not follow
GRIP_M: Final = 0.008  # how much higher than the lowest point a point of the sole may be and still bear weight


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """T frames of one person in the world."""

    fps: float
    actions: tuple[str, ...]  # in the order in which they begin
    angles: Array  # (T, D) degrees, in the order of `anatomy.DOFS`
    pose: Array  # (T, 72) rad
    betas: Array  # (10,)
    trans: Array  # (T, 3) m
    heading: Array  # (T,) rad about the vertical, 0 faces +z


def random_betas(rng: np.random.Generator) -> Array:
    """(10,) shape parameters of a person one may meet."""
    return np.asarray(np.clip(rng.normal(0, 0.7, 10), -2, 2))


def perform(
    body: SmplArrays,
    rng: np.random.Generator,
    *,
    n_frames: int,
    fps: float,
    betas: Array,
    facing: float,
    actions: Sequence[str] | None = None,
) -> Motion:
    """A new motion: actions drawn from `actions` (all of them by default), each with its own tempo and amplitude.

    It begins at the origin of the ground, facing about `facing` (rad; 0 is +z, pi / 2 is +x). Where feet bear weight
    they do not slide: the body moves over them, which is how a walk gets anywhere.
    """
    t = np.arange(n_frames) / fps
    chosen, angles, hop = _choreograph(t, rng, tuple(actions or ACTIONS))
    sigma = SMOOTHING_S * fps
    angles = gaussian_filter1d(anatomy.within_limits(_keep_footing(angles)), sigma, axis=0, mode="nearest")
    heading = facing + _wander(t, rng, np.radians(12))
    pose = anatomy.to_smpl(angles, heading)
    trans = _stand(body, betas, pose, hop, sigma)
    return Motion(fps, chosen, angles, pose, betas, trans, heading)


def _choreograph(
    t: Array, rng: np.random.Generator, repertoire: tuple[str, ...]
) -> tuple[tuple[str, ...], Array, Array]:
    """Names, angles (T, D) and height above the ground (T,) of a sequence of actions, blended into each other."""
    duration = float(t[-1] - t[0])
    n_actions = max(1, round(duration / rng.uniform(*ACTION_S)))
    starts = np.concatenate([[-np.inf], t[0] + duration * np.arange(1, n_actions) / n_actions])
    begun = np.stack([_smoothstep((t - start) / BLEND_S + 0.5) for start in starts] + [np.zeros_like(t)])
    shares = begun[:-1] - begun[1:]  # how much of each action there is: they sum to 1
    names: list[str] = []
    angles, hop = np.zeros((len(t), len(anatomy.DOFS))), np.zeros_like(t)
    for share in shares:
        options = [name for name in repertoire if names[-1:] != [name]] or list(repertoire)
        names.append(str(rng.choice(options)))
        curves = ACTIONS[names[-1]](t, rng)
        hop += share * curves.pop("hop", np.zeros_like(t))
        angles += share[:, None] * _filled(curves, t, rng)
    return tuple(names), angles, hop


def _filled(curves: Curves, t: Array, rng: np.random.Generator) -> Array:
    """Curves -> (T, D) degrees: the rest is relaxed, posture is personal, and half of the time sides are exchanged."""
    angles = anatomy.relaxed(len(t)) + rng.normal(0, 1.5, len(anatomy.DOFS))
    for name, curve in curves.items():
        angles[:, anatomy.INDEX[name]] = curve
    return anatomy.mirror(angles) if rng.random() < 0.5 else angles


def _keep_footing(angles: Array) -> Array:
    """Thighs against the vertical and feet against the ground -> angles of hips and ankles, (T, D) degrees."""
    column = {name: angles[:, i] for name, i in anatomy.INDEX.items()}
    out = angles.copy()
    for side, sign in (("l", 1), ("r", -1)):
        out[:, anatomy.INDEX[f"{side}_ankle"]] += column[f"{side}_knee"] - column[f"{side}_flex"]
        out[:, anatomy.INDEX[f"{side}_flex"]] += column["pelvis_pitch"]
        out[:, anatomy.INDEX[f"{side}_abduct"]] -= sign * column["pelvis_roll"]
        out[:, anatomy.INDEX[f"{side}_turnout"]] -= sign * FOOT_HOLD * column["pelvis_yaw"]
    return out


def _stand(body: SmplArrays, betas: Array, pose: Array, hop: Array, sigma: float) -> Array:
    """(T, 3) translation: the lowest point of the soles on the ground (plus `hop`), and no sliding where weight is."""
    soles = skin(body, betas, pose, np.zeros((len(pose), 3)), sole_vertices(body)).verts
    lowest = soles[..., 1].min(axis=1)
    weight = softmax(-(soles[..., 1] - lowest[:, None]) / GRIP_M, axis=1)
    slides = np.diff(soles[..., [0, 2]], axis=0)
    shares = (weight[1:] + weight[:-1]) / 2
    steps = -(slides * shares[..., None]).sum(axis=1)
    trans = np.zeros((len(pose), 3))
    trans[1:, [0, 2]] = np.cumsum(steps, axis=0)
    trans[:, 1] = hop - lowest
    trans = gaussian_filter1d(trans, sigma / 2, axis=0, mode="nearest")
    return np.asarray(trans - [trans[0, 0], 0, trans[0, 2]])


def sole_vertices(body: SmplArrays) -> NDArray[np.intp]:
    """Vertices of both soles: within 1.5 cm of the lowest of each foot (ankle and foot joints 7, 10 and 8, 11)."""
    soles = []
    for joints in ((7, 10), (8, 11)):
        foot = np.flatnonzero(body.weights[:, joints].sum(axis=1) > 0.9)
        height = body.v_template[foot, 1]
        soles.append(foot[height < height.min() + 0.015])
    return np.concatenate(soles)


def _wander(t: Array, rng: np.random.Generator, amplitude: float) -> Array:
    """A slow, smooth change of direction, rad."""
    return np.asarray(
        amplitude * rng.uniform(0.2, 1) * np.sin(2 * np.pi * (rng.uniform(0.08, 0.25) * t + rng.uniform()))
    )


def _smoothstep(x: NDArray[Any]) -> Array:
    """0 before 0, 1 after 1, with level ends."""
    x = np.clip(x, 0, 1)
    return np.asarray(x * x * (3 - 2 * x), np.float64)

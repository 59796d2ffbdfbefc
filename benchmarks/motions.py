"""36 motions of a figure of 17 joints, as a detector sees them, for benchmarks/sides.py.

A motion gives angles (rad), and places (m), of its parts by name: yaw, pitch, roll and spin of the
body; x, y, z; of each side (_l, _r) how far arm and leg are turned forward, elbow and knee bent,
side and open moved aside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Channels = dict[str, Doubles]
Motion = Callable[[Doubles, np.random.Generator], Channels]

SECONDS: Final = 6.5
FOCAL: Final = 1000.0  # px
HIPS, SHOULDERS, TRUNK = 0.12, 0.18, 0.5  # m: half widths, height of the shoulders over the hips
ARM, LEG = (0.29, 0.26), (0.43, 0.42)  # m
# nose, eyes, ears: m to the left, up from the hips, forward from the head's axis
FACE: Final = np.array(
    [[0, 0.66, 0.11], [0.03, 0.7, 0.09], [-0.03, 0.7, 0.09], [0.07, 0.68, 0], [-0.07, 0.68, 0]]
)
TURN: Final = 2 * np.pi


class Clip(NamedTuple):
    """A motion as detected."""

    keypoints: Doubles  # (T, 17, 3) px px confidence
    seconds: Doubles  # (T,)
    width: Doubles  # (T,) of the shoulders in the image / their width, 0 in profile, 1 in front


def _walk(heading: float, speed: float = 1.3, steps: float = 0.9) -> Motion:
    """Walk past; heading: degrees from towards the camera to the right. steps: pairs a second."""

    def channels(t: Doubles, rng: np.random.Generator) -> Channels:
        yaw = np.radians(heading + rng.uniform(-8, 8))
        phase = TURN * (steps * rng.uniform(0.85, 1.15) * t + rng.uniform())
        way = (t - SECONDS / 2) * speed * rng.uniform(0.8, 1.2)
        return {
            "yaw": yaw + 0.1 * np.sin(phase),
            "x": way * np.sin(yaw),
            "z": way * np.cos(yaw) - 3,
            **_gait(phase, 0.45 * speed**0.5),
        }

    return channels


def _gait(phase: Doubles, swing: float) -> Channels:
    """Arms and legs of somebody who walks or runs."""
    wave = np.sin(phase)
    return {
        "leg_l": swing * wave,
        "leg_r": -swing * wave,
        "knee_l": -swing * (1 + np.cos(phase)),
        "knee_r": -swing * (1 - np.cos(phase)),
        "arm_l": -swing * wave,
        "arm_r": swing * wave,
        "elbow_l": 0.4 + 0.3 * swing * (1 - wave),
        "elbow_r": 0.4 + 0.3 * swing * (1 + wave),
    }


def _circle(t: Doubles, rng: np.random.Generator) -> Channels:
    yaw = TURN * (0.22 * rng.uniform(0.8, 1.2) * t + rng.uniform())
    place = {"yaw": yaw, "x": -np.cos(yaw), "z": np.sin(yaw)}
    return place | _gait(TURN * 0.9 * t, 0.5)


def _turns(angle: float, duration: float) -> Motion:
    """Turn to and fro by `angle` degrees in `duration` s, and stand in between."""

    def channels(t: Doubles, rng: np.random.Generator) -> Channels:
        pause = duration + rng.uniform(0.6, 1.2)
        number, rest = np.divmod(t + rng.uniform(0, pause), pause)
        part = np.clip(rest / duration, 0, 1)
        smooth = part - np.sin(TURN * part) / TURN
        done = np.where(number % 2, 1 - smooth, smooth)
        yaw = rng.choice([0, np.pi]) + rng.uniform(-0.5, 0.5) + np.radians(angle) * done
        return {"yaw": yaw} | _gait(TURN * 2 * t, 0.15)

    return channels


def _spin(turns: float, last: float | None = None) -> Motion:
    """Spin at a rate, turns a second, or from one to a last one."""

    def channels(t: Doubles, rng: np.random.Generator) -> Channels:
        faster = 0.0 if last is None else (last - turns) / SECONDS
        factor = rng.uniform(0.9, 1.1)
        yaw = TURN * (factor * (turns * t + faster * t**2 / 2) + rng.uniform())
        spread = rng.uniform(0.2, 1.2) + 0 * t
        return {"yaw": yaw * rng.choice([-1, 1]), "side_l": spread, "side_r": spread}

    return channels


def _cartwheel(turns: float, axis: str) -> Motion:
    """Turn about the axis forward (roll) or to the side (pitch)."""

    def channels(t: Doubles, rng: np.random.Generator) -> Channels:
        angle = TURN * (turns * rng.uniform(0.9, 1.1) * t + rng.uniform())
        yaw = rng.choice([0, np.pi]) + rng.uniform(-0.4, 0.4) + 0 * t
        if axis == "pitch":
            yaw = yaw + rng.choice([0, 1.2])
        way = (t - SECONDS / 2) * 0.8
        wide = 2.4 + 0 * t if axis == "roll" else 0.3 + 0 * t
        legs = 0.5 + 0 * t if axis == "roll" else 0.1 + 0 * t
        bent = 0 * t if axis == "roll" else 1.5 + 0 * t
        place = {axis: angle, "yaw": yaw, "x": way, "side_l": wide, "side_r": wide}
        knees = {"leg_l": bent, "leg_r": bent, "knee_l": -bent, "knee_r": -bent}
        return place | knees | {"open_l": legs, "open_r": legs}

    return channels


def _limbs(yaw: float, shape: Callable[[Doubles], Channels], rate: float) -> Motion:
    """Stand (yaw: degrees) and move limbs; shape: of the phase, rate: a second."""

    def channels(t: Doubles, rng: np.random.Generator) -> Channels:
        phase = TURN * (rate * rng.uniform(0.8, 1.2) * t + rng.uniform())
        sway = 0.1 * np.sin(TURN * 0.3 * t + rng.uniform(0, TURN))
        turned = np.radians(yaw + rng.uniform(-15, 15)) + sway
        moved = shape(phase)
        return moved | {"yaw": turned + moved.get("yaw", 0.0)}

    return channels


def _jacks(phase: Doubles) -> Channels:
    up = (1 - np.cos(phase)) / 2
    arms = 0.2 + 2.6 * up
    legs = 0.05 + 0.5 * up
    return {"side_l": arms, "side_r": arms, "open_l": legs, "open_r": legs, "y": 0.1 * up}


def _arms_cross(phase: Doubles) -> Channels:
    side = 0.35 + 0.9 * np.cos(phase)
    forward = 0.7 + 0 * phase
    return {"side_l": side, "side_r": side, "arm_l": forward, "arm_r": forward}


def _legs_cross(phase: Doubles) -> Channels:
    side = 0.1 + 0.45 * np.cos(phase)
    return {"open_l": side, "open_r": side}


def _box(phase: Doubles) -> Channels:
    left = np.maximum(np.sin(phase), 0) ** 3
    right = np.maximum(-np.sin(phase), 0) ** 3
    return {
        "arm_l": 0.4 + 1.1 * left,
        "arm_r": 0.4 + 1.1 * right,
        "elbow_l": 2.2 * (1 - left),
        "elbow_r": 2.2 * (1 - right),
        "yaw": 0.3 * (left - right),
    }


def _sit(phase: Doubles) -> Channels:
    down = np.clip(0.5 + np.sin(phase), 0, 1)
    bent = 1.5 * down
    legs = {"leg_l": bent, "leg_r": bent, "knee_l": -bent, "knee_r": -bent}
    return legs | {"y": -0.4 * down, "arm_l": 0.5 * down, "arm_r": 0.5 * down}


def _wave(phase: Doubles) -> Channels:
    return {"side_r": 2.3 + 0.5 * np.sin(phase), "elbow_r": 0.6 + 0.4 * np.sin(phase)}


def _lie(phase: Doubles) -> Channels:
    legs = 0.2 + 0.2 * np.sin(phase)
    return {"pitch": -1.5 + 0 * phase, "y": -0.7 + 0 * phase, "leg_l": legs, "knee_l": -2 * legs}


def _roll_over(phase: Doubles) -> Channels:
    """Lie across the image and turn about the own axis."""
    return {
        "roll": np.pi / 2 + 0 * phase,
        "y": -0.7 + 0 * phase,
        "spin": np.pi * np.clip(0.5 + np.sin(phase), 0, 1),
    }


def _push_up(phase: Doubles) -> Channels:
    up = (1 + np.sin(phase)) / 2
    arms = 1.5 - 0.4 * up
    return {
        "pitch": 1.4 - 0.2 * up,
        "y": -0.6 + 0.2 * up,
        "arm_l": arms,
        "arm_r": arms,
        "elbow_l": 1.2 * (1 - up),
        "elbow_r": 1.2 * (1 - up),
    }


def _twist(phase: Doubles) -> Channels:
    arms = 0.6 * np.sin(phase + 0.7)
    return {"yaw": np.sin(phase), "arm_l": arms, "arm_r": -arms, "side_l": 0.5 + 0 * phase}


def _throw(phase: Doubles) -> Channels:
    fast = np.sin(phase + 0.8 * np.sin(phase))
    return {"yaw": 1.1 * fast, "arm_r": 1.5 + 1.4 * fast, "elbow_r": 0.8 - 0.6 * fast}


def _still(phase: Doubles) -> Channels:
    return {"arm_l": 0.05 * np.sin(phase), "arm_r": 0.05 * np.cos(phase)}


def _march(phase: Doubles) -> Channels:
    left = np.maximum(np.sin(phase), 0)
    right = np.maximum(-np.sin(phase), 0)
    legs = {"leg_l": 1.4 * left, "leg_r": 1.4 * right}
    return legs | {"knee_l": -1.5 * left, "knee_r": -1.5 * right, "arm_l": right, "arm_r": left}


MOTIONS: Final[dict[str, Motion]] = {
    **{f"walk, {heading} degrees": _walk(heading) for heading in (0, 35, 65, 90, 120, 180)},
    "run past": _walk(90, 3, 1.4),
    "run away aslant": _walk(130, 2.5, 1.4),
    "walk in a circle": _circle,
    "turn about in 0.5 s": _turns(180, 0.5),
    "turn about in 0.8 s": _turns(180, 0.8),
    "quarter turns in 0.3 s": _turns(90, 0.3),
    **{f"spin, {turns} turns/s": _spin(turns) for turns in (0.5, 1, 1.5, 2, 2.5, 3)},
    "spin, 0.5 to 3 turns/s": _spin(0.5, 3),
    "cartwheel": _cartwheel(0.8, "roll"),
    "somersault": _cartwheel(0.8, "pitch"),
    "jumping jacks": _limbs(0, _jacks, 1.1),
    "jumping jacks from behind": _limbs(180, _jacks, 1.1),
    "arms cross": _limbs(0, _arms_cross, 1),
    "legs cross": _limbs(0, _legs_cross, 0.9),
    "box": _limbs(0, _box, 1.3),
    "box in profile": _limbs(80, _box, 1.3),
    "sit down and stand up": _limbs(30, _sit, 0.3),
    "sit down in profile": _limbs(90, _sit, 0.3),
    "lie": _limbs(0, _lie, 0.3),
    "roll over": _limbs(0, _roll_over, 0.25),
    "push-ups": _limbs(90, _push_up, 0.6),
    "dance": _limbs(0, _twist, 1.2),
    "throw": _limbs(60, _throw, 0.7),
    "stand in profile": _limbs(90, _still, 0.4),
    "march in place, from behind": _limbs(180, _march, 1),
}


def _matrices(angle: Doubles, axis: int) -> Doubles:
    """Rotations (T, 3, 3) about an axis."""
    first, second = [(1, 2), (2, 0), (0, 1)][axis]
    matrices = np.zeros((len(angle), 3, 3))
    matrices[:, axis, axis] = 1
    matrices[:, first, first] = np.cos(angle)
    matrices[:, second, second] = np.cos(angle)
    matrices[:, first, second] = -np.sin(angle)
    matrices[:, second, first] = np.sin(angle)
    return matrices


def _limb(start: Doubles, lengths: tuple[float, float], turned: Doubles, bent: Doubles,
          side: Doubles) -> list[Doubles]:  # fmt: skip
    """The middle and the end (T, 3) of a limb that hangs, is turned forward, and opened."""
    points = []
    for length, angle in zip(lengths, (turned, turned + bent), strict=True):
        down = -np.cos(angle)
        direction = np.stack([np.sin(side) * -down, np.cos(side) * down, np.sin(angle)], axis=1)
        start = start + length * direction
        points.append(start)
    return points


def figure(channels: Channels) -> Doubles:
    """The joints (T, 17, 3) m in the world: x right, y up, z towards the camera."""
    n = len(channels["yaw"])
    zero = np.zeros(n)

    def channel(name: str) -> Doubles:
        return channels.get(name, zero)

    ends: list[list[Doubles]] = []
    for width, height, lengths, names in (
        (SHOULDERS, TRUNK, ARM, ("arm", "elbow", "side")),
        (HIPS, 0.0, LEG, ("leg", "knee", "open")),
    ):
        for sign, letter in ((1, "l"), (-1, "r")):
            start = np.tile([sign * width, height, 0.0], (n, 1))
            turned, bent, side = (channel(f"{name}_{letter}") for name in names)
            ends.append([start, *_limb(start, lengths, turned, bent, sign * side)])
    body = [*np.broadcast_to(FACE[:, None], (5, n, 3))]
    for left, right in ((ends[0], ends[1]), (ends[2], ends[3])):
        for pair in zip(left, right, strict=True):
            body.extend(pair)
    turn = _matrices(channel("yaw"), 1) @ _matrices(channel("pitch"), 0)
    turn = turn @ _matrices(channel("roll"), 2) @ _matrices(channel("spin"), 1)
    place = np.stack([channel("x"), channel("y") + 0.9, channel("z")], axis=1)
    joints: Doubles = np.einsum("tij,tkj->tki", turn, np.stack(body, axis=1))
    return joints + place[:, None]


def record(name: str, rate: float, seed: int) -> Clip:
    """A motion as a detector sees it."""
    key = list(MOTIONS).index(name)
    seconds = np.arange(round(SECONDS * rate)) / rate
    joints = figure(MOTIONS[name](seconds, np.random.default_rng([seed, key])))
    rng = np.random.default_rng([seed, key, round(10 * rate)])
    scene = np.random.default_rng([seed, key, 1])
    distance = scene.uniform(4.5, 7.5) + 3 * ("walk" in name or "run" in name)
    depth = distance - joints[..., 2]
    height = scene.uniform(0.8, 2.2)
    image = FOCAL * np.stack([joints[..., 0], height - joints[..., 1]], axis=-1) / depth[..., None]

    across = joints[:, 5] - joints[:, 6]
    sight = joints[:, 5:7].mean(axis=1) - [0, height, distance]
    sight /= np.linalg.norm(sight, axis=1, keepdims=True)
    along = (across * sight).sum(axis=1)[:, None]
    width = np.linalg.norm(across - along * sight, axis=1) / (2 * SHOULDERS)

    # a detector is less sure of what is behind
    scale = FOCAL * 1.8 / depth.mean()
    behind = np.clip((joints[:, :, 2].mean(axis=1)[:, None] - joints[:, :, 2]) / 0.2, 0, 1)
    sigma = scene.uniform(0.004, 0.01) * scale * (1 + behind)
    white = rng.normal(size=image.shape)
    slow = 0.6 ** (60 / rate)  # errors last, too
    for t in range(1, len(white)):
        white[t] = slow * white[t - 1] + np.sqrt(1 - slow**2) * white[t]
    image += sigma[..., None] * white
    confidence = 0.95 - 0.4 * behind
    forward = joints[:, 0] - joints[:, 3:5].mean(axis=1)
    is_face_seen = (forward * sight).sum(axis=1) < 0
    confidence[~is_face_seen, :5] = 0  # as `people` has those below 0.3
    return Clip(np.dstack([image, confidence]), seconds, width)

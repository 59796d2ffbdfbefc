"""A standing person in any detector's joint order: 30 x 40 px about (x, y), so with a diagonal of 50."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.skeletons import joint_names

_MIDDLE = {"Nose": (0, -18), "Neck": (0, -12), "MidHip": (0, 0), "headtop": (0, -20), "hip": (0, 0), "spine": (0, -6)}
_SIDES = {
    "Eye": (1, -20),
    "Ear": (2, -19),
    "Shoulder": (5, -12),
    "Elbow": (10, -8),
    "Wrist": (15, -4),
    "Hip": (3, 0),
    "Knee": (4, 10),
    "Ankle": (4, 20),
    "BigToe": (5, 20),
    "SmallToe": (6, 20),
    "Heel": (4, 20),
}


def standing(order: str, x: float = 0, y: float = 0, confidence: float = 0.9, scale: float = 1) -> NDArray[np.float64]:
    """(J, 3) px, px, confidence; seen from the front, so left joints are on the right. Faces and hands are 0 0 0."""
    points = {name.lower(): point for name, point in _MIDDLE.items()}
    points |= {f"r{name}".lower(): (-dx, dy) for name, (dx, dy) in _SIDES.items()}
    points |= {f"l{name}".lower(): (dx, dy) for name, (dx, dy) in _SIDES.items()}
    joints = [points.get(name.lower().removeprefix("op ")) for name in joint_names(order)]
    return np.array(
        [(0, 0, 0) if at is None else (x + scale * at[0], y + scale * at[1], confidence) for at in joints], np.float64
    )

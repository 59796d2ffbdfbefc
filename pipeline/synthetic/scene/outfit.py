"""What people wear: a colour for each face of the body.  motion -> [pixels] -> raw

Everyone wears a sports kit with the sides told apart: the left arm blue, the right one orange, the left leg green, the
right one purple, lighter towards hand and foot; front and back of the shirt differ. From one to the next shades differ,
hues hardly, so that what a limb does can be read off a small picture, even by a network that was never trained.
"""

from __future__ import annotations

import colorsys
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.synthetic.body.body import VERTEX_IDS

if TYPE_CHECKING:
    from pipeline.smpl.assets import SmplArrays

Colours = NDArray[np.float32]  # (F, 3) RGB 0..1

# Hue, saturation and value of each SMPL joint's part of the body, in joint order.
_KIT: Final = {
    "shirt": ((0.14, 0.10, 0.92), (3, 6, 9, 13, 14)),
    "shorts": ((0.60, 0.35, 0.28), (0,)),
    "left thigh": ((0.36, 0.80, 0.50), (1,)),
    "left shin": ((0.33, 0.65, 0.78), (4,)),
    "right thigh": ((0.80, 0.65, 0.48), (2,)),
    "right shin": ((0.83, 0.48, 0.82), (5,)),
    "left shoe": ((0.40, 0.90, 0.30), (7, 10)),
    "right shoe": ((0.90, 0.85, 0.42), (8, 11)),
    "left sleeve": ((0.60, 0.85, 0.62), (16,)),
    "left forearm": ((0.55, 0.65, 0.90), (18,)),
    "right sleeve": ((0.04, 0.88, 0.78), (17,)),
    "right forearm": ((0.10, 0.80, 0.96), (19,)),
    "left glove": ((0.62, 0.90, 0.40), (20, 22)),
    "right glove": ((0.00, 0.90, 0.52), (21, 23)),
}
_HEAD: Final = (12, 15)
_SKIN: Final = ((0.065, 0.34, 0.90), (0.06, 0.42, 0.78), (0.055, 0.50, 0.64), (0.05, 0.52, 0.52))
_HAIR: Final = ((0.08, 0.6, 0.16), (0.07, 0.65, 0.30), (0.09, 0.6, 0.42), (0.02, 0.7, 0.30))


def dress(body: SmplArrays, rng: np.random.Generator) -> Colours:
    """(F, 3) RGB in 0..1: a person's kit, skin and hair."""
    part = np.asarray(body.weights)[body.faces].sum(axis=1).argmax(axis=1)
    centre = np.asarray(body.v_template)[body.faces].mean(axis=1)
    colours = np.zeros((len(body.faces), 3), np.float32)
    for hsv, joints in _KIT.values():
        colours[np.isin(part, joints)] = _shade(hsv, rng)
    _letter_shirt(body, part, centre, colours, rng)
    _paint_head(body, part, centre, colours, rng)
    return colours


def _letter_shirt(
    body: SmplArrays, part: NDArray[Any], centre: NDArray[Any], colours: Colours, rng: np.random.Generator
) -> None:
    """A dark back and a coloured band across the chest: front, back and twist of the trunk can be told."""
    shirt = np.isin(part, _KIT["shirt"][1])
    rest = np.asarray(body.J_regressor @ body.v_template)
    colours[shirt & (centre[:, 2] < rest[3, 2])] = _shade((0.14, 0.35, 0.42), rng)
    low, high = rest[6, 1], rest[9, 1] + 0.06
    band = shirt & (centre[:, 2] > rest[3, 2] + 0.02) & (centre[:, 1] > low) & (centre[:, 1] < high)
    colours[band] = _shade((0.97, 0.70, 0.80), rng)


def _paint_head(
    body: SmplArrays, part: NDArray[Any], centre: NDArray[Any], colours: Colours, rng: np.random.Generator
) -> None:
    head = np.isin(part, _HEAD)
    colours[head] = _shade(_SKIN[rng.integers(len(_SKIN))], rng)
    nose, left_ear, right_ear = (np.asarray(body.v_template)[VERTEX_IDS[n]] for n in ("nose", "lear", "rear"))
    ears = (left_ear + right_ear) / 2
    brow = nose[1] + 0.055 - 0.05 * (centre[:, 2] - ears[2]) / max(nose[2] - ears[2], 0.01)
    behind = (centre[:, 2] < ears[2] - 0.005) & (centre[:, 1] > nose[1] - 0.05)
    colours[head & (behind | (centre[:, 1] > brow + 0.02))] = _shade(_HAIR[rng.integers(len(_HAIR))], rng)
    for eye in ("leye", "reye"):
        distance = np.linalg.norm(centre - np.asarray(body.v_template)[VERTEX_IDS[eye]], axis=1)
        colours[head & (distance < 0.013)] = 0.08


def _shade(hsv: tuple[float, float, float], rng: np.random.Generator) -> tuple[float, float, float]:
    """A colour near the given one."""
    hue = (hsv[0] + rng.uniform(-0.005, 0.005)) % 1
    saturation, value = (float(np.clip(c * rng.uniform(0.96, 1.04), 0, 1)) for c in hsv[1:])
    return colorsys.hsv_to_rgb(hue, saturation, value)

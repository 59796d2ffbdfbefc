"""A stand-in for a detector, for demo data alone: it knows the clothes of the procedural bodies.  [pixels -> keypoints]

Everybody in the demo data wears a kit with a colour for each part of a limb (`appearance.py`), on dull
ground. A person is a patch of such colours; a joint is where the colours of two parts meet. Eyes and ears are not
found. People who cover each other are one person to it, as they are to a bad detector. In real pictures it finds
nothing that means anything.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.detect.base import Detect, Detector, People
from pipeline.files.pixels.frames import Image
from pipeline.skeletons import joint_names

MIN_SATURATION: Final = 60  # of 255; places in the demo data are duller
BRIGHT: Final = 190  # of 255: a shirt's front
MIN_SHARE: Final = 1 / 2000  # of the picture: smaller patches are no person
CLOSE: Final = 1 / 40  # of the picture's height: patches so near are of one person
VALUE_WEIGHT: Final = 0.5  # of brightness beside colour: light changes it
NEAR: Final = 1 / 50  # of a person's height: parts so near meet
MEETING: Final[Mapping[str, tuple[str, str]]] = {
    f"{side[0]}{joint}": (f"{side} {upper}", f"{side} {lower}" if lower != "shorts" else lower)
    for side in ("left", "right")
    for joint, (upper, lower) in {
        "hip": ("thigh", "shorts"),
        "knee": ("thigh", "shin"),
        "ankle": ("shin", "shoe"),
        "elbow": ("sleeve", "forearm"),
        "wrist": ("forearm", "glove"),
    }.items()
}
Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class Demo(Detector):
    """See above. Its confidence is 1 for a joint that is found, and 0 for any other."""

    name: ClassVar[str] = "demo"
    stand_in: ClassVar[bool] = True

    def load(self, device: str) -> Detect:  # noqa: ARG002 - there is nothing to load
        return lambda images: [_people(image) for image in images]


def _people(image: Image) -> People:
    hsv = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), np.uint8)
    height, width = image.shape[:2]
    body = ((hsv[..., 1] > MIN_SATURATION) | (hsv[..., 2] > BRIGHT)).astype(np.uint8)
    closed = cv2.morphologyEx(body, cv2.MORPH_CLOSE, _disc(height * CLOSE))
    n_patches, labels, stats, _ = cv2.connectedComponentsWithStats(closed)
    people = []
    for patch in range(1, n_patches):
        x, y, w, h, area = stats[patch].tolist()
        if area < MIN_SHARE * height * width:
            continue
        here = np.s_[y : y + h, x : x + w]
        joints = _joints(hsv[here], body[here] & (labels[here] == patch).astype(np.uint8))
        joints[:, :2] += (joints[:, 2:] > 0) * np.array([x, y], np.float32)
        if (joints[:, 2] > 0).sum() >= len(MEETING) / 2:
            people.append((np.array([x, y, x + w, y + h], np.float32), joints))
    return People(
        np.array([box for box, _ in people], np.float32).reshape(-1, 4),
        np.ones(len(people), np.float32),
        np.array([joints for _, joints in people], np.float32).reshape(-1, 17, 3),
    )


def _joints(hsv: Image, body: Mask) -> NDArray[np.float32]:
    """(17, 3) of the one person in this part of a picture; `body` where he or she is."""
    reach = _disc(len(hsv) * NEAR)
    part = {name: _largest(mask) for name, mask in _parts(hsv, body)}
    grown = {name: np.asarray(cv2.dilate(mask, reach), np.uint8) for name, mask in part.items()}
    centres = {joint: _centre(grown[a] & grown[b]) for joint, (a, b) in MEETING.items()}
    for side in ("left", "right"):  # the end of the sleeve that is farthest from the elbow
        elbow, sleeve = centres[f"{side[0]}elbow"], np.argwhere(part[f"{side} sleeve"])[:, ::-1]
        if elbow is not None and len(sleeve):
            away = np.linalg.norm(sleeve - elbow, axis=1)
            centres[f"{side[0]}shoulder"] = sleeve[away >= np.quantile(away, 0.85)].mean(axis=0)
    centres["nose"] = _centre(part["head"])
    rows = [(0, 0, 0) if (xy := centres.get(name)) is None else (*xy, 1) for name in joint_names("coco")]
    return np.array(rows, np.float32)


def _parts(hsv: Image, body: Mask) -> Iterator[tuple[str, Mask]]:
    """Each part of the kit, and the body's pixels that look most like it."""
    names, colours = _kit()
    seen = _in_space(hsv[body > 0] / np.array([180, 255, 255], np.float32))
    nearest = (np.sum(colours**2, axis=1) - 2 * seen @ colours.T).argmin(axis=1)
    for name in dict.fromkeys(names):
        mask = np.zeros_like(body)
        mask[body > 0] = np.isin(nearest, [i for i, other in enumerate(names) if other == name])
        yield name, mask


@functools.cache
def _kit() -> tuple[list[str], NDArray[np.float32]]:
    """Names of parts and their colours, in full light and in the shade."""
    from vibe_extensions.demo import appearance

    parts = [(name, hsv) for name, (hsv, _) in appearance.KIT.items()]
    parts += [("head", hsv) for hsv in appearance.SKIN]
    parts += [("shirt", hsv) for hsv in (appearance.SHIRT_BACK, appearance.CHEST_BAND)]
    lit = [(name, (h, s, v * light)) for name, (h, s, v) in parts for light in (1.0, 0.75)]
    return [name for name, _ in lit], _in_space(np.array([hsv for _, hsv in lit], np.float32))


def _in_space(hsv: NDArray[np.floating]) -> NDArray[np.float32]:
    """(..., 3) hue, saturation, value in 0..1 -> (..., 3): colours that look alike are near each other."""
    hue, saturation, value = np.moveaxis(hsv, -1, 0)
    turn = 2 * np.pi * hue
    return np.stack([saturation * np.cos(turn), saturation * np.sin(turn), VALUE_WEIGHT * value], -1).astype(np.float32)


def _largest(mask: Mask) -> Mask:
    """The largest connected patch alone: compression leaves specks of other colours."""
    n, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    return (labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())).astype(np.uint8) if n > 1 else mask


def _centre(mask: Mask) -> NDArray[np.float64] | None:
    """(2,) x, y px of the pixels; None where there are none."""
    pixels = np.argwhere(mask)
    return pixels.mean(axis=0)[::-1] if len(pixels) else None


def _disc(radius: float) -> Mask:
    side = 2 * max(1, round(radius)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)

"""A detector for demo data only, based on the colours of the procedural bodies' clothes.  [pixels
-> keypoints]

Limb parts in demo data have distinct colours (`appearance.py`) on dull ground. A person is a patch
of these colours; a joint is where two parts meet. It finds no eyes and ears, and merges people who
occlude each other. Its results on real images are meaningless.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.clips.detectors import Detect, Detector, People
from pipeline.files.pixels.frames import Image
from pipeline.skeletons import joint_names

MIN_SATURATION: Final = 60  # of 255; backdrops are duller
BRIGHT: Final = 190  # of 255: a shirt's front
MIN_SHARE: Final = 1 / 2000  # of the image; smaller patches are ignored
CLOSE: Final = 1 / 40  # of the image's height; closer patches belong to the same person
VALUE_WEIGHT: Final = 0.5  # weight of brightness, which depends on light
NEAR: Final = 1 / 50  # of a person's height; closer parts meet
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
    """Detector for demo data; confidence is 1 for detected joints and 0 for others."""

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
    """Keypoints (17, 3) of the person with the mask `body`."""
    reach = _disc(len(hsv) * NEAR)
    part = {name: _largest(mask) for name, mask in _parts(hsv, body)}
    grown = {name: np.asarray(cv2.dilate(mask, reach), np.uint8) for name, mask in part.items()}
    centres = {joint: _centre(grown[a] & grown[b]) for joint, (a, b) in MEETING.items()}
    for side in ("left", "right"):  # the end of the sleeve that is farthest from the elbow
        elbow = centres[f"{side[0]}elbow"]
        sleeve = np.argwhere(part[f"{side} sleeve"])[:, ::-1]
        if elbow is not None and len(sleeve):
            away = np.linalg.norm(sleeve - elbow, axis=1)
            centres[f"{side[0]}shoulder"] = sleeve[away >= np.quantile(away, 0.85)].mean(axis=0)
    centres["nose"] = _centre(part["head"])
    rows = [
        (0, 0, 0) if (xy := centres.get(name)) is None else (*xy, 1) for name in joint_names("coco")
    ]
    return np.array(rows, np.float32)


def _parts(hsv: Image, body: Mask) -> Iterator[tuple[str, Mask]]:
    """Yield each part of the kit with the mask of its pixels."""
    names, colours = _kit()
    seen = _to_color_space(hsv[body > 0] / np.array([180, 255, 255], np.float32))
    nearest = (np.sum(colours**2, axis=1) - 2 * seen @ colours.T).argmin(axis=1)
    for name in dict.fromkeys(names):
        mask = np.zeros_like(body)
        mask[body > 0] = np.isin(nearest, [i for i, other in enumerate(names) if other == name])
        yield name, mask


@functools.cache
def _kit() -> tuple[list[str], NDArray[np.float32]]:
    """Names of parts and their colours, in light and in shade."""
    from pipeline.demo import appearance

    parts = [(name, hsv) for name, (hsv, _) in appearance.KIT.items()]
    parts += [("head", hsv) for hsv in appearance.SKIN]
    parts += [("shirt", hsv) for hsv in (appearance.SHIRT_BACK, appearance.CHEST_BAND)]
    lit = [(name, (h, s, v * light)) for name, (h, s, v) in parts for light in (1.0, 0.75)]
    return [name for name, _ in lit], _to_color_space(np.array([hsv for _, hsv in lit], np.float32))


def _to_color_space(hsv: NDArray[np.floating]) -> NDArray[np.float32]:
    """Hue, saturation, value in 0..1 (..., 3) -> a space (..., 3) in which similar colours are
    close.
    """
    hue, saturation, value = np.moveaxis(hsv, -1, 0)
    turn = 2 * np.pi * hue
    return np.stack(
        [saturation * np.cos(turn), saturation * np.sin(turn), VALUE_WEIGHT * value], -1
    ).astype(np.float32)


def _largest(mask: Mask) -> Mask:
    """The largest connected patch, without specks from compression."""
    n, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    return (
        (labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())).astype(np.uint8)
        if n > 1
        else mask
    )


def _centre(mask: Mask) -> NDArray[np.float64] | None:
    """Centre (2,) of the pixels in px; None if there are none."""
    pixels = np.argwhere(mask)
    return pixels.mean(axis=0)[::-1] if len(pixels) else None


def _disc(radius: float) -> Mask:
    side = 2 * max(1, round(radius)) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)

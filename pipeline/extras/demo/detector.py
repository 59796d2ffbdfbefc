"""A detector for demo data only, based on the colours of the procedural bodies' clothes.  [pixels
-> keypoints]

Limb parts in demo data have distinct colours (`appearance.py`) on dull ground. A person is a patch
of these colours; a joint is where two parts meet:

    _people     patches of the image that are coloured or bright
    _parts      the part of the kit of each pixel of a patch, by the nearest colour
    _joints     where neighbouring parts meet

It finds no eyes and ears, and merges people who occlude each other. Its results on real images are
meaningless.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.clips.detectors import Detect, Detector, People
from pipeline.files.pixels.frames import Image
from pipeline.people.skeletons import Bools, Doubles, Float32s, Floats, joint_names

MIN_SATURATION: Final = 60  # of 255; backdrops are duller
BRIGHT: Final = 190  # of 255: a shirt's front
MIN_SHARE: Final = 1 / 2000  # of the image; smaller patches are ignored
CLOSE: Final = 1 / 40  # of the image's height; closer patches belong to the same person
VALUE_WEIGHT: Final = 0.5  # weight of brightness, which depends on light
NEAR: Final = 1 / 50  # of a person's height; closer parts meet
# joint -> the two parts that meet in it; {} is "left" or "right"
_MEETING: Final = {
    "hip": ("{} thigh", "shorts"),
    "knee": ("{} thigh", "{} shin"),
    "ankle": ("{} shin", "{} shoe"),
    "elbow": ("{} sleeve", "{} forearm"),
    "wrist": ("{} forearm", "{} glove"),
}
Mask = NDArray[np.uint8]


@dataclass(frozen=True)
class Demo(Detector):
    """Finds people of demo data by their colours; confidence is 1 for joints that are found, 0 for
    others.
    """

    name: ClassVar[str] = "demo"
    stand_in: ClassVar[bool] = True

    def load(self, device: str) -> Detect:  # noqa: ARG002 - there is nothing to load
        return lambda images: [_people(image) for image in images]


def _people(image: Image) -> People:
    """The people of an image. Patches with fewer joints than a person's side has are skipped."""
    hsv = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2HSV), np.uint8)
    height, width = image.shape[:2]
    is_coloured = hsv[..., 1] > MIN_SATURATION
    is_body = is_coloured | (hsv[..., 2] > BRIGHT)
    body = is_body.astype(np.uint8)
    closed = cv2.morphologyEx(body, cv2.MORPH_CLOSE, _disc(height * CLOSE))
    n_patches, labels, stats, _ = cv2.connectedComponentsWithStats(closed)
    boxes = []
    keypoints = []
    for patch in range(1, n_patches):
        x, y, w, h, area = stats[patch].tolist()
        if area < MIN_SHARE * height * width:
            continue
        part = np.s_[y : y + h, x : x + w]
        is_patch = (labels[part] == patch).astype(np.uint8)  # without holes
        joints = _joints(hsv[part], body[part] & is_patch)
        is_seen = joints[:, 2] > 0
        joints[is_seen, :2] += (x, y)
        if is_seen.sum() >= len(_MEETING):
            boxes.append([x, y, x + w, y + h])
            keypoints.append(joints)
    return People(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.ones(len(boxes), np.float32),
        np.array(keypoints, np.float32).reshape(-1, 17, 3),
    )


def _joints(hsv: Image, body: Mask) -> Float32s:
    """Keypoints (17, 3) of the person with the mask `body`."""
    reach = _disc(len(hsv) * NEAR)
    parts = {name: _largest(mask) for name, mask in _parts(hsv, body)}
    grown = {name: cv2.dilate(mask, reach) > 0 for name, mask in parts.items()}
    centres = {"nose": _centre(parts["head"])}
    for side in ("left", "right"):
        for joint, (upper, lower) in _MEETING.items():
            meeting = grown[upper.format(side)] & grown[lower.format(side)]
            centres[f"{side[0]}{joint}"] = _centre(meeting)
        # the end of the sleeve that is farthest from the elbow
        elbow = centres[f"{side[0]}elbow"]
        sleeve = np.argwhere(parts[f"{side} sleeve"])[:, ::-1]
        if elbow is not None and len(sleeve):
            distance = np.linalg.norm(sleeve - elbow, axis=1)
            is_end = distance >= np.quantile(distance, 0.85)
            centres[f"{side[0]}shoulder"] = sleeve[is_end].mean(axis=0)

    keypoints = np.zeros((17, 3), np.float32)
    for i, name in enumerate(joint_names("coco")):
        centre = centres.get(name)
        if centre is not None:
            keypoints[i] = (*centre, 1)
    return keypoints


def _parts(hsv: Image, body: Mask) -> Iterator[tuple[str, Mask]]:
    """Yield each part of the kit with the mask of its pixels."""
    names, colours = _kit()
    is_body = body > 0
    largest = np.array([180, 255, 255], np.float32)  # of OpenCV's HSV
    pixels = _to_color_space(hsv[is_body] / largest)
    # |colour|^2 - 2 pixel . colour: the squared distance, less |pixel|^2, which decides nothing
    distance = np.sum(colours**2, axis=1) - 2 * pixels @ colours.T
    nearest = names[distance.argmin(axis=1)]
    for name in dict.fromkeys(names.tolist()):
        mask = np.zeros_like(body)
        mask[is_body] = nearest == name
        yield name, mask


@functools.cache
def _kit() -> tuple[NDArray[np.str_], Float32s]:
    """Names of parts and their colours, in light and in shade."""
    from pipeline.extras.demo import appearance

    parts = [*appearance.KIT.items()]
    parts += [("head", hsv) for hsv in appearance.SKIN]
    for hue, saturation, value in appearance.SHIRTS:
        parts += [("shirt", (hue, saturation, shade * value)) for shade in (1, appearance.BACK)]
    names = []
    colours = []
    for name, (hue, saturation, value) in parts:
        for light in (1.0, 0.75):
            names.append(name)
            colours.append((hue, saturation, value * light))
    return np.array(names), _to_color_space(np.array(colours, np.float32))


def _to_color_space(hsv: Floats) -> Float32s:
    """Hue, saturation, value in 0..1 (..., 3) -> a space (..., 3) in which similar colours are
    close.
    """
    hue, saturation, value = np.moveaxis(hsv, -1, 0)
    turn = 2 * np.pi * hue
    x = saturation * np.cos(turn)
    y = saturation * np.sin(turn)
    return np.stack([x, y, VALUE_WEIGHT * value], -1).astype(np.float32)


def _largest(mask: Mask) -> Mask:
    """The largest connected patch, without specks from compression."""
    n, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    if n == 1:
        return mask
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return np.asarray(labels == largest, np.uint8)


def _centre(mask: Mask | Bools) -> Doubles | None:
    """Centre (2,) of the pixels in px; None if there are none."""
    pixels = np.argwhere(mask)
    if not len(pixels):
        return None
    return np.asarray(pixels.mean(axis=0)[::-1])


def _disc(radius: float) -> Mask:
    side = 2 * max(1, round(radius)) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
    return np.asarray(disc, np.uint8)

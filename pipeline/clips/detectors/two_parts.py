"""Base of detectors with two networks: boxes of people in an image, then joints in each box.
[pixels -> keypoints] -> tracks

A subclass of `TwoPartDetector` loads the networks, as `rtmpose` does; `_find_people` calls them.

With the option `every` = N, the first network runs on key frames only: each N-th frame, and frames
that begin a scene. In the frames between, people are followed: the second network looks for a
person's joints in the person's box of the frame before. Then each side of the box moves with the
outermost joint on that side. A person keeps the score of the key frame. A person is given up until
the next key frame if fewer than LEAST_SHARED joints are seen in both frames, or if the joints
coincide with those of a person with a higher score.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple, TypeVar

import numpy as np

from pipeline.clips.detectors import Detector, People
from pipeline.errors import ConfigError
from pipeline.files.pixels.frames import Image
from pipeline.people.boxes import extents
from pipeline.people.skeletons import Bools, Doubles, Float32s
from pipeline.processes import cores

Result = TypeVar("Result")
_Images = Sequence[Image]

SEEN: Final = 0.3  # least confidence of a joint that counts as seen
LEAST_SHARED: Final = 3  # least number of joints seen in both frames, or of both people
LEAST_SIDE: Final = 1.0  # px, least side of a box
# Two people are one if the mean distance of their joints is below this share of a box diagonal.
SAME: Final = 0.1
LONGEST: Final = 100  # largest value of `every`
FOLLOWING: Final = 2  # version, raised by hand whenever `_follow` would give other people


class Boxes(NamedTuple):
    """The P people found in one image."""

    boxes: Float32s  # (P, 4) corners, px
    scores: Float32s  # (P,) 0..1


class Networks(NamedTuple):
    """The two loaded networks as functions. All images of a call have one size."""

    # images -> the boxes in each
    find_boxes: Callable[[_Images], list[Boxes]]
    # images, and boxes (P, 4) in each -> joints (P, 17, 3) in each: px, px, confidence
    find_joints: Callable[[_Images, Sequence[Float32s]], list[Float32s]]


@dataclass(frozen=True)
class FollowingDetector(Detector):
    """Base of detectors with the option `every`."""

    added: ClassVar[Mapping[str, Any]] = {"every": 1}

    every: int = 1  # find people in each N-th frame, N from 1 to 100, and follow them in between

    def __post_init__(self) -> None:
        if not 1 <= self.every <= LONGEST:
            raise ConfigError(f"every {self.every}: expected 1 to {LONGEST} frames", "every")

    @property
    def batch_size(self) -> int:
        return max(8, 2 * cores(0))

    def identity(self) -> dict[str, Any]:
        options = super().identity()
        if self.every > 1:
            options["following"] = FOLLOWING
        return options


@dataclass(frozen=True)
class TwoPartDetector(FollowingDetector):
    """Base of detectors of two networks; subclasses define `load_networks` instead of `load`."""

    @abstractmethod
    def load_networks(self, device: str) -> Networks:
        """Load both networks; `device` as in `Detector.load`."""

    def load(self, device: str) -> Callable[..., list[People]]:
        return functools.partial(_find_people, self.load_networks(device))


def _find_people(networks: Networks, images: _Images, keys: Sequence[bool] = ()) -> list[People]:
    """Find the people in key frames, and follow them in the others; `keys` as in `run_chains`."""

    def start(images: _Images) -> list[People]:
        boxes = networks.find_boxes(images)
        joints = networks.find_joints(images, [detections.boxes for detections in boxes])
        pairs = zip(boxes, joints, strict=True)
        return [People(*detections, points) for detections, points in pairs]

    def step(images: _Images, before: Sequence[People]) -> list[People]:
        joints = networks.find_joints(images, [people.boxes for people in before])
        return list(map(_follow, before, joints, images))

    return run_chains(start, step, images, keys)


def run_chains(
    start: Callable[[_Images], list[Result]],
    step: Callable[[_Images, Sequence[Result]], list[Result]],
    images: _Images,
    keys: Sequence[bool],
) -> list[Result]:
    """Compute a result for each image: by `start` in key frames, else by `step`.

    `step` takes images and the results of the frames before them. A chain is a key frame and the
    images after it, up to the next key frame, which follow it in its clip. All chains advance side
    by side, so that each call has many images.

    Args:
        keys: For each image, whether it is a key frame; the first one must be (default: all are).
    """
    if not keys:
        return start(images)
    assert keys[0], "no image follows another one before it"
    frames = [i for i, is_key in enumerate(keys) if is_key]
    started = start([images[i] for i in frames])
    results = dict(zip(frames, started, strict=True))
    while len(results) < len(images):  # the chains side by side
        following = [i + 1 for i in frames if i + 1 < len(images)]
        frames = [i for i in following if not keys[i]]
        before = [results[i - 1] for i in frames]
        followed = step([images[i] for i in frames], before)
        results |= zip(frames, followed, strict=True)
    return [results[i] for i in range(len(images))]


def _follow(before: People, joints: Float32s, image: Image) -> People:
    """Move the people of the frame before to the joints in this frame, (P, 17, 3).

    The module docstring says how boxes move, and who is given up.
    """
    was_visible = before.keypoints[..., 2] >= SEEN
    is_visible = joints[..., 2] >= SEEN
    visible = was_visible & is_visible
    old = _corners(before.keypoints, visible)
    new = _corners(joints, visible)
    height, width = image.shape[:2]
    moved = before.boxes + (new - old)
    in_image = np.clip(moved, 0, [width, height, width, height])
    boxes = in_image.astype(np.float32)

    has_shared = visible.sum(axis=1) >= LEAST_SHARED
    sides = boxes[:, 2:] - boxes[:, :2]
    has_area = (sides >= LEAST_SIDE).all(axis=1)
    is_followed = has_shared & has_area
    people = People(boxes[is_followed], before.scores[is_followed], joints[is_followed])
    chosen = distinct(people)
    return People(*(values[chosen] for values in people))


def _corners(keypoints: Float32s, visible: Bools) -> Doubles:
    """Corners of the box around each person's visible joints, (P, 4) px."""
    points = np.dstack([keypoints[..., :2], visible])
    corners, _ = extents(points)
    return corners.reshape(-1, 4)


def distinct(people: People) -> list[int]:
    """Indices of people who are no duplicates, ascending.

    A duplicate's joints coincide with those of a person with a higher score.
    """
    xy = people.keypoints[..., :2]
    visible = people.keypoints[..., 2] >= SEEN
    shared = visible[:, None] & visible  # (P, P, 17)
    n_shared = shared.sum(axis=2)
    distance = np.linalg.norm(xy[:, None] - xy, axis=-1)
    sums = (distance * shared).sum(axis=2)
    mean_distance = sums / np.maximum(n_shared, 1)

    sides = people.boxes[:, 2:] - people.boxes[:, :2]
    diagonal = np.linalg.norm(sides, axis=1)
    smaller = np.minimum(diagonal[:, None], diagonal)
    is_same = (n_shared >= LEAST_SHARED) & (mean_distance < SAME * smaller)

    chosen: list[int] = []
    for i in np.argsort(-people.scores, kind="stable").tolist():
        if not is_same[i, chosen].any():
            chosen.append(i)
    return sorted(chosen)

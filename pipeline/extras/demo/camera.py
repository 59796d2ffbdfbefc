"""A pinhole camera, and its placement to keep people in view.  motion -> [pixels and labels]

`frame_people` makes the `Camera` of a demo video: where it looks, how it sways in a hand, and how
near it can be.

No distortion; OpenCV's axes: x right, y down, z forward. Pixel (i, j) has its centre at x = i, y =
j, so an image extends from -0.5 to width - 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter1d

from pipeline.people.cameras import rigid
from pipeline.people.skeletons import Bools, Doubles, Floats

MARGIN: Final = 0.2  # of the image's sides, so that crops stay inside the image
FOLLOW_FRAMES: Final = 12  # sigma over time of a hand-held camera's motion
SWAY_FRAMES: Final = (20, 40)  # shortest and longest period of its sway
# Amplitudes of its sway: azimuth (rad), height (m), the three axes of the point at which it looks
# (m), roll (rad)
SWAY: Final = np.array([0.15, 0.06, 0.04, 0.04, 0.04, 0.015])
NEAREST_M: Final = 1.6  # the distance from which the camera steps back
STEP_BACK: Final = 1.04  # factor of the distance, until everybody is in view
CLOSEST_M: Final = 0.6  # least depth of a point


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """A camera through T frames."""

    width: int
    height: int
    intrinsics: Doubles  # (3, 3) px
    extrinsics: Doubles  # (T, 4, 4) world to camera

    @classmethod
    def aim(
        cls,
        size: tuple[int, int],
        intrinsics: Doubles,
        position: Floats,
        target: Floats,
        roll: Floats,
    ) -> Self:
        """A camera at `position` (T, 3) m that looks at `target` (T, 3) m; roll (T,) rad. size:
        (width, height) px.
        """
        forward = _unit(np.asarray(target) - position)
        level = _unit(np.cross(forward, [0.0, 1.0, 0.0]))  # to the right: forward x up
        down = np.cross(forward, level)
        cos = np.cos(roll)[:, None]
        sin = np.sin(roll)[:, None]
        right = cos * level + sin * down
        down = cos * down - sin * level
        rotation = np.stack([right, down, forward], axis=1)
        extrinsics = rigid(rotation, -np.einsum("tab,tb->ta", rotation, position))
        return cls(*size, intrinsics, extrinsics)

    def to_camera(self, points: Floats) -> Doubles:
        """(T, N, 3) m in the world -> (T, N, 3) m in the camera."""
        rotation = self.extrinsics[:, :3, :3]
        shift = self.extrinsics[:, None, :3, 3]
        return np.asarray(points @ rotation.transpose(0, 2, 1) + shift)

    def project(self, points: Floats) -> Doubles:
        """(T, N, 3) m in the world -> (T, N, 2) px."""
        homogeneous = self.to_camera(points) @ self.intrinsics.T
        return np.asarray(homogeneous[..., :2] / homogeneous[..., 2:])

    def sees(self, pixels: Floats) -> Bools:
        """(..., 2) px -> (...) whether they are in the image."""
        edge = np.array([self.width, self.height]) - 0.5
        is_inside = (pixels >= -0.5) & (pixels <= edge)
        return np.asarray(is_inside.all(axis=-1))


def frame_people(
    rng: Generator,
    points: Doubles,
    size: tuple[int, int],
    *,
    heading: float,
    hand_held: bool = False,
    turn: float = 30.0,
) -> Camera:
    """A camera that keeps all `points` (T, N, 3) m in view; `heading` (rad) is where people face.

    It is up to `turn` degrees off the frontal view, 1 to 1.6 m high, and as near as the view
    allows. A hand-held camera follows people and sways; others are static. size: (width, height)
    px.
    """
    n_frames = len(points)
    centre = (points.min(axis=1) + points.max(axis=1)) / 2
    middle = (centre.min(axis=0) + centre.max(axis=0)) / 2
    target = np.tile(middle, (n_frames, 1))
    sway = np.zeros((n_frames, len(SWAY)))
    if hand_held:
        target[:, [0, 2]] = gaussian_filter1d(
            centre[:, [0, 2]], FOLLOW_FRAMES, axis=0, mode="nearest"
        )
        sway = _sway(rng, n_frames)
    azimuth = heading + np.radians(rng.uniform(-turn, turn)) + sway[:, 0]
    eye_height = rng.uniform(1.0, 1.6) + sway[:, 1]
    intrinsics = _intrinsics(rng, size)
    aim = target + sway[:, 2:5]
    roll = np.radians(rng.uniform(-2, 2)) + sway[:, 5]

    direction = np.column_stack([np.sin(azimuth), np.zeros(n_frames), np.cos(azimuth)])
    last_pixel = np.array(size) - 1
    inset = MARGIN * np.array(size)
    distance = NEAREST_M
    while True:
        position = target + distance * direction
        position[:, 1] = eye_height
        camera = Camera.aim(size, intrinsics, position, aim, roll)
        if camera.to_camera(points)[..., 2].min() >= CLOSEST_M:
            pixels = camera.project(points)
            if ((pixels >= inset) & (pixels <= last_pixel - inset)).all():
                return camera
        distance *= STEP_BACK


def _sway(rng: Generator, n_frames: int) -> Doubles:
    """(T, 6) of SWAY's numbers: sines of random tempo and phase."""
    tempo = 1 / rng.uniform(*SWAY_FRAMES, len(SWAY))
    turns = np.arange(n_frames)[:, None] * tempo + rng.uniform(size=len(SWAY))
    return np.asarray(SWAY * np.sin(2 * np.pi * turns))


def _intrinsics(rng: Generator, size: tuple[int, int]) -> Doubles:
    """A random zoom, and a principal point near the middle of the image: (3, 3) px."""
    zoom = rng.uniform(1.15, 1.6)
    focal = zoom * max(size)
    last_pixel = np.array(size) - 1
    intrinsics = np.diag([focal, focal, 1])
    off_centre = rng.uniform(-2, 2, 2)
    intrinsics[:2, 2] = last_pixel / 2 + off_centre
    return intrinsics


def _unit(vectors: Doubles) -> Doubles:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / length)

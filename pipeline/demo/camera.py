"""A pinhole camera, and its placement to keep people in view.  motion -> [pixels and labels]

No distortion; OpenCV's axes: x right, y down, z forward. Pixel (i, j) has its centre at x = i, y =
j, so an image extends from -0.5 to width - 0.5.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

Array = NDArray[np.float64]
Floats = NDArray[np.floating[Any]]

MARGIN: Final = 0.2  # of the image's sides, so that crops stay inside the image
ORBIT: Final = 15.0  # degrees of a hand-held camera's path around people, in both directions
GOES_FAR_M: Final = 1.2  # the camera follows people who move further
FOLLOW_FRAMES: Final = 12  # sigma over time of a hand-held camera's motion


@dataclass(frozen=True, slots=True, eq=False)
class Camera:
    """A camera through T frames."""

    width: int
    height: int
    intrinsics: Array  # (3, 3) px
    extrinsics: Array  # (T, 4, 4) world to camera

    def to_camera(self, points: Floats) -> Array:
        """(T, N, 3) m in the world -> (T, N, 3) m in the camera."""
        return np.asarray(
            points @ self.extrinsics[:, :3, :3].transpose(0, 2, 1) + self.extrinsics[:, None, :3, 3]
        )

    def project(self, points: Floats) -> Array:
        """(T, N, 3) m in the world -> (T, N, 2) px."""
        homogeneous = self.to_camera(points) @ self.intrinsics.T
        return np.asarray(homogeneous[..., :2] / homogeneous[..., 2:])

    def sees(self, pixels: Floats) -> NDArray[np.bool_]:
        """(..., 2) px -> (...) whether they are in the image."""
        edge = np.array([self.width, self.height]) - 0.5
        return np.asarray(((pixels >= -0.5) & (pixels <= edge)).all(axis=-1))

    def frame(self, number: int) -> Camera:
        """The camera of a single frame."""
        return Camera(
            self.width, self.height, self.intrinsics, self.extrinsics[number : number + 1]
        )

    def cut(self, centre: Floats, zoom: float, side: int) -> Camera:
        """The camera of a square crop of `side` px around `centre` (2,) px, magnified by `zoom`."""
        crop = np.diag([zoom, zoom, 1.0])
        crop[:2, 2] = side / 2 - zoom * np.asarray(centre)
        return Camera(side, side, crop @ self.intrinsics, self.extrinsics)


def look_at(position: Floats, target: Floats, roll: Floats) -> Array:
    """Extrinsics (T, 4, 4) of cameras at `position` (T, 3) m that look at `target` (T, 3) m; roll
    (T,) rad.
    """
    forward = _unit(np.asarray(target) - position)
    level = _unit(np.cross(forward, [0.0, 1.0, 0.0]))  # to the right: forward x up
    down = np.cross(forward, level)
    c = np.cos(roll)[:, None]
    s = np.sin(roll)[:, None]
    rotation = np.stack([c * level + s * down, c * down - s * level, forward], axis=1)
    extrinsics = np.zeros((len(rotation), 4, 4))
    extrinsics[:, :3, :3] = rotation
    extrinsics[:, :3, 3] = -np.einsum("tab,tb->ta", rotation, position)
    extrinsics[:, 3, 3] = 1
    return extrinsics


def frame_people(
    rng: np.random.Generator,
    points: Array,
    size: tuple[int, int],
    *,
    heading: float,
    hand_held: bool = False,
    turn: float = 30.0,
) -> Camera:
    """A camera that keeps all `points` (T, N, 3) m in view; `heading` (rad) is where people face.

    It is up to `turn` degrees off the frontal view, 1 to 1.6 m high. A hand-held camera follows and
    orbits people, and sways; others are static unless people go far.
    """
    n_frames, (width, height) = len(points), size
    centre = (points.min(axis=1) + points.max(axis=1)) / 2
    travelled = np.linalg.norm(np.ptp(centre[:, [0, 2]], axis=0))
    followed = gaussian_filter1d(
        centre, FOLLOW_FRAMES if hand_held else n_frames / 4, axis=0, mode="nearest"
    )
    middle = (centre.min(axis=0) + centre.max(axis=0)) / 2
    target = (
        followed
        if hand_held or travelled > GOES_FAR_M
        else np.repeat(middle[None], n_frames, axis=0)
    )
    target = np.column_stack([target[:, 0], np.full(n_frames, middle[1]), target[:, 2]])
    noise = gaussian_filter1d(rng.normal(size=(n_frames, 6)), 10, axis=0, mode="wrap")
    sway = hand_held * noise * np.sqrt(10 * 2 * np.sqrt(np.pi))  # (T, 6) of about unit size
    half_turn = np.linspace(0, np.pi, n_frames) * rng.choice([-1, 1]) + rng.uniform(0, np.pi)
    orbit = ORBIT * rng.uniform(0.4, 1) * np.sin(half_turn)
    azimuth = heading + np.radians(rng.uniform(-turn, turn) + hand_held * orbit) + 0.05 * sway[:, 0]
    eye_height = rng.uniform(1.0, 1.6) + 0.04 * sway[:, 1]
    focal = rng.uniform(1.15, 1.6) * max(width, height)
    principal = (np.array(size) - 1) / 2 + rng.uniform(-2, 2, 2)
    intrinsics = np.array([[focal, 0, principal[0]], [0, focal, principal[1]], [0, 0, 1]])
    aim = target + 0.03 * sway[:, 2:5]
    roll = np.radians(rng.uniform(-2, 2)) + 0.01 * sway[:, 5]
    direction = np.column_stack([np.sin(azimuth), np.zeros(n_frames), np.cos(azimuth)])
    inset = MARGIN * np.array(size)
    distance = 1.6
    while True:
        position = target + distance * direction
        position[:, 1] = eye_height
        camera = Camera(width, height, intrinsics, look_at(position, aim, roll))
        if camera.to_camera(points)[..., 2].min() >= 0.6:
            pixels = camera.project(points)
            if (pixels >= inset).all() and (pixels <= np.array(size) - 1 - inset).all():
                return camera
        distance *= 1.04


def _unit(vectors: Array) -> Array:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))

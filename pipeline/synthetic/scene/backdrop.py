"""A place to be in: ground, surroundings and shadows, in perspective.  motion -> [pixels] -> raw

Low in contrast and much alike from place to place, so that the body dominates the picture: the features of a network
that was never trained average over all of it. Fixed in the world: it moves as the camera does.
"""

from __future__ import annotations

import colorsys
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from pipeline.synthetic.scene.camera import Camera

Picture = NDArray[np.float32]  # (H, W, 3) RGB 0..1
Floats = NDArray[np.floating[Any]]

TEXTURE_PX: Final = 512
TILE_M: Final = 6.0  # one ground texture covers this square, then repeats
HAZE_M: Final = 14.0  # beyond about this distance the ground fades into the surroundings
COARSE: Final = 2  # the backdrop is painted at a half of the resolution: it has no detail to lose
SHADOW: Final = 0.2  # how much light a shadow takes away
SHADOW_COARSE: Final = 4


class Backdrop:
    """One place and its light, drawn from `rng`."""

    def __init__(self, rng: np.random.Generator) -> None:
        hue = rng.uniform(0, 1)
        self._ground = _floor(rng, _tone(hue, rng.uniform(0.01, 0.05), rng.uniform(0.51, 0.54)))
        self._around = _surroundings(rng, _tone(hue, rng.uniform(0.01, 0.05), rng.uniform(0.55, 0.58)))
        azimuth, elevation = rng.uniform(-np.pi, np.pi), np.radians(rng.uniform(60, 80))
        self.to_light = np.array(
            [np.cos(elevation) * np.sin(azimuth), np.sin(elevation), np.cos(elevation) * np.cos(azimuth)]
        )
        self._last: tuple[bytes, Picture] | None = None

    def paint(self, camera: Camera, frame: int) -> Picture:
        """The place without people, (H, W, 3). A camera at rest is painted once."""
        key = camera.extrinsics[frame].tobytes()
        if self._last is None or self._last[0] != key:
            self._last = key, self._paint(camera, frame)
        return self._last[1]

    def shade(self, picture: Picture, camera: Camera, frame: int, verts: Floats) -> Picture:
        """The picture with the shadows of bodies (N, 3) m on the ground: a new array."""
        fallen = verts - self.to_light * (verts[:, 1:2] / self.to_light[1])
        pixels = camera_project(camera, frame, fallen)
        coarse = np.floor((pixels + 0.5) / SHADOW_COARSE).astype(np.int64)
        size = (picture.shape[0] // SHADOW_COARSE + 1, picture.shape[1] // SHADOW_COARSE + 1)
        held = coarse[((coarse >= 0) & (coarse < (size[1], size[0]))).all(axis=1)]
        mask = np.zeros(size, np.float32)
        mask[held[:, 1], held[:, 0]] = 1
        mask = cv2.GaussianBlur(mask, (0, 0), 1.1)
        mask = cv2.resize(mask, (size[1] * SHADOW_COARSE, size[0] * SHADOW_COARSE), interpolation=cv2.INTER_LINEAR)
        light = 1 - SHADOW * mask[: picture.shape[0], : picture.shape[1], None]
        return np.asarray(picture * light, np.float32)

    def _paint(self, camera: Camera, frame: int) -> Picture:
        width, height = -(-camera.width // COARSE), -(-camera.height // COARSE)
        x, y = (np.arange(n, dtype=np.float32) * COARSE + (COARSE - 1) / 2 for n in (width, height))
        inverse = np.linalg.inv(camera.intrinsics).astype(np.float32)
        seen = np.stack(np.broadcast_arrays(x[None], y[:, None], np.float32(1)), axis=-1) @ inverse.T
        extrinsics = camera.extrinsics[frame].astype(np.float32)
        rays = seen @ extrinsics[:3, :3]  # into the world: R^T
        eye = -extrinsics[:3, :3].T @ extrinsics[:3, 3]
        far = np.linalg.norm(rays[..., [0, 2]], axis=-1)
        around = self._look_around(rays, far)
        down = np.minimum(rays[..., 1], -1e-4)
        along = -eye[1] / down
        ground = self._look_down(eye[0] + along * rays[..., 0], eye[2] + along * rays[..., 2])
        haze = expit((HAZE_M - along * far) / 2.5)
        share = np.where(rays[..., 1] < 0, haze, 0)[..., None].astype(np.float32)
        picture = ground * share + around * (1 - share)
        return np.asarray(cv2.resize(picture, (camera.width, camera.height), interpolation=cv2.INTER_LINEAR))

    def _look_down(self, x: Floats, z: Floats) -> Picture:
        per_m = TEXTURE_PX / TILE_M
        u, v = ((c * per_m % TEXTURE_PX).astype(np.float32) for c in (x, z))
        return np.asarray(cv2.remap(self._ground, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP))

    def _look_around(self, rays: Floats, far: Floats) -> Picture:
        turns = np.arctan2(rays[..., 0], rays[..., 2]) / (2 * np.pi) % 1
        up = np.arctan2(rays[..., 1], far) / np.pi + 0.5
        u, v = (turns * TEXTURE_PX).astype(np.float32), ((1 - up) * (TEXTURE_PX - 1)).astype(np.float32)
        return np.asarray(cv2.remap(self._around, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP))


def camera_project(camera: Camera, frame: int, points: Floats) -> NDArray[np.float64]:
    """(N, 3) m in the world -> (N, 2) px in one frame."""
    still = Camera(camera.width, camera.height, camera.intrinsics, camera.extrinsics[frame : frame + 1])
    return np.asarray(still.project(points[None])[0])


def _floor(rng: np.random.Generator, tone: Floats) -> Picture:
    """Boards or tiles of slightly different shades with joints between them, and grain; repeats without a seam."""
    n = int(rng.choice([4, 6, 8, 12]))
    shades = rng.uniform(0.98, 1.02, (n, n) if rng.random() < 0.5 else (1, n))
    floor = cv2.resize(shades.astype(np.float32), (TEXTURE_PX, TEXTURE_PX), interpolation=cv2.INTER_NEAREST)
    joint = np.where(np.arange(TEXTURE_PX) % (TEXTURE_PX // n) < 3, np.float32(0.94), np.float32(1))
    floor *= joint
    if len(shades) > 1:  # tiles; boards have no joints across
        floor *= joint[:, None]
    return np.asarray((floor * _grain(rng, 0.02))[..., None] * tone, np.float32)


def _surroundings(rng: np.random.Generator, tone: Floats) -> Picture:
    """A panorama: brighter above, soft upright shapes around the horizon."""
    rows = np.linspace(1.04, 0.96, TEXTURE_PX, dtype=np.float32)[:, None]
    columns = cv2.resize(
        rng.uniform(0.98, 1.02, (1, 24)).astype(np.float32), (TEXTURE_PX, 1), interpolation=cv2.INTER_CUBIC
    )
    return np.asarray(np.clip((rows * columns * _grain(rng, 0.02))[..., None] * tone, 0, 1), np.float32)


def _grain(rng: np.random.Generator, contrast: float) -> NDArray[np.float32]:
    """(TEXTURE_PX, TEXTURE_PX) around 1: noise of several sizes that repeats without a seam."""
    total = np.zeros((TEXTURE_PX, TEXTURE_PX), np.float32)
    for cells in (8, 32, 128):
        noise = rng.normal(0, 1, (cells, cells)).astype(np.float32)
        pad = 2
        wrapped = np.pad(noise, pad, mode="wrap")
        scale = TEXTURE_PX // cells
        big = cv2.resize(wrapped, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        total += big[pad * scale : -pad * scale, pad * scale : -pad * scale] * (8 / cells) ** 0.4
    return np.asarray(1 + contrast * total / total.std(), np.float32)


def _tone(hue: float, saturation: float, value: float) -> NDArray[np.float32]:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)

"""Clothes, backdrops and light, and bodies rendered in them.  motion -> [pixels] -> raw

Features of random networks average over the whole image, so the body must dominate it. Everyone
wears a kit with distinct parts: left arm blue, right arm orange, left leg green, right leg purple,
lighter towards hand and foot; front and back of the shirt differ. Shades vary between people, hues
hardly. Backdrops have low contrast and are fixed in the world.
"""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from pipeline.demo.body import VERTEX_IDS
from pipeline.demo.camera import Camera
from pipeline.files.formats.smpl_files import SmplArrays
from pipeline.files.pixels.frames import Image
from pipeline.show.rasterising import NEAR_M, Floats, Floats32, Samples, SmoothNormals, rasterise

Colours = NDArray[np.float32]  # (F, 3) RGB 0..1
Picture = NDArray[np.float32]  # (H, W, 3) RGB 0..1
Hsv = tuple[float, float, float]

# Hue, saturation and value of each part of the kit, and SMPL's joints in it.
KIT: Final[dict[str, tuple[Hsv, tuple[int, ...]]]] = {
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
SHIRT_BACK: Final = (0.14, 0.35, 0.42)
CHEST_BAND: Final = (0.97, 0.70, 0.80)
_HEAD: Final = (12, 15)
SKIN: Final = ((0.065, 0.34, 0.90), (0.06, 0.42, 0.78), (0.055, 0.50, 0.64), (0.05, 0.52, 0.52))
_HAIR: Final = ((0.08, 0.6, 0.16), (0.07, 0.65, 0.30), (0.09, 0.6, 0.42), (0.02, 0.7, 0.30))

TEXTURE_PX: Final = 512
TILE_M: Final = 6.0  # side of the repeated ground texture
HAZE_M: Final = 14.0  # distance at which the ground fades into the surroundings
COARSE: Final = 2  # downsampling of the backdrop
SHADOW: Final = 0.2  # share of light lost in shadows
SHADOW_COARSE: Final = 4
SUPERSAMPLING: Final = 2  # samples per pixel in x and y
AMBIENT: Final = 0.6  # share of ambient light


def dress(body: SmplArrays, rng: np.random.Generator) -> Colours:
    """Draw a person's kit, skin and hair: (F, 3) RGB in 0..1 of the body's faces."""

    def shade(hsv: Hsv) -> Hsv:
        """A colour near the given one."""
        hue = (hsv[0] + rng.uniform(-0.005, 0.005)) % 1
        saturation, value = (float(np.clip(c * rng.uniform(0.96, 1.04), 0, 1)) for c in hsv[1:])
        return colorsys.hsv_to_rgb(hue, saturation, value)

    part = np.asarray(body.weights)[body.faces].sum(axis=1).argmax(axis=1)
    template = np.asarray(body.v_template)
    centre = template[body.faces].mean(axis=1)
    y = centre[:, 1]
    z = centre[:, 2]
    colours = np.zeros((len(body.faces), 3), np.float32)
    for hsv, joints in KIT.values():
        colours[np.isin(part, joints)] = shade(hsv)
    # A dark back and a coloured band across the chest show front, back and the trunk's twist.
    shirt = np.isin(part, KIT["shirt"][1])
    spine = np.asarray(body.J_regressor @ body.v_template)
    colours[shirt & (z < spine[3, 2])] = shade(SHIRT_BACK)
    band = (z > spine[3, 2] + 0.02) & (y > spine[6, 1]) & (y < spine[9, 1] + 0.06)
    colours[shirt & band] = shade(CHEST_BAND)
    head = np.isin(part, _HEAD)
    colours[head] = shade(SKIN[rng.integers(len(SKIN))])
    nose, left_ear, right_ear = (template[VERTEX_IDS[name]] for name in ("nose", "lear", "rear"))
    ears = (left_ear + right_ear) / 2
    brow = nose[1] + 0.055 - 0.05 * (z - ears[2]) / max(nose[2] - ears[2], 0.01)
    hair = ((z < ears[2] - 0.005) & (y > nose[1] - 0.05)) | (y > brow + 0.02)
    colours[head & hair] = shade(_HAIR[rng.integers(len(_HAIR))])
    for eye in ("leye", "reye"):
        colours[head & (np.linalg.norm(centre - template[VERTEX_IDS[eye]], axis=1) < 0.013)] = 0.08
    return colours


class Backdrop:
    """Random ground, surroundings and light."""

    def __init__(self, rng: np.random.Generator) -> None:
        hue = rng.uniform(0, 1)
        self._ground = _floor(rng, _tone(hue, rng.uniform(0.01, 0.05), rng.uniform(0.51, 0.54)))
        self._around = _surroundings(
            rng, _tone(hue, rng.uniform(0.01, 0.05), rng.uniform(0.55, 0.58))
        )
        azimuth = rng.uniform(-np.pi, np.pi)
        elevation = np.radians(rng.uniform(60, 80))
        self.to_light = np.array(
            [
                np.cos(elevation) * np.sin(azimuth),
                np.sin(elevation),
                np.cos(elevation) * np.cos(azimuth),
            ]
        )
        self._last: tuple[bytes, Picture] | None = None

    def paint(self, camera: Camera, frame: int) -> Picture:
        """The backdrop without people, (H, W, 3); painted once for a static camera."""
        key = camera.extrinsics[frame].tobytes()
        if self._last is None or self._last[0] != key:
            self._last = key, self._paint(camera, frame)
        return self._last[1]

    def shade(self, picture: Picture, camera: Camera, frame: int, verts: Floats) -> Picture:
        """A copy of the image with shadows of bodies (N, 3) m on the ground."""
        fallen = verts - self.to_light * (verts[:, 1:2] / self.to_light[1])
        coarse = np.floor(
            (camera.frame(frame).project(fallen[None])[0] + 0.5) / SHADOW_COARSE
        ).astype(np.int64)
        height, width = (n // SHADOW_COARSE + 1 for n in picture.shape[:2])
        inside = coarse[((coarse >= 0) & (coarse < (width, height))).all(axis=1)]
        mask = np.zeros((height, width), np.float32)
        mask[inside[:, 1], inside[:, 0]] = 1
        mask = cv2.GaussianBlur(mask, (0, 0), 1.1)
        mask = cv2.resize(
            mask, (width * SHADOW_COARSE, height * SHADOW_COARSE), interpolation=cv2.INTER_LINEAR
        )
        light = 1 - SHADOW * mask[: picture.shape[0], : picture.shape[1], None]
        return np.asarray(picture * light, np.float32)

    def _paint(self, camera: Camera, frame: int) -> Picture:
        width = -(-camera.width // COARSE)
        height = -(-camera.height // COARSE)
        x, y = (np.arange(n, dtype=np.float32) * COARSE + (COARSE - 1) / 2 for n in (width, height))
        inverse = np.linalg.inv(camera.intrinsics).astype(np.float32)
        points = (
            np.stack(np.broadcast_arrays(x[None], y[:, None], np.float32(1)), axis=-1) @ inverse.T
        )
        extrinsics = camera.extrinsics[frame].astype(np.float32)
        rays = points @ extrinsics[:3, :3]  # into the world: R^T
        eye = -extrinsics[:3, :3].T @ extrinsics[:3, 3]
        far = np.linalg.norm(rays[..., [0, 2]], axis=-1)
        turns = np.arctan2(rays[..., 0], rays[..., 2]) / (2 * np.pi) % 1
        up = np.arctan2(rays[..., 1], far) / np.pi + 0.5
        around = _look_up(self._around, turns * TEXTURE_PX, (1 - up) * (TEXTURE_PX - 1))
        along = -eye[1] / np.minimum(rays[..., 1], -1e-4)
        per_m = TEXTURE_PX / TILE_M
        ground = _look_up(
            self._ground, *((eye[i] + along * rays[..., i]) * per_m % TEXTURE_PX for i in (0, 2))
        )
        haze = expit((HAZE_M - along * far) / 2.5)
        share = np.where(rays[..., 1] < 0, haze, 0)[..., None].astype(np.float32)
        picture = ground * share + around * (1 - share)
        return np.asarray(
            cv2.resize(picture, (camera.width, camera.height), interpolation=cv2.INTER_LINEAR)
        )


def _look_up(texture: Picture, u: Floats, v: Floats) -> Picture:
    u = u.astype(np.float32)
    v = v.astype(np.float32)
    return np.asarray(cv2.remap(texture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP))


def _floor(rng: np.random.Generator, tone: Floats) -> Picture:
    """A seamless texture of boards or tiles in slightly different shades, with grain."""
    n = int(rng.choice([4, 6, 8, 12]))
    shades = rng.uniform(0.98, 1.02, (n, n) if rng.random() < 0.5 else (1, n))
    floor = cv2.resize(
        shades.astype(np.float32), (TEXTURE_PX, TEXTURE_PX), interpolation=cv2.INTER_NEAREST
    )
    joint = np.where(np.arange(TEXTURE_PX) % (TEXTURE_PX // n) < 3, np.float32(0.94), np.float32(1))
    floor *= joint
    if len(shades) > 1:  # tiles; boards have no joints across
        floor *= joint[:, None]
    return np.asarray((floor * _grain(rng, 0.02))[..., None] * tone, np.float32)


def _surroundings(rng: np.random.Generator, tone: Floats) -> Picture:
    """A panorama: brighter above, soft upright shapes around the horizon."""
    rows = np.linspace(1.04, 0.96, TEXTURE_PX, dtype=np.float32)[:, None]
    shades = rng.uniform(0.98, 1.02, (1, 24)).astype(np.float32)
    columns = cv2.resize(shades, (TEXTURE_PX, 1), interpolation=cv2.INTER_CUBIC)
    return np.asarray(
        np.clip((rows * columns * _grain(rng, 0.02))[..., None] * tone, 0, 1), np.float32
    )


def _grain(rng: np.random.Generator, contrast: float) -> NDArray[np.float32]:
    """Seamless noise of several scales around 1, (TEXTURE_PX, TEXTURE_PX)."""
    total = np.zeros((TEXTURE_PX, TEXTURE_PX), np.float32)
    for cells in (8, 32, 128):
        noise = rng.normal(0, 1, (cells, cells)).astype(np.float32)
        pad = 2
        scale = TEXTURE_PX // cells
        big = cv2.resize(
            np.pad(noise, pad, mode="wrap"), None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC
        )
        total += big[pad * scale : -pad * scale, pad * scale : -pad * scale] * (8 / cells) ** 0.4
    return np.asarray(1 + contrast * total / total.std(), np.float32)


def _tone(hue: float, saturation: float, value: float) -> NDArray[np.float32]:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)


class Renderer:
    """Draws bodies of one topology: faces (F, 3), outward-oriented."""

    def __init__(self, faces: NDArray[Any]) -> None:
        self.normals = SmoothNormals(faces)
        self.faces = self.normals.faces

    def view(
        self,
        camera: Camera,
        frame: int,
        bodies: Sequence[tuple[Floats, Colours]],
        backdrop: Backdrop,
    ) -> tuple[Image, Floats32]:
        """Draw one frame: bodies as (vertices (V, 3) m in the world, colours (F, 3)), before the
        backdrop.

        Returns the image, and the depth (H, W) m of the nearest body in each pixel, inf for none.
        """
        verts = [body for body, _ in bodies]
        canvas = backdrop.shade(backdrop.paint(camera, frame), camera, frame, np.concatenate(verts))
        samples, (x0, top) = self._sample(camera, frame, verts)
        depth = np.full(canvas.shape[:2], np.inf, np.float32)
        if samples.face.size:
            light = np.concatenate([self._light(body, backdrop.to_light) for body in verts])
            colours = np.concatenate([colours for _, colours in bodies])
            hit = np.nonzero(samples.face >= 0)
            face = samples.face[hit]
            brightness = np.einsum("nc,nc->n", samples.barycentric[hit], light[face])
            rgba = np.zeros((*samples.face.shape, 4), np.float32)  # RGB and coverage of each sample
            rgba[hit] = np.column_stack(
                [colours[face] * brightness[:, None], np.ones(len(face), np.float32)]
            )
            mean = _reduce_samples(rgba, np.add) / np.float32(SUPERSAMPLING**2)
            part = (slice(top, top + mean.shape[0]), slice(x0, x0 + mean.shape[1]))
            canvas[part] = canvas[part] * (1 - mean[..., 3:]) + mean[..., :3]
            with np.errstate(divide="ignore"):
                depth[part] = 1 / _reduce_samples(samples.inverse_depth, np.maximum)
        return np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8), depth

    def _sample(
        self, camera: Camera, frame: int, bodies: Sequence[Floats]
    ) -> tuple[Samples, tuple[int, int]]:
        """Rasterise the bodies within their bounding rectangle of whole pixels; also return its
        left and top.
        """
        points = (
            np.concatenate(bodies) @ camera.extrinsics[frame, :3, :3].T
            + camera.extrinsics[frame, :3, 3]
        )
        near = points[:, 2] < NEAR_M
        points[near, 2] = NEAR_M / 2  # not drawn: only keeps the division defined
        pixels = points @ camera.intrinsics.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        low = np.maximum(np.floor(pixels[~near].min(axis=0, initial=np.inf)), 0)
        high = np.minimum(
            np.ceil(pixels[~near].max(axis=0, initial=-np.inf)),
            (camera.width - 1, camera.height - 1),
        )
        if (low > high).any():
            return rasterise(np.zeros((0, 3, 2)), np.zeros((0, 3)), 0, 0), (0, 0)
        width, height = (int(n) * SUPERSAMPLING for n in high - low + 1)
        faces = np.concatenate(
            [self.faces + i * self.normals.n_vertices for i in range(len(bodies))]
        )
        corners = ((pixels - low + 0.5) * SUPERSAMPLING - 0.5)[faces]
        return rasterise(corners, (1 / points[:, 2])[faces], width, height), (
            int(low[0]),
            int(low[1]),
        )

    def _light(self, verts: Floats, to_light: Floats) -> Floats32:
        """Brightness (F, 3) of a body at its faces' corners, from smooth normals."""
        smooth = self.normals(verts)
        facing = smooth @ to_light.astype(np.float32)
        light = AMBIENT + (1 - AMBIENT) * np.maximum(facing, 0) + 0.12 * smooth[:, 1]
        return np.asarray(light[self.faces], np.float32)


def _reduce_samples(samples: Floats32, combine: np.ufunc) -> Floats32:
    """Samples (s H, s W, ...) -> pixels (H, W, ...). Strided views are faster than `reduce` over
    short axes.
    """
    s = SUPERSAMPLING
    views = [samples[row::s, column::s] for row in range(s) for column in range(s)]
    return np.asarray(functools.reduce(combine, views), np.float32)

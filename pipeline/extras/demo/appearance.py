"""Clothes, backdrops and light, and bodies rendered in them.  motion -> [pixels] -> raw

`scene` dresses each person (`dress`), makes a `Backdrop` for each take, and draws its frames with a
`Renderer`: the backdrop, the shadows on it, then the shaded bodies.

Features of random networks average over the whole image, so the body must dominate it. Everyone
wears a kit with distinct parts: left arm blue, right arm orange, left leg green, right leg purple,
lighter towards hand and foot; front and back of the shirt differ. Shades vary between people, hues
hardly. Backdrops have low contrast and are fixed in the world.
"""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.random import Generator
from scipy.special import expit

from pipeline.extras.demo.body import VERTEX_IDS
from pipeline.extras.demo.camera import Camera
from pipeline.files.pixels.frames import Image
from pipeline.people.skeletons import Array, Bools, Doubles, Float32s, Floats
from pipeline.people.smpl_files import SmplArrays
from pipeline.show.rasterising import NEAR_M, Samples, SmoothNormals, rasterise

Colours = Float32s  # (F, 3) RGB 0..1
Picture = Float32s  # (H, W, 3) RGB 0..1
Hsv = tuple[float, float, float]

# Hue, saturation and value of each part of the kit.
KIT: Final = {
    "shirt": (0.14, 0.10, 0.92),
    "shorts": (0.60, 0.35, 0.28),
    "left thigh": (0.36, 0.80, 0.50),
    "left shin": (0.33, 0.65, 0.78),
    "right thigh": (0.80, 0.65, 0.48),
    "right shin": (0.83, 0.48, 0.82),
    "left shoe": (0.40, 0.90, 0.30),
    "right shoe": (0.90, 0.85, 0.42),
    "left sleeve": (0.60, 0.85, 0.62),
    "left forearm": (0.55, 0.65, 0.90),
    "right sleeve": (0.04, 0.88, 0.78),
    "right forearm": (0.10, 0.80, 0.96),
    "left glove": (0.62, 0.90, 0.40),
    "right glove": (0.00, 0.90, 0.52),
}
# SMPL's joints in each part (`skeletons.JOINTS["smpl"]`).
_JOINTS: Final[dict[str, tuple[int, ...]]] = {
    "shirt": (3, 6, 9, 13, 14),
    "shorts": (0,),
    "left thigh": (1,),
    "left shin": (4,),
    "right thigh": (2,),
    "right shin": (5,),
    "left shoe": (7, 10),
    "right shoe": (8, 11),
    "left sleeve": (16,),
    "left forearm": (18,),
    "right sleeve": (17,),
    "right forearm": (19,),
    "left glove": (20, 22),
    "right glove": (21, 23),
}
SHIRT_BACK: Final = (0.14, 0.35, 0.42)
CHEST_BAND: Final = (0.97, 0.70, 0.80)
_HEAD: Final = (12, 15)
SKIN: Final = (
    (0.065, 0.34, 0.90),
    (0.06, 0.42, 0.78),
    (0.055, 0.50, 0.64),
    (0.05, 0.52, 0.52),
)
_HAIR: Final = (
    (0.08, 0.6, 0.16),
    (0.07, 0.65, 0.30),
    (0.09, 0.6, 0.42),
    (0.02, 0.7, 0.30),
)

TEXTURE_PX: Final = 512
TILE_M: Final = 6.0  # side of the repeated ground texture
HAZE_M: Final = 14.0  # distance at which the ground fades into the surroundings
COARSE: Final = 2  # downsampling of the backdrop
SHADOW: Final = 0.2  # share of light lost in shadows
SHADOW_COARSE: Final = 4
SUPERSAMPLING: Final = 2  # samples per pixel in x and y
AMBIENT: Final = 0.6  # share of ambient light
SKYLIGHT: Final = 0.12  # added to faces that look up, and taken from faces that look down
HAZE_WIDTH_M: Final = 2.5  # scale of the logistic fade around HAZE_M
# SMPL's joints of the spine, upwards
_SPINE_1: Final = 3
_SPINE_2: Final = 6
_SPINE_3: Final = 9


def dress(body: SmplArrays, rng: Generator) -> Colours:
    """Draw a person's kit, skin and hair: (F, 3) RGB in 0..1 of the body's faces."""
    weights = body.weights[body.faces].sum(axis=1)
    nearest_joint = weights.argmax(axis=1)  # (F,)
    corners = body.v_template[body.faces]  # (F, 3, 3) m, y up, facing +z
    centre = np.asarray(corners.mean(axis=1), np.float64)  # (F, 3) m
    colours = np.zeros((len(centre), 3), np.float32)

    def paint(faces: Bools, hsv: Hsv) -> None:
        """Give the faces a colour near this one."""
        hue, saturation, value = hsv
        hue += rng.uniform(-0.005, 0.005)
        saturation *= rng.uniform(0.96, 1.04)
        value *= rng.uniform(0.96, 1.04)
        saturation = min(saturation, 1.0)
        value = min(value, 1.0)
        colours[faces] = colorsys.hsv_to_rgb(hue % 1, saturation, value)

    for name, hsv in KIT.items():
        paint(np.isin(nearest_joint, _JOINTS[name]), hsv)

    # A dark back and a coloured band across the chest show front, back and the trunk's twist.
    shirt = np.isin(nearest_joint, _JOINTS["shirt"])
    joints = body.J_regressor @ body.v_template
    is_back = centre[:, 2] < joints[_SPINE_1, 2]
    paint(shirt & is_back, SHIRT_BACK)
    paint(shirt & _is_chest(joints, centre), CHEST_BAND)

    head = np.isin(nearest_joint, _HEAD)
    skin = rng.integers(len(SKIN))
    paint(head, SKIN[skin])
    landmarks = body.v_template[[*VERTEX_IDS.values()]]
    landmark = dict(zip(VERTEX_IDS, landmarks, strict=True))
    shade = rng.integers(len(_HAIR))
    paint(head & _is_hair(landmark, centre), _HAIR[shade])
    for eye in ("leye", "reye"):
        distance = np.linalg.norm(centre - landmark[eye], axis=1)
        is_eye = head & (distance < 0.013)
        colours[is_eye] = 0.08
    return colours


def _is_chest(joints: Doubles, centre: Doubles) -> Bools:
    """Whether faces (F, 3) m are on the front, between belly and neck. Lengths are in metres."""
    _, y, z = centre.T
    is_front = z > joints[_SPINE_1, 2] + 0.02
    is_above_belly = y > joints[_SPINE_2, 1]
    is_below_neck = y < joints[_SPINE_3, 1] + 0.06
    chest = is_front & is_above_belly & is_below_neck
    return np.asarray(chest)


def _is_hair(landmark: Mapping[str, Doubles], centre: Doubles) -> Bools:
    """Whether faces of the head are behind the ears, or above the brow. Lengths are in metres.

    The brow is 5.5 cm above the nose at the ears, and sinks by 5 cm from there to the nose; hair
    begins 2 cm above it. Behind the ears, hair begins 5 cm below the nose.
    """
    _, y, z = centre.T
    _, nose_y, nose_z = landmark["nose"]
    ears = (landmark["lear"] + landmark["rear"]) / 2
    ears_z = ears[2]
    depth = max(nose_z - ears_z, 0.01)
    towards_nose = (z - ears_z) / depth  # 0 at the ears, 1 at the nose
    brow = nose_y + 0.055 - 0.05 * towards_nose
    is_behind_ears = z < ears_z - 0.005
    is_above_neck = y > nose_y - 0.05
    is_above_brow = y > brow + 0.02
    hair = (is_behind_ears & is_above_neck) | is_above_brow
    return np.asarray(hair)


class Backdrop:
    """Random ground, surroundings and light."""

    def __init__(self, rng: Generator) -> None:
        hue = rng.uniform(0, 1)
        ground_tone = _draw_tone(rng, hue, 0.51, 0.54)
        self._ground = _floor(rng, ground_tone)
        around_tone = _draw_tone(rng, hue, 0.55, 0.58)
        self._around = _surroundings(rng, around_tone)
        azimuth = rng.uniform(-np.pi, np.pi)
        elevation = np.radians(rng.uniform(60, 80))
        level = np.cos(elevation)
        x = level * np.sin(azimuth)
        y = np.sin(elevation)
        z = level * np.cos(azimuth)
        self.to_light = np.array([x, y, z])  # unit vector
        self._last: tuple[bytes, Picture] | None = None  # extrinsics of the last camera, its image

    def paint(self, camera: Camera, frame: int) -> Picture:
        """The backdrop without people, (H, W, 3); painted once for a static camera."""
        key = camera.extrinsics[frame].tobytes()
        if self._last is None or self._last[0] != key:
            self._last = key, self._paint(camera, frame)
        return self._last[1]

    def shade(self, picture: Picture, camera: Camera, frame: int, verts: Floats) -> Picture:
        """A copy of the image with shadows of bodies (N, 3) m on the ground."""
        distance = verts[:, 1:2] / self.to_light[1]  # along the light, to the ground
        on_ground = verts - self.to_light * distance
        view = camera.frame(frame)
        pixels = view.project(on_ground[None])[0]

        coarse = (pixels + 0.5) // SHADOW_COARSE
        coarse = coarse.astype(np.int64)
        width = camera.width // SHADOW_COARSE + 1
        height = camera.height // SHADOW_COARSE + 1
        is_inside = (coarse >= 0) & (coarse < (width, height))
        x, y = coarse[is_inside.all(axis=1)].T
        mask = np.zeros((height, width), np.float32)
        mask[y, x] = 1

        blurred = np.asarray(cv2.GaussianBlur(mask, (0, 0), 1.1), np.float32)
        shadow = _resize(blurred, width * SHADOW_COARSE, height * SHADOW_COARSE)
        shadow = shadow[: camera.height, : camera.width]
        light = 1 - SHADOW * shadow
        return np.asarray(picture * light[..., None], np.float32)

    def _paint(self, camera: Camera, frame: int) -> Picture:
        """Follow the ray of each coarse pixel to the ground, else to the surroundings."""
        x = _coarse_centres(camera.width)
        y = _coarse_centres(camera.height)
        u, v = np.meshgrid(x, y)
        ones = np.ones_like(u)
        homogeneous = np.stack([u, v, ones], axis=-1)

        inverse = np.linalg.inv(camera.intrinsics).astype(np.float32)
        extrinsics = camera.extrinsics[frame].astype(np.float32)
        rotation = extrinsics[:3, :3]
        rays = homogeneous @ inverse.T @ rotation  # into the world: R^T
        eye = -rotation.T @ extrinsics[:3, 3]

        # the surroundings, by the ray's direction
        ray_x, ray_y, ray_z = np.moveaxis(rays, -1, 0)
        level = rays[..., [0, 2]]
        far = np.linalg.norm(level, axis=-1)
        turns = np.arctan2(ray_x, ray_z) / (2 * np.pi) % 1
        up = np.arctan2(ray_y, far) / np.pi + 0.5
        row = (1 - up) * (TEXTURE_PX - 1)
        column = turns * TEXTURE_PX
        around = _look_up(self._around, column, row)

        # the ground, where the ray meets y = 0
        along = -eye[1] / np.minimum(ray_y, -1e-4)
        per_m = TEXTURE_PX / TILE_M
        x = eye[0] + along * ray_x
        z = eye[2] + along * ray_z
        column = x * per_m % TEXTURE_PX
        row = z * per_m % TEXTURE_PX
        ground = _look_up(self._ground, column, row)

        # the ground's share: 1 near the camera, 1/2 at HAZE_M, 0 far away and above the horizon
        nearness = (HAZE_M - along * far) / HAZE_WIDTH_M
        share = np.where(ray_y < 0, expit(nearness), 0)
        share = share.astype(np.float32)[..., None]
        picture = ground * share + around * (1 - share)
        return _resize(picture, camera.width, camera.height)


def _coarse_centres(n: int) -> Float32s:
    """Centres (px) of the backdrop's pixels along a side of n px."""
    corners = np.arange(0, n, COARSE, dtype=np.float32)
    return corners + (COARSE - 1) / 2


def _resize(picture: Picture, width: int, height: int, method: int = cv2.INTER_LINEAR) -> Picture:
    resized = cv2.resize(picture, (width, height), interpolation=method)
    return np.asarray(resized)


def _look_up(texture: Picture, u: Floats, v: Floats) -> Picture:
    """Colours of a repeated texture in columns u and rows v."""
    u = u.astype(np.float32)
    v = v.astype(np.float32)
    mapped = cv2.remap(texture, u, v, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return np.asarray(mapped)


def _floor(rng: Generator, tone: Float32s) -> Picture:
    """A seamless texture of boards or tiles in slightly different shades, with grain."""
    n = int(rng.choice([4, 6, 8, 12]))
    is_tiled = rng.random() < 0.5
    n_rows = n if is_tiled else 1
    shades = rng.uniform(0.98, 1.02, (n_rows, n)).astype(np.float32)
    floor = _resize(shades, TEXTURE_PX, TEXTURE_PX, cv2.INTER_NEAREST)
    board_px = TEXTURE_PX // n
    is_joint = np.arange(TEXTURE_PX) % board_px < 3
    joint = np.where(is_joint, 0.94, 1).astype(np.float32)
    floor *= joint
    if is_tiled:  # boards have no joints across
        floor *= joint[:, None]
    grey = floor * _grain(rng)
    return np.asarray(grey[..., None] * tone)


def _surroundings(rng: Generator, tone: Float32s) -> Picture:
    """A panorama: brighter above, soft upright shapes around the horizon."""
    rows = np.linspace(1.04, 0.96, TEXTURE_PX, dtype=np.float32)[:, None]
    shades = rng.uniform(0.98, 1.02, (1, 24)).astype(np.float32)
    columns = _resize(shades, TEXTURE_PX, 1, cv2.INTER_CUBIC)
    grey = rows * columns * _grain(rng)
    colours = grey[..., None] * tone
    return np.asarray(np.clip(colours, 0, 1))


def _grain(rng: Generator) -> Float32s:
    """Seamless noise of several scales around 1, (TEXTURE_PX, TEXTURE_PX)."""
    total = np.zeros((TEXTURE_PX, TEXTURE_PX), np.float32)
    pad = 2
    for cells in (8, 32, 128):
        noise = rng.normal(0, 1, (cells, cells)).astype(np.float32)
        padded = np.pad(noise, pad, mode="wrap")
        scale = TEXTURE_PX // cells
        side = len(padded) * scale
        big = _resize(padded, side, side, cv2.INTER_CUBIC)
        middle = slice(pad * scale, -pad * scale)
        amplitude = (8 / cells) ** 0.4
        total += big[middle, middle] * amplitude
    grain = 1 + 0.02 * total / total.std()
    return np.asarray(grain, np.float32)


def _draw_tone(rng: Generator, hue: float, darkest: float, lightest: float) -> Float32s:
    """A dull RGB colour of this hue."""
    saturation = rng.uniform(0.01, 0.05)
    value = rng.uniform(darkest, lightest)
    rgb = colorsys.hsv_to_rgb(hue, saturation, value)
    return np.array(rgb, np.float32)


class _Rectangle(NamedTuple):
    """Whole pixels of an image."""

    left: int
    top: int
    width: int
    height: int


class Renderer:
    """Draws bodies of one topology: faces (F, 3), outward-oriented."""

    def __init__(self, faces: Array) -> None:
        self.normals = SmoothNormals(faces)
        self.faces = self.normals.faces

    def view(
        self,
        camera: Camera,
        frame: int,
        bodies: Sequence[tuple[Floats, Colours]],
        backdrop: Backdrop,
    ) -> tuple[Image, Float32s]:
        """Draw one frame: bodies as (vertices (V, 3) m in the world, colours (F, 3)), before the
        backdrop.

        Returns the image, and the depth (H, W) m of the nearest body in each pixel, inf for none.
        """
        verts = [body for body, _ in bodies]
        plain = backdrop.paint(camera, frame)
        canvas = backdrop.shade(plain, camera, frame, np.concatenate(verts))
        depth = np.full(canvas.shape[:2], np.inf, np.float32)

        pixels, z = _project(camera, frame, np.concatenate(verts))
        area = _bounding_rectangle(pixels[z >= NEAR_M], camera)
        if area is not None:
            samples = self._sample(pixels, z, area, len(bodies))
            to_light = backdrop.to_light
            light = np.concatenate([self._light(body, to_light) for body in verts])
            colours = np.concatenate([colours for _, colours in bodies])
            # mean RGB and coverage of each pixel's samples
            shaded = _reduce_samples(samples.shade(light, colours), np.add)
            mean = shaded / np.float32(SUPERSAMPLING**2)

            part = np.s_[area.top : area.top + area.height, area.left : area.left + area.width]
            coverage = mean[..., 3:]
            behind = canvas[part] * (1 - coverage)
            canvas[part] = behind + mean[..., :3]
            with np.errstate(divide="ignore"):
                depth[part] = 1 / _reduce_samples(samples.inverse_depth, np.maximum)
        image = np.round(canvas.clip(0, 1) * 255)
        return image.astype(np.uint8), depth

    def _sample(self, pixels: Floats, z: Floats, area: _Rectangle, n_bodies: int) -> Samples:
        """Rasterise the bodies, whose vertices `_project` gives, within `area`."""
        shifted = [self.faces + i * self.normals.n_vertices for i in range(n_bodies)]
        faces = np.concatenate(shifted)
        # whole numbers are centres, of pixels and of samples
        corners = (pixels - (area.left, area.top) + 0.5) * SUPERSAMPLING - 0.5
        width = area.width * SUPERSAMPLING
        height = area.height * SUPERSAMPLING
        return rasterise(corners[faces], (1 / z)[faces], width, height)

    def _light(self, verts: Floats, to_light: Floats) -> Float32s:
        """Brightness (F, 3) of a body at its faces' corners, from smooth normals."""
        smooth = self.normals(verts)
        facing = smooth @ to_light.astype(np.float32)
        direct = (1 - AMBIENT) * np.maximum(facing, 0)
        light = AMBIENT + direct + SKYLIGHT * smooth[:, 1]
        return np.asarray(light[self.faces], np.float32)


def _project(camera: Camera, frame: int, verts: Floats) -> tuple[Floats, Floats]:
    """Pixels (N, 2) and depths (N,) m of points (N, 3) m in the world.

    Points nearer than NEAR_M are not drawn. They get the depth NEAR_M / 2, by which one can divide.
    """
    extrinsics = camera.extrinsics[frame]
    points = verts @ extrinsics[:3, :3].T + extrinsics[:3, 3]
    z = points[:, 2]  # a view
    z[z < NEAR_M] = NEAR_M / 2
    pixels = points @ camera.intrinsics.T
    return pixels[:, :2] / pixels[:, 2:], z


def _bounding_rectangle(pixels: Floats, camera: Camera) -> _Rectangle | None:
    """The image's pixels around points (N, 2) px; None if there are no such pixels."""
    low = np.floor(pixels.min(axis=0, initial=np.inf))
    high = np.ceil(pixels.max(axis=0, initial=-np.inf))
    low = np.maximum(low, 0)
    last_pixel = (camera.width - 1, camera.height - 1)
    high = np.minimum(high, last_pixel)
    if (low > high).any():
        return None
    left, top = low.astype(int).tolist()
    width, height = (high - low + 1).astype(int).tolist()
    return _Rectangle(left, top, width, height)


def _reduce_samples(samples: Float32s, combine: np.ufunc) -> Float32s:
    """Samples (s H, s W, ...) -> pixels (H, W, ...). Strided views are faster than `reduce` over
    short axes.
    """
    s = SUPERSAMPLING
    views = [samples[row::s, column::s] for row, column in np.ndindex(s, s)]
    return np.asarray(functools.reduce(combine, views), np.float32)

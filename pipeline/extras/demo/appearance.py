"""People's clothes, the ground and the light, and bodies rendered in them.  motion -> [pixels] ->
raw

`scene` dresses each person (`dress`), and draws the frames of a take with a `Renderer`: the ground,
the same for all, then the shaded bodies.

Features of random networks average over the whole image, so the body must dominate it. Everyone
wears a kit with distinct parts: left arm blue, right arm orange, left leg green, right leg purple,
lighter towards hand and foot. The shirt tells people of a take apart; it is dark at the back. The
ground has low contrast and is fixed in the world.
"""

from __future__ import annotations

import colorsys
import functools
from collections.abc import Mapping, Sequence
from typing import Final

import cv2
import numpy as np
from numpy.random import Generator
from scipy.ndimage import gaussian_filter

from pipeline.extras.demo.body import VERTEX_IDS
from pipeline.extras.demo.camera import Camera
from pipeline.files.pixels.frames import Image
from pipeline.people.skeletons import Array, Bools, Float32s, Floats
from pipeline.people.smpl_files import SmplArrays
from pipeline.show.rasterising import Samples, SmoothNormals, rasterise

Colours = Float32s  # (F, 3) RGB 0..1
Picture = Float32s  # (H, W, 3) RGB 0..1
Hsv = tuple[float, float, float]
_Rectangle = tuple[slice, slice]  # rows and columns of an image

# Parts of a person by their joints of `skeletons.JOINTS["smpl"]`.
PARTS: Final[Mapping[str, tuple[int, ...]]] = {
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
    "shirt": (3, 6, 9, 13, 14),
    "head": (12, 15),
}
# Hue, saturation and value of the parts of the kit.
KIT: Final[Mapping[str, Hsv]] = {
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
SHIRTS: Final = (  # of the persons of a take, in turn
    (0.14, 0.10, 0.92),
    (0.16, 0.60, 0.92),
    (0.47, 0.50, 0.74),
    (0.92, 0.40, 0.90),
)
BACK: Final = 0.45  # brightness of a shirt's back beside its front
SPINE: Final = 3  # SMPL's lowest joint of the spine
SKIN: Final = (
    (0.065, 0.34, 0.90),
    (0.06, 0.42, 0.78),
    (0.055, 0.50, 0.64),
    (0.05, 0.52, 0.52),
)
_HAIR: Final = (0.07, 0.65, 0.30)

TEXTURE_PX: Final = 512
TILE_M: Final = 6.0  # side of the repeated ground texture
BOARDS: Final = 6  # of the ground, in a tile
GROUND: Final = 0.53  # brightness
SKY: Final = 0.56
TINT: Final = (1.0, 0.99, 0.97)  # RGB of both
COARSE: Final = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])  # pixels of half the size -> pixels
SUPERSAMPLING: Final = 2  # samples per pixel in x and y
TO_LIGHT: Final = np.array([0.2, 0.93, 0.3], np.float32)  # unit vector in the world, y up
AMBIENT: Final = 0.6  # share of ambient light
SKYLIGHT: Final = 0.12  # added to faces that look up, and taken from faces that look down


def dress(body: SmplArrays, rng: Generator, number: int = 0) -> Colours:
    """Draw the kit, skin and hair of a take's person with this number: (F, 3) RGB in 0..1 of the
    body's faces.
    """
    weights = body.weights[body.faces].sum(axis=1)
    nearest_joint = weights.argmax(axis=1)  # (F,)
    corners = body.v_template[body.faces]  # (F, 3, 3) m, y up, facing +z
    centre = np.asarray(corners.mean(axis=1), np.float64)  # (F, 3) m
    colours = np.zeros((len(centre), 3), np.float32)

    def faces_of(part: str) -> Bools:
        return np.isin(nearest_joint, PARTS[part])

    def paint(faces: Bools, hsv: Hsv, shade: float = 1.0) -> None:
        """Give the faces a colour near this one."""
        hue, saturation, value = hsv
        hue += rng.uniform(-0.005, 0.005)
        value *= shade * rng.uniform(0.96, 1.04)
        colours[faces] = colorsys.hsv_to_rgb(hue % 1, saturation, value)

    for part, hsv in KIT.items():
        paint(faces_of(part), hsv)

    shirt = faces_of("shirt")
    shirt_hsv = SHIRTS[number % len(SHIRTS)]
    paint(shirt, shirt_hsv)
    joints = body.J_regressor @ body.v_template
    is_back = centre[:, 2] < joints[SPINE, 2]
    paint(shirt & is_back, shirt_hsv, BACK)

    head = faces_of("head")
    tone = rng.integers(len(SKIN))
    paint(head, SKIN[tone])
    # Hair is above and behind a plane that slopes from the forehead to the nape.
    nose = body.v_template[VERTEX_IDS["nose"]]
    _, up, ahead = (centre - nose).T
    is_hair = 0.78 * up - 0.62 * ahead > 0.067
    paint(head & is_hair, _HAIR)
    for name in ("leye", "reye"):
        eye = body.v_template[VERTEX_IDS[name]]
        distance = np.linalg.norm(centre - eye, axis=1)
        is_eye = distance < 0.013
        colours[head & is_eye] = 0.08
    return colours


@functools.cache
def _ground() -> Float32s:
    """The ground's texture: boards in slightly different shades, with grain, which repeats."""
    rng = np.random.default_rng(0)
    shades = rng.uniform(0.96, 1.04, BOARDS)
    across = np.arange(TEXTURE_PX) * BOARDS / TEXTURE_PX
    board = across.astype(int)
    is_gap = across % 1 < 0.04
    boards = np.where(is_gap, 0.9, shades[board])
    noise = rng.normal(0, 1, (TEXTURE_PX, TEXTURE_PX))
    smooth = gaussian_filter(noise, (24, 4), mode="wrap")
    grain = 0.01 * smooth / smooth.std()
    grey = GROUND * boards * (1 + grain)
    return np.asarray(grey, np.float32)


def _paint_ground(camera: Camera, frame: int) -> Picture:
    """The view without people, (H, W, 3)."""
    extrinsics = camera.extrinsics[frame]
    rotation = extrinsics[:3, :3]
    translation = extrinsics[:3, 3]
    to_ray = rotation.T @ np.linalg.inv(camera.intrinsics)  # of a pixel, in the world
    x, y, z = -rotation.T @ translation  # the camera's place
    meet_ground = np.array([[-y, x, 0], [0, z, -y], [0, 1, 0]])  # ray -> x and z where y is 0
    to_ground = meet_ground @ to_ray
    per_m = TEXTURE_PX / TILE_M
    to_texture = np.diag([per_m, per_m, 1]) @ to_ground
    grey = cv2.warpPerspective(
        _ground(),
        to_texture @ COARSE,
        (camera.width // 2, camera.height // 2),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_WRAP,
    )
    grey = cv2.resize(grey, (camera.width, camera.height))
    v, u = np.mgrid[: camera.height, : camera.width]
    per_u, per_v, at_origin = to_ray[1]
    up = per_u * u + per_v * v + at_origin  # of the pixels' rays
    grey[up >= 0] = SKY
    return np.asarray(grey[..., None] * TINT, np.float32)


class Renderer:
    """Draws bodies of one topology before a camera: faces (F, 3), outward-oriented."""

    def __init__(self, camera: Camera, faces: Array) -> None:
        self.camera = camera
        self.normals = SmoothNormals(faces)
        self.faces = self.normals.faces
        self._still: Picture | None = None  # the ground before a camera at rest
        change = np.ptp(camera.extrinsics, axis=0)
        if change.max() == 0:
            self._still = _paint_ground(camera, 0)

    def view(self, frame: int, bodies: Sequence[tuple[Floats, Colours]]) -> tuple[Image, Float32s]:
        """Draw one frame: bodies as (vertices (V, 3) m in the world, colours (F, 3)).

        Returns the image, and the depth (H, W) m of the nearest body in each pixel, inf for none.
        """
        canvas = self._view_ground(frame).copy()
        depth = np.full(canvas.shape[:2], np.inf, np.float32)
        verts = [body for body, _ in bodies]
        part, samples = self._sample(frame, np.concatenate(verts), len(bodies))
        light = np.concatenate([self._light(body) for body in verts])
        colours = np.concatenate([colours for _, colours in bodies])
        # mean RGB and coverage of each pixel's samples
        shaded = samples.shade(light, colours)
        mean = _reduce_samples(shaded, np.add) / np.float32(SUPERSAMPLING**2)
        canvas[part] = canvas[part] * (1 - mean[..., 3:]) + mean[..., :3]
        with np.errstate(divide="ignore"):
            depth[part] = 1 / _reduce_samples(samples.inverse_depth, np.maximum)
        image = np.round(canvas.clip(0, 1) * 255)
        return image.astype(np.uint8), depth

    def _view_ground(self, frame: int) -> Picture:
        if self._still is not None:
            return self._still
        return _paint_ground(self.camera, frame)

    def _sample(self, frame: int, verts: Floats, n_bodies: int) -> tuple[_Rectangle, Samples]:
        """Rasterise the bodies, whose vertices are (N, 3) m in the world, in the part of the image
        around them.
        """
        extrinsics = self.camera.extrinsics[frame]
        points = verts @ extrinsics[:3, :3].T + extrinsics[:3, 3]
        homogeneous = points @ self.camera.intrinsics.T
        pixels = homogeneous[:, :2] / homogeneous[:, 2:]
        last = (self.camera.width - 1, self.camera.height - 1)
        low = np.floor(pixels.min(axis=0)).clip(0, last).astype(int)
        extent = np.ceil(pixels.max(axis=0)).clip(0, last).astype(int) + 1 - low
        (left, top), (width, height) = low.tolist(), extent.tolist()
        # whole numbers are centres, of pixels and of samples
        corners = (pixels - low + 0.5) * SUPERSAMPLING - 0.5
        shifted = [self.faces + i * self.normals.n_vertices for i in range(n_bodies)]
        faces = np.concatenate(shifted)
        inverse_depth = 1 / points[:, 2]
        size = (SUPERSAMPLING * width, SUPERSAMPLING * height)
        part = (slice(top, top + height), slice(left, left + width))
        return part, rasterise(corners[faces], inverse_depth[faces], *size)

    def _light(self, verts: Floats) -> Float32s:
        """Brightness (F, 3) of a body at its faces' corners, from smooth normals."""
        smooth = self.normals(verts)
        cosine = np.maximum(smooth @ TO_LIGHT, 0)
        direct = (1 - AMBIENT) * cosine
        from_sky = SKYLIGHT * smooth[:, 1]
        light = AMBIENT + direct + from_sky
        return np.asarray(light[self.faces], np.float32)


def _reduce_samples(samples: Float32s, combine: np.ufunc) -> Float32s:
    """Samples (s H, s W, ...) -> pixels (H, W, ...). Strided views are faster than `reduce` over
    short axes.
    """
    s = SUPERSAMPLING
    views = [samples[row::s, column::s] for row, column in np.ndindex(s, s)]
    return np.asarray(functools.reduce(combine, views), np.float32)

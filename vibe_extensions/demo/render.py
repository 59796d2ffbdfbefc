"""Renders frames of bodies before a backdrop.  motion -> [pixels]"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vibe_extensions.demo.appearance import Backdrop, Colours
from vibe_extensions.demo.camera import Camera
from vibe_extensions.pages.rasterising import NEAR_M, Floats, Floats32, Samples, SmoothNormals, rasterise

Image = NDArray[np.uint8]  # (H, W, 3) RGB

SUPERSAMPLING: Final = 2  # samples per pixel in x and y
AMBIENT: Final = 0.6  # share of ambient light


class Rendered(NamedTuple):
    """A rendered frame and its depth."""

    image: Image
    depth: Floats32  # (H, W) m to the nearest body in the pixel, inf for none


class Renderer:
    """Draws bodies of one topology: faces (F, 3), outward-oriented."""

    def __init__(self, faces: NDArray[Any]) -> None:
        self.normals = SmoothNormals(faces)
        self.faces = self.normals.faces

    def view(
        self, camera: Camera, frame: int, bodies: Sequence[tuple[Floats, Colours]], backdrop: Backdrop
    ) -> Rendered:
        """Draw one frame: bodies as (vertices (V, 3) m in the world, colours (F, 3)), before the backdrop."""
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
            rgba[hit] = np.column_stack([colours[face] * brightness[:, None], np.ones(len(face), np.float32)])
            mean = _reduce_samples(rgba, np.add) / np.float32(SUPERSAMPLING**2)
            part = (slice(top, top + mean.shape[0]), slice(x0, x0 + mean.shape[1]))
            canvas[part] = canvas[part] * (1 - mean[..., 3:]) + mean[..., :3]
            with np.errstate(divide="ignore"):
                depth[part] = 1 / _reduce_samples(samples.inverse_depth, np.maximum)
        return Rendered(np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8), depth)

    def _sample(self, camera: Camera, frame: int, bodies: Sequence[Floats]) -> tuple[Samples, tuple[int, int]]:
        """Rasterise the bodies within their bounding rectangle of whole pixels; also return its left and top."""
        points = np.concatenate(bodies) @ camera.extrinsics[frame, :3, :3].T + camera.extrinsics[frame, :3, 3]
        near = points[:, 2] < NEAR_M
        points[near, 2] = NEAR_M / 2  # not drawn: only keeps the division defined
        pixels = points @ camera.intrinsics.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        low = np.maximum(np.floor(pixels[~near].min(axis=0, initial=np.inf)), 0)
        high = np.minimum(np.ceil(pixels[~near].max(axis=0, initial=-np.inf)), (camera.width - 1, camera.height - 1))
        if (low > high).any():
            return rasterise(np.zeros((0, 3, 2)), np.zeros((0, 3)), 0, 0), (0, 0)
        width, height = (int(n) * SUPERSAMPLING for n in high - low + 1)
        faces = np.concatenate([self.faces + i * self.normals.n_vertices for i in range(len(bodies))])
        corners = ((pixels - low + 0.5) * SUPERSAMPLING - 0.5)[faces]
        return rasterise(corners, (1 / points[:, 2])[faces], width, height), (int(low[0]), int(low[1]))

    def _light(self, verts: Floats, to_light: Floats) -> Floats32:
        """Brightness (F, 3) of a body at its faces' corners, from smooth normals."""
        smooth = self.normals(verts)
        facing = smooth @ to_light.astype(np.float32)
        light = AMBIENT + (1 - AMBIENT) * np.maximum(facing, 0) + 0.12 * smooth[:, 1]
        return np.asarray(light[self.faces], np.float32)


def _reduce_samples(samples: Floats32, combine: np.ufunc) -> Floats32:
    """Samples (s H, s W, ...) -> pixels (H, W, ...). Strided views are faster than `reduce` over short axes."""
    s = SUPERSAMPLING
    views = [samples[row::s, column::s] for row in range(s) for column in range(s)]
    return np.asarray(functools.reduce(combine, views), np.float32)

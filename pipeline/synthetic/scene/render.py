"""Bodies in a place, as a camera sees them: the frames.  motion -> [pixels] -> raw

Projection is exact and pictures are supersampled, so the edge of a body lies where its vertices project to.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.synthetic.body.normals import SmoothNormals
from pipeline.synthetic.scene.backdrop import Backdrop
from pipeline.synthetic.scene.camera import Camera
from pipeline.synthetic.scene.outfit import Colours
from pipeline.synthetic.scene.raster import NEAR_M, Samples, rasterise

Floats = NDArray[np.floating[Any]]
Image = NDArray[np.uint8]  # (H, W, 3) RGB

SUPERSAMPLING: Final = 2  # samples a pixel, across and down
AMBIENT: Final = 0.6  # light that comes from everywhere


class View(NamedTuple):
    """A rendered frame and how far what it shows is away."""

    image: Image
    depth: NDArray[np.float32]  # (H, W) m to the nearest body seen in the pixel, inf where there is none


class Renderer:
    """Draws bodies of one topology: faces (F, 3), outward-oriented."""

    def __init__(self, faces: NDArray[Any]) -> None:
        self.normals = SmoothNormals(faces)
        self.faces = self.normals.faces

    def view(self, camera: Camera, frame: int, bodies: Sequence[tuple[Floats, Colours]], backdrop: Backdrop) -> View:
        """One frame: bodies as (vertices (V, 3) m in the world, colours (F, 3)), before the backdrop."""
        canvas = backdrop.paint(camera, frame)
        canvas = backdrop.shade(canvas, camera, frame, np.concatenate([verts for verts, _ in bodies]))
        samples, (left, top) = self._sample(camera, frame, [verts for verts, _ in bodies])
        depth = np.full(canvas.shape[:2], np.inf, np.float32)
        if samples.face.size:
            light = np.concatenate([self._light(verts, backdrop.to_light) for verts, _ in bodies])
            seen = self._colour(samples, np.concatenate([colours for _, colours in bodies]), light)
            _composite(canvas, depth, seen, samples, left, top)
        return View(np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8), depth)

    def _sample(self, camera: Camera, frame: int, bodies: Sequence[Floats]) -> tuple[Samples, tuple[int, int]]:
        """What is seen of the bodies, over the smallest rectangle of whole pixels that holds them; its left and top."""
        points = np.concatenate(bodies) @ camera.extrinsics[frame, :3, :3].T + camera.extrinsics[frame, :3, 3]
        near = points[:, 2] < NEAR_M
        points[near, 2] = NEAR_M / 2  # not drawn: only keeps the division defined
        pixels = points @ camera.intrinsics.T
        pixels = pixels[:, :2] / pixels[:, 2:]
        low = np.maximum(np.floor(pixels[~near].min(axis=0, initial=np.inf)), 0)
        high = np.minimum(np.ceil(pixels[~near].max(axis=0, initial=-np.inf)), (camera.width - 1, camera.height - 1))
        if (low > high).any():
            return rasterise(np.zeros((0, 3, 2)), np.zeros((0, 3)), 0, 0), (0, 0)
        width, height = (int(n) for n in high - low + 1)
        samples_xy = (pixels - low + 0.5) * SUPERSAMPLING - 0.5
        faces = self._stacked(len(bodies))
        corners, inverse = samples_xy[faces], (1 / points[:, 2])[faces]
        seen = rasterise(corners, inverse, width * SUPERSAMPLING, height * SUPERSAMPLING)
        return seen, (int(low[0]), int(low[1]))

    def _stacked(self, n_bodies: int) -> NDArray[np.int64]:
        return np.concatenate([self.faces + i * self.normals.n_vertices for i in range(n_bodies)])

    def _light(self, verts: Floats, to_light: Floats) -> NDArray[np.float32]:
        """(F, 3) how bright a body is at its faces' corners, from normals averaged over the faces around a vertex."""
        smooth = self.normals(verts)
        facing = smooth @ to_light.astype(np.float32)
        light = AMBIENT + (1 - AMBIENT) * np.maximum(facing, 0) + 0.12 * smooth[:, 1]
        return np.asarray(light[self.faces], np.float32)

    def _colour(self, samples: Samples, colours: Colours, light: NDArray[np.float32]) -> NDArray[np.float32]:
        """(H, W, 4) RGB and coverage of each sample."""
        out = np.zeros((samples.face.size, 4), np.float32)
        hit = np.flatnonzero(samples.face.ravel() >= 0)
        face = samples.face.ravel()[hit]
        weights = samples.barycentric.reshape(-1, 3)[hit]
        brightness = np.einsum("nc,nc->n", weights, light[face])
        out[hit, :3] = colours[face] * brightness[:, None]
        out[hit, 3] = 1
        return out.reshape(*samples.face.shape, 4)


def _composite(
    canvas: NDArray[np.float32],
    depth: NDArray[np.float32],
    seen: NDArray[np.float32],
    samples: Samples,
    left: int,
    top: int,
) -> None:
    """Average the samples of each pixel over the canvas, and note the nearest of them: both in place."""
    mean = _over_pixels(seen, np.add) / np.float32(SUPERSAMPLING**2)
    nearest = _over_pixels(samples.inverse_depth, np.maximum)
    part = (slice(top, top + mean.shape[0]), slice(left, left + mean.shape[1]))
    canvas[part] = canvas[part] * (1 - mean[..., 3:]) + mean[..., :3]
    with np.errstate(divide="ignore"):
        depth[part] = 1 / nearest


def _over_pixels(samples: NDArray[np.float32], combine: np.ufunc) -> NDArray[np.float32]:
    """(s H, s W, ...) of samples -> (H, W, ...) of pixels. By strided views: `reduce` over short axes is slow."""
    s = SUPERSAMPLING
    views = [samples[row::s, column::s] for row in range(s) for column in range(s)]
    return np.asarray(functools.reduce(combine, views), np.float32)

"""Bodies over pictures, shaded and half transparent.  tracks, predictions -> [pictures]

A body is sampled over the rectangle that holds it, at most RASTER_PX samples wide and high, and the samples are
resized to the rectangle's pixels: a person who fills a large picture costs no more than one who fills a small one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.files.pixels.frames import Image
from pipeline.synthetic.render import SmoothNormals, rasterise

Floats = NDArray[np.floating[Any]]

RASTER_PX: Final = 360  # samples across a body, at most
FINEST: Final = 2.0  # samples a pixel of small bodies, so that their edges are smooth
AMBIENT: Final = 0.35  # light from everywhere
TO_LIGHT: Final = np.array([-0.45, -0.6, -0.66], np.float32)  # from behind the viewer's left shoulder, of length 1
OPACITY: Final = 0.75
COLOURS: Final = (  # RGB, far apart from one another for most eyes (Okabe and Ito's, lightened)
    (0.45, 0.75, 0.95),
    (0.98, 0.70, 0.25),
    (0.40, 0.80, 0.62),
    (0.95, 0.60, 0.75),
    (0.97, 0.92, 0.45),
    (0.90, 0.50, 0.25),
    (0.55, 0.60, 0.95),
)


class SeenBody(NamedTuple):
    """A body as a camera sees it."""

    verts: Floats  # (V, 3) m, camera axes (x right, y down, z forward); only which way the surface faces counts
    pixels: Floats  # (V, 2) px of the picture
    depth: Floats  # (V,) m before the camera; points behind it are not drawn
    colour: tuple[float, float, float]  # RGB, 0 .. 1


class Painter:
    """Paints bodies of one topology: faces (F, 3), outward-oriented."""

    def __init__(self, faces: NDArray[Any]) -> None:
        self._normals = SmoothNormals(faces)

    def paint(self, image: Image, bodies: Sequence[SeenBody], opacity: float = OPACITY) -> Image:
        """(H, W, 3) uint8 RGB -> the same with the bodies over it, the first one at the bottom. A new array."""
        painted = image.copy()
        for body in bodies:
            self._add(painted, body, opacity)
        return painted

    def _add(self, image: Image, body: SeenBody, opacity: float) -> None:
        faces, (height, width) = self._normals.faces, image.shape[:2]
        in_front = body.depth > 0
        if not (in_front.any() and np.isfinite(body.pixels).all()):
            return
        low = np.maximum(np.floor(body.pixels[in_front].min(axis=0)), 0)
        high = np.minimum(np.ceil(body.pixels[in_front].max(axis=0)) + 1, (width, height))
        if (low >= high).any():
            return
        size = (high - low).astype(np.int64)
        samples = np.maximum(np.rint(size * min(FINEST, RASTER_PX / size.max())), 1)
        places = (body.pixels - low + 0.5) * (samples / size) - 0.5
        inverse_depth = np.divide(1, body.depth, out=np.zeros(len(body.depth)), where=in_front)
        visible = rasterise(places[faces], inverse_depth[faces], int(samples[0]), int(samples[1]))
        layer = np.zeros((*visible.face.shape, 4), np.float32)  # RGB times coverage, coverage
        hit = np.nonzero(visible.face >= 0)
        facing = self._normals(body.verts) @ TO_LIGHT  # (V,)
        light = AMBIENT + (1 - AMBIENT) * np.maximum(facing, 0)
        brightness = np.einsum("nc,nc->n", visible.barycentric[hit], light[faces[visible.face[hit]]])
        layer[hit] = np.column_stack([np.outer(brightness, body.colour), np.ones(len(brightness))])
        how = cv2.INTER_AREA if samples[0] > size[0] else cv2.INTER_LINEAR
        layer = np.asarray(cv2.resize(layer, size.tolist(), interpolation=how), np.float32)
        part = image[int(low[1]) : int(high[1]), int(low[0]) : int(high[0])]
        over = part * (1 - opacity * layer[..., 3:]) + (255 * opacity) * layer[..., :3]
        part[...] = np.clip(over + 0.5, 0, 255).astype(np.uint8)

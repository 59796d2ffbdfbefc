"""A z-buffer in NumPy, and the frames of bodies in a place that are drawn with it.  motion -> [pixels]

The rasteriser takes all triangles at once, with no loop over them: every triangle is spread over the samples of its
bounding box, and those inside it compete for their sample by depth. Triangles of a body are small, so little of the
bounding boxes is wasted: 13,776 faces, 200 px high, take about 10 ms. Projection is exact and pictures are
supersampled, so the edge of a body is where its vertices project to.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipeline.synthetic.appearance import Backdrop, Colours
from pipeline.synthetic.camera import Camera

Floats = NDArray[np.floating[Any]]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.integer[Any]]
Image = NDArray[np.uint8]  # (H, W, 3) RGB

NEAR_M: Final = 0.1  # what is closer to the camera than this is not drawn
SUPERSAMPLING: Final = 2  # samples a pixel, across and down
AMBIENT: Final = 0.6  # light that comes from everywhere


class Samples(NamedTuple):
    """What is seen through a grid of sample points, row by row; H x W samples."""

    face: NDArray[np.int32]  # (H, W) index of the face, -1 where there is none
    inverse_depth: Floats32  # (H, W) 1 / m, 0 where there is nothing
    barycentric: Floats32  # (H, W, 3) weights of the face's corners in the picture, 0 where there is nothing


def rasterise(corners: Floats, inverse_depth: Floats, width: int, height: int) -> Samples:
    """Draw triangles over a grid whose samples are at whole numbers 0 .. width - 1, 0 .. height - 1.

    corners (F, 3, 2) in sample coordinates, inverse_depth (F, 3) in 1 / m. Triangles turned away (clockwise to the
    viewer; faces are outward-oriented) are left out, as are those that reach nearer than `NEAR_M`.
    """
    a, b, c = corners.swapaxes(0, 1)
    area = _cross(b - a, c - a)  # negative for a face that looks at the viewer, since y points down
    low = np.maximum(np.ceil(np.minimum(np.minimum(a, b), c)), 0).astype(np.int64)
    high = np.minimum(np.floor(np.maximum(np.maximum(a, b), c)), (width - 1, height - 1)).astype(np.int64)
    extent = np.maximum(high - low + 1, 0)
    in_front = ((inverse_depth > 0) & (inverse_depth < 1 / NEAR_M)).all(axis=1)
    drawn = np.flatnonzero((area < -1e-9) & in_front & (extent[:, 0] * extent[:, 1] > 0))
    low = low[drawn]
    fragment, x, y = _spread(extent[drawn])
    opposite = ((b, c), (c, a), (a, b))
    bary = [_edge(p[drawn], q[drawn], area[drawn], low, fragment, x, y) for p, q in opposite]  # corner by corner
    inside = np.flatnonzero((bary[0] >= 0) & (bary[1] >= 0) & (bary[2] >= 0))
    fragment, bary = fragment[inside], [weight[inside] for weight in bary]
    inverse = inverse_depth[drawn].astype(np.float32)
    # 1 / depth is linear in the picture.
    nearness = np.asarray(sum(w * inverse[fragment, i] for i, w in enumerate(bary)), np.float32)
    pixel = (low[fragment, 1] + y[inside]) * width + low[fragment, 0] + x[inside]
    buffer, nearest_face = np.zeros(width * height, np.float32), np.full(width * height, -1, np.int32)
    np.maximum.at(buffer, pixel, nearness)
    won = np.flatnonzero(nearness == buffer[pixel])
    nearest_face[pixel[won]] = drawn[fragment[won]]
    weights = np.zeros((width * height, 3), np.float32)
    weights[pixel[won]] = np.stack(bary, axis=1)[won]
    shape = (height, width)
    return Samples(nearest_face.reshape(shape), buffer.reshape(shape), weights.reshape(*shape, 3))


def _spread(extent: Ints) -> tuple[Ints, Ints, Ints]:
    """Every sample of every bounding box: whose it is, and x and y from the box's corner; each (N,)."""
    counts = extent[:, 0] * extent[:, 1]
    owner = np.repeat(np.arange(len(counts)), counts)
    within = (np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)).astype(np.int32)
    y, x = np.divmod(within, np.repeat(extent[:, 0].astype(np.int32), counts))
    return owner, x, y


def _edge(p: Floats, q: Floats, area: Floats, low: Ints, owner: Ints, x: Ints, y: Ints) -> Floats32:
    """(N,) weight of the corner opposite to the edge p-q: linear in x and y, 0 on the edge, negative outside.

    Counted from each box's corner: so near, float32 is exact enough.
    """
    start = _cross(p - low, q - low) / area
    across, down = (p[:, 1] - q[:, 1]) / area, (q[:, 0] - p[:, 0]) / area
    table = np.stack([start, across, down], axis=1).astype(np.float32)[owner]
    return np.asarray(table[:, 0] + table[:, 1] * x.astype(np.float32) + table[:, 2] * y.astype(np.float32))


def _cross(a: Floats, b: Floats) -> Floats:
    return np.asarray(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])


class SmoothNormals:
    """Which way the surface faces at the vertices of bodies of one topology: faces (F, 3), outward-oriented."""

    def __init__(self, faces: NDArray[Any]) -> None:
        self.faces = np.asarray(faces, np.int64)
        self.n_vertices = int(self.faces.max()) + 1
        corners = np.ones(self.faces.size, np.float32)
        rows, columns = self.faces.ravel(), np.repeat(np.arange(len(self.faces)), 3)
        self._faces_at_vertex = sparse.csr_array((corners, (rows, columns)), shape=(self.n_vertices, len(self.faces)))

    def __call__(self, verts: Floats) -> Floats32:
        """(V, 3) -> (V, 3) unit vectors outwards, averaged over the faces around a vertex, weighted by their area."""
        corners = verts.astype(np.float32)[self.faces]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        smooth = self._faces_at_vertex @ normals
        smooth /= np.linalg.norm(smooth, axis=1, keepdims=True) + np.float32(1e-20)
        return np.asarray(smooth, np.float32)


class Rendered(NamedTuple):
    """A rendered frame and how far what it shows is away."""

    image: Image
    depth: Floats32  # (H, W) m to the nearest body seen in the pixel, inf where there is none


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
            mean = _over_pixels(rgba, np.add) / np.float32(SUPERSAMPLING**2)
            part = (slice(top, top + mean.shape[0]), slice(x0, x0 + mean.shape[1]))
            canvas[part] = canvas[part] * (1 - mean[..., 3:]) + mean[..., :3]
            with np.errstate(divide="ignore"):
                depth[part] = 1 / _over_pixels(samples.inverse_depth, np.maximum)
        return Rendered(np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8), depth)

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
        width, height = (int(n) * SUPERSAMPLING for n in high - low + 1)
        faces = np.concatenate([self.faces + i * self.normals.n_vertices for i in range(len(bodies))])
        corners = ((pixels - low + 0.5) * SUPERSAMPLING - 0.5)[faces]
        return rasterise(corners, (1 / points[:, 2])[faces], width, height), (int(low[0]), int(low[1]))

    def _light(self, verts: Floats, to_light: Floats) -> Floats32:
        """(F, 3) how bright a body is at its faces' corners, from normals averaged over the faces around a vertex."""
        smooth = self.normals(verts)
        facing = smooth @ to_light.astype(np.float32)
        light = AMBIENT + (1 - AMBIENT) * np.maximum(facing, 0) + 0.12 * smooth[:, 1]
        return np.asarray(light[self.faces], np.float32)


def _over_pixels(samples: Floats32, combine: np.ufunc) -> Floats32:
    """(s H, s W, ...) of samples -> (H, W, ...) of pixels. By strided views: `reduce` over short axes is slow."""
    s = SUPERSAMPLING
    views = [samples[row::s, column::s] for row in range(s) for column in range(s)]
    return np.asarray(functools.reduce(combine, views), np.float32)

"""A z-buffer in NumPy: triangles -> which one is seen at each sample.  motion -> [pixels] -> raw

All triangles at once, no loop over them: every triangle is spread over the samples of its bounding box, those inside it
compete for their sample by depth. A body of 13,776 faces, 200 px high, takes about 10 ms; triangles are small, so little
of the bounding boxes is wasted.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.integer[Any]]

NEAR_M: Final = 0.1  # what is closer to the camera than this is not drawn


class Samples(NamedTuple):
    """What is seen through a grid of sample points, row by row; H x W samples."""

    face: NDArray[np.int32]  # (H, W) index of the face, -1 where there is none
    inverse_depth: NDArray[np.float32]  # (H, W) 1 / m, 0 where there is nothing
    barycentric: NDArray[np.float32]  # (H, W, 3) weights of the face's corners in the picture, 0 where there is nothing


def rasterise(corners: Floats, inverse_depth: Floats, width: int, height: int) -> Samples:
    """Triangles over a grid whose samples lie at whole numbers 0 .. width - 1, 0 .. height - 1.

    corners (F, 3, 2) in sample coordinates, inverse_depth (F, 3) in 1 / m. Triangles turned away (counter-clockwise in a
    y-down picture of outward-oriented faces) are left out, as are those that reach behind the camera.
    """
    area = _cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    low = np.maximum(np.ceil(corners.min(axis=1)), 0).astype(np.int64)
    high = np.minimum(np.floor(corners.max(axis=1)), (width - 1, height - 1)).astype(np.int64)
    extent = np.maximum(high - low + 1, 0)
    in_front = ((inverse_depth > 0) & (inverse_depth < 1 / NEAR_M)).all(axis=1)
    drawn = np.flatnonzero((area < -1e-9) & in_front & (extent.prod(axis=1) > 0))
    face, x, y = _spread(drawn, low[drawn], extent[drawn])
    bary = _barycentric(corners, area, face, x, y)
    inside = np.flatnonzero((bary >= 0).all(axis=1))
    face, x, y, bary = face[inside], x[inside], y[inside], bary[inside]
    nearness = (bary * inverse_depth[face]).sum(axis=1).astype(np.float32)  # 1 / depth is linear in the picture
    return _nearest(face, y * width + x, bary, nearness, (height, width))


def _spread(drawn: Ints, low: Ints, extent: Ints) -> tuple[Ints, Ints, Ints]:
    """Every sample of every face's bounding box: face, x and y, each (N,)."""
    counts = extent.prod(axis=1)
    face = np.repeat(drawn, counts)
    within = np.arange(len(face)) - np.repeat(np.cumsum(counts) - counts, counts)
    row, column = np.divmod(within, np.repeat(extent[:, 0], counts))
    return face, column + np.repeat(low[:, 0], counts), row + np.repeat(low[:, 1], counts)


def _barycentric(corners: Floats, area: Floats, face: Ints, x: Ints, y: Ints) -> NDArray[np.float32]:
    """(N, 3) weights of the corners at samples (x, y): linear functions of both, negative outside the face."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    across = np.stack([b[:, 1] - c[:, 1], c[:, 1] - a[:, 1], a[:, 1] - b[:, 1]], axis=1)
    down = np.stack([c[:, 0] - b[:, 0], a[:, 0] - c[:, 0], b[:, 0] - a[:, 0]], axis=1)
    start = np.stack([_cross(b, c), _cross(c, a), _cross(a, b)], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # faces without area are not drawn
        linear = np.stack([across, down, start], axis=1) / area[:, None, None]
    used = linear[face]  # float64: `start` is large, and its error would move edges
    return (used[:, 0] * x[:, None] + used[:, 1] * y[:, None] + used[:, 2]).astype(np.float32)


def _nearest(face: Ints, place: Ints, bary: Floats, nearness: Floats, shape: tuple[int, int]) -> Samples:
    size = shape[0] * shape[1]
    buffer = np.zeros(size, np.float32)
    np.maximum.at(buffer, place, nearness)
    won = np.flatnonzero(nearness == buffer[place])
    seen = np.full(size, -1, np.int32)
    seen[place[won]] = face[won]
    weights = np.zeros((size, 3), np.float32)
    weights[place[won]] = bary[won]
    return Samples(seen.reshape(shape), buffer.reshape(shape), weights.reshape(*shape, 3))


def _cross(a: Floats, b: Floats) -> Floats:
    return np.asarray(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0])

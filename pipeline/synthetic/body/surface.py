"""The skin of the stand-in body: one closed surface of 6890 vertices.  [rest shape] -> rig -> rendered raw datasets

A person is laid out in a lattice of unit cells (a polycube: boxes for torso, limbs, fingers and head). The outer faces
of the cells are the mesh, which makes it closed, manifold and without handles whatever the shape; each box then has a
function that carries its lattice points to the place and roundness of that part of a body. Only the left half is made;
the right half is its mirror image, vertex for vertex.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from pipeline.synthetic.body.parts import PARTS, Points

Indices = NDArray[np.int64]

MIRROR: Final = np.array([-1.0, 1.0, 1.0])


@dataclass(frozen=True)
class Surface:
    """A triangle mesh, closed and outward-oriented, with the part that every vertex comes from."""

    vertices: Points  # (6890, 3) m
    faces: Indices  # (13776, 3)
    part: NDArray[np.str_]  # (6890,) a key of PARTS
    mirror: Indices  # (6890,) vertex i is the mirror image of vertex mirror[i]


def _half_quads() -> tuple[Indices, Indices]:
    """Outer faces of the left half's cells: lattice points (H, 3), and quads (Q, 4) into them, seen anticlockwise."""
    corner = np.min([part.low for part in PARTS.values()], axis=0) - 1
    shape = np.max([part.high for part in PARTS.values()], axis=0) + 1 - corner
    filled = np.zeros(shape, bool)
    for part in PARTS.values():
        filled[tuple(slice(a, b) for a, b in zip(part.low - corner, part.high - corner, strict=True))] = True
    filled[-1 - corner[0]] = filled[-corner[0]]  # the other half begins at x = 0: no face there
    quads = []
    for axis in range(3):
        square = np.zeros((4, 3), np.int64)
        square[1:3, (axis + 1) % 3] = 1
        square[2:4, (axis + 2) % 3] = 1
        step = np.diff(filled.astype(np.int8), axis=axis)
        for sign, ring in ((-1, square), (1, square[::-1])):
            cells = np.argwhere(step == sign)
            cells[:, axis] += 1
            quads.append(cells[:, None] + ring)
    corners = np.concatenate(quads) + corner
    corners = corners[(corners[..., 0] >= 0).all(axis=1)]
    points, index = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
    return points, index.reshape(-1, 4)


def _place(points: Indices) -> tuple[Points, NDArray[np.str_], NDArray[np.bool_]]:
    """Lattice points -> positions, part names, and whether parts meet there (the mean of their positions is taken)."""
    total, count = np.zeros(points.shape), np.zeros(len(points))
    name = np.full(len(points), "", "U8")
    for key, part in PARTS.items():
        low, high = np.array(part.low), np.array(part.high)
        inside = ((points >= low) & (points <= high)).all(axis=1)
        if low[0] == 0:
            low[0] = -high[0]  # a part that crosses the middle plane is twice as wide as its left half
        total[inside] += part.place(2.0 * (points[inside] - low) / (high - low) - 1)
        count[inside] += 1
        name[inside] = key
    placed = total / count[:, None]
    placed[points[:, 0] == 0, 0] = 0.0
    return placed, name, count > 1


def neighbour_mean(polygons: Indices, n: int) -> sparse.csr_matrix:
    """(n, n) with rows that sum to 1: the mean over neighbours along the edges of (P, corners) polygons."""
    a, b = polygons.ravel(), np.roll(polygons, -1, axis=1).ravel()
    links = sparse.coo_matrix((np.ones(2 * len(a)), (np.r_[a, b], np.r_[b, a])), shape=(n, n)).tocsr()
    links.data[:] = 1.0
    return sparse.diags(1 / np.asarray(links.sum(axis=1)).ravel()) @ links


def _smooth(vertices: Points, seams: NDArray[np.bool_], neighbours: sparse.csr_matrix) -> Points:
    """Even out the surface where parts meet; far from a seam it stays as modelled.

    Taubin's smoothing ("A signal processing approach to fair surface design", 1995): every step inwards is followed by
    one outwards, so that limbs do not get thinner.
    """
    amount = seams.astype(float)
    for _ in range(4):
        amount = np.maximum(amount, 0.8 * (neighbours @ amount))
    amount = np.clip(2 * amount, 0, 1)[:, None]
    out = vertices
    for _ in range(25):
        for step in (0.60, -0.62):
            out = out + step * amount * (neighbours @ out - out)
    return out


def _triangles(quads: Indices, vertices: Points) -> Indices:
    """Each quad along its shorter diagonal."""
    a, b, c, d = (vertices[quads[:, k]] for k in range(4))
    ac = np.linalg.norm(a - c, axis=1) <= np.linalg.norm(b - d, axis=1)
    first = np.where(ac[:, None], quads[:, [0, 1, 2]], quads[:, [0, 1, 3]])
    second = np.where(ac[:, None], quads[:, [0, 2, 3]], quads[:, [1, 2, 3]])
    return np.concatenate([first, second])


def surface() -> Surface:
    """The whole body at rest, right side mirrored from the left."""
    points, quads = _half_quads()
    placed, part, seams = _place(points)
    middle = points[:, 0] == 0
    n = len(points)
    mirror_of = np.where(middle, np.arange(n), n + np.cumsum(~middle) - 1)  # half's vertex -> its image
    other = np.flatnonzero(~middle)
    both = np.concatenate([quads, mirror_of[quads][:, ::-1]])
    vertices = np.concatenate([placed, placed[other] * MIRROR])
    vertices = _smooth(vertices, np.concatenate([seams, seams[other]]), neighbour_mean(both, len(vertices)))
    half = _triangles(quads, vertices)
    faces = np.concatenate([half, mirror_of[half][:, ::-1]])
    mirror = np.concatenate([mirror_of, other])
    return Surface(vertices, faces, np.concatenate([part, part[other]]), mirror)

"""The skin of the demo body: one closed surface of 6890 vertices, which `make_demo_body.py` gives a
skeleton.

A person is laid out in a lattice of unit cells (a polycube: boxes for torso, limbs, fingers and
head). The outer faces of the cells are the mesh, which makes it closed, manifold and without
handles whatever the shape; each box then has a function that carries its lattice points to the
place and roundness of that part of a body. The numbers here are its measures, in metres, y up,
facing +z, the left side at +x, arms out sideways, palms down. Only the left half is made; the right
half is its mirror image, vertex for vertex.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.interpolate import PchipInterpolator

from pipeline.demo.body import VERTEX_IDS

Points = NDArray[np.float64]  # (N, 3)
Scalars = NDArray[np.float64]  # (N,)
Indices = NDArray[np.int64]
Place = Callable[[Points], Points]  # a part's lattice, -1..1 in each axis -> places on a body

MIRROR: Final = np.array([-1.0, 1.0, 1.0])
# of the lattice: together 6888 quads, as SMPL has
TORSO_ROWS, LEG_ROWS, ARM_ROWS, NECK_ROWS = 29, 37, 26, 4


def _profile(*knots: tuple[float, ...]) -> Callable[[Scalars], tuple[Scalars, ...]]:
    """Rows of (position, value, value, ...) -> a monotone interpolation of each value over the
    position.
    """
    table = np.array(knots)
    curves = [PchipInterpolator(table[:, 0], column) for column in table[:, 1:].T]
    return lambda t: tuple(curve(np.clip(t, table[0, 0], table[-1, 0])) for curve in curves)


def _disc(u: Scalars, v: Scalars, squareness: float = 0.0) -> tuple[Scalars, Scalars]:
    """The square [-1, 1]^2 -> the unit disc, edges to the circle; squareness 1 leaves the square as
    it is.
    """
    x, y = u * np.sqrt(1 - v**2 / 2), v * np.sqrt(1 - u**2 / 2)
    return x + squareness * (u - x), y + squareness * (v - y)


def _ball(p: Points, squareness: float = 0.0) -> Points:
    """The cube [-1, 1]^3 -> the unit ball, faces to the sphere."""
    x, y, z = (p**2).T
    ball = p * np.sqrt(
        np.stack(
            [
                1 - y / 2 - z / 2 + y * z / 3,
                1 - z / 2 - x / 2 + z * x / 3,
                1 - x / 2 - y / 2 + x * y / 3,
            ],
            axis=-1,
        )
    )
    return np.asarray(ball + squareness * (p - ball))


# Heights from the crotch to the neck: half width, front and back (z), m.
_TORSO = _profile(
    (-0.37, 0.173, 0.092, -0.116), (-0.30, 0.177, 0.097, -0.128), (-0.22, 0.169, 0.102, -0.119),
    (-0.12, 0.146, 0.100, -0.088), (-0.04, 0.136, 0.096, -0.082), (0.06, 0.150, 0.108, -0.094),
    (0.14, 0.166, 0.116, -0.108), (0.20, 0.172, 0.100, -0.112), (0.26, 0.150, 0.062, -0.100),
    (0.30, 0.090, 0.035, -0.080),
)  # fmt: skip


def _torso(p: Points) -> Points:
    u, row, w = p[:, 0], (p[:, 1] + 1) / 2 * TORSO_ROWS, p[:, 2]
    # The four rows that the arm grows out of are as high as the shoulder is thick.
    heights = [-0.37, 0.155, 0.272, 0.285]
    y = np.interp(row, [0, TORSO_ROWS - 5, TORSO_ROWS - 1, TORSO_ROWS], heights)
    half_width, front, back = _TORSO(y)
    x, z = _disc(u, w, 0.12)
    depth, middle = (front - back) / 2, (front + back) / 2
    # The shoulders slope down from the neck, and the collar bones are lower than the nape.
    slope = 0.028 * (1 - np.maximum(np.abs(u), np.abs(w))) - 0.016 * np.clip(w, 0, 1) * (1 - u**2)
    y = y + np.where(row == TORSO_ROWS, slope, 0.0)
    groin = np.where(row == 0, 0.035 * np.clip(np.abs(x) * 1.3, 0, 1) ** 2, 0.0)
    chest = (
        0.010
        * np.exp(-(((np.abs(x * half_width) - 0.075) / 0.05) ** 2 + ((y - 0.12) / 0.05) ** 2))
        * (z > 0)
        * z
    )
    spine = (
        0.010 * np.exp(-((x * half_width / 0.03) ** 2)) * (z < 0) * np.clip((y + 0.30) / 0.1, 0, 1)
    )
    return np.stack([half_width * x, y + groin, middle + depth * z + chest + spine], axis=-1)


# Heights from the hip to the ankle: centre (x, z), half width, half depth, m.
_LEG = _profile(
    (-1.095, 0.098, -0.030, 0.034, 0.042), (-1.03, 0.098, -0.032, 0.036, 0.042),
    (-0.93, 0.100, -0.032, 0.050, 0.056),
    (-0.84, 0.102, -0.026, 0.056, 0.063), (-0.76, 0.101, -0.008, 0.051, 0.056),
    (-0.70, 0.100, 0.002, 0.053, 0.058),
    (-0.62, 0.099, 0.000, 0.061, 0.067), (-0.50, 0.096, -0.004, 0.074, 0.084),
    (-0.41, 0.092, -0.008, 0.082, 0.093),
    (-0.36, 0.091, -0.011, 0.082, 0.093),
)  # fmt: skip


def _leg(p: Points) -> Points:
    y = -1.095 + (p[:, 1] + 1) / 2 * (1.095 - 0.37)
    x0, z0, width, depth = _LEG(y)
    x, z = _disc(p[:, 0], p[:, 2])
    return np.stack([x0 + width * x, y, z0 + depth * z], axis=-1)


# Length of the foot from heel to toes (z): centre x, half width, height of the instep above the
# sole, m.
_FOOT = _profile(
    (-0.085, 0.096, 0.033, 0.078), (-0.03, 0.098, 0.037, 0.082), (0.03, 0.103, 0.038, 0.072),
    (0.08, 0.110, 0.045, 0.048), (0.12, 0.114, 0.047, 0.034), (0.175, 0.115, 0.044, 0.024),
)  # fmt: skip


def _foot(p: Points) -> Points:
    ball = _ball(p, 0.35)
    along = np.interp(ball[:, 2], [-1, 0, 1], [-0.085, 0.032, 0.165])
    x0, width, height = _FOOT(along)
    # The big toe leads: the front edge runs backwards towards the outer side.
    z = along - 0.022 * np.clip(ball[:, 2], 0, 1) ** 3 * (ball[:, 0] + 1) / 2
    toes = 0.006 * np.clip(ball[:, 2], 0, 1) ** 6 * np.cos(2.5 * np.pi * ball[:, 0])
    y = -1.165 + height * (ball[:, 1] + 1) / 2
    return np.stack([x0 + width * ball[:, 0], y, z + toes], axis=-1)


# Length of the arm (x): centre y and z, half height, half depth, m.
_ARM = _profile(
    (0.150, 0.216, -0.014, 0.062, 0.062), (0.200, 0.222, -0.016, 0.056, 0.056),
    (0.260, 0.220, -0.020, 0.049, 0.051),
    (0.340, 0.217, -0.026, 0.045, 0.047), (0.440, 0.215, -0.030, 0.038, 0.040),
    (0.490, 0.216, -0.030, 0.038, 0.043),
    (0.580, 0.218, -0.030, 0.032, 0.037), (0.690, 0.220, -0.030, 0.021, 0.030),
)  # fmt: skip


def _arm(p: Points) -> Points:
    along = 0.160 + (p[:, 0] + 1) / 2 * (0.690 - 0.160)
    y0, z0, height, depth = _ARM(along)
    z, y = _disc(p[:, 2], p[:, 1])
    return np.stack([along, y0 + height * y, z0 + depth * z], axis=-1)


_PALM = _profile(
    (0.690, 0.027, 0.016), (0.720, 0.038, 0.017), (0.760, 0.043, 0.015), (0.785, 0.042, 0.011)
)


def _palm(p: Points) -> Points:
    t = (p[:, 0] + 1) / 2
    along = 0.695 + t * (0.785 - 0.695)
    width, thickness = _PALM(along)
    z, y = _disc(p[:, 2], p[:, 1], 0.55)
    along = along + 0.024 * p[:, 2] ** 2 * (1 - t)  # the heel of the hand is round
    knuckles = 0.008 * (1 - p[:, 2] ** 2) * np.clip(p[:, 0], 0, 1)
    return np.stack([along + knuckles, 0.218 + thickness * y, -0.030 + width * z], axis=-1)


def _finger(
    base: tuple[float, float, float], tip: tuple[float, float, float], radius: float, axis: int
) -> Place:
    """A tube from base to tip whose lattice runs along `axis` (0 for fingers, 2 for the thumb),
    with a round end.
    """
    start, end = np.array(base), np.array(tip)
    forward = (end - start) / np.linalg.norm(end - start)
    up = np.array([0.0, 1.0, 0.0]) - forward[1] * forward
    up /= np.linalg.norm(up)
    side = np.cross(forward, up)

    def place(p: Points) -> Points:
        a, b = _disc(p[:, 2] if axis == 0 else -p[:, 0], p[:, 1])
        t = (p[:, axis] + 1) / 2
        last = t > 1 - 1e-9
        size = radius * np.where(last, 0.62, 1 - 0.2 * t)
        bulge = np.where(last, 0.45 * radius * (1 - a**2 - b**2), 0.0)
        along = start + t[:, None] * (end - start) + bulge[:, None] * forward
        return np.asarray(along + size[:, None] * (a[:, None] * side + b[:, None] * up))

    return place


def _neck(p: Points) -> Points:
    t = (p[:, 1] + 1) / 2
    x, z = _disc(p[:, 0], p[:, 2])
    width, depth = 0.060 - 0.012 * t, 0.052 - 0.004 * t
    return np.stack([width * x, 0.290 + 0.055 * t, -0.021 + 0.017 * t + depth * z], axis=-1)


def _bump(
    p: Points, centre: tuple[float, float], sigma: tuple[float, float], axes: tuple[int, int]
) -> Scalars:
    a, b = ((p[:, axis] - c) / s for axis, c, s in zip(axes, centre, sigma, strict=True))
    return np.asarray(np.exp(-(a**2 + b**2) / 2))


def _head(p: Points) -> Points:
    dense = p * (1 - 0.14 * (1 + p[:, 2:]) * (1 - p**2))  # smaller cells in the middle of the face
    ball = _ball(
        np.stack([dense[:, 0], dense[:, 1] - 0.08 * (1 - p[:, 1] ** 2), p[:, 2]], axis=-1), 0.05
    )
    up, front = ball[:, 1], np.clip(ball[:, 2], 0, 1)
    low = np.clip(-up, 0, 1) ** 1.6
    x = 0.077 * ball[:, 0] * (1 - 0.30 * low)
    y = 0.440 + np.where(up > 0, 0.118, 0.112) * up
    z = 0.018 + np.where(ball[:, 2] > 0, 0.090, 0.105) * ball[:, 2]
    # the skull ends above the nape, the chin juts out
    z += low * (0.035 * np.clip(-ball[:, 2], 0, 1) + 0.010)
    face = np.stack([np.abs(x), y, z], axis=-1)
    z += front * (
        0.017 * _bump(face, (0.0, 0.414), (0.010, 0.009), (0, 1))  # nose: tip
        + 0.011 * _bump(face, (0.0, 0.434), (0.008, 0.018), (0, 1))  # and bridge
        - 0.008 * _bump(face, (0.031, 0.446), (0.013, 0.009), (0, 1))  # eye sockets
        + 0.004 * _bump(face, (0.0, 0.464), (0.040, 0.008), (0, 1))  # brow
        + 0.005 * _bump(face, (0.0, 0.383), (0.017, 0.007), (0, 1))  # lips
        + 0.007 * _bump(face, (0.0, 0.348), (0.018, 0.012), (0, 1))  # chin
    )
    beside = np.clip(np.abs(ball[:, 0]) * 1.5 - 0.5, 0, 1)
    ear = beside * np.clip(1.6 * _bump(face, (0.434, -0.004), (0.020, 0.011), (1, 2)) - 0.4, 0, 1)
    return np.stack([x + np.sign(x) * 0.019 * ear, y, z - 0.012 * ear], axis=-1)


_ARMPIT, _WRIST = TORSO_ROWS - 5, 7 + ARM_ROWS  # rows of the lattice
_PALM_Y: Final = (_ARMPIT + 1, _ARMPIT + 3)  # the palm is two cells thick
_CHIN: Final = TORSO_ROWS + NECK_ROWS
# its box of lattice cells, and its place
PARTS: Final[dict[str, tuple[tuple[range, range, range], Place]]] = {
    "torso": ((range(7), range(TORSO_ROWS), range(8)), _torso),
    "leg": ((range(1, 7), range(-LEG_ROWS, 0), range(8)), _leg),
    "foot": ((range(1, 7), range(-LEG_ROWS - 4, -LEG_ROWS), range(16)), _foot),
    "arm": ((range(7, _WRIST), range(_ARMPIT, _ARMPIT + 4), range(2, 6)), _arm),
    "palm": ((range(_WRIST, _WRIST + 7), range(*_PALM_Y), range(-1, 10)), _palm),
    "thumb": (
        (range(_WRIST + 1, _WRIST + 3), range(*_PALM_Y), range(10, 15)),
        _finger((0.733, 0.215, 0.006), (0.776, 0.207, 0.056), 0.0115, 2),
    ),
    "neck": ((range(4), range(TORSO_ROWS, _CHIN), range(2, 6)), _neck),
    "head": ((range(6), range(_CHIN, _CHIN + 14), range(-1, 11)), _head),
}
for _name, _knuckle, _tip, _radius, _z in (  # (x, z) m, radius m, depth in the lattice
    ("index", (0.788, -0.0005), (0.858, 0.006), 0.0090, 8),
    ("middle", (0.792, -0.021), (0.872, -0.020), 0.0092, 5),
    ("ring", (0.790, -0.041), (0.864, -0.044), 0.0088, 2),
    ("pinky", (0.782, -0.060), (0.840, -0.067), 0.0080, -1),
):
    _tube = _finger((_knuckle[0], 0.217, _knuckle[1]), (_tip[0], 0.210, _tip[1]), _radius, 0)
    PARTS[_name] = (range(_WRIST + 7, _WRIST + 14), range(*_PALM_Y), range(_z, _z + 2)), _tube


class Surface(NamedTuple):
    """A triangle mesh, closed and outward-oriented, with the part that every vertex comes from."""

    vertices: Points  # (6890, 3) m
    faces: Indices  # (13776, 3)
    part: NDArray[np.str_]  # (6890,) a key of PARTS
    mirror: Indices  # (6890,) vertex i is the mirror image of vertex mirror[i]


def _half_quads() -> tuple[Indices, Indices]:
    """Outer faces of the left half's cells: lattice points (H, 3), and quads (Q, 4) into them, seen
    anticlockwise.
    """
    cells = np.concatenate(
        [np.stack(np.meshgrid(*box), axis=-1).reshape(-1, 3) for box, _ in PARTS.values()]
    )
    corner = cells.min(axis=0) - 1
    filled = np.zeros(cells.max(axis=0) + 2 - corner, bool)
    filled[tuple((cells - corner).T)] = True
    filled[-1 - corner[0]] = filled[-corner[0]]  # the other half begins at x = 0: no face there
    quads = []
    for axis in range(3):
        square = np.zeros((4, 3), np.int64)
        square[1:3, (axis + 1) % 3] = 1
        square[2:4, (axis + 2) % 3] = 1
        step = np.diff(filled.astype(np.int8), axis=axis)
        for sign, ring in ((-1, square), (1, square[::-1])):
            faces = np.argwhere(step == sign)
            faces[:, axis] += 1
            quads.append(faces[:, None] + ring)
    corners = np.concatenate(quads) + corner
    corners = corners[(corners[..., 0] >= 0).all(axis=1)]
    points, index = np.unique(corners.reshape(-1, 3), axis=0, return_inverse=True)
    return points, index.reshape(-1, 4)


def _place(points: Indices) -> tuple[Points, NDArray[np.str_], NDArray[np.bool_]]:
    """Lattice points -> positions, part names, and whether parts meet there (the mean of their
    positions is taken).
    """
    total, count = np.zeros(points.shape), np.zeros(len(points))
    name = np.full(len(points), "", "U8")
    for key, (box, place) in PARTS.items():
        low, high = np.array([(axis.start, axis.stop) for axis in box]).T
        inside = ((points >= low) & (points <= high)).all(axis=1)
        if low[0] == 0:
            # a part that crosses the middle plane is twice as wide as its left half
            low[0] = -high[0]
        total[inside] += place(2.0 * (points[inside] - low) / (high - low) - 1)
        count[inside] += 1
        name[inside] = key
    placed = total / count[:, None]
    placed[points[:, 0] == 0, 0] = 0.0
    return placed, name, count > 1


def neighbour_mean(polygons: Indices, n: int) -> sparse.csr_matrix:
    """(n, n) with rows that sum to 1: the mean over neighbours along the edges of (P, corners)
    polygons.
    """
    a, b = polygons.ravel(), np.roll(polygons, -1, axis=1).ravel()
    links = sparse.coo_matrix(
        (np.ones(2 * len(a)), (np.r_[a, b], np.r_[b, a])), shape=(n, n)
    ).tocsr()
    links.data[:] = 1.0
    return sparse.diags(1 / np.asarray(links.sum(axis=1)).ravel()) @ links


def _smooth(vertices: Points, seams: NDArray[np.bool_], neighbours: sparse.csr_matrix) -> Points:
    """Even out the surface where parts meet; far from a seam it stays as modelled.

    Taubin's smoothing ("A signal processing approach to fair surface design", 1995): every step
    inwards is followed by one outwards, so that limbs do not get thinner.
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
    a, b, c, d = vertices[quads.T]
    ac = np.linalg.norm(a - c, axis=1) <= np.linalg.norm(b - d, axis=1)
    first = np.where(ac[:, None], quads[:, [0, 1, 2]], quads[:, [0, 1, 3]])
    second = np.where(ac[:, None], quads[:, [0, 2, 3]], quads[:, [1, 2, 3]])
    return np.concatenate([first, second])


def _numbered(skin: Surface) -> Surface:
    """The same surface with its landmarks at SMPL's vertex numbers."""
    v, part = skin.vertices, skin.part

    def extreme(where: NDArray[np.bool_], score: Scalars) -> int:
        return int(np.flatnonzero(where)[score[where].argmax()])

    def near(*place: float) -> int:
        return int(((v - place) ** 2).sum(axis=1).argmin())

    landmarks = {
        "nose": extreme((part == "head") & (v[:, 0] == 0), v[:, 2]),
        "leye": near(0.032, 0.446, 0.095),
        "lear": extreme(part == "head", v[:, 0]),
        "lbigtoe": near(0.085, -1.150, 0.165),
        "lsmalltoe": near(0.152, -1.152, 0.135),
        "lheel": near(0.096, -1.145, -0.085),
        "lthumb": extreme((part == "thumb") & (v[:, 0] > 0), v[:, 2]),
    }
    landmarks |= {
        f"l{name}": extreme(part == name, v[:, 0]) for name in ("index", "middle", "ring", "pinky")
    }
    landmarks |= {
        f"r{name[1:]}": int(skin.mirror[k]) for name, k in landmarks.items() if name.startswith("l")
    }
    order = np.arange(len(v))  # new number -> old number
    for name, old in landmarks.items():
        new, now = VERTEX_IDS[name], int(np.flatnonzero(order == old)[0])
        order[[new, now]] = order[[now, new]]
    rank = np.argsort(order)  # old number -> new number
    return Surface(v[order], rank[skin.faces], part[order], rank[skin.mirror[order]])


def surface() -> Surface:
    """Build the whole body at rest, right side mirrored from the left, with landmarks at SMPL's
    vertex numbers.
    """
    points, quads = _half_quads()
    placed, part, seams = _place(points)
    middle, n = points[:, 0] == 0, len(points)
    # half's vertex -> its image
    mirror_of = np.where(middle, np.arange(n), n + np.cumsum(~middle) - 1)
    other = np.flatnonzero(~middle)
    both = np.concatenate([quads, mirror_of[quads][:, ::-1]])
    vertices = np.concatenate([placed, placed[other] * MIRROR])
    vertices = _smooth(
        vertices, np.concatenate([seams, seams[other]]), neighbour_mean(both, len(vertices))
    )
    half = _triangles(quads, vertices)
    faces = np.concatenate([half, mirror_of[half][:, ::-1]])
    return _numbered(
        Surface(
            vertices, faces, np.concatenate([part, part[other]]), np.concatenate([mirror_of, other])
        )
    )

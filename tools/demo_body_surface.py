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
TORSO_ROWS: Final = 29
LEG_ROWS: Final = 37
ARM_ROWS: Final = 26
NECK_ROWS: Final = 4


def _profile(table: str) -> Callable[[Scalars], tuple[Scalars, ...]]:
    """Lines of (position, value, value, ...) -> a monotone interpolation of each value over the
    position.
    """
    positions, *columns = np.loadtxt(table.splitlines(), unpack=True)
    curves = [PchipInterpolator(positions, column) for column in columns]

    def interpolate(t: Scalars) -> tuple[Scalars, ...]:
        inside = np.clip(t, positions[0], positions[-1])
        return tuple(curve(inside) for curve in curves)

    return interpolate


def _points(x: Scalars, y: Scalars, z: Scalars) -> Points:
    return np.stack([x, y, z], axis=-1)


def _share(t: Scalars) -> Scalars:
    """-1..1 of the lattice -> 0..1."""
    return (t + 1) / 2


def _unit(t: Scalars) -> Scalars:
    return np.clip(t, 0, 1)


def _disc(u: Scalars, v: Scalars, squareness: float = 0.0) -> tuple[Scalars, Scalars]:
    """The square [-1, 1]^2 -> the unit disc, edges to the circle; squareness 1 leaves the square as
    it is.
    """
    x = u * np.sqrt(1 - v**2 / 2)
    y = v * np.sqrt(1 - u**2 / 2)
    return x + squareness * (u - x), y + squareness * (v - y)


def _ball(p: Points, squareness: float = 0.0) -> Points:
    """The cube [-1, 1]^3 -> the unit ball, faces to the sphere."""
    x, y, z = (p**2).T
    along_x = 1 - y / 2 - z / 2 + y * z / 3
    along_y = 1 - z / 2 - x / 2 + z * x / 3
    along_z = 1 - x / 2 - y / 2 + x * y / 3
    ball = p * np.sqrt(_points(along_x, along_y, along_z))
    return np.asarray(ball + squareness * (p - ball))


# Heights from the crotch to the neck: half width, front and back (z), m.
_TORSO = _profile(
    """
    # height  half_width  front    back
       -0.37       0.173  0.092  -0.116
       -0.30       0.177  0.097  -0.128
       -0.22       0.169  0.102  -0.119
       -0.12       0.146  0.100  -0.088
       -0.04       0.136  0.096  -0.082
        0.06       0.150  0.108  -0.094
        0.14       0.166  0.116  -0.108
        0.20       0.172  0.100  -0.112
        0.26       0.150  0.062  -0.100
        0.30       0.090  0.035  -0.080
    """
)


def _torso(p: Points) -> Points:
    u, v, w = p.T
    row = _share(v) * TORSO_ROWS
    # The four rows that the arm grows out of are as high as the shoulder is thick.
    heights = [-0.37, 0.155, 0.272, 0.285]
    y = np.interp(row, [0, TORSO_ROWS - 5, TORSO_ROWS - 1, TORSO_ROWS], heights)
    half_width, front, back = _TORSO(y)
    x, z = _disc(u, w, 0.12)
    depth = (front - back) / 2
    middle = (front + back) / 2
    # The shoulders slope down from the neck, and the collar bones are lower than the nape.
    from_edge = 1 - np.maximum(np.abs(u), np.abs(w))
    slope = 0.028 * from_edge - 0.016 * _unit(w) * (1 - u**2)
    y = y + np.where(row == TORSO_ROWS, slope, 0.0)
    rise = 0.035 * _unit(np.abs(x) * 1.3) ** 2
    groin = np.where(row == 0, rise, 0.0)
    beside = (np.abs(x * half_width) - 0.075) / 0.05
    above = (y - 0.12) / 0.05
    chest = 0.010 * np.exp(-(beside**2 + above**2)) * (z > 0) * z
    furrow = np.exp(-((x * half_width / 0.03) ** 2))
    spine = 0.010 * furrow * (z < 0) * _unit((y + 0.30) / 0.1)
    return _points(half_width * x, y + groin, middle + depth * z + chest + spine)


# Heights from the hip to the ankle: centre (x, z), half width, half depth, m.
_LEG = _profile(
    """
    # height      x       z  half_width  half_depth
      -1.095  0.098  -0.030       0.034       0.042
       -1.03  0.098  -0.032       0.036       0.042
       -0.93  0.100  -0.032       0.050       0.056
       -0.84  0.102  -0.026       0.056       0.063
       -0.76  0.101  -0.008       0.051       0.056
       -0.70  0.100   0.002       0.053       0.058
       -0.62  0.099   0.000       0.061       0.067
       -0.50  0.096  -0.004       0.074       0.084
       -0.41  0.092  -0.008       0.082       0.093
       -0.36  0.091  -0.011       0.082       0.093
    """
)


def _leg(p: Points) -> Points:
    u, v, w = p.T
    y = -1.095 + _share(v) * (1.095 - 0.37)
    x0, z0, width, depth = _LEG(y)
    x, z = _disc(u, w)
    return _points(x0 + width * x, y, z0 + depth * z)


# Length of the foot from heel to toes (z): centre x, half width, height of the instep above the
# sole, m.
_FOOT = _profile(
    """
    # along      x  half_width  instep
     -0.085  0.096       0.033   0.078
      -0.03  0.098       0.037   0.082
       0.03  0.103       0.038   0.072
       0.08  0.110       0.045   0.048
       0.12  0.114       0.047   0.034
      0.175  0.115       0.044   0.024
    """
)


def _foot(p: Points) -> Points:
    x, y, z = _ball(p, 0.35).T
    along = np.interp(z, [-1, 0, 1], [-0.085, 0.032, 0.165])
    x0, width, height = _FOOT(along)
    ahead = _unit(z)
    # The big toe leads: the front edge runs backwards towards the outer side.
    edge = along - 0.022 * ahead**3 * (x + 1) / 2
    toes = 0.006 * ahead**6 * np.cos(2.5 * np.pi * x)
    return _points(x0 + width * x, -1.165 + height * (y + 1) / 2, edge + toes)


# Length of the arm (x): centre y and z, half height, half depth, m.
_ARM = _profile(
    """
    # along      y       z  half_height  half_depth
      0.150  0.216  -0.014        0.062       0.062
      0.200  0.222  -0.016        0.056       0.056
      0.260  0.220  -0.020        0.049       0.051
      0.340  0.217  -0.026        0.045       0.047
      0.440  0.215  -0.030        0.038       0.040
      0.490  0.216  -0.030        0.038       0.043
      0.580  0.218  -0.030        0.032       0.037
      0.690  0.220  -0.030        0.021       0.030
    """
)


def _arm(p: Points) -> Points:
    u, v, w = p.T
    along = 0.160 + _share(u) * (0.690 - 0.160)
    y0, z0, height, depth = _ARM(along)
    z, y = _disc(w, v)
    return _points(along, y0 + height * y, z0 + depth * z)


_PALM = _profile(
    """
    # along  half_width  half_thickness
      0.690       0.027           0.016
      0.720       0.038           0.017
      0.760       0.043           0.015
      0.785       0.042           0.011
    """
)


def _palm(p: Points) -> Points:
    u, v, w = p.T
    t = _share(u)
    along = 0.695 + t * (0.785 - 0.695)
    width, thickness = _PALM(along)
    z, y = _disc(w, v, 0.55)
    along = along + 0.024 * w**2 * (1 - t)  # the heel of the hand is round
    knuckles = 0.008 * (1 - w**2) * _unit(u)
    return _points(along + knuckles, 0.218 + thickness * y, -0.030 + width * z)


def _finger(
    base: tuple[float, float, float], tip: tuple[float, float, float], radius: float, axis: int
) -> Place:
    """A tube from base to tip whose lattice runs along `axis` (0 for fingers, 2 for the thumb),
    with a round end.
    """
    start = np.array(base)
    whole = np.array(tip) - start
    forward = whole / np.linalg.norm(whole)
    up = np.array([0.0, 1.0, 0.0]) - forward[1] * forward
    up /= np.linalg.norm(up)
    side = np.cross(forward, up)

    def place(p: Points) -> Points:
        u, v, w = p.T
        across = w
        if axis == 2:
            across = -u
        a, b = _disc(across, v)
        t = _share(p[:, axis])
        is_tip = t > 1 - 1e-9
        size = radius * np.where(is_tip, 0.62, 1 - 0.2 * t)
        cap = 0.45 * radius * (1 - a**2 - b**2)
        bulge = np.where(is_tip, cap, 0.0)
        along = start + np.outer(t, whole) + np.outer(bulge, forward)
        around = np.outer(a, side) + np.outer(b, up)
        return np.asarray(along + size[:, None] * around)

    return place


def _neck(p: Points) -> Points:
    u, v, w = p.T
    t = _share(v)
    x, z = _disc(u, w)
    width = 0.060 - 0.012 * t
    depth = 0.052 - 0.004 * t
    return _points(width * x, 0.290 + 0.055 * t, -0.021 + 0.017 * t + depth * z)


# Bumps of the face: height, centre (|x|, y) and widths, m.
_FACE: Final = {
    "tip of the nose": (0.017, 0.0, 0.414, 0.010, 0.009),
    "bridge": (0.011, 0.0, 0.434, 0.008, 0.018),
    "eye sockets": (-0.008, 0.031, 0.446, 0.013, 0.009),
    "brow": (0.004, 0.0, 0.464, 0.040, 0.008),
    "lips": (0.005, 0.0, 0.383, 0.017, 0.007),
    "chin": (0.007, 0.0, 0.348, 0.018, 0.012),
}


def _bump(a: Scalars, b: Scalars) -> Scalars:
    return np.asarray(np.exp(-(a**2 + b**2) / 2))


def _head(p: Points) -> Points:
    # Smaller cells in the middle of the face.
    dense = p * (1 - 0.14 * (1 + p[:, 2:]) * (1 - p**2))
    dense[:, 1] -= 0.08 * (1 - p[:, 1] ** 2)
    dense[:, 2] = p[:, 2]
    side, up, ahead = _ball(dense, 0.05).T
    low = _unit(-up) ** 1.6
    x = 0.077 * side * (1 - 0.30 * low)
    y = 0.440 + np.where(up > 0, 0.118, 0.112) * up
    z = 0.018 + np.where(ahead > 0, 0.090, 0.105) * ahead
    # the skull ends above the nape, the chin juts out
    z += low * (0.035 * _unit(-ahead) + 0.010)
    ear = _bump((y - 0.434) / 0.020, (z + 0.004) / 0.011)
    beside = _unit(np.abs(side) * 1.5 - 0.5)
    ear = beside * _unit(1.6 * ear - 0.4)
    relief = np.zeros_like(z)
    for height, centre_x, centre_y, width_x, width_y in _FACE.values():
        across = (np.abs(x) - centre_x) / width_x
        upwards = (y - centre_y) / width_y
        relief += height * _bump(across, upwards)
    z += _unit(ahead) * relief
    return _points(x + np.sign(x) * 0.019 * ear, y, z - 0.012 * ear)


# Rows and columns of the lattice.
_ARMPIT: Final = TORSO_ROWS - 5
_WRIST: Final = 7 + ARM_ROWS
_CHIN: Final = TORSO_ROWS + NECK_ROWS
_PALM_Y: Final = range(_ARMPIT + 1, _ARMPIT + 3)  # the palm is two cells thick
# its box of lattice cells, and its place
PARTS: Final[dict[str, tuple[tuple[range, range, range], Place]]] = {
    "torso": ((range(7), range(TORSO_ROWS), range(8)), _torso),
    "leg": ((range(1, 7), range(-LEG_ROWS, 0), range(8)), _leg),
    "foot": ((range(1, 7), range(-LEG_ROWS - 4, -LEG_ROWS), range(16)), _foot),
    "arm": ((range(7, _WRIST), range(_ARMPIT, _ARMPIT + 4), range(2, 6)), _arm),
    "palm": ((range(_WRIST, _WRIST + 7), _PALM_Y, range(-1, 10)), _palm),
    "thumb": (
        (range(_WRIST + 1, _WRIST + 3), _PALM_Y, range(10, 15)),
        _finger((0.733, 0.215, 0.006), (0.776, 0.207, 0.056), 0.0115, 2),
    ),
    "neck": ((range(4), range(TORSO_ROWS, _CHIN), range(2, 6)), _neck),
    "head": ((range(6), range(_CHIN, _CHIN + 14), range(-1, 11)), _head),
}
# Knuckle and tip (m), radius (m), and depth in the lattice.
_FINGERS: Final = (
    ("index", (0.788, 0.217, -0.0005), (0.858, 0.210, 0.006), 0.0090, 8),
    ("middle", (0.792, 0.217, -0.021), (0.872, 0.210, -0.020), 0.0092, 5),
    ("ring", (0.790, 0.217, -0.041), (0.864, 0.210, -0.044), 0.0088, 2),
    ("pinky", (0.782, 0.217, -0.060), (0.840, 0.210, -0.067), 0.0080, -1),
)
for _name, _knuckle, _tip, _radius, _z in _FINGERS:
    _box = (range(_WRIST + 7, _WRIST + 14), _PALM_Y, range(_z, _z + 2))
    PARTS[_name] = (_box, _finger(_knuckle, _tip, _radius, 0))


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
    boxes = [np.stack(np.meshgrid(*box), axis=-1).reshape(-1, 3) for box, _ in PARTS.values()]
    cells = np.concatenate(boxes)
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
        rings = {-1: square, 1: square[::-1]}
        for sign, ring in rings.items():
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
    total = np.zeros(points.shape)
    count = np.zeros(len(points))
    name = np.full(len(points), "", "U8")
    for key, (box, place) in PARTS.items():
        low, high = np.array([(axis.start, axis.stop) for axis in box]).T
        inside = ((points >= low) & (points <= high)).all(axis=1)
        if low[0] == 0:
            # a part that crosses the middle plane is twice as wide as its left half
            low[0] = -high[0]
        share = 2.0 * (points[inside] - low) / (high - low)
        total[inside] += place(share - 1)
        count[inside] += 1
        name[inside] = key
    placed = total / count[:, None]
    placed[points[:, 0] == 0, 0] = 0.0
    return placed, name, count > 1


def neighbour_mean(polygons: Indices, n: int) -> sparse.csr_matrix:
    """(n, n) with rows that sum to 1: the mean over neighbours along the edges of (P, corners)
    polygons.
    """
    a = polygons.ravel()
    b = np.roll(polygons, -1, axis=1).ravel()
    ends = (np.r_[a, b], np.r_[b, a])
    links = sparse.coo_matrix((np.ones(2 * len(a)), ends), shape=(n, n)).tocsr()
    links.data[:] = 1.0
    n_neighbours = np.asarray(links.sum(axis=1)).ravel()
    return sparse.diags(1 / n_neighbours) @ links


def _smooth(vertices: Points, seams: NDArray[np.bool_], neighbours: sparse.csr_matrix) -> Points:
    """Even out the surface where parts meet; far from a seam it stays as modelled.

    Taubin's smoothing ("A signal processing approach to fair surface design", 1995): every step
    inwards is followed by one outwards, so that limbs do not get thinner.
    """
    amount = seams.astype(float)
    for _ in range(4):
        amount = np.maximum(amount, 0.8 * (neighbours @ amount))
    amount = np.clip(2 * amount, 0, 1)[:, None]
    for _ in range(25):
        for step in (0.60, -0.62):
            vertices = vertices + step * amount * (neighbours @ vertices - vertices)
    return vertices


def _triangles(quads: Indices, vertices: Points) -> Indices:
    """Each quad along its shorter diagonal."""
    a, b, c, d = vertices[quads.T]
    is_short = np.linalg.norm(a - c, axis=1) <= np.linalg.norm(b - d, axis=1)
    is_short = is_short[:, None]
    first = np.where(is_short, quads[:, [0, 1, 2]], quads[:, [0, 1, 3]])
    second = np.where(is_short, quads[:, [0, 2, 3]], quads[:, [1, 2, 3]])
    return np.concatenate([first, second])


def _numbered(skin: Surface) -> Surface:
    """The same surface with its landmarks at SMPL's vertex numbers."""
    v = skin.vertices
    part = skin.part
    x = v[:, 0]
    z = v[:, 2]

    def extreme(is_candidate: NDArray[np.bool_], score: Scalars) -> int:
        candidates = np.flatnonzero(is_candidate)
        return int(candidates[score[candidates].argmax()])

    def near(*place: float) -> int:
        squared_distance = ((v - place) ** 2).sum(axis=1)
        return int(squared_distance.argmin())

    is_head = part == "head"
    left = {
        "eye": near(0.032, 0.446, 0.095),
        "ear": extreme(is_head, x),
        "bigtoe": near(0.085, -1.150, 0.165),
        "smalltoe": near(0.152, -1.152, 0.135),
        "heel": near(0.096, -1.145, -0.085),
        "thumb": extreme((part == "thumb") & (x > 0), z),
    }
    for name in ("index", "middle", "ring", "pinky"):
        left[name] = extreme(part == name, x)
    landmarks = {"nose": extreme(is_head & (x == 0), z)}
    landmarks |= {f"l{name}": old for name, old in left.items()}
    landmarks |= {f"r{name}": int(skin.mirror[old]) for name, old in left.items()}

    order = np.arange(len(v))  # new number -> old number
    for name, old in landmarks.items():
        new = VERTEX_IDS[name]
        now = int(np.flatnonzero(order == old)[0])
        order[[new, now]] = order[[now, new]]
    rank = np.argsort(order)  # old number -> new number
    return Surface(v[order], rank[skin.faces], part[order], rank[skin.mirror[order]])


def surface() -> Surface:
    """Build the whole body at rest, right side mirrored from the left, with landmarks at SMPL's
    vertex numbers.
    """
    points, quads = _half_quads()
    placed, part, seams = _place(points)
    is_beside = points[:, 0] != 0
    other = np.flatnonzero(is_beside)
    image = np.arange(len(points))  # half's vertex -> its image
    image[other] = len(points) + np.arange(len(other))
    both = np.concatenate([quads, image[quads][:, ::-1]])
    vertices = np.concatenate([placed, placed[other] * MIRROR])
    seams = np.concatenate([seams, seams[other]])
    vertices = _smooth(vertices, seams, neighbour_mean(both, len(vertices)))

    half = _triangles(quads, vertices)
    faces = np.concatenate([half, image[half][:, ::-1]])
    part = np.concatenate([part, part[other]])
    mirror = np.concatenate([image, other])
    return _numbered(Surface(vertices, faces, part, mirror))

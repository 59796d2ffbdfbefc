"""The homography between two images from optical flow: motion of camera and person.  crops ->
[homography] -> features

As in You2Me's motion feature (Ng et al., CVPR 2020) and in "Uncertainty-Aware Human Mesh Recovery
from Video by Learning Part-Based 3D Dynamics" (Lee and Lee, ICCV 2021): the flow on a grid of 17 x
17 points, and the 3 x 3 matrix that explains it best. They use Brox's flow and a plain DLT. Here:
dense inverse search (Kroeger et al., ECCV 2016) with a forward-backward check, and a reweighted DLT
with Hartley's normalisation (PAMI 1997).

The stream `homography` calls `between`: it finds points and their positions in the other image
(`_correspondences`), and fits a homography to them (`fit`).

Points are (x, y) in [-1, 1] over the image; (-1, -1) is its upper left corner. A homography maps
points of the earlier image to the later one; its last element is 1. Results depend on the two
images only; other builds of OpenCV, and other CPUs, may round differently.
"""

from __future__ import annotations

import functools
import threading
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.people.skeletons import Array, Doubles, Float32s, Ints

Bytes = NDArray[np.uint8]

GRID: Final = 17  # points on an axis, from 10% to 90% of it
# finest scale of DIS (dense inverse search), its preset's: half the resolution. 0 is the full
# resolution, and takes 5 times as long
FINEST_SCALE: Final = 1
LEAST_SIDE: Final = 92  # px: the smallest height and width for which DIS computes that scale
LARGEST_ERROR: Final = 1.0  # px between a point and its position after forward and backward flow
LEAST_POINTS: Final = 40  # of 289; with fewer, the homography is unknown
ROUNDS: Final = 10  # times that the points are weighted again
RESIDUAL: Final = 0.01  # a residual that halves a point's weight: 1.1 px in an image of 224
SMALLEST_SINGULAR: Final = 1e-4  # second smallest singular value / largest
SMALLEST_LAST: Final = 1e-6  # |h33| of a homography of norm 1
LARGEST_MOVE: Final = 1.0  # most that a corner may move: half the image
CORNERS: Final = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]], np.float64)

# `by_scale`: finest scale -> the thread's OpenCV object
_OF_THIS_THREAD: Final = threading.local()


def between(previous: Array, current: Array) -> tuple[Doubles, bool]:
    """Estimate the homography (3, 3) between two images; also return whether it is known.

    The images are uint8 and of one size, (H, W) grey or (H, W, 3) RGB.

    Equal images give exactly the identity, known, even without texture. Degenerate pairs, and
    images smaller than LEAST_SIDE, give the identity, unknown. Raises ValueError for other arrays.
    """
    first = grey(previous)
    second = grey(current)
    if first.shape != second.shape:
        raise ValueError(f"expected two images of one size, found {first.shape} and {second.shape}")
    if min(first.shape) < LEAST_SIDE:
        return np.eye(3), False
    source, target = _correspondences(first, second)
    return fit(source, target)


def grey(picture: Array) -> Bytes:
    """Convert an image (H, W, 3) RGB or (H, W) grey, uint8, to grey (H, W).

    Grey is 0.299 R + 0.587 G + 0.114 B, rounded by OpenCV's integer arithmetic: rare ties round
    down instead of up or the reverse, but equally on every machine. Raises ValueError for other
    arrays.
    """
    import cv2

    is_grey = picture.ndim == 2
    is_rgb = picture.ndim == 3 and picture.shape[2] == 3
    if picture.dtype != np.uint8 or not (is_grey or is_rgb):
        raise ValueError(
            f"expected (H, W) or (H, W, 3) uint8, found {picture.shape} {picture.dtype}"
        )
    if is_rgb:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    return np.ascontiguousarray(picture)


def _dense_flow(previous: Bytes, current: Bytes, finest_scale: int = FINEST_SCALE) -> Float32s:
    """Optical flow by dense inverse search: motion (H, W, 2) px of each pixel of `previous`.

    Both images are (H, W) uint8.
    """
    import cv2

    # OpenCV's objects have buffers, so each thread has its own
    by_scale: dict[int, Any] = vars(_OF_THIS_THREAD).setdefault("by_scale", {})
    if finest_scale not in by_scale:
        search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        search.setFinestScale(finest_scale)
        by_scale[finest_scale] = search
    # An array instead of None would start the search, and each result would depend on the one
    # before.
    flow = by_scale[finest_scale].calc(previous, current, None)
    return np.asarray(flow, np.float32)


@functools.lru_cache(maxsize=16)
def grid(height: int, width: int) -> Ints:
    """Pixels (x, y) of the grid on which flow is read, (289, 2), row by row.

    They are nearest to 17 x 17 points from 10% to 90% of the image.
    """
    share = np.linspace(0.1, 0.9, GRID)
    columns = np.rint(share * width - 0.5)
    rows = np.rint(share * height - 0.5)
    x, y = np.meshgrid(columns, rows)
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    pixels = points.astype(np.int64)
    pixels.flags.writeable = False  # it is cached
    return pixels


def normalise(pixels: Array, height: int, width: int) -> Doubles:
    """Convert pixels (..., 2), x and y, to [-1, 1] over the image.

    Pixel (0, 0) has its centre half a pixel from the image's corner.
    """
    half = (width / 2, height / 2)
    return np.asarray((pixels + 0.5) / half - 1, np.float64)


def _correspondences(previous: Bytes, current: Bytes) -> tuple[Doubles, Doubles]:
    """Points of the `grid` in the earlier image, (P, 2), and their positions in the later, (P, 2).

    Returns only points inside the image for which forward and backward flow agree within a pixel.
    The backward flow is computed at half the resolution of the forward flow, in a quarter of the
    time; its error is 0.1 px.
    """
    height, width = previous.shape
    start = grid(height, width)
    size = np.array([width, height], np.float64)

    flow = _dense_flow(previous, current)
    x, y = start.T
    forward = flow[y, x].astype(np.float64)
    end = start + forward
    coarse_flow = _dense_flow(current, previous, FINEST_SCALE + 1)
    backward = _sample(coarse_flow, end)

    in_image = (end >= 0) & (end <= size - 1)
    is_inside = in_image.all(axis=1)
    squared_error = np.square(forward + backward).sum(axis=1)
    is_good = is_inside & (squared_error < LARGEST_ERROR**2)
    source = normalise(start, height, width)
    target = source + forward / (size / 2)  # equal where nothing moved, to the bit
    return source[is_good], target[is_good]


def _sample(field: Float32s, points: Doubles) -> Doubles:
    """Sample a field (H, W, C) at points (P, 2) x, y px, bilinearly, (P, C).

    Points outside have the values of the border.
    """
    height, width = field.shape[:2]
    last = (width - 1, height - 1)
    x, y = np.clip(points, 0, last).T
    left = np.minimum(x.astype(np.int64), width - 2)
    top = np.minimum(y.astype(np.int64), height - 2)
    right = left + 1
    bottom = top + 1

    right_share = (x - left)[:, None]
    left_share = 1 - right_share
    bottom_share = (y - top)[:, None]
    upper = field[top, left] * left_share + field[top, right] * right_share
    lower = field[bottom, left] * left_share + field[bottom, right] * right_share
    values = upper * (1 - bottom_share) + lower * bottom_share
    return np.asarray(values, np.float64)


def transfer(homography: Doubles, points: Doubles) -> Doubles:
    """Map points (..., 2) by a homography (3, 3); infinite on the line that maps to infinity."""
    mapped = points @ homography[:, :2].T + homography[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(mapped[..., :2] / mapped[..., 2:], np.float64)


def fit(source: Doubles, target: Doubles) -> tuple[Doubles, bool]:
    """Fit a homography (3, 3) to points (P, 2) and their positions afterwards, (P, 2).

    Also returns whether it is known. The method is the direct linear transform with Hartley's
    normalisation of both point sets, then ROUNDS in which a squared residual has the weight
    1 / (1 + (r / 0.01)^2), where r is the distance from the mapped point to the target.

    The homography is unknown, and the identity is returned, for fewer than 40 points; for a system
    whose second smallest singular value is below 1e-4 of the largest, as for points on a line; for
    h33 below 1e-6 of the norm; and if a corner moves by more than 1. If no point moved, it is
    exactly the identity. Non-finite points are ignored. Raises ValueError for other shapes.
    """
    source = np.asarray(source, np.float64)
    target = np.asarray(target, np.float64)
    if source.shape != (len(source), 2) or target.shape != source.shape:
        raise ValueError(f"expected (P, 2) and (P, 2), found {source.shape} and {target.shape}")
    is_finite = np.isfinite(source).all(axis=1)
    is_finite &= np.isfinite(target).all(axis=1)
    source = source[is_finite]
    target = target[is_finite]
    if len(source) < LEAST_POINTS:
        return np.eye(3), False

    singular, homography = _solve_reweighted(source, target)
    h33 = homography[2, 2]
    is_degenerate = singular[1] < SMALLEST_SINGULAR * singular[-1]
    if is_degenerate or abs(h33) < SMALLEST_LAST * np.linalg.norm(homography):
        return np.eye(3), False

    homography /= h33
    moves = np.linalg.norm(transfer(homography, CORNERS) - CORNERS, axis=1)
    if not (moves <= LARGEST_MOVE).all():
        return np.eye(3), False
    if (source == target).all():
        return np.eye(3), True
    return homography, True


def _solve_reweighted(source: Doubles, target: Doubles) -> tuple[Doubles, Doubles]:
    """Solve for the homography (3, 3), of any scale, between finite points (P, 2) and (P, 2).

    Also returns the singular values (9,) of the last system, ascending.
    """
    from_source = _hartley(source)
    from_target = _hartley(target)
    to_target = np.linalg.inv(from_target)
    system = _System(transfer(from_source, source), transfer(from_target, target))
    homogeneous = _append_one(source)
    weights = np.ones(len(source))
    for _ in range(ROUNDS + 1):
        singular, solution = system.solve(weights)
        homography = to_target @ solution @ from_source
        mapped = homogeneous @ homography.T
        depth = mapped[:, 2:]
        scaled_residual = mapped[:, :2] - target * depth  # times the depth
        residual = scaled_residual / RESIDUAL
        # 1 / (1 + (r / 0.01)^2), with the squared depth above and below: it may be 0
        squared_residual = np.square(residual).sum(axis=1)
        squared_depth = np.square(depth[:, 0]) + np.finfo(float).tiny
        weights = squared_depth / (squared_depth + squared_residual)
    return singular, homography


def _append_one(points: Doubles) -> Doubles:
    """(P, 2) -> (P, 3): homogeneous coordinates."""
    return np.column_stack([points, np.ones(len(points))])


def _hartley(points: Doubles) -> Doubles:
    """Hartley's normalisation of points (P, 2), as a matrix (3, 3).

    It moves their centre to 0, and scales their mean distance from it to sqrt(2).
    """
    centre = points.mean(axis=0)
    distance = np.linalg.norm(points - centre, axis=1).mean()
    scale = 1.0  # a single point is degenerate with any scale
    if distance > 0:
        scale = np.sqrt(2) / distance
    similarity = np.diag([scale, scale, 1.0])
    similarity[:2, 2] = -scale * centre
    return similarity


class _System:
    """The direct linear transform of (P, 2) points: two rows per point, solved for any weights.

    Of source points s = (x, y, 1) and target points (x', y') they are (s, 0, -x' s), (0, s, -y' s).
    Instead of the (2 P, 9) rows A it keeps the parts of A^T W A (9, 9): sums over points of w, w
    x', w y' and w (x'^2 + y'^2) times the products of (x, y, 1) with itself. An SVD of A takes ten
    times as long.
    """

    def __init__(self, source: Doubles, target: Doubles) -> None:
        homogeneous = _append_one(source)
        products = homogeneous[:, :, None] * homogeneous[:, None]
        self._products = products.reshape(-1, 9)
        squared = np.square(target).sum(axis=1)
        ones = np.ones(len(target))
        self._factors = np.stack([ones, *target.T, squared])

    def solve(self, weights: Doubles) -> tuple[Doubles, Doubles]:
        """Solve the system with weights (P,) of the squared residuals.

        Returns the singular values (9,) of the weighted rows, ascending, and the solution (3, 3).
        """
        sums = (self._factors * weights) @ self._products
        plain, x, y, squared = sums.reshape(4, 3, 3)
        # the lower triangle of the rows' products, in blocks of s s^T
        product = np.zeros((9, 9))
        product[:3, :3] = plain
        product[3:6, 3:6] = plain
        product[6:, :3] = -x
        product[6:, 3:6] = -y
        product[6:, 6:] = squared

        values, vectors = np.linalg.eigh(product)  # reads the lower triangle
        singular = np.sqrt(np.maximum(values, 0))
        return singular, vectors[:, 0].reshape(3, 3)

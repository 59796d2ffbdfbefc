"""The homography between two images from optical flow: motion of camera and person.  crops ->
[homography] -> features

As in You2Me's motion feature (Ng et al., CVPR 2020) and in "Uncertainty-Aware Human Mesh Recovery
from Video by Learning Part-Based 3D Dynamics" (Lee and Lee, ICCV 2021): the flow on a grid of 17 x
17 points, and the 3 x 3 matrix that explains it best. They use Brox's flow and a plain DLT. Here:
dense inverse search (Kroeger et al., ECCV 2016) with a forward-backward check, and a reweighted DLT
with Hartley's normalisation (PAMI 1997).

Points are (x, y) in [-1, 1] over the image; (-1, -1) is its upper left corner. A homography maps
points of the earlier image to the later one; its last element is 1. Results depend on the two
images only; other builds of OpenCV, and other CPUs, may round differently.
"""

from __future__ import annotations

import functools
import threading
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.skeletons import Doubles, Ints

Bytes = NDArray[np.uint8]

GRID: Final = 17  # points on an axis, from 10% to 90% of it
# of DIS, its preset's: half the resolution. 0 is full and takes 5 times as long
FINEST_SCALE: Final = 1
LEAST_SIDE: Final = 92  # px: the smallest height and width for which DIS computes that scale
LARGEST_ERROR: Final = 1.0  # px between a point and its position after forward and backward flow
LEAST_POINTS: Final = 40  # of 289; with fewer, the homography is unknown
ROUNDS: Final = 10  # of reweighting
RESIDUAL: Final = 0.01  # that halves a point's weight: 1.1 px of 224
SMALLEST_SINGULAR: Final = 1e-4  # second smallest singular value / largest
SMALLEST_LAST: Final = 1e-6  # |h33| of a homography of norm 1
LARGEST_MOVE: Final = 1.0  # of a corner: half the image
CORNERS: Final = np.array([[-1, -1], [1, -1], [-1, 1], [1, 1]], np.float64)

_OF_THIS_THREAD: Final = threading.local()


def between(previous: NDArray[Any], current: NDArray[Any]) -> tuple[Doubles, bool]:
    """Two uint8 images of one size, (H, W) grey or (H, W, 3) RGB -> (3, 3), and whether it is
    known.

    Equal images give exactly the identity, known, even without texture. Degenerate pairs, and
    images smaller than LEAST_SIDE, give the identity, unknown. Raises ValueError for other arrays.
    """
    first = grey(previous)
    second = grey(current)
    if first.shape != second.shape:
        raise ValueError(f"expected two images of one size, found {first.shape} and {second.shape}")
    if min(first.shape) < LEAST_SIDE:
        return np.eye(3), False
    return fit(*_correspondences(first, second))


def grey(picture: NDArray[Any]) -> Bytes:
    """(H, W, 3) RGB or (H, W) grey uint8 -> (H, W): 0.299 R + 0.587 G + 0.114 B, rounded. Raises
    ValueError.

    OpenCV's integer arithmetic: a rare tie rounds the other way, but equally everywhere.
    """
    if (
        picture.dtype != np.uint8
        or picture.ndim not in (2, 3)
        or picture.shape[2:] not in ((), (3,))
    ):
        raise ValueError(
            f"expected (H, W) or (H, W, 3) uint8, found {picture.shape} {picture.dtype}"
        )
    return np.ascontiguousarray(
        picture if picture.ndim == 2 else cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    )


def _dense_flow(
    previous: Bytes, current: Bytes, finest_scale: int = FINEST_SCALE
) -> NDArray[np.float32]:
    """Two (H, W) uint8 images -> (H, W, 2) px: motion of each pixel of the earlier one. Dense
    inverse search.
    """
    # objects have buffers: one a thread
    by_scale: dict[int, Any] = vars(_OF_THIS_THREAD).setdefault("by_scale", {})
    if finest_scale not in by_scale:
        by_scale[finest_scale] = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        by_scale[finest_scale].setFinestScale(finest_scale)
    # An array instead of None would start the search, and each result would depend on the one
    # before.
    return np.asarray(by_scale[finest_scale].calc(previous, current, None), np.float32)


@functools.lru_cache(maxsize=16)
def grid(height: int, width: int) -> Ints:
    """(289, 2) x and y of the pixels nearest to 17 x 17 points from 10% to 90% of the image, row by
    row.
    """
    share = np.linspace(0.1, 0.9, GRID)
    x, y = np.meshgrid(np.rint(share * width - 0.5), np.rint(share * height - 0.5))
    pixels = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.int64)
    pixels.flags.writeable = False  # it is cached
    return pixels


def normalise(pixels: NDArray[Any], height: int, width: int) -> Doubles:
    """(..., 2) x and y of pixels -> [-1, 1] over the image: a pixel's centre is half a pixel from
    its corner.
    """
    return np.asarray((pixels + 0.5) / (width / 2, height / 2) - 1, np.float64)


def _correspondences(previous: Bytes, current: Bytes) -> tuple[Doubles, Doubles]:
    """Two (H, W) uint8 images -> (P, 2) points of the `grid`, (P, 2) their positions in the later
    image.

    Keeps points inside the image for which forward and backward flow agree within a pixel. The
    backward flow has half the resolution, for a quarter of the time; its error is 0.1 px.
    """
    height, width = previous.shape
    start = grid(height, width)
    size = np.array([width, height], np.float64)
    moved = _dense_flow(previous, current)[start[:, 1], start[:, 0]].astype(np.float64)
    end = start + moved
    back = _sample(_dense_flow(current, previous, FINEST_SCALE + 1), end)
    inside = ((end >= 0) & (end <= size - 1)).all(axis=1)
    good = inside & (np.square(moved + back).sum(axis=1) < LARGEST_ERROR**2)
    source = normalise(start, height, width)
    # equal where nothing moved, to the bit
    return source[good], (source + moved / (size / 2))[good]


def _sample(field: NDArray[np.float32], at: Doubles) -> Doubles:
    """(H, W, C) and (P, 2) x, y px -> (P, C), bilinear; outside the image, its border's values."""
    height, width = field.shape[:2]
    x, y = np.clip(at, 0, (width - 1, height - 1)).T
    left = np.minimum(x.astype(np.int64), width - 2)
    top = np.minimum(y.astype(np.int64), height - 2)
    right_share = (x - left)[:, None]
    low_share = (y - top)[:, None]
    upper = field[top, left] * (1 - right_share) + field[top, left + 1] * right_share
    lower = field[top + 1, left] * (1 - right_share) + field[top + 1, left + 1] * right_share
    return np.asarray(upper * (1 - low_share) + lower * low_share, np.float64)


def transfer(homography: Doubles, points: Doubles) -> Doubles:
    """(3, 3) and (..., 2) -> (..., 2): the mapped points; infinite on the line that maps to
    infinity.
    """
    mapped = points @ homography[:, :2].T + homography[:, 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(mapped[..., :2] / mapped[..., 2:], np.float64)


def fit(source: Doubles, target: Doubles) -> tuple[Doubles, bool]:
    """(P, 2) points and their positions afterwards -> (3, 3), and whether it is known.

    Direct linear transform with Hartley's normalisation of both point sets, then ROUNDS in which a
    squared residual has the weight 1 / (1 + (r / 0.01)^2), r the distance from the mapped point to
    the target.

    The identity, unknown: fewer than 40 points; a system whose second smallest singular value is
    below 1e-4 of the largest, as for points on a line; h33 below 1e-6 of the norm; a corner that
    moves by more than 1. Non-finite points are ignored. Exactly the identity if no point moved.
    Raises ValueError for other shapes.
    """
    source = np.asarray(source, np.float64)
    target = np.asarray(target, np.float64)
    if source.shape != (len(source), 2) or target.shape != source.shape:
        raise ValueError(f"expected (P, 2) and (P, 2), found {source.shape} and {target.shape}")
    used = np.isfinite(source).all(axis=1) & np.isfinite(target).all(axis=1)
    source = source[used]
    target = target[used]
    if len(source) < LEAST_POINTS:
        return np.eye(3), False
    from_source = _hartley(source)
    from_target = _hartley(target)
    to_target = np.linalg.inv(from_target)
    system = _System(transfer(from_source, source), transfer(from_target, target))
    homogeneous = np.concatenate([source, np.ones((len(source), 1))], axis=1)
    weights = np.ones(len(source))
    for _ in range(ROUNDS + 1):
        singular, solution = system.solve(weights)
        homography = to_target @ solution @ from_source
        mapped = homogeneous @ homography.T
        # 1 / (1 + (r / 0.01)^2), times its square above and below: it may be 0
        depth = mapped[:, 2:]
        squared = np.square((mapped[:, :2] - target * depth) / RESIDUAL).sum(axis=1)
        near = np.square(depth[:, 0]) + np.finfo(float).tiny
        weights = near / (near + squared)
    last = abs(homography[2, 2])
    if singular[1] < SMALLEST_SINGULAR * singular[-1] or last < SMALLEST_LAST * np.linalg.norm(
        homography
    ):
        return np.eye(3), False
    homography /= homography[2, 2]
    moves = np.linalg.norm(transfer(homography, CORNERS) - CORNERS, axis=1)
    if not (moves <= LARGEST_MOVE).all():
        return np.eye(3), False
    return (np.eye(3) if (source == target).all() else homography), True


def _hartley(points: Doubles) -> Doubles:
    """(P, 2) -> (3, 3): the similarity that moves their centre to 0 and their mean distance from it
    to sqrt(2).
    """
    centre = points.mean(axis=0)
    distance = np.linalg.norm(points - centre, axis=1).mean()
    # a single point is degenerate with any scale
    scale = np.sqrt(2) / distance if distance > 0 else 1.0
    return np.array([[scale, 0, -scale * centre[0]], [0, scale, -scale * centre[1]], [0, 0, 1]])


class _System:
    """The direct linear transform of (P, 2) points: two rows per point, solved for any weights.

    Instead of the (2 P, 9) rows A it keeps the parts of A^T W A (9, 9): sums over points of w, w
    x', w y' and w (x'^2 + y'^2) times the products of (x, y, 1) with itself. An SVD of A takes ten
    times as long.
    """

    def __init__(self, source: Doubles, target: Doubles) -> None:
        homogeneous = np.concatenate([source, np.ones((len(source), 1))], axis=1)
        self._products = (homogeneous[:, :, None] * homogeneous[:, None]).reshape(-1, 9)
        self._factors = np.stack([np.ones(len(target)), *target.T, np.square(target).sum(axis=1)])

    def solve(self, weights: Doubles) -> tuple[Doubles, Doubles]:
        """(P,) of squared residuals -> (9,) singular values of the weighted rows, ascending; (3, 3)
        the solution.
        """
        plain, x, y, both = ((self._factors * weights) @ self._products).reshape(4, 3, 3)
        product = np.zeros((9, 9))
        product[:3, :3] = product[3:6, 3:6] = plain
        product[6:, :3] = -x
        product[6:, 3:6] = -y
        product[6:, 6:] = both
        values, vectors = np.linalg.eigh(product)  # reads the lower triangle
        return np.sqrt(np.maximum(values, 0)), vectors[:, 0].reshape(3, 3)

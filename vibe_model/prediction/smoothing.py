"""Gaussian smoothing of predictions in time, within segments of neighbouring frames.  training -> [evaluation]"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from vibe_model.errors import ConfigError
from vibe_model.rotations import nearest_rotations

Floats = NDArray[np.floating[Any]]
Ints = NDArray[np.int64]

REACH: Final = 4  # sigmas: beyond, a Gaussian weighs less than 1 / 2000 of its peak


def smooth(values: Floats, run: Ints, sigma: float) -> Floats:
    """Weighted means in time: (F, ...) and (F,) run numbers -> (F, ...) of the same dtype.

    Only adjacent frames of equal run number mix. sigma: in frames; 0 changes nothing. Raises ConfigError for a sigma
    that is negative or not finite.
    """
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ConfigError(f"smooth: expected a standard deviation in frames, 0 or more, found {sigma}")
    if sigma == 0 or not len(values):
        return values.copy()
    out = np.empty_like(values)
    for start, stop in segments(run):
        n = stop - start
        reach = min(math.ceil(REACH * sigma), n - 1)
        kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
        flat = values[start:stop].reshape(n, -1).astype(np.float64)
        # Frames beyond the ends weigh nothing, above the line and below it.
        sums, weights = (correlate1d(part, kernel, axis=0, mode="constant") for part in (flat, np.ones((n, 1))))
        out[start:stop] = (sums / weights).reshape(n, *values.shape[1:])
    return out


def smooth_rotations(rotmat: Floats, run: Ints, sigma: float) -> Floats:
    """Weighted means of rotations: (F, ..., 3, 3) -> rotations of the same shape and dtype. Raises as `smooth` does.

    The chordal mean: matrices' mean projected onto rotations (Moakher, SIAM J. Matrix Anal. Appl. 2002, prop. 3.3).
    """
    means = smooth(rotmat.astype(np.float64), run, sigma)
    return rotmat.copy() if sigma == 0 else nearest_rotations(means).astype(rotmat.dtype)


def segments(run: Ints) -> Iterator[tuple[int, int]]:
    """[start, stop) of frames of equal run number, which are adjacent: (F,) -> pairs in order; none of no frames.

    >>> list(segments(np.array([4, 4, 7])))
    [(0, 2), (2, 3)]
    """
    edges = [0, *(np.flatnonzero(np.diff(run)) + 1).tolist(), len(run)] if len(run) else []
    yield from pairwise(edges)

"""Values of joints, whatever their order.  raw -> [tracks] -> features"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cache.arrays import Array, Bools, Doubles
from pipeline.files.numbers import Floats, Number, are_usable_numbers


def add_confidence(places: Floats, confidence: Array | None = None) -> Doubles:
    """Append confidence (..., J), by default 1, to joints: (..., J, C) -> (..., J, C + 1)."""
    if confidence is None:
        confidence = np.ones(places.shape[:-1])
    return np.concatenate([places, confidence[..., None]], axis=-1)


def zero_invalid_joints(
    keypoints: NDArray[Number], *, copy: bool = True
) -> tuple[NDArray[Number], int]:
    """Copy joints (..., J, 3) px px confidence, with invalid ones set to 0; also return how many.

    Invalid are NaN, infinity, and numbers beyond LARGEST. copy: if not, they are set in place.
    """
    bad = ~are_usable_numbers(keypoints).all(axis=-1)
    out = keypoints.copy() if copy else keypoints
    out[bad] = 0
    return out, int(bad.sum())


def corners_of(points: Doubles, is_seen: Bools) -> Doubles:
    """Corners (N, 2, D), low and high, of the seen joints among (N, J, D); infinite without one.

    is_seen: (N, J).
    """
    mask = is_seen[..., None]
    low = points.min(axis=1, initial=np.inf, where=mask)
    high = points.max(axis=1, initial=-np.inf, where=mask)
    return np.stack([low, high], axis=1)

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


def zero_invalid_joints(keypoints: NDArray[Number]) -> tuple[NDArray[Number], int]:
    """Copy joints (..., J, 3) px px confidence, with invalid ones set to 0; also return how many.

    Invalid are NaN, infinity, and numbers beyond LARGEST.
    """
    bad = ~are_usable_numbers(keypoints).all(axis=-1)
    out = keypoints.copy()
    out[bad] = 0
    return out, int(bad.sum())


def corners_of(points: Doubles, is_seen: Bools) -> Doubles:
    """Corners (N, 2, D), low and high, of the seen joints among (N, J, D); infinite without one.

    is_seen: (N, J).
    """
    mask = is_seen[..., None]
    for_low = np.where(mask, points, np.inf)
    for_high = np.where(mask, points, -np.inf)
    low = for_low.min(axis=1, initial=np.inf)
    high = for_high.max(axis=1, initial=-np.inf)
    return np.stack([low, high], axis=1)

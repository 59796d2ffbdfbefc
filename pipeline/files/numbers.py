"""Numbers of files: the types of their arrays, and which numbers are usable.  [raw] -> tracks"""

from __future__ import annotations

from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from cache.arrays import Bools

Floats = NDArray[np.floating]
Float32s = NDArray[np.float32]
Number = TypeVar("Number", bound=np.floating)

# px, m, rad, ...: larger values are no labels, and sums of their squares would overflow float32
LARGEST: Final = 1e7


def are_usable_numbers(values: Floats) -> Bools:
    """Whether each number is one of a label: finite, and below LARGEST."""
    return np.asarray((values < LARGEST) & (values > -LARGEST))  # comparisons with NaN are false

"""Which pictures look the same, whatever their size and compression.  [pixels]

A picture's hash is the signs of the lowest frequencies of its cosine transform, against their median: Zauner,
Implementation and Benchmarking of Perceptual Image Hash Functions, 2010.
"""

from __future__ import annotations

import itertools
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE: Final = 32  # px, to which a picture is reduced before its transform
LOW: Final = 8  # frequencies a side; the mean does not count, so that 63 are left
ALIKE: Final = 8  # bits in which hashes of the same picture differ at most; of two scenes, they differ in about 31
FLAT: Final = 4.0  # standard deviation of grey levels, of 0 to 255, below which a hash would be that of noise
AT_ONCE: Final = 4096  # hashes that are compared with as many others at once

Hashes = NDArray[np.uint64]


def picture_hash(image: NDArray[Any]) -> int | None:
    """The 63 bits of a picture (H, W, 3) uint8, in any order of colours; None for one that shows next to nothing."""
    grey = cv2.resize(image.mean(axis=2, dtype=np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    if grey.std() < FLAT:
        return None
    low = cv2.dct(grey)[:LOW, :LOW].reshape(-1)[1:]
    return int(np.packbits(np.append(False, low > np.median(low))).view(">u8")[0])


def nearest(hashes: Hashes, others: Hashes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """hashes (N,), others (M,) -> (N,) which of the others is nearest, and (N,) in how many bits it differs.

    Without others, in 64 bits.
    """
    at, bits = np.zeros(len(hashes), np.int64), np.full(len(hashes), 64)
    for start, first in itertools.product(range(0, len(hashes), AT_ONCE), range(0, len(others), AT_ONCE)):
        part = slice(start, start + AT_ONCE)
        differ = np.bitwise_count(hashes[part, None] ^ others[first : first + AT_ONCE])
        best = differ.argmin(axis=1)
        least = np.take_along_axis(differ, best[:, None], axis=1)[:, 0]
        at[part] = np.where(least < bits[part], best + first, at[part])
        bits[part] = np.minimum(least, bits[part])
    return at, bits

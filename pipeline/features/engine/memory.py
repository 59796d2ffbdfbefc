"""Crops in memory that the decoding processes and this one share.  crops -> [memory] -> features

A slab is what goes through the network at once. Its slots are filled in place by other processes, and read, or copied
to a GPU, from where they are: a crop is never sent through a pipe.
"""

from __future__ import annotations

import mmap
import os
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.crops import CROP_SIZE

SLOT_BYTES: Final = CROP_SIZE * CROP_SIZE * 3
BEATS: Final = 2  # int64 of each process: frames begun so far, and the one that it is at


class SharedCrops:
    """`n_slots` crops, and a pulse of each of `n_workers` processes. The memory has no name: it goes with its users."""

    def __init__(self, fd: int, n_slots: int, n_workers: int) -> None:
        self.fd, self.n_slots, self.n_workers = fd, n_slots, n_workers
        self._map = mmap.mmap(fd, n_bytes(n_slots, n_workers))
        n_pixels = n_slots * SLOT_BYTES
        flat = np.frombuffer(self._map, np.uint8)
        self.slots: NDArray[np.uint8] = flat[:n_pixels].reshape(n_slots, CROP_SIZE, CROP_SIZE, 3)
        self.beats: NDArray[np.int64] = flat[_aligned(n_pixels) :].view(np.int64).reshape(n_workers, BEATS)

    @classmethod
    def new(cls, n_slots: int, n_workers: int) -> SharedCrops:
        """Memory of this process, to be handed to others by its `fd`."""
        fd = os.memfd_create("crops")
        os.ftruncate(fd, n_bytes(n_slots, n_workers))
        return cls(fd, n_slots, n_workers)

    def give_back(self) -> None:
        """Let the system have the pages again. What lay in them is lost; the slots stay usable."""
        self._map.madvise(mmap.MADV_REMOVE, 0, _aligned(self.n_slots * SLOT_BYTES))

    def close(self) -> None:
        """Give it to nobody else. The memory itself goes with the last who maps it."""
        os.close(self.fd)


def n_bytes(n_slots: int, n_workers: int) -> int:
    """What the memory takes in all."""
    return _aligned(n_slots * SLOT_BYTES) + n_workers * BEATS * 8


def _aligned(n: int) -> int:
    return -(-n // 4096) * 4096

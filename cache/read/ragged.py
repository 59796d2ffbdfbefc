"""Rows of bytes, of any length each: one behind the other in a shard.  tracks -> [features] -> windows

A shard of such a stream has `ROOM` bytes for each of its rows, on average. It starts where that room starts, so a row's
bytes are found without any other shard; room that is not used takes no space, since chunks without bytes are not held.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format.layout import ROOM
from cache.read.ranged import RangedRows
from cache.read.rows import Ints, Rows
from cache.storage.object_store import in_parallel

_AT_ONCE: Final = 32 * ROOM  # bytes that are read at once, at most, and one row more


def check_places(places: Ints, rows: Ints, rows_per_shard: int, location: str) -> None:
    """Raise CacheError where one of (N, 2) places is not in the room of its row's shard.

    A checksum does not show who wrote the bytes: the numbers of a table must not decide how much is read.
    """
    first = rows // rows_per_shard * rows_per_shard * ROOM
    starts, stops = places.T
    if (bad := np.flatnonzero((starts < first) | (stops < starts) | (stops > first + rows_per_shard * ROOM))).size:
        one = int(bad[0])
        expected = f"bytes of row {rows[one]} within {first[one]} to {first[one] + rows_per_shard * ROOM}"
        do = "Check the cache: python -m pipeline verify --repair --cache DIR"
        raise CacheError.at(location, expected=expected, found=f"{starts[one]} to {stops[one]}", do=do)


def read_bytes(source: Rows, places: Ints) -> list[bytes]:
    """The bytes at (N, 2) places, in this order; every chunk that they touch is compared with its checksum.

    Neighbours are read at once. Raises CacheError as `Rows.read` does.
    """
    found = [b""] * len(places)
    filled = np.flatnonzero(places[:, 1] > places[:, 0])
    order = filled[np.argsort(places[filled, 0], kind="stable")]
    if not len(order):
        return found

    def read(neighbours: NDArray[np.intp]) -> None:
        first, stop = int(places[neighbours[0], 0]), int(places[neighbours, 1].max())
        data = np.empty((1, stop - first), np.uint8)
        source.read(np.array([first]), stop - first, data)
        for row, (start, end) in zip(neighbours.tolist(), (places[neighbours] - first).tolist(), strict=True):
            found[row] = data[0, start:end].tobytes()

    # Cut where a chunk between two rows need not be read, and at every `_AT_ONCE` bytes.
    starts, stops = places[order].T
    apart = starts[1:] // ROOM > stops[:-1] // ROOM
    far = np.diff(starts // _AT_ONCE) > 0
    groups = np.split(order, np.flatnonzero(apart | far) + 1)
    if isinstance(source, RangedRows):
        in_parallel(read, groups)
    else:
        for group in groups:
            read(group)
    return found

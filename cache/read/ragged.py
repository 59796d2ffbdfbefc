"""Rows of bytes, each as many as it has: one behind the other in a shard, and where each lies.  [features] -> windows

A shard of such a stream has `ROOM` bytes for each of its rows, on average. It starts where that room starts, so a row's
place is found without any other shard; room that is not used takes no space, since chunks without bytes are not held.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format import shard
from cache.format.layout import ROOM, Geometry
from cache.read.ranged import RangedRows
from cache.read.rows import Rows
from cache.storage.object_store import at_once

_RUN: Final = 32 * ROOM  # bytes that are read at once, at most, and one row more

Ints = NDArray[np.int64]


class RaggedShard:
    """The file of a shard of bytes, in pieces: a chunk is made when it is asked for, so the bytes are not held twice.

    Args:
        rows: the bytes of its rows, in order. Together, they fit.
        geometry: of the column, in bytes.
    """

    def __init__(self, rows: Sequence[bytes], geometry: Geometry) -> None:
        self._rows, self._geometry = rows, geometry
        self._checksums: list[bytes] = []

    def __iter__(self) -> Iterator[bytes]:
        """Every chunk with its checksum, then the index with its own."""
        self._checksums = []
        size = self._geometry.rows_per_chunk
        for chunk in _chunks(self._rows, size):
            self._checksums.append(shard.crc32c(chunk))
            yield chunk + self._checksums[-1]
        index = np.full((self._geometry.chunks, 2), shard.ABSENT, "<u8")
        held = len(self._checksums)
        index[:held] = np.stack([np.arange(held) * (size + 4), np.full(held, size + 4)], axis=1)
        packed = index.tobytes()
        yield packed + shard.crc32c(packed)

    @property
    def record(self) -> str:
        """As `shards.record` would give it, once all pieces have been taken."""
        size = len(self._checksums) * (self._geometry.rows_per_chunk + 4) + shard.index_bytes(self._geometry.chunks)
        return shard.record_text(size, b"".join(self._checksums))


def _chunks(rows: Sequence[bytes], size: int) -> Iterator[bytes]:
    """All bytes, cut at every `size`; the last chunk is filled up with zeros."""
    chunk, filled = bytearray(size), 0
    for row in rows:
        left = memoryview(row)
        while left:
            taken = left[: size - filled]
            chunk[filled : filled + len(taken)] = taken
            filled, left = filled + len(taken), left[len(taken) :]
            if filled == size:
                yield bytes(chunk)
                filled = 0
    if filled:
        chunk[filled:] = bytes(size - filled)
        yield bytes(chunk)


def places_of(lengths: Ints, there: NDArray[np.bool_], first: int) -> Ints:
    """(n, 2) where the bytes of rows of these lengths start and stop in the array; -1 for those that have none.

    >>> places_of(np.array([3, 0, 2]), np.array([True, False, True]), 100).tolist()
    [[100, 103], [-1, -1], [103, 105]]
    """
    stops = first + np.cumsum(np.where(there, lengths, 0))
    places = np.stack([stops - lengths, stops], axis=1)
    places[~there] = -1
    return places


def require_own_room(places: Ints, rows: Ints, rows_per_shard: int, where: str, do: str) -> None:
    """Raise CacheError where one of (N, 2) places is not in the room of its row's shard.

    Checksums do not vouch for who wrote them: what a table says must not decide how much is read.
    """
    first = rows // rows_per_shard * rows_per_shard * ROOM
    starts, stops = places.T
    if (bad := np.flatnonzero((starts < first) | (stops < starts) | (stops > first + rows_per_shard * ROOM))).size:
        one = int(bad[0])
        expected = f"bytes of row {rows[one]} within {first[one]} to {first[one] + rows_per_shard * ROOM}"
        raise CacheError.at(where, expected=expected, found=f"{starts[one]} to {stops[one]}", do=do)


def read_rows(source: Rows, places: Ints) -> list[bytes]:
    """The bytes at (N, 2) places, in this order; every chunk that they touch is compared with its checksum.

    Neighbours are read at once. Raises CacheError as `Rows.read` does.
    """
    found = [b""] * len(places)
    filled = np.flatnonzero(places[:, 1] > places[:, 0])
    order = filled[np.argsort(places[filled, 0], kind="stable")]

    def read(run: NDArray[np.intp]) -> None:
        first, stop = int(places[run[0], 0]), int(places[run, 1].max())
        data = np.empty((1, stop - first), np.uint8)
        source.read(np.array([first]), stop - first, data)
        for row, (start, end) in zip(run.tolist(), (places[run] - first).tolist(), strict=True):
            found[row] = data[0, start:end].tobytes()

    runs = _runs(order, places)
    if isinstance(source, RangedRows):
        at_once(read, runs)
    else:
        for run in runs:
            read(run)
    return found


def _runs(order: NDArray[np.intp], places: Ints) -> list[NDArray[np.intp]]:
    """Rows in the order of their bytes, cut where a chunk between two of them need not be read, and at every `_RUN`."""
    if not len(order):
        return []
    starts, stops = places[order].T
    apart = starts[1:] // ROOM > stops[:-1] // ROOM
    far = np.diff(starts // _RUN) > 0
    return np.split(order, np.flatnonzero(apart | far) + 1)

"""The layout of an array, and helpers of both readers of rows.  features -> [windows]"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format.layout import ColumnSpec, Geometry
from cache.windows import Ints, spread


class Rows(Protocol):
    """Rows of one array."""

    trailing: tuple[int, ...]
    dtype: np.dtype[Any]

    def read(self, starts: Ints, seqlen: int, out: NDArray[Any]) -> None:
        """Fill out (B, seqlen, *trailing) with rows [start, start + seqlen) for every one of (B,) starts.

        Raises CacheError for rows beyond the array, and for shards that are missing, short or damaged.
        """


@dataclass(frozen=True, slots=True)
class ArrayLayout:
    """Where rows of an array are in its files."""

    n_rows: int
    spec: ColumnSpec
    geometry: Geometry

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a chunk with its checksum."""
        return self.geometry.rows_per_chunk * self.spec.row_bytes + 4


def check_range(starts: Ints, seqlen: int, n_rows: int, location: str) -> None:
    """Raise CacheError for windows of rows beyond the array."""
    if len(starts) and (starts.min() < 0 or starts.max() + seqlen > n_rows):
        requested = f"rows up to {int(starts.max()) + seqlen}"
        raise CacheError.at(location, expected=f"{n_rows} rows", found=requested, do="Open it again.")


def chunk_parts(starts: Ints, seqlen: int, rows_per_chunk: int) -> tuple[Ints, Ints, Ints]:
    """(chunk, first row in it, rows) of every part of the windows, in order: one in each chunk that a window touches.

    >>> [column.tolist() for column in chunk_parts(np.array([6, 0]), 4, 8)]
    [[0, 1, 0], [6, 0, 0], [2, 2, 4]]
    """
    chunk = starts // rows_per_chunk
    low = starts - chunk * rows_per_chunk
    count = (low + (seqlen - 1)) // rows_per_chunk + 1
    if count.max() == 1:
        return chunk, low, np.full(len(starts), seqlen)
    window, nth = spread(count)  # of each part, and which part of that window it is
    first = np.where(nth == 0, low[window], 0)
    stop = np.minimum(low[window] + seqlen - nth * rows_per_chunk, rows_per_chunk)
    return chunk[window] + nth, first, stop - first


_EXPONENT_SHIFT: Final = np.float32(2.0**112)  # float32's exponent counts from -127, float16's from -15
_MANTISSA_SHIFT: Final = 13  # float32 has 23 bits of it, float16 has 10
_KEEP: Final = np.int32(~0x70000000)  # the sign, and the 28 bits below what the sign was extended into
_BEYOND: Final = 65536.0  # what infinity becomes here; no finite float16 reaches it


def widen(half: NDArray[np.float16], out: NDArray[np.float32]) -> None:
    """Fill `out` with the same numbers, exactly, infinities and NaN included; several times as fast as NumPy.

    The bits of a float16, moved to a float32's places, are the number times 2^-112, subnormal ones too.
    """
    if not half.size:
        return
    bits = out.view(np.int32)
    np.copyto(bits, half.view(half.dtype.str.replace("f", "i")))  # the sign extended upwards
    np.left_shift(bits, _MANTISSA_SHIFT, out=bits)
    np.bitwise_and(bits, _KEEP, out=bits)
    np.multiply(out, _EXPONENT_SHIFT, out=out)
    if out.max() >= _BEYOND or out.min() <= -_BEYOND:
        out[...] = half


def fill(out: NDArray[Any], rows: NDArray[Any]) -> None:
    """out[...] = rows, by the fastest way there is for their types."""
    if rows.dtype == np.float16 and out.dtype == np.float32:
        widen(rows, out)
    else:
        out[...] = rows

"""The arrays of one batch of windows: the caller's own, where there are any.  features -> [windows] -> training"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.read.labels import Labels
from cache.read.rows import Rows

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Batch:
    """B windows of `seqlen` rows each, to be filled field by field."""

    starts: NDArray[np.int64]  # (B,) first rows
    seqlen: int
    out: Mapping[str, Array] | None  # the caller's buffers, by field

    def refuse_others(self, fields: Sequence[str]) -> None:
        """Raise ValueError for buffers of fields that are not asked for."""
        if self.out is not None and (strange := sorted(self.out.keys() - set(fields))):
            raise ValueError(f"buffers for {strange}, which are not among the fields {list(fields)}")

    def rows(self, name: str, reader: Rows, dtype: np.dtype[Any] | None = None) -> Array:
        """(B, T, ...) of one array; dtype: None for its own."""
        buffer = self._buffer(name, reader.trailing, dtype or reader.dtype)
        reader.read(self.starts, self.seqlen, buffer)
        return buffer

    def label(self, name: str, known: Labels, trailing: tuple[int, ...]) -> Array:
        """(B, T, *trailing) float32 of one of `labels.FIELDS`."""
        buffer = self._buffer(name, trailing, np.dtype(np.float32))
        known.fill(name, buffer)
        return buffer

    def _buffer(self, name: str, trailing: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """The caller's buffer when there is one, and it fits; a new array otherwise."""
        shape = (len(self.starts), self.seqlen, *trailing)
        if self.out is None or name not in self.out:
            return np.empty(shape, dtype)
        given = self.out[name]
        if given.shape != shape or given.dtype != dtype or not given.flags.writeable:
            raise ValueError(f"out[{name!r}] is {given.dtype}{given.shape}, expected writable {dtype}{shape}")
        return given

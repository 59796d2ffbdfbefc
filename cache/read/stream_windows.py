"""Windows of one stream, with the rows before each of them.  tracks -> features -> [windows] -> training"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.format.layout import COMPUTED, UNDECODABLE
from cache.read.rows import Ints, Rows
from cache.read.streams import OpenStream


class StreamWindows:
    """B windows of `seqlen` rows, and `history` rows before each: so many of these as its run has, then 0.

    Args:
        stream: where they are.
        starts: (B,) first rows of the windows.
        run_starts: (B,) first rows of the runs that these are in; not used without history.

    Raises CacheError unless the stream has numbers for the windows, and the shards before them within their runs.
    """

    def __init__(self, stream: OpenStream, starts: Ints, seqlen: int, history: int, run_starts: Ints) -> None:
        self._stream, self._starts, self._seqlen, self._history = stream, starts, seqlen, history
        stream.require(starts, seqlen)
        if history:
            self._before = np.minimum(starts - run_starts, history)
            stream.require_shards(starts - self._before, starts)

    @property
    def trailing(self) -> tuple[int, ...]:
        """What follows the rows."""
        return self._stream.reader().trailing

    def fill(self, out: NDArray[Any]) -> None:
        """Fill `out` with the numbers; 0 where there is no row, and in rows of the history that have no value."""
        self._read(self._stream.reader(), out)
        if self._history:
            out[self._flags == UNDECODABLE] = 0

    def fill_flags(self, out: NDArray[np.float32]) -> None:
        """Fill (B, history + T) with 1 where numbers were computed, 0 elsewhere."""
        np.equal(self._flags, COMPUTED, out=out, casting="unsafe")

    @cached_property
    def _flags(self) -> NDArray[np.uint8]:
        """(B, history + T) as stored; UNDECODABLE where there is no row."""
        flags = np.empty((len(self._starts), self._history + self._seqlen), np.uint8)
        self._read(self._stream.reader("_ok"), flags)
        return flags

    def _read(self, rows: Rows, out: NDArray[Any]) -> None:
        """Fill (B, history + T, ...) with rows; 0 where there is none."""
        if not self._history:
            rows.read(self._starts, self._seqlen, out)
            return
        for n_before in np.unique(self._before).tolist():  # mostly one: windows are seldom at the start of a run
            here = np.flatnonzero(self._before == n_before)
            n_missing = self._history - n_before
            whole = not n_missing and len(here) == len(out)
            part = out if whole else np.empty((len(here), n_before + self._seqlen, *rows.trailing), out.dtype)
            rows.read(self._starts[here] - n_before, n_before + self._seqlen, part)
            if not whole:
                out[here, :n_missing] = 0
                out[here, n_missing:] = part

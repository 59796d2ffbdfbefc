"""The rows of a batch of windows.  features -> [windows]"""

from __future__ import annotations

from typing import NamedTuple, Self

import numpy as np

from cache.arrays import Array, Ints
from cache.errors import CacheError
from cache.format.tables import Tables
from cache.read.rows import Rows


class WindowRows(NamedTuple):
    """The rows of B windows of T rows, as stretches to read: a window each, or a row each."""

    shape: tuple[int, int]  # (B, T)
    track: Ints  # (B,) number of each window's track
    starts: Ints  # first rows of the stretches: (B,), or (B * T,)
    length: int  # rows of a stretch: T, or 1

    @classmethod
    def parse(cls, windows: Array, tables: Tables, split: str) -> Self:
        """Parse the windows that `Split.read` takes: (B, 2) ranges, or (B, T) rows.

        Raises ValueError for windows of another form, or of several lengths; CacheError for rows
        that are in no track or in several ones.
        """
        is_table = windows.ndim == 2 and windows.shape[1] > 0
        if not is_table or (len(windows) and windows.dtype.kind not in "iu"):
            found = f"{windows.dtype}{windows.shape}"
            raise ValueError(
                f"windows are {found}, expected integers: ranges (B, 2) or rows (B, T)"
            )
        rows = windows.astype(np.int64)
        if rows.shape[1] != 2:
            track = tables.track_of(rows)
            _require_one_track(split, rows, track.min(axis=1), track.max(axis=1))
            return cls((len(rows), rows.shape[1]), track[:, 0], rows.ravel(), 1)
        starts, stops = rows.T
        lengths = stops - starts
        seqlen = int(lengths[0]) if len(rows) else 0
        if len(rows) and (seqlen < 1 or (lengths != seqlen).any()):
            raise ValueError(
                "windows of one batch must all have the same length, of at least one row"
            )
        track = tables.track_of(starts)
        last_track = tables.track_of(stops - 1)
        _require_one_track(split, rows, track, last_track)
        return cls((len(rows), seqlen), track, starts, seqlen)

    @property
    def are_ranges(self) -> bool:
        """Whether each window is one stretch."""
        return len(self.starts) == len(self.track)

    @property
    def numbers(self) -> Ints:
        """(B, T) numbers of the rows."""
        of_stretches = self.starts[:, None] + np.arange(self.length)
        return of_stretches.reshape(self.shape)

    def read(self, rows: Rows) -> Array:
        """Read the windows from a column or stream: (B, T, ...), as stored."""
        stretches = rows.read_windows(self.starts, self.length)
        return stretches.reshape(*self.shape, *rows.trailing)


def _require_one_track(split: str, windows: Ints, first: Ints, last: Ints) -> None:
    """Raise CacheError unless each of B windows is in one track, by the lowest and the highest
    number (B,) of the tracks of its rows.
    """
    is_outside = (first < 0) | (first != last)
    if not is_outside.any():
        return
    window = int(is_outside.argmax())
    problem = "of several tracks"
    if min(first[window], last[window]) < 0:
        problem = "in no track"
    rows = windows[window].tolist()
    raise CacheError(f"{split}: rows {rows} are {problem}: take windows from windows()")

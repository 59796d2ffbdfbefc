"""Which rows of a split go into a database file, and under which name.  tracks, features -> [database files]

Existing code cuts windows out of all rows of one `vid_name`, and looks at no frame number: a window that runs across a
gap would take frames for neighbours that are not. So each stretch of a track whose frames follow one another goes under
a name of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import cache
from cache.format.records import Tracks

AT_ONCE: Final = 8192  # rows: of features 64 MB
Rows = NDArray[np.int64]
Known = Mapping[str, Callable[[int, int], NDArray[np.bool_]]]  # what a row must have -> which of [start, stop) have it


@dataclass(frozen=True, slots=True, eq=False)
class Segments:
    """Stretches of rows, ascending: [start, stop) of `track`, whose frames are one step apart."""

    start: Rows
    stop: Rows
    track: Rows  # number in the split's tracks
    left_out: Mapping[str, int]  # what rows lack -> how many are left out for it

    @property
    def rows(self) -> int:
        return int((self.stop - self.start).sum())

    def of(self, rows: Rows) -> Rows:
        """The number of each row's segment."""
        return np.searchsorted(self.start, rows, side="right") - 1

    def names(self, tracks: Tracks) -> list[str]:
        """`vid_name` of each: the track's name, and where a track comes in several, which of them it is."""
        several = np.bincount(self.track, minlength=len(tracks)) > 1
        within = np.arange(len(self.track)) - np.searchsorted(self.track, self.track)
        names = tracks.names
        return [
            f"{names[t]}_seg{k}" if several[t] else names[t]
            for t, k in zip(self.track.tolist(), within.tolist(), strict=True)
        ]


def spans(start: Rows, stop: Rows) -> Iterator[tuple[int, int]]:
    """Ascending ranges of rows -> the same rows in as few pieces as possible, of at most AT_ONCE.

    >>> list(spans(np.array([0, 5, 9]), np.array([5, 7, 10])))
    [(0, 7), (9, 10)]
    """
    first = np.flatnonzero(np.r_[True, start[1:] != stop[:-1]]) if len(start) else np.zeros(0, np.int64)
    for a, b in zip(start[first], stop[np.r_[first[1:] - 1, len(stop) - 1]], strict=True) if len(first) else ():
        for piece in range(int(a), int(b), AT_ONCE):
            yield piece, min(piece + AT_ONCE, int(b))


def segments_of(split: cache.Split, known: Known) -> Segments:
    """The rows of committed tracks that have all that `known` asks for, cut where frames do not follow one another."""
    tracks = split.tracks
    step = tracks.step.astype(np.int64)
    found = _Runs()
    left_out = dict.fromkeys(known, 0)
    for start, stop in spans(tracks.start, tracks.stop):
        keep = np.ones(stop - start, bool)
        for what, has in known.items():
            lacks = keep & ~has(start, stop)
            left_out[what] += int(lacks.sum())
            keep &= ~lacks
        rows = np.arange(start, stop)
        found.add(rows, split.track_of(rows), split.rows("frame_index", start, stop), keep, step)
    begins, ends, of_track = found.arrays()
    return Segments(begins, ends, of_track, {what: n for what, n in left_out.items() if n})


class _Runs:
    """Puts runs together that come in pieces."""

    def __init__(self) -> None:
        self._start: list[Rows] = []
        self._stop: list[Rows] = []
        self._track: list[Rows] = []
        self._last = (-2, -1, 0)  # row, track and frame of the last row that is kept

    def add(self, rows: Rows, track: Rows, frame: NDArray[Any], keep: NDArray[np.bool_], step: Rows) -> None:
        rows, track, frame = rows[keep], track[keep], frame[keep]
        if not len(rows):
            return
        before = [np.r_[last, values[:-1]] for last, values in zip(self._last, (rows, track, frame), strict=True)]
        goes_on = (rows == before[0] + 1) & (track == before[1]) & (frame - before[2] == step[track])
        begins = np.flatnonzero(~goes_on)
        ends = np.r_[begins[1:], len(rows)] - 1
        if goes_on[0]:  # up to the first beginning, the rows belong to the run before
            end = begins[0] - 1 if len(begins) else len(rows) - 1
            self._stop[-1][-1] = rows[end] + 1
        if len(begins):
            self._start.append(rows[begins])
            self._stop.append(rows[ends] + 1)
            self._track.append(track[begins])
        self._last = (int(rows[-1]), int(track[-1]), int(frame[-1]))

    def arrays(self) -> tuple[Rows, Rows, Rows]:
        start, stop, track = (
            np.concatenate([np.zeros(0, np.int64), *parts]) for parts in (self._start, self._stop, self._track)
        )
        return start, stop, track

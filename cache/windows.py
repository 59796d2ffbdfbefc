"""Cut runs of consecutive frames into windows.  tracks -> features -> [windows] -> training

A run is a stretch of one track whose frames are one step apart. Rows for which a stream has no
features cut runs further. A window is `seqlen` consecutive rows of a run. Ranges are (N, 2) int64
arrays of rows [start, stop), disjoint and ascending; windows have the same form but may overlap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, Literal, NamedTuple

import numpy as np

from cache.arrays import Bools, Doubles, Ints

Ranges = Ints  # (N, 2) of [start, stop)
Tail = Literal["drop", "cover"]
# Rows from one time to the next, at least: rates such as 29.97 and 30 are taken for the same.
LEAST_STEP: Final = 0.98


def spread(counts: Ints) -> tuple[Ints, Ints]:
    """Repeat each index i counts[i] times. Returns the indices, and which repetition each one is.

    >>> [column.tolist() for column in spread(np.array([2, 0, 3]))]
    [[0, 0, 2, 2, 2], [0, 1, 0, 1, 2]]
    """
    item = np.repeat(np.arange(len(counts)), counts)
    first = np.cumsum(counts) - counts
    repetition = np.arange(len(item)) - first[item]
    return item, repetition


def windows_of(runs: Ranges, *, seqlen: int, stride: int, tail: Tail = "drop") -> Ranges:
    """Cut runs into windows of `seqlen` rows, one every `stride` rows from each run's start on.

    `tail`: "drop" leaves out the rows after a run's last window, as published methods do; "cover"
    adds a window that ends where the run ends. A run shorter than `seqlen` has no window.

    >>> windows_of(np.array([[0, 10], [20, 23]]), seqlen=4, stride=4).tolist()
    [[0, 4], [4, 8]]
    >>> windows_of(np.array([[0, 10], [20, 23]]), seqlen=4, stride=4, tail="cover").tolist()
    [[0, 4], [4, 8], [6, 10]]

    Raises ValueError unless seqlen and stride are integers of at least 1 and tail is one of the
    two.
    """
    for number in (seqlen, stride):
        if not isinstance(number, int | np.integer) or number < 1:
            raise ValueError(
                f"seqlen {seqlen!r} and stride {stride!r} must be integers of at least 1"
            )
    if tail not in ("drop", "cover"):
        raise ValueError(f'tail is {tail!r}, expected "drop" or "cover"')
    first, stop = runs.T
    room = stop - first - seqlen  # the last offset in the run at which a window may start
    counts = room // stride + 1
    if tail == "cover":
        counts += room % stride > 0
    counts[room < 0] = 0
    n_windows = int(counts.sum())
    n_before = np.cumsum(counts) - counts
    windows = np.empty((n_windows, 2), np.int64)
    # in place: with millions of windows, new arrays would take longer than all the arithmetic
    starts = windows[:, 0]
    starts[:] = np.arange(n_windows)
    starts *= stride
    starts += np.repeat(first - n_before * stride, counts)
    if tail == "cover":
        last = np.repeat(first + room, counts)
        np.minimum(starts, last, out=starts)
    np.add(starts, seqlen, out=windows[:, 1])
    return windows


class _TimedWindows(NamedTuple):
    """Windows whose rows are the nearest ones to even times."""

    rows: Ints  # (W, T), ascending within each window
    # (L,) the runs of windows that are left out, since a row would be in them twice
    repeating: Ints


def timed_windows(
    runs: Ranges, steps: Doubles, *, seqlen: int, stride: int, tail: Tail = "drop"
) -> _TimedWindows:
    """Cut runs into windows of `seqlen` even times, one every `stride` times from each run's start.

    Args:
        steps: (R,) rows from one time to the next in each run: rows a second / times a second. A
            run of less than LEAST_STEP, or NaN, has no window.
        tail: as in `windows_of`, with times in place of rows.

    A row is at most half a row from its time.

    >>> timed_windows(np.array([[10, 18]]), np.array([1.2]), seqlen=3, stride=3).rows.tolist()
    [[10, 11, 12], [14, 15, 16]]
    """
    first, stop = runs.T
    # a time belongs to the run if its nearest row does
    n_fitting = np.ceil((stop - first - 0.5) / steps)
    n_fitting[~(steps >= LEAST_STEP)] = 0
    n_times = n_fitting.astype(np.int64)
    # as windows of rows, if each time had a row and runs followed one another
    stops = np.cumsum(n_times)
    spans = np.stack([stops - n_times, stops], axis=1)
    windows = windows_of(spans, seqlen=seqlen, stride=stride, tail=tail)
    starts = windows[:, 0]
    run = np.searchsorted(stops, starts, side="right")
    begin = starts - spans[run, 0]
    times = np.arange(seqlen) + begin[:, None]
    from_first = np.floor(times * steps[run, None] + 0.5)
    rows = from_first.astype(np.int64)
    rows += first[run, None]
    # where rounding would leave the run
    np.minimum(rows, stop[run, None] - 1, out=rows)
    is_repeated = np.diff(rows, axis=1) == 0
    repeats = is_repeated.any(axis=1)
    return _TimedWindows(rows[~repeats], run[repeats])


def intersect(runs: Ranges, keep: Ranges) -> Ranges:
    """The parts of `runs` that are within ranges of `keep`. A run across two ranges becomes two.

    Both are disjoint and ascending, so a run overlaps with consecutive ranges of `keep`.

    >>> intersect(np.array([[0, 10], [10, 12]]), np.array([[2, 4], [8, 11]])).tolist()
    [[2, 4], [8, 10], [10, 11]]
    """
    if not len(keep):  # usual, and a split may have a million runs
        return keep
    start, stop = runs.T
    keep_start, keep_stop = keep.T
    # Of each run: the first range that ends after the run's start, and the first range that begins
    # at the run's end or later. The sides leave out ranges that only touch the run.
    first = np.searchsorted(keep_stop, start, side="right")
    after_last = np.searchsorted(keep_start, stop, side="left")
    n_overlapping = np.maximum(after_last - first, 0)
    run, nth = spread(n_overlapping)
    overlapping = first[run] + nth
    starts = np.maximum(start[run], keep_start[overlapping])
    stops = np.minimum(stop[run], keep_stop[overlapping])
    return np.stack([starts, stops], axis=1)


def find_ranges(rows: Ints, starts: Ints, stops: Ints) -> Ints:
    """The number of the range that each row (n,) is in; -1 for rows in none.

    >>> find_ranges(np.array([1, 2, 3, 4]), np.array([2, 8]), np.array([4, 11])).tolist()
    [-1, 0, 0, -1]
    """
    # Ranges are ascending and disjoint: a row is in a range if one more has begun than ended.
    n_begun = np.searchsorted(starts, rows, side="right")
    n_ended = np.searchsorted(stops, rows, side="right")
    return np.where(n_begun > n_ended, n_begun - 1, -1)


def ranges_where(flags: Bools, first_row: int) -> Ranges:
    """The ranges in which `flags` is True. `first_row`: the row of the first flag.

    >>> ranges_where(np.array([True, True, False, True]), first_row=5).tolist()
    [[5, 7], [8, 9]]
    """
    padded = np.concatenate([[False], flags, [False]])
    changes = padded[1:] != padded[:-1]
    edges = np.flatnonzero(changes).reshape(-1, 2)
    return (edges + first_row).astype(np.int64)


def join_adjacent(ranges: Ranges) -> Ranges:
    """Join ranges that touch into one.

    >>> join_adjacent(np.array([[0, 8], [8, 16], [20, 24]])).tolist()
    [[0, 16], [20, 24]]
    """
    start, stop = ranges.T
    gaps = np.flatnonzero(start[1:] != stop[:-1]) + 1
    starts = np.concatenate([start[:1], start[gaps]])
    stops = np.concatenate([stop[gaps - 1], stop[-1:]])
    return np.stack([starts, stops], axis=1)


class _TableSegments(NamedTuple):
    """N segments of consecutive rows of a split, which are consecutive in the table, too."""

    first: Ints  # (N,) first rows in the split
    stop: Ints  # (N,) last rows in the split + 1
    table_row: Ints  # (N,) table rows of the first rows


class StreamRows:
    """The layout of a table that holds every row that some windows need, once each.

    Args:
        starts: first rows of the windows, by split.

    `total` is the number of rows of the table.

    >>> rows = StreamRows({"a": np.array([0, 2, 9]), "b": np.array([5])}, seqlen=4)
    >>> rows.total  # of "a" the rows 0 to 5 and 9 to 12, of "b" 5 to 8
    14
    >>> rows.table_rows("a", np.array([2, 9])).tolist()
    [2, 6]
    """

    def __init__(self, starts: Mapping[str, Ints], seqlen: int) -> None:
        self.seqlen = seqlen
        self._segments: dict[str, _TableSegments] = {}
        self.total = 0
        for name, first_rows in starts.items():
            begins = np.unique(first_rows)
            # Windows that share a row are of one run. Those that only touch may be of two tracks.
            gaps = np.flatnonzero(np.diff(begins) >= seqlen) + 1
            first = np.concatenate([begins[:1], begins[gaps]])
            last = np.concatenate([begins[gaps - 1], begins[-1:]])
            lengths = last + seqlen - first
            table_row = np.cumsum(lengths) - lengths + self.total
            self._segments[name] = _TableSegments(first, last + seqlen, table_row)
            self.total += int(lengths.sum())

    def table_rows(self, split: str, starts: Ints) -> Ints:
        """The table rows (b,) at which windows begin, from their first rows (b,) in the split."""
        segments = self._segments[split]
        segment = np.searchsorted(segments.first, starts, side="right") - 1
        within = starts - segments.first[segment]
        return segments.table_row[segment] + within

    def batches(self, n_windows: int = 512) -> Iterator[tuple[str, Ints]]:
        """Yield windows that cover the table together, for a caller that fills it: pairs (split,
        first rows of at most `n_windows` windows).
        """
        for name, segments in self._segments.items():
            lengths = segments.stop - segments.first
            n_covering = -(-lengths // self.seqlen)
            segment, within = spread(n_covering)
            starts = segments.first[segment] + within * self.seqlen
            # The last one of a segment ends where the segment does.
            starts = np.minimum(starts, segments.stop[segment] - self.seqlen)
            for begin in range(0, len(starts), n_windows):
                yield name, starts[begin : begin + n_windows]

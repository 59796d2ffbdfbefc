"""Which windows a model sees in evaluation, each frame once.  features -> [windows] -> evaluation"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cache import Split

Bools = NDArray[np.bool_]


class EvalWindow(NamedTuple):
    """Rows [start, stop) go through the model; the predictions of rows [keep, stop) count."""

    start: int
    stop: int
    keep: int
    run: int  # windows of equal number follow each other without a gap


def select_tracks(split: Split, pattern: str = "*") -> list[Any]:
    """The tracks whose name matches, in row order; each with name, start, stop."""
    return [track for track in split.tracks if fnmatchcase(track.name, pattern)]


def plan_windows(split: Split, tracks: Sequence[Any], *, stream: str, seqlen: int, drop_last: bool) -> list[EvalWindow]:
    """Windows over all frames of `tracks` that have features, in row order.

    A stretch without gaps is cut into windows of `seqlen`; the last one is moved back to end with the stretch, or is
    shorter where the whole stretch is. With `drop_last` (the published protocol) tracks are cut at every `seqlen` rows,
    gaps or not, and what remains at their ends is dropped.
    """
    has_features = np.zeros(max((track.stop for track in tracks), default=0), np.bool_)
    rows = split.windows(1, 1, stream)[:, 0]
    has_features[rows[rows < len(has_features)]] = True
    windows: list[EvalWindow] = []
    if drop_last:
        for run, track in enumerate(tracks):
            starts = range(track.start, track.stop - seqlen + 1, seqlen)
            whole = (start for start in starts if has_features[start : start + seqlen].all())
            windows += [EvalWindow(start, start + seqlen, start, run) for start in whole]
        return windows
    followed = np.zeros_like(has_features)  # rows whose next row is the next frame, and has features too
    rows = split.windows(2, 1, stream)[:, 0]
    followed[rows[rows < len(followed)]] = True
    for run, (start, stop) in enumerate(_stretches(tracks, has_features, followed)):
        windows += _cover(start, stop, seqlen, run)
    return windows


def _stretches(tracks: Sequence[Any], has_features: Bools, followed: Bools) -> Iterator[tuple[int, int]]:
    """Row ranges [start, stop) of neighbouring frames, one step apart, that all have features."""
    for track in tracks:
        rows = track.start + np.flatnonzero(has_features[track.start : track.stop])
        for part in np.split(rows, np.flatnonzero(~followed[rows[:-1]]) + 1):
            if len(part):
                yield int(part[0]), int(part[-1]) + 1


def _cover(start: int, stop: int, seqlen: int, run: int) -> Iterator[EvalWindow]:
    """
    >>> [w[:3] for w in _cover(10, 17, 3, run=0)]
    [(10, 13, 10), (13, 16, 13), (14, 17, 16)]
    >>> [w[:3] for w in _cover(0, 2, 3, run=0)]
    [(0, 2, 0)]
    """
    for keep in range(start, stop, seqlen):
        end = min(keep + seqlen, stop)
        yield EvalWindow(max(end - seqlen, start), end, keep, run)

"""The windows that a model sees in evaluation, each frame once.  features -> [windows] -> evaluation"""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vibe_model.errors import DataError

if TYPE_CHECKING:
    from cache import Split

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


class EvalWindow(NamedTuple):
    """Rows [start, stop) are put through the model; the predictions of rows [keep, stop) count."""

    start: int
    stop: int
    keep: int


def select_tracks(split: Split, pattern: str = "*") -> list[Any]:
    """The tracks whose name matches, in row order; each with name, start, stop."""
    return [track for track in split.tracks if fnmatchcase(track.name, pattern)]


class Present(NamedTuple):
    """Which rows of a split have features of one stream: two flags a row, from which windows are planned by track."""

    has_features: Bools  # (rows,)
    followed: Bools  # (rows,) the next row is the next frame of the track, and has features too

    @classmethod
    def of(cls, split: Split, stream: str) -> Present:
        """The flags of a whole split. Raises DataError for a stream of jittered crops."""
        if split.crop_policy(stream).jitter is not None:
            raise DataError(
                f"the stream {stream!r} is of randomly moved and mirrored crops, which are for training alone. Name "
                "the stream of plain crops."
            )
        single, pairs = split.windows(1, 1, stream)[:, 0], split.windows(2, 1, stream)[:, 0]
        present = cls(*(np.zeros(int(single.max(initial=-1)) + 1, np.bool_) for _ in range(2)))
        present.has_features[single] = True
        present.followed[pairs] = True
        return present

    def windows(self, track: Any, *, seqlen: int, drop_last: bool) -> list[EvalWindow]:
        """Windows over all frames of one track that have features, in row order.

        A segment without gaps is cut into windows of `seqlen`; the last one is moved back to end with the segment, or
        is shorter where the whole segment is. With `drop_last` (the published protocol) the track is cut at every
        `seqlen` rows, gaps or not, and what remains at its end is dropped.
        """
        if drop_last:
            starts = range(track.start, track.stop - seqlen + 1, seqlen)
            whole = (start for start in starts if self.has_features[start : start + seqlen].sum() == seqlen)
            return [EvalWindow(start, start + seqlen, start) for start in whole]
        return [window for start, stop in self._segments(track) for window in cover(start, stop, seqlen)]

    def runs(self, rows: Ints) -> Ints:
        """(F,) ascending rows -> (F,) a number each: rows of equal number are neighbouring frames, one step apart."""
        if not len(rows):
            return np.zeros(0, np.int64)
        apart = (np.diff(rows) != 1) | ~self.followed[rows[:-1]]
        return np.concatenate([[0], np.cumsum(apart)]).astype(np.int64)

    def _segments(self, track: Any) -> Iterator[tuple[int, int]]:
        """Row ranges [start, stop) of neighbouring frames, one step apart, that all have features."""
        rows = track.start + np.flatnonzero(self.has_features[track.start : track.stop])
        for part in np.split(rows, np.flatnonzero(np.diff(self.runs(rows))) + 1):
            if len(part):
                yield int(part[0]), int(part[-1]) + 1


def cover(start: int, stop: int, seqlen: int) -> Iterator[EvalWindow]:
    """Windows of `seqlen` over [start, stop); the last one is moved back to end with it, or is all that there is.

    >>> [tuple(window) for window in cover(10, 17, 3)]
    [(10, 13, 10), (13, 16, 13), (14, 17, 16)]
    >>> [tuple(window) for window in cover(0, 2, 3)]
    [(0, 2, 0)]
    """
    for keep in range(start, stop, seqlen):
        end = min(keep + seqlen, stop)
        yield EvalWindow(max(end - seqlen, start), end, keep)

"""Windows of evaluation and prediction, with each frame once.  features -> [windows]

A window is a range of consecutive rows of one track that the model reads together. Windows may
overlap; `EvalWindow` says of which rows the predictions are used. Also selects tracks by name, and
reads the model's inputs.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from pipeline.errors import DataError
from pipeline.people.skeletons import Array, Ints
from vibe_model.reading import Reading

if TYPE_CHECKING:
    from cache import Split, TrackRecord


_SHARE: Final = re.compile(r"1/([1-9]\d{0,3})")

NOTHING: Final[Mapping[str, Reading]] = MappingProxyType({})  # no extra streams


class ModelStreams(NamedTuple):
    """The streams that a model reads."""

    features: str  # name of the main one
    extra: Mapping[str, Reading] = NOTHING  # by the argument of `VideoModel.regress`

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all of them, the main one first."""
        return (self.features, *(reading.stream for reading in self.extra.values()))

    def read(self, split: Split, windows: Array) -> dict[str, Array]:
        """Read the arguments of `VideoModel.regress`: name -> (B, T, numbers per frame).

        windows: (B, 2) rows [start, stop), all of T rows. Raises as `Split.read` does.
        """
        readings = self.extra.values()
        history = {reading.stream: reading.history for reading in readings if reading.history}
        arrays = split.read(windows, streams=self.names, history=history, fields=self.names)
        inputs = {"features": arrays[self.features]}
        for name, reading in self.extra.items():
            inputs[name] = reading.stack(arrays[reading.stream])
        return inputs


class WindowInput(NamedTuple):
    """What the model reads of a window, which determines its predictions: rows [start, stop)."""

    start: int
    stop: int
    before: int = 0  # number of copies of the first row's feature to put before it
    after: int = 0  # number of copies of the last row's feature to put after it


class EvalWindow(NamedTuple):
    """A window of rows of a split.

    Only the predictions of rows [used_start, used_stop) are used: windows may overlap, and their
    ends may be context only.
    """

    input: WindowInput
    used_start: int
    used_stop: int


def select_tracks(split: Split, pattern: str = "*") -> list[TrackRecord]:
    """Tracks whose names match a pattern (`*`, `?`, `[...]`), in row order.

    The pattern 1/10 selects all tracks of about a tenth of the videos; !PATTERN the other tracks.
    """
    bare = pattern.removeprefix("!")
    return [track for track in split.tracks if _matches(track, bare) == (bare == pattern)]


def _matches(track: TrackRecord, pattern: str) -> bool:
    share = _SHARE.fullmatch(pattern)
    if share:
        return _is_drawn(track.video, int(share[1]))
    return fnmatchcase(track.name, pattern)


def _is_drawn(video: str, one_in: int) -> bool:
    """Whether a video is one of every `one_in` videos.

    A hash of the video's name decides, so that adding other videos does not change the selection.
    """
    digest = hashlib.blake2b(video.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % one_in == 0


class Present(NamedTuple):
    """The stretches of a split: ranges of rows that windows may cover.

    The rows of a stretch belong to one track, are consecutive frames (one step of the track apart),
    and all have features.
    """

    starts: Ints  # (S,) first row of each stretch, ascending
    stops: Ints  # (S,) row after the last one of each stretch

    @classmethod
    def from_split(cls, split: Split, streams: ModelStreams) -> Present:
        """Find the stretches whose rows have features in all streams.

        Raises DataError for features of jittered crops.
        """
        if split.open_stream(streams.features).crop.jitter is not None:
            raise DataError(
                f"the stream {streams.features!r} has randomly moved and mirrored crops, for "
                "training only. Name the stream of plain crops."
            )
        # Contiguous: each search would copy a column of pairs.
        return cls(*np.ascontiguousarray(split.runs_with(streams.names).T))

    def windows(
        self,
        track: TrackRecord,
        *,
        seqlen: int,
        drop_last: bool,
        margin: int = 0,
        repeat_ends: bool = False,
    ) -> list[EvalWindow]:
        """Windows over one track's frames with features, in row order.

        Args:
            track: A track of the split, with `start` and `stop`.
            seqlen: Rows per window; 0: one window per stretch.
            drop_last: Follow the published protocol: cut the track into windows of exactly `seqlen`
                rows from its first row on, even across gaps in time. Windows with a row without
                features, and the rest at the end, are dropped. No effect if `seqlen` is 0.
            margin: Rows at each end of a window that are context only (`_cover_with_margin`).
                Ignored if windows have no more than 2 * margin rows.
            repeat_ends: With a margin, repeat the first and last feature of a stretch.
        """
        if drop_last and seqlen:
            return self._whole_windows(track, seqlen)
        windows: list[EvalWindow] = []
        part = slice(*np.searchsorted(self.starts, (track.start, track.stop)))
        for start, stop in zip(self.starts[part].tolist(), self.stops[part].tolist(), strict=True):
            length = seqlen or stop - start + 2 * margin
            if margin and length > 2 * margin:
                windows += _cover_with_margin(start, stop, length, margin, repeat_ends=repeat_ends)
            else:
                windows += _cover(start, stop, length)
        return windows

    def _whole_windows(self, track: TrackRecord, seqlen: int) -> list[EvalWindow]:
        """Cut a track into windows of `seqlen` rows; drop those with a row without features."""
        has_features = self._stretch_of(np.arange(track.start, track.stop)) >= 0
        windows = []
        for first in range(0, len(has_features) - seqlen + 1, seqlen):
            if has_features[first : first + seqlen].all():
                start = track.start + first
                stop = start + seqlen
                windows.append(EvalWindow(WindowInput(start, stop), start, stop))
        return windows

    def runs(self, rows: Ints) -> Ints:
        """Number the stretches of (F,) rows with features: (F,) int64, equal within a stretch."""
        return np.unique(self._stretch_of(rows), return_inverse=True)[1].astype(np.int64)

    def _stretch_of(self, rows: Ints) -> Ints:
        """(F,) rows -> (F,) index of each row's stretch, -1 without features."""
        if not len(self.starts):
            return np.full(len(rows), -1)
        index = np.searchsorted(self.starts, rows, side="right") - 1
        return np.where(rows < self.stops[index], index, -1)


def _cover(start: int, stop: int, seqlen: int) -> Iterator[EvalWindow]:
    """Windows of `seqlen` rows that use each row of [start, stop) once.

    The last window is moved back so that it ends at `stop`, and overlaps the one before. If there
    are fewer than `seqlen` rows, there is one shorter window.

    >>> [(*window.input[:2], *window[1:]) for window in _cover(10, 17, 3)]
    [(10, 13, 10, 13), (13, 16, 13, 16), (14, 17, 16, 17)]
    >>> [(*window.input[:2], *window[1:]) for window in _cover(0, 2, 3)]
    [(0, 2, 0, 2)]
    """
    for used_start in range(start, stop, seqlen):
        end = min(used_start + seqlen, stop)
        yield EvalWindow(WindowInput(max(end - seqlen, start), end), used_start, end)


def _cover_with_margin(
    start: int, stop: int, seqlen: int, margin: int, *, repeat_ends: bool
) -> Iterator[EvalWindow]:
    """Windows of `seqlen` over [start, stop) whose first and last `margin` frames are context only.

    Windows that reach beyond `start` or `stop` are shorter. With `repeat_ends`, the first or last
    feature is repeated there instead (`before`, `after`).

    >>> windows = _cover_with_margin(10, 15, 5, 1, repeat_ends=True)
    >>> [(tuple(window.input), *window[1:]) for window in windows]
    [((10, 14, 1, 0), 10, 13), ((12, 15, 0, 2), 13, 15)]
    """
    step = seqlen - 2 * margin
    for used_start in range(start, stop, step):
        first = used_start - margin
        last = first + seqlen
        low = max(first, start)
        high = min(last, stop)
        before = 0
        after = 0
        if repeat_ends:
            before = low - first
            after = last - high
        used_stop = min(used_start + step, stop)
        yield EvalWindow(WindowInput(low, high, before, after), used_start, used_stop)

"""The track and video tables as sequences of records.  raw -> [tracks] -> features -> windows"""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import numpy as np
from numpy.typing import NDArray

from cache.format.records import TrackRecord, VideoEntry
from cache.format.tables import Tables, decode_text, decode_texts


class Tracks(Sequence[TrackRecord]):
    """The track table: records one by one, or whole columns as arrays."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def __len__(self) -> int:
        return len(self._tables["track_start"])

    @overload
    def __getitem__(self, number: int) -> TrackRecord: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[TrackRecord]: ...
    def __getitem__(self, number: int | slice) -> TrackRecord | Sequence[TrackRecord]:
        if isinstance(number, slice):
            return [self._record(k) for k in range(*number.indices(len(self)))]
        return self._record(range(len(self))[number])

    @property
    def names(self) -> list[str]:
        """All names, without making records."""
        return decode_texts(self._tables["track_name"])

    @property
    def start(self) -> NDArray[np.int64]:
        """(N,) first row."""
        return self._tables["track_start"]

    @property
    def stop(self) -> NDArray[np.int64]:
        """(N,) last row + 1."""
        return self._tables["track_stop"]

    @property
    def step(self) -> NDArray[np.int32]:
        """(N,) frames of the video from one row to the next."""
        return self._tables["track_step"]

    @property
    def fps(self) -> NDArray[np.float64]:
        """(N,) frames a second of the video, NaN where not known."""
        return self._tables["track_fps"]

    @property
    def crop_scale(self) -> NDArray[np.float64]:
        """(N,) crop side / box side."""
        return self._tables["track_crop_scale"]

    @property
    def video(self) -> NDArray[np.int32]:
        """(N,) number in `Split.videos`."""
        return self._tables["track_video"]

    def _record(self, number: int) -> TrackRecord:
        tables = self._tables
        intrinsics = tables["track_intrinsics"][number]
        record = TrackRecord(
            name=decode_text(tables["track_name"][number]),
            video=decode_text(tables["video_name"][tables["track_video"][number]]),
            start=int(tables["track_start"][number]),
            stop=int(tables["track_stop"][number]),
            fps=float(tables["track_fps"][number]),
            step=int(tables["track_step"][number]),
            crop_scale=float(tables["track_crop_scale"][number]),
        )
        record.gender = decode_text(tables["track_gender"][number])
        record.intrinsics = None if np.isnan(intrinsics).all() else intrinsics.copy()
        return record


class Videos(Sequence[VideoEntry]):
    """The video table, an entry at a time."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def __len__(self) -> int:
        return len(self._tables["video_name"])

    @property
    def names(self) -> list[str]:
        """All names, without making entries."""
        return decode_texts(self._tables["video_name"])

    @property
    def fingerprints(self) -> list[str]:
        """All fingerprints, without making entries."""
        return decode_texts(self._tables["video_fingerprint"])

    @overload
    def __getitem__(self, number: int) -> VideoEntry: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[VideoEntry]: ...
    def __getitem__(self, number: int | slice) -> VideoEntry | Sequence[VideoEntry]:
        if isinstance(number, slice):
            return [self._tables.video(k) for k in range(*number.indices(len(self)))]
        return self._tables.video(range(len(self))[number])

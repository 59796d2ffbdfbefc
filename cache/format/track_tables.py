"""The tracks and videos of a split, as records.  raw -> [tracks] -> features -> windows

`TrackTable` and `VideoTable` show the rows of a split's `Tables` to readers. A record is created
when it is accessed, so that a split with a million tracks opens at once.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, Self, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from cache.arrays import Array, Doubles, Ints
from cache.format.layout import TABLES, TEXTS
from cache.format.records import VideoEntry
from cache.format.tables import Tables

_R = TypeVar("_R")


class _TrackFields(NamedTuple):
    name: str
    video: str
    start: int
    stop: int
    fps: float
    step: int
    crop_scale: float


class TrackRecord(_TrackFields):
    """One committed track: rows [start, stop) of its split.

    The tuple is (name, video, start, stop, fps, step, crop_scale). Comparisons ignore the further
    attributes `gender`, `intrinsics` ((3, 3) float64 px, or None) and `extra` (track columns).
    """

    gender: str
    intrinsics: Doubles | None
    extra: Mapping[str, Array]

    def __new__(
        cls,
        *fields: Any,
        gender: str = "neutral",
        intrinsics: Doubles | None = None,
        extra: Mapping[str, Array] = MappingProxyType({}),
    ) -> Self:
        record = super().__new__(cls, *fields)
        record.gender = gender
        record.intrinsics = intrinsics
        record.extra = extra
        return record


class _Table(Sequence[_R], ABC):
    """A sequence of records, each created from the tables when it is accessed."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    @abstractmethod
    def _record(self, number: int) -> _R: ...

    @overload
    def __getitem__(self, number: int) -> _R: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[_R]: ...
    def __getitem__(self, number: int | slice) -> _R | Sequence[_R]:
        chosen = range(len(self))[number]
        if isinstance(chosen, int):
            return self._record(chosen)
        return list(map(self._record, chosen))


class TrackTable(_Table[TrackRecord]):
    """The track table: records one by one, or whole columns as arrays."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables)
        self.start: Ints = tables["track_start"]  # (N,) first row
        self.stop: Ints = tables["track_stop"]  # (N,) last row + 1
        # (N,) frames of the video from one row to the next
        self.step: NDArray[np.int32] = tables["track_step"]
        # (N,) frames a second of the video, NaN where not known
        self.fps: Doubles = tables["track_fps"]
        # (N,) crop side / box side
        self.crop_scale: Doubles = tables["track_crop_scale"]
        self.video: NDArray[np.int32] = tables["track_video"]  # (N,) number in `Split.videos`
        self.extra: dict[str, Array] = {}
        """Extra track columns by name: (N, ...)."""
        for name, table in tables.items():
            is_usual = name in TABLES or name in TEXTS
            if name.startswith("track_") and not is_usual:
                self.extra[name.removeprefix("track_")] = table

    def __len__(self) -> int:
        return len(self.tables["track_start"])

    def _record(self, number: int) -> TrackRecord:
        tables = self.tables
        intrinsics = tables["track_intrinsics"][number].copy()
        return TrackRecord(
            _decode_text(tables["track_name"][number]),
            _decode_text(tables["video_name"][self.video[number]]),
            int(self.start[number]),
            int(self.stop[number]),
            float(self.fps[number]),
            int(self.step[number]),
            float(self.crop_scale[number]),
            gender=_decode_text(tables["track_gender"][number]),
            intrinsics=None if np.isnan(intrinsics).all() else intrinsics,
            extra={name: values[number].copy() for name, values in self.extra.items()},
        )

    @property
    def names(self) -> list[str]:
        return self.tables.texts("track_name")

    @property
    def n_rows(self) -> int:
        return int((self.stop - self.start).sum())

    def __repr__(self) -> str:
        return f"TrackTable of {len(self):,} tracks, {self.n_rows:,} rows"


class VideoTable(_Table[VideoEntry]):
    """The video table, as a sequence of records."""

    def __len__(self) -> int:
        return len(self.tables["video_name"])

    def _record(self, number: int) -> VideoEntry:
        tables = self.tables
        return VideoEntry(
            name=_decode_text(tables["video_name"][number]),
            source=_decode_text(tables["video_source"][number]),
            pixels=_decode_text(tables["video_pixels"][number]),
            fingerprint=_decode_text(tables["video_fingerprint"][number]),
            width=int(tables["video_width"][number]),
            height=int(tables["video_height"][number]),
            account=self.account(number),
        )

    @property
    def names(self) -> list[str]:
        return self.tables.texts("video_name")

    @property
    def fingerprints(self) -> list[str]:
        return self.tables.texts("video_fingerprint")

    def by_name(self) -> Mapping[str, VideoEntry]:
        return _VideosByName(self)

    def account(self, number: int) -> dict[str, Any]:
        stops = self.tables["video_account_stop"]
        start = stops[number - 1] if number else 0
        text = self.tables["video_account"][start : stops[number]]
        return dict(json.loads(text.tobytes()))


class _VideosByName(Mapping[str, VideoEntry]):
    """Videos by name, created on access."""

    def __init__(self, videos: VideoTable) -> None:
        self._videos = videos
        self._numbers = {name: number for number, name in enumerate(videos.names)}

    def __getitem__(self, name: str) -> VideoEntry:
        return self._videos[self._numbers[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


def _decode_text(row: Array) -> str:
    """(L,) uint8 -> one text."""
    return bytes(row).rstrip(b"\0").decode()

"""The tracks and videos of a split, as records.  raw -> [tracks] -> features -> windows

`TrackTable` and `VideoTable` show the rows of a split's `Tables` to readers. A record is created
when it is accessed, so that a split with a million tracks opens at once.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from cache.arrays import Array, Doubles, Ints
from cache.format.layout import TABLES, TEXTS
from cache.format.records import VideoEntry
from cache.format.tables import Tables

_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class TrackRecord:
    """One committed track: rows [start, stop) of its split.

    Comparisons ignore `gender`, `intrinsics` and `extra`.
    """

    name: str
    video: str
    start: int
    stop: int
    fps: float  # of the video during the track; NaN where not known
    step: int  # frames of the video from one row to the next
    crop_scale: float  # crop side / box side
    gender: str = field(default="neutral", compare=False, repr=False)
    intrinsics: Doubles | None = field(default=None, compare=False, repr=False)  # (3, 3) px
    # extra track columns by name
    extra: Mapping[str, Array] = field(default_factory=dict, compare=False, repr=False)


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
    """The track table: records one by one, or whole columns as arrays.

    Attributes:
        start, stop, step, fps, crop_scale: (N,) as in `TrackRecord`.
        video: (N,) number in `Split.videos`.
        extra: extra track columns by name, (N, ...).
    """

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables)
        self.start: Ints = tables["track_start"]
        self.stop: Ints = tables["track_stop"]
        self.step: NDArray[np.int32] = tables["track_step"]
        self.fps: Doubles = tables["track_fps"]
        self.crop_scale: Doubles = tables["track_crop_scale"]
        self.video: NDArray[np.int32] = tables["track_video"]
        self.extra: dict[str, Array] = {}
        for name, table in tables.items():
            is_declared = name in TABLES or name in TEXTS
            if name.startswith("track_") and not is_declared:
                self.extra[name.removeprefix("track_")] = table

    def __len__(self) -> int:
        return len(self.tables["track_start"])

    def _record(self, number: int) -> TrackRecord:
        tables = self.tables
        intrinsics = tables["track_intrinsics"][number].copy()
        return TrackRecord(
            name=_decode_text(tables["track_name"][number]),
            video=_decode_text(tables["video_name"][self.video[number]]),
            start=int(self.start[number]),
            stop=int(self.stop[number]),
            fps=float(self.fps[number]),
            step=int(self.step[number]),
            crop_scale=float(self.crop_scale[number]),
            gender=_decode_text(tables["track_gender"][number]),
            intrinsics=None if np.isnan(intrinsics).all() else intrinsics,
            extra={name: values[number].copy() for name, values in self.extra.items()},
        )

    @property
    def names(self) -> list[str]:
        """The names of all tracks, decoded at each access."""
        return self.tables.texts("track_name")

    @property
    def n_rows(self) -> int:
        return int((self.stop - self.start).sum())

    def __repr__(self) -> str:
        return f"TrackTable of {len(self):,} tracks, {self.n_rows:,} rows"


class VideoTable(_Table[VideoEntry]):
    """The video table, as a sequence of records."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables)
        self._sums = tables.sums

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
            sums={n: float(t[number]) for n, t in self._sums.items() if not np.isnan(t[number])},
        )

    @property
    def names(self) -> list[str]:
        """The names of all videos, decoded at each access."""
        return self.tables.texts("video_name")

    @property
    def fingerprints(self) -> list[str]:
        return self.tables.texts("video_fingerprint")

    def account(self, number: int) -> dict[str, Any]:
        """A video's frame accounting: JSON text, those of all videos end to end in one table."""
        stops = self.tables["video_account_stop"]
        start = stops[number - 1] if number else 0
        text = self.tables["video_account"][start : stops[number]]
        return dict(json.loads(text.tobytes()))


class VideosByName(Mapping[str, VideoEntry]):
    """The videos of the video table by name, created on access."""

    def __init__(self, tables: Tables) -> None:
        self._videos = VideoTable(tables)
        self._numbers = {name: number for number, name in enumerate(self._videos.names)}

    def __getitem__(self, name: str) -> VideoEntry:
        return self._videos[self._numbers[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


def _decode_text(row: Array) -> str:
    """(L,) uint8 -> one text."""
    return bytes(row).rstrip(b"\0").decode()

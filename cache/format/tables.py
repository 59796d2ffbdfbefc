"""The tracks, runs and videos of a split, as arrays and as records.  raw -> [tracks] -> features ->
windows

`Tables` holds one array per field of a track, run or video, such as `track_start` (n_tracks,); each
is stored as a Zarr array of its own. Writers make it from records of videos (`records.py`) and join
it with the committed ones. `TrackTable` and `VideoTable` show its rows as records to readers.

Texts are (N, L) uint8, UTF-8 padded with zeros: Zarr v3 has no settled string type. A run is a
segment of one track whose frame indices are one step apart. A video's account is a JSON object that
says what became of its frames.
"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from cache.arrays import Array, Doubles, Ints
from cache.errors import CacheError
from cache.format.extra import ExtraColumn
from cache.format.layout import TABLE_FOLDER, TABLES, TEXTS, Geometry, canonical, shard_key
from cache.format.records import VideoEntry
from cache.format.shard import crc32c, sha256
from cache.storage.base import Bytes

_R = TypeVar("_R")

_LONGEST_TEXT: Final = 4096  # bytes; one long name widens its whole table


class Tables(dict[str, Array]):
    """All tables of one commit by name: texts as (N, L) uint8, the other tables with the dtypes in
    TABLES, and the extra columns of tracks.
    """

    @classmethod
    def from_records(
        cls, videos: Sequence[Mapping[str, Any]], extra: Collection[ExtraColumn] = ()
    ) -> Tables:
        """Build the tables from records that `video_record` made, with extra track columns."""
        tracks: list[Mapping[str, Any]] = []
        track_video: list[int] = []
        for number, video in enumerate(videos):
            tracks += video["tracks"]
            track_video += [number] * len(video["tracks"])
        runs: list[tuple[int, int]] = []
        intrinsics = np.full((len(tracks), 3, 3), math.nan)
        for number, track in enumerate(tracks):
            runs += track["runs"]
            if track["intrinsics"] is not None:
                intrinsics[number] = track["intrinsics"]
        accounts = [canonical(video["account"]) for video in videos]
        columns: dict[str, Any] = {
            "track_video": track_video,
            "track_intrinsics": intrinsics,
            "run_start": [start for start, _ in runs],
            "run_stop": [stop for _, stop in runs],
            "video_account": np.frombuffer(b"".join(accounts), np.uint8),
            "video_account_stop": np.cumsum([len(account) for account in accounts]),
        }
        for name in {*TABLES, *TEXTS} - columns.keys():
            kind, _, key = name.partition("_")
            records = tracks if kind == "track" else videos
            columns[name] = [record[key] for record in records]
        tables = cls({name: encode_texts(columns[name]) for name in TEXTS})
        for name, (dtype, trailing) in TABLES.items():
            tables[name] = np.asarray(columns[name]).astype(dtype).reshape(-1, *trailing)
        for column in extra:
            if column.per == "track":
                tables[column.array] = _extra_table(column, tracks)
        return tables

    def to_files(self) -> dict[str, bytes]:
        """The bytes of each table's file: its numbers, then their CRC-32C. An empty table is stored
        as one row of zeros.
        """
        files: dict[str, bytes] = {}
        for name, array in self.items():
            data = array.tobytes()
            if not array.size:
                data = bytes(math.prod(max(1, n) for n in array.shape) * array.itemsize)
            files[name] = data + crc32c(data)
        return files

    def drop_videos(self, videos: Iterable[str]) -> Tables:
        """A copy without some videos, their tracks and runs. Rows keep their numbers."""
        gone = frozenset(videos)
        if not gone:
            return self
        names = self.texts("video_name")
        keep_video = np.array([name not in gone for name in names], bool)
        keep_track = keep_video[self["track_video"]]
        track_of_run = np.searchsorted(self["track_start"], self["run_start"], side="right") - 1
        keep = {"video": keep_video, "track": keep_track, "run": keep_track[track_of_run]}
        tables = Tables()
        for name, array in self.items():
            if name.startswith("video_account"):
                continue
            kind = name.partition("_")[0]  # "video", "track" or "run"
            rows = array[keep[kind]]
            tables[name] = _narrow(rows) if name in TEXTS else rows
        new_number = np.cumsum(keep_video) - 1
        tables["track_video"] = new_number[tables["track_video"]].astype("<i4")
        sizes = np.diff(self["video_account_stop"], prepend=0)
        tables["video_account"] = self["video_account"][np.repeat(keep_video, sizes)]
        tables["video_account_stop"] = np.cumsum(sizes[keep_video]).astype("<i8")
        return tables

    def plus(self, later: Tables) -> Tables:
        """Append the tables of a later part, whose video numbers and account ends count from 0."""
        joined = Tables()
        for name, array in self.items():
            appended = later[name]
            if name == "track_video":
                appended = appended + np.int32(len(self["video_name"]))
            elif name == "video_account_stop":
                appended = appended + np.int64(len(self["video_account"]))
            elif name in TEXTS:
                width = max(array.shape[1], appended.shape[1])
                array = _widen(array, width)
                appended = _widen(appended, width)
            joined[name] = np.concatenate([array, appended])
        return joined

    def texts(self, name: str, rows: slice | Array = slice(None)) -> list[str]:
        """The texts of a table, or of some of its rows."""
        return [raw.decode() for raw in self.utf8_texts(name, rows).tolist()]

    def utf8_texts(self, name: str, rows: slice | Array = slice(None)) -> NDArray[np.bytes_]:
        """The texts of a table, or of some of its rows, as an array (N,) of UTF-8 bytes."""
        table = self[name][rows]
        return np.ascontiguousarray(table).view(f"S{table.shape[1]}")[:, 0]

    def track_of(self, rows: Array) -> Ints:
        """The number of each row's track (same shape); -1 for rows without a committed track."""
        starts = self["track_start"]
        stops = self["track_stop"]
        # Tracks are sorted and disjoint: a row is in a track if one more has begun than ended.
        n_begun = np.searchsorted(starts, rows, side="right")
        n_ended = np.searchsorted(stops, rows, side="right")
        return np.where(n_begun > n_ended, n_begun - 1, -1)

    def live_by_shard(self, geometry: Geometry, extent: int) -> Ints:
        """Count the rows of committed tracks in each shard of a split with `extent` rows. Returns
        an array (number of shards,).
        """
        starts = self["track_start"]
        stops = self["track_stop"]
        n_shards = geometry.shards(extent)
        if not len(starts):
            return np.zeros(n_shards, np.int64)
        # how many rows all earlier tracks have together, for each track
        before = np.concatenate([[0], np.cumsum(stops - starts)])
        boundaries = np.arange(n_shards + 1) * geometry.rows_per_shard
        # the last track that starts at or before each boundary; -1: none does
        track = np.searchsorted(starts, boundaries, side="right") - 1
        within = np.clip(boundaries - starts[track], 0, (stops - starts)[track])
        rows_before = np.where(track < 0, 0, before[track] + within)
        counted: Ints = np.diff(rows_before)
        return counted

    def live_shards(self, geometry: Geometry) -> list[int]:
        """Numbers of the shards that hold rows of committed tracks, ascending."""
        extent = int(self["track_stop"].max(initial=0))
        live: list[int] = np.flatnonzero(self.live_by_shard(geometry, extent)).tolist()
        return live


def table_entry(array: Array, file: bytes) -> dict[str, Any]:
    """The manifest's entry for a table that is stored in this file."""
    return {"dtype": array.dtype.name, "shape": [*array.shape], "sha256": sha256(file)}


def table_folder(name: str, entry: Mapping[str, Any]) -> str:
    """The folder of a table's Zarr array, below its split."""
    return f"{TABLE_FOLDER}/{name}-{entry['sha256'][:16]}"


def table_key(name: str, entry: Mapping[str, Any]) -> str:
    """The path of a table's file, below its split."""
    return shard_key(table_folder(name, entry), 0, entry["shape"][1:])


def table_size(entry: Mapping[str, Any]) -> int:
    """The size of a table's file in bytes: its numbers, at least one, and their CRC-32C."""
    n_numbers = math.prod(max(1, n) for n in entry["shape"])
    return int(n_numbers * np.dtype(entry["dtype"]).itemsize + 4)


def parse_table(file: Bytes, entry: Mapping[str, Any]) -> Array:
    """View a table's file as its array."""
    shape = tuple(entry["shape"])
    dtype = np.dtype(entry["dtype"]).newbyteorder("<")
    return np.frombuffer(file, dtype, count=math.prod(shape)).reshape(shape)


def _extra_table(column: ExtraColumn, tracks: Sequence[Mapping[str, Any]]) -> Array:
    """The table (N, ...) of an extra track column, from the records of N tracks."""
    table = column.empty(len(tracks))
    for number, track in enumerate(tracks):
        if column.array in track:
            table[number] = track[column.array]
    return table


def encode_texts(texts: Sequence[str]) -> Array:
    """Encode N texts as (N, L) uint8; L is the longest text's length in bytes. Raises CacheError
    for a text that contains NUL, is too long, or is no UTF-8.
    """
    data = []
    for text in texts:
        try:
            raw = text.encode()
        except UnicodeEncodeError:  # half of a surrogate pair
            raw = b"\0"
        if b"\0" in raw or len(raw) > _LONGEST_TEXT:
            expected = f"up to {_LONGEST_TEXT} bytes of UTF-8 without NUL"
            raise CacheError(f"{text[:80]!r}... is no text for a table: expected {expected}")
        data.append(raw)
    width = max(map(len, data), default=0) or 1
    return np.array(data, f"S{width}").view(np.uint8).reshape(len(data), width)


def _decode_text(row: Array) -> str:
    """(L,) uint8 -> one text."""
    return bytes(row).rstrip(b"\0").decode()


def _narrow(texts: Array) -> Array:
    """Drop trailing padding that no text needs."""
    used = np.flatnonzero(texts.any(axis=0))
    width = used.max(initial=0) + 1
    return texts[:, :width]


def _widen(texts: Array, width: int) -> Array:
    return np.pad(texts, ((0, 0), (0, width - texts.shape[1])))


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
        try:
            chosen = range(len(self))[number]
        except TypeError:
            do = "By name: [names.index(NAME)]."
            raise TypeError(
                f"expected a number or a slice of {len(self)} records, found {number!r}. {do}"
            ) from None
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
        intrinsics = tables["track_intrinsics"][number]
        record = TrackRecord(
            name=_decode_text(tables["track_name"][number]),
            video=_decode_text(tables["video_name"][self.video[number]]),
            start=int(self.start[number]),
            stop=int(self.stop[number]),
            fps=float(self.fps[number]),
            step=int(self.step[number]),
            crop_scale=float(self.crop_scale[number]),
        )
        record.gender = _decode_text(tables["track_gender"][number])
        record.intrinsics = intrinsics.copy()
        if np.isnan(intrinsics).all():
            record.intrinsics = None
        record.extra = {name: values[number].copy() for name, values in self.extra.items()}
        return record

    @property
    def names(self) -> list[str]:
        return self.tables.texts("track_name")

    def __repr__(self) -> str:
        return f"TrackTable of {len(self):,} tracks, {int((self.stop - self.start).sum()):,} rows"


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

"""The tracks, runs and videos of a split, as arrays.  raw -> [tracks] -> features -> windows

`Tables` holds one array per field of a track, run or video, such as `track_start` (n_tracks,); each
is stored as a Zarr array of its own (`StoredTable`). Writers make it from records of videos
(`records.py`) and join it with the committed ones; `track_tables.py` shows its rows as records.

Texts are (N, L) uint8, UTF-8 padded with zeros: Zarr v3 has no settled string type. A run is a
segment of one track whose frame indices are one step apart. A video's account is a JSON object that
says what became of its frames.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.arrays import Array, Doubles, Ints
from cache.errors import CacheError
from cache.format.extra import ExtraColumn
from cache.format.layout import (
    TABLE_FOLDER,
    TABLES,
    TEXTS,
    Geometry,
    canonical,
    shard_key,
    table_metadata,
)
from cache.format.records import VideoRecord
from cache.format.shard import crc32c, sha256
from cache.storage.base import Bytes
from cache.windows import Ranges, find_ranges

_LONGEST_TEXT: Final = 4096  # bytes; one long name widens its whole table


class Tables(dict[str, Array]):
    """All tables of one commit by name: texts as (N, L) uint8, the other tables with the dtypes in
    TABLES, and the extra columns of tracks.
    """

    @classmethod
    def from_records(
        cls, videos: Sequence[VideoRecord], extra: Collection[ExtraColumn] = ()
    ) -> Tables:
        """Build the tables of videos and their tracks, with extra track columns."""
        tracks: list[Mapping[str, Any]] = []
        track_video: list[int] = []
        for number, video in enumerate(videos):
            tracks += video.tracks
            track_video += [number] * len(video.tracks)
        runs: list[tuple[int, int]] = []
        intrinsics = np.full((len(tracks), 3, 3), math.nan)
        for number, track in enumerate(tracks):
            runs += track["runs"]
            if track["intrinsics"] is not None:
                intrinsics[number] = track["intrinsics"]
        accounts = [canonical(video.account) for video in videos]
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
            if kind == "track":
                columns[name] = [track[key] for track in tracks]
            else:
                columns[name] = [getattr(video, key) for video in videos]
        tables = cls({name: cls.encode_texts(columns[name]) for name in TEXTS})
        for name, (dtype, trailing) in TABLES.items():
            tables[name] = np.asarray(columns[name]).astype(dtype).reshape(-1, *trailing)
        for column in extra:
            if column.per == "track":
                table = column.empty(len(tracks))
                for number, track in enumerate(tracks):
                    if column.array in track:
                        table[number] = track[column.array]
                tables[column.array] = table
        return tables

    @staticmethod
    def encode_texts(texts: Sequence[str]) -> Array:
        """Encode N texts as (N, L) uint8; L is the longest text's length in bytes.

        Raises CacheError for a text that contains NUL, is too long, or is no UTF-8.
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

    @property
    def track_rows(self) -> Ranges:
        """The [start, stop) rows of each track (N, 2), ascending."""
        return np.stack([self["track_start"], self["track_stop"]], axis=1)

    @property
    def run_rows(self) -> Ranges:
        """The [start, stop) rows of each run of consecutive frames (R, 2), ascending."""
        return np.stack([self["run_start"], self["run_stop"]], axis=1)

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
            if name in TEXTS:  # without trailing padding that no text needs
                used = np.flatnonzero(rows.any(axis=0))
                rows = rows[:, : used.max(initial=0) + 1]
            tables[name] = rows
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
        return find_ranges(rows, self["track_start"], self["track_stop"])

    def live_by_shard(self, geometry: Geometry, extent: int) -> Ints:
        """Count the rows of committed tracks in each shard of a split with `extent` rows. Returns
        an array (number of shards,).
        """
        edges = self.track_rows.ravel()
        edges = np.concatenate([[0], edges])
        # The number of tracks' rows before each edge. It grows by one a row within a track, and not
        # at all between tracks.
        rows_between = np.diff(edges)
        rows_between[::2] = 0
        before = np.concatenate([[0], np.cumsum(rows_between)])
        boundaries = np.arange(geometry.shards(extent) + 1) * geometry.rows_per_shard
        rows_before: Doubles = np.interp(boundaries, edges, before)
        return np.diff(rows_before).astype(np.int64)


@dataclass(frozen=True, slots=True)
class StoredTable:
    """A table's entry in a split's manifest, and its file: its numbers, then their CRC-32C. An
    empty table is stored as one row of zeros.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str  # of the file

    @classmethod
    def encode(cls, name: str, array: Array) -> tuple[StoredTable, bytes]:
        """Encode a table. Returns its entry, and the bytes of its file."""
        data = array.tobytes()
        if not array.size:
            data = bytes(math.prod(max(1, n) for n in array.shape) * array.itemsize)
        file = data + crc32c(data)
        return cls(name, array.dtype.name, array.shape, sha256(file)), file

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> list[StoredTable]:
        """The tables that a manifest names; [] for a stream's."""
        tables = []
        for name, entry in manifest.get("tables", {}).items():
            tables.append(cls(name, entry["dtype"], tuple(entry["shape"]), entry["sha256"]))
        return tables

    def as_json(self) -> dict[str, Any]:
        """The table's entry in the manifest, which has it by name."""
        return {"dtype": self.dtype, "shape": list(self.shape), "sha256": self.sha256}

    @property
    def folder(self) -> str:
        """The folder of the table's Zarr array, below its split."""
        return f"{TABLE_FOLDER}/{self.name}-{self.sha256[:16]}"

    @property
    def key(self) -> str:
        """The path of the table's file, below its split."""
        return shard_key(self.folder, 0, self.shape[1:])

    @property
    def metadata(self) -> bytes:
        """The zarr.json of the table's array."""
        return table_metadata(self.shape, np.dtype(self.dtype))

    def decode(self, file: Bytes) -> Array | None:
        """View the bytes of a file as the table; None if they are not those of this entry."""
        dtype = np.dtype(self.dtype).newbyteorder("<")
        n_numbers = math.prod(max(1, n) for n in self.shape)
        if sha256(file) != self.sha256 or len(file) != n_numbers * dtype.itemsize + 4:
            return None
        return np.frombuffer(file, dtype, count=math.prod(self.shape)).reshape(self.shape)


def _widen(texts: Array, width: int) -> Array:
    return np.pad(texts, ((0, 0), (0, width - texts.shape[1])))

"""The tracks, runs and videos of a split as arrays.  raw -> [tracks] -> features -> windows

A table is a set of plain Zarr arrays of equal length. Texts are (N, L) uint8, UTF-8 padded with zeros: Zarr v3 has no
settled string type. A run is a segment of one track whose frame indices are one step apart.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format.layout import Geometry, shard_key, table_metadata
from cache.format.shard import crc32c
from cache.storage.base import Bytes

Array = NDArray[Any]

TEXTS: Final = frozenset(
    {"track_name", "track_gender", "video_name", "video_source", "video_pixels", "video_fingerprint"}
)
TABLES: Final[Mapping[str, tuple[str, tuple[int, ...]]]] = {  # all but texts: name -> dtype, what follows the rows
    "track_video": ("<i4", ()),  # number in the video table
    "track_start": ("<i8", ()),  # rows [start, stop) of the split
    "track_stop": ("<i8", ()),
    "track_step": ("<i4", ()),  # frames of the video from one row to the next
    "track_fps": ("<f8", ()),  # of the video's own frames; NaN where not known
    "track_crop_scale": ("<f8", ()),
    "track_intrinsics": ("<f8", (3, 3)),  # px; NaN where not known
    "run_start": ("<i8", ()),
    "run_stop": ("<i8", ()),
    "video_width": ("<i4", ()),
    "video_height": ("<i4", ()),
    "video_account": ("u1", ()),  # the JSON of all accounts, one after the other
    "video_account_stop": ("<i8", ()),  # where each video's JSON ends in it
}
_LONGEST_TEXT: Final = 4096  # bytes; one long name widens its whole table


def encode_texts(texts: Sequence[str]) -> Array:
    """N texts -> (N, L) uint8, L the longest in bytes. Raises CacheError on a NUL or an absurd length."""
    data = [text.encode() for text in texts]
    for raw in data:
        if b"\0" in raw or len(raw) > _LONGEST_TEXT:
            expected = f"up to {_LONGEST_TEXT} bytes without NUL"
            raise CacheError(f"{raw[:80]!r}... is no text for a table: expected {expected}")
    width = max(1, max(map(len, data), default=1))
    return np.array(data, f"S{width}").view(np.uint8).reshape(len(data), width)


def decode_text(row: Array) -> str:
    """(L,) uint8 -> one text."""
    return bytes(row).rstrip(b"\0").decode()


def decode_texts(rows: Array) -> list[str]:
    """(N, L) uint8 -> N texts."""
    packed = np.ascontiguousarray(rows).view(f"S{rows.shape[1]}")[:, 0]
    return [raw.decode() for raw in packed.tolist()]


class Tables(dict[str, Array]):
    """All tables of one commit by name: texts (N, L) uint8, the others as in TABLES, and extra ones of tracks."""

    @classmethod
    def from_files(cls, files: Mapping[str, Bytes]) -> Tables:
        """Views into the files that a manifest names by their digests."""
        tables = cls()
        extra = [key.partition("/")[0] for key in files if key.startswith("track_") and key.endswith("/zarr.json")]
        for name in dict.fromkeys((*TABLES, *TEXTS, *extra)):
            meta = json.loads(bytes(files[f"{name}/zarr.json"]))
            shape, dtype = tuple(meta["shape"]), np.dtype(meta["data_type"]).newbyteorder("<")
            data = files[shard_key(name, 0, shape[1:])]
            tables[name] = np.frombuffer(data, dtype, count=math.prod(shape)).reshape(shape)
        return tables

    def to_files(self) -> dict[str, bytes]:
        """Small files by their path below the split: zarr.json and one chunk a table."""
        files: dict[str, bytes] = {}
        for name, array in self.items():
            whole = array if array.size else np.zeros([max(1, n) for n in array.shape], array.dtype)
            data = whole.tobytes()
            files[f"{name}/zarr.json"] = table_metadata(array.shape, array.dtype)
            files[shard_key(name, 0, array.shape[1:])] = data + crc32c(data)
        return files

    def drop_videos(self, videos: Iterable[str]) -> Tables:
        gone = frozenset(videos)
        if not gone:
            return self
        names = decode_texts(self["video_name"])
        keep_video = np.array([name not in gone for name in names], bool)
        keep_track = keep_video[self["track_video"]]
        keep_run = keep_track[np.searchsorted(self["track_start"], self["run_start"], side="right") - 1]
        tables = Tables()
        for name, array in self.items():
            if not name.startswith("video_account"):
                mask = {"video": keep_video, "track": keep_track, "run": keep_run}[name.split("_")[0]]
                tables[name] = narrow(array[mask]) if name in TEXTS else array[mask]
        tables["track_video"] = (np.cumsum(keep_video) - 1)[tables["track_video"]].astype("<i4")
        stops = self["video_account_stop"]
        sizes = np.diff(stops, prepend=0)
        tables["video_account"] = self["video_account"][np.repeat(keep_video, sizes)]
        tables["video_account_stop"] = np.cumsum(sizes[keep_video]).astype("<i8")
        return tables

    def plus(self, later: Tables) -> Tables:
        """These tables followed by later ones, whose video and account numbers count from 0."""
        joined = Tables()
        for name, array in self.items():
            appended = later[name]
            if name == "track_video":
                appended = appended + np.int32(len(self["video_name"]))
            elif name == "video_account_stop":
                appended = appended + np.int64(len(self["video_account"]))
            elif name in TEXTS:
                width = max(array.shape[1], appended.shape[1])
                array, appended = (np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in (array, appended))
            joined[name] = np.concatenate([array, appended])
        return joined


def narrow(texts: Array) -> Array:
    """Drop trailing padding that no text needs."""
    used = np.flatnonzero(texts.any(axis=0))
    return texts[:, : used[-1] + 1 if len(used) else 1]


def track_of(tables: Tables, rows: Array) -> NDArray[np.int64]:
    """Rows (any shape) -> the number of each row's track; -1 for rows of no committed track."""
    starts, stops = tables["track_start"], tables["track_stop"]
    if not len(starts):
        return np.full(rows.shape, -1, np.int64)
    track = np.searchsorted(starts, rows, side="right") - 1
    return np.where((track >= 0) & (rows < stops[track]), track, -1)


def live_by_shard(tables: Tables, geometry: Geometry, extent: int) -> NDArray[np.int64]:
    """(shards,) number of rows of committed tracks in each shard of a split with `extent` rows."""
    starts, stops = tables["track_start"], tables["track_stop"]
    n_shards = geometry.shards(extent)
    if not len(starts):
        return np.zeros(n_shards, np.int64)
    before = np.concatenate([[0], np.cumsum(stops - starts)])  # rows of all tracks before each one
    boundaries = np.arange(n_shards + 1) * geometry.rows_per_shard
    track = np.searchsorted(starts, boundaries, side="right") - 1  # the last that starts at or before a boundary
    within = np.clip(boundaries - starts[track], 0, (stops - starts)[track])
    counted: NDArray[np.int64] = np.diff(np.where(track < 0, 0, before[track] + within))
    return counted


def live_shards(tables: Tables, geometry: Geometry) -> list[int]:
    """The shards that hold a row of a committed track, ascending."""
    extent = int(tables["track_stop"].max(initial=0))
    return [int(shard) for shard in np.flatnonzero(live_by_shard(tables, geometry, extent))]

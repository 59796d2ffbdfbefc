"""The tracks, runs and videos of a split, as arrays.  raw -> [tracks] -> features -> windows

`Tables` holds one array per field of a track, run or video, such as `track_start` (n_tracks,). All
of a commit are stored in one file, an uncompressed .npz. Writers make them from records of videos
(`records.py`) and join them with the committed ones; `track_tables.py` shows their rows as records.

Texts are (N, L) uint8, UTF-8 padded with zeros. A run is a segment of one track whose frame indices
are one step apart. A video's account is a JSON object that says what became of its frames.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.arrays import Array, Doubles, Ints
from cache.errors import CacheError
from cache.format.extra import ExtraColumn
from cache.format.layout import (
    TABLES,
    TEXTS,
    VIDEO_SUM,
    Geometry,
    canonical,
)
from cache.format.records import VideoRecord
from cache.storage.base import Bytes
from cache.windows import Ranges, find_ranges

_LONGEST_TEXT: Final = 4096  # bytes; one long name widens its whole table
_ALIGNMENT: Final = 64  # bytes: NumPy copies arrays that do not start at multiples of their items
# the header of a zip file's member: 26 bytes, the sizes of its name and its extra field, these two
_MEMBER: Final = re.compile(rb"PK\x03\x04.{22}(..)(..)", re.DOTALL)
_EXTRA_FIELD: Final = 0xD935  # the kind by which Android aligns members
# the header of an array
_NPY: Final = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(\|[iu]1|<[iu][248]|<f[48])', 'fortran_order': False, "
    rb"'shape': \(([0-9, ]*)\), \} *\n",
    re.DOTALL,
)


class Tables(dict[str, Array]):
    """All tables of one commit by name: texts as (N, L) uint8, the other tables with the dtypes in
    TABLES, the extra columns of tracks, and the sums of videos.
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
        for name in sorted(set[str]().union(*(video.sums for video in videos))):
            values = [video.sums.get(name, math.nan) for video in videos]
            tables[f"{VIDEO_SUM}{name}"] = np.array(values, "<f8")
        return tables

    def encode(self) -> bytes:
        """The bytes of the file: a .npz whose arrays start at multiples of 64 bytes. Equal tables
        give equal bytes, since all members have the same date.
        """
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name in sorted(self):
                array = np.ascontiguousarray(self[name])
                member = zipfile.ZipInfo(f"{name}.npy")
                member.file_size = array.nbytes  # over 2 GB, its header is a longer one
                padding = -(file.tell() + 36 + len(member.filename)) % _ALIGNMENT
                field = struct.pack("<HHH", _EXTRA_FIELD, 2 + padding, _ALIGNMENT)
                member.extra = field + bytes(padding)
                with archive.open(member, "w") as stored:
                    np.lib.format.write_array(stored, array, (1, 0), allow_pickle=False)
        return file.getvalue()

    @classmethod
    def decode(cls, file: Bytes) -> Tables:
        """View the bytes of a file, which may come from anywhere, as its arrays. Raises ValueError
        or OverflowError for a file that `encode` has not made.
        """
        tables = cls()
        begin = 0
        while True:
            member = _MEMBER.match(file[begin : begin + 30].tobytes())
            if member is None:  # the zip file's directory
                return tables
            name_size, extra_size = (int.from_bytes(size, "little") for size in member.groups())
            name = file[begin + 30 : begin + 30 + name_size].tobytes().decode()
            begin += 30 + name_size + extra_size
            header = _NPY.match(file[begin : begin + 512].tobytes())
            if header is None:
                raise ValueError(f"no array {name}")
            shape = [int(n) for n in header[2].replace(b",", b" ").split()]
            begin += header.end()
            if name.removesuffix(".npy") in tables:
                raise ValueError(f"two arrays {name}")
            array = np.frombuffer(file, header[1].decode(), math.prod(shape), begin)
            tables[name.removesuffix(".npy")] = array.reshape(shape)
            begin += array.nbytes

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
        """A copy without some videos, their tracks and runs, and without sums that no other video
        has. Rows keep their numbers.
        """
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
            elif name.startswith(VIDEO_SUM) and np.isnan(rows).all():
                continue
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
        for name in {**self, **later}:
            array = self._table(name)
            appended = later._table(name)
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

    def _table(self, name: str) -> Array:
        """A table; that of a sum which no video has is NaN."""
        if name.startswith(VIDEO_SUM) and name not in self:
            return np.full(len(self["video_name"]), math.nan)
        return self[name]

    @property
    def sums(self) -> dict[str, Doubles]:
        """The sums of each video (n_videos,) by name; NaN where one is not known."""
        tables = ((name, self[name]) for name in sorted(self) if name.startswith(VIDEO_SUM))
        return {name.removeprefix(VIDEO_SUM): table for name, table in tables}

    def total_sums(self) -> dict[str, float | None]:
        """The total of each sum, the same in any order of videos; None if it is not known for a
        video with tracks.
        """
        with_tracks = np.unique(self["track_video"])
        totals = {}
        for name, table in self.sums.items():
            numbers = table[with_tracks]
            are_whole = bool((numbers == np.trunc(numbers)).all())  # these sums are exact
            total = float(numbers.sum()) if are_whole else math.fsum(numbers.tolist())
            totals[name] = None if math.isnan(total) else total
        return totals

    def texts(self, name: str, rows: slice | Array = slice(None)) -> list[str]:
        """The texts of a table, or of some of its rows."""
        return [raw.decode() for raw in self.utf8_texts(name, rows)]

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
        boundaries = np.arange(geometry.shards(extent) + 1) * geometry.rows_per_shard
        # the rows of tracks that start before each boundary, without those behind it
        n_tracks = np.searchsorted(self["track_start"], boundaries)
        stops = np.append(0, self["track_stop"])[n_tracks]
        n_rows = np.append(0, np.cumsum(self["track_stop"] - self["track_start"]))[n_tracks]
        return np.diff(n_rows - np.maximum(stops - boundaries, 0))


def _widen(texts: Array, width: int) -> Array:
    return np.pad(texts, ((0, 0), (0, width - texts.shape[1])))

"""The tracks, runs and videos of a split as columns.  raw -> [tracks] -> features -> windows

A table is a set of plain Zarr arrays of equal length, so that a million tracks open without a million objects. Texts
are (N, L) uint8, UTF-8 filled up with zeros, since Zarr v3 has no settled string type. A run is a stretch of one track
without a gap: frame indices one step apart. Windows come out of runs by arithmetic, without reading a frame index.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.fingerprint import canonical
from cache.format.layout import Geometry, shard_key, table_metadata
from cache.format.records import TrackRows, VideoEntry
from cache.format.shard import crc32c
from cache.storage.base import Bytes

Array = NDArray[Any]

TEXTS: Final = frozenset(
    {"track_name", "track_gender", "video_name", "video_source", "video_pixels", "video_fingerprint"}
)
TABLES: Final[Mapping[str, tuple[str, tuple[int, ...]]]] = {  # name -> dtype and what follows the rows; texts aside
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
            raise CacheError(
                f"{raw[:80]!r}... is no text for a table: expected up to {_LONGEST_TEXT} bytes without NUL"
            )
    width = max(1, max(map(len, data), default=1))
    return np.array(data, f"S{width}").view(np.uint8).reshape(len(data), width)


def decode_text(row: Array) -> str:
    """(L,) uint8 -> one text."""
    return bytes(row).rstrip(b"\0").decode()


def decode_texts(rows: Array) -> list[str]:
    """(N, L) uint8 -> N texts."""
    packed = np.ascontiguousarray(rows).view(f"S{rows.shape[1]}")[:, 0]
    return [raw.decode() for raw in packed.tolist()]


class Tables(Mapping[str, Array]):
    """All tables of one commit by name: texts (N, L) uint8, the others as in TABLES."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self._arrays = dict(arrays)

    def __getitem__(self, name: str) -> Array:
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    @classmethod
    def empty(cls) -> Tables:
        numbers = {name: np.zeros((0, *trailing), dtype) for name, (dtype, trailing) in TABLES.items()}
        return cls({**numbers, **{name: encode_texts([]) for name in TEXTS}})

    @classmethod
    def from_files(cls, files: Mapping[str, Bytes]) -> Tables:
        """Views into the files that a manifest names and has vouched for."""
        return cls({name: _view(files, name) for name in (*TABLES, *TEXTS)})

    def to_files(self) -> dict[str, bytes]:
        """Small files by their path below the split: zarr.json and one chunk a table."""
        files: dict[str, bytes] = {}
        for name, array in self._arrays.items():
            whole = array if array.size else np.zeros([max(1, n) for n in array.shape], array.dtype)
            data = whole.tobytes()
            files[f"{name}/zarr.json"] = table_metadata(array.shape, array.dtype)
            files[shard_key(name, 0, array.shape[1:])] = data + crc32c(data)
        return files

    def account(self, video: int) -> dict[str, Any]:
        """The accounting that was committed with a video."""
        stops = self["video_account_stop"]
        start = int(stops[video - 1]) if video else 0
        return dict(json.loads(bytes(self["video_account"][start : int(stops[video])])))

    def video(self, number: int) -> VideoEntry:
        return VideoEntry(
            name=decode_text(self["video_name"][number]),
            source=decode_text(self["video_source"][number]),
            pixels=decode_text(self["video_pixels"][number]),
            width=int(self["video_width"][number]),
            height=int(self["video_height"][number]),
            fingerprint=decode_text(self["video_fingerprint"][number]),
            account=self.account(number),
        )

    def with_fingerprints(self, stated: Mapping[str, tuple[str, str]]) -> Tables:
        """The tables with other (fingerprint, pixels) texts of the given videos."""
        if not stated:
            return self
        names = decode_texts(self["video_name"])
        changed = dict(self._arrays)
        for column, table in enumerate(("video_fingerprint", "video_pixels")):
            texts = decode_texts(self[table])
            new = [stated[name][column] if name in stated else text for name, text in zip(names, texts, strict=True)]
            changed[table] = encode_texts(new)
        return Tables(changed)

    def without(self, videos: Iterable[str]) -> Tables:
        """The tables less the given videos, their tracks and runs."""
        gone = frozenset(videos)
        if not gone:
            return self
        names = decode_texts(self["video_name"])
        keep_video = np.array([name not in gone for name in names], bool)
        keep_track = keep_video[self["track_video"]]
        keep_run = keep_track[np.searchsorted(self["track_start"], self["run_start"], side="right") - 1]
        kept: dict[str, Array] = {}
        for name, array in self._arrays.items():
            kind = name.split("_")[0]
            if name in ("video_account", "video_account_stop"):
                continue
            mask = {"video": keep_video, "track": keep_track, "run": keep_run}[kind]
            kept[name] = narrow(array[mask]) if name in TEXTS else array[mask]
        kept["track_video"] = (np.cumsum(keep_video) - 1)[kept["track_video"]].astype("<i4")
        stops = self["video_account_stop"]
        sizes = np.diff(stops, prepend=0)
        kept["video_account"] = self["video_account"][np.repeat(keep_video, sizes)]
        kept["video_account_stop"] = np.cumsum(sizes[keep_video]).astype("<i8")
        return Tables(kept)

    def plus(self, later: Tables) -> Tables:
        """These tables followed by later ones, whose video and account numbers count from 0."""
        joined: dict[str, Array] = {}
        for name, array in self._arrays.items():
            more = later[name]
            if name == "track_video":
                more = more + np.int32(len(self["video_name"]))
            elif name == "video_account_stop":
                more = more + np.int64(len(self["video_account"]))
            elif name in TEXTS:
                width = max(array.shape[1], more.shape[1])
                array, more = (np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in (array, more))
            joined[name] = np.concatenate([array, more])
        return Tables(joined)


class CommittedVideos(Mapping[str, VideoEntry]):
    """The video table by name; an entry is made when it is asked for."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self._numbers = {name: number for number, name in enumerate(decode_texts(tables["video_name"]))}

    def __getitem__(self, name: str) -> VideoEntry:
        return self._tables.video(self._numbers[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


def narrow(texts: Array) -> Array:
    """Drop columns that are zero in every text, so that tables do not depend on texts that are gone."""
    used = np.flatnonzero(texts.any(axis=0))
    return texts[:, : used[-1] + 1 if len(used) else 1]


def _view(files: Mapping[str, Bytes], name: str) -> Array:
    meta = json.loads(bytes(files[f"{name}/zarr.json"]))
    shape = tuple(meta["shape"])
    data = files[shard_key(name, 0, shape[1:])]
    dtype = np.dtype(meta["data_type"]).newbyteorder("<")
    return np.frombuffer(data, dtype, count=math.prod(shape)).reshape(shape)


class TableBuilder:
    """Collects the videos of one commit, and gives their tables.

    What it collects is JSON already, since the journal keeps exactly that.
    """

    def __init__(self) -> None:
        self._videos: list[dict[str, Any]] = []

    def add(self, video: Mapping[str, Any]) -> None:
        """One video as `video_record` describes it."""
        self._videos.append(dict(video))

    def accounts(self) -> Iterator[dict[str, Any]]:
        """What was collected of accounts, in order."""
        return (video["account"] for video in self._videos)

    def tables(self) -> Tables:
        videos, tracks = self._videos, [track for video in self._videos for track in video["tracks"]]
        accounts = [canonical(video["account"]) for video in videos]
        unknown = np.full((3, 3), math.nan)
        texts = {
            "track_name": [track["name"] for track in tracks],
            "track_gender": [track["gender"] for track in tracks],
            "video_name": [video["name"] for video in videos],
            "video_source": [video["source"] for video in videos],
            "video_pixels": [video["pixels"] for video in videos],
            "video_fingerprint": [video["fingerprint"] for video in videos],
        }
        runs = [run for track in tracks for run in track["runs"]]
        numbers: dict[str, Any] = {
            "track_video": [number for number, video in enumerate(videos) for _ in video["tracks"]],
            "track_start": [track["start"] for track in tracks],
            "track_stop": [track["stop"] for track in tracks],
            "track_step": [track["step"] for track in tracks],
            "track_fps": [track["fps"] for track in tracks],
            "track_crop_scale": [track["crop_scale"] for track in tracks],
            "track_intrinsics": [unknown if (k := track["intrinsics"]) is None else k for track in tracks],
            "run_start": [start for start, _ in runs],
            "run_stop": [stop for _, stop in runs],
            "video_width": [video["width"] for video in videos],
            "video_height": [video["height"] for video in videos],
            "video_account": np.frombuffer(b"".join(accounts), np.uint8),
            "video_account_stop": np.cumsum([len(account) for account in accounts]),
        }
        arrays = {
            name: np.asarray(numbers[name]).astype(dtype).reshape(-1, *trailing)
            for name, (dtype, trailing) in TABLES.items()
        }
        return Tables({**arrays, **{name: encode_texts(values) for name, values in texts.items()}})


def find_runs(frame_index: Array, step: int, first_row: int) -> list[tuple[int, int]]:
    """Rows [start, stop) of every stretch whose frame indices are exactly `step` apart.

    >>> find_runs(np.array([0, 2, 4, 7, 9]), step=2, first_row=100)
    [(100, 103), (103, 105)]
    """
    breaks = np.flatnonzero(np.diff(frame_index) != step) + 1
    starts = np.concatenate([[0], breaks]) + first_row
    stops = np.concatenate([breaks, [len(frame_index)]]) + first_row
    return list(zip(starts.tolist(), stops.tolist(), strict=True))


def video_record(entry: VideoEntry, tracks: Sequence[TrackRows], start: int) -> dict[str, Any]:
    """What the journal and the tables keep of a video whose tracks take the rows from `start` on."""
    rows = []
    position = start
    for track in tracks:
        frame_index = np.asarray(track.columns["frame_index"])
        intrinsics = None if track.intrinsics is None else np.asarray(track.intrinsics, np.float64).tolist()
        rows.append(
            {
                "name": track.name,
                "start": position,
                "stop": position + len(frame_index),
                "step": int(track.step),
                "fps": float(track.fps),
                "crop_scale": float(track.crop_scale),
                "gender": track.gender,
                "intrinsics": intrinsics,
                "runs": find_runs(frame_index, track.step, position),
            }
        )
        position += len(frame_index)
    return {
        "name": entry.name,
        "source": entry.source,
        "pixels": entry.pixels,
        "width": int(entry.width),
        "height": int(entry.height),
        "fingerprint": entry.fingerprint,
        "account": json.loads(canonical(dict(entry.account))),
        "tracks": rows,
        "stop": position,
    }


def track_of(tables: Tables, rows: Array) -> NDArray[np.int64]:
    """Rows (any shape) -> the number of each row's track; -1 for rows of no committed track."""
    starts, stops = tables["track_start"], tables["track_stop"]
    if not len(starts):
        return np.full(rows.shape, -1, np.int64)
    track = np.searchsorted(starts, rows, side="right") - 1
    return np.where((track >= 0) & (rows < stops[track]), track, -1)


def live_by_shard(tables: Tables, geometry: Geometry, extent: int) -> NDArray[np.int64]:
    """(shards,) how many rows of committed tracks each shard of a split with `extent` rows holds."""
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
    first = tables["track_start"] // geometry.rows_per_shard
    last = (tables["track_stop"] - 1) // geometry.rows_per_shard
    found = np.unique(np.concatenate([first, last]))
    longer = np.flatnonzero(last - first > 1)
    between = [np.arange(first[track] + 1, last[track]) for track in longer]
    return [int(shard) for shard in np.unique(np.concatenate([found, *between]))]

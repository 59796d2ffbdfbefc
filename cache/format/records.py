"""Tracks and videos as records.  raw -> [tracks] -> features"""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from cache.format.extra import ExtraColumn
from cache.format.layout import canonical
from cache.format.tables import TABLES, TEXTS, Tables, decode_text, decode_texts, encode_texts

_R = TypeVar("_R")


class WrittenTrack(Protocol):
    """A track to write: `TrackRows`, or any object with these attributes."""

    @property
    def name(self) -> str: ...
    @property
    def video(self) -> str: ...
    @property
    def step(self) -> int: ...
    @property
    def fps(self) -> float: ...
    @property
    def crop_scale(self) -> float: ...
    @property
    def gender(self) -> str: ...
    @property
    def intrinsics(self) -> NDArray[Any] | None: ...
    @property
    def columns(self) -> Mapping[str, NDArray[Any]]: ...
    @property
    def extra(self) -> Mapping[str, NDArray[Any]]: ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # eq=False: == of arrays is ambiguous
class TrackRows:
    """One person in one video, T rows, to write. Leave out missing columns."""

    name: str  # <video>/<person>, unique within the split
    video: str
    step: int  # frames of the video from one row to the next, except at gaps
    fps: float  # of the video's own frames; nan where not known
    crop_scale: float  # crop side / box side
    gender: str = "neutral"
    intrinsics: NDArray[Any] | None = None  # (3, 3) px
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # name in COLUMNS -> (T, *trailing)
    extra: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # name -> (T, *shape), or of the track


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoEntry:
    """One raw video: its pixel source, fingerprints and frame accounting."""

    name: str  # unique within the split
    source: str = ""  # the pixel source below the raw folder, in one line; "" without pixels
    pixels: str = ""  # hex; changes when the pixels do, and not when only labels do; "" without pixels
    width: int = 0  # px; 0 without pixels
    height: int = 0
    fingerprint: str = ""  # hex; of the raw files
    account: Mapping[str, Any] = field(default_factory=dict)  # found, kept, dropped by reason, ...: anything JSON holds


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

    As a tuple: (name, video, start, stop, fps, step, crop_scale). Beside it, not compared: `gender`, `intrinsics`
    ((3, 3) float64 px or None) and `extra` (extra track columns by name).
    """

    gender: str
    intrinsics: NDArray[np.float64] | None
    extra: Mapping[str, NDArray[Any]]


class _Table(Sequence[_R], ABC):
    """Records of a table, created on access."""

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
            raise TypeError(f"expected a number or a slice of {len(self)} records, found {number!r}. {do}") from None
        return self._record(chosen) if isinstance(chosen, int) else list(map(self._record, chosen))


class TrackTable(_Table[TrackRecord]):
    """The track table: records one by one, or whole columns as arrays."""

    def __init__(self, tables: Tables) -> None:
        super().__init__(tables)
        self.start: NDArray[np.int64] = tables["track_start"]  # (N,) first row
        self.stop: NDArray[np.int64] = tables["track_stop"]  # (N,) last row + 1
        self.step: NDArray[np.int32] = tables["track_step"]  # (N,) frames of the video from one row to the next
        self.fps: NDArray[np.float64] = tables["track_fps"]  # (N,) frames a second of the video, NaN where not known
        self.crop_scale: NDArray[np.float64] = tables["track_crop_scale"]  # (N,) crop side / box side
        self.video: NDArray[np.int32] = tables["track_video"]  # (N,) number in `Split.videos`
        extra = [name for name in tables if name.startswith("track_") and name not in {*TABLES, *TEXTS}]
        self.extra = {name.removeprefix("track_"): tables[name] for name in extra}
        """Extra track columns by name: (N, ...)."""

    def __len__(self) -> int:
        return len(self.tables["track_start"])

    def _record(self, number: int) -> TrackRecord:
        tables = self.tables
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
        record.extra = {name: values[number].copy() for name, values in self.extra.items()}
        return record

    @property
    def names(self) -> list[str]:
        return decode_texts(self.tables["track_name"])


class VideoTable(_Table[VideoEntry]):
    """The video table."""

    def __len__(self) -> int:
        return len(self.tables["video_name"])

    def _record(self, number: int) -> VideoEntry:
        tables = self.tables
        texts = ("name", "source", "pixels", "fingerprint")
        return VideoEntry(
            **{name: decode_text(tables[f"video_{name}"][number]) for name in texts},
            width=int(tables["video_width"][number]),
            height=int(tables["video_height"][number]),
            account=self.account(number),
        )

    @property
    def names(self) -> list[str]:
        return decode_texts(self.tables["video_name"])

    @property
    def fingerprints(self) -> list[str]:
        return decode_texts(self.tables["video_fingerprint"])

    def account(self, number: int) -> dict[str, Any]:
        stops = self.tables["video_account_stop"]
        start = int(stops[number - 1]) if number else 0
        return dict(json.loads(bytes(self.tables["video_account"][start : int(stops[number])])))


class VideosByName(Mapping[str, VideoEntry]):
    """The video table by name."""

    def __init__(self, tables: Tables) -> None:
        self._videos = VideoTable(tables)
        self._numbers = {name: number for number, name in enumerate(self._videos.names)}

    def __getitem__(self, name: str) -> VideoEntry:
        return self._videos[self._numbers[name]]

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)


def find_runs(frame_index: NDArray[Any], step: int, first_row: int) -> list[tuple[int, int]]:
    """Rows [start, stop) of every segment whose frame indices are exactly `step` apart.

    >>> find_runs(np.array([0, 2, 4, 7, 9]), step=2, first_row=100)
    [(100, 103), (103, 105)]
    """
    breaks = np.flatnonzero(np.diff(frame_index) != step) + 1
    starts = np.concatenate([[0], breaks]) + first_row
    stops = np.concatenate([breaks, [len(frame_index)]]) + first_row
    return list(zip(starts.tolist(), stops.tolist(), strict=True))


def video_record(
    entry: VideoEntry, tracks: Sequence[WrittenTrack], start: int, extra: Collection[ExtraColumn] = ()
) -> dict[str, Any]:
    """The JSON record of a video, for journal and tables. Its tracks take the rows from `start` on."""
    of_tracks = [column.name for column in extra if column.per == "track"]
    rows, stop = [], start
    for track in tracks:
        frame_index = np.asarray(track.columns["frame_index"])
        runs = find_runs(frame_index, track.step, stop)
        first, stop = stop, stop + len(frame_index)
        rows.append(
            {
                "name": track.name,
                "start": first,
                "stop": stop,
                "step": int(track.step),
                "fps": float(track.fps),
                "crop_scale": float(track.crop_scale),
                "gender": track.gender,
                "intrinsics": None if track.intrinsics is None else np.asarray(track.intrinsics, np.float64).tolist(),
                "runs": runs,
                **{f"track_{name}": track.extra[name].tolist() for name in of_tracks if name in track.extra},
            }
        )
    texts = {key: getattr(entry, key) for key in ("name", "source", "pixels", "fingerprint")}
    sizes = {"width": int(entry.width), "height": int(entry.height)}
    return {**texts, **sizes, "account": json.loads(canonical(dict(entry.account))), "tracks": rows, "stop": stop}


def tables_of(videos: Sequence[Mapping[str, Any]], extra: Collection[ExtraColumn] = ()) -> Tables:
    """Build the tables from records of `video_record`, with extra track columns."""
    tracks = [track for video in videos for track in video["tracks"]]
    accounts = [canonical(video["account"]) for video in videos]
    runs = [run for track in tracks for run in track["runs"]]
    unknown = np.full((3, 3), math.nan)
    columns: dict[str, Any] = {
        "track_video": [number for number, video in enumerate(videos) for _ in video["tracks"]],
        "track_intrinsics": [unknown if (k := track["intrinsics"]) is None else k for track in tracks],
        "run_start": [start for start, _ in runs],
        "run_stop": [stop for _, stop in runs],
        "video_account": np.frombuffer(b"".join(accounts), np.uint8),
        "video_account_stop": np.cumsum([len(account) for account in accounts]),
    }
    for kind, of_kind in (("track", tracks), ("video", videos)):
        names = [name for name in (*TABLES, *TEXTS) if name.startswith(f"{kind}_") and name not in columns]
        columns |= {name: [record[name.removeprefix(f"{kind}_")] for record in of_kind] for name in names}
    tables = Tables({name: encode_texts(columns[name]) for name in TEXTS})
    for name, (dtype, trailing) in TABLES.items():
        tables[name] = np.asarray(columns[name]).astype(dtype).reshape(-1, *trailing)
    for spec, array in ((column.spec, column.array) for column in extra if column.per == "track"):
        tables[array] = np.full((len(tracks), *spec.trailing), spec.fill, spec.dtype)
        for number, track in enumerate(tracks):
            tables[array][number] = track.get(array, spec.fill)
    return tables

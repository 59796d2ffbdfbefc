"""Splits as Parquet files, with a card: videos, tracks, rows, accounting.  tracks, features ->
[Parquet]

Each file is written a group of its lines at a time, as a dict from column to values:

    {"row": [0, 1, ...], "track_name": [...], "kp_2d": (n, 49, 3), ...}

Columns are those of _TYPES, then the cache's own, which have a `Column`. docs/exports.md lists
them.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic.dataclasses import dataclass as validated

import cache
from cache.format.layout import COLUMNS, Column
from pipeline.accounting import VideoAccount, VideoOutcome
from pipeline.cli.progress import Progress, silent
from pipeline.cli.text import count
from pipeline.errors import PipelineError
from pipeline.extras.exchange.formats import Exported, new_folder
from pipeline.extras.exchange.rows import origin_of, require_stream
from pipeline.features.inputs import column
from pipeline.features.streams.network import ResNet50
from pipeline.people.skeletons import Array, joint_names
from pipeline.show.split.card import CARD, card
from pipeline.steps.sharing import text_cleaner

Group = Mapping[str, Any]  # column -> its values in a group of lines

ROWS: Final = 8192  # lines of a group
NAME: Final = pa.dictionary(pa.int32(), pa.string())
_TRACK_COLUMNS: Final = {
    "track_number": pa.int32(),
    "track_name": NAME,
    "video_number": pa.int32(),
    "video_name": NAME,
}
_TYPES: Final[
    Mapping[str, Mapping[str, Any]]
] = {  # table -> its columns besides those of the cache
    "videos": {
        "video_number": pa.int32(),
        "video_name": pa.string(),
        "state": NAME,
        "reason": NAME,
        "message": pa.string(),
        "tracks": pa.int64(),
        "found": pa.int64(),
        "kept": pa.int64(),
        "source": pa.string(),
        "width": pa.int32(),
        "height": pa.int32(),
        "pixels": pa.string(),
        "fingerprint": pa.string(),
    },
    "accounting": {
        "video_number": pa.int32(),
        "video_name": NAME,
        "state": NAME,
        "reason": NAME,
        "person_frames": pa.int64(),
    },
    "tracks": {
        **_TRACK_COLUMNS,
        "start": pa.int64(),
        "stop": pa.int64(),
        "step": pa.int32(),
        "gender": NAME,
    },
    "rows": {"row": pa.int64(), **_TRACK_COLUMNS, "run_number": pa.int64()},
}


@validated(frozen=True, config={"extra": "forbid"})
class TableOptions:
    """Options of `export --format parquet`, set by `--option NAME=VALUE`."""

    features: bool = False  # add the column `features`, from the stream that --stream names


def export(
    root: cache.Root,
    name: str,
    out: Path,
    *,
    more: Sequence[str] = (),
    public: bool = False,
    stream: str = "",
    progress: Progress = silent,
    options: TableOptions = TableOptions(),  # noqa: B008  it is frozen
) -> Exported:
    """Write the split `name` in the cache `root` into the folder `out`: four Parquet files, a card
    (README.md), and provenance.json. Texts have no folders of this machine.

    Args:
        more: further splits. Each split then has a folder DATASET/SPLIT, and all files of a table
            have the same columns: unknown where a split lacks one.
        public: the terms of all datasets let the rows be passed on: the card is for everybody.

    Raises:
        cache.CacheError: a split is missing.
        PipelineError: `out` is not new or empty; the stream (default resnet50) is missing or out of
            date; `stream` is given without the option `features`; splits have different columns of
            one name; `public` is given for a dataset whose terms forbid it.
    """
    splits = [cache.open(root)[each] for each in (name, *more)]
    if stream and not options.features:
        raise PipelineError(
            f"--stream {stream}: no features are exported. Add --option features=yes."
        )
    features = (stream or ResNet50.kind) if options.features else ""
    streams = [features] if features else []
    for split in splits:
        for each in streams:
            require_stream(split, each)
    row_specs = _common(_row_specs(split, features) for split in splits)
    track_specs = _common(_track_specs(split) for split in splits)
    places = _places([split.name for split in splits])
    origins = {}
    with new_folder(out) as (folder, provenance):
        (folder / CARD).write_text(card(splits, streams, files=places, public=public))
        for split, below in zip(splits, places.values(), strict=True):
            clean = text_cleaner(split)
            origin = clean(origin_of(split, *streams))
            origin |= {"stream": features, "joints": list(joint_names("spin49"))}
            origins[split.name] = origin
            place = folder / below
            place.mkdir(parents=True, exist_ok=True)
            videos = _group_lines("videos", _video_lines(split, clean))
            _write(place, "videos", origin, {}, videos)
            accounting = _group_lines("accounting", _accounting_lines(split))
            _write(place, "accounting", origin, {}, accounting)
            _write(place, "tracks", origin, track_specs, _track_groups(split))
            rows = _row_groups(split, _row_specs(split, features), features, progress)
            _write(place, "rows", origin, row_specs, rows)
        n_rows = sum(split.tracks.n_rows for split in splits)
        n_tracks = sum(len(split.tracks) for split in splits)
        provenance |= {"format": "parquet", "rows": n_rows, "tracks": n_tracks}
        provenance |= {"splits": origins} if more else origins[name]
    n_videos = sum(len(split.videos) for split in splits)
    summary = f"{count(n_rows, 'row')} of {count(n_tracks, 'track')} and {count(n_videos, 'video')}"
    is_stand_in = any(origin["stand_in"] for origin in origins.values())
    return Exported(out, n_rows, summary, {}, {}, is_stand_in)


def _places(names: Sequence[str]) -> dict[str, str]:
    """Name of each split on a hub, of letters, digits, _ and single dots between them -> its
    folder, with a slash; "" for a single split. Raises PipelineError for two splits of one name.
    """
    n_datasets = len({name.partition("/")[0] for name in names})
    places: dict[str, str] = {}
    for name in names:
        label = name if n_datasets > 1 else name.partition("/")[2]
        on_hub = re.sub(r"\W+", ".", label).strip(".")
        if on_hub in places:
            raise PipelineError(
                f"{places[on_hub][:-1]} and {name} are both {on_hub} on a hub. Export each into a "
                "folder of its own."
            )
        places[on_hub] = f"{name}/" if len(names) > 1 else ""
    return places


def _common(specs_of_splits: Iterable[Mapping[str, Column]]) -> dict[str, Column]:
    """The columns of several splits. Raises PipelineError if they have different ones of a name."""
    specs: dict[str, Column] = {}
    for specs_of_split in specs_of_splits:
        for name, spec in specs_of_split.items():
            first = specs.setdefault(name, spec)
            if (first.shape, first.dtype, first.json_fill) != (
                spec.shape,
                spec.dtype,
                spec.json_fill,
            ):
                raise PipelineError(
                    f"the column {name!r} has different shapes or types in these splits. Export "
                    "each into a folder of its own."
                )
    return specs


def _write(
    folder: Path,
    table: str,
    origin: Mapping[str, Any],
    specs: Mapping[str, Column],
    groups: Iterable[Group],
) -> None:
    """Write a table: the columns of _TYPES, then those of `specs` as stored in the cache."""
    fields = [pa.field(name, kind) for name, kind in _TYPES[table].items()]
    for name, spec in specs.items():
        fields.append(pa.field(name, _arrow_type(spec), metadata={"about": spec.description}))
    metadata = {}
    for key, value in origin.items():
        metadata[key] = value if isinstance(value, str) else json.dumps(value)
    schema = pa.schema(fields, metadata)
    names = [name for name, kind in _TYPES[table].items() if kind == NAME]
    file = folder / f"{table}.parquet"
    with pq.ParquetWriter(file, schema, compression="zstd", use_dictionary=names) as writer:
        for group in groups:
            arrays = dict(group)
            n_lines = len(next(iter(group.values())))
            for name, spec in specs.items():
                # another split may have the column
                values = arrays[name] if name in arrays else spec.empty(n_lines)
                arrays[name] = _arrow_array(values, spec)
            writer.write_table(pa.Table.from_pydict(arrays, schema=schema))


# -------------------------------------------------------------------------------------------------
# rows and tracks


def _row_specs(split: cache.Split, stream: str) -> dict[str, Column]:
    """The split's columns, and `features` if there is a stream. Raises PipelineError for a
    duplicate name.
    """
    all_specs = {**COLUMNS, **split.extra}
    specs = {name: all_specs[name] for name in split.columns}
    duplicates = sorted(_TYPES["rows"].keys() & specs.keys())
    if duplicates:
        raise PipelineError(
            f"{split.name}: its dataset's extra column {duplicates[0]!r} has the name of an "
            "exported column"
        )
    if stream:
        dim = split.rows(f"features/{stream}", 0, 0).shape[1]
        specs["features"] = Column("features", f"of the stream {stream}", shape=(dim,))
    return specs


def _track_specs(split: cache.Split) -> dict[str, Column]:
    """The columns of tracks that are stored in the cache."""
    return {
        "fps": Column("fps", "frames per second of the video", dtype="float64"),
        "crop_scale": Column("crop_scale", "crop side / box side", dtype="float64"),
        "intrinsics": Column("intrinsics", "px", shape=(3, 3), dtype="float64"),
    } | {name: extra for name, extra in split.extra.items() if extra.per == "track"}


def _row_groups(
    split: cache.Split, names: Collection[str], stream: str, progress: Progress
) -> Iterator[Group]:
    """Yield groups of the row table. They count the rows of tracks, across the gaps between
    tracks.
    """
    tracks = split.tracks
    run_starts = split.runs[:, 0]
    end = np.cumsum(tracks.stop - tracks.start)  # count of rows up to the end of each track
    n_rows = int(end.max(initial=0))
    for first in range(0, n_rows, ROWS):
        counted = np.arange(first, min(first + ROWS, n_rows))
        track = np.searchsorted(end, counted, side="right")
        rows = (tracks.stop[track] - (end[track] - counted)).astype(np.int64)
        values = {name: column(split, name, rows) for name in names if name != "features"}
        if stream:
            values["features"] = column(split, f"features/{stream}", rows).astype(np.float32)
        progress(first, n_rows)
        run = np.searchsorted(run_starts, rows, side="right") - 1
        yield {"row": rows, **_track_names(split, track), "run_number": run, **values}


def _track_groups(split: cache.Split) -> Iterator[Group]:
    """Yield groups of the track table."""
    tracks = split.tracks
    names = "start", "stop", "step", "fps", "crop_scale"
    columns = {name: getattr(tracks, name) for name in names}
    columns |= {"intrinsics": tracks.tables["track_intrinsics"], **tracks.extra}
    numbers = np.arange(len(tracks))
    for first in range(0, len(tracks), ROWS):
        part = slice(first, first + ROWS)
        genders = tracks.tables.texts("track_gender", part)
        values = {name: values[part] for name, values in columns.items()}
        yield {**_track_names(split, numbers[part]), "gender": genders, **values}


def _track_names(split: cache.Split, track: Array) -> Group:
    """Numbers and names of the tracks (n,) and their videos."""
    values = {}
    for kind, numbers in (("track", track), ("video", split.tracks.video[track])):
        distinct, codes = np.unique(numbers, return_inverse=True)
        names = split.tracks.tables.texts(f"{kind}_name", distinct)
        values[f"{kind}_number"] = pa.array(numbers, pa.int32())
        values[f"{kind}_name"] = pa.DictionaryArray.from_arrays(
            pa.array(codes, pa.int32()), pa.array(names)
        )
    return values


def _is_flag(spec: Column) -> bool:
    """Whether a column is true, false or (255) unknown."""
    return bool(spec.dtype == np.uint8 and spec.fill == 255)


def _arrow_type(spec: Column) -> Any:
    """Arrow type of a column; nested lists of fixed size for array values."""
    kind = pa.from_numpy_dtype(spec.dtype)
    if _is_flag(spec):
        kind = pa.bool_()
    for size in reversed(spec.shape):
        kind = pa.list_(kind, size)
    return kind


def _arrow_array(values: Array, spec: Column) -> Any:
    """Values (n, ...) as an Arrow array, with null for the fill value; lists of floats keep NaN.

    No list is null, since pyarrow before version 24 cannot read null lists of fixed size.
    """
    mask = None
    if not spec.shape or spec.dtype.kind != "f":
        is_unknown = values == spec.fill
        if np.isnan(spec.fill):
            is_unknown = np.isnan(values)
        mask = is_unknown.reshape(-1)
    if _is_flag(spec):
        values = values == 1
    array = pa.array(values.reshape(-1), mask=mask)
    for size in reversed(spec.shape):
        array = pa.FixedSizeListArray.from_arrays(array, size)
    return array


# --------------------------------------------------------------------------------------------------
# videos


def _accounts(split: cache.Split) -> Iterator[tuple[int, cache.VideoEntry, Mapping[str, Any]]]:
    """Yield (number, video, account) of each video; accounts of another program get the entries
    that they lack.
    """
    for number, video in enumerate(split.videos):
        yield number, video, {**VideoAccount(video.name).as_dict(), **video.account}


def _video_lines(split: cache.Split, clean: Callable[[Any], Any]) -> Iterator[tuple[Any, ...]]:
    """Yield lines of the video table."""
    for number, video, account in _accounts(split):
        yield (
            number,
            video.name,
            *VideoOutcome.from_account(clean(account)),
            account["tracks_kept"],
            account["found"],
            account["kept"],
            clean(video.source),
            video.width,
            video.height,
            video.pixels,
            video.fingerprint,
        )


def _accounting_lines(split: cache.Split) -> Iterator[tuple[Any, ...]]:
    """Yield for each video a line of kept person-frames, and a line for each reason to drop
    some.
    """
    for number, video, account in _accounts(split):
        lines = [("kept", "", account["kept"])]
        for reason, n in account["dropped"].items():
            lines.append(("dropped", reason, n))
        lines = [line for line in lines if line[-1]]
        if not lines:
            outcome = VideoOutcome.from_account(account)
            lines = [(outcome.state, outcome.reason, 0)]
        for line in lines:
            yield number, video.name, *line


def _group_lines(table: str, lines: Iterator[tuple[Any, ...]]) -> Iterator[Group]:
    """Collect lines of a table into groups of ROWS lines by column."""
    while group := list(itertools.islice(lines, ROWS)):
        columns = map(list, zip(*group, strict=True))
        yield dict(zip(_TYPES[table], columns, strict=True))

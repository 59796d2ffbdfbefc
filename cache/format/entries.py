"""Check the entries of a manifest, which may come from anywhere.  [cache]

`check_entries` compares them with docs/cache-format.md: the types and ranges of all entries that
this package uses, and whether they agree with each other; `check_tables` compares the tables with
them. Later code checks none of them again.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from cache.errors import CacheError
from cache.format.extra import EXTRA, ExtraColumn
from cache.format.layout import (
    PENDING_ROWS,
    STREAM_ARRAYS,
    SUMS,
    TABLES,
    TEXTS,
    VIDEO_SUM,
    Geometry,
    StreamForm,
    is_name,
)
from cache.format.tables import Tables

# entries that a manifest must have
_SHARED_ENTRIES: Final = ("format", "digest", "extent", "commits", "geometry", "shards", "rows")
SPLIT_ENTRIES: Final = (*_SHARED_ENTRIES, "tracks", "videos", "tables")
STREAM_ENTRIES: Final = (*_SHARED_ENTRIES, "stream", "dim", "dtype", "split_digest")
_MOST_SHARDS: Final = 1 << 24  # arrays of one entry per shard are made
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,7}")  # of a shard
_RECORD: Final = re.compile(r"[0-9]{1,15}:[0-9a-f]{16}")  # of a shard's file
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def check_entries(manifest: Mapping[str, Any], stream: str | None) -> None:
    """Raise ValueError, with what was found, for a manifest that cannot be that of a split (stream
    None) or of the stream. Raises CacheError for extra columns, and a form of the stream, that this
    version does not know.
    """
    names: tuple[str, ...] = STREAM_ENTRIES
    if stream is None:
        names = SPLIT_ENTRIES
    for name in names:
        if name not in manifest:
            raise ValueError(f"no {name!r}")
    if manifest.get("stream") != stream:
        if "stream" in manifest:
            raise ValueError(f"that of stream {manifest['stream']!r}")
        raise ValueError("that of a split")
    geometry = _geometry(manifest["geometry"])
    _check_commits(manifest, geometry)
    _check_shards(manifest, geometry)
    if stream is None:
        _check_split(manifest)
    else:
        _check_stream(manifest, stream)


def _geometry(entry: Any) -> Geometry:
    is_geometry = isinstance(entry, dict) and all(map(_is_count, entry.values()))
    _require(is_geometry, "geometry", entry)
    try:
        return Geometry(**entry)
    except (TypeError, CacheError) as error:
        raise ValueError(f"geometry {entry} ({error})") from error


def _check_commits(manifest: Mapping[str, Any], geometry: Geometry) -> None:
    commits = manifest["commits"]
    _require(_are_ranges(commits), "commits", commits)
    is_aligned = all(start % geometry.rows_per_shard == 0 for start, _ in commits)
    _require(is_aligned, "commits", commits)
    extent = manifest["extent"]
    end = 0
    if commits:
        end = commits[-1][1]
    is_end = _is_count(extent) and extent == end
    _require(is_end and geometry.shards(extent) <= _MOST_SHARDS, "extent", extent)


def _check_shards(manifest: Mapping[str, Any], geometry: Geometry) -> None:
    """All arrays have the same shards, in the rows of the commits."""
    shards = manifest["shards"]
    _require(isinstance(shards, dict) and bool(shards), "shards", shards)
    numbers: Collection[str] = next(iter(shards.values()))
    for name, records in shards.items():
        _require(is_name(name), "the name", name)
        title = f"shards of {name!r}"
        is_complete = isinstance(records, dict) and records.keys() == set(numbers)
        _require(is_complete, title, records)
        _require(_match(_RECORD, records.values()), title, records)
    _require(_match(_NUMBER, numbers), "shards", [*numbers])
    starts = [start for start, _ in manifest["commits"]]
    for number in numbers:
        row = int(number) * geometry.rows_per_shard
        index = bisect_right(starts, row) - 1
        is_covered = index >= 0 and row < manifest["commits"][index][1]
        _require(is_covered, "the shard", number)


def _check_split(manifest: Mapping[str, Any]) -> None:
    """The entries of a split, which has `frame_index`."""
    _require("frame_index" in manifest["shards"], "shards of", [*manifest["shards"]])
    for name in ("rows", "tracks", "videos"):
        _require(_is_count(manifest[name]), name, manifest[name])
    extra = manifest.get(EXTRA, {})
    is_extra = isinstance(extra, dict) and all(isinstance(e, dict) for e in extra.values())
    _require(is_extra, EXTRA, extra)
    ExtraColumn.from_manifest(manifest)
    _require(_match(_SHA256, [manifest["tables"]]), "tables", manifest["tables"])
    sums = manifest.get(SUMS, {})
    _require(isinstance(sums, dict), SUMS, sums)


def check_tables(tables: Tables, manifest: Mapping[str, Any], extra: Iterable[ExtraColumn]) -> None:
    """Raise ValueError, with what was found, for tables that are not those of a split's manifest,
    with these extra columns: the names, dtypes, shapes and numbers of tracks and videos.
    """
    forms: dict[str, tuple[Any, tuple[int, ...]]] = dict(TABLES)
    for column in extra:
        if column.per == "track":
            forms[column.array] = column.dtype, column.shape
    for name in manifest.get(SUMS, {}):
        forms[f"{VIDEO_SUM}{name}"] = "<f8", ()
    _require(tables.keys() == forms.keys() | TEXTS, "the tables", sorted(tables))
    counts = {"track": manifest["tracks"], "video": manifest["videos"]}
    counts["run"] = tables["run_start"].size
    for name, table in tables.items():
        n_entries = counts[name.partition("_")[0]]
        if name == "video_account":  # it has bytes of all videos
            n_entries = table.size
        dtype, trailing = forms.get(name, ("u1", table.shape[1:2]))
        is_wide = name in forms or trailing > (0,)  # a text has room for a byte
        is_table = is_wide and table.shape == (n_entries, *trailing) and table.dtype == dtype
        _require(is_table, f"table {name!r}", f"{table.dtype} {table.shape}")


def _check_stream(manifest: Mapping[str, Any], stream: str) -> None:
    StreamForm.from_manifest(manifest)
    _require(isinstance(manifest["split_digest"], str), "split_digest", manifest["split_digest"])
    shards = manifest["shards"]
    arrays = {f"{stream}{part}" for part in STREAM_ARRAYS}
    _require(shards.keys() == arrays, "shards of", [*shards])
    rows = manifest["rows"]
    has_rows = isinstance(rows, dict) and rows.keys() == shards[stream].keys()
    _require(has_rows, "rows", rows)
    _require(all(isinstance(row, str) for row in rows.values()), "rows", rows)
    pending = manifest.get(PENDING_ROWS, [])
    _require(_are_ranges(pending), PENDING_ROWS, pending)
    _require(not pending or pending[-1][1] <= manifest["extent"], PENDING_ROWS, pending)


def _require(is_right: bool, title: str, found: Any) -> None:
    if not is_right:
        text = repr(found)
        if len(text) > 80:
            text = f"{text[:80]}..."
        raise ValueError(f"{title} {text}")


def _is_count(number: Any) -> bool:
    return type(number) is int and number >= 0  # a bool is an int, too


def _are_ranges(ranges: Any) -> bool:
    """Whether this is a list of [start, stop) that are not empty, ascending and disjoint."""
    if not isinstance(ranges, list):
        return False
    end = 0
    for pair in ranges:
        is_pair = isinstance(pair, list) and len(pair) == 2 and all(map(_is_count, pair))
        if not is_pair or not end <= pair[0] < pair[1]:
            return False
        end = pair[1]
    return True


def _match(pattern: re.Pattern[str], texts: Collection[Any]) -> bool:
    return all(isinstance(text, str) and pattern.fullmatch(text) for text in texts)

"""Is the cache what its manifests say? Every byte of every shard, every table, every left-over.  [cache]"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from cache import layout, manifest, shards
from cache.errors import CacheError
from cache.folders import shards_there, split_folders, stream_folders
from cache.layout import COLUMNS, FEATURES, MANIFEST, STAGED, ColumnSpec, Geometry, json_file, stream_columns
from cache.manifest import Commit, Place, shard_rows
from cache.reader import require_cache
from cache.stores import Root
from cache.tables import TABLES, TEXTS, Tables, decode_texts, find_runs

Progress = Callable[[str, int], None]  # called with the file checked and its bytes


@dataclass(frozen=True, slots=True)
class Report:
    """What `verify` found. `notes` tell of left-overs of killed runs, which harm nobody."""

    problems: tuple[str, ...]
    notes: tuple[str, ...]
    splits: int
    shards: int
    bytes: int

    @property
    def ok(self) -> bool:
        return not self.problems


class _Findings:
    def __init__(self, progress: Progress | None) -> None:
        self.problems: list[str] = []
        self.notes: list[str] = []
        self.splits = self.shards = self.bytes = 0
        self._progress = progress

    def checked(self, file: str, size: int) -> None:
        self.shards += 1
        self.bytes += size
        if self._progress is not None:
            self._progress(file, size)


def verify(root: Root, *, progress: Progress | None = None) -> Report:
    """Check every shard of every split and stream against its checksums and its manifest, and every table.

    Reads the whole cache once. What is wrong is told in the report, all of it, and never raised.

    Raises CacheError when there is no cache at `root`.
    """
    store = require_cache(root)
    findings = _Findings(progress)
    for name in split_folders(store):
        _verify_split(Place.of_split(store, name), findings)
        for stream in stream_folders(store, name):
            _verify_stream(Place.of_stream(store, name, stream), stream, findings)
    counts = (findings.splits, findings.shards, findings.bytes)
    return Report(tuple(findings.problems), tuple(findings.notes), *counts)


def _load(place: Place, arrays: list[str], findings: _Findings) -> Commit | None:
    """The commit in force, or None after telling what is there instead."""
    store, where = place.store, place.store.where
    try:
        commit = manifest.load(place)
    except CacheError as error:
        findings.problems.append(str(error))
        return None
    if commit is None:
        if lost := [array for array in arrays if place.store.exists(f"{place.array(array)}/zarr.json")]:
            findings.problems.append(
                f"{where(place.manifest)}: is missing, though {', '.join(lost)} were committed by it"
            )
        else:
            findings.notes.append(f"{where(place.home)}: nothing is committed yet")
    if any(name.startswith("journal") for name in store.below(place.writing)):
        findings.notes.append(f"{where(place.writing)}: an unfinished run; running it again goes on from there")
    if store.below(f"{place.home}/{STAGED}"):
        findings.notes.append(f"{where(place.home)}/{STAGED}: left by a killed commit; the next writer clears it up")
    return commit


def _small_file_problems(commit: Commit) -> Iterator[str]:
    """Small files that are not what the manifest says, in place or as the copy that `repair` mends from."""
    place, store = commit.place, commit.place.store
    if store.below(place.staging(commit.digest)):
        return  # a killed commit: the next writer puts them into place
    copy = place.copy(commit.digest)
    digests = {**commit.manifest["files"], MANIFEST: manifest.sha256(json_file(commit.manifest))}
    named = {place.manifest if name == MANIFEST else place.array(name): digest for name, digest in digests.items()}
    named |= {f"{copy}/{name}": digest for name, digest in digests.items()}
    found = store.views(named)
    for key, digest in named.items():
        if key not in found or manifest.sha256(found[key]) != digest:
            state = "other bytes" if key in found else "no file"
            expected = "the file that the manifest names by its digest"
            yield str(CacheError.at(store.where(key), expected=expected, found=state, do=place.repair))


def _verify_split(place: Place, findings: _Findings) -> None:
    commit = _load(place, list(COLUMNS), findings)
    if commit is None:
        return
    findings.splits += 1
    if unknown := sorted(commit.manifest["shards"].keys() - COLUMNS.keys()):
        findings.problems.append(
            f"{place.store.where(place.manifest)}: names columns that this version does not know: {unknown}"
        )
    findings.problems += _small_file_problems(commit)
    known_columns = {name: COLUMNS[name] for name in commit.manifest["shards"] if name in COLUMNS}
    _verify_arrays(commit, known_columns, findings)
    try:
        tables = Tables.from_files(commit.files)
        findings.problems += [
            f"{place.store.where(place.home)}: {problem}" for problem in _table_problems(tables, commit)
        ]
    except (CacheError, ValueError, KeyError, IndexError) as error:
        findings.problems.append(f"{place.store.where(place.home)}: the tables cannot be read: {error}")
    known = {*COLUMNS, *TABLES, *TEXTS, FEATURES}
    _note_strangers(place, known, findings)


def _verify_stream(place: Place, stream: str, findings: _Findings) -> None:
    commit = _load(place, [stream], findings)
    if commit is not None:
        findings.problems += _small_file_problems(commit)
        columns = stream_columns(stream, commit.manifest["dim"], commit.manifest["dtype"])
        _verify_arrays(commit, columns, findings)


def _note_strangers(place: Place, known: set[str], findings: _Findings) -> None:
    for name in place.store.below(place.home):
        if name not in known and "." not in name:
            findings.notes.append(f"{place.store.where(place.home)}/{name}: is named by no manifest")


def _verify_arrays(commit: Commit, columns: Mapping[str, ColumnSpec], findings: _Findings) -> None:
    geometry = Geometry(**commit.manifest["geometry"])
    for name, spec in columns.items():
        records = commit.manifest["shards"][name]
        store, array = commit.place.store, commit.place.array(name)
        for shard, record in sorted(records.items(), key=lambda item: int(item[0])):
            key = layout.shard_key(array, int(shard), spec.trailing)
            findings.problems += _shard_problems(key, record, commit, int(shard), spec, geometry)
            findings.checked(store.where(key), int(record.partition(":")[0]))
        if left := [number for number in shards_there(store, array) if str(number) not in records]:
            findings.notes.append(
                f"{store.where(array)}: shards {left[:5]} are named by no manifest ({len(left)} in all)"
            )


def _shard_problems(
    key: str, record: str, commit: Commit, shard: int, spec: ColumnSpec, geometry: Geometry
) -> Iterator[str]:
    size, file = record.partition(":")[0], commit.place.store.where(key)
    try:
        data = shards.read(commit.place.store, key)
        if len(data) != int(size):
            raise CacheError.at(file, expected=f"{size} bytes", found=f"{len(data)} bytes", do=shards.REPAIR)
        shards.decode(data, spec, geometry, file)
        n_rows = len(shard_rows(commit.manifest, shard))
    except (CacheError, OSError) as error:
        yield str(error)
        return
    if (found := shards.record(data, geometry, file)) != record:
        found = f"an intact shard of something else, {found}"
        yield str(CacheError.at(file, expected=f"the shard {record}", found=found, do=shards.REPAIR))
    if shards.chunks_held(data, geometry, file) * geometry.rows_per_chunk < n_rows:
        yield str(CacheError.at(file, expected=f"{n_rows} rows", found="fewer chunks than that", do=shards.REPAIR))


def _table_problems(tables: Tables, commit: Commit) -> Iterator[str]:
    """What in the tables contradicts itself, the manifest or the frame indices."""
    starts, stops = tables["track_start"], tables["track_stop"]
    counts = {"tracks": len(starts), "videos": len(tables["video_name"]), "rows": int((stops - starts).sum())}
    for key, count in counts.items():
        if commit.manifest[key] != count:
            yield f"the manifest counts {commit.manifest[key]} {key}, the tables {count}"
    if (stops <= starts).any() or (starts[1:] < stops[:-1]).any():
        yield "tracks overlap, or are empty"
    commits = np.array(commit.manifest["commits"], np.int64).reshape(-1, 2)
    within = np.searchsorted(commits[:, 0], starts, side="right") - 1
    if len(starts) and (not len(commits) or (within < 0).any() or (stops > commits[within, 1]).any()):
        yield "tracks lie outside what was committed"
    for table in ("track_name", "video_name"):
        names = decode_texts(tables[table])
        if len(set(names)) < len(names):
            yield f"{table} holds a name twice"
    if not len(tables["run_start"]) or (tables["run_stop"] > tables["run_start"]).all():
        yield from _run_problems(tables, commit)
    else:
        yield "runs are empty"


def _run_problems(tables: Tables, commit: Commit) -> Iterator[str]:
    """Tracks whose runs are not what their frame indices say, one shard's frame indices in memory at a time."""
    spec, geometry = COLUMNS["frame_index"], Geometry(**commit.manifest["geometry"])
    store, array = commit.place.store, commit.place.array("frame_index")
    run_rows: dict[str, Any] = {"start": tables["run_start"], "stop": tables["run_stop"]}
    first = np.searchsorted(run_rows["start"], tables["track_start"])
    last = np.searchsorted(run_rows["start"], tables["track_stop"])
    held, frames = -1, np.zeros(0, np.int64)
    for track, (start, stop) in enumerate(
        zip(tables["track_start"].tolist(), tables["track_stop"].tolist(), strict=True)
    ):
        parts = []
        for shard in range(start // geometry.rows_per_shard, (stop - 1) // geometry.rows_per_shard + 1):
            if shard != held:
                key = layout.shard_key(array, shard, ())
                try:
                    held, frames = shard, shards.decode(shards.read(store, key), spec, geometry, store.where(key))
                except CacheError:
                    return  # told already, as a problem of that shard
            origin = shard * geometry.rows_per_shard
            parts.append(frames[max(start - origin, 0) : stop - origin])
        runs = slice(first[track], last[track])
        found = list(zip(run_rows["start"][runs].tolist(), run_rows["stop"][runs].tolist(), strict=True))
        if found != find_runs(np.concatenate(parts), int(tables["track_step"][track]), start):
            yield f"track {track} (rows {start} to {stop}): its runs are not what its frame indices say"

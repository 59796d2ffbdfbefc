"""Is the cache what its manifests say? Every byte of every shard, every table, every left-over.  [cache]"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cache import layout, manifest, shards
from cache.errors import CacheError
from cache.layout import COLUMNS, FEATURES, STAGED, ColumnSpec, Geometry, stream_columns
from cache.manifest import Commit, Place, shard_rows
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

    def checked(self, file: Path, size: int) -> None:
        self.shards += 1
        self.bytes += size
        if self._progress is not None:
            self._progress(str(file), size)


def verify(root: Path | str, *, progress: Progress | None = None) -> Report:
    """Check every shard of every split and stream against its checksums and its manifest, and every table.

    Reads the whole cache once. What is wrong is told in the report, all of it, and never raised.

    Raises CacheError when there is no cache at `root`.
    """
    folder = Path(root)
    if not (folder / "zarr.json").is_file():
        raise CacheError.at(
            folder, expected="a feature cache", found="no zarr.json", do="Convert a dataset into it first."
        )
    findings = _Findings(progress)
    for split in sorted(path for path in folder.glob("*/*") if path.is_dir()):
        name = split.relative_to(folder).as_posix()
        if layout.is_split_name(name):
            _verify_split(Place.of_split(folder, name), findings)
            for stream in _streams(split):
                _verify_stream(Place.of_stream(folder, name, stream), stream, findings)
    counts = (findings.splits, findings.shards, findings.bytes)
    return Report(tuple(findings.problems), tuple(findings.notes), *counts)


def _streams(split: Path) -> list[str]:
    folders = [path.name for path in sorted((split / FEATURES).glob("*")) if path.is_dir()]
    return [name for name in folders if not name.endswith(("_ok", "_key"))]


def _load(place: Place, arrays: list[str], findings: _Findings) -> Commit | None:
    """The commit in force, or None after telling what is there instead."""
    try:
        commit = manifest.load(place)
    except CacheError as error:
        findings.problems.append(str(error))
        return None
    if commit is None:
        if lost := [array for array in arrays if (place.base / array / "zarr.json").exists()]:
            findings.problems.append(f"{place.manifest}: is missing, though {', '.join(lost)} were committed by it")
        else:
            findings.notes.append(f"{place.home}: nothing is committed yet")
    if (place.writing / "journal.jsonl").exists():
        findings.notes.append(f"{place.writing}: an unfinished run; running it again goes on from there")
    if (place.home / STAGED).exists():
        findings.notes.append(f"{place.home / STAGED}: left by a killed commit; the next writer clears it up")
    return commit


def _verify_split(place: Place, findings: _Findings) -> None:
    commit = _load(place, list(COLUMNS), findings)
    if commit is None:
        return
    findings.splits += 1
    if unknown := sorted(commit.manifest["shards"].keys() - COLUMNS.keys()):
        findings.problems.append(f"{place.manifest}: names columns that this version does not know: {unknown}")
    known_columns = {name: COLUMNS[name] for name in commit.manifest["shards"] if name in COLUMNS}
    _verify_arrays(commit, known_columns, findings)
    try:
        tables = Tables.from_files(commit.files)
        findings.problems += [f"{place.home}: {problem}" for problem in _table_problems(tables, commit)]
    except (CacheError, ValueError, KeyError, IndexError) as error:
        findings.problems.append(f"{place.home}: the tables cannot be read: {error}")
    known = {*COLUMNS, *TABLES, *TEXTS, FEATURES}
    _note_strangers(place.home, known, findings)


def _verify_stream(place: Place, stream: str, findings: _Findings) -> None:
    commit = _load(place, [stream], findings)
    if commit is not None:
        columns = stream_columns(stream, commit.manifest["dim"], commit.manifest["dtype"])
        _verify_arrays(commit, columns, findings)


def _note_strangers(folder: Path, known: set[str], findings: _Findings) -> None:
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and entry.name not in known and not entry.name.startswith("."):
            findings.notes.append(f"{entry}: is named by no manifest")


def _verify_arrays(commit: Commit, columns: Mapping[str, ColumnSpec], findings: _Findings) -> None:
    geometry = Geometry(**commit.manifest["geometry"])
    for name, spec in columns.items():
        records = commit.manifest["shards"][name]
        array = commit.place.base / name
        for shard, record in sorted(records.items(), key=lambda item: int(item[0])):
            file = layout.shard_file(array, int(shard), spec.trailing)
            findings.problems += _shard_problems(file, record, commit, int(shard), spec, geometry)
            findings.checked(file, int(record.partition(":")[0]))
        if left := [number for number in _shards_on_disk(array) if str(number) not in records]:
            findings.notes.append(f"{array}: shards {left[:5]} are named by no manifest ({len(left)} in all)")


def _shards_on_disk(array: Path) -> list[int]:
    folder = array / "c"
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit()) if folder.is_dir() else []


def _shard_problems(
    file: Path, record: str, commit: Commit, shard: int, spec: ColumnSpec, geometry: Geometry
) -> Iterator[str]:
    size = record.partition(":")[0]
    try:
        data = shards.read(file)
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
    array = commit.place.base / "frame_index"
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
                file = layout.shard_file(array, shard, ())
                try:
                    held, frames = shard, shards.decode(shards.read(file), spec, geometry, file)
                except CacheError:
                    return  # told already, as a problem of that shard
            origin = shard * geometry.rows_per_shard
            parts.append(frames[max(start - origin, 0) : stop - origin])
        runs = slice(first[track], last[track])
        found = list(zip(run_rows["start"][runs].tolist(), run_rows["stop"][runs].tolist(), strict=True))
        if found != find_runs(np.concatenate(parts), int(tables["track_step"][track]), start):
            yield f"track {track} (rows {start} to {stop}): its runs are not what its frame indices say"

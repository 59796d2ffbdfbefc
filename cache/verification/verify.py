"""Is the cache what its manifests say? Every byte of every file that they name, as fast as it can be read.  [cache]

Files are checked by several threads and told of in order. `cache.verification.shards` looks at shards,
`cache.verification.tables` at what the tables mean, `cache.verification.checked` remembers how far an interrupted
verification came.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format import layout, manifest
from cache.format import shard as shards
from cache.format.folders import split_folders, stream_folders
from cache.format.layout import COLUMNS, COPY, STAGED, ColumnSpec, Geometry, stream_columns
from cache.format.manifest import Commit, Place
from cache.format.provenance import provenance_problem
from cache.format.references import groups_of, unnamed
from cache.format.tables import Tables
from cache.read.split import require_cache
from cache.storage.base import Root, Store, Tag
from cache.verification.checked import Checked
from cache.verification.problems import Damage, Findings, Report
from cache.verification.ragged import misplaced_shards
from cache.verification.repair import QUARANTINE
from cache.verification.shards import Finding, ShardFile, check, shards_of
from cache.verification.small_files import intact_copies, small_file_problems
from cache.verification.tables import contradictions, runs_against_frames, runs_without_frames

Progress = Callable[[int, int, str], None]  # called with the shards checked, the shards in all, and the speed

_AT_ONCE: Final = 8  # requests to an object store, a whole shard each
_ATTEMPTS: Final = 3  # looks at a split that others write meanwhile


def verify(
    root: Root,
    *,
    fast: bool = False,
    resume: bool = True,
    hold: bool = False,
    progress: Progress | None = None,
    splits: Collection[str] | None = None,
) -> Report:
    """Check every file that the manifests of a cache name, byte by byte.

    What is wrong is told in the report, all of it, and never raised. A verification in a folder that is interrupted
    leaves a note of what it found intact, and the next one goes on from there, for a week.

    Args:
        root: the cache.
        fast: look at sizes and indexes of shards only, and at all small files. Takes seconds.
        resume: go on where an earlier verification was interrupted; False: start over.
        hold: leave the note where something is damaged, so that a verification after its repair checks only the rest.
        progress: is told how far it is.
        splits: only these, as "<dataset>/<split>".

    Raises CacheError when there is no cache at `root`, or no such split, and when an object store does not answer;
    OSError when files may not be read.
    """
    store = require_cache(root)
    there = split_folders(store)
    if strange := sorted(set(splits or ()) - set(there)):
        raise CacheError(f"{store.where('')}: no split {strange[0]!r}; there are: {', '.join(there) or 'none'}")
    names = [name for name in there if splits is None or name in splits]
    checked = None if fast else Checked(store, resume=resume)
    found = _looked_at(store, names, fast, checked, _Teller(progress, store, names))
    if checked is not None:
        checked.leave() if hold and found.problems else checked.finish()
    if store.below(QUARANTINE):
        found.notes.append(f"{store.where(QUARANTINE)}: holds what earlier repairs have taken out; yours to remove")
    counts = (found.splits, found.shards, found.bytes)
    return Report(tuple(found.problems), tuple(found.notes), *counts, tuple(found.damaged), found.carried, fast)


def _looked_at(store: Store, names: Sequence[str], fast: bool, checked: Checked | None, teller: _Teller) -> Findings:
    """What there is to find in these splits. Interrupted, it leaves a note of what was intact so far."""
    found = Findings()
    with ThreadPoolExecutor(_threads(store), thread_name_prefix="verify") as threads:
        try:
            for one in _Verification(store, fast, checked, threads, teller).run(names):
                found.add(one)
        except BaseException:
            threads.shutdown(wait=True, cancel_futures=True)
            if checked is not None:
                checked.leave()
            raise
    return found


def _threads(store: Store) -> int:
    """A few keep a disk busy while others compute; a network wants more."""
    return max(2, min(4, len(os.sched_getaffinity(0)))) if store.exclusive else _AT_ONCE


class _Teller:
    """Says how far it is, and how fast."""

    def __init__(self, progress: Progress | None, store: Store, names: Sequence[str]) -> None:
        self._progress = progress
        self._total = 0 if progress is None else sum(_count(place) for name in names for place in _places(store, name))
        self._done = self._bytes = 0
        self._started = time.monotonic()

    def checked(self, n_bytes: int) -> None:
        if self._progress is not None:
            self._done += 1
            self._bytes += n_bytes
            rate = self._bytes / 1e6 / max(time.monotonic() - self._started, 1e-3)
            self._progress(self._done, max(self._total, self._done), f"{rate:,.0f} MB/s")


def _places(store: Store, split: str) -> list[Place]:
    streams = stream_folders(store, split)
    return [Place.of_split(store, split), *(Place.of_stream(store, split, stream) for stream in streams)]


def _count(place: Place) -> int:
    try:
        found = manifest.read_manifest(place)
    except CacheError:
        return 0
    return 0 if found is None else sum(map(len, found[0]["shards"].values()))


class _Verification:
    """One pass over a cache."""

    def __init__(
        self, store: Store, fast: bool, checked: Checked | None, threads: ThreadPoolExecutor, teller: _Teller
    ) -> None:
        self._store, self._fast, self._checked = store, fast, checked
        self._threads, self._teller = threads, teller

    def run(self, names: Sequence[str]) -> Iterator[Findings]:
        above = dict.fromkeys(["", *(name.partition("/")[0] for name in names)])
        yield self._groups("", above)
        for name in names:
            yield self._unchanged(Place.of_split(self._store, name), lambda place: self._split(place, place.home))
            for stream in stream_folders(self._store, name):
                place = Place.of_stream(self._store, name, stream)
                yield self._unchanged(place, lambda place, s=name, f=stream: self._stream(place, s, f))  # type: ignore[misc]
            yield self._strangers(name)

    def _unchanged(self, place: Place, look: Callable[[Place], Findings]) -> Findings:
        """What a look finds, taken again while somebody commits: small files then belong to another manifest."""
        for _ in range(_ATTEMPTS):
            before = self._store.tag(place.manifest)
            found = look(place)
            if not found.problems or self._store.tag(place.manifest) == before:
                break
        return found

    def _groups(self, split: str, folders: Iterable[str]) -> Findings:
        """The zarr.json of groups: all the same, and nobody's but a plain Zarr reader's."""
        found = Findings()
        keys = [layout.group_key(folder) for folder in folders]
        there = self._store.views(keys)
        for key in keys:
            if key not in there or bytes(there[key]) != layout.group_metadata():
                state = "other bytes" if key in there else "no file"
                do = manifest.REPAIR.format(root=self._store.where(""))
                where = self._store.where(key)
                told = CacheError.at(where, expected="the zarr.json of a Zarr group", found=state, do=do)
                found.damage(Damage(split, None, None, None, key, str(told)))
        return found

    def _split(self, place: Place, name: str) -> Findings:
        found = Findings()
        commit = self._in_force(place, name, None, list(COLUMNS), found)
        if commit is None:
            return found
        found.splits += 1
        found.add(self._groups(name, groups_of(name)))
        where = self._store.where(place.home)
        known = {column: COLUMNS[column] for column in commit.manifest["shards"] if column in COLUMNS}
        if unknown := sorted(commit.manifest["shards"].keys() - COLUMNS.keys()):
            found.problems.append(f"{where}: the manifest names columns that this version does not know: {unknown}")
        damaged = self._arrays(commit, known, name, None, found)
        if commit.files.keys() != commit.manifest["files"].keys():
            return found  # told already: there is no telling what the tables say
        try:
            found.problems += [f"{where}: {told}" for told in self._tables(commit, damaged)]
        except (CacheError, ValueError, KeyError, IndexError) as error:
            found.problems.append(f"{where}: the tables cannot be read: {error}")
        return found

    def _stream(self, place: Place, split: str, stream: str) -> Findings:
        found = Findings()
        commit = self._in_force(place, split, stream, [stream], found)
        if commit is not None:
            columns = stream_columns(stream, commit.manifest["dim"], commit.manifest["dtype"])
            damaged = self._arrays(commit, columns, split, stream, found)
            if commit.manifest["dtype"] == layout.BYTES and not self._fast:
                for shard, key, told in misplaced_shards(commit, stream, damaged):
                    found.damage(Damage(split, stream, f"{stream}_at", shard, key, told))
        return found

    def _in_force(
        self, place: Place, split: str, stream: str | None, arrays: Sequence[str], found: Findings
    ) -> Commit | None:
        """The commit in force with those of its small files that are intact somewhere; all that is not is told.

        Where the manifest itself is damaged, its copy says what else there should be.
        """
        store = self._store
        read: tuple[dict[str, Any], Tag | None] | None = None
        lost: list[str] = []
        try:
            text, tag = store.read_tagged(place.manifest)
        except FileNotFoundError:
            lost = [array for array in arrays if store.exists(f"{place.array(array)}/zarr.json")]
            lost = lost or [
                copy for copy in store.below(f"{place.home}/{COPY}") if store.below(f"{place.home}/{COPY}/{copy}")
            ]
            if not lost:
                found.notes.append(f"{store.where(place.home)}: nothing is committed yet")
        else:
            try:
                read = manifest.parse_manifest(text, store.where(place.manifest), place.repair), tag
            except CacheError as error:
                found.damage(Damage(split, stream, None, None, place.manifest, str(error)))
        if lost:
            told = f"{store.where(place.manifest)}: is missing, though {', '.join(lost)} were committed by it. "
            found.damage(Damage(split, stream, None, None, place.manifest, told + place.repair))
        if found.damaged and len(copied := intact_copies(place)) == 1:
            read = (copied[0], None)
        _note_what_harms_nobody(place, found)
        if read is None:
            return None
        commit = Commit(place, read[0], manifest.small_files(place, read[0]), read[1])
        for key, array, told in small_file_problems(commit, told_already=read[1] is None):
            found.damage(Damage(split, stream, array, None, key, told))
        return commit

    def _arrays(
        self, commit: Commit, columns: Mapping[str, ColumnSpec], split: str, stream: str | None, found: Findings
    ) -> set[str]:
        """Check the shards of all arrays; keys of those that are damaged."""
        before = len(found.damaged)
        for name, spec in columns.items():
            files, strange = shards_of(commit, name, spec)
            found.problems += strange
            numbers = {file.key: number for number, file in files}
            for finding in self._in_order([file for _, file in files], commit.place.repair, found):
                key = finding.shard.key
                if finding.problem:
                    found.damage(Damage(split, stream, name, numbers[key], key, finding.problem))
                found.shards += 1
                found.bytes += finding.shard.size
        return {damage.key for damage in found.damaged[before:]}

    def _in_order(self, files: Sequence[ShardFile], do: str, found: Findings) -> Iterator[Finding]:
        """What comes of every file, in order, a bounded number of them ahead."""
        ahead: deque[Future[Finding] | Finding] = deque()
        waiting = iter(files)
        limit = 2 * _threads(self._store)
        while True:
            for file in itertools.islice(waiting, limit - len(ahead)):
                if self._checked is not None and self._checked.has(file.key, file.record):
                    found.carried += 1
                    ahead.append(Finding(file, "", None))
                else:
                    ahead.append(self._threads.submit(check, self._store, file, fast=self._fast, do=do))
            if not ahead:
                return
            first = ahead.popleft()
            finding = first.result() if isinstance(first, Future) else first
            if self._checked is not None and not finding.problem:
                self._checked.add(finding.shard.key, finding.shard.record, finding.tag)
            self._teller.checked(finding.shard.size if isinstance(first, Future) else 0)
            yield finding

    def _tables(self, commit: Commit, damaged: Collection[str]) -> Iterator[str]:
        tables = Tables.from_files(commit.files)
        told = [*contradictions(tables, commit)] or [*runs_without_frames(tables)]
        yield from told
        if told or self._fast:
            return
        spec, geometry = COLUMNS["frame_index"], Geometry(**commit.manifest["geometry"])
        array = commit.place.array("frame_index")

        def frames_of(shard: int) -> NDArray[np.int64] | None:
            key = layout.shard_key(array, shard, ())
            if key in damaged:
                return None
            try:
                return shards.decode(shards.read(self._store, key), spec, geometry, self._store.where(key))
            except (CacheError, OSError):  # since it was checked: the next verification tells
                return None

        yield from runs_against_frames(tables, geometry, frames_of)

    def _strangers(self, split: str) -> Findings:
        return Findings(notes=list(unnamed(self._store, split)))


def _note_what_harms_nobody(place: Place, found: Findings) -> None:
    store = place.store
    if problem := provenance_problem(place):
        found.notes.append(problem)
    if place.journals():
        where = store.where(place.writing)
        found.notes.append(f"{where}: an unfinished run; running it again goes on from there")
    if store.below(f"{place.home}/{STAGED}"):
        where = store.where(f"{place.home}/{STAGED}")
        found.notes.append(f"{where}: left by a killed commit; the next writer clears it up")

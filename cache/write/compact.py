"""A split written again without the rows of replaced tracks.  [cache]

Videos that are written again leave their old rows behind. `compact` writes what is in force, streams included, beside
the old split, and exchanges the two folders in one step: a reader that opens the split gets the old one or the new one.
A reader that has the old one open goes on with the shards that it has open; opening another raises CacheChanged.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from cache.errors import CacheError, MissingSplit
from cache.format import layout, manifest
from cache.format.layout import COLUMNS, COMPACTING, FEATURES
from cache.format.manifest import callers_entries
from cache.format.place import Place
from cache.format.records import TrackRecord, TrackRows
from cache.format.references import other_files, places_of
from cache.read.split import FeatureCache, Split
from cache.read.streams import OpenStream
from cache.storage import store_at
from cache.storage.atomic import sync_folder
from cache.storage.base import Root
from cache.storage.local import LocalStore
from cache.write.split_writer import NEEDS_FLAG, SplitWriter
from cache.write.stream_writer import StreamWriter

Progress = Callable[[int, int, str], None]  # rows written, rows in all, what is written

_BLOCK: Final = 1 << 20  # bytes of a file that are copied at once


@dataclass(frozen=True, slots=True)
class Compaction:
    """What `compact` did: rows that the arrays took before and after it. Equal: the split was compact already."""

    split: str
    before: int
    after: int


def compact(root: Root, split: str, *, progress: Progress = lambda *_: None) -> Compaction:
    """Rewrite a split without the rows of replaced and removed videos, videos by name, in one commit; its streams too.

    Killed at any point, the split is the old or the new one. Rows are checked as they are read.

    Raises MissingSplit when there is no such split. Raises CacheError when it has a writer, when a killed writer has
    left finished shards or a stream lags behind, in an object store, and where the file system cannot exchange folders.
    """
    layout.check_names(split)
    store = store_at(root)
    instead = "Convert the split into another cache, or compact a copy of it on a disk."
    if not isinstance(store, LocalStore):
        raise CacheError(f"{store.location(split)}: an object store cannot exchange two folders. {instead}")
    if not store.exists(Place(store, split).manifest):
        raise MissingSplit(f"{store.root}: no committed split {split!r}")
    beside = LocalStore(store.path(COMPACTING))
    with contextlib.ExitStack() as stack:
        locked = places_of(store, split)
        for place in locked:
            stack.enter_context(store.lock(place.writing))
            manifest.recover(place)
            if place.journals():
                give_up = f"python -m pipeline gc --unfinished --cache {store.root}"
                do = f"Run its command again to the end, or give it up: {give_up}"
                location = store.location(place.home)
                raise CacheError.at(location, expected="no unfinished work", found="a journal", do=do)
        old = FeatureCache(store.root)[split]
        extent = int(old.manifest["extent"])
        if extent == old.manifest["rows"] and len(old.manifest["commits"]) <= 1:
            _clear(beside, split)  # of a compaction that was killed when it had exchanged the two
            return Compaction(split, extent, extent)
        for stream in old.streams:
            if old.stream_manifest(stream)["split_digest"] != old.manifest["digest"]:
                raise CacheError(
                    f"{split}: the stream {stream!r} lags behind the tracks: its features could not all be carried "
                    "over. Extract what is missing first, or delete the stream's folder, "
                    f"{store.location(f'{split}/{FEATURES}/{stream}')}."
                )
        beside.remove([split])  # of a killed compaction
        _write_tracks(beside, old, progress)
        for stream in old.streams:
            _write_stream(beside, old, stream, progress)
        _keep_notes(store, beside, old)
        if late := [place.stream for place in places_of(store, split) if place not in locked]:
            raise CacheError(f"{split}: the stream {late[0]!r} was begun meanwhile. Nothing was changed. Run it again.")
        # Both folders are locked, so that no writer is in between.
        locks = [(place, stack.enter_context(beside.lock(place.writing))) for place in places_of(beside, split)]
        exchange(store.path(split), beside.path(split))
        for place, lock in locks:
            lock.file = store.path(f"{place.writing}/lock")
        _clear(beside, split)
    return Compaction(split, extent, int(FeatureCache(store.root)[split].manifest["extent"]))


def _write_tracks(beside: LocalStore, old: Split, progress: Progress) -> None:
    plan = f"compact {old.manifest['digest']}"
    note = {key: value for key, value in old.provenance.items() if key in ("raw", "body")}
    note["compacted"] = old.manifest["digest"]
    by_video: dict[str, list[TrackRecord]] = {}
    for track in old.tracks:
        by_video.setdefault(track.video, []).append(track)
    sizes: dict[str, int] = old.manifest["geometry"]
    done = 0
    with SplitWriter(beside.root, old.name, columns=old.columns, plan=plan, provenance=note, **sizes) as writer:
        writer.begin()
        for number in np.argsort(np.array(old.videos.names, dtype=object), kind="stable").tolist():
            entry = old.videos[number]
            tracks = by_video.get(entry.name, [])
            writer.append(entry, [_as_appended(old, track) for track in tracks])
            done += sum(track.stop - track.start for track in tracks)
            progress(done, int(old.manifest["rows"]), old.name)
        writer.commit(callers_entries(old.manifest, SplitWriter.own_entries))


def _as_appended(old: Split, track: TrackRecord) -> TrackRows:
    """A track as it was appended once: columns that it lacked hold fill values, and are left out."""
    columns = {name: old.rows(name, track.start, track.stop) for name in old.columns}
    for name, rows in list(columns.items()):
        fill = COLUMNS[name].fill
        if np.isnan(rows).all() if isinstance(fill, float) else (rows == fill).all():
            del columns[name]
    for label, flag in NEEDS_FLAG.items():
        if flag not in columns:
            columns.pop(label, None)
    return TrackRows.of(track, columns)


def _write_stream(beside: LocalStore, old: Split, name: str, progress: Progress) -> None:
    commit = manifest.load(Place(old.store, old.name, name))
    assert commit is not None, "the streams of an open split are locked"
    stream, held = OpenStream(commit, old.manifest), commit.manifest
    new, source = FeatureCache(beside.root)[old.name], {track.name: track.start for track in old.tracks}
    shift = np.array([source[name] for name in new.tracks.names], np.int64) - new.tracks.start  # to a track's old rows
    form: dict[str, Any] = {"dim": int(held["dim"]), "dtype": str(held["dtype"])}
    note = {"compacted": held["digest"]}
    with StreamWriter(beside.root, old.name, name, **form, plan=str(held["digest"]), provenance=note) as writer:
        for shard in writer.pending:
            rows = np.asarray(writer.rows(shard))
            track = new.track_of(rows)
            live = np.flatnonzero(track >= 0)
            old_rows = rows[live] + shift[track[live]]
            ok, keys = np.zeros(len(rows), np.uint8), np.zeros((len(rows), 2), np.uint64)
            ok[live], keys[live] = stream.read("_ok", old_rows)[:, 0], stream.read("_key", old_rows)[:, 0]
            data: Any = [b""] * len(rows)
            if held["dtype"] == layout.BYTES:
                good = ok[live] == 1
                for row, blob in zip(live[good].tolist(), stream.blobs(old_rows[good]), strict=True):
                    data[row] = blob
            else:
                data = np.zeros((len(rows), held["dim"]), held["dtype"])
                data[live] = stream.read("", old_rows)[:, 0]
            writer.write(shard, data, ok, keys)
            progress(int(rows[-1]) + 1, int(new.manifest["extent"]), f"{old.name}: {name}")
        writer.commit(callers_entries(held, StreamWriter.own_entries))


def _keep_notes(store: LocalStore, beside: LocalStore, old: Split) -> None:
    """Take along how earlier commits came about, and every file that is not the cache's own: it is the user's."""
    for stream in (None, *old.streams):
        before, now = (Place(where, old.name, stream) for where in (store, beside))
        manifest.write_provenance(now, {**manifest.read_provenance(before), **manifest.read_provenance(now)})
    for key in other_files(store, old.name):
        with store.path(key).open("rb") as file:
            blocks = iter(partial(file.read, _BLOCK), b"")
            beside.put(key, blocks, temporary=Place(beside, old.name).temporary)


def _clear(beside: LocalStore, split: str) -> None:
    """Remove what was written beside, or by now the old split."""
    dataset = split.partition("/")[0]
    beside.remove([split])
    for folder in (dataset, ""):
        if all(name == "zarr.json" for name in beside.list_names(folder)):
            beside.remove([folder])


_RENAME_EXCHANGE: Final = 2
_AT_FDCWD: Final = -100


def exchange(one: Path, other: Path) -> None:
    """Exchange the names of two folders of one file system, atomically and durably (Linux's renameat2).

    Raises CacheError where the file system cannot.
    """
    code, rename = errno.ENOSYS, getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        failed = rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE)
        code = ctypes.get_errno() if failed else 0
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EXDEV):
        raise CacheError(
            f"{one}: this file system cannot exchange two folders in one step. Nothing was changed. Convert the split "
            "into another cache, or compact a copy of it on another file system."
        )
    if code:
        raise OSError(code, os.strerror(code), str(one))
    sync_folder(one.parent)
    sync_folder(other.parent)

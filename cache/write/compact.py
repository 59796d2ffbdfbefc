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
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError, MissingSplit
from cache.fingerprint import fingerprint
from cache.format import layout, manifest
from cache.format.layout import COLUMNS, COMPACTING, FEATURES
from cache.format.manifest import Place, callers_entries
from cache.format.provenance import read_provenance, write_provenance
from cache.format.records import TrackRecord, TrackRows
from cache.format.references import other_files, stream_folders
from cache.read.split import FeatureCache, Split
from cache.storage import store_at
from cache.storage.atomic import sync_folder
from cache.storage.base import Root
from cache.storage.local import LocalStore
from cache.write.split_writer import OWN_ENTRIES, SplitWriter
from cache.write.stream_writer import STREAM_ENTRIES, StreamWriter
from cache.write.validation import NEEDS_FLAG

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

    Killed at any point, the split is the old or the new one; run again, it goes on. Rows are checked as they are read.

    Raises MissingSplit when there is no such split. Raises CacheError when it has a writer, when a killed writer has
    left finished shards or a stream lags behind, in an object store, and where the file system cannot exchange folders.
    """
    layout.check_names(split)
    store = store_at(root)
    instead = "Convert the split into another cache, or compact a copy of it on a disk."
    if not isinstance(store, LocalStore):
        raise CacheError(f"{store.location(split)}: an object store cannot exchange two folders. {instead}")
    if not store.exists(Place.of_split(store, split).manifest):
        raise MissingSplit(f"{store.root}: no committed split {split!r}")
    beside = LocalStore(store.path(COMPACTING))
    with contextlib.ExitStack() as stack:
        locked = stream_folders(store, split)
        for place in [Place.of_split(store, split), *(Place.of_stream(store, split, name) for name in locked)]:
            stack.callback(store.lock(place.writing).release)
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
        _start(beside, old)
        _write_tracks(beside, old, progress)
        for stream in old.streams:
            _write_stream(beside, old, stream, progress)
        _keep_notes(store, beside, old)
        if late := sorted(set(stream_folders(store, split)) - set(locked)):
            raise CacheError(f"{split}: the stream {late[0]!r} was begun meanwhile. Nothing was changed. Run it again.")
        # Both folders are locked, so that no writer is in between.
        homes = [split, *(f"{split}/{FEATURES}/{stream}" for stream in stream_folders(beside, split))]
        locks = [(home, beside.lock(f"{home}/{layout.WRITING}")) for home in homes]
        for _, lock in locks:
            stack.callback(lock.release)
        exchange(store.path(split), beside.path(split))
        for home, lock in locks:
            lock.file = store.path(f"{home}/{layout.WRITING}/lock")
        _clear(beside, split)
    return Compaction(split, extent, int(FeatureCache(store.root)[split].manifest["extent"]))


def _start(beside: LocalStore, old: Split) -> None:
    """Keep what a killed compaction of this very state has written; remove that of any other."""
    marker = f"{old.name}.from"
    streams = {stream: old.stream_manifest(stream)["digest"] for stream in old.streams}
    state = fingerprint({"split": old.manifest["digest"], "streams": streams}).encode()
    if not beside.exists(marker) or beside.read(marker) != state:
        beside.remove([old.name])
        beside.put_small({marker: state}, old.name.partition("/")[0])


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
        written = {*writer.committed_videos, *writer.journalled}
        for number in np.argsort(np.array(old.videos.names, dtype=object), kind="stable").tolist():
            entry = old.videos[number]
            tracks = by_video.get(entry.name, [])
            if entry.name not in written:
                writer.append(entry, [_rows(old, track) for track in tracks])
            done += sum(track.stop - track.start for track in tracks)
            progress(done, int(old.manifest["rows"]), old.name)
        writer.commit(callers_entries(old.manifest, OWN_ENTRIES))


def _rows(old: Split, track: TrackRecord) -> TrackRows:
    """A track as it was appended once: columns that it lacked hold fill values, and are left out."""
    columns = {name: old.rows(name, track.start, track.stop) for name in old.columns}
    for name, rows in list(columns.items()):
        fill = COLUMNS[name].fill
        if np.isnan(rows).all() if isinstance(fill, float) else (rows == fill).all():
            del columns[name]
    for label, flag in NEEDS_FLAG.items():
        if flag not in columns:
            columns.pop(label, None)
    return TrackRows(
        name=track.name,
        video=track.video,
        step=track.step,
        fps=track.fps,
        crop_scale=track.crop_scale,
        gender=track.gender,
        intrinsics=track.intrinsics,
        columns=columns,
    )


def _write_stream(beside: LocalStore, old: Split, stream: str, progress: Progress) -> None:
    held = old.stream_manifest(stream)
    of_bytes = held["dtype"] == layout.BYTES
    source = {track.name: track.start for track in old.tracks}
    new = FeatureCache(beside.root)[old.name]
    starts = np.array([source[name] for name in new.tracks.names], np.int64)
    shift = starts - new.tracks.start  # of each new track's rows, to the old ones
    form: dict[str, Any] = {"dim": int(held["dim"]), "dtype": str(held["dtype"])}
    note = {"compacted": held["digest"]}
    with StreamWriter(beside.root, old.name, stream, **form, plan=str(held["digest"]), provenance=note) as writer:
        for shard in writer.pending:
            rows = np.asarray(writer.rows(shard))
            track = new.track_of(rows)
            live = np.flatnonzero(track >= 0)
            old_rows = rows[live] + shift[track[live]]
            ok, keys = (_gathered(old, f"{stream}{part}", len(rows), live, old_rows) for part in ("_ok", "_key"))
            data: Any
            if of_bytes:
                data, good = [b""] * len(rows), ok[live] == 1
                for at, blob in zip(live[good].tolist(), old.blobs(stream, old_rows[good]), strict=True):
                    data[at] = blob
            else:
                data = _gathered(old, stream, len(rows), live, old_rows)
            writer.write(shard, data, ok == 1, keys)
            progress(int(rows[-1]) + 1, int(new.manifest["extent"]), f"{old.name}: {stream}")
        writer.commit(callers_entries(held, STREAM_ENTRIES))


def _gathered(old: Split, array: str, n_rows: int, live: NDArray[np.intp], old_rows: NDArray[np.int64]) -> NDArray[Any]:
    """(n_rows, ...) with the `old_rows` of a stream's array in the rows `live`, of which there are some; else 0."""
    breaks = np.flatnonzero(np.diff(old_rows) != 1) + 1
    parts = [old.rows(f"{FEATURES}/{array}", int(rows[0]), int(rows[-1]) + 1) for rows in np.split(old_rows, breaks)]
    out = np.zeros((n_rows, *parts[0].shape[1:]), parts[0].dtype)
    out[live] = np.concatenate(parts)
    return out


def _keep_notes(store: LocalStore, beside: LocalStore, old: Split) -> None:
    """Take along how earlier commits came about, and every file that is not the cache's own: it is the user's."""
    for stream in (None, *old.streams):
        before, now = (
            Place.of_split(where, old.name) if stream is None else Place.of_stream(where, old.name, stream)
            for where in (store, beside)
        )
        write_provenance(now, {**read_provenance(before), **read_provenance(now)})
    for key in other_files(store, old.name):
        beside.put(key, _blocks(store.path(key)), temporary=Place.of_split(beside, old.name).temporary)


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            yield block


def _clear(beside: LocalStore, split: str) -> None:
    """Remove what was written beside, or by now the old split."""
    dataset = split.partition("/")[0]
    beside.remove([split, f"{split}.from"])
    for folder in (dataset, ""):
        if all(name == "zarr.json" for name in beside.list_names(folder)):
            beside.remove([folder])


_RENAME_EXCHANGE: Final = 2
_AT_FDCWD: Final = -100


def exchange(one: Path, other: Path) -> None:
    """Exchange the names of two folders of one file system, atomically and durably (Linux's renameat2).

    Raises CacheError where the file system cannot.
    """
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        code = errno.ENOSYS
    else:
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

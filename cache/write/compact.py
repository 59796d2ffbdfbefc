"""A split written anew without the rows of replaced tracks.  [cache]

Videos that come anew leave their old rows behind. `compact` writes what is in force, streams included, beside the old
split, and exchanges the two folders in one step: whoever opens the split sees the old one or the new one. Who holds the
old one goes on with the shards that it has open, and is told (CacheChanged) when it needs another.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError, MissingSplit
from cache.fingerprint import fingerprint
from cache.format import layout, manifest
from cache.format.folders import stream_folders
from cache.format.layout import COLUMNS, COMPACTING, FEATURES, PROVENANCE
from cache.format.manifest import Place, own_part
from cache.format.provenance import read_provenance, set_damaged_aside
from cache.format.records import TrackRecord, TrackRows
from cache.format.references import not_the_caches
from cache.read.split import FeatureCache, Split
from cache.storage.atomic import sync_folder
from cache.storage.base import Root, store_at
from cache.storage.local import Folder
from cache.write.split_writer import OWN_ENTRIES, SplitWriter
from cache.write.stream_writer import STREAM_ENTRIES, StreamWriter
from cache.write.validation import NEEDS_FLAG

Progress = Callable[[int, int, str], None]  # rows written, rows in all, what is written

_BLOCK: Final = 1 << 20  # bytes of a file that are copied at once


@dataclass(frozen=True, slots=True)
class Compaction:
    """What `compact` did: rows that the arrays took before and after it. Equal: there was nothing to do."""

    split: str
    before: int
    after: int


def compact(root: Root, split: str, *, progress: Progress = lambda *_: None) -> Compaction:
    """Rewrite a split without the rows of replaced and removed videos, videos by name, in one commit; its streams too.

    Killed at any point, the split is the old or the new one; run again, it goes on. Rows are checked as they are read.

    Raises MissingSplit when there is no such split. Raises CacheError when somebody is writing it, when a run on it is
    unfinished or a stream lags behind, in an object store, and where the file system cannot exchange two folders.
    """
    layout.check_names(split)
    store = store_at(root)
    if not isinstance(store, Folder):
        raise CacheError(
            f"{store.where(split)}: an object store cannot exchange two folders. Convert the split into another cache, "
            "or compact a copy of it on a disk."
        )
    if not store.exists(Place.of_split(store, split).manifest):
        raise MissingSplit(f"{store.root}: no committed split {split!r}")
    with contextlib.ExitStack() as stack:
        locked = stream_folders(store, split)
        places = [Place.of_split(store, split), *(Place.of_stream(store, split, stream) for stream in locked)]
        for place in places:
            stack.callback(store.lock(place.writing).release)
            manifest.settle(place)
            _refuse_unfinished(place)
        old = FeatureCache(store.root)[split]
        extent = int(old.manifest["extent"])
        if extent == old.manifest["rows"] and len(old.manifest["commits"]) <= 1:
            _clear(Folder(store.path(COMPACTING)), split)  # of a run that was killed when it had exchanged the two
            return Compaction(split, extent, extent)
        streams = [stream for stream in old.streams if stream in locked]
        for stream in streams:
            _refuse_lagging(old, stream)
        beside = Folder(store.path(COMPACTING))
        _start(beside, old)
        _write_tracks(beside, old, progress)
        for stream in streams:
            _write_stream(beside, old, stream, progress)
        _keep_notes(store, beside, old)
        if late := sorted(set(stream_folders(store, split)) - set(locked)):
            raise CacheError(f"{split}: the stream {late[0]!r} was begun meanwhile. Nothing was changed. Run it again.")
        _exchange(store, beside, split, stack)
    new = FeatureCache(store.root)[split]
    return Compaction(split, extent, int(new.manifest["extent"]))


def _refuse_unfinished(place: Place) -> None:
    if place.journals():
        where = place.store.where(place.home)
        do = f"Run it again to its end, or give it up: python -m pipeline gc --unfinished --cache {place.store.root}"
        raise CacheError.at(where, expected="no unfinished run", found="a journal", do=do)


def _refuse_lagging(old: Split, stream: str) -> None:
    if old.stream_manifest(stream)["split_digest"] != old.manifest["digest"]:
        raise CacheError(
            f"{old.name}: the stream {stream!r} lags behind the tracks: its features could not all be carried over. "
            "Extract what is missing first, or remove the stream: its folder, "
            f"{old.root}/{old.name}/{FEATURES}/{stream}."
        )


def _start(beside: Folder, old: Split) -> None:
    """Keep what a killed compaction of this very state has written; remove that of any other."""
    marker = f"{old.name}.from"
    streams = {stream: old.stream_manifest(stream)["digest"] for stream in old.streams}
    state = fingerprint({"split": old.manifest["digest"], "streams": streams}).encode()
    if not beside.exists(marker) or beside.read(marker) != state:
        beside.remove([old.name])
        beside.put_small({marker: state}, old.name.partition("/")[0])


def _write_tracks(beside: Folder, old: Split, progress: Progress) -> None:
    plan = f"compact {old.manifest['digest']}"
    given = {key: value for key, value in old.provenance.items() if key in ("raw", "body")}
    by_video: dict[str, list[TrackRecord]] = {}
    for track in old.tracks:
        by_video.setdefault(track.video, []).append(track)
    done = 0
    with SplitWriter(
        beside.root,
        old.name,
        columns=old.columns,
        plan=plan,
        provenance={**given, "compacted": old.manifest["digest"]},
        **old.manifest["geometry"],
    ) as writer:
        writer.begin()
        there = {*writer.committed_videos, *writer.journalled}
        for number in np.argsort(np.array(old.videos.names, dtype=object), kind="stable").tolist():
            entry = old.videos[number]
            tracks = by_video.get(entry.name, [])
            if entry.name not in there:
                writer.append(entry, [_rows(old, track) for track in tracks])
            done += sum(track.stop - track.start for track in tracks)
            progress(done, int(old.manifest["rows"]), old.name)
        writer.commit(own_part(old.manifest, OWN_ENTRIES))


def _rows(old: Split, track: TrackRecord) -> TrackRows:
    """A track as it was appended once: columns that it lacked hold fill values, and are left out."""
    columns = {name: old.rows(name, track.start, track.stop) for name in old.columns}
    lacking = {name for name, rows in columns.items() if _is_fill(name, rows)}
    lacking |= {label for label, flag in NEEDS_FLAG.items() if flag in lacking or flag not in columns}
    return TrackRows(
        name=track.name,
        video=track.video,
        step=track.step,
        fps=track.fps,
        crop_scale=track.crop_scale,
        gender=track.gender,
        intrinsics=track.intrinsics,
        columns={name: rows for name, rows in columns.items() if name not in lacking},
    )


def _is_fill(name: str, rows: NDArray[Any]) -> bool:
    fill = COLUMNS[name].fill
    return bool(np.isnan(rows).all() if isinstance(fill, float) else (rows == fill).all())


def _write_stream(beside: Folder, old: Split, stream: str, progress: Progress) -> None:
    held = old.stream_manifest(stream)
    source = {track.name: track.start for track in old.tracks}
    new = FeatureCache(beside.root)[old.name]
    starts = np.array([source[name] for name in new.tracks.names], np.int64)
    shift = starts - new.tracks.start  # of each new track's rows, to where they were
    form: dict[str, Any] = {"dim": int(held["dim"]), "dtype": str(held["dtype"])}
    note = {"compacted": held["digest"]}
    with StreamWriter(beside.root, old.name, stream, **form, plan=str(held["digest"]), provenance=note) as writer:
        for shard in writer.pending:
            rows = np.asarray(writer.rows(shard))
            track = new.track_of(rows)
            live = np.flatnonzero(track >= 0)
            ok, keys = (_gathered(old, f"{stream}{part}", rows, live, shift[track[live]]) for part in ("_ok", "_key"))
            if form["dtype"] == layout.BYTES:
                good = live[ok[live] == 1]
                data: Any = _gathered_bytes(old, stream, rows, good, shift[track[good]])
            else:
                data = _gathered(old, stream, rows, live, shift[track[live]])
            writer.write(shard, data, ok == 1, keys)
            progress(int(rows[-1]) + 1, int(new.manifest["extent"]), f"{old.name}: {stream}")
        writer.commit(own_part(held, STREAM_ENTRIES))


def _gathered(
    old: Split, name: str, rows: NDArray[np.int64], live: NDArray[np.intp], shift: NDArray[np.int64]
) -> NDArray[Any]:
    """(n, ...) of a stream's array for the new `rows`, out of the old ones; 0 where there is no track."""
    where = rows[live] + shift
    breaks = np.flatnonzero(np.diff(where) != 1) + 1
    out: NDArray[Any] | None = None
    for at, run in zip(np.split(live, breaks), np.split(where, breaks), strict=True):
        part = old.rows(f"{FEATURES}/{name}", int(run[0]), int(run[-1]) + 1)
        if out is None:
            out = np.zeros((len(rows), *part.shape[1:]), part.dtype)
        out[at] = part
    assert out is not None  # a pending shard has rows of tracks
    return out


def _gathered_bytes(
    old: Split, stream: str, rows: NDArray[np.int64], good: NDArray[np.intp], shift: NDArray[np.int64]
) -> list[bytes]:
    """n times the bytes of a stream for the new `rows`; b"" where there are none."""
    found = [b""] * len(rows)
    for at, data in zip(good.tolist(), old.blobs(stream, rows[good] + shift), strict=True):
        found[at] = data
    return found


def _keep_notes(store: Folder, beside: Folder, old: Split) -> None:
    """How earlier commits came about, and every file that is not the cache's own: it is not ours to remove."""
    places = [(Place.of_split(store, old.name), Place.of_split(beside, old.name))]
    places += [
        (Place.of_stream(store, old.name, stream), Place.of_stream(beside, old.name, stream)) for stream in old.streams
    ]
    for before, now in places:
        set_damaged_aside(before)
        commits = {**read_provenance(before)["commits"], **read_provenance(now)["commits"]}
        notes: Mapping[str, Any] = {"commits": commits}
        beside.put_small({f"{now.home}/{PROVENANCE}": layout.json_file(notes)}, now.home)
    temporary = Place.of_split(beside, old.name).temporary
    for key in not_the_caches(store, old.name):
        beside.put(key, _pieces(store.path(key)), by_way_of=temporary)


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while piece := stream.read(_BLOCK):
            yield piece


def _exchange(store: Folder, beside: Folder, split: str, stack: contextlib.ExitStack) -> None:
    """The new folder in the old one's place, in one step. Both are locked, so that no writer is in between."""
    homes = [split, *(f"{split}/{FEATURES}/{stream}" for stream in stream_folders(beside, split))]
    locks = []
    for home in homes:
        locks.append(beside.lock(f"{home}/{layout.WRITING}"))
        stack.callback(locks[-1].release)
    exchange(store.path(split), beside.path(split))
    for lock, home in zip(locks, homes, strict=True):
        lock.moved(store.path(f"{home}/{layout.WRITING}/lock"))
    _clear(beside, split)


def _clear(beside: Folder, split: str) -> None:
    """Remove what was written beside, or by now the old split."""
    dataset = split.partition("/")[0]
    beside.remove([split, f"{split}.from"])
    if all(name == "zarr.json" for name in beside.below(dataset)):
        beside.remove([dataset])
    if all(name == "zarr.json" for name in beside.below("")):
        beside.remove([""])


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

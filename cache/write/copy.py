"""Copy the live rows of a split and its streams into another cache.  [cache]

Live rows are those that belong to committed tracks; rows of replaced tracks are left out, so rows
get new numbers in the copy. Rows are read with their checksums and written by `SplitWriter` and
`StreamWriter`, so a killed copy can be continued. Existing data is never overwritten.

`copy_split` writes the tracks in one commit (`write_tracks`), then each stream (`_copy_stream`).
In this file, `source` is the split to copy, and `copied` is the same split in the other cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from cache.arrays import Array, Ints
from cache.errors import CacheError, ForeignStream
from cache.format import layout
from cache.format.extra import ExtraColumn
from cache.format.folders import unmounted_streams
from cache.format.layout import COLUMNS, UNDECODABLE
from cache.format.manifest import lost_manifest
from cache.format.place import Place
from cache.format.records import TrackRows, VideoEntry
from cache.format.track_tables import TrackRecord
from cache.read.split import FeatureCache, Split
from cache.read.streams import OpenStream
from cache.storage import store_at
from cache.storage.base import Root, Store
from cache.write.base import SHARED, finish_commits
from cache.write.split_writer import SplitWriter
from cache.write.stream_writer import StreamWriter

# called with the number of rows written, of rows in all, and the split or stream being written
Progress = Callable[[int, int, str], None]

# takes JSON, and returns of it what others may read
Clean = Callable[[Any], Any]

VideoWithTracks = tuple[VideoEntry, list[TrackRecord]]
COPIED: Final = "copied"  # entry of a commit's note: which commit of which cache it is a copy of
# entries of a note that a copy for others keeps
_FOR_OTHERS: Final = ("computed_with", "varying", "without_features")


def _same(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True)
class Copied:
    """Result of `copy_split`."""

    split: str
    rows: int  # live rows of the split
    wrote_rows: bool  # False: the split had been copied before
    streams: tuple[str, ...]  # streams of which new rows were copied
    missing: Mapping[str, int]  # stream -> number of live rows that the copy lacks, if any
    # messages: streams left out, whose disks are not mounted, or that are of other rows
    left_out: tuple[str, ...]


def copy_split(
    root: Root,
    split: str,
    to: Root,
    *,
    streams: Collection[str] | None = None,
    clean: Clean | None = None,
    progress: Progress = lambda *_: None,
) -> Copied:
    """Copy the live rows of a split from the cache `root` into the cache `to`, then its streams.

    The split's rows are one commit, with videos sorted by name. After a kill, call this again to
    continue. If the split has been copied before, only shards that its streams lack are copied.
    Rows that a stream of the source does not have yet stay pending in a copied shard.

    Args:
        streams: copy only these streams (default: all of the split's rows whose disks are mounted).
        clean: for a copy for others: applied to all texts about the rows, such as the message of
            a video's account. Notes then have no folder, host or process, and stamps of raw files
            are left out.

    Raises MissingSplit if the split is missing; CacheError if the other cache has a different split
    or stream of that name, or a running writer of it, for a missing stream, and for damaged rows.
    """
    layout.check_names(split)
    source = FeatureCache(root)[split]
    store = store_at(to)
    if streams is None:
        opened, left_out = _streams_to_copy(source)
    else:
        opened = {name: source.open_stream(name) for name in streams}
        left_out = []
    names = tuple(opened)
    existing = _find_copy(source, store)
    if existing is None:
        digest = source.commit.digest
        note = _note(source.store, split, digest, source.provenance, clean)
        videos = _sort_videos(source)
        plan = f"copy {digest}, {SHARED} {SHARED in note}"
        write_tracks(store.root, source, videos, (), plan, note, progress, clean or _same)
    else:
        _require_same_streams(source, existing, names, clean or _same)
    finish_commits(store.root, split)  # of a copy that was killed
    if clean is None:
        _copy_stamps(source.store, store, split)

    copied = FeatureCache(store.root)[split]
    starts = dict(zip(source.tracks.names, source.tracks.start.tolist(), strict=True))
    source_starts = np.array([starts[name] for name in copied.tracks.names], np.int64)
    # for each track of the copy (N,), what to add to its row numbers to get the source's
    row_offset = source_starts - copied.tracks.start
    written = []
    for name in names:
        if _copy_stream(copied, source, opened[name], row_offset, progress, clean):
            written.append(name)

    copied = FeatureCache(store.root)[split]
    n_rows = int(copied.rows_by_shard().sum())
    missing = {}
    for name in names:
        n_missing = n_rows - _count_rows(copied, name)
        if n_missing > 0:
            missing[name] = n_missing
    return Copied(split, n_rows, existing is None, tuple(written), missing, tuple(left_out))


def _streams_to_copy(source: Split) -> tuple[dict[str, OpenStream], list[str]]:
    """Open all streams of the split's rows. Also returns why others are left out: their disks are
    not mounted, or they are of other rows.
    """
    left_out = list(unmounted_streams(source.store, source.name).values())
    opened = {}
    for name in source.streams:
        try:
            opened[name] = source.open_stream(name)
        except ForeignStream as error:
            left_out.append(str(error))
    return opened, left_out


def _require_same_streams(
    source: Split, existing: Split, names: Collection[str], clean: Clean
) -> None:
    """Raise CacheError if a copy has one of these streams, made differently."""
    for name in existing.streams:
        if name in names and clean(_stream_form(source, name)) != _stream_form(existing, name):
            raise CacheError.at(
                existing.store.location(existing.place(name).manifest_folder),
                expected=f"no stream, or {name!r} of the same kind and weights as in {source.root}",
                found="one that was made differently",
                do="Nothing is overwritten: remove that folder if it may go, or leave the "
                "stream out (--streams).",
            )


def _count_rows(split: Split, stream: str) -> int:
    """Number of live rows of the split that the stream has."""
    if stream not in split.streams:
        return 0
    n_rows = split.rows_by_shard()[split.open_stream(stream).shards].sum()
    return int(n_rows - np.diff(split.open_stream(stream).pending_rows()).sum())


def _digests_of(split: Split) -> set[str]:
    """The digests of the split's commit and, if it is a copy, of the commit that was copied. Two
    splits with a common digest have the same live rows.
    """
    digest = split.manifest["digest"]
    return {digest, split.provenance.get(COPIED, {}).get("digest", digest)}


def _find_copy(source: Split, store: Store) -> Split | None:
    """The copy of this state of the split in `store`; None if there is no such split. Raises
    CacheError if there is another state, or the split's manifest is lost.
    """
    place = Place(store, source.name)
    if not store.exists(place.manifest):
        lost = lost_manifest(place)
        if lost:
            raise lost
        return None
    existing = FeatureCache(store.root)[source.name]
    if _digests_of(source) & _digests_of(existing):
        return existing
    location = source.store.location(source.name)
    raise CacheError.at(
        store.location(place.manifest_folder),
        expected=f"no split, or a copy of {location} as it is now",
        found="another state of it, or another split",
        do="Nothing is overwritten: remove that folder if it may go, or copy into another cache.",
    )


def _stream_form(split: Split, name: str) -> dict[str, Any]:
    """The manifest entries that must be equal in a stream and its copy."""
    stream = split.open_stream(name)
    entries = _callers_entries(stream.manifest, StreamWriter.own_entries)
    return {**entries, **stream.form.as_json()}


def write_tracks(
    root: Root,
    source: Split,
    videos: Array,
    without: Collection[int],
    plan: str,
    note: Mapping[str, Any],
    progress: Progress,
    clean: Clean = _same,
) -> None:
    """Commit some videos of a split with their tracks, in this order: into another cache; or once
    more into the split itself, `without` the shards that have their rows.

    videos: their numbers in `source.videos`.

    Raises CacheChanged if the split itself has a later commit.
    """
    names = np.array(source.videos.names, dtype=object)
    geometry = source.commit.geometry
    unknown = dict.fromkeys(source.tables.sums, math.nan)  # also sums that no video has
    n_rows = 0
    with SplitWriter(
        root,
        source.name,
        columns=source.columns,
        extra=_extra_columns(source, clean),
        plan=plan,
        provenance=note,
        rows_per_shard=geometry.rows_per_shard,
        rows_per_chunk=geometry.rows_per_chunk,
    ) as writer:
        if without and writer.state.commit.digest != source.commit.digest:
            raise source.commit.changed_error()
        drop = names[videos].tolist() if without else []
        following = writer.begin(drop, invalidate=without)
        finished = set(following.journalled)
        for entry, tracks in _videos_of(source, videos):
            if entry.name not in finished:
                texts = {"source": clean(entry.source), "account": clean(entry.account)}
                rows = [to_track_rows(source, track) for track in tracks]
                sums = {**unknown, **entry.sums}
                following.append(replace(entry, **texts, sums=sums), rows)
            n_rows += sum(track.stop - track.start for track in tracks)
            progress(n_rows, int(source.manifest["rows"]), source.name)
        following.commit(clean(_callers_entries(source.manifest, SplitWriter.own_entries)))


def _extra_columns(source: Split, clean: Clean) -> list[ExtraColumn]:
    """The extra columns, to be written as they are stored: rows may have gaps."""
    return [
        replace(column, gaps=True, about=clean(column.about)) for column in source.extra.values()
    ]


def _sort_videos(source: Split) -> Ints:
    """The numbers of all videos, sorted by name."""
    return np.argsort(np.array(source.videos.names, dtype=object))


def videos_by_name(source: Split) -> Iterator[VideoWithTracks]:
    """Yield each video of a split, sorted by name, with its tracks."""
    return _videos_of(source, _sort_videos(source))


def _videos_of(source: Split, numbers: Array) -> Iterator[VideoWithTracks]:
    """Yield the videos of these numbers, with their tracks."""
    by_video = np.argsort(source.tracks.video, kind="stable")
    stops = np.cumsum(np.bincount(source.tracks.video, minlength=len(source.videos)))
    for number in numbers.tolist():
        first = stops[number - 1] if number else 0
        tracks = by_video[first : stops[number]].tolist()
        yield source.videos[number], [source.tracks[track] for track in tracks]


def to_track_rows(source: Split, track: TrackRecord) -> TrackRows:
    """A committed track in the form that `NextCommit.append` takes.

    A column that holds only fill values is left out, because the track was appended without it.
    """
    values = {name: source.rows(name, track.start, track.stop) for name in source.columns}
    values |= track.extra
    specs = {**COLUMNS, **source.extra}
    columns: dict[str, Array] = {}
    extra: dict[str, Array] = {}
    for name, array in values.items():
        fill = np.full_like(array, specs[name].fill)
        if not np.array_equal(array, fill, equal_nan=True):
            target = extra if name in source.extra else columns
            target[name] = array
    return TrackRows(
        name=track.name,
        video=track.video,
        step=track.step,
        fps=track.fps,
        crop_scale=track.crop_scale,
        gender=track.gender,
        intrinsics=track.intrinsics,
        columns=columns,
        extra=extra,
    )


def _copy_stream(
    copied: Split,
    source: Split,
    stream: OpenStream,
    row_offset: Ints,
    progress: Progress,
    clean: Clean | None,
) -> bool:
    """Write the shards of a stream that the copy does not have, in one commit. Returns whether it
    committed anything.

    Args:
        row_offset: for each track of the copy, what to add to its row numbers to get the source's.
    """
    name = str(stream.manifest["stream"])
    if name in copied.streams:
        lacking = {*np.flatnonzero(copied.rows_by_shard()).tolist()}
        if lacking.issubset(copied.open_stream(name).shards):
            return False

    def find_rows(rows: Ints) -> Ints:
        track = copied.track_of(rows)
        return np.where(track >= 0, rows + row_offset[track], -1)

    digest = stream.commit.digest
    note = _note(source.store, f"{source.name}/{name}", digest, stream.provenance, clean)
    plan = f"copy {digest}, {SHARED} {SHARED in note}"
    return write_stream(copied, stream, find_rows, (), plan, note, progress, clean or _same)


def write_stream(
    split: Split,
    stream: OpenStream,
    find_rows: Callable[[Ints], Ints],
    without: Collection[int],
    plan: str,
    note: Mapping[str, Any],
    progress: Progress,
    clean: Clean = _same,
) -> bool:
    """Write pending shards of a split's stream, as far as an open stream has their rows, in one
    commit. Returns whether there was anything to commit.

    Args:
        stream: that of another split, or of this one.
        find_rows: rows (n,) of the split -> those of `stream` (n,); -1: none.
        without: numbers of shards that the commit leaves out.
    """
    name = str(stream.manifest["stream"])
    size = stream.commit.geometry.rows_per_shard
    with StreamWriter(
        split.root, split.name, name, stream.form, plan=plan, provenance=note
    ) as writer:
        state = writer.shards
        # An empty stream of an empty split is committed, too.
        is_new = bool(without) or not state.live_shards
        for shard in state.pending:
            rows = state.rows(shard)
            source_rows = find_rows(np.asarray(rows))
            is_there = np.isin(source_rows // size, stream.shards)
            if not is_there.any():
                continue
            source_rows = source_rows[is_there]
            features, ok, keys = (column.empty(len(rows)) for column in state.columns.values())
            features[is_there] = stream.read("", source_rows)[:, 0]
            ok[:] = UNDECODABLE  # and without a key: pending
            ok[is_there] = stream.read("_ok", source_rows)[:, 0]
            keys[is_there] = stream.read("_key", source_rows)[:, 0]
            writer.write(shard, features, ok, keys)
            progress(rows.stop, split.commit.extent, f"{split.name}: {name}")
            is_new = True
        if is_new:
            entries = _callers_entries(stream.manifest, StreamWriter.own_entries)
            writer.commit(clean(entries), without=without)
    return is_new


def _callers_entries(manifest: Mapping[str, Any], own_entries: Collection[str]) -> dict[str, Any]:
    """The manifest entries that a caller gave to `commit`: all except the cache's own."""
    return {key: value for key, value in manifest.items() if key not in own_entries}


def _note(
    store: Store, home: str, digest: str, note: Mapping[str, Any], clean: Clean | None
) -> dict[str, Any]:
    """The note for the copy of a commit, from that commit's own note. `home`: key of its folder."""
    origin = {"digest": digest, "finished": note.get("finished")}
    if clean is not None:
        kept = {name: clean(note[name]) for name in _FOR_OTHERS if name in note}
        return {**kept, SHARED: True, COPIED: origin}
    copied = {**note}
    copied.pop("invalidated", None)
    copied[COPIED] = {"from": store.location(home), **origin}
    return copied


def _copy_stamps(source: Store, store: Store, home: str) -> None:
    """Copy files that commands keep next to a manifest, such as a conversion's stamps, unless the
    other cache has them.
    """
    of_commits = (layout.MANIFEST, layout.PROVENANCE, layout.MEASURES, layout.UNUSED)
    others = (*of_commits, "zarr.json", "tables-")
    files = {}
    for name in source.list_names(home):
        key = f"{home}/{name}"
        is_stamp = name.endswith((".json", ".npz")) and not name.startswith(others)
        if is_stamp and not store.exists(key):
            files[key] = source.read(key)
    store.put_small(files, home)

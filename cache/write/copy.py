"""Copy the live rows of a split and its streams into another cache.  [cache]

Rows are read with their checksums and written by the usual writers, so a killed copy continues.
Nothing is overwritten.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format import layout
from cache.format.layout import COLUMNS, NO_KEY, UNDECODABLE, Geometry
from cache.format.manifest import Commit, Place, shard_rows
from cache.format.tables import TrackRecord, TrackRows
from cache.read.split import FeatureCache, Split
from cache.read.streams import OpenStream
from cache.storage import store_at
from cache.storage.base import Root, Store
from cache.windows import Ranges
from cache.write.base import finish_commits
from cache.write.split_writer import NEEDS_FLAG, SplitWriter
from cache.write.stream_writer import StreamWriter

Progress = Callable[[int, int, str], None]  # rows written, rows in all, what is written

COPIED: Final = "copied"  # entry of a commit's note: the cache and state that it was copied from


@dataclass(frozen=True, slots=True)
class Copied:
    """Result of `copy_split`."""

    split: str
    rows: int  # of the split, live
    wrote_rows: bool  # False: the copy had them already
    streams: tuple[str, ...]  # with new rows
    missing: Mapping[str, int]  # stream -> number of rows that the copy lacks, if any


def copy_split(
    root: Root,
    split: str,
    to: Root,
    *,
    streams: Collection[str] | None = None,
    progress: Progress = lambda *_: None,
) -> Copied:
    """Copy the live rows of a split into another cache, videos by name, in one commit, then its
    streams.

    Killed and called again, it continues. Rows that a stream does not have yet stay pending in the
    copy.

    Args:
        streams: only these streams.

    Raises MissingSplit when the split is missing; CacheError when the other cache has another split
    or stream of that name, or a writer of it, for a missing stream, and for damaged rows.
    """
    layout.check_names(split)
    source = FeatureCache(root)[split]
    store = store_at(to)
    names = source.streams if streams is None else tuple(dict.fromkeys(streams))
    if unknown := [name for name in names if name not in source.streams]:
        there_are = ", ".join(source.streams) or "none"
        raise CacheError(f"{split}: no feature stream {unknown[0]!r}; there are: {there_are}")
    opened = {name: _open_stream(source, name) for name in names}
    is_there = _is_copy(source, store)
    for name in names if is_there else ():
        _refuse_other_stream(source, store, name)
    if not is_there:
        _write_tracks(store, source, _order(source, opened.values()), progress)
    finish_commits(store.root, split)  # of a copy that was killed
    _copy_stamps(source.store, store, split)
    copied = FeatureCache(store.root)[split]
    start = {track.name: track.start for track in source.tracks}
    shift = np.array([start[name] for name in copied.tracks.names], np.int64) - copied.tracks.start
    written = [
        name for name in names if _write_stream(copied, source, opened[name], shift, progress)
    ]
    copied = FeatureCache(store.root)[split]
    live = copied.rows_by_shard()
    n_rows = int(live.sum())
    has = dict.fromkeys(names, 0)
    for name in names:
        if name in copied.streams:
            pending = copied.pending_rows(name)
            has[name] = int(
                live[copied.stream_shards(name)].sum() - (pending[:, 1] - pending[:, 0]).sum()
            )
    missing = {name: n_rows - n for name, n in has.items() if n < n_rows}
    return Copied(split, n_rows, not is_there, tuple(written), missing)


def _open_stream(source: Split, name: str) -> OpenStream:
    commit = Commit.load(source.place(name))
    if commit is None:
        raise CacheError(f"{source.name}: the stream {name!r} was removed meanwhile. Run it again.")
    return OpenStream(commit, source.manifest)


def _states(split: Split) -> set[str]:
    """Digests of the manifests with these rows: its own, and its source's."""
    own = split.manifest["digest"]
    return {own, split.provenance.get(COPIED, {}).get("digest", own)}


def _is_copy(source: Split, store: Store) -> bool:
    """Whether the other cache has the same state of the split. Raises CacheError where it has
    another one.
    """
    split = source.name
    place = Place(store, source.name)
    if not store.exists(place.manifest):
        if lost := place.lost_manifest():
            raise CacheError(lost)
        return False
    if _states(source) & _states(FeatureCache(store.root)[split]):
        return True
    raise CacheError.at(
        store.location(place.home),
        expected=f"no split, or a copy of {source.store.location(split)} as it is now",
        found="another state of it, or another split",
        do="Nothing is overwritten: remove that folder if it may go, or copy into another cache.",
    )


def _refuse_other_stream(source: Split, store: Store, name: str) -> None:
    """Raise CacheError if the other cache has a different stream of that name."""
    copied = FeatureCache(store.root)[source.name]
    if name not in copied.streams:
        return
    source_form, copied_form = (
        (held["dim"], held["dtype"], _callers_entries(held, StreamWriter.own_entries))
        for held in (source.stream_manifest(name), copied.stream_manifest(name))
    )
    if source_form != copied_form:
        raise CacheError.at(
            store.location(Place(store, source.name, name).home),
            expected=f"no stream, or {name!r} of the same kind and weights as in {source.root}",
            found="one that was made differently",
            do="Nothing is overwritten: remove that folder if it may go, or leave the stream "
            "out (--streams).",
        )


def _order(source: Split, streams: Iterable[OpenStream]) -> NDArray[np.intp]:
    """Numbers of the videos by name; last those with missing rows of a stream, so that the others
    fill whole shards.
    """
    order = np.argsort(np.array(source.videos.names, dtype=object), kind="stable")
    tracks = source.tracks
    size = int(source.manifest["geometry"]["rows_per_shard"])
    for stream in streams:
        missing = ~np.isin(np.arange(len(source.rows_by_shard())), stream.shards)
        # shards that it does not have before each one
        before = np.concatenate([[0], np.cumsum(missing)])
        of_track = before[-(-tracks.stop // size)] > before[tracks.start // size]
        of_video = np.bincount(tracks.video[of_track], minlength=len(order)) > 0
        order = order[np.argsort(of_video[order], kind="stable")]
    return order


def _write_tracks(store: Store, source: Split, order: NDArray[np.intp], progress: Progress) -> None:
    held = source.manifest
    n_rows = 0
    digest = str(held["digest"])
    geometry = Geometry(**held["geometry"])
    with SplitWriter(
        store.root,
        source.name,
        columns=source.columns,
        extra=source.extra.values(),
        plan=f"copy {digest}",
        provenance=_note(source.store, source.name, digest, source.provenance),
        rows_per_shard=geometry.rows_per_shard,
        rows_per_chunk=geometry.rows_per_chunk,
    ) as writer:
        writer.begin()
        journalled = set(writer.journalled)
        for number, tracks in zip(order.tolist(), _tracks_of(source, order), strict=True):
            entry = source.videos[number]
            if entry.name not in journalled:
                writer.append(entry, [_as_appended(source, track) for track in tracks])
            n_rows += sum(track.stop - track.start for track in tracks)
            progress(n_rows, int(held["rows"]), source.name)
        writer.commit(_callers_entries(held, SplitWriter.own_entries))


def _tracks_of(source: Split, videos: NDArray[np.intp]) -> Iterator[list[TrackRecord]]:
    by_video = np.argsort(source.tracks.video, kind="stable")
    stops = np.cumsum(np.bincount(source.tracks.video, minlength=len(source.videos)))
    for number in videos.tolist():
        first = int(stops[number - 1]) if number else 0
        yield [source.tracks[track] for track in by_video[first : int(stops[number])].tolist()]


def _as_appended(source: Split, track: TrackRecord) -> TrackRows:
    """A track as it was appended: columns of fill values, which it does not have, are left out."""
    arrays = {name: source.rows(name, track.start, track.stop) for name in source.columns} | dict(
        track.extra
    )
    specs = {**COLUMNS, **{name: column.spec for name, column in source.extra.items()}}
    for name, values in list(arrays.items()):
        fill = specs[name].fill
        if (
            np.isnan(values).all()
            if isinstance(fill, float) and np.isnan(fill)
            else (values == fill).all()
        ):
            del arrays[name]
    for label, flag in NEEDS_FLAG.items():
        if flag not in arrays:
            arrays.pop(label, None)
    return TrackRows(
        name=track.name,
        video=track.video,
        step=track.step,
        fps=track.fps,
        crop_scale=track.crop_scale,
        gender=track.gender,
        intrinsics=track.intrinsics,
        columns={name: values for name, values in arrays.items() if name in COLUMNS},
        extra={name: values for name, values in arrays.items() if name in source.extra},
    )


def _write_stream(
    copied: Split, source: Split, stream: OpenStream, shift: NDArray[np.int64], progress: Progress
) -> bool:
    """Write the rows that the source has and the copy does not. shift: from a track's rows to the
    source's.
    """
    held = stream.commit.manifest
    name = str(held["stream"])
    dim = int(held["dim"])
    dtype = str(held["dtype"])
    rows_of = _RowsOf(copied, source, stream, shift)
    target = [
        shard
        for shard in np.flatnonzero(copied.rows_by_shard()).tolist()
        if len(rows_of.find(shard)[0])
    ]
    # of a split without rows, a stream without any
    if not target and (name in copied.streams or len(copied.tracks)):
        return False
    note = _note(
        source.store, f"{source.name}/{name}", str(held["digest"]), source.stream_provenance(name)
    )
    plan = f"copy {held['digest']}"
    with StreamWriter(
        copied.root, copied.name, name, dim=dim, dtype=dtype, plan=plan, provenance=note
    ) as writer:
        own_keys = {shard: rows_of.own_keys(shard) for shard in target if shard in writer.committed}
        writer.reopen(own_keys)
        for shard in sorted({*target} & {*writer.pending}):
            keys = own_keys.get(shard, np.full((len(writer.rows(shard)), 2), NO_KEY, np.uint64))
            _, data, ok = writer.kept(shard, keys)
            at, rows = rows_of.find(shard)
            data[at], ok[at], keys[at] = (
                stream.read(part, rows)[:, 0] for part in ("", "_ok", "_key")
            )
            data[ok == UNDECODABLE] = 0
            writer.write(shard, data, ok, keys)
            progress(
                writer.rows(shard).stop, int(copied.manifest["extent"]), f"{copied.name}: {name}"
            )
        writer.commit(_callers_entries(held, StreamWriter.own_entries))
    return True


class _RowsOf:
    """Rows of a stream that the source has and the copy does not."""

    def __init__(
        self, copied: Split, source: Split, stream: OpenStream, shift: NDArray[np.int64]
    ) -> None:
        self._copied = copied
        self._stream = stream
        self._shift = shift
        self._name = str(stream.commit.manifest["stream"])
        self._shards = copied.stream_shards(self._name) if self._name in copied.streams else []
        self._size = int(source.manifest["geometry"]["rows_per_shard"])
        self._pending = source.pending_rows(self._name)
        self._own_pending = (
            copied.pending_rows(self._name) if self._shards else np.zeros((0, 2), np.int64)
        )

    def own_keys(self, shard: int) -> NDArray[np.uint64]:
        """Keys of a shard that the copy has."""
        rows = shard_rows(self._copied.manifest, shard)
        return np.array(self._copied.rows(f"features/{self._name}_key", rows.start, rows.stop))

    def find(self, shard: int) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """Rows of the shard, counted from its first, that only the source has; and the source's
        rows of them.
        """
        rows = np.asarray(shard_rows(self._copied.manifest, shard))
        track = self._copied.track_of(rows)
        source_rows = rows + self._shift[track]
        is_new = track >= 0
        if shard in self._shards:
            is_new &= _is_within(rows, self._own_pending)
        is_new &= np.isin(source_rows // self._size, self._stream.shards)
        is_new &= ~_is_within(source_rows, self._pending)
        at = np.flatnonzero(is_new)
        return at, source_rows[at]


def _is_within(rows: NDArray[np.int64], ranges: Ranges) -> NDArray[np.bool_]:
    """(n,) whether rows are in one of the ascending ranges."""
    if not len(ranges):
        return np.zeros(len(rows), bool)
    last = np.searchsorted(ranges[:, 0], rows, side="right") - 1
    return np.asarray((last >= 0) & (rows < ranges[last, 1]))


def _callers_entries(manifest: Mapping[str, Any], own: Collection[str]) -> dict[str, Any]:
    """The caller's entries of a manifest: all except the cache's `own`."""
    not_callers = {*own, "files"}  # which is of the earlier format
    return {key: value for key, value in manifest.items() if key not in not_callers}


def _note(store: Store, home: str, digest: str, note: Mapping[str, Any]) -> dict[str, Any]:
    entries = {key: value for key, value in note.items() if key != "invalidated"}
    return {
        **entries,
        COPIED: {"from": store.location(home), "digest": digest, "finished": note.get("finished")},
    }


def _copy_stamps(source: Store, store: Store, home: str) -> None:
    """Copy missing files that commands keep beside a manifest, as a conversion's stamps."""
    own = (layout.MANIFEST, layout.PROVENANCE, "zarr.json")
    names = (
        name
        for name in source.list_names(home)
        if name.endswith((".json", ".npz")) and name not in own
    )
    keys = [f"{home}/{name}" for name in names]
    store.put_small({key: source.read(key) for key in keys if not store.exists(key)}, home)

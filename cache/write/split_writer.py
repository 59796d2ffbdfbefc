"""Write rows of a split, one atomic commit at a time.  raw -> [tracks] -> features -> windows

Rows are buffered one shard at a time; a full shard is written, synced and staged. After a kill, the
next writer resumes behind the last video whose rows are all in staged shards, with the filled part
of the last shard. Rows of staged videos that have changed since stay there, without a track.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any, Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format import layout
from cache.format.extra import EXTRA, ExtraColumn
from cache.format.layout import COLUMNS, GENDERS, ROWS_PER_CHUNK, ROWS_PER_SHARD, Geometry
from cache.format.manifest import Commit, Place, stream_folders
from cache.format.shard import ShardLayout
from cache.format.tables import Tables, TrackRows, VideoEntry, VideoTable, video_record
from cache.read.rows import Rows
from cache.storage import store_at
from cache.storage.base import Root
from cache.write.base import Writer, follow_manifest
from cache.write.staged import SHARD, Plan, StagedWork

# Label -> the flag that marks its known rows. Without its flag, a label would be read as unknown
# everywhere.
NEEDS_FLAG: Final = {"kp_3d": "has_3d", "pose": "has_smpl", "betas": "has_smpl"}


class SplitWriter(Writer):
    """The one writer of a split. Use as a context manager: begin, append every new or changed
    video, commit.

    Leaving without `commit` changes nothing for readers. The next writer with the same `plan`
    continues with the finished shards; another one removes them.

    Args:
        root: the cache, created if missing: a folder, or a URL as s3://bucket/prefix.
        split: "<dataset>/<split>".
        columns: names in `COLUMNS` and of `extra`, the same in all commits; `frame_index` is always
            included.
        plan: names everything that decides the rows of this commit, and their order, but for `keys`
            of `begin`.
        provenance: goes to `provenance.json`, with time, host and versions.
        rows_per_shard, rows_per_chunk: for a new split; an existing one keeps its own.
        extra: extra columns. To change them, a commit must drop all videos; features are carried
            over by their keys.

    Raises CacheError when there is another writer, or when committed columns are not among these.
    """

    own_entries = frozenset(
        {
            "format",
            "digest",
            "rows",
            "tracks",
            "videos",
            "extent",
            "commits",
            "geometry",
            "shards",
            "tables",
            EXTRA,
        }
    )

    def __init__(
        self,
        root: Root,
        split: str,
        *,
        columns: Collection[str],
        plan: Plan,
        provenance: Mapping[str, Any] | None = None,
        rows_per_shard: int | None = None,
        rows_per_chunk: int | None = None,
        extra: Iterable[ExtraColumn] = (),
    ) -> None:
        layout.check_names(split)
        super().__init__(Place(store_at(root), split), provenance)
        self._split = split
        self._extra = _by_name(extra)
        if unknown := sorted(set(columns) - COLUMNS.keys() - self._extra.keys()):
            raise CacheError(
                f"{split}: no such columns: {unknown}. Known: {sorted({*COLUMNS, *self._extra})}"
            )
        self._columns = {
            name: COLUMNS[name] for name in COLUMNS if name in columns or name == "frame_index"
        }
        self._columns |= {
            column.name: column.spec for column in self._extra.values() if column.per == "row"
        }
        self._plan = plan
        self._new_geometry = Geometry(
            rows_per_shard or ROWS_PER_SHARD, rows_per_chunk or ROWS_PER_CHUNK
        )
        self._began = False
        self.journalled: dict[str, str] = {}
        """Videos that a killed writer with the same plan has finished, in order -> their
        fingerprints. Do not append them again."""
        self.committed_videos: Mapping[str, VideoEntry] = {}
        """The videos of the current commit, by name; empty when there is none."""

    @property
    def digest(self) -> str:
        """Digest of the current commit; "" when there is none."""
        return "" if self._commit is None else self._commit.digest

    def accounts(self) -> Iterator[Mapping[str, Any]]:
        """Yield the account of every video of the next commit: of the videos that are kept, then of
        the new ones.
        """
        videos = VideoTable(self._kept)
        yield from (videos.account(number) for number in range(len(videos)))
        yield from (video["account"] for video in self._new)

    def _open(self) -> None:
        self._started = time.time()
        if self._store.exclusive:
            self._store.remove([self.place.temporary])
        self._commit = Commit.load(self.place)
        if self._commit is None:
            self.place.create_groups()
            self._tables = Tables.from_records([], self._extra.values())
        else:
            follow_manifest(self._commit)
            self._tables = self._commit.tables
        self.committed_videos = VideoTable(self._tables).by_name()
        earlier = self._longest_stream() if self._commit is None else self._commit.manifest
        self._geometry = (
            Geometry(**earlier["geometry"]) if "geometry" in earlier else self._new_geometry
        )
        self._other_columns = self._commit is not None and self._has_other_columns(
            self._commit.manifest
        )
        self._commits: list[list[int]] = list(earlier.get("commits", []))
        self._extent = int(earlier.get("extent", 0))
        self._first = self._geometry.shards(self._extent) * self._geometry.rows_per_shard

    def _has_other_columns(self, committed: Mapping[str, Any]) -> bool:
        """Whether columns are new, or declared otherwise. Raises CacheError when some of the
        cache's own are gone.
        """
        if gone := sorted(committed["shards"].keys() & COLUMNS.keys() - self._columns.keys()):
            location = self._store.location(self.place.manifest)
            do = (
                "A split keeps its columns over all commits: bring them, or remove the split "
                "and convert it again."
            )
            raise CacheError.at(
                location, expected=f"columns {gone}", found="a commit without them", do=do
            )
        declared = ExtraColumn.from_manifest(committed), self._extra
        stored, target = ({c.name: c.stored_as for c in of.values()} for of in declared)
        return stored != target or bool(self._columns.keys() - committed["shards"].keys())

    def _longest_stream(self) -> Mapping[str, Any]:
        """The manifest of the stream with the largest extent; {} without one. For a split that lost
        its manifest.
        """
        manifests: list[Mapping[str, Any]] = []
        for stream in stream_folders(self._store, self._split):
            with suppress(CacheError):  # a stream with a damaged manifest has nothing to carry over
                read = Place(self._store, self._split, stream).read_manifest()
                manifests += [] if read is None else [read[0]]
        return max(manifests, key=lambda stream: int(stream["extent"]), default={})

    def begin(
        self,
        drop: Collection[str] = (),
        *,
        invalidate: Collection[int] = (),
        keys: Mapping[str, str] | None = None,
    ) -> None:
        """Start a commit.

        Args:
            drop: names of committed videos to remove or replace.
            invalidate: numbers of shards to remove from all columns, without rows of tracks that
                stay.
            keys: videos to append -> what decides their rows besides the plan. Journalled videos
                with other keys are appended again. None: the plan decides all.

        Raises CacheError for unknown videos, and for a shard with rows of a track that stays.
        """
        if self._began:
            raise CacheError(f"{self._split}: begin was called before: commit first")
        if strange := sorted({*drop} - self.committed_videos.keys()):
            raise CacheError(f"{self._split}: {strange[:5]}: not among the committed videos")
        self._drop = frozenset(drop)
        self._invalid = frozenset(invalidate)
        self._keys = keys
        if self._other_columns:
            assert self._commit is not None
            if self.committed_videos.keys() - self._drop:
                raise CacheError(f"{self._split}: its columns have changed: drop all of its videos")
            self._invalid = frozenset(
                int(shard) for of in self._commit.manifest["shards"].values() for shard in of
            )
        self._kept = self._tables.drop_videos(self._drop)
        if needed := sorted(self._invalid & set(self._kept.live_shards(self._geometry))):
            raise CacheError(
                f"{self._split}: shards {needed[:5]} have rows of kept tracks: drop their "
                "videos, too"
            )
        self._began = True
        self.journalled = {}
        self._new: list[Mapping[str, Any]] = []  # videos of this commit
        self._videos = set(self.committed_videos) - self._drop
        self._track_names = set(self._kept.texts("track_name"))
        self._records: dict[str, dict[int, str]] = {name: {} for name in self._columns}
        self._next = self._first  # the next row
        self._unwritten: list[dict[str, Any]] = []  # videos since the last journalled shard
        self._buffers = {
            name: np.full((self._geometry.rows_per_shard, *spec.trailing), spec.fill, spec.dtype)
            for name, spec in self._columns.items()
        }
        self._resume()

    def keep(self, name: str) -> None:
        """Keep a committed video that `begin` was to drop. Do not append it. Raises CacheError with
        other columns.
        """
        if self._other_columns:
            raise CacheError(
                f"{self._split}: its columns have changed: video {name!r} cannot be kept"
            )
        self._drop -= {name}
        self._kept = self._tables.drop_videos(self._drop)
        self._videos.add(name)

    def append(self, entry: VideoEntry, tracks: Sequence[TrackRows]) -> None:
        """Add one video and its tracks, which may be none: its account says why.

        Raises CacheError for a video or track that exists already, and as `check_track`.
        """
        if not self._began:
            raise CacheError(f"{self._split}: append before begin")
        if entry.name in self._videos:
            do = (
                "drop it in begin to replace it"
                if entry.name in self.committed_videos
                else "append each video once"
            )
            raise CacheError(f"{self._split}: video {entry.name!r} exists already: {do}")
        for track in tracks:
            check_track(track, entry.name, self._columns, self._extra.values())
        video = video_record(entry, tracks, self._next, self._extra.values())
        video |= {} if self._keys is None else {"key": self._keys[entry.name]}
        names = [track.name for track in tracks]
        if len(set(names)) < len(names) or not self._track_names.isdisjoint(names):
            raise CacheError(
                f"{self._split}: video {entry.name!r}: a track of that name exists already: {names}"
            )
        self._remember(video)
        for track in tracks:
            self._add_rows({**track.columns, **track.extra})
        self._unwritten.append(video)

    def commit(self, entries: Mapping[str, Any], *, note: Mapping[str, Any] | None = None) -> None:
        """Commit atomically.

        Args:
            entries: the caller's own entries of the manifest, as JSON values.
            note: additional entries of `provenance.json`.

        Raises CacheError when a key is one of the manifest's own.
        """
        if not self._began:
            raise CacheError(f"{self._split}: commit before begin")
        self._refuse(entries)
        if filled := self._next % self._geometry.rows_per_shard:
            self._write_shard(filled)
        if self._next > self._first:
            self._commits = [*self._commits, [self._first, self._next]]
            self._extent = self._next
        new_tables = Tables.from_records(self._new, self._extra.values())
        tables = new_tables if self._other_columns else self._kept.plus(new_tables)
        before = {} if self._commit is None else self._commit.manifest["shards"]
        self._publish({**entries, **self._own_entries(tables)}, tables, note)
        gone = sorted(before.keys() - self._columns.keys())
        self._store.remove([self.place.array(name) for name in gone])
        arrays = [self.place.array(name) for name in self._columns]
        self._store.remove(
            [f"{array}/c/{shard}" for array in arrays for shard in sorted(self._invalid)]
        )
        self._remove_unfinished(self.place.staged)
        self._began = False
        self._open()

    def _own_entries(self, tables: Tables) -> dict[str, Any]:
        earlier: Mapping[str, Any] = {} if self._commit is None else self._commit.manifest["shards"]
        records = {
            name: {
                **{
                    shard: text
                    for shard, text in earlier.get(name, {}).items()
                    if int(shard) not in self._invalid
                },
                **{str(shard): text for shard, text in sorted(new.items())},
            }
            for name, new in self._records.items()
        }
        return {
            "rows": int((tables["track_stop"] - tables["track_start"]).sum()),
            "tracks": len(tables["track_start"]),
            "videos": len(tables["video_name"]),
            "extent": self._extent,
            "commits": self._commits,
            "geometry": asdict(self._geometry),
            "shards": records,
            **(
                {EXTRA: {name: column.as_json() for name, column in self._extra.items()}}
                if self._extra
                else {}
            ),
        }

    def _remember(self, video: Mapping[str, Any]) -> None:
        self._new.append(video)
        self._videos.add(video["name"])
        self._track_names.update(track["name"] for track in video["tracks"])

    def _add_rows(self, rows: Mapping[str, NDArray[Any]]) -> None:
        size = self._geometry.rows_per_shard
        n_rows = len(rows["frame_index"])
        n_added = 0
        while n_added < n_rows:
            offset = self._next % size
            take = min(size - offset, n_rows - n_added)
            for name, spec in self._columns.items():
                part = rows[name][n_added : n_added + take] if name in rows else spec.fill
                self._buffers[name][offset : offset + take] = part
            n_added += take
            self._next += take
            if offset + take == size:
                self._write_shard(size)

    def _write_shard(self, filled: int) -> None:
        """Write the buffer's first `filled` rows as the shard that ends at the next row, and stage
        it.
        """
        shard = (self._next - 1) // self._geometry.rows_per_shard
        self._lock.require()  # without it, this may be a shard that another writer has committed
        for name, spec in self._columns.items():
            data, self._records[name][shard] = ShardLayout(spec, self._geometry).encode(
                self._buffers[name][:filled]
            )
            self._store.put(self._shard_key(name, shard), data, temporary=self.place.temporary)
        written = {name: records[shard] for name, records in self._records.items()}
        self._stage(shard, written)
        self._unwritten = []

    def _stage(self, shard: int, files: Mapping[str, str]) -> None:
        piece = {"shard": shard, "files": files, "videos": self._unwritten}
        self._work.put(f"{SHARD}-{shard}", piece)

    def _resume(self) -> None:
        """Continue from the shards of a killed writer with the same plan; remove what any other
        writer has left.
        """
        head = {
            "plan": self._plan,
            "base": None if self._commit is None else self._commit.digest,
            "drop": sorted(self._drop) if self._keys is None else "by keys",
            "invalidate": sorted(self._invalid),
            "columns": sorted(self._columns),
            "geometry": [self._geometry.rows_per_shard, self._geometry.rows_per_chunk],
            **(
                {EXTRA: [column.stored_as for column in self._extra.values()]}
                if self._extra
                else {}
            ),
        }
        self._work = StagedWork(self.place, head)
        pieces = {
            piece["shard"]: piece for piece, _ in self._work.read(self._work.names(SHARD)).values()
        }
        files: dict[int, Mapping[str, str]] = {}
        videos: dict[str, dict[str, Any]] = {}  # the last one of each name
        for number in sorted(pieces):
            files[number] = pieces[number]["files"]
            for video in pieces[number]["videos"]:
                videos.pop(video["name"], None)
                videos[video["name"]] = video
        usable = [video for video in videos.values() if self._is_usable(video)]
        first = self._first // self._geometry.rows_per_shard
        if not usable:
            self._work.remove_shards()
            keep = range(0 if self._commit is None else first)
            for name in (*COLUMNS, *(name for name in self._columns if name not in COLUMNS)):
                self._remove_shards(name, keep)
            return
        end = first  # of the leading shards that are on the disk with their full size
        while end in files and all(
            self._has_size(self._shard_key(name, end), text) for name, text in files[end].items()
        ):
            end += 1
        size = self._geometry.rows_per_shard
        # continue behind the last video that ends within these shards, with the buffer as it was
        # then
        while True:
            self._next = max(
                (v["stop"] for v in videos.values() if v["stop"] <= end * size), default=self._first
            )
            shard, filled = divmod(self._next, size)
            try:
                for name, spec in self._columns.items() if filled else ():
                    rows_of = ShardLayout(spec, self._geometry)
                    records = {str(shard): files[shard][name]}
                    array = self.place.array(name)
                    n_rows = (shard + 1) * size
                    rows = Rows.kind(self._store)(
                        self._store, array, rows_of, n_rows, records, lambda: None
                    )
                    rows.read(np.array([shard * size]), filled, self._buffers[name][None, :filled])
                break
            except CacheError:  # damaged: only the shards before it count as finished
                end -= 1
        for name in self._columns:
            self._records[name] = {number: files[number][name] for number in range(first, shard)}
        if shard in pieces:
            self._unwritten = [
                video for video in pieces[shard]["videos"] if video["stop"] <= self._next
            ]
        if any(video["stop"] > self._next for video in videos.values()):  # they are written over
            self._work.remove([f"{SHARD}-{number}" for number in pieces if number > shard])
            if shard in pieces:
                self._stage(shard, files[shard])
        for video in usable:
            if video["stop"] <= self._next:
                self._remember(video)
        self.journalled = {video["name"]: video["fingerprint"] for video in self._new}

    def _is_usable(self, video: Mapping[str, Any]) -> bool:
        """Whether a journalled video is to be appended, unchanged."""
        if self._keys is None:
            return True
        tracks = (track["name"] for track in video["tracks"])
        return video["key"] == self._keys.get(video["name"]) and self._track_names.isdisjoint(
            tracks
        )

    def _shard_key(self, name: str, shard: int) -> str:
        return layout.shard_key(self.place.array(name), shard, self._columns[name].trailing)


def check_track(
    track: TrackRows, video: str, columns: Collection[str], extra: Iterable[ExtraColumn] = ()
) -> None:
    """Raise CacheError unless a track fits a split with these columns: names, shapes, types and
    values.

    Only floats may be rounded. Fill values of `extra` columns are not allowed.
    """
    extras = _by_name(extra)

    def refuse(problem: str) -> NoReturn:
        raise CacheError(f"track {track.name!r} of video {video!r}: {problem}")

    if track.video != video:
        refuse(f"belongs to video {track.video!r}")
    if track.gender not in GENDERS:
        refuse(f"gender is {track.gender!r}, expected one of {', '.join(GENDERS)}")
    if strange := sorted(track.columns.keys() - (set(columns) & COLUMNS.keys())):
        refuse(f"columns {strange} are not among this split's: {sorted(columns)}")
    if strange := sorted(track.extra.keys() - extras.keys()):
        refuse(f"extra columns {strange} are not declared; those that are: {sorted(extras)}")
    if "frame_index" not in track.columns:
        refuse("has no frame_index")
    for label, flag in NEEDS_FLAG.items():
        if label in track.columns and flag not in track.columns:
            refuse(f"{label} comes without {flag}, which marks its known rows")
    n_rows = len(track.columns["frame_index"])
    for name, array in track.columns.items():
        if problem := COLUMNS[name].problem(array, (n_rows, *COLUMNS[name].trailing)):
            refuse(f"{name} {problem}")
    for name, array in track.extra.items():
        if problem := extras[name].problem(array, n_rows):
            refuse(f"{name} {problem}")
    frames = track.columns["frame_index"].astype(np.int64)
    if n_rows == 0 or frames[0] < 0 or (np.diff(frames) <= 0).any() or track.step < 1:
        refuse("frame_index must be non-empty, from 0 on and strictly increasing, and step >= 1")


def _by_name(columns: Iterable[ExtraColumn]) -> dict[str, ExtraColumn]:
    """Columns by name. Raises ValueError for duplicate names."""
    declared = list(columns)
    names = {column.name: column for column in declared}
    if len(names) < len(declared):
        raise ValueError(
            f"extra columns {[column.name for column in declared]}: expected each name once"
        )
    return names

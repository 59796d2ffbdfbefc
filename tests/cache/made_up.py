"""What a cache must have after any history of conversions and extractions, in plain arrays; and how
it is written.

Videos, boxes and features follow from a name, lengths and a seed by arithmetic; rows are laid out
here by the rule of docs/cache-format.md (each commit begins a shard), independently of the writers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cache
from cache import SplitWriter, StreamForm, StreamShards, StreamWriter, TrackRows, VideoEntry
from tests.cache import toy

SPLIT = "toy/train"
COLUMNS = ("frame_index", "bbox", "kp_2d", "valid")
SHARD, CHUNK = 8, 4  # rows
FORMS = {
    "resnet50": StreamForm(4),
    "crops": StreamForm(4, "float32"),
}
UNREADABLE = 7  # every so many-th picture cannot be decoded

Array = NDArray[Any]
# name, rows of each track, seeds of its boxes and of its other labels
Video = tuple[str, tuple[int, ...], int, int]


@dataclass(frozen=True)
class State:
    """What a split must have; `there` is False before its first commit."""

    videos: Mapping[str, Video] = field(default_factory=dict)  # in the order of their rows
    starts: Mapping[str, int] = field(default_factory=dict)  # track -> first row
    extent: int = 0
    shards: frozenset[int] = frozenset()  # that a column has
    streams: Mapping[str, frozenset[int]] = field(default_factory=dict)  # -> shards that it has
    there: bool = False
    # stream -> (track, n-th row)
    pending: Mapping[str, Collection[tuple[str, int]]] = field(default_factory=dict)

    @property
    def live(self):
        """Shards with rows of tracks."""
        return frozenset[int]().union(*map(self.shards_of, self.starts))

    def shards_of(self, track):
        rows = range(self.starts[track], self.starts[track] + self.length(track))
        return frozenset(row // SHARD for row in rows)

    def length(self, track):
        name, _, person = track.partition("/")
        return self.videos[name][1][int(person)]

    def converted(self, target, again=(), without=()):
        """After a commit of these videos, of which `again` are appended though they stay; without
        some shards.
        """
        videos = {
            name: video
            for name, video in self.videos.items()
            if target.get(name) == video and name not in again
        }
        starts = {
            track: start
            for track, start in self.starts.items()
            if track.partition("/")[0] in videos
        }
        row = first = -(-self.extent // SHARD) * SHARD
        for name, video in target.items():
            if name not in videos:
                videos[name] = video
                for person, length in enumerate(video[1]):
                    starts[f"{name}/{person}"] = row
                    row += length
        written = frozenset(range(first // SHARD, -(-row // SHARD)))
        extent = row if row > first else self.extent
        shards = (self.shards - {*without}) | written
        return replace(self, videos=videos, starts=starts, extent=extent, shards=shards, there=True)

    def extracted(self, stream, shards):
        return replace(
            self,
            streams={**self.streams, stream: self.streams.get(stream, frozenset()) | {*shards}},
        )

    def without(self, stream):
        return replace(
            self, streams={name: shards for name, shards in self.streams.items() if name != stream}
        )


def columns_of(video, person):
    """All that was labelled of one track."""
    n_rows = video[1][person]
    boxes, others = (
        np.random.default_rng([int(_mark(of), 16), person]) for of in (video[:3], video)
    )
    return {
        "frame_index": np.arange(n_rows),
        "bbox": boxes.uniform(50, 100, (n_rows, 4)).astype(np.float32),
        "kp_2d": others.uniform(0, 1, (n_rows, 49, 3)).astype(np.float32),
        "valid": np.ones(n_rows, np.uint8),
    }


def _mark(video):
    return hashlib.sha256(repr(video).encode()).hexdigest()[:16]


def entry_of(video):
    account = {"found": sum(video[1]), "kept": sum(video[1]), "dropped": {}}
    tracks = [columns_of(video, person) for person in range(len(video[1]))]
    sums = {"rows": float(sum(video[1])), "seen": sum(map(_n_seen, tracks), 0.0)}
    if _has_wide(video):
        sums["wide"] = sum(map(_n_wide, tracks), 0.0)
    return VideoEntry(name=video[0], fingerprint=_mark(video), account=account, sums=sums)


def _n_seen(columns):
    return float((columns["kp_2d"][..., 2] > 0.5).sum())


def _n_wide(columns):
    return float((columns["bbox"][:, 2] > 75).sum())


def _has_wide(video):
    """Whether it was written by a version that has this sum."""
    return video[3] % 3 > 0


def _sums(split, state):
    """The totals of sums by the columns of all rows."""
    columns = {name: split.live(name) for name in ("bbox", "kp_2d")}
    if not state.videos:
        return {}
    totals = {"rows": float(len(columns["bbox"])), "seen": _n_seen(columns)}
    if any(map(_has_wide, state.videos.values())):
        with_tracks = [video for video in state.videos.values() if video[1]]
        totals["wide"] = _n_wide(columns) if all(map(_has_wide, with_tracks)) else None
    return totals


def keys_of(bbox):
    """(n, 2): the boxes' bits."""
    return np.ascontiguousarray(bbox).view(np.uint64)


def decodable(keys):
    return keys[:, 0] % UNREADABLE > 0


def numbers_of(keys):
    """(n, 4) whole numbers that float16 holds."""
    return ((keys[:, :1] >> np.arange(4, dtype=np.uint64)) % 1000).astype(np.float16)


# --------------------------------------------------------------------------------------------------
# commands


def convert(
    root,
    target,
    again=(),
    without=(),
):
    """Bring the split to exactly these videos, in one commit."""
    sizes = {"rows_per_shard": SHARD, "rows_per_chunk": CHUNK}
    with SplitWriter(
        root, SPLIT, columns=COLUMNS, plan=repr(sorted(target.items())), **sizes
    ) as writer:
        held = {name: entry.fingerprint for name, entry in writer.state.videos.items()}
        marks = {name: _mark(video) for name, video in target.items()}
        drop = {name for name, mark in held.items() if marks.get(name) != mark or name in again}
        following = writer.begin(sorted(drop), invalidate=without)
        for name, video in target.items():
            if (name not in held or name in drop) and name not in following.journalled:
                tracks = [
                    TrackRows(
                        name=f"{name}/{n}",
                        video=name,
                        step=1,
                        fps=25.0,
                        crop_scale=1.3,
                        columns=columns_of(video, n),
                    )
                    for n in range(len(video[1]))
                ]
                following.append(entry_of(video), tracks)
        following.commit({"target": sorted(target)})


def extract(root, stream, *, at_most, staged, written):
    """Rows for so many of the shards that have none, which are added to `written` when they are.

    `staged`: by a process that is not the writer.
    """
    with StreamWriter(root, SPLIT, stream, FORMS[stream], plan="weights") as writer:
        workers = StreamShards(root, SPLIT, stream, FORMS[stream], plan="weights")
        for shard in writer.shards.pending[:at_most]:
            rows = writer.shards.rows(shard)
            keys = keys_of(toy.opened(root).rows("bbox", rows.start, rows.stop))
            carried, data, ok = writer.shards.carried(keys)
            own = numbers_of(keys)
            for row in np.flatnonzero(~carried).tolist():
                data[row], ok[row] = own[row], decodable(keys)[row]
            if staged:
                workers.stage(shard, data, ok, keys)
                writer.accept_staged()
            else:
                writer.write(shard, data, ok, keys)
            written.append(shard)
        writer.commit({"weights": "known"})


# --------------------------------------------------------------------------------------------------
# comparison


def differences(root, state):
    """What readers get that is not as it must be. Raises CacheError where a reader would."""
    there = (root / "zarr.json").exists() and SPLIT in cache.open(root)
    if not (there and state.there):
        return [] if there == state.there else [f"there: {there}, expected {state.there}"]
    return differences_of(toy.opened(root), state)


def differences_of(split, state, *, listed=True):
    """The same of an open split. `listed`: also which streams there are, which is not of what was
    opened.
    """
    expected = sorted(
        (start, start + state.length(name), name) for name, start in state.starts.items()
    )
    found = [
        ("tracks", [(track.start, track.stop, track.name) for track in split.tracks], expected)
    ]
    found += [("videos", list(split.videos), [entry_of(video) for video in state.videos.values()])]
    found += [("rows", split.manifest["rows"], sum(stop - start for start, stop, _ in expected))]
    found += [("streams", split.streams, tuple(sorted(state.streams)))] if listed else []
    for name in COLUMNS:
        shards = {*map(int, split.manifest["shards"][name])}
        found.append((f"shards of {name}", shards, {*state.shards}))
    for stream, shards in state.streams.items() if set(state.streams) <= set(split.streams) else ():
        found.append((f"shards of {stream}", split.open_stream(stream).shards, sorted(shards)))
    return _unequal(found) or _unequal(_rows(split, expected, state))


def _unequal(compared):
    return [
        f"{what}: expected {theirs}, found {ours}"
        for what, ours, theirs in compared
        if (not np.array_equal(ours, theirs) if isinstance(ours, np.ndarray) else ours != theirs)
    ]


def _rows(split, tracks, state):
    """(what, found, expected) of every track's columns, of its rows in streams, and of every window
    of two rows.
    """
    for start, stop, name in tracks:
        video, _, person = name.partition("/")
        columns = columns_of(state.videos[video], int(person))
        for column, values in columns.items():
            yield f"{name} {column}", split.rows(column, start, stop), values
    yield "sums", split.manifest.get("sums", {}), _sums(split, state)
    for stream, shards in state.streams.items():
        windows, expected = [], []
        for start, stop, name in tracks:
            video, _, person = name.partition("/")
            keys = keys_of(columns_of(state.videos[video], int(person))["bbox"])
            has = decodable(keys) & np.isin(np.arange(start, stop) // SHARD, [*shards])
            for track, n in state.pending.get(stream, ()):
                if track == name:
                    has[n] = False
            windows += [
                [start + n, start + n + 2] for n in range(stop - start - 1) if has[n] and has[n + 1]
            ]
            expected += [keys[n : n + 2] for n in range(stop - start - 1) if has[n] and has[n + 1]]
        ranges = np.array(windows, np.int64).reshape(-1, 2)
        yield f"windows of {stream}", split.windows(2, 1, stream), ranges
        keys = np.concatenate([np.zeros((0, 2), np.uint64), *expected])
        if len(ranges):
            features = split.read(ranges, stream, fields=["features"])["features"]
            yield stream, features.reshape(-1, 4), numbers_of(keys).astype(np.float32)

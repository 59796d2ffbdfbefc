"""Do the tables of a split contradict themselves, their manifest, or the frame indices?  [cache]

All by arithmetic over whole tables, and over one shard of frame indices at a time: 10^6 tracks take seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.format.layout import Geometry
from cache.format.manifest import Commit
from cache.format.tables import Tables, decode_texts, live_shards

Array = NDArray[Any]

_FEW: Final = 5  # tracks that are reported; the rest are counted


def contradictions(tables: Tables, commit: Commit) -> Iterator[str]:
    """What in the tables contradicts the tables or the manifest, as messages."""
    starts, stops = tables["track_start"], tables["track_stop"]
    n_videos = len(tables["video_name"])
    counts = {"tracks": len(starts), "videos": n_videos, "rows": int((stops - starts).sum())}
    for key, count in counts.items():
        if commit.manifest[key] != count:
            yield f"the manifest counts {commit.manifest[key]} {key}, the tables {count}"
    for kind in ("track", "run", "video"):
        lengths = {len(tables[name]) for name in tables if name.startswith(f"{kind}_") and name != "video_account"}
        if len(lengths) > 1:
            yield f"the tables of the {kind}s are of different lengths, {sorted(lengths)}"
            return
    if (stops <= starts).any() or (starts[1:] < stops[:-1]).any():
        yield "tracks overlap, or are empty"
        return
    commits = np.array(commit.manifest["commits"], np.int64).reshape(-1, 2)
    within = np.searchsorted(commits[:, 0], starts, side="right") - 1
    if len(starts) and (not len(commits) or (within < 0).any() or (stops > commits[within, 1]).any()):
        yield "tracks are outside what was committed"
        return
    yield from _lost_shards(tables, commit)
    if ((tables["track_video"] < 0) | (tables["track_video"] >= n_videos)).any() or (tables["track_step"] < 1).any():
        yield "tracks are of no video, or without a step"
    ends = np.concatenate([[0], tables["video_account_stop"]])
    if (np.diff(ends) < 0).any() or ends[-1] != len(tables["video_account"]):
        yield "the accounts of the videos do not fill their table"
    for table in ("track_name", "video_name"):
        names = decode_texts(tables[table])
        if len(set(names)) < len(names):
            yield f"{table} has a name twice"


def _lost_shards(tables: Tables, commit: Commit) -> Iterator[str]:
    if not len(tables["track_start"]):
        return
    live = set(live_shards(tables, Geometry(**commit.manifest["geometry"])))
    for name, records in sorted(commit.manifest["shards"].items()):
        if lost := sorted(live - set(map(int, records))):
            yield f"tracks have rows in shards {lost[:_FEW]} of {name}, which the manifest does not name"


def runs_without_frames(tables: Tables) -> Iterator[str]:
    """Tracks that do not consist of whole runs, one directly after the other."""
    starts, stops = tables["track_start"], tables["track_stop"]
    first, last = tables["run_start"], tables["run_stop"]
    owner = np.searchsorted(starts, first, side="right") - 1
    if (np.diff(first) <= 0).any() or (owner < 0).any() or (len(first) and not len(starts)):
        yield "runs overlap, or are of no track"
        return
    expected = stops[owner].copy()
    again = owner[1:] == owner[:-1]
    expected[:-1][again] = first[1:][again]
    wrong = np.zeros(len(starts), bool)
    wrong[owner[last != expected]] = True
    at = np.minimum(np.searchsorted(first, starts), max(len(first) - 1, 0))
    wrong |= first[at] != starts if len(first) else True
    yield from _of_tracks(np.flatnonzero(wrong), tables, "is not filled by its runs")


def runs_against_frames(
    tables: Tables, geometry: Geometry, frames_of: Callable[[int], Array | None], *, few: int = _FEW
) -> Iterator[str]:
    """Tracks whose runs are not what their frame indices say.

    Args:
        tables: for which `contradictions` and `runs_without_frames` have found nothing.
        geometry: of the split.
        frames_of: the frame indices of a shard; None where they cannot be read: reported already, and skipped.
        few: tracks to report; the rest are counted.
    """
    starts, stops, step = tables["track_start"], tables["track_stop"], tables["track_step"]
    if not len(starts):
        return
    size = geometry.rows_per_shard
    marks = tables["run_start"]
    wrong = np.zeros(len(starts), bool)
    held, last = -1, 0  # the shard before, and the frame index of its last row
    for shard in live_shards(tables, geometry):
        frames = frames_of(shard)
        if frames is None:
            continue
        low = shard * size
        first, end = np.searchsorted(stops, low, side="right"), np.searchsorted(starts, low + size)
        begin, stop = np.maximum(starts[first:end], low), np.minimum(stops[first:end], low + size)
        track = np.repeat(np.arange(first, end), stop - begin)
        at = np.repeat(begin - low - np.concatenate([[0], np.cumsum(stop - begin)[:-1]]), stop - begin)
        at += np.arange(len(at))  # within the shard
        values = frames[at]
        opens = at + low == starts[track]
        before = np.concatenate([[last], values[:-1]])
        known = np.ones(len(at), bool)
        known[0] = opens[0] or held == shard - 1
        gap = values - before
        marked = np.zeros(size, bool)
        marked[marks[np.searchsorted(marks, low) : np.searchsorted(marks, low + size)] - low] = True
        bad = (marked[at] != (opens | (gap != step[track]))) | (~opens & (gap <= 0)) | (values < 0)
        wrong[track[bad & known]] = True
        held, last = shard, frames[size - 1]
    yield from _of_tracks(np.flatnonzero(wrong), tables, "its runs are not what its frame indices say", few)


def _of_tracks(numbers: Sequence[int] | Array, tables: Tables, what: str, few: int = _FEW) -> Iterator[str]:
    for track in numbers[:few]:
        yield f"track {track} (rows {tables['track_start'][track]} to {tables['track_stop'][track]}): {what}"
    if len(numbers) > few:
        yield f"and {len(numbers) - few:,} more tracks: {what}"

"""Splits and streams of numbers that a test knows, each in one commit."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import cache

DEMO = {"stand_in": True}


def track_of(name: str, columns: Mapping[str, Any], **about: Any) -> cache.TrackRows:
    """A track of the video that its name begins with."""
    usual = {"video": name.rpartition("/")[0], "step": 1, "fps": 25.0, "crop_scale": 1.3}
    return cache.TrackRows(name=name, columns=columns, **{**usual, **about})


def write_split(
    root: Path,
    name: str,
    videos: Iterable[tuple[cache.VideoEntry, Sequence[cache.TrackRows]]],
    recorded: Mapping[str, Any] = DEMO,
    drop: Sequence[str] = (),
    **options: Any,
) -> cache.Split:
    """A commit of these videos without those before that are named; recorded: further entries of
    the manifest.
    """
    videos = list(videos)
    columns = list(
        dict.fromkeys(
            column for _, tracks in videos for track in tracks for column in track.columns
        )
    )
    with cache.SplitWriter(root, name, **{"columns": columns, "plan": "test", **options}) as writer:
        following = writer.begin(drop=drop)
        for entry, tracks in videos:
            following.append(entry, tracks)
        following.commit(recorded)
    return cache.open(root)[name]


def write_stream(
    root: Path,
    split: str,
    stream: str,
    values: Callable[[Any], Any],
    computed: Callable[[Any], Any] = np.ones_like,
    recorded: Mapping[str, Any] = DEMO,
    **form: Any,
) -> None:
    """A commit of all shards: values (n, dim) and whether they are computed (n,), both functions of
    rows (n,).
    """
    with cache.StreamWriter(root, split, stream, **{"plan": "test", **form}) as writer:
        for shard in writer.pending:
            rows = np.asarray(writer.rows(shard))
            keys = np.stack([rows, rows], axis=1).astype(np.uint64)
            writer.write(shard, values(rows), computed(rows), keys)
        writer.commit(recorded)

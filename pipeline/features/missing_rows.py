"""Which rows of a split a feature stream lacks, by arithmetic.  tracks -> [features] -> windows

A shard never changes, and a track never comes into one that is committed: what a stream has of a shard stays all that
there is to have. So a stream lags behind its split where, and only where, it lacks a shard that holds a track.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache import Split


@dataclass(frozen=True, slots=True)
class Pending:
    """What a stream lacks. `shards` are numbers of the split's shards, ascending."""

    shards: tuple[int, ...]
    rows: int  # of tracks, in those shards
    replaced: int  # rows that the stream has of videos that have gone or come anew: what may be carried over

    @property
    def carried_at_most(self) -> int:
        """Rows that need not be computed, if everything that came anew has the pictures and boxes that it had."""
        return min(self.rows, self.replaced)


def pending(split: Split, stream: str | None) -> Pending:
    """What a committed stream lacks; None: what one lacks that is not there yet."""
    rows_per_shard = int(split.manifest["geometry"]["rows_per_shard"])
    live = split.rows_by_shard()
    has = np.zeros(len(live), bool)
    if stream is not None:
        held = np.array(split.stream_shards(stream), np.int64)
        has[held[held < len(has)]] = True
    lacking = np.flatnonzero((live > 0) & ~has)
    written = rows_of_commits(split.manifest, rows_per_shard, len(live))
    replaced = int((written - live)[has].sum())
    return Pending(tuple(lacking.tolist()), int(live[lacking].sum()), replaced)


def rows_of_commits(manifest: Mapping[str, Any], rows_per_shard: int, n_shards: int) -> NDArray[np.int64]:
    """(shards,) how many rows each shard was written with, those of replaced tracks included, padding left out."""
    rows = np.zeros(n_shards, np.int64)
    for first, end in manifest["commits"]:
        shards = np.arange(first // rows_per_shard, -(-end // rows_per_shard))
        rows[shards] = np.minimum(end - shards * rows_per_shard, rows_per_shard)
    return rows

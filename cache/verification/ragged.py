"""Do the places of a stream of bytes fit the bytes? Checksums vouch for either, not for both together.  [cache]"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format import shard as shards
from cache.format.layout import ROOM, Geometry, stream_columns
from cache.format.manifest import Commit
from cache.verification.shards import shards_of


def misplaced_shards(
    commit: Commit, stream: str, damaged: Collection[str], *, only: Collection[int] | None = None
) -> Iterator[tuple[int, str, str]]:
    """(shard, key of its places, what is wrong) of a stream of bytes.

    `damaged`: keys that are told already; `only`: the shards to look at, None for all.
    """
    columns = stream_columns(stream, commit.manifest["dim"], commit.manifest["dtype"])
    names = (stream, f"{stream}_at", f"{stream}_ok")
    data, at, ok = (dict(shards_of(commit, name, columns[name])[0]) for name in names)
    store, geometry = commit.place.store, Geometry(**commit.manifest["geometry"])
    for shard in sorted(data.keys() & at.keys() & ok.keys()):
        if only is not None and shard not in only:
            continue
        if {data[shard].key, at[shard].key, ok[shard].key} & set(damaged):
            continue
        try:
            places, flags = (
                shards.decode(shards.read(store, file.key), file.spec, geometry, store.where(file.key))[: file.n_rows]
                for file in (at[shard], ok[shard])
            )
        except (CacheError, OSError):  # since it was checked: the next verification tells
            continue
        first = shard * data[shard].geometry.rows_per_shard
        if wrong := _misplaced(places, flags, first, data[shard].n_rows):
            told = CacheError.at(
                store.where(at[shard].key), expected="where each row's bytes lie", found=wrong, do=commit.place.repair
            )
            yield shard, at[shard].key, str(told)


def _misplaced(places: NDArray[np.int64], ok: NDArray[np.uint8], first: int, held: int) -> str:
    """What is wrong with the places of a shard's rows, in words; "": nothing.

    Args:
        places: (n, 2), of its rows.
        ok: (n,) their flags.
        first: byte of the array at which the shard starts.
        held: bytes of the chunks that it holds.
    """
    there = ok == 1
    if (places[~there] != -1).any():
        return "places of rows that have no bytes"
    starts, stops = places[there].T
    ends = np.concatenate([[first], stops])
    if (starts != ends[:-1]).any() or (stops < starts).any():
        return "places that do not follow one on the other"
    if -(-int(ends[-1] - first) // ROOM) * ROOM != held:
        return f"places up to byte {int(ends[-1] - first)} of the shard, which holds {held}"
    return ""

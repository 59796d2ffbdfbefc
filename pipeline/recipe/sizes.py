"""Bytes that splits and streams take on the disk.  [tracks, features]

`columns_bytes` and `stream_bytes` tell how many bytes rows will take, for forecasts and plans.
`stored_bytes` counts how many bytes a split takes, for `status --sizes`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import cache
from cache.format.layout import COLUMNS, FEATURES, ROWS_PER_CHUNK, ROWS_PER_SHARD, stream_of

CHECKSUM: Final = 4  # bytes of a crc32c
ENTRY: Final = 16  # bytes of a chunk's entry in its shard's index
FLAG_AND_KEY: Final = (1, 16)  # bytes a row of every stream's `_ok` and `_key`


class RowFormat(NamedTuple):
    """A stream's numbers in one row, for example (2048, "float16")."""

    dim: int
    dtype: str


def _array_bytes(rows: float, row_bytes: int) -> float:
    """Bytes of rows in shards and chunks of the default size, with checksums and indexes
    (docs/cache-format.md).
    """
    n_chunks = math.ceil(rows / ROWS_PER_CHUNK)
    n_shards = math.ceil(rows / ROWS_PER_SHARD)
    chunk_bytes = ROWS_PER_CHUNK * row_bytes + CHECKSUM
    index_bytes = ROWS_PER_SHARD // ROWS_PER_CHUNK * ENTRY + CHECKSUM
    return n_chunks * chunk_bytes + n_shards * index_bytes


def columns_bytes(
    rows: float, columns: tuple[str, ...], extra: Iterable[cache.ExtraColumn]
) -> float:
    """Bytes that `rows` rows of a split take with these columns, without those per track."""
    specs = [COLUMNS[name] for name in columns]
    specs += [column.spec for column in extra if column.per == "row"]
    total = 0.0
    for spec in specs:
        row_bytes = math.prod(spec.trailing) * spec.dtype.itemsize
        total += _array_bytes(rows, row_bytes)
    return total


def stream_bytes(rows: float, dim: int, dtype: str) -> float:
    """Bytes that `rows` rows of a stream take: `dim` numbers each, with the flag and the key."""
    number_bytes = 2 if dtype == "float16" else 4
    widths = (dim * number_bytes, *FLAG_AND_KEY)
    return sum(_array_bytes(rows, width) for width in widths)


def stored_bytes(split: cache.Split) -> dict[str, Any]:
    """Stored bytes of a split: `columns`, `streams` (by name), `tables` (all other files).

    `commits`: time of the newest commit of "columns" and of each stream; None if lost.
    """
    streams = dict.fromkeys(split.streams, 0)
    stored: dict[str, Any] = {"columns": 0, "streams": streams, "tables": 0}
    for key, n_bytes in split.store.files(split.name).items():
        # shards lie at COLUMN/c/... and at features/ARRAY/c/...
        top, *names = key.removeprefix(f"{split.name}/").split("/")
        stream = stream_of(names[0]) if names[1:2] == ["c"] else None
        if top in split.columns and names[:1] == ["c"]:
            stored["columns"] += n_bytes
        elif top == FEATURES and stream in stored["streams"]:
            stored["streams"][stream] += n_bytes
        else:
            stored["tables"] += n_bytes
    stored["commits"] = {"columns": split.provenance.get("finished")}
    for name in split.streams:
        stored["commits"][name] = split.stream_provenance(name).get("finished")
    return stored

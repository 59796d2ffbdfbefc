"""How many bytes a cache has, by split and stream, and how many rows will take.  tracks -> features -> [sizes]"""

from __future__ import annotations

import math
from typing import Any, Final

import cache
from cache.format.layout import COLUMNS, FEATURES, ROWS_PER_CHUNK, ROWS_PER_SHARD, stream_of
from pipeline.features.streams.base import BYTES

CHECKSUM: Final = 4  # bytes of a crc32c
ENTRY: Final = 16  # bytes of a chunk's entry in its shard's index
FLAG_AND_KEY: Final = (1, 16)  # bytes a row of every stream's `_ok` and `_key`
AT: Final = 16  # bytes a row of `_at`, of streams of bytes
A_CROP: Final = 24_000  # bytes of a 224 x 224 JPEG of quality 95, about


def array_bytes(rows: float, row_bytes: int) -> float:
    """Of so many rows, in shards and chunks of the usual size, with checksums and indexes (docs/cache-format.md)."""
    chunks = math.ceil(rows / ROWS_PER_CHUNK)
    index = math.ceil(rows / ROWS_PER_SHARD) * (ROWS_PER_SHARD // ROWS_PER_CHUNK * ENTRY + CHECKSUM)
    return chunks * (ROWS_PER_CHUNK * row_bytes + CHECKSUM) + index


def columns_bytes(rows: float, columns: tuple[str, ...]) -> float:
    """Of the shards of a split's columns."""
    specs = (COLUMNS[name] for name in columns)
    return sum(array_bytes(rows, math.prod(spec.trailing) * spec.dtype.itemsize) for spec in specs)


def stream_bytes(rows: float, dim: int, dtype: str, each: float = A_CROP) -> float:
    """Of the shards of a stream. each: bytes a row of a stream of bytes."""
    kept = sum(array_bytes(rows, width) for width in FLAG_AND_KEY)
    if dtype == BYTES:
        return rows * (each + CHECKSUM + ENTRY) + array_bytes(rows, AT) + kept
    return array_bytes(rows, dim * (2 if dtype == "float16" else 4)) + kept


def sizes(split: cache.Split) -> dict[str, Any]:
    """Bytes of a committed split as stored, `columns` and by stream, of its tables and manifests; and when committed.

    `tables`: all other files. `commits`: of "columns" and each stream, the time of the newest commit; None where lost.
    """
    found: dict[str, Any] = {"columns": 0, "streams": dict.fromkeys(split.streams, 0), "tables": 0}
    for key, n_bytes in split.store.files(split.name).items():
        top, *rest = key.removeprefix(f"{split.name}/").split("/")
        if top in split.columns and rest[:1] == ["c"]:
            found["columns"] += n_bytes
        elif top == FEATURES and rest[1:2] == ["c"] and stream_of(rest[0]) in found["streams"]:
            found["streams"][stream_of(rest[0])] += n_bytes
        else:
            found["tables"] += n_bytes
    times = {"columns": split.provenance} | {name: split.stream_provenance(name) for name in split.streams}
    return found | {"commits": {what: note.get("finished") for what, note in times.items()}}

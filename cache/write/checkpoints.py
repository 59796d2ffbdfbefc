"""Work on a shard that is not in its stream yet, as one temporary file.  crops -> [features]

Arrays of any types but objects, and a checksum behind them: what a crash has torn or a disk has changed is not read.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.format.shard import crc32c

_CRC_BYTES: Final = 4


def pack(arrays: Mapping[str, NDArray[Any] | str]) -> bytes:
    """The file of some arrays and texts."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # of texts, NumPy makes arrays
    buffer.write(crc32c(buffer.getvalue()))
    return buffer.getvalue()


def unpack(file: bytes) -> dict[str, NDArray[Any]] | None:
    """What `pack` was given, texts as arrays of one; None for a file that it has not written."""
    data = file[:-_CRC_BYTES]
    if crc32c(data) != file[-_CRC_BYTES:]:
        return None
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)


def joined(rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """(n, ...) numbers, or (n,) `bytes`, as arrays without objects."""
    if rows.dtype != object:
        return {"data": rows}
    sizes = np.fromiter(map(len, rows), np.int64, len(rows))
    return {"data": np.frombuffer(b"".join(rows), np.uint8), "sizes": sizes}


def divided(arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """The same rows again."""
    if "sizes" not in arrays:
        return arrays["data"]
    stops = np.cumsum(arrays["sizes"]).tolist()
    rows = np.empty(len(stops), object)
    for row, (start, stop) in enumerate(zip([0, *stops], stops, strict=False)):
        rows[row] = arrays["data"][start:stop].tobytes()
    return rows

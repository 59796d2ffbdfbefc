"""What tests of a stream of bytes have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import cache
from cache import StreamWriter

SPLIT = "toy/train"
FEATURES = f"{SPLIT}/features"
ROOM = 1 << 17


def writer_of(root: Path, **options: Any) -> StreamWriter:
    form: dict[str, Any] = {"dim": 0, "dtype": "bytes", "plan": "quality 95", **options}
    return StreamWriter(root, SPLIT, "crops", **form)


def flip(file: Path, at: int) -> None:
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.write_bytes(data)


def of_track(split: cache.Split, track: cache.TrackRecord) -> list[bytes | None]:
    """What a track's rows hold; None where there is nothing."""
    ok = split.rows("features/crops_ok", track.start, track.stop) == 1
    rows = np.arange(track.start, track.stop)
    found = iter(split.blobs("crops", rows[ok]))
    return [next(found) if there else None for there in ok]

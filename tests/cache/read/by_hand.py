"""A split of one track, by its columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import cache
from cache import SplitWriter, TrackRows, VideoEntry


def split_of(root: Path, columns: dict[str, Any], crop_scale: float = 1.3, **sizes: int) -> cache.Split:
    n_rows = len(next(iter(columns.values())))
    columns = {"frame_index": np.arange(n_rows), **columns}
    track = TrackRows(name="a/0", video="a", step=1, fps=25, crop_scale=crop_scale, columns=columns)
    sizes = {"rows_per_shard": 32, "rows_per_chunk": 8, **sizes}
    with SplitWriter(root, "toy/train", columns=columns, plan="p", **sizes) as writer:
        writer.begin()
        writer.append(VideoEntry(name="a"), [track])
        writer.commit({})
    return cache.open(root)["toy/train"]

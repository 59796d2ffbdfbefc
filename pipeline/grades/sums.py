"""Sums of a video's tracks, such as numbers of rows and seconds, stored with it in the cache.

SUMS has them all; their totals are in the manifest and in `status --json`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from cache import COLUMNS, TrackRows
from cache.arrays import Array
from cache.read.labels import SOME_3D, count_some_in_3d, used_in_3d


def _stored_rows(tracks: Sequence[TrackRows], name: str) -> Array:
    """The rows of a column of all tracks that have it, as they are stored."""
    rows = [track.columns[name] for track in tracks if name in track.columns]
    column = COLUMNS[name]
    return np.concatenate([column.empty(0), *rows], dtype=column.dtype, casting="unsafe")


# To add one, add a line here, and a row in docs/terminal.md.
SUMS: Final[dict[str, Callable[[Sequence[TrackRows]], float]]] = {
    "rows": lambda tracks: len(_stored_rows(tracks, "frame_index")),
    "tracks": len,
    "seconds": lambda tracks: sum(
        len(t.columns["frame_index"]) * (t.step / t.fps if t.fps else math.nan) for t in tracks
    ),
    # so many are in one frame
    "persons": lambda tracks: max(
        Counter(_stored_rows(tracks, "frame_index").tolist()).values(), default=0
    ),
    "confidence_2d": lambda tracks: _stored_rows(tracks, "kp_2d")[..., 2].sum(dtype=np.float64),
    "rows_3d": lambda tracks: sum(int(used_in_3d(track.columns).sum()) for track in tracks),
    "rows_smpl": lambda tracks: _stored_rows(tracks, "has_smpl").sum(),
}


def sums_of(tracks: Sequence[TrackRows]) -> dict[str, float]:
    """The SUMS of one video, and SOME_3D if it has such rows: other runs keep their names."""
    sums = {name: float(measure(tracks)) for name, measure in SUMS.items()}
    n_some = sum(count_some_in_3d(track.columns) for track in tracks)
    return sums | ({SOME_3D: float(n_some)} if n_some else {})

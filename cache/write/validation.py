"""Rows as a writer takes them, checked and converted to their columns' types.  raw -> [tracks] -> features"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format.layout import COLUMNS
from cache.format.records import TrackRows

# A label without the flag that marks where it is known would be read as unknown everywhere.
NEEDS_FLAG: Final = {"kp_3d": "has_3d", "pose": "has_smpl", "betas": "has_smpl"}


def checked_rows(track: TrackRows, video: str, columns: Collection[str], split: str) -> dict[str, NDArray[Any]]:
    """The columns of one track of `video` in their own types: floats rounded, flags and frame indices exact.

    Raises CacheError for what does not fit `columns`.
    """
    title = f"{split}: track {track.name!r}"
    if track.video != video:
        raise CacheError(f"{title}: belongs to video {track.video!r}, was appended with {video!r}")
    if strange := sorted(track.columns.keys() - set(columns)):
        raise CacheError(f"{title}: columns {strange} are not among this split's: {sorted(columns)}")
    if "frame_index" not in track.columns:
        raise CacheError(f"{title}: has no frame_index")
    for label, flag in NEEDS_FLAG.items():
        if label in track.columns and flag not in track.columns:
            raise CacheError(f"{title}: {label} comes without {flag}, which marks where it is known")
    n_rows = len(track.columns["frame_index"])
    rows = {}
    for name, given in track.columns.items():
        spec, array = COLUMNS[name], np.asarray(given)
        if array.shape != (n_rows, *spec.trailing):
            raise CacheError(f"{title}: {name} is {array.shape}, expected {(n_rows, *spec.trailing)}")
        if array.dtype.kind not in {"f": "fiu", "i": "iu", "u": "bu"}[spec.dtype.kind]:
            raise CacheError(f"{title}: {name} is {array.dtype}, expected {spec.dtype}")
        if spec.dtype.kind == "u" and (array > 1).any():
            raise CacheError(f"{title}: {name} holds {int(array.max())}, expected 0 or 1")
        rows[name] = array.astype(spec.dtype)
    frames = rows["frame_index"]
    if n_rows == 0 or frames[0] < 0 or (np.diff(frames) <= 0).any() or track.step < 1:
        raise CacheError(f"{title}: frame_index must be non-empty, from 0 on and strictly increasing, and step >= 1")
    return rows

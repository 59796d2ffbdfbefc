"""Rows as they come in, checked and in their columns' types.  raw -> [tracks] -> features -> windows"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache.errors import CacheError
from cache.format.layout import COLUMNS
from cache.format.records import TrackRows

# A label without the flag that says where it is known would be read as unknown everywhere.
NEEDS_FLAG: Final = {"kp_3d": "has_3d", "pose": "has_smpl", "betas": "has_smpl"}


def checked_rows(track: TrackRows, video: str, columns: Collection[str], split: str) -> dict[str, NDArray[Any]]:
    """The columns of one track of `video` in their own types. Raises CacheError for what does not fit `columns`."""
    where = f"{split}: track {track.name!r}"
    if track.video != video:
        raise CacheError(f"{where}: belongs to video {track.video!r}, was appended with {video!r}")
    if strange := sorted(track.columns.keys() - set(columns)):
        raise CacheError(f"{where}: columns {strange} are not among this split's: {sorted(columns)}")
    if "frame_index" not in track.columns:
        raise CacheError(f"{where}: has no frame_index")
    for label, flag in NEEDS_FLAG.items():
        if label in track.columns and flag not in track.columns:
            raise CacheError(f"{where}: {label} comes without {flag}, which says where it is known")
    n_rows = len(track.columns["frame_index"])
    rows = {name: _fit(array, name, n_rows, where) for name, array in track.columns.items()}
    frames = rows["frame_index"]
    if n_rows == 0 or frames[0] < 0 or (np.diff(frames) <= 0).any() or track.step < 1:
        raise CacheError(f"{where}: frame_index must be non-empty, from 0 on and strictly increasing, and step >= 1")
    return rows


def _fit(array: NDArray[Any], name: str, n_rows: int, where: str) -> NDArray[Any]:
    """An array in its column's shape and type: safe for flags and frame indices, rounded for floats."""
    spec = COLUMNS[name]
    array = np.asarray(array)
    if array.shape != (n_rows, *spec.trailing):
        raise CacheError(f"{where}: {name} is {array.shape}, expected {(n_rows, *spec.trailing)}")
    allowed = {"f": "fiu", "i": "iu", "u": "bu"}[spec.dtype.kind]
    if array.dtype.kind not in allowed:
        raise CacheError(f"{where}: {name} is {array.dtype}, expected {spec.dtype}")
    if spec.dtype.kind == "u" and (array > 1).any():
        raise CacheError(f"{where}: {name} holds {int(array.max())}, expected 0 or 1")
    return array.astype(spec.dtype)

"""Check tracks before they are written.  raw -> [tracks] -> features -> windows"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final, NoReturn

import numpy as np

from cache.errors import CacheError
from cache.format.extra import ExtraColumn
from cache.format.layout import COLUMNS, GENDERS
from cache.format.records import TrackRows

# Label -> the flag column that marks its known rows. Without that column, readers would take the
# label as unknown in all rows.
_NEEDS_FLAG: Final = {"kp_3d": "has_3d", "pose": "has_smpl", "betas": "has_smpl"}


def check_track(
    track: TrackRows, video: str, columns: Collection[str], extra: Iterable[ExtraColumn] = ()
) -> None:
    """Raise CacheError unless a track can be written to a split with these columns.

    Names, shapes, dtypes and values are checked. Floats may be rounded to a column's dtype;
    integers must fit exactly. Values of `extra` columns may not equal the fill value.

    Args:
        video: name of the video that the track must belong to.
        columns: names of the split's columns.
        extra: the split's extra columns.
    """
    extras = columns_by_name(extra)

    def refuse(problem: str) -> NoReturn:
        raise CacheError(f"track {track.name!r} of video {video!r}: {problem}")

    if track.video != video:
        refuse(f"belongs to video {track.video!r}")
    if track.gender not in GENDERS:
        refuse(f"gender is {track.gender!r}, expected one of {', '.join(GENDERS)}")
    strange = sorted(track.columns.keys() - (set(columns) & COLUMNS.keys()))
    if strange:
        refuse(f"columns {strange} are not among this split's: {sorted(columns)}")
    strange = sorted(track.extra.keys() - extras.keys())
    if strange:
        refuse(f"extra columns {strange} are not declared; those that are: {sorted(extras)}")
    if "frame_index" not in track.columns:
        refuse("has no frame_index")
    for label, flag in _NEEDS_FLAG.items():
        if label in track.columns and flag not in track.columns:
            refuse(f"{label} comes without {flag}, which marks its known rows")
    n_rows = len(track.columns["frame_index"])
    specs = {**COLUMNS, **extras}
    for name, array in {**track.columns, **track.extra}.items():
        problem = specs[name].problem(array, n_rows)
        if problem:
            refuse(f"{name} {problem}")
    frames = track.columns["frame_index"].astype(np.int64)
    is_increasing = n_rows > 0 and frames[0] >= 0 and (np.diff(frames) > 0).all()
    if not is_increasing or track.step < 1:
        refuse("frame_index must be non-empty, from 0 on and strictly increasing, and step >= 1")


def columns_by_name(columns: Iterable[ExtraColumn]) -> dict[str, ExtraColumn]:
    """Extra columns by name. Raises ValueError for duplicate names."""
    declared = list(columns)
    by_name = {column.name: column for column in declared}
    if len(by_name) < len(declared):
        names = [column.name for column in declared]
        raise ValueError(f"extra columns {names}: expected each name once")
    return by_name

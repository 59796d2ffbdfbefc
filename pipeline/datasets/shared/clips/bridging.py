"""Frames in which a person was missed become rows, for prediction.  [raw -> tracks] -> features"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from pipeline.accounting import VideoAccount
from pipeline.cli.text import count
from pipeline.datasets.shared.clips.people import PersonTrack
from pipeline.people.skeletons import Float32s, Ints


def bridge_gaps(
    persons: Iterable[PersonTrack], max_gap: int, account: VideoAccount
) -> Iterator[PersonTrack]:
    """Fill gaps of up to `max_gap` frames, so that windows are not split at them.

    An added frame has an interpolated box and no visible joint. Added frames count as found and
    kept; a note of their number is added after the last person.
    """
    added = []
    for person in persons:
        bridged = _bridge_person(person, max_gap)
        n_added = len(bridged.frame_index) - len(person.frame_index)
        if n_added:
            added.append(n_added)
        yield bridged

    total = sum(added)
    account.found += total
    account.kept += total
    if added:
        of_tracks = f" of {len(added)} tracks" if len(added) > 1 else ""
        account.note(
            f"{count(total, 'frame')} between detections{of_tracks} are predicted with "
            "interpolated boxes"
        )


def _bridge_person(person: PersonTrack, max_gap: int) -> PersonTrack:
    """Fill the gaps of one person, as `bridge_gaps` does."""
    frames = person.frame_index
    is_bridged = np.diff(frames) <= max_gap + 1
    stops = np.where(is_bridged, frames[1:], frames[:-1] + 1)
    stretches = map(np.arange, frames[:-1], stops)  # each frame, and those added after it
    bridged = np.concatenate([*stretches, frames[-1:]])

    columns = [np.interp(bridged, frames, column) for column in person.bbox.T]
    bbox = np.column_stack(columns).astype(np.float32)
    rows = np.searchsorted(bridged, frames)
    kp_2d = _spread_rows(person.kp_2d, rows, len(bridged))
    hands = None if person.hands is None else _spread_rows(person.hands, rows, len(bridged))
    return person._replace(frame_index=bridged, bbox=bbox, kp_2d=kp_2d, hands=hands)


def _spread_rows(joints: Float32s, rows: Ints, n_rows: int) -> Float32s:
    """n_rows rows of joints, of which `rows` (T,) are these, (T, J, 3), and the others 0."""
    out = np.zeros((n_rows, *joints.shape[1:]), np.float32)
    out[rows] = joints
    return out

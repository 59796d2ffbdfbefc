"""Frames in which a person was missed become rows, for prediction.  [raw -> tracks] -> features"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from pipeline.accounting import VideoAccount
from pipeline.cli.text import count
from pipeline.datasets.shared.clips.people import PersonTrack


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
    place = np.searchsorted(frames, bridged)
    is_added = (frames[place] != bridged)[:, None, None]
    kp_2d, hands = (
        np.where(is_added, np.float32(0), joints[place]) for joints in (person.kp_2d, person.hands)
    )
    return person._replace(frame_index=bridged, bbox=bbox, kp_2d=kp_2d, hands=hands)

"""Detections without identities -> persons over time.  raw -> [tracks] -> features -> windows

Detections of neighbouring frames are paired by the assignment of least total cost (Kuhn: The Hungarian method, 1955).
The cost of a pair is

    (1 - IoU of the two boxes + mean distance of the joints seen in both / box diagonal, at most 1) / 2

so 0 for the same detection and 1 for strangers far apart. Leaving two detections unpaired costs MAX_COST: no pair costs
more. Nothing is predicted: a person who stands still and one who walks are compared with where they were last seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from pipeline.boxes import extents, intersection_over_union

Floats = NDArray[np.floating]
Doubles = NDArray[np.float64]

MAX_GAP: Final = 5  # missing frames that a person may bridge
MAX_COST: Final = 0.6  # half a box overlapped by a third, or no overlap and joints a fifth of the diagonal away
MARGIN_PX: Final = 1.0  # gives a box of two joints in line an area


@dataclass(slots=True)
class _Person:
    """A track being built."""

    keypoints: Doubles  # (J, 3) as last seen
    frame: int  # where last seen
    members: list[tuple[int, int]] = field(default_factory=list)


def link(
    keypoints: Sequence[Floats], frame_index: Sequence[int] | NDArray[np.int64], max_gap: int = MAX_GAP
) -> list[NDArray[np.int64]]:
    """Link each frame's persons to those of the frames before.

    `keypoints[t]` is (P, J, 3) px px confidence of the P persons in frame `frame_index[t]` (strictly increasing), P
    varying; a joint of confidence 0 is not seen. Returns one (n, 2) array a person: rows (t, p) in time order. Persons
    come in the order of their first frame, left to right in it; the order of detections within a frame changes nothing
    but the p. A person not seen for more than `max_gap` frames is a new one afterwards. Detections without any seen
    joint belong to nobody.
    """
    finished: list[_Person] = []
    active: list[_Person] = []
    for t, (detections, frame) in enumerate(zip(keypoints, frame_index, strict=True)):
        finished += [person for person in active if frame - person.frame - 1 > max_gap]
        active = [person for person in active if frame - person.frame - 1 <= max_gap]
        candidates = _in_canonical_order(detections)
        points = np.asarray(detections, np.float64)[candidates]
        partner = _assign(np.stack([person.keypoints for person in active]), points) if active else {}
        for i, p in enumerate(candidates):
            if i in partner:
                person = active[partner[i]]
            else:
                person = _Person(points[i], int(frame))
                active.append(person)
            person.keypoints, person.frame = points[i], int(frame)
            person.members.append((t, int(p)))
    chains = sorted(finished + active, key=lambda person: person.members[0][0])  # stable: left to right stays
    return [np.array(person.members, np.int64) for person in chains]


def _in_canonical_order(detections: Floats) -> NDArray[np.int64]:
    """Indices of the detections with a seen joint, by box, then by every number: however they were listed."""
    points = np.asarray(detections, np.float64)
    corners, any_seen = extents(points)
    seen = np.flatnonzero(any_seen)
    if not len(seen):
        return seen
    keys = np.concatenate([corners[seen].reshape(len(seen), -1), points[seen].reshape(len(seen), -1)], axis=1)
    return seen[np.lexsort(keys.T[::-1])]


def _assign(before: Doubles, now: Doubles) -> dict[int, int]:
    """Index in `now` -> index in `before`, for the pairs of least total cost."""
    if not len(now):
        return {}
    cost = pair_costs(before, now)
    rows, columns = linear_sum_assignment(np.minimum(cost, MAX_COST))
    return {int(c): int(r) for r, c in zip(rows, columns, strict=True) if cost[r, c] < MAX_COST}


def pair_costs(before: Floats, now: Floats) -> Doubles:
    """(A, J, 3) and (B, J, 3), all with a seen joint -> (A, B) costs in [0, 1], as the module says."""
    boxes_before, boxes_now = _padded(before), _padded(now)
    overlap = intersection_over_union(boxes_before, boxes_now)
    shared = (before[:, None, :, 2] > 0) & (now[None, :, :, 2] > 0)  # (A, B, J)
    distance = np.linalg.norm(before[:, None, :, :2] - now[None, :, :, :2], axis=-1)
    n_shared = shared.sum(axis=-1)
    mean = (distance * shared).sum(axis=-1) / np.maximum(n_shared, 1)
    diagonal = np.maximum(_diagonal(boxes_before)[:, None], _diagonal(boxes_now)[None])
    apart = np.where(n_shared > 0, np.minimum(mean / diagonal, 1), 1.0)  # nothing to compare: as far as can be
    return np.asarray((1 - overlap + apart) / 2, np.float64)


def _padded(keypoints: Floats) -> Doubles:
    corners, _ = extents(keypoints)
    return np.stack([corners[:, 0] - MARGIN_PX, corners[:, 1] + MARGIN_PX], axis=1)


def _diagonal(corners: Doubles) -> Doubles:
    return np.asarray(np.linalg.norm(corners[:, 1] - corners[:, 0], axis=-1), np.float64)

"""Detections without identities -> persons over time.  raw -> [tracks] -> features -> windows

Detections are paired with the persons of the frames before by the assignment of least total cost (Kuhn: The Hungarian
method, 1955). The cost of a pair is

    (1 - IoU of the two boxes + mean distance of the joints seen in both / a third of the box diagonal, at most 1) / 2

so 0 for the same detection and 1 for two people apart. Leaving two detections unpaired costs MAX_COST: no pair costs
more. A person is expected to go on at the speed of the last VELOCITY detections, through frames in which he or she is
missing, too. Nothing is linked over a cut to another scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.boxes import extents, intersection_over_union

Floats = NDArray[np.floating]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]

MAX_GAP: Final = 5  # missing frames that a person may bridge
MAX_COST: Final = 0.6  # boxes that overlap by a third, and joints a sixth of the diagonal away
APART: Final = 1 / 3  # of the larger diagonal: joints that far away on average are another person's
VELOCITY: Final = 12  # detections: over fewer, noise is taken for speed; over more, a turn is not followed
MARGIN_PX: Final = 1.0  # gives a box of two joints in line an area


@dataclass(frozen=True, slots=True, eq=False)
class _SeenDetections:
    """All N detections with a seen joint, frame by frame, each frame's in an order of their own (`_seen`)."""

    rows: Ints  # (N, 2) position of the frame, number in it
    keypoints: Doubles  # (N, J, 3)
    boxes: Doubles  # (N, 2, 2) corners, with the margin
    start: Ints  # (T + 1,) where each frame's begin


def link(
    keypoints: Sequence[Floats], frame_index: Sequence[int] | Ints, max_gap: int = MAX_GAP, *, cuts: Sequence[int] = ()
) -> list[Ints]:
    """Link each frame's persons to those of the frames before.

    `keypoints[t]` is (P, J, 3) px px confidence of the P persons in frame `frame_index[t]` (strictly increasing), P
    varying; a joint of confidence 0 is not seen. `cuts` are the frames that begin another scene. Returns one (n, 2)
    array a person: rows (t, p) in time order. Persons come in the order of their first frame, left to right in it; the
    order of detections within a frame changes nothing but the p. A person not seen for more than `max_gap` frames, or
    over a cut, is a new one afterwards. Detections without any seen joint belong to no person.
    """
    if not len(keypoints):
        return []
    visible = _seen(keypoints)
    frames, scene = np.asarray(frame_index, np.int64), scenes(frame_index, cuts)
    persons: list[list[int]] = []  # numbers of detections
    active: list[list[int]] = []
    for t, frame in enumerate(frames):
        last = frames[visible.rows[[person[-1] for person in active], 0]] if active else ()
        same_scene = t > 0 and scene[t] == scene[t - 1]
        active = [track for track, f in zip(active, last, strict=True) if same_scene and frame - f - 1 <= max_gap]
        candidates = np.arange(visible.start[t], visible.start[t + 1])
        partner = _assign(_costs(visible, frames, active, candidates, frame)) if active and len(candidates) else {}
        for i, detection in enumerate(candidates.tolist()):
            if i in partner:
                active[partner[i]].append(detection)
            else:
                active.append([detection])
                persons.append(active[-1])
    return [visible.rows[person] for person in persons]


def scenes(frame_index: Sequence[int] | Ints, cuts: Sequence[int]) -> Ints:
    """(T,) which scene each frame belongs to; `cuts` are the frames that begin another one.

    >>> scenes([0, 1, 5, 6, 9], cuts=[3, 6]).tolist()
    [0, 0, 1, 2, 2]
    """
    return np.asarray(np.searchsorted(sorted(cuts), frame_index, side="right"), np.int64)


def split_at_gaps(frame_index: Ints, max_gap: int, cuts: Sequence[int] = ()) -> list[Ints]:
    """One person's frames (T,), cut wherever more than `max_gap` are missing and at cuts: their positions 0..T-1.

    >>> [part.tolist() for part in split_at_gaps(np.array([0, 1, 4, 9, 10, 11]), max_gap=2, cuts=[11])]
    [[0, 1, 2], [3, 4], [5]]
    """
    apart = (np.diff(frame_index) > max_gap + 1) | (np.diff(scenes(frame_index, cuts)) > 0)
    return np.split(np.arange(len(frame_index)), np.flatnonzero(apart) + 1)


def _seen(keypoints: Sequence[Floats]) -> _SeenDetections:
    """Those with a seen joint. Within a frame by box, then by every number: however they were listed."""
    counts = [len(persons) for persons in keypoints]
    frame = np.repeat(np.arange(len(counts)), counts)
    number = np.arange(len(frame)) - np.repeat(np.cumsum(counts) - counts, counts)
    points = np.concatenate([np.asarray(persons, np.float64) for persons in keypoints])
    corners, any_seen = extents(points)
    corners, points, rows = corners[any_seen], points[any_seen], np.column_stack([frame, number])[any_seen]
    n = len(rows)
    keys = np.concatenate([rows[:, :1], corners.reshape(n, 4)], axis=1)
    order = np.lexsort(keys.T[::-1])
    if (keys[order[1:]] == keys[order[:-1]]).all(axis=1).any():
        order = np.lexsort(np.concatenate([keys, points.reshape(n, points.shape[1] * 3)], axis=1).T[::-1])
    start = np.searchsorted(rows[:, 0], np.arange(len(counts) + 1))
    return _SeenDetections(rows[order], points[order], padded(corners[order]), start)


def _costs(seen: _SeenDetections, frames: Ints, active: Sequence[Sequence[int]], now: Ints, frame: int) -> Doubles:
    """(A, B) costs of the detections `now` against where the active persons are expected in `frame`."""
    first = np.array([person[-VELOCITY:][0] for person in active])
    last = np.array([person[-1] for person in active])
    before, after = seen.keypoints[first], seen.keypoints[last]
    shared = (before[..., 2] > 0) & (after[..., 2] > 0)
    total = ((after[..., :2] - before[..., :2]) * shared[..., None]).sum(axis=1)
    moved = total / np.maximum(shared.sum(axis=1), 1)[:, None]  # (A, 2) px on average; 0 where none is seen in both
    at_first, at_last = frames[seen.rows[first, 0]], frames[seen.rows[last, 0]]
    shift = moved * ((frame - at_last) / np.maximum(at_last - at_first, 1))[:, None]
    after[..., :2] += shift[:, None]
    return pair_costs(after, seen.boxes[last] + shift[:, None], seen.keypoints[now], seen.boxes[now])


def _assign(cost: Doubles) -> dict[int, int]:
    """Column -> row, for the pairs of least total cost."""
    from scipy.optimize import linear_sum_assignment  # 0.2 s, which commands that link nothing need not wait for

    rows, columns = linear_sum_assignment(np.minimum(cost, MAX_COST))
    return {c: r for r, c in zip(rows.tolist(), columns.tolist(), strict=True) if cost[r, c] < MAX_COST}


def pair_costs(points_a: Doubles, boxes_a: Doubles, points_b: Doubles, boxes_b: Doubles) -> Doubles:
    """(A, J, 3) and (B, J, 3) in boxes (A, 2, 2) and (B, 2, 2) -> (A, B) costs in [0, 1] (the module's docstring)."""
    shared = (points_a[:, None, :, 2] > 0) & (points_b[None, :, :, 2] > 0)  # (A, B, J)
    distance = np.linalg.norm(points_a[:, None, :, :2] - points_b[None, :, :, :2], axis=-1)
    n_shared = shared.sum(axis=-1)
    mean = (distance * shared).sum(axis=-1) / np.maximum(n_shared, 1)
    diagonal = np.maximum(_diagonal(boxes_a)[:, None], _diagonal(boxes_b)[None])
    apart = np.where(n_shared > 0, np.minimum(mean / diagonal / APART, 1), 1.0)  # nothing to compare: apart
    return np.asarray((1 - intersection_over_union(boxes_a[:, None], boxes_b[None]) + apart) / 2, np.float64)


def padded(corners: Doubles) -> Doubles:
    """(N, 2, 2) with the margin, so that joints in line have a box with an area."""
    return np.stack([corners[:, 0] - MARGIN_PX, corners[:, 1] + MARGIN_PX], axis=1)


def _diagonal(corners: Doubles) -> Doubles:
    return np.asarray(np.linalg.norm(corners[:, 1] - corners[:, 0], axis=-1), np.float64)

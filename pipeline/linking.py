"""Detections without identities -> persons over time.  raw -> [tracks] -> features -> windows

Detections of neighbouring frames are paired by the assignment of least total cost (Kuhn: The Hungarian method, 1955).
The cost of a pair is

    (1 - IoU of the two boxes + mean distance of the joints seen in both / box diagonal, at most 1) / 2

so 0 for the same detection and 1 for two people far apart. Leaving two detections unpaired costs MAX_COST: no pair
costs more. Nothing is predicted: a person who stands still and one who walks are compared with where they were last
seen.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
CHUNK: Final = 4096  # pairs compared at once: some MB


@dataclass(frozen=True, slots=True, eq=False)
class _Detections:
    """All N detections with a seen joint, frame by frame, each frame's in an order of their own (`_seen`)."""

    rows: NDArray[np.int64]  # (N, 2) position of the frame, number in it
    keypoints: Doubles  # (N, J, 3)
    boxes: Doubles  # (N, 2, 2) corners, with the margin
    start: NDArray[np.int64]  # (T + 1,) where each frame's begin


@dataclass(slots=True)
class _Person:
    """A track being built."""

    frame: int  # where last seen
    members: list[int]  # numbers of detections


def link(
    keypoints: Sequence[Floats], frame_index: Sequence[int] | NDArray[np.int64], max_gap: int = MAX_GAP
) -> list[NDArray[np.int64]]:
    """Link each frame's persons to those of the frames before.

    `keypoints[t]` is (P, J, 3) px px confidence of the P persons in frame `frame_index[t]` (strictly increasing), P
    varying; a joint of confidence 0 is not seen. Returns one (n, 2) array a person: rows (t, p) in time order. Persons
    come in the order of their first frame, left to right in it; the order of detections within a frame changes nothing
    but the p. A person not seen for more than `max_gap` frames is a new one afterwards. Detections without any seen
    joint belong to no person.
    """
    if not len(keypoints):
        return []
    seen = _seen(keypoints)
    persons: list[_Person] = []
    active: list[_Person] = []
    for t, (frame, of_neighbours) in enumerate(zip(frame_index, _costs_of_neighbours(seen), strict=True)):
        active = [person for person in active if frame - person.frame - 1 <= max_gap]
        now = range(int(seen.start[t]), int(seen.start[t + 1]))
        before = [person.members[-1] for person in active]
        partner = _assign(_costs(seen, of_neighbours, before, now)) if active and now else {}
        for i, detection in enumerate(now):
            if i in partner:
                person = active[partner[i]]
                person.frame = int(frame)
                person.members.append(detection)
            else:
                active.append(_Person(int(frame), [detection]))
                persons.append(active[-1])
    return [seen.rows[person.members] for person in persons]


def _seen(keypoints: Sequence[Floats]) -> _Detections:
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
    return _Detections(rows[order], points[order], _padded(corners[order]), start)


def _costs_of_neighbours(seen: _Detections) -> Iterator[Doubles]:
    """For every frame (A, B) costs of its B detections against the A of the frame before; the first has none before."""
    n = np.diff(seen.start)
    n_before = np.concatenate([[0], n[:-1]])
    n_pairs = n_before * n
    chunk = np.cumsum(n_pairs) // CHUNK
    for frames in np.split(np.arange(len(n)), np.flatnonzero(np.diff(chunk)) + 1):
        repeat = functools.partial(np.repeat, repeats=n_pairs[frames])
        first = np.cumsum(n_pairs[frames]) - n_pairs[frames]
        pair = np.arange(n_pairs[frames].sum()) - repeat(first)  # counted within its frame
        a = repeat(seen.start[frames] - n_before[frames]) + pair // repeat(n[frames])
        b = repeat(seen.start[frames]) + pair % repeat(n[frames])
        costs = np.split(_pair_costs(seen, a, b), first[1:])
        yield from (cost.reshape(n_before[t], n[t]) for t, cost in zip(frames, costs, strict=True))


def _costs(seen: _Detections, of_neighbours: Doubles, before: Sequence[int], now: range) -> Doubles:
    """(A, B) costs of the detections `now` against `before`, of which most are in the frame just before."""
    first = now.start - len(of_neighbours)  # detection that begins the frame before
    if all(detection >= first for detection in before):
        return of_neighbours[[detection - first for detection in before]]
    after = np.arange(now.start, now.stop)
    return np.stack(
        [
            of_neighbours[detection - first]
            if detection >= first
            else _pair_costs(seen, np.full(len(after), detection), after)
            for detection in before
        ]
    )


def _assign(cost: Doubles) -> dict[int, int]:
    """Column -> row, for the pairs of least total cost."""
    rows, columns = linear_sum_assignment(np.minimum(cost, MAX_COST))
    return {c: r for r, c in zip(rows.tolist(), columns.tolist(), strict=True) if cost[r, c] < MAX_COST}


def pair_costs(before: Floats, now: Floats) -> Doubles:
    """(A, J, 3) and (B, J, 3), all with a seen joint -> (A, B) costs in [0, 1] (see the module's docstring)."""
    points = np.concatenate([before, now]).astype(np.float64)
    rows = np.zeros((len(points), 2), np.int64)
    seen = _Detections(rows, points, _padded(extents(points)[0]), rows[:1, 0])
    a, b = np.divmod(np.arange(len(before) * len(now)), len(now))
    return _pair_costs(seen, a, len(before) + b).reshape(len(before), len(now))


def _pair_costs(seen: _Detections, a: NDArray[np.int64], b: NDArray[np.int64]) -> Doubles:
    """(n,) of the pairs of detections a[i] and b[i]."""
    boxes_a, boxes_b = seen.boxes[a], seen.boxes[b]
    points_a, points_b = seen.keypoints[a], seen.keypoints[b]
    shared = (points_a[..., 2] > 0) & (points_b[..., 2] > 0)  # (n, J)
    distance = np.linalg.norm(points_a[..., :2] - points_b[..., :2], axis=-1)
    n_shared = shared.sum(axis=-1)
    mean = (distance * shared).sum(axis=-1) / np.maximum(n_shared, 1)
    diagonal = np.maximum(_diagonal(boxes_a), _diagonal(boxes_b))
    apart = np.where(n_shared > 0, np.minimum(mean / diagonal, 1), 1.0)  # nothing to compare: as far as can be
    return np.asarray((1 - intersection_over_union(boxes_a, boxes_b) + apart) / 2, np.float64)


def _padded(corners: Doubles) -> Doubles:
    return np.stack([corners[:, 0] - MARGIN_PX, corners[:, 1] + MARGIN_PX], axis=1)


def _diagonal(corners: Doubles) -> Doubles:
    return np.asarray(np.linalg.norm(corners[:, 1] - corners[:, 0], axis=-1), np.float64)

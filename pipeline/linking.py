"""Linking of detections over time, selection of training frames.  raw -> [tracks] -> features -> windows

Detections are paired with the persons of the previous frames by the assignment of least total cost (Kuhn: The Hungarian
method, 1955). The cost of a pair, 0 for equal detections and 1 for two people apart, is

    (1 - IoU of the boxes + mean distance of joints seen in both / a third of the box diagonal, at most 1) / 2

Pairs above MAX_COST are not linked. Persons are expected to move on at the speed of their last VELOCITY detections,
also through missing frames. Nothing is linked across a scene cut.

Frames are selected as HMMR's authors did for InstaVariety (Kanazawa et al. 2019, their TFRecord converter): a sequence
begins where enough joints are visible and ends where too few are, after a median filter; short sequences, and those
that mostly show a face, are dropped. Their converter keeps the first sequence of a clip and its first 500 frames; here
every sequence counts, and a longer one is split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.boxes import extents, intersection_over_union
from pipeline.errors import ConfigError

Floats = NDArray[np.floating]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

MAX_GAP: Final = 5  # missing frames that a person may bridge
MAX_COST: Final = 0.6  # boxes that overlap by a third, and joints a sixth of the diagonal away
APART: Final = 1 / 3  # of the larger diagonal: joints that far away on average are another person's
VELOCITY: Final = 12  # detections: over fewer, noise is taken for speed; over more, a turn is not followed
MARGIN_PX: Final = 1.0  # gives a box of two joints in line an area


@dataclass(frozen=True, slots=True, eq=False)
class _SeenDetections:
    """All N detections with a seen joint, frame by frame, sorted within each frame (`_collect_detections`)."""

    rows: Ints  # (N, 2) position of the frame, number in it
    keypoints: Doubles  # (N, J, 3)
    boxes: Doubles  # (N, 2, 2) corners, with the margin
    start: Ints  # (T + 1,) where each frame's begin


def link(
    keypoints: Sequence[Floats], frame_index: Sequence[int] | Ints, max_gap: int = MAX_GAP, *, cuts: Sequence[int] = ()
) -> list[Ints]:
    """Link each frame's persons to those of the frames before.

    `keypoints[t]` is (P, J, 3) px px confidence of the P persons in frame `frame_index[t]` (strictly increasing);
    confidence 0 means not seen. `cuts` are the first frames of new scenes. Returns one (n, 2) array per person: rows
    (t, p) in time order; persons by their first frame, then left to right. The order of detections within a frame
    changes only p. A person not seen for more than `max_gap` frames, or across a cut, is a new one. Detections without
    a seen joint are ignored.
    """
    if not len(keypoints):
        return []
    visible = _collect_detections(keypoints)
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
    """(T,) scene number of each frame; `cuts` are the first frames of new scenes.

    >>> scenes([0, 1, 5, 6, 9], cuts=[3, 6]).tolist()
    [0, 0, 1, 2, 2]
    """
    return np.asarray(np.searchsorted(sorted(cuts), frame_index, side="right"), np.int64)


def split_at_gaps(frame_index: Ints, max_gap: int, cuts: Sequence[int] = ()) -> list[Ints]:
    """Split one person's frames (T,) at cuts and at gaps of more than `max_gap` frames, into positions 0..T-1.

    >>> [part.tolist() for part in split_at_gaps(np.array([0, 1, 4, 9, 10, 11]), max_gap=2, cuts=[11])]
    [[0, 1, 2], [3, 4], [5]]
    """
    apart = (np.diff(frame_index) > max_gap + 1) | (np.diff(scenes(frame_index, cuts)) > 0)
    return np.split(np.arange(len(frame_index)), np.flatnonzero(apart) + 1)


def _collect_detections(keypoints: Sequence[Floats]) -> _SeenDetections:
    """Detections with a seen joint, sorted within a frame by box, then by all numbers."""
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
    return _SeenDetections(rows[order], points[order], pad_boxes(corners[order]), start)


def _costs(seen: _SeenDetections, frames: Ints, active: Sequence[Sequence[int]], now: Ints, frame: int) -> Doubles:
    """(A, B) costs of the detections `now` against the expected positions of the active persons in `frame`."""
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
    """Column -> row of the pairs with the least total cost."""
    from scipy.optimize import linear_sum_assignment  # 0.2 s, which commands that link nothing need not wait for

    rows, columns = linear_sum_assignment(np.minimum(cost, MAX_COST))
    return {c: r for r, c in zip(rows.tolist(), columns.tolist(), strict=True) if cost[r, c] < MAX_COST}


def pair_costs(points_a: Doubles, boxes_a: Doubles, points_b: Doubles, boxes_b: Doubles) -> Doubles:
    """(A, J, 3) and (B, J, 3) in boxes (A, 2, 2) and (B, 2, 2) -> (A, B) costs in [0, 1] (module docstring)."""
    shared = (points_a[:, None, :, 2] > 0) & (points_b[None, :, :, 2] > 0)  # (A, B, J)
    distance = np.linalg.norm(points_a[:, None, :, :2] - points_b[None, :, :, :2], axis=-1)
    n_shared = shared.sum(axis=-1)
    mean = (distance * shared).sum(axis=-1) / np.maximum(n_shared, 1)
    diagonal = np.maximum(_diagonal(boxes_a)[:, None], _diagonal(boxes_b)[None])
    apart = np.where(n_shared > 0, np.minimum(mean / diagonal / APART, 1), 1.0)  # nothing to compare: apart
    return np.asarray((1 - intersection_over_union(boxes_a[:, None], boxes_b[None]) + apart) / 2, np.float64)


def pad_boxes(corners: Doubles) -> Doubles:
    """(N, 2, 2) with the margin, so that joints in line have a box with an area."""
    return np.stack([corners[:, 0] - MARGIN_PX, corners[:, 1] + MARGIN_PX], axis=1)


def _diagonal(corners: Doubles) -> Doubles:
    return np.asarray(np.linalg.norm(corners[:, 1] - corners[:, 0], axis=-1), np.float64)


# Joints of face and shoulders in all joint orders; all others are the body's.
_ABOVE: Final = ("nose", "leye", "reye", "lear", "rear", "neck", "headtop", "thorax", "lshoulder", "rshoulder")
_OPENPOSE: Final = ("OP Nose", "OP LEye", "OP REye", "OP LEar", "OP REar", "OP Neck", "OP LShoulder", "OP RShoulder")
ABOVE: Final = frozenset((*_ABOVE, *_OPENPOSE, "Head (H36M)", "Jaw (H36M)"))


@dataclass(frozen=True, slots=True)
class Cleaning:
    """Constants of the filter; the caller decides which joints are visible. Raises ConfigError for invalid values."""

    start_above: int = 6  # visible joints
    end_at: int = 4  # visible joints, or fewer
    median: int = 5  # detections; odd
    min_frames: int = 40
    face_only: float = 0.4  # share of frames that show nothing but face and shoulders, from which on it is no body
    max_frames: int = 500  # a longer sequence is split into equal parts

    def __post_init__(self) -> None:
        of_parts, of_filter = f"end_at {self.end_at}, start_above {self.start_above}", f"median {self.median}"
        lengths, share = f"min_frames {self.min_frames}, max_frames {self.max_frames}", f"face_only {self.face_only}"
        for holds, values, expected in (
            (0 <= self.end_at <= self.start_above, of_parts, "0 <= end_at <= start_above"),
            (self.median > 0 and self.median % 2 == 1, of_filter, "an odd number above 0"),
            (1 <= self.min_frames <= self.max_frames / 2, lengths, "min_frames from 1 to half of max_frames"),
            (0 < self.face_only <= 1, share, "more than 0, at most 1"),
        ):
            if not holds:
                raise ConfigError(f"{values}: expected {expected}")


class Cleaned(NamedTuple):
    """Selected parts, and dropped positions by reason; every detection is in exactly one."""

    parts: list[Ints]  # positions 0..T-1, ascending
    dropped: dict[str, Ints]  # reason -> positions


def clean(visible: Bools, joints: Sequence[str], rules: Cleaning | None = None) -> Cleaned:
    """Select the parts of one person's T detections that are fit for training.

    Args:
        visible: (T, J) seen joints of each detection, in time order, without rows for missing frames: bridged gaps end
            nothing.
        joints: the J joints' names, as in `skeletons.JOINTS`.
    """
    from scipy.ndimage import median_filter  # 0.1 s, and most datasets are not cleaned

    rules = Cleaning() if rules is None else rules
    count = median_filter(visible.sum(axis=1), size=rules.median, mode="nearest")
    inside, within = np.zeros(len(count), np.bool_), False
    for t, n in enumerate(count.tolist()):  # begins at the first count above `start_above`, ends at the first `end_at`
        inside[t] = within = n > rules.end_at if within else n > rules.start_above
    dropped = {"too_few_visible_joints": [np.flatnonzero(~inside)]}
    body = np.asarray(visible[:, [name not in ABOVE for name in joints]].any(axis=1), np.bool_)
    parts = []
    for rows in np.split(np.flatnonzero(inside), np.flatnonzero(np.diff(np.flatnonzero(inside)) > 1) + 1):
        if len(rows) < rules.min_frames:
            dropped.setdefault("track_too_short", []).append(rows)
        elif (~body[rows]).mean() >= rules.face_only:
            dropped.setdefault("face_only", []).append(rows)
        else:
            parts += np.array_split(rows, -(-len(rows) // rules.max_frames))  # at least half of max_frames each
    merged = {reason: np.concatenate(rows) for reason, rows in dropped.items()}
    return Cleaned(parts, {reason: rows for reason, rows in merged.items() if len(rows)})

"""Put left and right of a person's joints right.  raw -> [tracks] -> features -> windows

Networks exchange left and right in some frames, above all of people who are seen from behind. The
line from a right joint to the left one then points the other way. `put_sides_right` chooses for
each detection of a track whether it is exchanged: the sequence of least cost (Viterbi 1967), for
all limbs together, then for arms, legs and face by themselves. A step between detections costs, as
the mean over the lines of a limb,

    min(max(d / explained - 1, 0), FARTHEST)

once with the same sides and once with the other ones, of which the change costs CHANGE. d is how
far a line's end is from where it may be after dt seconds: between its place before, relative to the
camera's motion, and the place that its velocity predicts. What people do explains

    max((SPIN length + SWING diagonal) dt^2, USUAL least d of the steps around) + NOISE diagonal

In long steps and where limbs cross, this is more than an exchange moves. Then a step costs nothing,
as where usual steps are above AMBIGUOUS: a spin that goes half-way round in a step looks like an
exchange. Motion alone cannot tell which part of a track is exchanged: it is the smaller one. A part
above MOST_EXCHANGED stays as detected, and is undecided.

Constants were chosen on motions of benchmarks/sides.py, and are judged there on other ones.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np

from pipeline.people.boxes import extents
from pipeline.people.homography import transfer
from pipeline.people.skeletons import Bools, Doubles, Ints, Skeleton, joint_names, opposite_joints

SPIN: Final = 50.0  # lengths a s^2: half of the acceleration with which a person begins to turn
WIDTH: Final = 0.2  # diagonals: least length in space of a line that the image foreshortens
SWING: Final = 15.0  # diagonals a s^2: half of the acceleration of arms and legs
NEAR: Final = 3  # detections before and after a step that tell which steps are usual
USUAL: Final = 1.25
AMBIGUOUS: Final = 0.45  # of the longest line around: usual steps above it tell nothing
NOISE: Final = 0.008  # diagonals, of a detection
FARTHEST: Final = 4.0
ALONE: Final = 1.5  # cost of arms or legs that change their sides without the trunk
CHANGE: Final = 0.5
EXCHANGED: Final = 4.0  # cost of a track that is exchanged as a whole
MOST_EXCHANGED: Final = 1 / 3  # of a track
TRUNK: Final = "shoulder|hip"  # patterns of joints' names
ARMS: Final = "elbow|wrist"
LEGS: Final = "knee|ankle|heel|toe"
PARTS: Final = (  # of the body, whose sides change together
    (TRUNK, ARMS, LEGS),
    (ARMS,),
    (LEGS,),
    ("eye|ear",),
)


class Sides(NamedTuple):
    """The T detections of a person with their sides put right."""

    keypoints: Doubles  # (T, J, 3) px px confidence
    is_exchanged: Bools  # (T,) whether any joint was exchanged
    # (T,) of the smaller part where it is too large to tell which part is exchanged: as detected
    is_undecided: Bools
    are_arms_exchanged: Bools  # (T,)


def put_sides_right(
    keypoints: Doubles,
    frame_index: Ints,
    seconds: Doubles,
    skeleton: Skeleton,
    camera: Mapping[int, Doubles],
) -> Sides:
    """Exchange left and right of a person's T detections where the detector has exchanged them.

    Args:
        keypoints: (T, J, 3) px px confidence; 0 for unseen joints. Changed in place.
        frame_index: (T,) frame numbers, ascending.
        seconds: (T,) times of the frames.
        skeleton: The order of the J joints.
        camera: Frame -> homography (3, 3) px from the frame before; without one, it is still.
    """
    any_exchanged = np.zeros(len(keypoints), bool)
    any_undecided = any_exchanged.copy()
    are_arms_exchanged = any_exchanged.copy()
    sides = Sides(keypoints, any_exchanged, any_undecided, are_arms_exchanged)
    if len(keypoints) < 2:
        return sides
    names = [name.lower() for name in joint_names(skeleton)]
    opposite = np.array(opposite_joints(skeleton))
    is_first = opposite > np.arange(len(opposite))
    for limbs in PARTS:
        before = follow(keypoints[:-1, :, :2], frame_index[:-1], frame_index[1:], camera)
        pairs: list[Ints] = []
        costs = np.zeros((len(keypoints) - 1, 2))
        for limb in limbs:
            is_limb = np.array([bool(re.search(limb, name)) for name in names])
            first = np.flatnonzero(is_limb & is_first)
            lines = np.stack([first, opposite[first]])
            accelerated = SWING if limb in (ARMS, LEGS) else 0.0
            of_limb = _step_costs(keypoints, before, seconds, lines, accelerated)
            if pairs:
                of_limb = np.minimum(of_limb, of_limb[:, ::-1] + ALONE)
            costs += of_limb
            pairs.append(lines)
        is_exchanged = _least_cost(costs)
        if is_exchanged.mean() > MOST_EXCHANGED:
            any_undecided |= is_exchanged
            continue
        joints = np.concatenate(pairs, axis=1)
        rows = np.flatnonzero(is_exchanged)[:, None]
        keypoints[rows, joints.ravel()] = keypoints[rows, joints[::-1].ravel()]
        any_exchanged |= is_exchanged
        if ARMS in limbs:
            are_arms_exchanged ^= is_exchanged
    return sides


def _step_costs(
    keypoints: Doubles,
    before: Doubles,
    seconds: Doubles,
    lines: Ints,
    swing: float,
) -> Doubles:
    """Costs (T - 1, 2) of the steps from each detection to the next: with the same sides, and with
    the other ones.

    Args:
        before: (T - 1, J, 2) px, the joints of the earlier detection if they are still.
        lines: (2, L) both joints of each line.
        swing: SWING, or 0 of limbs that do not swing.
    """
    first, second = lines
    is_seen = (keypoints[:, first, 2] > 0) & (keypoints[:, second, 2] > 0)
    is_compared = is_seen[1:] & is_seen[:-1]
    duration = np.diff(seconds)[:, None]
    corners, _ = extents(keypoints)
    diagonals = np.maximum(np.linalg.norm(corners[:, 1] - corners[:, 0], axis=-1), 1)
    diagonal = np.maximum(diagonals[1:], diagonals[:-1])[:, None]

    # of joints that a homography moves to infinity: farther than any way that counts
    start = np.nan_to_num(before[:, first] - before[:, second], nan=1e9, posinf=1e9, neginf=1e9)
    stop = keypoints[1:, first, :2] - keypoints[1:, second, :2]
    ways = np.stack([stop - start, -stop - start])
    is_same = np.linalg.norm(ways[0], axis=-1) <= np.linalg.norm(ways[1], axis=-1)
    way = np.where(is_same[..., None], ways[0], -ways[1]) * is_compared[..., None]
    predicted = np.zeros_like(start)
    predicted[1:] = way[:-1] * (duration[1:] / duration[:-1])[..., None]
    squared = np.maximum(np.square(predicted).sum(axis=-1), 1e-9)
    part = np.clip((ways * predicted).sum(axis=-1) / squared, 0, 1)
    distances = np.linalg.norm(ways - part[..., None] * predicted, axis=-1)

    seen = np.linalg.norm([start, stop], axis=-1).max(axis=0)
    lengths = np.maximum(seen, WIDTH * diagonal)
    begun = (SPIN * lengths + swing * diagonal) * duration**2
    usual = _largest_around(distances.min(axis=0) * is_compared)
    is_compared = is_compared & (usual < AMBIGUOUS * _largest_around(lengths))
    explained = np.maximum(begun, USUAL * usual) + NOISE * diagonal
    costs = np.clip(distances / explained - 1, 0, FARTHEST) * is_compared
    n_compared = np.maximum(is_compared.sum(axis=1), 1)
    of_sides: Doubles = (costs.sum(axis=-1) / n_compared).T
    return of_sides


def _largest_around(values: Doubles) -> Doubles:
    """Of each of S steps' values (S, L), the largest of NEAR steps before to NEAR steps after."""
    padded = np.pad(values, ((NEAR, NEAR), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * NEAR + 1, axis=0)
    largest: Doubles = windows.max(axis=-1)
    return largest


def follow(points: Doubles, frames: Ints, later: Ints, camera: Mapping[int, Doubles]) -> Doubles:
    """Points (T, J, 2) px of `frames` (T,), as the camera's motion moves them until `later` (T,) if
    they are still. camera: as in `put_sides_right`.
    """
    if not camera:
        return points
    moved = points.copy()
    for t, (first, last) in enumerate(zip(frames.tolist(), later.tolist(), strict=True)):
        for frame in range(first + 1, last + 1):
            homography = camera.get(frame)
            if homography is not None:
                moved[t] = transfer(homography, moved[t])
    return moved


def _least_cost(steps: Doubles) -> Bools:
    """Whether each of T detections is exchanged, in the sequence of least cost. steps: (T - 1, 2)
    costs with the same sides, and with the other ones.
    """
    of_frame = EXCHANGED / (len(steps) + 1)
    cost = [0.0, of_frame]  # of the best sequences that end as detected, and exchanged
    came_from = []
    for same, other in steps.tolist():
        change = other + CHANGE
        as_detected = min((cost[0] + same, 0), (cost[1] + change, 1))
        exchanged = min((cost[1] + same, 1), (cost[0] + change, 0))
        came_from.append((as_detected[1], exchanged[1]))
        cost = [as_detected[0], exchanged[0] + of_frame]
    state = int(cost[1] < cost[0])
    states = [state]
    for before in reversed(came_from):
        state = before[state]
        states.append(state)
    return np.array(states[::-1], bool)

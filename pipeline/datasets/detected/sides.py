"""Put left and right of a person's joints right.  raw -> [tracks] -> features -> windows

Networks exchange left and right in some frames, above all of people who are seen from behind. From
frame to frame a joint moves little; if its sides are exchanged, it jumps by the width of the body.
`put_sides_right` chooses for each frame of a track whether it is exchanged: the sequence of least
cost (Viterbi 1967), for all limbs together, then for arms, legs and face by themselves. The cost of
a frame is the sum of Huber's loss of

    min(d / (NOISE sqrt(n)), FARTHEST)

over joints, + EXCHANGED if it is exchanged. d (box diagonals) is the way of a joint from the frame
before, relative to the camera's motion, and n the number of frames between. EXCHANGED keeps the
detected sides where ways decide nothing: of people who are seen from the side, of limbs that cross,
and of a track as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import numpy as np

from pipeline.boxes import extents
from pipeline.homography import transfer
from pipeline.skeletons import Bools, Doubles, Ints, Skeleton, joint_names, opposite_joints

NOISE: Final = 0.03  # diagonals: usual way of a joint from frame to frame
FARTHEST: Final = 16.0  # of such ways: a longer one tells nothing more
EXCHANGED: Final = 1.5
LONGEST_GAP: Final = 25  # frames without the person: after more of them, ways tell nothing
LIMBS: Final = (  # patterns of joints' names
    "shoulder|elbow|wrist|hip|knee|ankle|heel|toe",
    "elbow|wrist",
    "knee|ankle|heel|toe",
    "eye|ear",
)


def put_sides_right(
    keypoints: Doubles,
    frame_index: Ints,
    skeleton: Skeleton,
    camera: Mapping[int, Doubles],
) -> tuple[Doubles, Bools]:
    """The joints of a person's T detections with their sides put right, and (T,) whether any joint
    of a detection was exchanged.

    Args:
        keypoints: (T, J, 3) px px confidence; 0 for unseen joints.
        frame_index: (T,) frame numbers, ascending.
        skeleton: The order of the J joints.
        camera: Frame -> homography (3, 3) px from the frame before; without one, it is still.
    """
    keypoints = keypoints.copy()
    names = [name.lower() for name in joint_names(skeleton)]
    opposite = np.array(opposite_joints(skeleton))
    has_other = opposite != np.arange(len(opposite))
    any_exchanged = np.zeros(len(keypoints), bool)
    for limb in LIMBS:
        is_limb = np.array([bool(re.search(limb, name)) for name in names])
        joints = np.flatnonzero(is_limb & has_other)
        costs = _ways(keypoints, frame_index, joints, opposite[joints], camera)
        is_exchanged = _least_cost(costs)
        rows = np.flatnonzero(is_exchanged)[:, None]
        keypoints[rows, joints] = keypoints[rows, opposite[joints]]
        any_exchanged |= is_exchanged
    return keypoints, any_exchanged


def _ways(
    keypoints: Doubles,
    frame_index: Ints,
    joints: Ints,
    others: Ints,
    camera: Mapping[int, Doubles],
) -> Doubles:
    """Costs (T - 1, 2) of the joints' ways from each detection to the next: to the same side, and
    to the other one.
    """
    before = follow(keypoints[:-1, :, :2], frame_index[:-1], frame_index[1:], camera)
    is_seen = keypoints[..., 2] > 0
    has_both = is_seen[:, joints] & is_seen[:, others]
    gap = np.diff(frame_index)[:, None]
    is_compared = has_both[:-1] & has_both[1:] & (gap <= LONGEST_GAP)
    corners, _ = extents(keypoints)
    diagonals = np.maximum(np.linalg.norm(np.diff(corners, axis=1)[:, 0], axis=-1), 1)
    unit = NOISE * np.sqrt(gap) * np.maximum(diagonals[:-1], diagonals[1:])[:, None]
    costs = []
    for sources in (joints, others):
        distance = np.linalg.norm(keypoints[1:, joints, :2] - before[:, sources], axis=-1)
        ratio = np.fmin(distance / unit, FARTHEST)  # a distance may be infinite or nan: `transfer`
        cost = np.where(ratio < 1, ratio**2 / 2, ratio - 0.5)  # Huber's loss
        costs.append((cost * is_compared).sum(axis=1))
    return np.stack(costs, axis=1)


def follow(points: Doubles, frames: Ints, later: Ints, camera: Mapping[int, Doubles]) -> Doubles:
    """Points (T, J, 2) px of `frames` (T,), as the camera's motion moves them until `later` (T,) if
    they are still. camera: as in `put_sides_right`.
    """
    moved = points.copy()
    for t, (first, last) in enumerate(zip(frames.tolist(), later.tolist(), strict=True)):
        for frame in range(first + 1, last + 1):
            homography = camera.get(frame)
            if homography is not None:
                moved[t] = transfer(homography, moved[t])
    return moved


def _least_cost(ways: Doubles) -> Bools:
    """Whether each of T detections is exchanged, in the sequence of least cost. ways: `_ways`."""
    of_frame = np.array([0.0, EXCHANGED])
    cost = (
        of_frame  # of the best sequence that ends as detected, and of the one that ends exchanged
    )
    came_from = np.zeros((len(ways), 2), np.int64)
    for t, (same, opposite) in enumerate(ways.tolist()):
        stays = cost + same
        changes = cost[::-1] + opposite
        came_from[t] = np.where(changes < stays, [1, 0], [0, 1])
        cost = np.minimum(stays, changes) + of_frame
    state = int(cost[1] < cost[0])
    states = [state]
    for t in range(len(ways) - 1, -1, -1):
        state = int(came_from[t, state])
        states.append(state)
    return np.array(states[::-1], bool)

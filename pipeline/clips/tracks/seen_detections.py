"""The detections of a clip that have a seen joint.  raw -> [tracks] -> features"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from cache.windows import spread
from pipeline.clips.labels.people_table import ByFrame, take_in_place
from pipeline.people.boxes import extents
from pipeline.people.skeletons import Doubles, Floats, Ints, zero_invalid_joints

LEAST_CONFIDENCE: Final = 0.05  # of a detection
MARGIN_PX: Final = 1.0  # gives a box around two aligned joints an area


@dataclass(frozen=True, slots=True, eq=False)
class SeenDetections:
    """All N detections with a seen joint, in the order of frames and sorted within each frame."""

    rows: Ints  # (N, 2) (t, p): position of the frame among the T, and number in the frame
    keypoints: Doubles  # (N, J, 3) px px confidence 0 to 1
    confidence: Doubles  # (N,) mean of the joints, at least LEAST_CONFIDENCE
    centre: Doubles  # (N, 2) px, of the boxes
    sides: Doubles  # (N, 2) px, of the boxes
    size: Doubles  # (N,) px: diagonals of the boxes, with MARGIN_PX
    start: Ints  # (T + 1,) index of each frame's first detection, and N

    @classmethod
    def collect(cls, keypoints: Sequence[Floats]) -> Self:
        """Those of T frames' joints (P, J, 3), sorted within a frame by box, then by all numbers.

        So the order of a frame's detections in the file does not matter.
        """
        by_frame = ByFrame.join(keypoints)
        frame, number = spread(np.diff(by_frame.start))  # number: in the frame, from 0
        exact = by_frame.rows.astype(np.float64, copy=False)
        points, _ = zero_invalid_joints(exact)
        points[..., 2] = np.minimum(points[..., 2], 1)
        corners, any_seen = extents(points)

        n = int(any_seen.sum())  # the others are sorted last
        keys = np.column_stack([~any_seen, frame, corners.reshape(-1, 4)])
        order = np.lexsort(keys.T[::-1])[:n]  # lexsort's last key counts most
        # if two boxes of a frame are equal, all numbers decide
        is_equal = keys[order[1:]] == keys[order[:-1]]
        if is_equal.all(axis=1).any():
            numbers = points.reshape(len(keys), -1)
            keys = np.column_stack([keys, numbers])
            order = np.lexsort(keys.T[::-1])[:n]

        rows = np.column_stack([frame, number])[order]
        frames = np.arange(len(keypoints) + 1)
        start = np.searchsorted(rows[:, 0], frames)
        corners = corners[order]
        sides = corners[:, 1] - corners[:, 0]
        with_margin = sides + 2 * MARGIN_PX
        size = np.linalg.norm(with_margin, axis=-1)
        centre = corners.mean(axis=1)
        mean_confidence = points[order, :, 2].mean(axis=1)
        points = take_in_place(points, order)
        confidence = np.maximum(mean_confidence, LEAST_CONFIDENCE)
        return cls(rows, points, confidence, centre, sides, size, start)

    def offsets(self, before: Ints, now: Ints, pairs: Ints) -> Doubles:
        """The mean offset (P, 2) px of the joints of pairs, weighted by the product of their
        confidences; anything if no joint is seen in both. Found by sums, so that it is rounded, in
        a tenth of the time of all joints' offsets.

        before, now: (A,), (B,) indices of detections. pairs: (P,) numbers a * B + b.
        """
        row, column = np.divmod(pairs, len(now))
        old = self._moments(before)[row]
        new = self._moments(now)[column]
        sums = np.einsum("pkj,pj->pk", new, old[:, 2])
        weight = sums[:, 2:].copy()
        weight[weight == 0] = 1
        sums -= np.einsum("pkj,pj->pk", old, new[:, 2])
        offsets: Doubles = sums / weight
        return offsets[:, :2]

    def _moments(self, detections: Ints) -> Doubles:
        """x c, y c and c of the joints of D detections, (D, 3, J)."""
        points = self.keypoints[detections].transpose(0, 2, 1).copy()
        points[:, :2] *= points[:, 2:]
        return points

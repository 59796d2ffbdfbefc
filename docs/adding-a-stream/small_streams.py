"""A stream of pairs of frames, and two of labels.  crops, labels -> [streams]"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.api import KEYPOINTS_13, Image, LabelStream, PairStream, keypoints_13


@dataclass(frozen=True, kw_only=True)
class Change(PairStream):
    """Mean change in grey levels of each of 4 x 4 parts of the crop; unknown if the crop is outside the image."""

    kind: ClassVar[str] = "change"
    dim: ClassVar[int] = 16

    def pair(self, previous: Image, current: Image) -> NDArray[np.float32] | None:
        if not current.any():
            return None
        changes = np.abs(current.astype(np.float32) - previous).mean(axis=2)
        return np.asarray(cv2.resize(changes, (4, 4), interpolation=cv2.INTER_AREA), np.float32).ravel()


@dataclass(frozen=True, kw_only=True)
class Pose2D(LabelStream):
    """x and y of 13 keypoints relative to the middle of the hips; the torso has size 0.5. 0 if missing."""

    kind: ClassVar[str] = "pose_2d"
    dim: ClassVar[int] = 26
    columns: ClassVar[tuple[str, ...]] = ("kp_2d",)

    def __call__(self, labels: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(n, 49, 3) px -> (n, 26), (n,): (x - centre) / size / 2, size: the largest distance in the torso."""
        points = keypoints_13(labels["kp_2d"].astype(np.float64))  # (n, 13, 3)
        xy, visible = points[..., :2], points[..., 2] > 0
        torso = [KEYPOINTS_13.index(name) for name in ("lshoulder", "rshoulder", "lhip", "rhip")]
        centre = xy[:, torso[2:]].mean(axis=1, keepdims=True)
        size = np.max([np.linalg.norm(xy[:, a] - xy[:, b], axis=1) for a in torso for b in torso], axis=0)
        known = visible[:, torso].all(axis=1) & (size > 0)
        scaled = (xy - centre) / np.where(known, 2 * size, 1)[:, None, None]
        shown = np.where((known[:, None] & visible)[..., None], scaled, 0)
        return shown.reshape(len(xy), -1).astype(np.float32), np.asarray(known)


@dataclass(frozen=True, kw_only=True)
class BoxSpeed(LabelStream):
    """Motion of the box's centre since the previous row, right and down, in box heights."""

    kind: ClassVar[str] = "box_speed"
    dim: ClassVar[int] = 2
    columns: ClassVar[tuple[str, ...]] = ("bbox",)
    history: ClassVar[int] = 1

    def __call__(self, labels: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """bbox (n, 2, 4) cxcywh px, previous row first; in_run (n, 2) -> (n, 2), (n,) whether it is known."""
        before, box = labels["bbox"][:, 0], labels["bbox"][:, 1]
        known: NDArray[np.bool_] = np.all(labels["in_run"], axis=1)
        moved = (box[:, :2] - before[:, :2]) / box[:, 3:]
        return np.where(known[:, None], moved, 0).astype(np.float32), known

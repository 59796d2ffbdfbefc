"""The 2D pose without place and size: a stream of labels that needs no weights.  labels -> [pose_2d] -> features

Normalised as the input of Pr-VIPE (Sun et al., ECCV 2020): the box plays no part in it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from pipeline import skeletons
from pipeline.features.streams.base import LabelStream, Machine

KEYPOINTS: Final = skeletons.KEYPOINTS_13
SHOULDERS, HIPS = ([KEYPOINTS.index(side + joint) for side in "lr"] for joint in ("shoulder", "hip"))


@dataclass(frozen=True, kw_only=True)
class Pose2D(LabelStream):
    """x and y of 13 keypoints in turn, from the middle of the hips; the torso's size is 0.5. 0 where missing."""

    kind: ClassVar[str] = "pose_2d"
    version: ClassVar[int] = 1
    dim: ClassVar[int] = 2 * len(KEYPOINTS)
    columns: ClassVar[tuple[str, ...]] = ("kp_2d",)

    def __str__(self) -> str:
        return f"{len(KEYPOINTS)} keypoints, normalised"

    def load(self, machine: Machine, recorded: Mapping[str, Any] | None) -> Normalisation:  # noqa: ARG002 - no weights
        return Normalisation()


class Normalisation:
    """It needs no device."""

    provenance: ClassVar[Mapping[str, Any]] = {"stand_in": False}

    def __call__(self, labels: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        return normalised(labels["kp_2d"])


def normalised(kp_2d: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """(N, 49, 3) x, y of any unit, confidence -> (N, 26), and (N,) whether it is defined.

    (x - centre) / size / 2: the centre is that of the hips, the size the largest of the six distances among shoulders
    and hips. All 0, and not defined, without one of these four, and where they are one point.
    """
    points = skeletons.keypoints_13(np.asarray(kp_2d, np.float64))  # (N, 13, 3)
    xy, visible = points[..., :2], points[..., 2] > 0
    torso = SHOULDERS + HIPS
    sides = [np.linalg.norm(xy[:, a] - xy[:, b], axis=1) for a, b in itertools.combinations(torso, 2)]
    size, centre = np.max(sides, axis=0), xy[:, HIPS].mean(axis=1)
    defined = visible[:, torso].all(axis=1) & (size > 0)
    scaled = (xy - centre[:, None]) / np.where(defined, 2 * size, 1)[:, None, None]
    shown = np.where(defined[:, None, None] & visible[..., None], scaled, 0)
    return shown.reshape(len(xy), -1).astype(np.float32), defined

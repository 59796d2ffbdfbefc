"""Human3.6M's pose files.  [raw] -> tracks -> features -> windows"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from pipeline.accounting import VideoAccount
from pipeline.datasets.base import RawVideo
from pipeline.errors import RawDataError
from pipeline.formats.arrays import numbers
from pipeline.formats.cdf import load_cdf
from pipeline.skeletons import JOINTS, LARGEST, convert, without_non_finite

Doubles = NDArray[np.float64]

METRES: Final = 1e-3  # in a millimetre
# Of the labelled frames so many must be in the other files too. Official videos lack a few frames at most, though poses
# may end long before the video does; what was extracted or encoded at 25 fps has half.
LEAST_SHARE: Final = 0.9
UNPACK: Final = "Unpack the subject's Poses_D2_Positions, Poses_D3_Positions_mono and Videos archives again."

# The 32 joints as they are stored: by the names of JOINTS["h36m"], those that are not in it by the motion capture's.
STORED: Final = (
    "Hips", "rhip", "rknee", "rankle", "RightToeBase", "right toe's end",
    "lhip", "lknee", "lankle", "LeftToeBase", "left toe's end",
    "hip", "Spine (H36M)", "Neck", "Head (H36M)", "headtop",
    "LeftShoulder", "lshoulder", "lelbow", "lwrist", "LeftHandThumb", "left thumb's end", "L_Wrist_End", "left hand's",
    "neck", "rshoulder", "relbow", "rwrist", "RightHandThumb", "right thumb's end", "R_Wrist_End", "right hand's",
)  # fmt: skip
PELVIS: Final = JOINTS["h36m"].index("hip")


@dataclass(frozen=True, slots=True, eq=False)
class Poses:
    """The labels of a sequence, F frames at 50 fps, joints in the order of JOINTS["h36m"]."""

    kp_2d: Doubles  # (F, 17, 3) px px, 1; 0 0 0 where it is not finite
    joints: Doubles  # (F, 17, 3) m, camera axes, the pelvis at 0; NaN in frames in which one is not finite
    n_labelled: int  # the first so many frames are in both files

    @classmethod
    def read(cls, raw: Path, video: RawVideo, account: VideoAccount) -> Self:
        """Both pose files. What is found in one of them is counted, whether the other is there or not."""
        files = [raw / file for file in video.files[:2]]
        there = [file.is_file() for file in files]
        stored = []
        for file, n in ((file, n) for file, n, has in zip(files, (2, 3), there, strict=True) if has):
            stored.append(load_poses(file, n))
            account.found = max(account.found, len(stored[-1]))
        if not all(there):
            absent, expected = files[there.index(False)], "poses in 2D and in 3D"
            found = "3D alone" if there[1] else "2D alone" if there[0] else "neither"
            raise RawDataError(absent, "file", expected=expected, found=found, do=UNPACK, reason="no_label")
        lengths = [len(pose) for pose in stored]
        if min(lengths) < LEAST_SHARE * max(lengths):
            expected, found = f"about {lengths[0]} frames, as in 2D", f"{lengths[1]}"
            raise RawDataError(
                files[1], "Pose", expected=expected, found=found, do=UNPACK, reason="frame_count_mismatch"
            )
        if lengths[0] != lengths[1]:
            account.notes.append(f"poses of {lengths[0]} frames in 2D, of {lengths[1]} in 3D")
        pixels, millimetres = (_padded(pose, account.found) for pose in stored)
        kp_2d, n_bad = without_non_finite(np.concatenate([pixels, np.ones((*pixels.shape[:2], 1))], axis=-1))
        if n_bad := n_bad - len(JOINTS["h36m"]) * (max(lengths) - lengths[0]):
            account.notes.append(f"{n_bad} joints are not finite in 2D: not used")
        known = np.all(np.abs(millimetres) < LARGEST, axis=(1, 2))  # comparisons with NaN are false
        millimetres[~known] = np.nan
        joints = (millimetres - millimetres[:, PELVIS : PELVIS + 1]) * METRES
        return cls(kp_2d, joints, min(lengths))


def load_poses(file: Path, n: int) -> Doubles:
    """(F, 17, n) of a pose file, in the order of JOINTS["h36m"]."""
    with np.errstate(invalid="ignore"):  # a NaN that signals is as good as any
        pose = numbers(file, "Pose", load_cdf(file, "Pose"), (1, None, len(STORED) * n))
    return convert(pose.reshape(-1, len(STORED), n), source=STORED, target="h36m")


def _padded(pose: Doubles, n_frames: int) -> Doubles:
    """The same with as many frames as the longer of both files has, those that it lacks unknown."""
    return np.concatenate([pose, np.full((n_frames - len(pose), *pose.shape[1:]), np.nan)])

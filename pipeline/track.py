"""The record of one person that all later steps read.  raw -> [tracks] -> features -> windows -> training"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

import cache

if TYPE_CHECKING:
    from pipeline.pixels.frames import FrameSource

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Bools = NDArray[np.bool_]

# Crop side / box side, unless a dataset has its own. Pixels and labels read it from the track.
CROP_SCALE: Final = 1.3

# The cache's columns that hold yes or no.
FLAGS: Final = tuple(name for name, spec in cache.COLUMNS.items() if spec.dtype == np.uint8)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # eq=False: == of arrays is ambiguous
class Track:
    """One person in one video: T frames. None means "not annotated", never zeros.

    Raises ValueError when arrays disagree in length, have a wrong trailing shape, or frame indices do not increase.
    """

    dataset: str  # a name in the registry, e.g. "penn_action"
    split: str
    name: str  # <video>/<person>, unique within the split
    video: str  # unique within the dataset
    fps: float  # of the video's own frames; nan where the release does not give it
    frame_index: Ints  # (T,) int64, strictly increasing, the video's own count from 0
    bbox: Floats | None = None  # (T, 4) float32 cxcywh, px of the full picture, square; None without pictures (AMASS)
    kp_2d: Floats | None = None  # (T, 49, 3) float32 x px, y px, confidence 0..1
    kp_3d: Floats | None = None  # (T, 49, 4) float32 m m m confidence, camera axes, pelvis (joint 39) at 0
    kp_3d_eval: Floats | None = None  # (T, 14, 3) float32 m, camera axes, in common14 order
    pose: Floats | None = None  # (T, 72) float32 SMPL axis-angle, rad, global orientation in the camera
    betas: Floats | None = None  # (T, 10) float32 SMPL shape
    trans: Floats | None = None  # (T, 3) float32 m
    has_3d: Bools | None = None  # (T,) kp_3d is known in this frame
    has_smpl: Bools | None = None  # (T,) pose and betas are known in this frame
    valid: Bools | None = None  # (T,) evaluation may use this frame; None: all
    gender: str = "neutral"  # of the annotated body: neutral, male or female
    crop_scale: float = CROP_SCALE
    intrinsics: Floats | None = None  # (3, 3) px, where known
    frames: FrameSource | None = None  # where the pixels are; None without pictures

    def __post_init__(self) -> None:
        n_frames = len(self.frame_index)
        for name, array in self.columns().items():
            expected = (n_frames, *cache.COLUMNS[name].trailing)
            if array.shape != expected:
                raise ValueError(f"{self.name}: {name} is {array.shape}, expected {expected}")
        if n_frames == 0 or (np.diff(self.frame_index) <= 0).any() or self.frame_index[0] < 0:
            raise ValueError(f"{self.name}: frame_index must be non-empty, from 0 on, and strictly increasing")

    def columns(self) -> dict[str, NDArray[Any]]:
        """The per-frame arrays that the track has, (T, ...), by the names of the cache's columns (`cache.COLUMNS`)."""
        return {name: array for name in cache.COLUMNS if (array := getattr(self, name)) is not None}

    @property
    def step(self) -> int:
        """The most common difference of frame indices, the smaller of two equally common; 1 for a single frame."""
        if len(self.frame_index) < 2:
            return 1
        steps, counts = np.unique(np.diff(self.frame_index), return_counts=True)
        return int(steps[counts.argmax()])  # np.unique sorts, argmax takes the first: ties go to the smaller

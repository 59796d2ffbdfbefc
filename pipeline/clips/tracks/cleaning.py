"""Select a person's frames that are fit for training.  raw -> [tracks] -> features -> windows

Frames are selected as HMMR's authors did for InstaVariety (Kanazawa et al. 2019, their
TFRecord converter): a sequence begins where enough joints are visible and ends where too few are,
after a median filter; short sequences, and those that mostly show a face, are dropped. Their
converter keeps the first sequence of a clip and its first 500 frames; here every sequence counts,
and a longer one is split.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from pipeline.clips.tracks.linking import split_at_gaps
from pipeline.errors import ConfigError
from pipeline.people.skeletons import Bools, Ints

START_ABOVE: Final = 6  # a sequence starts where more joints than this are visible
END_AT: Final = 4  # a sequence ends where this many joints or fewer are visible
MEDIAN: Final = 5  # width of the median filter over the number of joints
# Joints of face and shoulders in all joint orders; all other joints belong to the body.
ABOVE: Final = frozenset((
    "nose", "leye", "reye", "lear", "rear", "neck", "headtop", "thorax", "lshoulder", "rshoulder",
    "OP Nose", "OP LEye", "OP REye", "OP LEar", "OP REar", "OP Neck", "OP LShoulder",
    "OP RShoulder", "Head (H36M)", "Jaw (H36M)",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cleaning:
    """Options of `clean`. The caller decides which joints are visible.

    Raises ConfigError for invalid values.
    """

    min_frames: int = 40  # shorter sequences are dropped
    # share of frames with only face and shoulders from which a part is dropped
    face_only: float = 0.4
    max_frames: int = 500  # a longer sequence is split into equal parts

    def __post_init__(self) -> None:
        if not 1 <= self.min_frames <= self.max_frames / 2:
            values = f"min_frames {self.min_frames}, max_frames {self.max_frames}"
            raise ConfigError(
                f"{values}: expected min_frames from 1 to half of max_frames",
                "min_frames",
                "max_frames",
            )
        if not 0 < self.face_only <= 1:
            raise ConfigError(
                f"face_only {self.face_only}: expected more than 0, at most 1", "face_only"
            )


def clean(
    visible: Bools, joints: Sequence[str], rules: Cleaning
) -> tuple[list[Ints], dict[str, Ints]]:
    """Select the parts of one person's T detections that are fit for training.

    Args:
        visible: (T, J) whether each joint of each detection is visible, in time order. Missing
            frames have no row, so they do not end a part.
        joints: The J joints' names, as in `skeletons.JOINTS`.

    Returns:
        The parts, and reason -> dropped detections, all as positions 0..T-1. Each position is in
        exactly one of them.
    """
    from scipy.ndimage import median_filter  # 0.1 s, and most datasets are not cleaned

    count = median_filter(visible.sum(axis=1), size=MEDIAN, mode="nearest")
    inside = _find_inside(count)
    # reason -> positions, in one array for each part
    dropped = {"too_few_visible_joints": [np.flatnonzero(~inside)]}
    is_body = [name not in ABOVE for name in joints]
    has_body: Bools = np.any(visible[:, is_body], axis=1)

    parts = []
    within = np.flatnonzero(inside)
    for part in split_at_gaps(within, 0):
        rows = within[part]
        if len(rows) < rules.min_frames:
            dropped.setdefault("track_too_short", []).append(rows)
        elif (~has_body[rows]).mean() >= rules.face_only:
            dropped.setdefault("face_only", []).append(rows)
        else:
            # at least half of max_frames each
            n_parts = math.ceil(len(rows) / rules.max_frames)
            parts += np.array_split(rows, n_parts)
    merged = {reason: np.concatenate(rows) for reason, rows in dropped.items()}
    return parts, {reason: rows for reason, rows in merged.items() if len(rows)}


def _find_inside(count: Ints) -> Bools:
    """(T,) visible joints -> (T,) whether a frame is in a sequence, which begins at the first
    count above START_ABOVE and ends at the first of END_AT or fewer.
    """
    inside = np.zeros(len(count), np.bool_)
    limit = START_ABOVE  # a frame with more joints is inside
    for t, n in enumerate(count.tolist()):
        inside[t] = n > limit
        limit = END_AT if inside[t] else START_ABOVE
    return inside

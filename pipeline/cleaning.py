"""Which frames of a detected person are fit for training.  raw -> [tracks] -> features -> windows

The filter that HMMR's authors used on InstaVariety (Kanazawa et al. 2019; the rules are in their TFRecord converter):
a person's sequence begins where enough joints are visible and ends where too few are, both after a median filter; short
sequences, and those that mostly show a face, are left out. Theirs keeps the first sequence of a clip and its first 500
frames; here every sequence counts, and a longer one is split.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import ConfigError

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

# What a face and shoulders consist of, in the names of all joint orders; whatever else is seen is a body.
_ABOVE: Final = ("nose", "leye", "reye", "lear", "rear", "neck", "headtop", "thorax", "lshoulder", "rshoulder")
_OPENPOSE: Final = ("OP Nose", "OP LEye", "OP REye", "OP LEar", "OP REar", "OP Neck", "OP LShoulder", "OP RShoulder")
ABOVE: Final = frozenset((*_ABOVE, *_OPENPOSE, "Head (H36M)", "Jaw (H36M)"))


@dataclass(frozen=True, slots=True)
class Cleaning:
    """The filter's constants. Which joints are visible is up to the caller. Raises ConfigError for senseless values."""

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
    """Every detection is in one part, or has one reason."""

    parts: list[Ints]  # positions 0..T-1, ascending
    dropped: dict[str, Ints]  # reason -> positions


def clean(visible: Bools, joints: Sequence[str], rules: Cleaning | None = None) -> Cleaned:
    """The parts of one person's T detections that are fit for training.

    Args:
        visible: (T, J) which joints are seen in each detection, in time order. Frames without a detection are no row:
            a gap that was bridged ends nothing.
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

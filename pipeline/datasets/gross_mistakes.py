"""What no person looks like: joints and boxes that only a reader's mistake explains.  [raw -> tracks] -> features

Joints in another unit or order of coordinates, a box's corner taken for its centre, absent joints taken for seen ones:
of these, most frames of a split look impossible. Single frames do so in every release, and count for nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.boxes import MIN_SIDE_PX, extents
from pipeline.errors import RawDataError
from pipeline.track import Track

Array = NDArray[Any]

MOST: Final = 0.5  # of the frames, or of a frame's joints
FEW: Final = 0.01  # of the frames: labels that were cut off at the picture's edges may put a joint at (0, 0) by chance
NEARLY_ALL: Final = 0.9  # of a frame's joints: a box from elsewhere may cut off a hand
ENOUGH: Final = 6  # joints of spin49, which has most joints of a release twice: three lie on one side by chance
ROUNDING_PX: Final = 1.0  # tight boxes end at a joint, and releases round

ONE_PLACE: Final = "all visible joints lie within a pixel of each other"
OUTSIDE_PICTURE: Final = "most visible joints lie outside the picture"
OUTSIDE_BOX: Final = "most visible joints lie outside the box"
ONE_QUARTER: Final = "the visible joints lie in one direction from the box's centre, as if that were a corner"
ORIGIN: Final = "a joint at exactly (0, 0) is visible; one that is absent has confidence 0"


@dataclass(slots=True)
class GrossMistakes:
    """Counts the frames of a split that look impossible, track by track."""

    wrong: Counter[str] = field(default_factory=Counter)
    judged: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def add(self, track: Track) -> None:
        """Look at all frames of a track with 2D joints."""
        if track.kp_2d is None:
            return
        for what, (wrong, judged) in impossible(track.kp_2d, track.bbox, _size(track)).items():
            self.wrong[what] += int((wrong & judged).sum())
            self.judged[what] += int(judged.sum())
            if (wrong & judged).any():
                frame = int(track.frame_index[(wrong & judged).argmax()])
                self.first.setdefault(what, f"frame {frame} of {track.name}")

    def frame_problems(self) -> Iterator[str]:
        """What holds for more frames than chance explains, each in a sentence."""
        for what, wrong in self.wrong.items():
            if wrong > self.judged[what] * (FEW if what == ORIGIN else MOST):
                yield f"{what}: in {wrong:,} of {self.judged[what]:,} frames, the first is {self.first[what]}"


def impossible(kp_2d: Array, bbox: Array | None, size: tuple[int, int] | None) -> dict[str, tuple[Array, Array]]:
    """kp_2d (T, 49, 3), bbox (T, 4), size (width, height), all px -> by mistake (T,) whether it shows, (T,) or could.

    Joints that are not finite count as unseen.
    """
    points = kp_2d[..., :2].astype(np.float64)
    corners, any_seen = extents(kp_2d)
    seen = (kp_2d[..., 2] > 0) & np.isfinite(points).all(axis=-1)
    points[~seen] = 0
    n_seen = seen.sum(axis=1)
    enough = n_seen >= ENOUGH
    one_place = (corners[:, 1] - corners[:, 0]).max(axis=1) < MIN_SIDE_PX
    found = {
        ONE_PLACE: (one_place, enough),
        ORIGIN: ((seen & (points == 0).all(axis=-1)).any(axis=1), any_seen),
    }
    if size is not None:
        outside = seen & ((points < -0.5) | (points > np.array(size) - 0.5)).any(axis=-1)
        found[OUTSIDE_PICTURE] = (outside.sum(axis=1) > MOST * n_seen, any_seen)
    if bbox is not None and np.isfinite(bbox).all():
        from_centre = points - bbox[:, None, :2]
        outside = seen & (np.abs(from_centre) > bbox[:, None, 2:] / 2 + ROUNDING_PX).any(axis=-1)
        found[OUTSIDE_BOX] = (outside.sum(axis=1) > MOST * n_seen, any_seen)
        beside = [sides.sum(axis=1) for sides in _quarters(from_centre, seen)]
        found[ONE_QUARTER] = (np.max(beside, axis=0) >= NEARLY_ALL * n_seen, enough & ~one_place)
    return found


def _quarters(from_centre: Array, seen: Array) -> Iterator[Array]:
    """(T, 49) which visible joints lie in each quarter around the box's centre."""
    for x in (-1, 1):
        for y in (-1, 1):
            yield seen & (from_centre * (x, y) >= 0).all(axis=-1)


def _size(track: Track) -> tuple[int, int] | None:
    """Of the track's pictures; None where none can be read."""
    try:
        return None if track.frames is None else track.frames.size()
    except RawDataError:
        return None

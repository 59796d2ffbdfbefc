"""Check that people's joints lie in their own boxes, in files that have both.  [raw] -> tracks"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.errors import RawDataError, refuse
from pipeline.files.formats.people.found import FoundPerson, label_error
from pipeline.skeletons import Bools, Doubles

AROUND: Final = 0.1  # joints outside a box by this share of its size count as inside
MIN_JOINTS: Final = 4  # people who show fewer are not compared
LEAST_INSIDE: Final = 0.5  # of a person's joints
MOST_OUTSIDE: Final = 0.1  # share of the people of a file whose joints may lie elsewhere
MIN_OUTSIDE: Final = 5  # people; fewer prove nothing


def compare_joints_with_boxes(place: Path, people: Sequence[FoundPerson]) -> list[str]:
    """Compare the joints of all people with their boxes. Returns a note if some lie outside.

    Raises RawDataError if more than MOST_OUTSIDE of the people do.
    """
    compared = [person for person in people if person.box is not None]
    if not compared:
        return []
    points = np.stack([person.points for person in compared])
    boxes = np.stack([person.box for person in compared if person.box is not None])
    is_finite = np.isfinite(points).all(axis=-1)
    is_shown = is_finite & (points[..., 2] > 0)
    has_area = (boxes[:, 1] > boxes[:, 0]).all(axis=1)
    is_compared = has_area & (is_shown.sum(axis=1) >= MIN_JOINTS)
    is_outside = is_compared & ~_are_inside(points[..., :2], is_shown, boxes)
    n_compared = int(is_compared.sum())
    n_outside = int(is_outside.sum())
    if n_outside > max(MOST_OUTSIDE * n_compared, MIN_OUTSIDE - 1):
        refuse(_joints_elsewhere(place, n_outside, n_compared))
    if not n_outside:
        return []
    return [f"most joints of {n_outside} of {n_compared} people lie outside their boxes"]


def _are_inside(points: Doubles, is_shown: Bools, boxes: Doubles) -> Bools:
    """Whether people's shown joints (N, J, 2) lie in boxes (N, 2, 2), (N,)."""
    low = boxes[:, :1]
    high = boxes[:, 1:]
    margin = AROUND * (high - low)
    is_inside = ((points >= low - margin) & (points <= high + margin)).all(axis=-1)
    n_inside = (is_inside & is_shown).sum(axis=1)
    return np.asarray(n_inside >= LEAST_INSIDE * is_shown.sum(axis=1))


def _joints_elsewhere(place: Path, n_outside: int, n_compared: int) -> RawDataError:
    """The error for joints that do not lie in the people's boxes."""
    return label_error(
        place,
        "keypoints",
        "joints in their people's boxes",
        f"{n_outside} of {n_compared} people whose joints lie elsewhere",
        "Write joints and boxes in pixels of the clip, x before y, or leave the boxes out.",
    )

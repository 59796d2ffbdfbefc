"""The joints of hands, in files of people and in tracks.  [raw -> tracks]

A hand has 21 joints: the wrist, then each finger from base to tip. OpenPose, COCO-WholeBody and
Halpe-136 have this order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from pipeline.people.joint_spellings import compact
from pipeline.people.joint_values import zero_invalid_joints
from pipeline.people.skeletons import Doubles, Ints

# number of joints of Halpe-136 and COCO-WholeBody -> how many come before face and hands
BODY_JOINTS: Final = {136: 26, 133: 23}
FINGERS: Final = ("thumb", "forefinger", "middle_finger", "ring_finger", "pinky_finger")
ROOT: Final = "hand_root"
HAND: Final = (ROOT, *(f"{finger}{number}" for finger in FINGERS for number in range(1, 5)))
# COCO-WholeBody's names of the joints of both hands
HANDS: Final = tuple(f"{side}_{joint}" for side in ("left", "right") for joint in HAND)

NO_HANDS: Final = np.zeros((0, 0, 3))
_COMPACT: Final = tuple(map(compact, HANDS))


def is_of_hand(name: str) -> bool:
    """Whether a joint's name in a file is that of a joint of a hand."""
    return compact(name) in _COMPACT


def hands_of(points: Doubles, names: Sequence[str] | None, others: Doubles) -> Doubles:
    """The joints of hands (N, 42, 3) among people's joints (N, K, 3); without any, `others`.

    names: of the K joints; None: the file has none, and hands are the last joints. Joints that are
    not named are 0. A hand without a root begins at the arm's wrist.
    """
    if names is None:
        return points[:, -len(HANDS) :] if points.shape[1] in BODY_JOINTS else others
    if not len(points) or not any(map(is_of_hand, names)):
        return others
    column_of = {compact(name): column for column, name in enumerate(names)}
    hands = np.zeros((len(points), len(HANDS), 3))
    for joint, name in enumerate(_COMPACT):
        wrist = column_of.get(name.replace(compact(ROOT), "wrist"))
        column = column_of.get(name, wrist)
        if column is not None:
            hands[:, joint] = points[:, column]
    return hands


def confident_hands(hands: Doubles) -> Doubles:
    """A copy of joints of hands (N, 42, 3) whose confidence is the score, within 0 to 1; 1 in a
    hand whose scores are all 0. Unknown joints are 0: those at (0, 0), and those without confidence
    or finite numbers. Of (N, 0, 3), all are.
    """
    if not hands.size:
        return np.zeros((len(hands), len(HANDS), 3))
    known, _ = zero_invalid_joints(hands)
    each = known.reshape(-1, len(HAND), 3)
    scores = each[..., 2]
    scores[~scores.any(axis=1)] = 1
    is_known = each[..., :2].any(axis=2) & (scores > 0)
    np.minimum(scores, 1, out=scores)
    each[~is_known] = 0
    return known


def exchange_hands(hands: Doubles, rows: Ints) -> None:
    """Exchange left and right of these rows (n,) of joints of hands (N, 42, 3), in place."""
    hands[rows] = np.roll(hands[rows], len(HAND), axis=1)


def hand_bones() -> list[tuple[int, int]]:
    """Pairs of joints of HANDS between which to draw a line."""
    n = len(HAND)
    of_hand = [(0 if joint % 4 == 1 else joint - 1, joint) for joint in range(1, n)]
    return [(first + a, first + b) for first in (0, n) for a, b in of_hand]

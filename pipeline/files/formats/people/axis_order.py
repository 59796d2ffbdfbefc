"""Find files of keypoints that have y before x, by the people's boxes.  [raw] -> tracks"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np

from pipeline.files.formats.people.found import label_error
from pipeline.skeletons import Doubles

AROUND: Final = 0.1  # joints outside a box by this share of its size count as inside


class AxisOrder:
    """Counts how many joints of a file lie in their person's box, as written and with x and y
    exchanged. Call `compare` for each person, then `require_x_first`.
    """

    def __init__(self) -> None:
        self._n = 0
        self._inside = 0
        self._inside_swapped = 0

    def compare(self, points: Doubles, box: object) -> None:
        """Count a person's joints (J, 3): x, y in px, score. `box`: a list x, y, width, height; the
        person is skipped if it is anything else.
        """
        if not isinstance(box, list) or len(box) != 4:
            return
        if not all(isinstance(value, int | float) for value in box):
            return
        corner, size = np.array(box, np.float64).reshape(2, 2)
        low = corner - AROUND * size
        high = corner + (1 + AROUND) * size

        def count_inside(points: Doubles) -> int:
            is_inside = (points >= low) & (points <= high)
            return int(is_inside.all(axis=1).sum())

        shown = points[points[:, 2] > 0, :2]
        self._n += len(shown)
        self._inside += count_inside(shown)
        self._inside_swapped += count_inside(shown[:, ::-1])

    def require_x_first(self, file: Path) -> None:
        """Raise RawDataError if most joints are outside their boxes as written, but inside if x and
        y are exchanged.
        """
        are_outside = self._inside < self._n / 2
        if are_outside and self._inside_swapped > 0.9 * self._n:
            share = self._inside_swapped / self._n
            found = (
                f"y before x: {share:.0%} of the joints lie in their boxes only if x and y "
                "are exchanged"
            )
            do = "Write x, y and score of each joint, in this order."
            raise label_error(file, "keypoints", "x before y", found, do)

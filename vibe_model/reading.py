"""How a model reads an extra feature stream, beside its main one."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.people.skeletons import Array


class Reading(NamedTuple):
    """An extra feature stream that a model reads, beside its main one.

    For each frame, the model gets the stream's row of this frame after the rows of the `history`
    frames before it, oldest first: (history + 1) * size numbers. Where the segment in which a
    window begins has no earlier rows, they are 0.
    """

    stream: str  # its name in the cache
    size: int  # numbers per row
    history: int = 0  # number of rows before the frame's own
    # whether it is computed from the 2D keypoints, which may be projections of the ground truth
    of_keypoints: bool = False

    def stack(self, rows: Array) -> Array:
        """Join each frame's row with the `history` rows before it, oldest first.

        rows: (B, history + T, size). Returns (B, T, (history + 1) * size).

        >>> Reading("r", size=1, history=1).stack(np.array([[[1], [2], [3]]])).tolist()
        [[[1, 2], [2, 3]]]
        """
        # (B, T, size, history + 1)
        views = np.lib.stride_tricks.sliding_window_view(rows, self.history + 1, axis=1)
        n_windows, n_frames, size, _ = views.shape
        return np.array(np.moveaxis(views, -1, 2)).reshape(
            n_windows, n_frames, (self.history + 1) * size
        )

"""Which splits, tracks, windows and extra feature streams a model reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pipeline.errors import ConfigError

if TYPE_CHECKING:
    from pipeline.people.skeletons import Array

# An entry of `validation`, `evaluation` or `leave_out` names a split, or some of its tracks by a
# pattern: "h36m/train" or "h36m/train:S5*". `select_tracks` describes patterns.


def split_of(entry: str) -> str:
    """The split of such an entry: h36m/train."""
    return entry.partition(":")[0]


def pattern_of(entry: str) -> str:
    """The pattern of tracks in such an entry: S5*; "" without one."""
    return entry.partition(":")[2]


def check_window_length(seqlen: int, seconds: float | None, rate: float | None) -> None:
    """Raise ConfigError unless both or neither of `seconds` and `rate` are set, and fit seqlen."""
    if (seconds, rate) != (None, None) and round((seconds or 0) * (rate or 0)) != seqlen:
        raise ConfigError(
            "seconds, rate: expected both, and seconds x rate = seqlen; found "
            f"seconds = {seconds}, rate = {rate}, seqlen = {seqlen}",
            "seconds",
            "rate",
            "seqlen",
        )


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

        >>> import numpy as np
        >>> Reading("r", size=1, history=1).stack(np.array([[[1], [2], [3]]])).tolist()
        [[[1, 2], [2, 3]]]
        """
        import numpy as np  # here: the names of models are listed without it

        # (B, T, size, history + 1)
        views = np.lib.stride_tricks.sliding_window_view(rows, self.history + 1, axis=1)
        n_windows, n_frames, size, _ = views.shape
        return np.array(np.moveaxis(views, -1, 2)).reshape(
            n_windows, n_frames, (self.history + 1) * size
        )

"""Find scene cuts in a video.  [pixels] -> tracks -> features

The difference of two neighbouring frames is the share of pixels that change their bin in a colour
histogram (hue, saturation, value). A cut is a large difference that stands out from the differences
around it: a fast pan gives many large ones in a row. It is compared with the second largest
difference around it, not the largest, so that two close cuts are both found. The constants were
chosen on joined and uncut pieces of real videos. `detect` stores cuts, not differences: see
docs/architecture.md before you change the constants.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from pipeline.files.numbers import Float32s, Floats
from pipeline.files.pixels.frames import FrameSource, Image
from pipeline.processes import show_done

BINS: Final = (12, 4, 4)  # number of bins of hue, saturation and value
SIZE: Final = (160, 90)  # px to which images are reduced, to average out noise and compression
LEAST: Final = 0.15  # least difference at a cut
STANDS_OUT: Final = 3.0  # a cut is at least so many times the second largest difference around it
AROUND: Final = 12  # number of frames before and after that count as around

Histogram = Float32s  # (192,), sums to 1


def histogram(image: Image) -> Histogram:
    """The share of an image's pixels in each colour bin. `image`: (H, W, 3) RGB."""
    import cv2

    small = cv2.resize(image, SIZE, interpolation=cv2.INTER_AREA)
    hsv = cv2.cvtColor(small, cv2.COLOR_RGB2HSV)
    counts = cv2.calcHist([hsv], [0, 1, 2], None, list(BINS), [0, 180, 0, 256, 0, 256])
    return np.asarray(counts.ravel() / counts.sum(), np.float32)


def difference(before: Histogram, after: Histogram) -> float:
    """The difference of two frames: 0 for the same colours, 1 for no colour in common."""
    return float(np.abs(before - after).sum() / 2)


def cuts(differences: Sequence[float] | Floats) -> list[int]:
    """The first frames of new scenes, ascending. `differences[t]` is the difference between frames
    t - 1 and t; the first entry is ignored.

    >>> cuts([0, 0.02, 0.01, 0.8, 0.02, 0.01])
    [3]
    """
    values = np.array(differences, np.float64)
    if not len(values):
        return []
    values[0] = 0
    # (T, 25): each difference in the middle of those around it
    around = np.lib.stride_tricks.sliding_window_view(np.pad(values, AROUND), 2 * AROUND + 1)
    neighbours = np.delete(around, AROUND, axis=1)
    second_largest = np.partition(neighbours, -2)[:, -2]
    is_large = values >= LEAST
    stands_out = values >= STANDS_OUT * second_largest
    return np.flatnonzero(is_large & stands_out).tolist()


def cuts_of(source: FrameSource, n_frames: int) -> list[int]:
    """Decode a video's first `n_frames` frames, and return the first frames of new scenes. Damaged
    frames are skipped.
    """
    differences = np.zeros(n_frames)
    previous = None
    for frame in source.read(range(n_frames)):
        if frame.image is None:
            continue
        show_done(frame.index, n_frames, "frames decoded")
        current = histogram(frame.image)
        if previous is not None:
            differences[frame.index] = difference(previous, current)
        previous = current
    return cuts(differences)

"""Calls of functions and bytes that work costs, and a crowd to work on."""

import math
import sys
import tracemalloc

import numpy as np

from tests.pipeline.clips.labels.made_detections import body

MOST = 1.15  # exponent
FRAMES = 6
RNG = np.random.default_rng(0)


def cost(work):
    """Calls of functions of Python and of C, and the largest number of bytes at once."""
    n_calls = 0

    def count(_frame, event, _argument):
        nonlocal n_calls
        n_calls += event in ("call", "c_call")

    work()  # imports
    tracemalloc.start()
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return n_calls, peak


def require_linear(small, large, factor):
    """Large work costs at most `factor` ** MOST times as much as small work."""
    for name, before, after in zip(("calls", "bytes"), cost(small), cost(large), strict=True):
        assert math.log(after / before, factor) <= MOST, (name, before, after)


def crowd(n, missed=0.05):
    """Frames of people who stand 300 px apart, of whom some are missed: joints, and who it is."""
    places = 300.0 * np.stack(divmod(np.arange(n), 20), axis=1)
    frames = []
    for _ in range(FRAMES):
        who = np.flatnonzero(RNG.random(n) >= missed)
        joints = np.stack([body(0)] * len(who))
        joints[..., 2] = 1
        joints[..., :2] += places[who, None] + RNG.normal(0, 0.5, (len(who), 17, 2))
        frames.append((joints, who))
    return frames

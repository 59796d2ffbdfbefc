"""What a training reads of a split, to compare states of a cache; and days of its life."""

import numpy as np
from numpy.testing import assert_array_equal

from tests.cache import toy

SPLIT = "toy/train"
STREAM = "resnet50"


def content(split):
    """The split's windows, all that they hold, and the names of its tracks."""
    windows = split.windows(4, 4, STREAM)
    return {**split.read(windows), "windows": windows, "names": np.array(split.tracks.names)}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert_array_equal(found[name], values)


def write_day(root, day):
    """On each day after the first, a video is changed and one added; on some, others are removed,
    and on day 2 a shard without rows of tracks.
    """
    videos = [toy.video("b", 20 + day, seed=day), toy.video(f"new{day}", 9)]
    drop = ["b", *{2: ["a", "c"], 4: ["new1"]}.get(day, [])]
    if day == 0:
        videos = [toy.video("a", 40), toy.video("b", 20), toy.video("c", 8)]
        drop = []
    toy.write(root, videos, drop=drop, invalidate=[1] if day == 2 else [])
    toy.write_stream(root)

"""What a training reads of a split, to compare states of a cache."""

import numpy as np

SPLIT = "toy/train"
STREAM = "resnet50"


def content(split):
    """The split's windows, all that they hold, and the names of its tracks."""
    windows = split.windows(4, 4, STREAM)
    return {**split.read(windows), "windows": windows, "names": np.array(split.tracks.names)}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)

"""Splits on disk to take batches from, and whether two batches are the same."""

import numpy as np

from tests.vibe_model.builders import write_split


def write(root, name, lengths, seed=0, dtype="float16"):
    write_split(root, name, lengths, seed=seed, stream="resnet50", dtype=dtype, rows_per_shard=16, rows_per_chunk=8)


def assert_same(ours, theirs):
    assert ours.labels.keys() == theirs.labels.keys()
    for name, value in theirs.labels.items():
        assert np.asarray(ours.labels[name]).dtype == np.asarray(value).dtype
        np.testing.assert_array_equal(np.asarray(ours.labels[name]), np.asarray(value))
    np.testing.assert_array_equal(np.asarray(ours.real_theta), np.asarray(theirs.real_theta))

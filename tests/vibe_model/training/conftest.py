"""Splits on disk to take batches from, and whether two batches are the same."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cache
from tests import made_splits
from tests.vibe_model.builders import SMALL, write_split
from vibe_model.vibe.config import TrainConfig


def write(root, name, lengths, seed=0, dtype="float16"):
    write_split(
        root,
        name,
        lengths,
        seed=seed,
        stream="resnet50",
        dtype=dtype,
        rows_per_shard=16,
        rows_per_chunk=8,
    )


def drop_a_video(root, name):
    """Commit a split without its first video."""
    columns = cache.open(root)[name].columns
    made_splits.write_split(root, name, [], drop=["v0"], columns=columns, plan="new")


def assert_same(ours, theirs):
    assert ours.labels.keys() == theirs.labels.keys()
    for name, value in theirs.labels.items():
        assert np.asarray(ours.labels[name]).dtype == np.asarray(value).dtype
        assert_array_equal(np.asarray(ours.labels[name]), np.asarray(value))
    assert_array_equal(np.asarray(ours.real_theta), np.asarray(theirs.real_theta))


@pytest.fixture
def mixed():
    return TrainConfig(
        datasets_2d=("c/train", "a/train"),
        datasets_3d=("a/train", "b/train"),
        motion=("m/train",),
        validation=("b/train",),
        evaluation=(),
        seqlen=4,
        stride=4,
        strides={"a/train": 2},
        batch_size=5,
        iterations=5,
        epochs=3,
        disc_size=4,
        **SMALL,
    )


@pytest.fixture(scope="module")
def of_windows(tmp_path_factory):
    """A cache of three streams: features, `resnet50.j1` in place of a copy of them, and `pairs` of
    three numbers.
    """
    root = tmp_path_factory.mktemp("cache")
    for seed, (name, lengths) in enumerate(
        {"a": [9, 4, 23], "b": [5, 17], "c": [12], "m": [20]}.items()
    ):
        write(root, f"{name}/train", lengths, seed)
        for stream, dim in (("resnet50.j1", 6), ("pairs", 3)):
            values = lambda rows, dim=dim: np.float32(rows[:, None] + np.arange(dim))  # noqa: E731
            made_splits.write_stream(
                root, f"{name}/train", stream, values, recorded={}, dim=dim, dtype="float32"
            )
    return root


@pytest.fixture
def on_disk(of_windows):
    opened = cache.open(of_windows)
    return {name: opened[name] for name in opened.splits}

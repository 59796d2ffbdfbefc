"""Digests of content: equal after any history that ends alike, others for one changed number."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

import cache
from tests import made_splits
from tests.cache import made_up, toy
from tests.cache.made_up import FORMS, SPLIT

LENGTHS = [(5,), (3, 9), (), (14,), (2, 4), (20,), (8,)]
TARGET = {name: (name, LENGTHS[n], 0, n) for n, name in enumerate(["a", "b", "c", "d", "e", "f"])}


def digests(root):
    split = toy.opened(root)
    names = (None, *split.streams)
    return {name: cache.content_digest(split, name) for name in names}


def fill(root, stream, at_most=99, *, staged=False):
    made_up.extract(root, stream, at_most=at_most, staged=staged, written=[])


def written_at_once(root, target):
    made_up.convert(root, target)
    for stream in FORMS:
        fill(root, stream)
    return digests(root)


@pytest.mark.promise("equal bytes")
def test_digests_are_equal_after_another_history_that_ends_alike(tmp_path, monkeypatch):
    """Other videos and features before, another order, shards one by one, a copy, other shards."""
    root = tmp_path / "cache"
    made_up.convert(root, {name: (name, LENGTHS[n], 1, 0) for n, name in enumerate("fbd")})
    fill(root, "crops")
    made_up.convert(root, dict(reversed(TARGET.items())))
    for stream in FORMS:
        fill(root, stream, 1)
        fill(root, stream, staged=True)
    cache.copy_split(root, SPLIT, tmp_path / "copy")
    assert toy.opened(root).videos.names != [*TARGET]
    expected = written_at_once(tmp_path / "at_once", TARGET)
    assert digests(root) == digests(tmp_path / "copy") == expected
    assert expected.keys() == {None, *FORMS}
    monkeypatch.setattr(made_up, "SHARD", 16)
    assert written_at_once(tmp_path / "larger_shards", TARGET) == expected


def test_a_digest_stays_over_versions(tmp_path):
    """Published lists hold them."""
    assert written_at_once(tmp_path / "cache", TARGET) == {
        None: "072ae4b799c310c93875fae1cc502a4c3cf00f35968c8c4b4a70daaa2cc66c17",
        "crops": "19411a23c1b0edc5e4430884b0ce5493b7112662c94c6d420abdaaf4a9ca123a",
        "resnet50": "5ab64e97edf77ccc6ba9c577514b8da39e3b76baf0e2d57eac1f9a7aa4fd9bdf",
    }


@pytest.mark.parametrize(
    "other",
    [
        {"fps": float("nan")},
        {"crop_scale": 1.2},
        {"gender": "female"},
        {"name": "a/1"},
        {"intrinsics": np.eye(3)},
        {"step": 2},
    ],
    ids=lambda other: next(iter(other)),
)
def test_another_fact_of_a_track_gives_another_digest(other, tmp_path):
    digest = []
    for number, fact in enumerate(({}, other)):
        columns = made_up.columns_of(TARGET["a"], 0)
        columns["frame_index"] = columns["frame_index"] * fact.get("step", 1)
        track = replace(made_splits.track_of("a/0", columns), **fact)
        videos = [(cache.VideoEntry(name="a"), [track])]
        split = made_splits.write_split(tmp_path / str(number), SPLIT, videos)
        digest.append(cache.content_digest(split))
    assert digest[0] != digest[1]


def test_a_row_without_features_counts_however_it_lacks_them(tmp_path):
    """Not computed yet, or in a copy, which has some rows of a shard only: one digest."""
    root = tmp_path / "cache"
    made_up.convert(root, TARGET)
    fill(root, "crops", 2)
    few = digests(root)
    cache.copy_split(root, SPLIT, tmp_path / "copy")
    assert digests(tmp_path / "copy") == few
    fill(root, "crops")
    assert digests(root)["crops"] != few["crops"]


def test_memory_does_not_grow_with_the_rows_of_a_track(tmp_path):
    n_rows = 40_000
    columns = {"frame_index": np.arange(n_rows), "kp_2d": np.ones((n_rows, 49, 3), np.float32)}
    split = toy.split_of(tmp_path, columns, rows_per_shard=8192, rows_per_chunk=64)
    cache.content_digest(split)  # modules are imported, shards are mapped
    tracemalloc.start()
    cache.content_digest(split)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < columns["kp_2d"].nbytes / 4

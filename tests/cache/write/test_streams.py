"""Features beside the tracks: written by shard, carried over by key, made for rows that never
change.
"""

import shutil

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cache
from cache import StreamForm, StreamWriter
from tests.cache import toy
from tests.raising import all_raise, cache_refuses
from tests.trees import contents


def writer_of(root, dim=4, dtype="float16"):
    form = StreamForm(dim, dtype)
    return StreamWriter(root, "toy/train", "resnet50", form, plan="weights")


def test_rows_with_nothing_to_compute_from_have_a_value_wherever_rows_go(tmp_path):
    toy.write(tmp_path, toy.videos())
    toy.write_stream(tmp_path, bad_rows=[12], undefined_rows=[10, 17, 37, 64])
    split = toy.opened(tmp_path)
    assert split.open_stream("resnet50").undecodable() == 1
    found = split.read([[17, 20]], "resnet50", ["features"])["features"]
    assert_array_equal(found[0], [[0] * 4, *toy.features(np.array([18, 19]), 4)])
    # Carried over by their keys: b was in rows 10-37, and is appended from 160.
    toy.add(tmp_path, "b", 7, 20, seed=3, drop=["b"])
    with writer_of(tmp_path) as writer:
        assert writer.shards.pending == [5]
        others = np.array([[99, 99], [5, 0], [1, 5]], np.uint64)
        mask, features, ok = writer.shards.carried(
            np.concatenate([toy.keys(np.arange(10, 37)), others])
        )
        assert mask.tolist() == [True] * 27 + [False] * 3  # one word alone makes no key equal
        features, ok = features[:27], ok[:27]
        assert ok.tolist() == [2, 1, 0, 1, 1, 1, 1, 2, *[1] * 19]
        expected = np.where(ok[:, None] == 1, toy.features(np.arange(10, 37), 4), 0)
        assert_array_equal(features, expected)
        writer.write(5, features, ok, toy.keys(np.arange(10, 37)))
        writer.commit({})
    copy = tmp_path / "copy"
    cache.copy_split(tmp_path, "toy/train", copy)
    split = toy.opened(copy)
    flags = {
        track.name: split.rows("features/resnet50_ok", track.start, track.stop).tolist()
        for track in split.tracks
    }
    assert (flags["b/0"], flags["b/1"][0]) == ([2, 1, 0, 1, 1, 1, 1], 2)
    assert cache.verify(copy).ok


def test_a_shard_that_is_not_committed_is_not_read(tracks):
    toy.write_stream(tracks, shards=[0])
    split = toy.opened(tracks)
    with writer_of(tracks) as writer:
        writer.write(*toy.given(writer.shards, 1))
        with cache_refuses("no file"):
            split.rows("features/resnet50", 40, 44)
        assert np.isnan(split.column("features/resnet50")[40:44]).all()


def test_what_does_not_fit_a_shard_the_form_or_a_split_is_refused(tmp_path):
    with cache_refuses("convert it before"), writer_of(tmp_path):
        pass
    toy.add(tmp_path, "a", 10)
    with writer_of(tmp_path) as writer:
        shard, features, ok, keys = toy.given(writer.shards, 0)
        for given, match in (
            ((shard, features[:, :3], ok, keys), "expected features"),
            ((1, features, ok, keys), "not pending"),
            (
                (shard, features, np.where(np.arange(10) == 4, 3, ok), keys),
                r"expected ok flags of .*found \[3\]",
            ),
        ):
            with cache_refuses(match):
                writer.write(*given)
        for value in (np.nan, np.inf, 1e6):  # beyond float16
            features[3, 1] = value
            with cache_refuses("row 3"):
                writer.write(shard, features, ok, keys)
        ok[3] = False  # what is not kept need not be finite
        writer.write(shard, features, ok, keys)
        writer.commit({})
    for other in ({"dim": 5}, {"dtype": "float32"}):
        with cache_refuses("Choose another name"), writer_of(tmp_path, **other):
            pass
    for unknown in ("bfloat16", "float64", "int8", "int16", "uint8"):
        with cache_refuses(f"4 numbers of {unknown}: expected 1 to 16,777,216 of"):
            StreamForm(4, unknown)
    for dim in (0, -1, True, 2.0, "4", 1 << 25):
        with cache_refuses(f"{dim} numbers of float16: expected 1 to"):
            StreamForm(dim)


def test_a_stream_whose_deletion_was_cut_off_is_deleted_by_the_next(tracks):
    """After a power cut, any of its folders may be there."""
    before = contents(tracks)
    toy.write_stream(tracks)
    features = tracks / "toy/train/features"
    shutil.rmtree(features / "resnet50")
    shutil.rmtree(features / "resnet50_ok")
    cache.delete_stream(tracks, "toy/train", "resnet50")
    assert contents(tracks).keys() == before.keys()


def put_features(source, target):
    """Put the features of one cache into the place of another one's."""
    shutil.rmtree(target / "toy/train/features")
    shutil.copytree(source / "toy/train/features", target / "toy/train/features")


def test_features_of_other_rows_under_the_same_numbers_are_never_taken_for_these(tmp_path):
    """The split's first commit was restored from a backup, and other videos have been added."""
    root, restored = tmp_path / "cache", tmp_path / "restored"
    toy.add(root, "a", 40)
    shutil.copytree(root, restored)
    toy.add(root, "b", 50)
    toy.write_stream(root)
    toy.add(restored, "c", 50, 20)
    put_features(root, restored)
    split = toy.opened(restored)
    assert len(split.windows(4, 4, "resnet50")) == 10  # of a
    with cache_refuses("does not have shard 2"):
        split.read([[64, 68]])
    assert cache.verify(restored).ok
    with writer_of(restored) as writer:
        assert writer.shards.pending == [2, 3, 4]
        assert not writer.shards.carried(toy.keys(np.arange(64, 74)))[0].any()
        writer.write(*toy.given(writer.shards, 2))
        # killed here, the manifest names no shard that was written over
        assert cache.verify(restored).ok
        writer.commit({"weights": "known"})
    assert cache.verify(restored).ok
    assert toy.opened(restored).windows(4, 4, "resnet50")[:, 1].max() <= 96


@pytest.mark.promise("other rows")
def test_a_stream_of_another_cache_is_a_problem_of_every_use_and_is_not_changed(tmp_path):
    root, other = tmp_path / "cache", tmp_path / "other"
    toy.write(root, toy.videos())
    toy.write_stream(root)
    toy.write(other, [toy.video("x", 40, seed=3), toy.video("y", 50, seed=3)])
    put_features(root, other)
    before = toy.tree(other)
    split = toy.opened(other)
    all_raise(
        cache.ForeignStream,
        r"features/resnet50: .*extract --replace",
        lambda: split.windows(4, 4, "resnet50"),
        lambda: split.read([[0, 4]]),
        lambda: writer_of(other).__enter__(),
        lambda: cache.copy_split(other, "toy/train", tmp_path / "named", streams=["resnet50"]),
    )
    (problem,) = cache.verify(other).problems
    assert "the stream of another cache" in problem
    assert cache.repair(other, cache.verify(other)).refused == [problem]
    assert toy.tree(other) == before
    copied = cache.copy_split(other, "toy/train", tmp_path / "copy")
    assert (copied.left_out, copied.streams) == ((problem,), ())
    cache.delete_stream(other, "toy/train", "resnet50")
    toy.write_stream(other)
    assert cache.verify(other).ok

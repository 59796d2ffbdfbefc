"""Writers in an object store: of two, one is refused; one that is killed at any request ends with
the same objects.
"""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cache
from cache import SplitWriter
from tests.cache import toy
from tests.cache.storage.buckets import (
    NARROW,
    SPLIT,
    Killed,
    narrow,
    objects,
    two_commits,
    write_narrow,
)
from tests.raising import cache_refuses

obstore = pytest.importorskip(
    "obstore", reason="a cache in an object store needs obstore: pip install -e '.[s3]'"
)

from cache.storage import object_store  # noqa: E402  not without obstore


def test_a_writer_that_writes_its_metadata_too_late_costs_the_newer_commit_nothing(bucket):
    write_narrow(bucket, *(toy.video(name, 5) for name in "abe"))
    seen = []
    slow = cache.store_at(bucket)
    put_small = slow.put_small

    def tracks():
        split = toy.opened(bucket)
        assert split.manifest["by"] == "quick"
        return {track.video for track in split.tracks}

    def late(files, home, **options):
        if f"{SPLIT}/bbox/zarr.json" in files and not seen:  # after its manifest
            seen.append(True)
            write_narrow(bucket, toy.video("z", 40), plan="quick", drop=["e"], by="quick")
            put_small(files, home, **options)
            assert tracks() == {"b", "x", "z"}  # with the slow one's shapes beside it
            report = cache.verify(bucket)
            assert report.problems == () and "of an earlier commit" in "".join(report.notes)
            return
        put_small(files, home, **options)

    slow.put_small = late
    write_narrow(slow, toy.video("x", 9), plan="slow", drop=["a"], by="slow")
    assert seen
    assert tracks() == {"b", "x", "z"}
    assert cache.verify(bucket).problems == ()


def test_a_put_whose_answer_was_lost_counts(bucket, monkeypatch):
    real = obstore.put

    def twice(store, key, data, **options):
        if options.get("mode") is not None:
            real(store, key, data, **options)
        return real(store, key, data, **options)

    monkeypatch.setattr(obstore, "put", twice)
    write_narrow(bucket, toy.video("a", 5), toy.video("b", 9))
    write_narrow(bucket, drop=["a"], plan="second")
    assert cache.verify(bucket).ok
    assert toy.opened(bucket).videos.names == ["b"]


UNWRITTEN = "expected the zarr.json that follows from the manifest, found no file"


class Deaths:
    """Ends the run at its n-th request that changes something, before or after the server has
    carried it out.
    """

    def __init__(self, patch):
        self.left, self.after = -1, False
        self.seen = 0
        # a run that dies while it reads is as if it had died at the one before
        for name in ("put", "copy", "delete"):
            patch.setattr(obstore, name, self._counted(getattr(obstore, name)))

    def _counted(self, request):
        def counted(*args, **options):
            self.seen += 1
            self.left -= 1
            if self.left == 0 and not self.after:
                raise Killed
            try:
                return request(*args, **options)
            finally:  # also after one that the server has refused
                if self.left == 0:
                    raise Killed

        return counted


@pytest.mark.parametrize("carried_out", [False, True], ids=["before it", "after it"])
@pytest.mark.parametrize("every", [31, pytest.param(1, marks=pytest.mark.slow)])
def test_a_writer_killed_at_any_request_ends_with_the_same_objects(
    carried_out, every, bucket, monkeypatch
):
    """Every request of the run; and quickly, some of them."""
    # one request after the other: dead means dead
    monkeypatch.setattr(object_store, "IN_FLIGHT", 1)
    deaths = Deaths(monkeypatch)
    two_commits(f"{bucket}/calm")
    n_requests, expected = deaths.seen, objects(f"{bucket}/calm")
    assert n_requests > 40
    for number in range(1, n_requests + 1, every):
        root = f"{bucket}/{number}"
        deaths.left, deaths.after = number, carried_out
        with pytest.raises(Killed):
            two_commits(root)
        deaths.left = -1
        if SPLIT in cache.FeatureCache(root):  # whatever was committed is whole
            # but for the last files of a first commit, which the next writer or a repair writes
            problems = cache.verify(root).problems
            assert all("/zarr.json: " in each and UNWRITTEN in each for each in problems), number
            toy.opened(root).read([[0, 8]], stream=None, fields=["bbox"])
        two_commits(root)
        assert cache.verify(root).ok, number
        assert objects(root) == expected, number


@pytest.mark.parametrize("moment", ["opening", "first shard", "manifest"])
def test_of_two_writers_that_race_exactly_one_commits(moment, bucket):
    """The second one does all of its work at a moment of the first one's, and wins."""
    # of other rows, the first one's shards are refused
    seed = 0 if moment == "manifest" else 1
    store, done = cache.store_at(bucket), []
    put, replace_ = store.put, store.replace

    def overtake(at):
        if at == moment and not done:
            done.append(at)
            write_narrow(bucket, toy.video("a", 20, 25), plan="quick", by="quick")

    def overtaken_put(key, data, **options):
        overtake("first shard")
        put(key, data, **options)

    def overtaken_replace(key, data, *, expected):
        overtake("manifest")
        return replace_(key, data, expected=expected)

    store.put, store.replace = overtaken_put, overtaken_replace
    with (
        cache_refuses("another writer"),
        SplitWriter(store, SPLIT, plan="slow", **NARROW) as writer,
    ):
        overtake("opening")
        following = writer.begin()
        following.append(*narrow(toy.video("a", 20, 25 + seed, seed=seed)))
        following.commit({"by": "slow"})
    split = toy.opened(bucket)
    assert done and split.manifest["by"] == "quick"
    assert cache.verify(bucket).problems == ()
    expected = np.concatenate([track.columns["bbox"] for track in toy.video("a", 20, 25)[1]])
    assert_array_equal(split.rows("bbox", 0, 45), expected)

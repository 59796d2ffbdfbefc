"""A cache in an object store: the same bytes and answers as in a folder, and as few requests as
that takes.
"""

import itertools
import multiprocessing
import re
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cache
from cache import CacheError, StreamForm, StreamShards, StreamWriter
from tests.cache import toy
from tests.cache.storage.buckets import (
    SPLIT,
    STREAM,
    objects,
    put,
    requests_of,
    three_runs,
    write_narrow,
)
from tests.cache.toy import flipped
from tests.raising import cache_refuses

obstore = pytest.importorskip(
    "obstore", reason="a cache in an object store needs obstore: pip install -e '.[s3]'"
)

CROPS = f"{SPLIT}/features/crops"
FORM = StreamForm(3, "float32")


@pytest.fixture(scope="module")
def both(memory, tmp_path_factory):
    """The same cache as objects and as files. Only to be read."""
    folder, url = tmp_path_factory.mktemp("both") / "cache", "s3://memory/both"
    for root in (url, folder):
        three_runs(root)
        toy.write_stream(root, stream="crops", dim=3, dtype="float32", bad_rows=[60])
    return url, folder


def test_the_objects_are_the_files_that_the_same_run_writes_into_a_folder(both):
    url, folder = both
    for root in both:  # what killed runs and earlier commits have left
        cache.gc(root, older_than=0)
    assert objects(url) == toy.tree(folder)
    assert cache.verify(url).ok


def test_what_is_read_is_the_same(both):
    ours, theirs = (toy.opened(root) for root in both)
    windows = theirs.windows(16, 5, STREAM)
    assert_array_equal(ours.windows(16, 5, STREAM), windows)
    windows = windows[np.random.default_rng(0).permutation(len(windows))]
    batch = ours.read(windows, fields=["features", *theirs.columns])
    for name, values in theirs.read(windows, fields=[*batch]).items():
        assert_array_equal(batch[name], values, err_msg=name)
    assert_array_equal(ours.rows("kp_2d", 50, 70), theirs.rows("kp_2d", 50, 70))


def test_a_batch_takes_few_requests(both, monkeypatch):
    split = toy.opened(both[0])
    windows = split.windows(8, 2)
    split.read(windows, stream=None)
    requests = requests_of(monkeypatch, "get", "head", "get_ranges", "list")
    split.read(windows, stream=None, fields=["kp_2d"])
    shards = {
        row // toy.rows_per_shard for start, stop in windows.tolist() for row in range(start, stop)
    }
    columns = {name.split("/")[2] for name in requests if "/c/" in name}
    assert columns == {"kp_2d", "bbox"}
    # Of each column: a request a shard, whatever the number of windows, and a look at the manifest.
    assert len(requests) == len(columns) * (len(shards) + 1)
    assert len(windows) > 2 * len(requests)


def test_a_missing_or_damaged_shard_raises_and_is_read_once_it_is_back(bucket):
    write_narrow(bucket, toy.video("a", 20, 30))
    split, key = toy.opened(bucket), f"{SPLIT}/bbox/c/1/0"
    whole, windows = objects(bucket)[key], split.windows(16, 2)
    expected = split.read(windows, stream=None, fields=["bbox"])["bbox"]
    for opened_before in (False, True):
        reader = split if opened_before else toy.opened(bucket)
        cache.store_at(bucket).remove([key])
        with cache_refuses(rf"{bucket}/{key}: expected a shard.* found no file"):
            reader.read(windows, stream=None, fields=["bbox"])
        put(bucket, key, whole)
        assert_array_equal(reader.read(windows, stream=None, fields=["bbox"])["bbox"], expected)
    for data in (flipped(whole, 40), flipped(whole, 4 * len(whole)), whole[:-1], whole[:100], b""):
        put(bucket, key, data)
        size = "" if len(data) == len(whole) else f" a shard of {len(whole)} bytes, found"
        with cache_refuses(rf"{bucket}/{key}: expected{size}"):
            toy.opened(bucket).read(windows, stream=None, fields=["bbox"])


@pytest.mark.parametrize("what", ["held", "opened there"])
def test_a_forked_worker_gets_an_error_and_does_not_wait_for_ever(bucket, what):
    write_narrow(bucket, toy.video("a", 40))
    split = toy.opened(bucket)
    here, there = multiprocessing.Pipe(duplex=False)

    def read():  # pragma: no cover - another process
        try:
            (split if what == "held" else toy.opened(bucket)).rows("bbox", 0, 8)
        except CacheError as error:
            there.send(str(error))

    child = multiprocessing.get_context("fork").Process(target=read)
    child.start()
    assert here.poll(120), "the child waits"
    message = here.recv()
    child.kill()
    assert message.startswith(f"{bucket}: this process was forked")
    assert "spawn" in message
    split.rows("bbox", 0, 8)  # and the parent goes on


def test_a_staged_shard_takes_no_others_place(bucket):
    write_narrow(bucket, toy.video("a", 20, 60))
    plans = ("quality 95", "quality 90")
    with (
        StreamWriter(bucket, SPLIT, "crops", FORM, plan=plans[0]) as first,
        StreamWriter(bucket, SPLIT, "crops", FORM, plan=plans[1]) as second,
    ):
        shards, others = (StreamShards(bucket, SPLIT, "crops", FORM, plan=plan) for plan in plans)
        for stager in (shards, others):
            stager.stage(*toy.given(stager, 0))
        first.accept_staged()
        second.accept_staged()  # the same bytes are as good
        assert second.refused == []
        shards.stage(*toy.given(shards, 1))
        first.accept_staged()
        shard, features, ok, keys = toy.given(others, 1)
        others.stage(shard, features + 1, ok, keys)
        second.accept_staged()
        (refused,) = second.refused
        assert "crops/c/1/0: expected no object yet, found other content" in refused
        first.write(*toy.given(shards, 2))
        first.commit({})
    rows = toy.opened(bucket).rows("features/crops", 33, 71)
    assert_array_equal(rows, toy.features(np.arange(33, 71), 3))
    assert cache.verify(bucket).ok


def test_what_no_writer_has_accepted_stays_until_it_is_old(bucket):
    def staged():
        return sorted(key for key in cache.store_at(bucket).file_sizes(CROPS) if "/file-" in key)

    write_narrow(bucket, toy.video("a", 20, 60))
    shards = StreamShards(bucket, SPLIT, "crops", FORM, plan="quality 90")
    shards.stage(*toy.given(shards, 1))
    late = staged()
    with StreamWriter(bucket, SPLIT, "crops", FORM, plan="quality 95") as writer:
        # no lock shows whether they are of another writer that is running
        assert len(staged()) == 3
        writer.write(*toy.given(shards, 0))
        writer.commit({})
    assert staged() == late
    done = cache.gc(bucket)
    assert not done.removed
    assert any("unfinished work" in text for text in done.skipped)
    assert cache.gc(bucket, older_than=0).removed == [f"{CROPS}/.writing/staged"]
    assert staged() == []
    assert_array_equal(
        toy.opened(bucket).rows("features/crops", 1, 2), toy.features(np.array([1]), 3)
    )


def test_another_scheme_is_refused():
    root = "ftp://host/cache"
    message = re.escape(root) + ": expected a folder, or a URL that starts with one of s3, "
    for act in (cache.open, lambda root: toy.write(root, toy.videos())):
        with cache_refuses(message):
            act(root)


def test_without_obstore_the_error_is_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "obstore", None)
    with cache_refuses("needs obstore: pip install"):
        cache.open("s3://bucket/x")


def test_an_empty_place_and_a_split_are_no_cache(bucket, both):
    for reason in (r"no zarr\.json", "a part of one"):
        with cache_refuses(f"{bucket}: expected a feature cache, found {reason}"):
            cache.open(bucket)
        for name in ("zarr.json", "manifest.json"):  # here, every address is a bucket of its own
            put(bucket, name, (both[1] / SPLIT / name).read_bytes())


def test_a_server_that_stops_is_an_error_and_nothing_is_committed(bucket, monkeypatch):
    real, count = obstore.put, itertools.count()

    def failing(store, key, data, **options):
        if next(count) == 40:
            raise obstore.exceptions.GenericError("Generic S3 error: connection reset")
        return real(store, key, data, **options)

    monkeypatch.setattr(obstore, "put", failing)
    with cache_refuses(r"connection reset.* Finished work is kept"):
        toy.write(bucket, toy.videos())
    assert cache.FeatureCache(bucket).splits == ()


def test_work_of_other_code_stays_after_a_commit_and_gc_says_how_to_remove_it(bucket):
    write_narrow(bucket, toy.video("a", 20, 60))
    old = StreamShards(bucket, SPLIT, "crops", FORM, plan="old code")
    old.stage(*toy.given(old, 0))
    with StreamWriter(bucket, SPLIT, "crops", FORM, plan="new code") as writer:
        for shard in writer.shards.pending:
            writer.write(*toy.given(writer.shards, shard))
        writer.commit({})
    (said,) = cache.gc(bucket, unfinished=True).skipped
    assert "same command" not in said
    assert "--older-than 0 removes it" in said
    assert "same command" not in str(cache.verify(bucket).notes)
    cache.gc(bucket, older_than=0)
    assert not [key for key in objects(bucket, every=True) if ".writing" in key]

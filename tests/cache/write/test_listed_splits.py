"""The cache lists its splits: one that is listed and missing is a problem for every reader and
writer.
"""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

import cache
from cache import MissingSplit
from tests.cache import toy
from tests.cache.storage.buckets import write_narrow
from tests.cache.toy import SPLIT

PARALLEL = 8


def convert(root, split):
    """A first commit of a split, of one video."""
    write_narrow(root, toy.video("a", 5), split=split)


def listed(root):
    """The list as any Zarr reader finds it."""
    attributes = json.loads(cache.store_at(root).read("zarr.json"))["attributes"]
    return attributes["splits"]


def test_splits_that_are_committed_at_once_are_all_listed(tmp_path, bucket):
    names = [f"set_{number}/train" for number in range(PARALLEL)]
    for root in (tmp_path / "cache", bucket):
        with ThreadPoolExecutor(PARALLEL) as threads:
            list(threads.map(lambda name, root=root: convert(root, name), names))
        assert listed(root) == names == list(cache.open(root).splits)
        assert cache.verify(root).ok


def test_a_deleted_split_is_a_problem_until_gc_forgets_it_or_it_is_written_again(root):
    convert(root, "other/train")
    shutil.rmtree(root / "toy")
    with pytest.raises(MissingSplit, match="no such folder"):
        toy.opened(root)
    assert "no such folder" in cache.verify(root).problems[0]
    assert cache.gc(root, dry_run=True).forgotten == [SPLIT] and listed(root) == [
        "other/train",
        SPLIT,
    ]
    toy.write(root, toy.videos())
    assert cache.verify(root).ok

    shutil.rmtree(root / "toy")
    assert cache.gc(root).forgotten == [SPLIT] and listed(root) == ["other/train"]
    assert cache.verify(root).ok


def test_a_damaged_list_is_reported_and_repaired(root):
    (root / "zarr.json").write_text('{"attributes": {"splits": 5}}')
    assert cache.open(root).splits == (SPLIT,)
    report = cache.verify(root)
    assert not report.ok
    cache.repair(root, report)
    assert listed(root) == [SPLIT] and cache.verify(root).ok

"""A cache in an object store: the same bytes and answers as in a folder, and as few requests as that takes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from cache import CacheError
from cache.read.zarr_rows import ZarrRows
from tests.cache.storage.buckets import SPLIT, STREAM, delete, objects, put, three_runs, two_commits

obstore = pytest.importorskip("obstore", reason="a cache in an object store needs obstore: pip install -e '.[s3]'")
pytest.importorskip("moto.server", reason="a real S3 server is needed: pip install -e '.[dev]'")


@pytest.fixture(scope="module")
def both(server: Any, tmp_path_factory: pytest.TempPathFactory, toy: Any) -> tuple[str, Path]:
    """The same cache as objects and as files. Only to be read."""
    folder = tmp_path_factory.mktemp("both") / "cache"
    server.create_bucket(Bucket="both")
    three_runs("s3://both/some/where", toy)
    three_runs(folder, toy)
    return "s3://both/some/where", folder


def test_the_objects_are_the_files_that_the_same_run_writes_into_a_folder(
    both: tuple[str, Path], server: Any, toy: Any
) -> None:
    url, folder = both
    assert objects(server, url) == toy.tree(folder)
    assert cache.verify(url).ok


def test_everything_that_is_read_is_the_same(both: tuple[str, Path]) -> None:
    there, here = (cache.open(root) for root in both)
    assert there.splits == here.splits == (SPLIT,)
    ours, theirs = there[SPLIT], here[SPLIT]
    assert ours.manifest == theirs.manifest
    assert list(ours.tracks) == list(theirs.tracks)
    assert list(ours.videos) == list(theirs.videos)
    assert ours.streams == theirs.streams == (STREAM,)
    assert ours.undecodable(STREAM) == theirs.undecodable(STREAM) > 0
    for stream, seqlen, tail in itertools.product((None, STREAM), (1, 5, 16), ("drop", "cover")):
        kind: Any = tail
        expected = theirs.windows(seqlen, 3, stream, kind)
        np.testing.assert_array_equal(ours.windows(seqlen, 3, stream, kind), expected)
        assert len(expected)
    windows = theirs.windows(16, 5, STREAM)
    windows = windows[np.random.default_rng(0).permutation(len(windows))]
    for fields in (None, (*theirs.columns,)):
        batch, wanted = ours.read(windows, fields=fields), theirs.read(windows, fields=fields)
        assert batch.keys() == wanted.keys()
        for name, values in wanted.items():
            np.testing.assert_array_equal(batch[name], values, err_msg=name)
            assert batch[name].dtype == values.dtype
    for name in (*theirs.columns, *(f"features/{STREAM}{end}" for end in ("", "_ok", "_key"))):
        np.testing.assert_array_equal(np.asarray(ours.column(name)[:]), np.asarray(theirs.column(name)[:]))
    np.testing.assert_array_equal(ours.rows("kp_2d", 5, 70), theirs.rows("kp_2d", 5, 70))


def test_a_batch_of_many_shards_fills_the_buffers_that_are_given(both: tuple[str, Path]) -> None:
    there, here = (cache.open(root)[SPLIT] for root in both)
    windows = here.windows(2, 1, STREAM)
    wanted = here.read(windows, fields=("features", "kp_2d"), dtype="float16")
    buffers = {"features": np.empty((len(windows), 4, 2, 4), np.float16)[:, 0]}  # not contiguous
    batch = there.read(windows, fields=("features", "kp_2d"), dtype="float16", out=buffers)
    assert batch["features"] is buffers["features"]
    np.testing.assert_array_equal(batch["features"], wanted["features"])
    np.testing.assert_array_equal(batch["kp_2d"], wanted["kp_2d"])


def test_a_run_with_nothing_to_do_writes_nothing(url: str, server: Any, toy: Any) -> None:
    two_commits(url, toy)
    before = objects(server, url, every=True)
    two_commits(url, toy)
    assert objects(server, url, every=True) == before


@pytest.mark.slow
def test_a_missing_shard_raises_and_is_read_once_it_is_back(url: str, server: Any, toy: Any) -> None:
    toy.write(url, toy.videos())
    for opened_before in (False, True):
        split = cache.open(url)[SPLIT]
        windows = split.windows(16, 16)
        if opened_before:
            split.read(windows, stream=None)
        key = f"{SPLIT}/kp_2d/c/2/0/0"
        data = objects(server, url)[key]
        delete(server, url, key)
        with pytest.raises(CacheError, match=rf"{url}/{key}: expected a shard.* found no file"):
            split.read(windows, stream=None)
        with pytest.raises(CacheError, match=rf"{url}/{key}: expected a shard"):
            ZarrRows(split.store, f"{SPLIT}/kp_2d", _metadata(split, "kp_2d")).read(
                np.array([70]), 4, np.empty((1, 4, 49, 3))
            )
        put(server, url, key, data)
        np.testing.assert_array_equal(
            split.read(windows, stream=None)["kp_2d"], cache.open(url)[SPLIT].read(windows, stream=None)["kp_2d"]
        )


def _metadata(split: cache.Split, column: str) -> Any:
    return json.loads(split.store.read(f"{SPLIT}/{column}/zarr.json"))


@pytest.mark.slow
def test_a_damaged_chunk_or_index_raises(url: str, server: Any, toy: Any) -> None:
    toy.write(url, toy.videos())
    key = f"{SPLIT}/bbox/c/1/0"
    whole = objects(server, url)[key]
    windows = cache.open(url)[SPLIT].windows(4, 4)
    for at in (5, len(whole) - 10, len(whole) // 3):
        data = bytearray(whole)
        data[at] ^= 4
        put(server, url, key, bytes(data))
        with pytest.raises(CacheError, match=rf"{url}/{key}: expected"):
            cache.open(url)[SPLIT].read(windows, stream=None, fields=["bbox"])
    for short in (whole[:-1], whole[:100], b""):
        put(server, url, key, short)
        with pytest.raises(CacheError, match=rf"{url}/{key}: expected a shard of {len(whole)} bytes, found"):
            cache.open(url)[SPLIT].read(windows, stream=None, fields=["bbox"])


def test_a_batch_takes_few_requests(url: str, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.write(url, toy.videos())
    split = cache.open(url)[SPLIT]
    windows = split.windows(8, 2)
    split.read(windows, stream=None)
    requests: list[str] = []

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def request(store: Any, key: str, **options: Any) -> Any:
            requests.append(key)
            return real(store, key, **options)

        return request

    for name in ("get", "head", "get_ranges", "list"):
        monkeypatch.setattr(obstore, name, counted(getattr(obstore, name)))
    split.read(windows, stream=None, fields=["kp_2d"])
    shards = {row // toy.rows_per_shard for start, stop in windows.tolist() for row in range(start, stop)}
    columns = {name.split("/")[2] for name in requests if "/c/" in name}
    assert columns == {"kp_2d", "bbox"}
    # Of each column: a request a shard, whatever the number of windows, and a look at the manifest.
    assert len(requests) == len(columns) * (len(shards) + 1)
    assert len(windows) > 2 * len(requests)

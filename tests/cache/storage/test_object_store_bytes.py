"""Streams of bytes and staged shards in an object store: the same as in a folder, in few requests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from cache import CacheError, Staged, StreamShards, StreamWriter

obstore = pytest.importorskip("obstore", reason="a cache in an object store needs obstore: pip install -e '.[s3]'")

SPLIT = "toy/train"
FEATURES = f"{SPLIT}/features"
FORM: dict[str, Any] = {"dim": 0, "dtype": "bytes"}


def writer_of(root: Any, plan: str = "quality 95") -> StreamWriter:
    return StreamWriter(root, SPLIT, "crops", plan=plan, **FORM)


def given_for(shards: StreamShards, shard: int, toy: Any, *, other: bytes = b"") -> tuple[Any, ...]:
    rows = np.asarray(shards.rows(shard))
    return shard, [blob + other for blob in toy.blobs(rows)], np.ones(len(rows)), toy.keys(rows)


def staged_names(root: str) -> list[str]:
    return [
        name for name in cache.store_at(root).list_names(f"{FEATURES}/crops/.writing") if name.startswith("staged-")
    ]


@pytest.fixture
def narrow(url: str, toy: Any) -> str:
    """A split of two columns and three shards, in an object store."""
    with cache.SplitWriter(url, SPLIT, columns=["bbox"], plan="p", rows_per_shard=32, rows_per_chunk=8) as writer:
        writer.begin()
        entry, tracks = toy.video("a", [20, 60])
        for number, track in enumerate(tracks):
            columns = {name: track.columns[name] for name in ("frame_index", "bbox")}
            fields: Any = {"video": track.video, "step": 1, "fps": 25.0, "crop_scale": 1.3, "columns": columns}
            tracks[number] = cache.TrackRows(name=track.name, **fields)
        writer.append(entry, tracks)
        writer.commit({})
    return url


@pytest.mark.slow
def test_the_objects_are_the_files_and_the_bytes_are_the_same(url: str, tmp_path: Path, toy: Any) -> None:
    for root in (url, tmp_path):
        toy.write(root, toy.videos())
        toy.write_blobs(root, bad_rows=[3])
        toy.write(root, [toy.video("b", [30], seed=1)], drop=["b"], plan="second")
        toy.write_blobs(root)  # what b had is carried over by its keys
    store = cache.store_at(url)
    files = {key: data for key, data in toy.tree(tmp_path).items() if key.startswith(f"{FEATURES}/crops")}
    assert len(files) > 20
    assert {key: store.read(key) for key in files} == files
    split, rows = cache.open(url)[SPLIT], [142, 4, 5, 6, 2, 2, 31, 33, 100]
    assert split.blobs("crops", rows) == cache.open(tmp_path)[SPLIT].blobs("crops", rows) == toy.blobs(rows)
    with pytest.raises(CacheError, match="no bytes for row 3"):
        split.blobs("crops", [2, 3])
    start, stop = map(int, split.column("features/crops_at")[142])
    assert np.asarray(split.column("features/crops")[start:stop]).tobytes() == toy.blobs([142])[0]


def test_neighbours_take_one_request_for_all(narrow: str, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    toy.write_blobs(narrow)
    split = cache.open(narrow)[SPLIT]
    assert split.blobs("crops", range(64)) == toy.blobs(range(64))
    requests: list[str] = []

    def counted(real: Callable[..., Any]) -> Callable[..., Any]:
        def request(store: Any, key: str, **options: Any) -> Any:
            requests.append(key)
            return real(store, key, **options)

        return request

    for name in ("get", "head", "get_ranges", "list"):
        monkeypatch.setattr(obstore, name, counted(getattr(obstore, name)))
    assert split.blobs("crops", range(64)) == toy.blobs(range(64))
    # Of the places and of the bytes: one request for each of two shards; and looks at the manifest.
    assert sum("/c/" in key for key in requests) == 4
    assert len(requests) <= 8


@pytest.mark.slow
def test_a_staged_shard_takes_no_others_place(narrow: str, toy: Any) -> None:
    shards = StreamShards(narrow, SPLIT, "crops", **FORM)
    with writer_of(narrow) as first, writer_of(narrow, "quality 90") as second:
        first.accept(shards.stage(*given_for(shards, 0, toy)))
        second.accept(shards.stage(*given_for(shards, 0, toy)))  # the same bytes are as good
        first.accept(shards.stage(*given_for(shards, 1, toy)))
        with pytest.raises(CacheError, match=r"crops/c/1: expected no object yet, found other content"):
            second.accept(shards.stage(*given_for(shards, 1, toy, other=b"!")))
        first.write(*given_for(shards, 2, toy))
        first.commit({})
    assert cache.open(narrow)[SPLIT].blobs("crops", [33, 70]) == toy.blobs([33, 70])
    assert cache.verify(narrow).ok


@pytest.mark.slow
def test_what_no_writer_has_accepted_stays_until_it_is_old(narrow: str, toy: Any) -> None:
    shards = StreamShards(narrow, SPLIT, "crops", **FORM)
    late: Staged = shards.stage(*given_for(shards, 1, toy))
    with writer_of(narrow) as writer:  # no lock tells whether it is of another writer at work
        assert len(staged_names(narrow)) == 4
        writer.accept(shards.stage(*given_for(shards, 0, toy)))
        writer.commit({})
    assert sorted(f"{FEATURES}/crops/.writing/{name}" for name in staged_names(narrow)) == sorted(late.keys.values())
    done = cache.gc(narrow)
    assert not done.removed
    assert sum("younger" in text and "staged-" in text for text in done.skipped) == 4
    assert sorted(cache.gc(narrow, older_than=0).removed) == sorted(late.keys.values())
    assert cache.open(narrow)[SPLIT].blobs("crops", [1]) == toy.blobs([1])

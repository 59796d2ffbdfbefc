"""Shards that others write and one writer accepts: the same bytes, and a late one never counts."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cache import CacheError, StreamShards, StreamWriter

SPLIT = "toy/train"
FORMS: dict[str, Any] = {
    "resnet50": {"dim": 4, "dtype": "float16"},
    "crops": {"dim": 3, "dtype": "float32"},
}


def writer_of(root: Path, stream: str = "resnet50", *, plan: str = "weights") -> StreamWriter:
    return StreamWriter(root, SPLIT, stream, plan=plan, **FORMS[stream])


def shards_of(root: Path, stream: str = "resnet50", *, plan: str = "") -> StreamShards:
    return StreamShards(root, SPLIT, stream, plan=plan, **FORMS[stream])


@pytest.fixture
def root(tracks: Path) -> Path:
    """A split of five shards without features."""
    return tracks


def test_a_shard_of_another_state_of_the_split_is_refused(root: Path, toy: Any) -> None:
    old = shards_of(root)
    staged = [old.stage(*toy.given(old, shard)) for shard in (0, 4)]
    kept = {key: (root / key).read_bytes() for one in staged for key in one.keys.values()}
    shutil.rmtree(root)
    toy.write(root, toy.videos(seed=1))  # replaced: other rows under the same numbers
    with writer_of(root) as writer:
        for key, data in kept.items():
            (root / key).parent.mkdir(parents=True, exist_ok=True)
            (root / key).write_bytes(data)
        for one in staged:
            with pytest.raises(
                CacheError, match=r"expected what is staged to be of .*is to be computed again"
            ):
                writer.accept(one)
        assert writer.pending == [0, 1, 2, 3, 4]


def test_what_is_not_pending_not_there_or_of_another_form_is_refused(root: Path, toy: Any) -> None:
    shards, wide = shards_of(root), StreamShards(root, SPLIT, "resnet50", dim=5)
    other = shards_of(root, "crops")
    with writer_of(root) as writer:
        first, again = (shards.stage(*toy.given(shards, 0)) for _ in range(2))
        writer.accept(first)
        for one in (first, again):
            with pytest.raises(CacheError, match="shard 0: is not pending"):
                writer.accept(one)
        shard, features, ok, keys = toy.given(wide, 1)
        of_five = wide.stage(shard, features, ok, keys)
        for one in (of_five, other.stage(*toy.given(other, 1))):
            with pytest.raises(CacheError, match="is to be computed again"):
                writer.accept(one)
        gone = shards.stage(*toy.given(shards, 2))
        (root / gone.keys["resnet50_ok"]).unlink()
        with pytest.raises(CacheError, match="found no such file"):
            writer.accept(gone)
        outside = dataclasses.replace(
            gone, keys={**gone.keys, "resnet50_ok": "toy/train/manifest.json"}
        )
        with pytest.raises(CacheError, match="found no such file"):
            writer.accept(outside)
        assert writer.pending == [1, 2, 3, 4]


def test_a_writer_accepts_what_others_have_staged_and_forgets_what_it_refuses(
    root: Path, toy: Any
) -> None:
    """So that any process computes a refused shard again."""
    shards = shards_of(root, plan="weights")
    with writer_of(root) as writer:
        staged = [shards.stage(*toy.given(shards, shard)) for shard in (0, 1, 2)]
        (root / staged[1].keys["resnet50_ok"]).unlink()
        writer.accept_staged()
        assert writer.pending == [1, 3, 4]
        assert len(writer.refused) == 1
        assert shards.list_staged() == {}
        shards.stage(*toy.given(shards, 1))
        writer.accept_staged()
        assert writer.pending == [3, 4]


@pytest.mark.parametrize("stream", FORMS)
def test_a_checkpoint_gives_back_its_rows_to_the_same_keys_and_plan_alone(
    root: Path, toy: Any, stream: str
) -> None:
    with writer_of(root, stream) as writer:
        shard, data, ok, keys = toy.given(writer, 1)
        data = data.astype(FORMS[stream]["dtype"])
        rows = np.arange(0, len(keys), 3)
        writer.checkpoint(shard, rows, data[rows], np.asarray(ok, np.uint8)[rows], keys[rows])
    changed = keys.copy()
    changed[3, 0] += 1
    for same, given in ((rows, keys), (rows[rows != 3], changed)):
        mask, kept, flags = shards_of(root, stream, plan="weights").kept(shard, given)
        assert np.flatnonzero(mask).tolist() == same.tolist()
        assert kept[mask].tolist() == data[same].tolist()
        assert flags[mask].tolist() == np.asarray(ok, np.uint8)[same].tolist()
    if stream == "resnet50":  # no shard takes it: it would fail again and again
        data[6, 0] = np.nan
        writer.checkpoint(shard, rows, data[rows], np.asarray(ok, np.uint8)[rows], keys[rows])
        mask = shards_of(root, stream, plan="weights").kept(shard, keys)[0]
        assert np.flatnonzero(mask).tolist() == rows[rows != 6].tolist()
    assert not shards_of(root, stream, plan="others").kept(shard, keys)[0].any()
    assert not shards_of(root, stream, plan="weights").kept(2, keys)[0].any()

"""Shards that others write and one writer accepts: the same bytes, and a late one never counts."""

import errno
import shutil

import numpy as np
import pytest

from cache import StreamForm, StreamShards, StreamWriter
from cache.storage import local
from cache.write.staged import StagedWork
from tests.cache import toy
from tests.raising import cache_refuses
from tests.trees import contents

SPLIT = "toy/train"
WRITING = f"{SPLIT}/features/resnet50/.writing"
FORMS = {
    "resnet50": StreamForm(4),
    "crops": StreamForm(3, "float32"),
}


def writer_of(root, stream="resnet50", *, plan="weights"):
    return StreamWriter(root, SPLIT, stream, FORMS[stream], plan=plan)


def shards_of(root, stream="resnet50", *, plan="weights"):
    return StreamShards(root, SPLIT, stream, FORMS[stream], plan=plan)


@pytest.fixture
def root(tracks):
    """A split of five shards without features."""
    return tracks


def test_a_shard_of_another_state_of_the_split_is_not_taken(root, tmp_path):
    old = shards_of(root)
    for shard in (0, 4):
        old.stage(*toy.given(old, shard))
    kept = shutil.copytree(root / WRITING, tmp_path / "kept")
    shutil.rmtree(root)
    toy.write(root, toy.videos(seed=1))  # replaced: other rows under the same numbers
    shutil.copytree(kept, root / WRITING)
    with writer_of(root) as writer:
        assert writer.shards.list_staged() == {}
        assert writer.shards.pending == [0, 1, 2, 3, 4]


def test_what_is_not_pending_or_of_another_form_is_not_taken(root):
    shards = shards_of(root)
    wide = StreamShards(root, SPLIT, "resnet50", StreamForm(5), plan="weights")
    with writer_of(root) as writer:
        for _ in range(2):
            shards.stage(*toy.given(shards, 0))
        writer.accept_staged()
        with cache_refuses("shard 0: is not pending"):
            writer.write(*toy.given(writer.shards, 0))
        shard, features, ok, keys = toy.given(wide, 1)
        wide.stage(shard, features, ok, keys)
        writer.accept_staged()
        assert writer.shards.pending == [1, 2, 3, 4]
        assert writer.refused == []


def test_a_writer_accepts_what_others_have_staged_and_forgets_what_it_refuses(root):
    """So that any process computes a refused shard again."""
    shards = shards_of(root)
    with writer_of(root) as writer:
        for shard in (0, 1, 2):
            shards.stage(*toy.given(shards, shard))
        (gone,) = (root / WRITING).glob("staged/*/file-1-*-resnet50_ok")
        gone.unlink()
        writer.accept_staged()
        assert writer.shards.pending == [1, 3, 4]
        (refused,) = writer.refused
        assert "found no such file" in refused
        assert sorted(shards.list_staged()) == [0, 2]
        shards.stage(*toy.given(shards, 1))
        writer.accept_staged()
        assert writer.shards.pending == [3, 4]


def test_pieces_of_accepted_shards_are_not_read_again(root, monkeypatch):
    """Else the work would grow with the square of the shards."""
    shards = shards_of(root)
    taken = []
    read = StagedWork.read

    def watched(work, names):
        names = list(names)
        taken.extend(names)
        return read(work, names)

    monkeypatch.setattr(StagedWork, "read", watched)
    with writer_of(root) as writer:
        for shard in range(5):
            shards.stage(*toy.given(shards, shard))
            writer.accept_staged()
    assert len(taken) == 5


def test_a_full_disk_leaves_no_half_file(root, monkeypatch):
    shards = shards_of(root)
    before = contents(root / WRITING)

    def full(file, data, *_):
        file.write_bytes(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(local, "write_synced", full)
    for _ in range(2):
        with pytest.raises(OSError, match="No space"):
            shards.stage(*toy.given(shards, 0))
    assert contents(root / WRITING) == before


@pytest.mark.parametrize("stream", FORMS)
def test_a_checkpoint_gives_back_its_rows_to_the_same_keys_and_plan_alone(root, stream):
    with writer_of(root, stream) as writer:
        shard, data, ok, keys = toy.given(writer.shards, 1)
        data = data.astype(FORMS[stream].dtype)
        rows = np.arange(0, len(keys), 3)
        writer.shards.checkpoint(
            shard, rows, data[rows], np.asarray(ok, np.uint8)[rows], keys[rows]
        )
    changed = keys.copy()
    changed[3, 0] += 1
    for same, given in ((rows, keys), (rows[rows != 3], changed)):
        mask, kept, flags = shards_of(root, stream, plan="weights").kept(shard, given)
        assert np.flatnonzero(mask).tolist() == same.tolist()
        assert kept[mask].tolist() == data[same].tolist()
        assert flags[mask].tolist() == np.asarray(ok, np.uint8)[same].tolist()
    if stream == "resnet50":  # no shard takes it: it would fail again and again
        data[6, 0] = np.nan
        writer.shards.checkpoint(
            shard, rows, data[rows], np.asarray(ok, np.uint8)[rows], keys[rows]
        )
        mask = shards_of(root, stream, plan="weights").kept(shard, keys)[0]
        assert np.flatnonzero(mask).tolist() == rows[rows != 6].tolist()
    assert not shards_of(root, stream, plan="others").kept(shard, keys)[0].any()
    assert not shards_of(root, stream, plan="weights").kept(2, keys)[0].any()

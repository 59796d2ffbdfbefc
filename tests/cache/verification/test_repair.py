"""A repair writes again what follows from the manifest, removes damaged shards, and leaves all else
to commands.
"""

import shutil

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import cache
from cache import CacheError
from tests.cache import toy
from tests.cache.toy import flipped, spoil
from tests.raising import all_raise, cache_refuses

SPLIT = "toy/train"
MANIFEST, STREAM = f"{SPLIT}/manifest.json", f"{SPLIT}/features/resnet50/manifest.json"


def repaired(root):
    return cache.repair(root, cache.verify(root))


def test_what_follows_from_the_manifest_is_written_again(root):
    before = toy.tree(root)

    metadata = [key for key in before if key.endswith("zarr.json")]
    assert len(metadata) > 15
    for key in metadata:
        spoil(root / key) if len(key) % 2 else (root / key).unlink()
    report = cache.verify(root)
    damaged = {damage.key: damage.what for damage in report.damaged}
    assert damaged.keys() == {*metadata}
    for key in metadata:
        assert ("found no file. Write it again: " in damaged[key]) == (len(key) % 2 == 0)
    done = cache.repair(root, report)
    assert (set(done.restored), done.refused, done.removed) == ({*metadata}, [], [])
    assert toy.tree(root) == before


def test_a_damaged_file_of_tables_or_manifest_names_the_command_that_replaces_it_and_the_rest_is_repaired(
    root,
):
    before = toy.tree(root)
    tables = toy.tables_file(root).relative_to(root).as_posix()
    for key, do in (
        (tables, "convert the split again"),
        (MANIFEST, "convert the split again"),
        (STREAM, "extract the stream again"),
    ):
        for gone in (False, True):
            (root / key).unlink() if gone else spoil(root / key)
            spoil(root / "toy/zarr.json")
            if gone and key != tables:
                all_raise(
                    CacheError,
                    do,
                    lambda: toy.opened(root).windows(4, 4, "resnet50"),
                    lambda: toy.stream_writer(root).__enter__(),
                )
                assert any("manifest" in problem for problem in cache.gc(root).problems)
            problems, done = cache.verify(root).problems, repaired(root)
            assert any(key in problem and do in problem for problem in problems)
            assert done.restored == ["toy/zarr.json"]
            assert any(key in refused and do in refused for refused in done.refused)
            after = toy.tree(root)
            assert {name for name in before if after.get(name) != before[name]} == {key}
            (root / key).write_bytes(before[key])


def test_a_split_whose_manifest_is_damaged_is_converted_again_and_its_features_stay(root):
    (root / MANIFEST).write_text("{}")
    with cache_refuses("features of rows that are then as before are kept"):
        toy.write(root, toy.videos())
    (root / MANIFEST).unlink()
    shutil.rmtree(root / SPLIT / "frame_index")  # as a user removes what is left of the split
    toy.write(root, toy.videos())
    split = toy.opened(root)
    expected = toy.features(np.arange(143), 4).astype(np.float16)
    assert_array_equal(split.rows("features/resnet50", 0, 143), expected)
    assert cache.verify(root).ok


def test_a_repair_beside_a_writer_is_refused_and_changes_nothing(root):
    spoil(root / f"{SPLIT}/features/resnet50/c/1/0")
    spoil(root / f"{SPLIT}/bbox/zarr.json")
    report, before = cache.verify(root), toy.tree(root)
    writers = (
        cache.store_at(root).lock(f"{home}/.writing")
        for home in (SPLIT, f"{SPLIT}/features/resnet50")
    )
    locks = list(writers)
    done = cache.repair(root, report)
    for lock in locks:
        lock.release()
    assert len(done.refused) == 2
    assert all("no other writer" in refused for refused in done.refused)
    assert toy.tree(root) == before


@pytest.fixture
def objects(memory):
    """s3://memory/cache with the toy split and stream, and the store of objects behind it."""
    cache.store_at("s3://memory/cache").remove([""])
    toy.write("s3://memory/cache", toy.videos())
    toy.write_stream("s3://memory/cache")
    return __import__("obstore").store.from_url("s3://memory/cache")


def test_a_cache_in_an_object_store_is_verified_and_repaired_too(objects):
    root = "s3://memory/cache"
    assert cache.verify(root).ok
    assert cache.verify(root, fast=True).ok
    for key in (
        f"{SPLIT}/bbox/zarr.json",
        f"{SPLIT}/features/resnet50/c/1/0",
        f"{SPLIT}/pose/c/0/0",
    ):
        objects.put(key, flipped(bytes(objects.get(key).bytes()), 80))
    objects.delete(f"{SPLIT}/features/resnet50_ok/c/3")
    fast, full = cache.verify(root, fast=True), cache.verify(root)
    assert [(d.array, d.shard) for d in fast.damaged if d.shard is not None] == [("resnet50_ok", 3)]
    assert len(full.damaged) == 4
    done = cache.repair(root, full)
    assert (done.restored, done.refused) == ([f"{SPLIT}/bbox/zarr.json"], [])
    assert (done.streams, done.rows) == ({(SPLIT, "resnet50"): (1, 3)}, {SPLIT: (0,)})
    assert len(done.removed) == 5
    toy.write_stream(root)
    assert [damage.key for damage in cache.verify(root).damaged] == [f"{SPLIT}/pose/c/0/0"]


def test_an_object_store_that_does_not_answer_is_an_error_and_no_damage(objects, monkeypatch):
    import obstore

    def refuse(store, key, *_, **__):
        if "/kp_2d/c/" in key:
            raise obstore.exceptions.GenericError("connection refused")
        return real(store, key)

    real = obstore.head
    monkeypatch.setattr(obstore, "head", refuse)
    with cache_refuses(r"kp_2d/c/0/0/0: expected an answer from the object store"):
        cache.verify("s3://memory/cache")


def test_a_damaged_shard_that_no_track_needs_any_more_is_not_missed(root):
    toy.add(root, "d", 70, seed=1, drop=["d"], plan="other")
    toy.write_stream(root)
    for shard, missed in ((2, False), (0, True)):  # 2 has rows of the old video d alone
        spoil(root / SPLIT / f"features/resnet50/c/{shard}/0")
        assert repaired(root).streams == {(SPLIT, "resnet50"): (shard,)}
        with toy.stream_writer(root) as writer:
            assert (shard in writer.shards.pending) == missed


def test_what_the_report_names_stays_where_it_is_intact_by_now(root):
    names = [
        f"{SPLIT}/{name}"
        for name in ("kp_2d/c/1/0/0", "features/resnet50/c/1/0", "features/resnet50/c/3/0")
    ]
    good = {name: spoil(root / name) for name in names}
    report = cache.verify(root)
    for name in names[:2]:
        (root / name).write_bytes(good[name])
    done = cache.repair(root, report)
    assert (done.rows, done.streams) == ({}, {(SPLIT, "resnet50"): (3,)})
    assert cache.verify(root).ok

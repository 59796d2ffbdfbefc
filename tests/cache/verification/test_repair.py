"""A damaged cache is mended from what is intact of it; what cannot be is taken out, and never lost."""

from __future__ import annotations

import functools
import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from cache import CacheError, SplitWriter, StreamWriter

MANIFEST = "toy/train/manifest.json"
STREAM = "toy/train/features/resnet50/manifest.json"


@pytest.fixture
def root(tmp_path: Path, toy: Any) -> Path:
    toy.write(tmp_path / "cache", toy.videos())
    toy.write_stream(tmp_path / "cache")
    return tmp_path / "cache"


def everything(root: Path) -> dict[str, bytes]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file() and path.name != "provenance.json")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def spoil(file: Path, at: float = 0.5) -> bytes:
    """Change one bit of a file; its bytes as they were."""
    before = file.read_bytes()
    changed = bytearray(before)
    changed[int(len(before) * at)] ^= 4
    file.write_bytes(changed)
    return before


def repaired(root: Path) -> cache.Repaired:
    return cache.repair(root, cache.verify(root))


def test_every_small_file_is_mended_from_its_other_copy(root: Path) -> None:
    before = everything(root)
    small = [key for key in before if "/c/" not in key or key.split("/c/")[0].split("/")[-1].startswith(TABLES)]
    rng = random.Random(0)
    assert len(small) > 100
    copies = {key for key in small if "/.copy/" in key}
    for keys in (copies, set(small) - copies):
        for key in sorted(keys):
            if rng.random() < 0.2:
                (root / key).unlink() if key != "zarr.json" else spoil(root / key)
            else:
                spoil(root / key, rng.random())
        done = repaired(root)
        assert (set(done.mended), done.refused, done.quarantined) == (keys, [], {})
        assert everything(root) == before


TABLES = ("track_", "video_", "run_")


def test_metadata_of_which_both_copies_are_damaged_is_made_again(root: Path) -> None:
    before = everything(root)
    for key in before:
        if key.endswith(("kp_2d/zarr.json", "resnet50_ok/zarr.json")):
            spoil(root / key)
    assert repaired(root).refused == []
    assert everything(root) == before


def test_a_table_of_which_both_copies_are_damaged_is_told_and_the_rest_is_mended(root: Path) -> None:
    before = everything(root)
    lost = [key for key in before if key.endswith("track_start/c/0")]
    assert len(lost) == 2
    for key in lost:
        spoil(root / key)
    spoil(root / "toy/train/run_start/c/0")
    (refused,) = repaired(root).refused
    assert "track_start/c/0: expected it, or its copy, to be intact, found both damaged (1 files are so)" in refused
    after = everything(root)
    assert {key for key in before if after[key] != before[key]} == set(lost)


@pytest.mark.parametrize("key", [MANIFEST, STREAM])
def test_a_lost_manifest_comes_back_from_its_only_copy(root: Path, key: str) -> None:
    before = everything(root)
    (root / key).unlink()
    assert repaired(root).mended == [key]
    assert everything(root) == before


def test_a_manifest_that_is_lost_with_all_metadata_comes_back_too(root: Path) -> None:
    before = everything(root)
    for key in (STREAM, *(key for key in before if "features/resnet50" in key and key.endswith("zarr.json"))):
        if ".copy" not in key:
            (root / key).unlink()
    assert len(repaired(root).mended) == 4
    assert everything(root) == before


def test_a_first_commit_that_was_killed_is_left_to_the_next_run(
    tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("cache.storage.local.Folder.replace", killed)
        toy.write(tmp_path / "new", toy.videos())
    report = cache.verify(tmp_path / "new")
    assert report.ok
    assert any("nothing is committed yet" in note for note in report.notes)
    before = everything(tmp_path / "new")
    assert cache.repair(tmp_path / "new", report) == cache.Repaired()
    assert everything(tmp_path / "new") == before


def test_of_two_copies_the_one_that_the_damaged_manifest_names_is_taken(root: Path, toy: Any) -> None:
    old = next((root / "toy/train/.copy").iterdir())
    shutil.copytree(old, root.parent / old.name)
    toy.write(root, [*toy.videos(), toy.video("x", [40])], plan="x")
    before = everything(root)
    shutil.copytree(root.parent / old.name, old)  # as a commit leaves it that is killed just before its end
    spoil(root / MANIFEST, 0.9)
    assert repaired(root).refused == []
    assert {key: data for key, data in everything(root).items() if f"/{old.name}/" not in key} == before


def test_a_manifest_is_not_guessed_where_two_may_have_been_in_force(root: Path, toy: Any) -> None:
    old = next((root / "toy/train/.copy").iterdir())
    shutil.copytree(old, root.parent / old.name)
    toy.write(root, [*toy.videos(), toy.video("x", [40])], plan="x")
    shutil.copytree(root.parent / old.name, old)
    (root / MANIFEST).unlink()
    before = everything(root)
    (refused,) = repaired(root).refused
    assert "2 that may have been in force" in refused
    assert everything(root) == before


def test_a_manifest_that_a_killed_commit_may_have_replaced_is_not_guessed(
    root: Path, toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("cache.storage.local.Folder.replace", killed)  # all is staged, and the manifest is the old one
        toy.write(root, [*toy.videos(), toy.video("x", [40])], plan="x")
    (root / MANIFEST).unlink()
    (refused,) = repaired(root).refused
    assert "2 that may have been in force" in refused


def test_a_stream_that_was_half_discarded_does_not_come_back(root: Path) -> None:
    (root / STREAM).unlink()
    (root / "toy/train/features/resnet50_ok/c/3").unlink()
    assert any("resnet50_ok/c/3 is missing, too" in told for told in repaired(root).refused)
    assert not (root / STREAM).exists()


def test_another_versions_manifest_is_left_alone(root: Path) -> None:
    text = (root / MANIFEST).read_bytes()
    of = {key: value for key, value in json.loads(text).items() if key != "digest"} | {"format": "vibe-cache 9"}
    (root / MANIFEST).write_text(json.dumps({**of, "digest": cache.fingerprint(of)}))
    before = everything(root)
    assert any("Use the version that wrote it" in told for told in repaired(root).refused)
    assert everything(root) == before


def test_a_damaged_shard_of_a_stream_is_taken_out_and_pending_again(root: Path, toy: Any) -> None:
    before = everything(root)
    damaged = [f"toy/train/features/{name}" for name in ("resnet50/c/1/0", "resnet50_ok/c/1", "resnet50_key/c/1/0")]
    spoil(root / damaged[0])
    (root / damaged[1]).unlink()
    bytes_there = (root / damaged[0]).read_bytes()
    done = repaired(root)
    assert done.streams == {("toy/train", "resnet50"): (1,)}
    assert done.quarantined == {key: f".quarantine/{key}" for key in (damaged[0], damaged[2])}
    assert (root / ".quarantine" / damaged[0]).read_bytes() == bytes_there
    assert (root / ".quarantine" / damaged[2]).read_bytes() == before[damaged[2]]
    report = cache.verify(root)
    assert report.ok
    assert [note for note in report.notes if ".quarantine" not in note] == []
    with StreamWriter(root, "toy/train", "resnet50", dim=4, plan="weights") as writer:
        assert writer.pending == [1]
    toy.write_stream(root)
    after = {key: data for key, data in everything(root).items() if not key.startswith(".quarantine")}
    assert {key: after[key] for key in before if "features/resnet50" in key and "/c/" in key} == {
        key: data for key, data in before.items() if "features/resnet50" in key and "/c/" in key
    }
    assert after[STREAM] == before[STREAM]


def test_what_is_in_quarantine_already_is_never_written_over(root: Path, toy: Any) -> None:
    key = "toy/train/features/resnet50/c/1/0"
    kept = []
    for at in (0.2, 0.4, 0.6):
        spoil(root / key, at)
        kept.append((root / key).read_bytes())
        repaired(root)
        toy.write_stream(root)
    folder = root / ".quarantine/toy/train/features/resnet50/c"
    assert [(folder / name / "0").read_bytes() for name in ("1", "1.1", "1.2")] == kept


def test_a_damaged_shard_with_rows_of_tracks_waits_for_the_raw_data(root: Path) -> None:
    spoil(root / "toy/train/kp_2d/c/2/0/0")
    before = everything(root)
    done = repaired(root)
    assert done.rows == {"toy/train": (2,)}
    assert everything(root) == before


def test_a_damaged_shard_of_replaced_rows_alone_is_let_go_of(root: Path, toy: Any) -> None:
    again = toy.video("d", [70], seed=1)  # rows 37 to 107 were its: all of shard 2 is nobody's now
    toy.write(root, [again], drop=["d"], plan="d anew")
    seen = {track.name: (track.start, track.stop) for track in cache.open(root)["toy/train"].tracks}
    spoil(root / "toy/train/kp_2d/c/2/0/0")
    (root / "toy/train/pose/c/2/0").unlink()
    done = repaired(root)
    assert (done.rows, done.refused) == ({}, [])
    assert ".quarantine/toy/train/kp_2d/c/2/0/0" in done.quarantined.values()
    assert len(done.quarantined) == 9 - 1  # all columns' files of that shard
    assert cache.verify(root).ok
    split = cache.open(root)["toy/train"]
    assert {track.name: (track.start, track.stop) for track in split.tracks} == seen
    assert split.manifest["plan"] == "d anew"
    for name, person, seed in (("a", 0, 0), ("d", 0, 1), ("f", 0, 0)):
        start, stop = seen[f"{name}/{person}"]
        expected = toy.track(f"{name}/{person}", stop - start, seed=seed).columns["kp_2d"]
        np.testing.assert_array_equal(split.rows("kp_2d", start, stop), expected)


def test_a_repair_beside_a_writer_is_refused_and_moves_nothing(root: Path, toy: Any) -> None:
    spoil(root / "toy/train/features/resnet50/c/1/0")
    spoil(root / "toy/train/run_start/c/0")
    report = cache.verify(root)
    before = everything(root)
    with (
        SplitWriter(root, "toy/train", columns=toy.columns, plan="p"),
        StreamWriter(root, "toy/train", "resnet50", dim=4, plan="weights"),
    ):
        done = cache.repair(root, report)
    assert len(done.refused) == 2
    assert all("no other writer" in told for told in done.refused)
    assert everything(root) == before


def test_what_a_report_of_yesterday_tells_of_is_left_alone_where_it_is_intact_today(root: Path) -> None:
    spoilt = (
        *(f"toy/train/{name}" for name in ("kp_2d/c/1/0/0", "features/resnet50/c/1/0", "features/resnet50/c/3/0")),
    )
    good = {name: spoil(root / name) for name in spoilt}
    yesterday = cache.verify(root)
    assert {(damage.stream, damage.shard) for damage in yesterday.damaged} == {
        (None, 1),
        ("resnet50", 1),
        ("resnet50", 3),
    }
    for name in spoilt[:2]:
        (root / name).write_bytes(good[name])
    done = cache.repair(root, yesterday)
    assert (done.rows, done.streams) == ({}, {("toy/train", "resnet50"): (3,)})
    assert all("/c/3" in key for key in done.quarantined)
    assert cache.verify(root).ok


def test_an_intact_cache_is_not_touched(root: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in [root, *root.rglob("*")]}
    assert repaired(root) == cache.Repaired()
    assert {path: path.stat().st_mtime_ns for path in [root, *root.rglob("*")]} == before


def changes_of(work: Callable[[], object], *, die_at: int | None = None) -> int:
    """How many changes of names and syncs a piece of work makes; in a process that dies before the n-th of them."""
    count = 0
    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "rename", "unlink", "mkdir", "fsync"):
            real = getattr(os, name)

            def change(*args: Any, real: Any = real, **options: Any) -> Any:
                nonlocal count
                count += 1
                if count == die_at:
                    os._exit(DIED)
                return real(*args, **options)

            patch.setattr(os, name, change)
        work()
    return count


DIED = 99


def killed_at(number: int, work: Callable[[], object]) -> None:
    child = os.fork()
    if not child:
        changes_of(work, die_at=number)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == DIED


@pytest.mark.parametrize("kills", [3, pytest.param(12, marks=pytest.mark.slow)])
def test_a_repair_that_is_killed_anywhere_can_be_run_again(tmp_path: Path, toy: Any, kills: int) -> None:
    first = tmp_path / "first"
    toy.write(first, toy.videos())
    toy.write_stream(first)
    toy.write(first, [toy.video("d", [70], seed=1)], drop=["d"], plan="d anew")
    for key in (MANIFEST, "toy/train/run_start/c/0", "toy/train/zarr.json", "toy/train/features/resnet50_ok/c/3"):
        spoil(first / key)
    spoil(first / "toy/train/kp_2d/c/2/0/0")  # rows of nobody
    copy = next((first / "toy/train/.copy").iterdir())
    spoil(copy / "track_stop/c/0")
    calm = tmp_path / "calm"
    shutil.copytree(first, calm)
    total = changes_of(functools.partial(cache.repair, calm, cache.verify(calm)))
    assert total > 60
    expected = everything(calm)
    arrays = (*toy.columns, "resnet50", "resnet50_ok", "resnet50_key")
    shards = {data for key, data in everything(first).items() if key.split("/c/")[0].split("/")[-1] in arrays}
    for number in np.unique(np.linspace(1, total, kills).round()).astype(int).tolist():
        root = tmp_path / str(number)
        shutil.copytree(first, root)
        report = cache.verify(root)
        killed_at(number, functools.partial(cache.repair, root, report))
        assert repaired(root).refused == [], number
        assert cache.verify(root).ok, number
        left = {"/.writing/", *(f"/.copy/{copy.name}/" for copy in (first / "toy/train/.copy").iterdir())}
        after = {key: data for key, data in everything(root).items() if not any(name in key for name in left)}
        assert {k: v for k, v in after.items() if not k.startswith(".quarantine")} == {
            k: v for k, v in expected.items() if not k.startswith(".quarantine")
        }, number
        assert shards <= set(after.values()), number  # whatever was taken out is in quarantine
        shutil.rmtree(root)


def test_no_cache_is_an_error(root: Path, tmp_path: Path) -> None:
    with pytest.raises(CacheError, match="feature cache"):
        cache.repair(tmp_path / "nowhere", cache.verify(root))


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch, toy: Any) -> Any:
    """s3://memory/cache with the toy split and stream, and the store of objects behind it."""
    stores = pytest.importorskip("obstore.store")
    kept = stores.MemoryStore()
    monkeypatch.setattr(stores, "from_url", lambda url, **_: kept)
    toy.write("s3://memory/cache", toy.videos())
    toy.write_stream("s3://memory/cache")
    return kept


def test_a_cache_in_an_object_store_is_verified_and_repaired_too(objects: Any, toy: Any) -> None:
    root: Any = "s3://memory/cache"
    assert cache.verify(root).ok
    assert cache.verify(root, fast=True).ok
    for key in (MANIFEST, "toy/train/track_start/c/0", "toy/train/features/resnet50/c/1/0", "toy/train/pose/c/0/0"):
        data = bytearray(objects.get(key).bytes())
        data[len(data) // 2] ^= 4
        objects.put(key, bytes(data))
    objects.delete("toy/train/features/resnet50_ok/c/3")
    fast, full = cache.verify(root, fast=True), cache.verify(root)
    assert [(d.array, d.shard) for d in fast.damaged if d.shard is not None] == [("resnet50_ok", 3)]
    assert len(full.damaged) == 5
    done = cache.repair(root, full)
    assert (done.mended, done.refused) == ([MANIFEST, "toy/train/track_start/c/0"], [])
    assert (done.streams, done.rows) == ({("toy/train", "resnet50"): (1, 3)}, {"toy/train": (0,)})
    assert len(done.quarantined) == 5
    assert bytes(objects.get(".quarantine/toy/train/features/resnet50/c/1/0").bytes())
    toy.write_stream(root)
    assert [damage.key for damage in cache.verify(root).damaged] == ["toy/train/pose/c/0/0"]


def test_an_object_store_that_does_not_answer_is_an_error_and_no_damage(
    objects: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import obstore

    def refuse(store: Any, key: str, *_: Any, **__: Any) -> Any:
        if "/kp_2d/c/" in key:
            raise obstore.exceptions.GenericError("connection refused")
        return real(store, key)

    real = obstore.get
    monkeypatch.setattr(obstore, "get", refuse)
    with pytest.raises(CacheError, match=r"kp_2d/c/0/0/0: expected an answer from the object store"):
        cache.verify("s3://memory/cache")

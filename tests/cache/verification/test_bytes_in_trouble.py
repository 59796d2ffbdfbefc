"""Streams of bytes that are damaged, left half, replaced, discarded or compacted."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cache
from cache import CacheChanged, CacheError
from tests.cache.write.blobs import FEATURES, ROOM, SPLIT, flip, of_track, writer_of


@pytest.mark.parametrize("array", ["crops/c/1", "crops_at/c/1/0", "crops_ok/c/1", "crops_key/c/1/0"])
def test_a_flipped_bit_is_found_told_and_mended_by_extracting_the_shard_anew(own: Path, toy: Any, array: str) -> None:
    before = toy.tree(own)
    flip(own / FEATURES / array, 100)
    report = cache.verify(own)
    assert [(found.stream, found.array, found.shard) for found in report.damaged] == [
        ("crops", array.partition("/")[0], 1)
    ]
    if array.startswith(("crops/", "crops_at/")):
        with pytest.raises(CacheError, match="checksum"):
            cache.open(own)[SPLIT].blobs("crops", [33])
    done = cache.repair(own, report)
    assert done.streams == {(SPLIT, "crops"): (1,)}
    assert sorted(done.quarantined) == [
        f"{FEATURES}/{file}" for file in ("crops/c/1", "crops_at/c/1/0", "crops_key/c/1/0", "crops_ok/c/1")
    ]
    assert cache.verify(own).ok
    toy.write_blobs(own, bad_rows=[3, 40])
    shutil.rmtree(own / ".quarantine")
    assert toy.tree(own) == before


def test_a_missing_or_short_shard_is_found_fast(own: Path) -> None:
    (own / FEATURES / "crops/c/0").unlink()
    with (own / FEATURES / "crops/c/2").open("r+b") as file:
        file.truncate(1000)
    report = cache.verify(own, fast=True)
    assert [(found.array, found.shard) for found in report.damaged] == [("crops", 0), ("crops", 2)]
    for row, told in ((2, "no file"), (70, "1000 bytes")):
        with pytest.raises(CacheError, match=told):
            cache.open(own)[SPLIT].blobs("crops", [row])


def test_an_interrupted_verification_goes_on_without_what_it_has_checked(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(BaseException):
        pass

    def interrupt(done: int, total: int, speed: str) -> None:
        if done == total - 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        cache.verify(own, progress=interrupt)
    report = cache.verify(own)
    assert report.ok
    assert report.carried > 50


def test_places_that_do_not_fit_the_bytes_are_damage_though_every_checksum_is_right(
    own: Path, toy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.forget(own, SPLIT, "crops", [1, 2, 3])
    spoilt = {1: lambda at: at + 1, 2: lambda at: np.where(at < 0, 0, at[::-1]), 3: lambda at: np.where(at < 0, at, 7)}
    with writer_of(own) as writer:
        checked = writer.shards.checked

        def spoil(shard: int, *given: Any) -> Any:
            arrays = checked(shard, *given)
            return {**arrays, "crops_at": spoilt[shard](arrays["crops_at"])}

        monkeypatch.setattr(writer.shards, "checked", spoil)
        for shard in writer.pending:
            rows = np.asarray(writer.rows(shard))
            writer.write(shard, toy.blobs(rows), np.ones(len(rows)), toy.keys(rows))
        writer.commit({})
    report = cache.verify(own)
    assert [(found.array, found.shard) for found in report.damaged] == [("crops_at", shard) for shard in (1, 2, 3)]
    assert cache.repair(own, report).streams == {(SPLIT, "crops"): (1, 2, 3)}
    assert cache.verify(own).ok


@pytest.mark.parametrize("stop", [1 << 45, -(1 << 45)])
def test_places_decide_neither_how_much_is_read_nor_whose_bytes(
    own: Path, toy: Any, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    cache.forget(own, SPLIT, "crops", [1])
    with writer_of(own) as writer:
        checked = writer.shards.checked

        def spoil(shard: int, *given: Any) -> Any:
            arrays = checked(shard, *given)
            return {**arrays, "crops_at": np.where(arrays["crops_at"] < 0, -1, arrays["crops_at"] + [0, stop])}

        monkeypatch.setattr(writer.shards, "checked", spoil)
        rows = np.asarray(writer.rows(1))
        writer.write(1, toy.blobs(rows), np.ones(len(rows)), toy.keys(rows))
        writer.commit({})
    live = np.flatnonzero(cache.open(own)[SPLIT].track_of(rows) >= 0)
    with pytest.raises(CacheError, match=f"crops_at: expected bytes of row {rows[live[0]]} within {32 * ROOM} to"):
        cache.open(own)[SPLIT].blobs("crops", rows[live])
    toy.write(own, [], drop=[cache.open(own)[SPLIT].videos.names[0]])  # else nothing is carried over
    with writer_of(own) as writer, pytest.raises(CacheError, match="expected bytes of row"):
        writer.carried(toy.keys(rows[live]))


def test_small_files_come_back_from_their_copies(own: Path, toy: Any) -> None:
    before = toy.tree(own)
    (own / FEATURES / "crops_at/zarr.json").write_text("{}")
    (own / FEATURES / "crops/zarr.json").unlink()
    flip(own / FEATURES / "crops/manifest.json", 200)
    report = cache.verify(own)
    assert not report.ok
    cache.repair(own, report)
    assert toy.tree(own) == before


def test_every_array_of_it_is_known_by_name_and_a_stranger_is_not(own: Path) -> None:
    assert cache.verify(own).notes == ()
    (own / FEATURES / "crops_at/c/9").mkdir()
    (own / FEATURES / "crops_at/c/9/0").write_bytes(b"left")
    (own / FEATURES / "crops/c/9").write_bytes(b"left")
    notes = cache.verify(own).notes
    assert len(notes) == 2
    assert all("shards [9] are named by no manifest" in note for note in notes)
    assert sorted(cache.gc(own).removed) == [f"{FEATURES}/crops/c/9", f"{FEATURES}/crops_at/c/9"]
    assert cache.verify(own).notes == ()


def test_what_a_killed_first_run_has_left_is_cleared_up(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, toy.videos())
    before = toy.tree(tmp_path)
    with writer_of(tmp_path) as writer:
        rows = np.asarray(writer.rows(1))
        writer.write(1, toy.blobs(rows), np.ones(len(rows)), toy.keys(rows))
    notes = cache.verify(tmp_path).notes
    assert sum("shards [1] are named by no manifest" in note for note in notes) == 4
    cache.gc(tmp_path, unfinished=True)
    assert toy.tree(tmp_path) == before
    assert cache.verify(tmp_path).notes == ()


def test_arrays_of_a_stream_whose_folder_is_gone_are_left_overs(own: Path) -> None:
    shutil.rmtree(own / FEATURES / "crops")
    assert sorted(cache.gc(own).removed) == [f"{FEATURES}/crops_{part}" for part in ("at", "key", "ok")]


def test_a_discarded_stream_leaves_nothing(own: Path) -> None:
    cache.discard(own, SPLIT, "crops")
    assert sorted(path.name for path in (own / FEATURES).iterdir()) == ["zarr.json"]


def test_bytes_of_other_rows_under_the_same_numbers_are_never_taken_for_these(own: Path, toy: Any) -> None:
    for entry in (".copy", "manifest.json"):
        path = own / SPLIT / entry
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    toy.write(own, toy.videos(seed=9))
    split = cache.open(own)[SPLIT]
    assert split.stream_shards("crops") == []
    with pytest.raises(CacheError, match="row 0: the stream does not have it, or not yet"):
        split.blobs("crops", [0])
    with writer_of(own) as writer:
        assert writer.pending == [0, 1, 2, 3, 4]
        assert not writer.carried(toy.keys(np.arange(10)))[0].any()


def test_a_stream_made_anew_under_an_open_split_is_noticed(own: Path, toy: Any) -> None:
    opened = cache.open(own)[SPLIT]
    opened.blobs("crops", [0, 2])
    cache.discard(own, SPLIT, "crops")
    toy.write_blobs(own, bad_rows=[5], plan="quality 90")
    with pytest.raises(CacheChanged):
        opened.blobs("crops", [40])


def test_compaction_takes_the_bytes_along(own: Path, toy: Any) -> None:
    toy.write(own, [toy.video("b", [40], seed=5)], drop=["b", "f"], plan="second")
    toy.write_blobs(own)
    old = cache.open(own)[SPLIT]
    before = {track.name: of_track(old, track) for track in old.tracks}
    cache.compact(own, SPLIT)
    new = cache.open(own)[SPLIT]
    assert new.manifest["extent"] == new.manifest["rows"]
    assert {track.name: of_track(new, track) for track in new.tracks} == before
    report = cache.verify(own)
    assert report.ok
    assert report.notes == ()

"""Features beside the tracks: written by shard, carried over by key, made for rows that never change."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import cache
from cache import CacheChanged, CacheError, StreamWriter


def writer_of(root: Path, **options: Any) -> StreamWriter:
    return StreamWriter(root, "toy/train", "resnet50", **{"dim": 4, "plan": "weights", **options})


def test_pending_are_the_shards_with_committed_rows(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, toy.videos())
    with writer_of(tmp_path) as writer:
        assert writer.pending == [0, 1, 2, 3, 4]
        assert writer.rows(4) == range(128, 143)
        for shard in (3, 0):
            rows = np.asarray(writer.rows(shard))
            writer.write(shard, toy.features(rows, 4), np.ones(len(rows)), toy.keys(rows))
        assert writer.pending == [1, 2, 4]
        writer.commit({"weights": "known"})
        assert writer.pending == [1, 2, 4]
    split = cache.open(tmp_path)["toy/train"]
    assert split.streams == ("resnet50",)
    assert split.stream_manifest("resnet50")["weights"] == "known"
    assert split.stream_manifest("resnet50")["split_digest"] == ""  # of no state of the split: shards are pending
    assert split.windows(4, 4, "resnet50")[:, 0].min() == 0
    assert split.windows(4, 4, "resnet50")[-1].tolist() == [123, 127]
    toy.write_stream(tmp_path)
    now = cache.open(tmp_path)["toy/train"]
    assert now.stream_manifest("resnet50")["split_digest"] == split.manifest["digest"]
    assert cache.verify(tmp_path).ok
    through_zarr = zarr.open_array(tmp_path / "toy/train/features/resnet50", mode="r")[:]
    np.testing.assert_array_equal(through_zarr, toy.features(np.arange(143), 4))


def test_shards_of_dropped_videos_alone_are_not_pending(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, toy.videos())
    toy.write(tmp_path, [toy.video("g", [3])], drop=["d"])
    with writer_of(tmp_path) as writer:
        assert writer.pending == [0, 1, 3, 4, 5]  # d took 37-107: all of shard 2
        assert writer.live(1).tolist() == [True] * 5 + [False] * 27


def test_rows_without_features_are_counted_where_their_tracks_are_still_there(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, toy.videos())
    toy.write_stream(tmp_path, bad_rows=(3, 31, 32, 33, 100))  # 3 is of the video a, 31 to 33 lie in two shards
    assert cache.open(tmp_path)["toy/train"].undecodable("resnet50") == 5
    toy.write(tmp_path, [], drop=["a"])
    assert cache.open(tmp_path)["toy/train"].undecodable("resnet50") == 4


def test_rows_with_nothing_to_compute_from_have_a_value_wherever_rows_go(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, toy.videos())
    toy.write_stream(tmp_path, bad_rows=[12], undefined_rows=[10, 17, 37, 64])  # in runs [10, 17), [17, 37), [37, 107)
    split = cache.open(tmp_path)["toy/train"]
    assert split.undecodable("resnet50") == 1
    assert split.windows(4, 4, "resnet50")[:8, 0].tolist() == [0, 4, 13, 17, 21, 25, 29, 33]
    found = split.read([[17, 20], [63, 66]], "resnet50", ["features"])["features"]
    np.testing.assert_array_equal(found[0], [[0] * 4, *toy.features(np.array([18, 19]), 4)])
    np.testing.assert_array_equal(found[1, 1], [0] * 4)
    with pytest.raises(CacheError, match="row 12: its picture"):
        split.read([[10, 14]], "resnet50")
    assert cache.verify(tmp_path).ok
    # Carried over by their keys, and written again by a compaction.
    toy.write(tmp_path, [toy.video("b", [7, 20], seed=3)], drop=["b"])  # b was in rows 10-37, is appended from 160
    with writer_of(tmp_path) as writer:
        _, features, ok = writer.carried(toy.keys(np.arange(10, 37)))
        assert ok.tolist() == [2, 1, 0, 1, 1, 1, 1, 2, *[1] * 19]
        assert not features[[0, 7]].any()
        writer.write(5, features, ok, toy.keys(np.arange(10, 37)))
        writer.commit({})
    cache.compact(tmp_path, "toy/train")
    split = cache.open(tmp_path)["toy/train"]
    flags = {track.name: split.rows("features/resnet50_ok", track.start, track.stop).tolist() for track in split.tracks}
    assert flags["b/0"] == [2, 1, 0, 1, 1, 1, 1]
    assert [flags["b/1"][0], flags["d/0"][0], flags["d/0"][27]] == [2, 2, 2]
    assert sum(n == 2 for of_track in flags.values() for n in of_track) == 4
    assert cache.verify(tmp_path).ok


def test_a_copys_name_with_a_dot_is_a_name_like_any_other(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, toy.videos())
    toy.write(tmp_path, [], drop=["a"])
    names = ("resnet50", "resnet50.j1", "resnet50.j1.x+y-z")
    for dim, name in enumerate(names, start=2):
        toy.write_stream(tmp_path, stream=name, dim=dim)
    cache.compact(tmp_path, "toy/train")
    assert not cache.gc(tmp_path).removed
    cache.delete_stream(tmp_path, "toy/train", "resnet50")
    split = cache.open(tmp_path)["toy/train"]
    assert split.streams == names[1:]
    batch = split.read(split.windows(4, 4, streams=names[1:]), streams=names[1:], fields=names[1:])
    assert [batch[name].shape[2] for name in names[1:]] == [3, 4]
    with StreamWriter(tmp_path, "toy/train", "resnet50.j2", dim=4, plan="p") as writer:
        shards = cache.StreamShards(tmp_path, "toy/train", "resnet50.j2", dim=4)
        rows = np.asarray(shards.rows(0))
        writer.accept(shards.stage(0, toy.features(rows, 4), np.ones(len(rows)), toy.keys(rows)))
        writer.commit({})
    report = cache.verify(tmp_path)
    assert (report.ok, report.notes) == (True, ())


def test_flags_that_there_are_not_are_refused(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, [toy.video("a", [10])])
    rows, ok = np.arange(10), np.ones(10, np.uint8)
    ok[3] = 3
    with writer_of(tmp_path) as writer, pytest.raises(CacheError, match=r"expected ok flags of .*found \[3\]"):
        writer.write(0, toy.features(rows, 4), ok, toy.keys(rows))
    ok[3] = cache.UNDEFINED  # bytes have no value for it
    with (
        StreamWriter(tmp_path, "toy/train", "crops", dim=0, dtype="bytes", plan="plan") as writer,
        pytest.raises(CacheError, match=r"found \[2\]"),
    ):
        writer.write(0, toy.blobs(rows), ok, toy.keys(rows))


def test_rows_of_replaced_tracks_take_no_features(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, toy.videos())
    toy.write(tmp_path, [], drop=["a"])
    toy.write_stream(tmp_path)
    group: Any = zarr.open_group(tmp_path / "toy/train/features", mode="r")
    assert np.isnan(group["resnet50"][:10]).all()
    assert (group["resnet50_ok"][:10] == 255).all()
    assert (group["resnet50_ok"][10:] == 1).all()
    assert cache.verify(tmp_path).ok


def test_unchanged_rows_are_carried_over_by_their_keys(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, toy.videos())
    toy.write_stream(tmp_path, bad_rows=[12])
    toy.write(tmp_path, [toy.video("b", [7, 20], seed=3)], drop=["b"])  # b was in rows 10-37, is appended from 160
    with writer_of(tmp_path) as writer:
        assert writer.pending == [5]
        old = np.arange(10, 37)
        keys = toy.keys(old)
        keys[-1] = [99, 99]
        mask, features, ok = writer.carried(keys)
        assert mask.tolist() == [True] * 26 + [False]
        assert ok.tolist() == [1, 1, 0] + [1] * 23 + [0]
        np.testing.assert_array_equal(features[ok == 1], toy.features(old, 4)[ok == 1])
        writer.write(5, features, ok, keys)
        writer.commit({"weights": "known"})
    found = cache.open(tmp_path)["toy/train"].read([[163, 167]], "resnet50", fields=["features"])["features"]
    np.testing.assert_array_equal(found[0], toy.features(np.arange(13, 17), 4))


def test_keys_that_differ_in_one_word_are_different_keys(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, toy.videos())
    toy.write_stream(tmp_path)
    toy.write(tmp_path, [], drop=["a"])  # something has been replaced: only then is there anything to carry over
    with writer_of(tmp_path) as writer:
        mask, _, _ = writer.carried(np.array([[0, 5], [5, 0], [1, 5], [2**64 - 1, 2**64 - 1]], np.uint64))
    assert mask.tolist() == [True, False, False, False]


def test_keys_are_found_in_every_sorted_run(tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cache.write.stream_shards._SORTED_ROWS", 40)
    toy.write(tmp_path, toy.videos())
    toy.write_stream(tmp_path)
    toy.write(tmp_path, [], drop=["a"])
    rows = np.random.default_rng(0).permutation(200)
    with writer_of(tmp_path) as writer:
        mask, features, ok = writer.carried(toy.keys(rows))
    np.testing.assert_array_equal(mask, rows < 143)
    np.testing.assert_array_equal(ok, rows < 143)
    np.testing.assert_array_equal(features[mask], toy.features(rows[mask], 4))


def test_a_stream_may_lag_behind_the_tracks(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, [toy.video("a", [40])])
    toy.write_stream(tmp_path)
    toy.write(tmp_path, [toy.video("b", [40])])
    split = cache.open(tmp_path)["toy/train"]
    assert split.windows(8, 8)[:, 0].max() == 96
    assert split.windows(8, 8, "resnet50")[:, 0].max() == 32
    with pytest.raises(CacheError, match="shard 2"):
        split.read([[64, 72]], "resnet50")


def test_features_that_are_not_finite_are_refused_where_they_count(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, [toy.video("a", [10])])
    features, ok, keys = np.zeros((10, 4)), np.ones(10, bool), toy.keys(np.arange(10))
    with writer_of(tmp_path) as writer:
        for value in (np.nan, np.inf, 1e6):
            features[3, 1] = value
            with pytest.raises(CacheError, match="row 3"):
                writer.write(0, features, ok, keys)
        ok[3] = False
        writer.write(0, features, ok, keys)


def test_what_does_not_fit_a_shard_the_form_or_a_split_is_refused(tmp_path: Path, toy: Any) -> None:
    with pytest.raises(CacheError, match="convert it before"), writer_of(tmp_path):
        pass
    toy.write(tmp_path, [toy.video("a", [10])])
    rows = np.arange(10)
    with writer_of(tmp_path) as writer:
        with pytest.raises(CacheError, match="expected features"):
            writer.write(0, toy.features(rows, 5), np.ones(10), toy.keys(rows))
        with pytest.raises(CacheError, match="not pending"):
            writer.write(1, toy.features(rows, 4), np.ones(10), toy.keys(rows))
        writer.write(0, toy.features(rows, 4), np.ones(10), toy.keys(rows))
        writer.commit({})
    for other in ({"dim": 5}, {"dtype": "float32"}):
        with pytest.raises(CacheError, match="Choose another name"), writer_of(tmp_path, **other):
            pass


def test_a_deleted_stream_is_gone_can_be_written_again_and_open_splits_notice(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, toy.videos())
    before = toy.tree(tmp_path)
    toy.write_stream(tmp_path)
    opened = cache.open(tmp_path)["toy/train"]
    first = opened.read([[0, 4]], "resnet50")["features"]
    cache.delete_stream(tmp_path, "toy/train", "resnet50")
    assert toy.tree(tmp_path) == before
    assert cache.open(tmp_path)["toy/train"].streams == ()
    with pytest.raises(CacheChanged):
        opened.read([[40, 44]], "resnet50")
    with writer_of(tmp_path, dim=4, plan="other weights") as writer:
        for shard in writer.pending:
            rows = np.asarray(writer.rows(shard))
            writer.write(shard, toy.features(rows, 4) + 1, np.ones(len(rows)), toy.keys(rows))
        writer.commit({})
    again = cache.open(tmp_path)["toy/train"].read([[0, 4]], "resnet50")["features"]
    np.testing.assert_array_equal(again, first + 1)
    with pytest.raises(CacheChanged):
        opened.read([[40, 44]], "resnet50")


def test_one_writer_a_stream_but_several_streams_a_split(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, [toy.video("a", [10])])
    with writer_of(tmp_path), StreamWriter(tmp_path, "toy/train", "other", dim=2, plan="p") as other:
        assert other.pending == [0]
        with pytest.raises(CacheError, match="process"), writer_of(tmp_path):
            pass
        with pytest.raises(CacheError, match="process"):
            cache.delete_stream(tmp_path, "toy/train", "resnet50")


def test_features_of_other_rows_under_the_same_numbers_are_never_taken_for_these(tmp_path: Path, toy: Any) -> None:
    root, backup = tmp_path / "cache", tmp_path / "backup"
    toy.write(root, toy.videos())
    toy.write_stream(root)
    toy.write(backup, [toy.video(name, rows, seed=3) for name, rows in {"x": [40], "y": [50, 53]}.items()])
    shutil.rmtree(backup / "toy/train/features")
    shutil.copytree(root / "toy/train/features", backup / "toy/train/features")
    split = cache.open(backup)["toy/train"]  # as one that was restored without its features
    assert len(split.windows(4, 4)) > 0
    assert len(split.windows(4, 4, "resnet50")) == 0
    with pytest.raises(CacheError, match="does not have shard"):
        split.read(split.windows(4, 4)[:1])
    with writer_of(backup) as writer:
        assert writer.pending == [0, 1, 2, 3, 4]
        assert not writer.carried(toy.keys(np.arange(10)))[0].any()
        rows = np.asarray(writer.rows(0))
        writer.write(0, toy.features(rows, 4), np.ones(len(rows)), toy.keys(rows))
        assert cache.verify(backup).ok  # killed here, the manifest names no shard that was written over
        writer.commit({"weights": "known"})
    assert cache.verify(backup).ok
    assert cache.open(backup)["toy/train"].windows(4, 4, "resnet50")[:, 1].max() <= 32


def test_a_lost_manifest_is_reported_and_nothing_is_written_over_what_it_named(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, toy.videos())
    toy.write_stream(tmp_path)
    before = toy.tree(tmp_path)
    for name, match in (("manifest.json", "no committed split"), ("features/resnet50/manifest.json", "extract the")):
        manifest = tmp_path / "toy/train" / name
        text = manifest.read_bytes()
        manifest.unlink()
        for attempt in (
            lambda: cache.open(tmp_path)["toy/train"].windows(4, 4, "resnet50"),
            lambda: writer_of(tmp_path).__enter__(),
        ):
            with pytest.raises(CacheError, match=match):
                attempt()
        assert any("manifest" in skipped for skipped in cache.gc(tmp_path).skipped)
        assert not cache.verify(tmp_path).ok
        manifest.write_bytes(text)
        assert toy.tree(tmp_path) == before

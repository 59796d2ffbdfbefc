"""Bytes beside the tracks, each row as many as it has: written, read and carried like numbers."""

from __future__ import annotations

import dataclasses
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import cache
from benchmarks.crash_runs import make_video, narrow
from cache import CacheError, SplitWriter, StreamWriter
from cache.mixture import Mixture, Part

SPLIT = "toy/train"
FEATURES = f"{SPLIT}/features"
ROOM = 1 << 17


def writer_of(root: Path, **options: Any) -> StreamWriter:
    form: dict[str, Any] = {"dim": 0, "dtype": "bytes", "plan": "quality 95", **options}
    return StreamWriter(root, SPLIT, "crops", **form)


def test_the_bytes_of_rows_come_in_the_order_asked_for(cropped: Path, toy: Any) -> None:
    split = cache.open(cropped)[SPLIT]
    rows = [142, 0, 17, 17, 31, 32, 33, 1, 141]
    assert split.blobs("crops", rows) == toy.blobs(rows)
    assert split.blobs("crops", np.array(rows, np.int32)) == toy.blobs(rows)
    everything = [row for row in range(143) if row not in (3, 40)]
    assert split.blobs("crops", everything) == toy.blobs(everything)
    assert split.blobs("crops", []) == []


def test_rows_without_bytes_are_refused_by_their_numbers(cropped: Path, own: Path, toy: Any) -> None:
    split = cache.open(cropped)[SPLIT]
    for row, why in ((-1, "have it"), (3, "not readable"), (143, "have it"), (10**9, "have it")):
        for rows in ([0, row, 1], [row]):
            with pytest.raises(CacheError, match=rf"no bytes for row {row}: .*{why}.*windows"):
                split.blobs("crops", rows)
    cache.invalidate(own, SPLIT, "crops", [1])
    split = cache.open(own)[SPLIT]
    assert split.blobs("crops", [64, 31]) == toy.blobs([64, 31])
    with pytest.raises(CacheError, match="row 32: the stream does not have it, or not yet"):
        split.blobs("crops", [31, 32])


def test_reading_numbers_of_it_is_an_error_that_names_the_way(cropped: Path) -> None:
    split = cache.open(cropped)[SPLIT]
    windows = split.windows(4, 4, "crops")
    for ask in (
        lambda: split.read(windows[:1], "crops"),
        lambda: split.read(windows[:1], "crops", fields=["features"]),
        lambda: split.rows("features/crops", 0, 4),
    ):
        with pytest.raises(CacheError, match=r"'crops' holds bytes, not numbers: Split.blobs\('crops', rows\)"):
            ask()
    assert split.read(windows[:1], "crops", fields=["kp_2d"]).keys() == {"kp_2d"}


def test_a_mixture_takes_its_windows_and_not_its_bytes(cropped: Path) -> None:
    splits = {SPLIT: cache.open(cropped)[SPLIT]}
    labels = Part(name="x", splits=splits, count=3, fields=("kp_2d",), stream="crops")
    mixture = Mixture([labels], seqlen=4)
    assert mixture.read(mixture.draw(0))["x"]["kp_2d"].shape == (3, 4, 49, 3)
    with pytest.raises(CacheError, match="holds bytes, not numbers"):
        Mixture([dataclasses.replace(labels, fields=("features",))], seqlen=4)


def test_windows_are_those_of_a_stream_of_numbers_with_the_same_rows(own: Path, toy: Any) -> None:
    toy.write_stream(own, bad_rows=[3, 40])
    split = cache.open(own)[SPLIT]
    np.testing.assert_array_equal(split.windows(4, 2, "crops"), split.windows(4, 2, "resnet50"))
    assert split.undecodable("crops") == 2
    assert split.stream_shards("crops") == [0, 1, 2, 3, 4]
    assert split.streams == ("crops", "resnet50")
    with pytest.raises(CacheError, match="holds numbers, not bytes"):
        split.blobs("resnet50", [0])


def test_any_zarr_reader_gets_a_row_by_its_place(cropped: Path, toy: Any) -> None:
    split = cache.open(cropped)[SPLIT]
    group: Any = zarr.open_group(cropped / FEATURES, mode="r")
    for array, places in (
        (group["crops"], group["crops_at"]),
        (split.column("features/crops"), split.column("features/crops_at")),
    ):
        assert (array.shape, array.dtype) == ((5 * 32 * ROOM,), np.uint8)
        for row in (0, 1, 31, 32, 142):
            start, stop = map(int, places[row])
            assert start // (32 * ROOM) == row // 32
            assert np.asarray(array[start:stop]).tobytes() == toy.blobs([row])[0]
        assert places[3].tolist() == [-1, -1]
    assert split.rows("features/crops_at", 0, 4)[3].tolist() == [-1, -1]


def test_room_without_bytes_takes_no_space(cropped: Path) -> None:
    shard = (cropped / FEATURES / "crops/c/4").stat().st_size  # 15 rows, one of 140,000 bytes
    assert shard == 2 * (ROOM + 4) + 32 * 16 + 4


def test_a_full_shard_and_its_neighbour_read_as_one(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, [toy.video("a", [40])])
    blobs = [bytes([row]) * ROOM for row in range(40)]
    with writer_of(tmp_path) as writer:
        for shard in writer.pending:
            rows = writer.rows(shard)
            writer.write(shard, blobs[rows.start : rows.stop], np.ones(len(rows)), toy.keys(np.asarray(rows)))
        writer.commit({})
    assert cache.verify(tmp_path).ok
    assert cache.open(tmp_path)[SPLIT].blobs("crops", np.arange(40)) == blobs


def test_bytes_that_do_not_fit_into_a_shard_are_refused(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, [toy.video("a", [2])])
    with writer_of(tmp_path) as writer:
        keys = toy.keys(np.arange(2))
        with pytest.raises(CacheError, match=r"expected at most 4194304 bytes.*found 4194305"):
            writer.write(0, [bytes(32 * ROOM), b"1"], np.ones(2), keys)
        writer.write(0, [bytes(32 * ROOM), b"1"], np.array([1, 0]), keys)  # what is not kept needs no room


def test_what_does_not_fit_the_stream_is_refused(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, [toy.video("a", [3])])
    keys, ok = toy.keys(np.arange(3)), np.ones(3)
    with writer_of(tmp_path) as writer:
        for data in (np.zeros((3, 4)), [b"1", b"2"], [b"1", "2", b"3"], [b"1", None, b"3"]):
            with pytest.raises(CacheError, match="expected features 3 times bytes"):
                writer.write(0, data, ok, keys)  # type: ignore[arg-type]
    numbers = StreamWriter(tmp_path, SPLIT, "numbers", dim=4, plan="p")
    with numbers, pytest.raises(CacheError, match=r"expected features \(3, 4\)"):
        numbers.write(0, [b"1", b"2", b"3"], ok, keys)


def test_a_stream_of_bytes_stays_one(own: Path) -> None:
    with pytest.raises(CacheError, match="expected bytes, found 4 numbers of float16"):
        writer_of(own, dim=4, dtype="float16").__enter__()
    for options in ({"dim": 3}, {"dtype": "float64"}, {"dim": 0, "dtype": "float16"}):
        with pytest.raises(CacheError, match="or 0 of bytes"):
            writer_of(own, **options)


def test_no_stream_is_called_like_an_array_of_another(tmp_path: Path) -> None:
    for name in ("crops_at", "crops_ok", "crops_key"):
        with pytest.raises(CacheError, match="no stream's name"):
            StreamWriter(tmp_path, SPLIT, name, dim=0, dtype="bytes", plan="p")


def test_bytes_are_carried_over_by_their_keys(own: Path, toy: Any) -> None:
    toy.write(own, [toy.video("b", [7, 20], seed=3)], drop=["b"])  # b was in rows 10-37, is appended from 160
    with writer_of(own) as writer:
        assert writer.pending == [5]
        keys = toy.keys(np.arange(160, 187))
        keys[:-1] = toy.keys(np.array([40, *range(11, 36)]))  # 40 could not be decoded, 186 is new
        mask, blobs, ok = writer.carried(keys)
        assert mask.tolist() == [True] * 26 + [False]
        assert ok.tolist() == [0] + [1] * 25 + [0]
        assert blobs == [b"", *toy.blobs(range(11, 36)), b""]
        writer.write(5, blobs, ok, keys)
        writer.commit({})
    split = cache.open(own)[SPLIT]
    assert split.blobs("crops", [161, 185]) == toy.blobs([11, 35])
    assert cache.verify(own).ok


def test_a_shard_of_which_no_picture_was_readable_has_no_bytes_at_all(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, toy.videos())
    toy.write_blobs(tmp_path, bad_rows=range(32, 64))
    assert cache.verify(tmp_path).ok
    assert cache.verify(tmp_path, fast=True).ok
    split = cache.open(tmp_path)[SPLIT]
    assert split.blobs("crops", [31, 64]) == toy.blobs([31, 64])
    with pytest.raises(CacheError, match="row 40: its picture was not readable"):
        split.blobs("crops", [40])


def test_one_shard_is_held_once_while_it_is_written_and_read(tmp_path: Path, toy: Any) -> None:
    entry, tracks = toy.video("a", [512])
    with SplitWriter(tmp_path, SPLIT, columns=toy.columns, plan="p", rows_per_shard=512, rows_per_chunk=64) as split:
        split.begin()
        split.append(entry, tracks)
        split.commit({})
    blobs = [np.random.default_rng(row).bytes(50_000) for row in range(512)]  # 25.6 MB
    tracemalloc.start()
    with writer_of(tmp_path) as writer:
        writer.write(0, blobs, np.ones(512), toy.keys(np.arange(512)))
        _, while_written = tracemalloc.get_traced_memory()
        writer.commit({})
    opened = cache.open(tmp_path)[SPLIT]
    tracemalloc.reset_peak()
    found = opened.blobs("crops", np.arange(512))
    _, while_read = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == blobs
    assert while_written < 5e6
    assert while_read < 25.6e6 + 10e6


@pytest.mark.parametrize("far", [1 << 45, -(1 << 45)])
def test_places_decide_neither_how_much_is_read_nor_whose_bytes(own: Path, toy: Any, far: int) -> None:
    cache.invalidate(own, SPLIT, "crops", [1])
    with writer_of(own) as writer:
        rows = np.asarray(writer.rows(1))
        arrays = dict(writer.checked(1, toy.blobs(rows), np.ones(len(rows)), toy.keys(rows)))
        at = arrays["crops_at"]
        arrays["crops_at"] = np.where(at < 0, -1, at + np.array([0, far]))
        key = writer.place.staged_shard
        files = {name: f"{key}{name}" for name in arrays}
        records = writer.put(arrays, files.__getitem__, lambda name: f"{files[name]}.tmp")
        writer.accept(cache.Staged(1, writer.rows_record(1), "bytes", files, records))
        writer.commit({})
    with pytest.raises(CacheError, match=f"expected bytes of row 32 within {32 * ROOM} to"):
        cache.open(own)[SPLIT].blobs("crops", rows)
    toy.write(own, [], drop=["a"])  # else nothing is carried over
    with writer_of(own) as writer, pytest.raises(CacheError, match="expected bytes of row"):
        writer.carried(toy.keys(rows))


def test_every_array_of_it_is_known_by_name(own: Path) -> None:
    left = [f"{FEATURES}/crops/c/9", f"{FEATURES}/crops_at/c/9"]
    (own / left[0]).write_bytes(b"left")
    (own / left[1]).mkdir()
    (own / left[1] / "0").write_bytes(b"left")
    assert sorted(cache.gc(own).removed) == left
    assert cache.verify(own).notes == ()
    shutil.rmtree(own / FEATURES / "crops")
    assert sorted(cache.gc(own).removed) == [f"{FEATURES}/crops_{part}" for part in ("at", "key", "ok")]


@pytest.fixture(scope="module")
def tracks_only(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos in 23 rows, of which one was replaced: rows 5 to 12 are of no track any more."""
    root = tmp_path_factory.mktemp("tracks") / "cache"
    sizes: Any = {"columns": ("bbox",), "rows_per_shard": 8, "rows_per_chunk": 4}
    for drop, videos in (((), {"a": [5], "b": [8], "c": [10]}), (("b",), {"b": [6]})):
        with SplitWriter(root, SPLIT, plan=f"drop {drop}", **sizes) as writer:
            writer.begin(drop)
            for name, lengths in videos.items():
                writer.append(*narrow(make_video(name, lengths, 0), "frame_index", "bbox"))
            writer.commit({})
    return root


def repeated(size: int) -> bytes:
    return (np.arange(size) * 7 % 251).astype(np.uint8).tobytes()


BLOBS = st.none() | st.binary(max_size=12) | st.sampled_from([1000, ROOM - 1, ROOM, ROOM + 1]).map(repeated)


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(given_blobs=st.lists(BLOBS, min_size=32, max_size=32), seed=st.integers(0, 99))
def test_any_bytes_come_back_from_the_writer_the_verification_and_the_compaction(
    tracks_only: Path, tmp_path_factory: pytest.TempPathFactory, given_blobs: list[bytes | None], seed: int
) -> None:
    root = tmp_path_factory.mktemp("any") / "cache"
    shutil.copytree(tracks_only, root)
    with writer_of(root) as writer:
        for shard in writer.pending:
            rows = np.asarray(writer.rows(shard))
            mine = [given_blobs[row] for row in rows]
            ok = np.array([blob is not None for blob in mine])
            writer.write(shard, [blob or b"" for blob in mine], ok, np.stack([rows, rows], axis=1).astype(np.uint64))
        writer.commit({})
    assert cache.verify(root).ok
    split = cache.open(root)[SPLIT]
    expected = {t.name: given_blobs[t.start : t.stop] for t in split.tracks}
    held = [r for t in split.tracks for r in range(t.start, t.stop) if given_blobs[r] is not None]
    mixed = np.random.default_rng(seed).permutation(np.array(held, np.int64))
    assert split.blobs("crops", mixed) == [given_blobs[row] for row in mixed]
    cache.compact(root, SPLIT)
    compacted = cache.open(root)[SPLIT]
    for track in compacted.tracks:
        ok = compacted.rows("features/crops_ok", track.start, track.stop) == 1
        found = iter(compacted.blobs("crops", np.arange(track.start, track.stop)[ok]))
        assert [next(found) if there else None for there in ok] == expected[track.name]
    assert cache.verify(root).problems == ()
    shutil.rmtree(root.parent)

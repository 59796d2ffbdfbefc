"""Bytes beside the tracks, each row as many as it has: written, read and carried like numbers."""

from __future__ import annotations

import dataclasses
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

import cache
from cache import CacheError, StreamWriter
from cache.mixture import Mixture, MixturePart

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
    labels = MixturePart(name="x", splits=splits, count=3, fields=("kp_2d",), stream="crops")
    mixture = Mixture([labels], seqlen=4)
    assert mixture.read(mixture.draw(0))["x"]["kp_2d"].shape == (3, 4, 49, 3)
    with pytest.raises(CacheError, match="holds bytes, not numbers"):
        Mixture([dataclasses.replace(labels, fields=("features",))], seqlen=4)


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


def test_what_does_not_fit_the_stream_or_a_shard_is_refused(tmp_path: Path, toy: Any) -> None:
    toy.write(tmp_path, [toy.video("a", [2])])
    keys, ok = toy.keys(np.arange(2)), np.ones(2, np.uint8)
    with writer_of(tmp_path) as writer:
        for data in (np.zeros((2, 4)), [b"1"], [b"1", "2"], [b"1", None]):
            with pytest.raises(CacheError, match="expected features 2 times bytes"):
                writer.write(0, data, ok, keys)  # type: ignore[arg-type]
        with pytest.raises(CacheError, match=r"found \[2\]"):  # bytes have no value for rows that are undefined
            writer.write(0, [b"1", b"2"], 2 * ok, keys)
        with pytest.raises(CacheError, match=r"expected at most 4194304 bytes.*found 4194305"):
            writer.write(0, [bytes(32 * ROOM), b"1"], ok, keys)
        writer.write(0, [bytes(32 * ROOM), b"1"], np.array([1, 0]), keys)  # what is not kept needs no room
    numbers = StreamWriter(tmp_path, SPLIT, "numbers", dim=4, plan="p")
    with numbers, pytest.raises(CacheError, match=r"expected features \(2, 4\)"):
        numbers.write(0, [b"1", b"2"], ok, keys)


def test_one_shard_is_held_once_while_it_is_written_and_read(tmp_path: Path, toy: Any) -> None:
    with toy.writer(tmp_path, "p", rows_per_shard=512, rows_per_chunk=64) as split:
        split.begin()
        split.append(*toy.video("a", [512]))
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

"""Every layout of an array: our reader and zarr give the same rows; float16 is widened without loss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import BytesCodec, Crc32cCodec, ZstdCodec

from cache import CacheError
from cache.read.mapped import MappedRows
from cache.read.rows import widen
from cache.read.streams import open_rows
from cache.read.zarr_rows import ZarrRows
from cache.storage import store_at

LAYOUTS = [
    # shape, dtype, shard, chunk, codecs
    ((100, 4), "float32", 32, 8, "crc"),
    ((96, 49, 3), "float32", 32, 32, "crc"),
    ((33, 2048), "float16", 32, 8, "crc"),
    ((70,), "uint8", 16, 4, "crc"),
    ((70,), "int64", 64, 1, "crc"),
    ((50, 2), "uint64", 10, 5, "plain"),
    ((50, 3), "float64", 10, 5, "start"),
    ((50, 3), "int16", 10, 5, "dots"),
    ((70, 5), "float32", 32, 8, "zstd"),
    ((70, 5), "float32", None, 8, "plain"),
    ((70, 6), "float32", 32, 8, "columns"),
    ((70, 5), "float32", 32, 8, "big"),
]


@pytest.mark.parametrize(("shape", "dtype", "shard", "chunk", "codecs"), LAYOUTS)
def test_the_direct_reader_and_zarr_agree_on_every_layout(
    tmp_path: Path, shape: tuple[int, ...], dtype: str, shard: int | None, chunk: int, codecs: str
) -> None:
    rng = np.random.default_rng(0)
    data = rng.integers(1, 200, shape).astype(dtype)
    endian = "big" if codecs == "big" else "little"
    serializer = BytesCodec(endian=endian) if np.dtype(dtype).itemsize > 1 else BytesCodec()
    compressors: Any = {"crc": [Crc32cCodec()], "dots": [Crc32cCodec()], "zstd": [ZstdCodec()]}
    trailing = (3,) if codecs == "columns" else shape[1:]
    index = "start" if codecs == "start" else "end"
    sharding = {"shape": (shard, *shape[1:]), "index_location": index} if shard else None
    array = zarr.create_array(
        tmp_path,
        shape=shape,
        dtype=dtype,
        chunks=(chunk, *trailing),
        shards=sharding,  # type: ignore[arg-type]
        serializer=serializer,
        compressors=compressors.get(codecs),
        fill_value=0,
        chunk_key_encoding={"name": "default", "separator": "." if codecs == "dots" else "/"},
    )
    array[:] = data
    metadata = (tmp_path / "zarr.json").read_bytes()
    rows = open_rows(store_at(tmp_path), ".", metadata, {}, lambda: None)
    assert isinstance(rows, MappedRows if codecs == "crc" else ZarrRows)
    through_zarr = ZarrRows(store_at(tmp_path), ".", array.metadata.to_dict())
    assert (rows.trailing, rows.dtype.newbyteorder("=")) == (shape[1:], np.dtype(dtype))
    for seqlen in (1, 7, shape[0]):
        starts = np.arange(0, shape[0] - seqlen + 1, 3)
        expected = np.stack([data[start : start + seqlen] for start in starts])
        for reader in (rows, through_zarr):
            out = np.zeros_like(expected)
            reader.read(starts, seqlen, out)
            np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("direct", [True, False])
def test_both_readers_refuse_missing_files_and_rows_beyond_the_end(tmp_path: Path, direct: bool) -> None:
    shards = (16, 2) if direct else None
    codecs: Any = [Crc32cCodec()] if direct else None
    array = zarr.create_array(
        tmp_path, shape=(40, 2), dtype="float32", chunks=(8, 2), shards=shards, compressors=codecs, fill_value=0
    )
    array[:] = 1
    rows = open_rows(store_at(tmp_path), ".", (tmp_path / "zarr.json").read_bytes(), {}, lambda: None)
    assert isinstance(rows, MappedRows if direct else ZarrRows)
    out = np.zeros((1, 8, 2), "f4")
    with pytest.raises(CacheError, match="40 rows"):
        rows.read(np.array([33]), 8, out)
    (tmp_path / "c/1/0").unlink()
    with pytest.raises(CacheError, match="no file"):
        rows.read(np.array([12]), 8, out)


def test_widening_is_exact_for_every_float16() -> None:
    half = np.arange(2**16, dtype=np.uint16).view(np.float16)
    for some in (half, half[np.isfinite(half)]):  # with infinities and NaN it takes another way
        out = np.empty(some.shape, np.float32)
        widen(some, out)
        np.testing.assert_array_equal(out, some.astype(np.float32))
        assert (np.signbit(out) == np.signbit(some)).all()

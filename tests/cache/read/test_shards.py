"""A shard is exactly what Zarr's sharding codec says it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from cache import CacheError
from cache.format import shard
from cache.format.layout import COLUMNS, ColumnSpec, Geometry, column_metadata, shard_key, stream_columns

GEOMETRY = Geometry(rows_per_shard=16, rows_per_chunk=4)
SPECS = {**COLUMNS, **stream_columns("resnet50", 5, "float16")}


def some_rows(spec: ColumnSpec, n_rows: int) -> np.ndarray:
    rng = np.random.default_rng(n_rows)
    return rng.integers(0, 100, (n_rows, *spec.trailing)).astype(spec.dtype)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_zarr_reads_back_what_was_encoded_and_fill_values_after_it(name: str, tmp_path: Path) -> None:
    spec = SPECS[name]
    rows = some_rows(spec, 6)
    file = tmp_path / shard_key(".", 1, spec.trailing)
    file.parent.mkdir(parents=True)
    file.write_bytes(shard.encode(rows, spec, GEOMETRY))
    (tmp_path / "zarr.json").write_bytes(column_metadata(spec, 32, GEOMETRY))
    array = zarr.open_array(tmp_path, mode="r")
    expected = np.full((32, *spec.trailing), spec.fill, spec.dtype)
    expected[16:22] = rows
    np.testing.assert_array_equal(array[:], expected)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_zarr_writes_the_same_bytes(name: str, tmp_path: Path) -> None:
    spec = SPECS[name]
    rows = some_rows(spec, 16)
    (tmp_path / "zarr.json").write_bytes(column_metadata(spec, 16, GEOMETRY))
    zarr.open_array(tmp_path, mode="r+")[:] = rows
    theirs = (tmp_path / shard_key(".", 0, spec.trailing)).read_bytes()
    np.testing.assert_array_equal(shard.decode(theirs, spec, GEOMETRY, str(tmp_path)), rows)
    assert len(theirs) == len(shard.encode(rows, spec, GEOMETRY))


def test_chunks_of_padding_take_no_space() -> None:
    spec = COLUMNS["bbox"]
    index_bytes = GEOMETRY.chunks * 16 + 4
    data = shard.encode(some_rows(spec, 5), spec, GEOMETRY)  # 5 rows: two chunks of 4
    assert len(data) == 2 * (4 * 16 + 4) + index_bytes


@given(st.integers(1, 16), st.sampled_from(sorted(SPECS)))
def test_decoding_gives_back_the_rows_and_fill_values(n_rows: int, name: str) -> None:
    spec = SPECS[name]
    rows = some_rows(spec, n_rows)
    decoded = shard.decode(shard.encode(rows, spec, GEOMETRY), spec, GEOMETRY, Path("x"))
    np.testing.assert_array_equal(decoded[:n_rows], rows)
    np.testing.assert_array_equal(decoded[n_rows:], np.full_like(decoded[n_rows:], spec.fill))


def test_a_shard_that_is_no_multiple_of_its_chunks_is_refused() -> None:
    with pytest.raises(CacheError, match="multiple"):
        Geometry(rows_per_shard=10, rows_per_chunk=4)

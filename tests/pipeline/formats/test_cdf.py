"""Our reader of CDF files against cdflib's writer and reader, against the format by hand, and against damage."""

import itertools
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import cdflib
import numpy as np
import pytest
from cdflib.cdfwrite import CDF

from pipeline.errors import RawDataError
from pipeline.formats import cdf
from pipeline.formats.cdf import load_cdf

RNG = np.random.default_rng(0)


def write(file: Path, values: np.ndarray, *, compressed: int = 0, key: str = "Pose", **spec: Any) -> Path:
    """`values` (records, ...) by cdflib; spec: Majority, Encoding, Data_Type, Var_Type, Compress."""
    sizes = list(values.shape[1:])
    whole = {"Majority": spec.get("Majority", 1), "Encoding": spec.get("Encoding", 6), "Compressed": compressed}
    writer = CDF(file, {**whole, "rDim_sizes": sizes}, delete=True)
    kind = spec.get("Var_Type", "zVariable")
    dims: dict[str, Any] = {"Dim_Vary": [True] * len(sizes)} if kind == "rVariable" else {"Dim_Sizes": sizes}
    common = {"Data_Type": spec.get("Data_Type", 44), "Num_Elements": 1, "Rec_Vary": True, "Var_Type": kind, **dims}
    for name, stored in (("Other", values * 2), (key, values)):
        writer.write_var({**common, "Variable": name, "Compress": spec.get("Compress", 0)}, var_data=stored)
    writer.close()
    return file


@pytest.mark.parametrize(
    ("majority", "encoding", "kind"), list(itertools.product((1, 2), (1, 6), ("zVariable", "rVariable")))
)
def test_what_cdflib_reads_is_read_to_the_bit(tmp_path: Path, majority: int, encoding: int, kind: str) -> None:
    values = RNG.normal(size=(2, 5, 6)).astype(np.float32)
    for data_type, whole, variable in itertools.product((21, 22, 44, 45), (0, 6), (0, 6)):
        options = {"Majority": majority, "Encoding": encoding, "Var_Type": kind, "Data_Type": data_type}
        file = write(tmp_path / "x.cdf", values, compressed=whole, Compress=variable, **options)
        ours, theirs = load_cdf(file, "Pose"), cdflib.CDF(file)["Pose"]
        assert ours.dtype == (np.float32 if data_type in (21, 44) else np.float64)
        np.testing.assert_array_equal(ours, theirs)
        if majority == 1:
            np.testing.assert_array_equal(ours, values)


def test_columns_first_means_that_the_first_dimension_is_the_fastest(tmp_path: Path) -> None:
    values = RNG.normal(size=(1, 5, 6)).astype(np.float32)
    file = write(tmp_path / "x.cdf", np.ascontiguousarray(values[0].T).reshape(1, 5, 6), Majority=2)
    np.testing.assert_array_equal(load_cdf(file, "Pose"), values)


def test_many_blocks_under_several_indices_are_put_together(tmp_path: Path) -> None:
    values = RNG.normal(size=(20_000, 96)).astype(np.float32)
    file = write(tmp_path / "x.cdf", values, Compress=1)
    assert file.read_bytes().count(struct.pack(">i", 13) + bytes(4)) > 8  # compressed blocks; 7 go into an index
    np.testing.assert_array_equal(load_cdf(file, "Pose"), values)


def version_2(values: np.ndarray) -> bytes:
    """A CDF 2.6 file by hand: descriptor, global descriptor, one variable `Pose`, an index and a block."""
    n_records, *sizes = values.shape
    at = [8, 8 + 304, 8 + 304 + 60, 0, 0]
    at[3] = at[2] + 132 + 8 * len(sizes)
    at[4] = at[3] + 20 + 12
    block = values.astype(">f4").tobytes()
    end = at[4] + 8 + len(block)
    descriptor = struct.pack(">12i", 304, 1, at[1], 2, 6, 1, 3, 0, 0, 0, 0, 0) + b"hand-made".ljust(256, b"\0")
    overall = struct.pack(">15i", 60, 2, 0, at[2], 0, end, 0, 0, -1, 0, 1, 0, 0, 0, 0)
    head = (at[3] - at[2], 8, 0, 44, n_records - 1, at[3], at[3], 1, 0, -1, -1, -1, 1, 0, -1, 0)
    variable = struct.pack(">16i", *head) + b"Pose".ljust(64, b"\0")
    variable += struct.pack(f">{1 + 2 * len(sizes)}i", len(sizes), *sizes, *[-1] * len(sizes))
    index = struct.pack(">5i", 32, 6, 0, 1, 1) + struct.pack(">3i", 0, n_records - 1, at[4])
    data = b"\xcd\xf2\x60\x02\x00\x00\xff\xff" + descriptor + overall + variable + index
    assert len(data) == at[4]
    return data + struct.pack(">2i", 8 + len(block), 7) + block


def test_files_of_version_2_are_read_too(tmp_path: Path) -> None:
    values = RNG.normal(size=(1, 4, 6)).astype(np.float32)
    file = tmp_path / "old.cdf"
    file.write_bytes(version_2(values))
    np.testing.assert_array_equal(cdflib.CDF(file)["Pose"], values)
    np.testing.assert_array_equal(load_cdf(file, "Pose"), values)


def test_a_missing_variable_is_told_with_those_that_are_there(tmp_path: Path) -> None:
    file = write(tmp_path / "x.cdf", np.zeros((1, 2, 3), np.float32))
    with pytest.raises(RawDataError, match=r"x.cdf: 'Poses': expected a variable of this name, found only .*'Pose'"):
        load_cdf(file, "Poses")


def test_a_file_that_is_none_or_is_not_there_is_told(tmp_path: Path) -> None:
    for content in (b"", b"CDF", b"<html>", b"\xcd\xf3\x00\x01", bytes(2000)):
        (tmp_path / "x.cdf").write_bytes(content)
        with pytest.raises(RawDataError, match="expected a whole CDF file"):
            load_cdf(tmp_path / "x.cdf", "Pose")
    for path in (tmp_path / "none.cdf", tmp_path):
        with pytest.raises(RawDataError, match="expected a whole CDF file"):
            load_cdf(path, "Pose")


def altered(file: Path, at: int, value: bytes) -> Path:
    data = bytearray(file.read_bytes())
    data[at : at + len(value)] = value
    file.write_bytes(data)
    return file


def test_one_of_several_files_of_a_cdf_is_refused_and_no_other_is_looked_for(tmp_path: Path) -> None:
    file = write(tmp_path / "x.cdf", np.zeros((1, 2, 3), np.float32))
    (flags,) = struct.unpack_from(">i", file.read_bytes(), 40)
    assert flags & 2
    with pytest.raises(RawDataError, match="one of several files"):
        load_cdf(altered(file, 40, struct.pack(">i", flags & ~2)), "Pose")


def test_numbers_of_a_vax_and_whole_numbers_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "x.cdf", np.zeros((1, 2, 3), np.float32))
    with pytest.raises(RawDataError, match="encoding 3, whose numbers are not IEEE's"):
        load_cdf(altered(file, 36, struct.pack(">i", 3)), "Pose")
    write(file, np.zeros((1, 2, 3), np.int32), Data_Type=4)
    with pytest.raises(RawDataError, match="values of type 4"):
        load_cdf(file, "Pose")


def offset_of(file: Path, name: bytes) -> int:
    """Where a variable's descriptor begins: its name stands 84 bytes after that."""
    return file.read_bytes().index(name.ljust(256, b"\0")) - 84


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (24, struct.pack(">i", 2**31 - 1)),  # records
        (24, struct.pack(">i", -1)),
        (340, struct.pack(">i", 2**31 - 1)),  # dimensions
        (340, struct.pack(">i", -5)),
        (344, struct.pack(">i", 2**31 - 1)),  # the first one's size
        (344, struct.pack(">i", 0)),
        (28, struct.pack(">q", 2**62)),  # where the index is
        (28, struct.pack(">q", -8)),
        (28, struct.pack(">q", 0)),
    ],
)
def test_sizes_and_places_that_cannot_be_are_refused_without_taking_memory(
    tmp_path: Path, field: int, value: bytes
) -> None:
    file = write(tmp_path / "x.cdf", np.zeros((1, 20, 3), np.float32))
    altered(file, offset_of(file, b"Pose") + field, value)
    tracemalloc.start()
    with pytest.raises(RawDataError, match="expected a whole CDF file"):
        load_cdf(file, "Pose")
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_chains_that_lead_back_end(tmp_path: Path) -> None:
    file = write(tmp_path / "x.cdf", np.zeros((1, 20, 3), np.float32))
    here = offset_of(file, b"Pose")
    altered(file, here + 12, struct.pack(">q", here))
    with pytest.raises(RawDataError, match="a chain of them that leads back"):
        load_cdf(file, "Pose")
    write(file, np.zeros((1, 20, 3), np.float32))
    (index,) = struct.unpack_from(">q", file.read_bytes(), here + 28)
    altered(file, index + 12, struct.pack(">q", index))  # the index says that itself follows: it is looked at once
    assert load_cdf(file, "Pose").shape == (1, 20, 3)
    altered(file, index + 20, struct.pack(">ii", 2**31 - 1, 2**31 - 1))
    with pytest.raises(RawDataError, match="over 10000 index records and entries in them"):
        load_cdf(file, "Pose")


@pytest.mark.parametrize("options", [{"compressed": 6}, {"Compress": 6}])
def test_what_would_grow_beyond_bounds_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, int]
) -> None:
    file = write(tmp_path / "x.cdf", np.zeros((1, 400, 500), np.float32), **options)
    monkeypatch.setattr(cdf, "MAX_BYTES", 100_000)
    assert file.stat().st_size < 10_000
    with pytest.raises(RawDataError, match="100000"):
        load_cdf(file, "Pose")


@pytest.mark.parametrize("options", [{}, {"compressed": 6}, {"Compress": 6}], ids=["plain", "packed", "packed blocks"])
def test_a_file_cut_short_is_told_unless_nothing_of_it_was_needed(tmp_path: Path, options: dict[str, int]) -> None:
    values = RNG.normal(size=(1, 20, 6)).astype(np.float32)
    whole = write(tmp_path / "x.cdf", values, **options).read_bytes()
    told = 0
    for end in range(0, len(whole) - 1, len(whole) // 40):
        (tmp_path / "x.cdf").write_bytes(whole[:end])
        try:
            np.testing.assert_array_equal(load_cdf(tmp_path / "x.cdf", "Pose"), values)
        except RawDataError:
            told += 1
    assert told > 35  # the last index has room for more


@pytest.mark.parametrize("options", [{}, {"compressed": 6}, {"Compress": 6}], ids=["plain", "packed", "packed blocks"])
def test_a_flipped_bit_anywhere_is_told_or_costs_nothing_but_its_number(
    tmp_path: Path, options: dict[str, int]
) -> None:
    values = RNG.normal(size=(1, 20, 6)).astype(np.float32)
    whole = write(tmp_path / "x.cdf", values, **options).read_bytes()
    n_read = 0
    for at in range(0, len(whole), 5):
        for bit in (0, 7):
            damaged = bytearray(whole)
            damaged[at] ^= 1 << bit
            (tmp_path / "x.cdf").write_bytes(damaged)
            try:
                found = load_cdf(tmp_path / "x.cdf", "Pose")
            except RawDataError:
                continue
            n_read += 1
            assert found.size <= 2 * values.size
            if options:  # by the checksum: of what is packed nothing wrong passes, but for descriptors beside blocks
                assert "Compress" in options or np.array_equal(found, values)
    assert n_read  # of names and reserved fields

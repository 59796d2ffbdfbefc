"""MATLAB v5 files, read with our own reader: as SciPy writes and reads them, and nothing beyond a bound."""

import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from pipeline.errors import RawDataError
from pipeline.formats.arrays import load_mat
from pipeline.formats.mat5 import read_mat5

SAMPLES = Path(__file__).parents[3].parent / "shared" / "data" / "penn_action" / "labels"
HEADER = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM"


def element(kind: int, content: bytes) -> bytes:
    return struct.pack("<II", kind, len(content)) + content + bytes(-len(content) % 8)


def array(name: str, array_class: int, shape: tuple[int, ...], content: bytes) -> bytes:
    """A variable, or a cell when it has no name."""
    head = element(6, struct.pack("<II", array_class, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape))
    return element(14, head + element(1, name.encode()) + content)


def values() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    cells = np.empty((3, 2), object)
    for i, j in np.ndindex(3, 2):
        cells[i, j] = rng.normal(size=(4, i + 1))
    return {
        "doubles": rng.normal(size=(5, 13)),
        "bytes": np.arange(12, dtype=np.uint8).reshape(3, 4),
        "small": np.int16([[1, -2]]),
        "single": np.float32([[1.5]]),
        "one": np.array([[-1]], np.int32),
        "none": np.zeros((0, 3)),
        "cube": rng.normal(size=(2, 3, 4)),
        "wide": np.array([[2**40]], np.int64),
        "complex": rng.normal(size=(2, 2)) + 1j * rng.normal(size=(2, 2)),
        "cells": cells,
    }


@pytest.mark.parametrize("compressed", [False, True])
def test_what_scipy_wrote_is_read_as_scipy_reads_it(tmp_path: Path, compressed: bool) -> None:
    file = tmp_path / "a.mat"
    savemat(file, values(), do_compression=compressed)
    expected = loadmat(file)
    found = read_mat5(file, values())
    assert found.keys() == values().keys()
    for name, value in values().items():
        if name == "cells":
            assert found[name].shape == (3, 2)
            for cell in np.ndindex(3, 2):
                np.testing.assert_array_equal(found[name][cell], value[cell])
        else:
            np.testing.assert_array_equal(found[name], expected[name])
            assert found[name].dtype == expected[name].dtype


def test_a_file_of_the_other_byte_order_is_read(tmp_path: Path) -> None:
    def big(kind: int, content: bytes) -> bytes:
        return struct.pack(">II", kind, len(content)) + content + bytes(-len(content) % 8)

    head = big(6, struct.pack(">II", 6, 0)) + big(5, struct.pack(">2i", 1, 2)) + big(1, b"x")
    file = tmp_path / "a.mat"
    file.write_bytes(HEADER[:124] + b"\x01\x00MI" + big(14, head + big(9, struct.pack(">2d", 1.5, -3))))
    np.testing.assert_array_equal(load_mat(file, ["x"])["x"], [[1.5, -3]])


def test_variables_that_nobody_asked_for_are_not_read(tmp_path: Path) -> None:
    file = tmp_path / "a.mat"
    savemat(file, {"x": np.ones((2, 2)), "text": "hello", "struct": {"a": 1}})
    assert read_mat5(file, ["x", "y"]).keys() == {"x"}
    with pytest.raises(RawDataError, match=r"'y': expected a variable of this name, found only \['x'\]"):
        load_mat(file, ["x", "y"])


def test_a_cell_that_holds_no_numbers_does_not_hide_the_next_one(tmp_path: Path) -> None:
    cells = np.empty((1, 3), object)
    cells[0] = ["some text", {"a": np.ones(3)}, np.array([[4.0]])]
    file = tmp_path / "a.mat"
    savemat(file, {"c": cells})
    found = read_mat5(file, ["c"])["c"]
    assert [cell.tolist() for cell in found[0]] == ["text", "a struct", [[4.0]]]


@pytest.mark.parametrize(
    ("variable", "told"),
    [
        (array("x", 6, (2, 1), element(255, bytes(16))), "unknown type 255"),  # SciPy takes it for an index
        (array("x", 6, (3, 1), element(9, bytes(16))), "16 bytes of float64 for an array of shape"),
        (array("x", 6, (-1, 1), element(9, bytes(16))), "shape"),
        (array("x", 6, (1 << 30, 1 << 30), element(9, bytes(16))), "16 bytes of float64"),
        (array("x", 1, (1 << 20, 1 << 10), b""), "cells"),
        (array("x", 99, (1, 1), b""), "class 99"),
        (array("x", 6, (2, 1), struct.pack("<II", 9, 1 << 31)), "GB|bytes of numbers"),
        (element(7, bytes(16)), "no variable"),
        (array("x", 6, (2, 1), element(9, bytes(16)))[:-4], "no variable that ends within"),
    ],
)
def test_what_a_file_announces_is_not_believed(tmp_path: Path, variable: bytes, told: str) -> None:
    file = tmp_path / "a.mat"
    file.write_bytes(HEADER + variable)
    with pytest.raises(RawDataError, match=told):
        read_mat5(file, ["x"])


def test_cells_nested_beyond_reason_do_not_exhaust_the_stack(tmp_path: Path) -> None:
    inner = array("", 6, (1, 1), element(9, bytes(8)))
    for _ in range(2000):
        inner = array("", 1, (1, 1), inner)
    file = tmp_path / "a.mat"
    file.write_bytes(HEADER + array("x", 1, (1, 1), inner))
    with pytest.raises(RawDataError, match="nested over 8 deep"):
        read_mat5(file, ["x"])


def test_a_bomb_is_refused_before_it_inflates(tmp_path: Path) -> None:
    n_bytes = 1 << 31
    head = element(6, struct.pack("<II", 6, 0)) + element(5, struct.pack("<2i", n_bytes >> 3, 1)) + element(1, b"x")
    size = len(head) + 8 + n_bytes
    start = struct.pack("<II", 14, size) + head + struct.pack("<II", 9, n_bytes)
    packed = zlib.compress(start + bytes(1 << 24))
    file = tmp_path / "a.mat"
    file.write_bytes(HEADER + struct.pack("<II", 15, len(packed)) + packed)
    tracemalloc.start()
    with pytest.raises(RawDataError, match="a variable of 2147483"):
        read_mat5(file, ["x"])
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


def test_a_flip_in_compressed_numbers_never_gives_other_numbers(tmp_path: Path) -> None:
    file = tmp_path / "a.mat"
    numbers = np.arange(40.0).reshape(4, 10)
    savemat(file, {"x": numbers}, do_compression=True)
    whole = file.read_bytes()
    refused = 0
    for offset in range(136, len(whole)):
        file.write_bytes(whole[:offset] + bytes([whole[offset] ^ 4]) + whole[offset + 1 :])
        try:
            np.testing.assert_array_equal(load_mat(file, ["x"])["x"], numbers)  # another way to say the same
        except RawDataError:
            refused += 1
    assert refused > 0.9 * (len(whole) - 136)


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="real label files are not at hand")
def test_real_label_files_are_read_as_scipy_reads_them() -> None:
    files = sorted(SAMPLES.glob("*.mat"))
    assert files
    for file in files:
        keys = ["x", "y", "visibility", "train", "bbox", "dimensions", "nframes"]
        expected, found = loadmat(file), load_mat(file, keys)
        for key in keys:
            np.testing.assert_array_equal(found[key], expected[key])
            assert found[key].dtype == expected[key].dtype

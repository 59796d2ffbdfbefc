"""Numbers out of HDF5 files: what is read, and what is refused before it is."""

import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from pipeline.errors import RawDataError
from pipeline.formats import hdf5
from pipeline.formats.hdf5 import load_hdf5

SHAPE = {"a": [(None, 2)]}


def written(file: Path, fill: Callable[[h5py.File], Any]) -> Path:
    with h5py.File(file, "w") as stored:
        fill(stored)
    return file


@pytest.mark.parametrize(
    "options", [{}, {"compression": "gzip", "shuffle": True, "fletcher32": True, "chunks": (2, 2)}]
)
@pytest.mark.parametrize("dtype", ["f8", "f4", "u1", "i8", ">f8"])
def test_numbers_of_every_type_become_float64(tmp_path: Path, dtype: str, options: dict[str, Any]) -> None:
    values = np.arange(10, dtype=dtype).reshape(5, 2)
    file = written(tmp_path / "x.mat", lambda stored: stored.create_dataset("a", data=values, **options))
    found = load_hdf5(file, SHAPE)["a"]
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, values)


def test_what_is_optional_may_be_absent(tmp_path: Path) -> None:
    file = written(tmp_path / "x.mat", lambda stored: stored.create_dataset("a", data=np.ones((1, 2))))
    assert list(load_hdf5(file, {**SHAPE, "b": [(None,)]}, optional=("b",))) == ["a"]


def test_matlab_s_header_may_stand_before_it(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.mat", "w", userblock_size=512) as stored:
        stored["a"] = np.ones((3, 2))
    assert load_hdf5(tmp_path / "x.mat", SHAPE)["a"].shape == (3, 2)


def external(stored: h5py.File) -> None:
    stored.create_dataset("a", (1, 2), "f8", external=[("secret.bin", 0, 16)])


def virtual(stored: h5py.File) -> None:
    layout = h5py.VirtualLayout((1, 2), "f8")
    layout[:] = h5py.VirtualSource("secret.h5", "a", (1, 2))
    stored.create_virtual_dataset("a", layout)


def bomb(stored: h5py.File) -> None:
    dataset = stored.create_dataset("a", (2, 2), "f8", chunks=(2, 2), compression="gzip")
    dataset.id.write_direct_chunk((0, 0), zlib.compress(bytes(1 << 20)))


def link(to: Any) -> Callable[[h5py.File], None]:
    def fill(stored: h5py.File) -> None:
        stored["a"] = to

    return fill


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (lambda stored: None, r"'a': expected numbers of shape \(any, 2\), found only \[\]"),
        (link(h5py.ExternalLink("secret.h5", "/a")), "a link to elsewhere .ExternalLink"),
        (link(h5py.SoftLink("/b")), "a link to elsewhere .SoftLink"),
        (lambda stored: stored.create_group("a"), "a Group"),
        (link(np.ones((2, 3))), r"\(2, 3\) float64"),
        (link(np.ones(2)), r"\(2,\) float64"),
        (link("text"), r"\(\) object"),
        (link(np.ones((1, 2), complex)), "complex128"),
        (external, "numbers that lie in another file"),
        (virtual, "numbers that lie in another file"),
        (lambda s: s.create_dataset("a", (1 << 40, 2), "f8", chunks=(1, 2)), f"over {hdf5.MAX_NUMBERS} numbers"),
        (lambda s: s.create_dataset("a", (1, 2), "f8", chunks=(1 << 24, 2), maxshape=(None, 2)), "in pieces of"),
        (lambda s: s.create_dataset("a", (4, 2), "f8", compression="lzf"), r"the filters \[32000\]"),
        (bomb, "pieces that inflate to more than they hold"),
    ],
)
def test_all_else_is_refused_before_it_is_read(tmp_path: Path, fill: Callable[[h5py.File], Any], words: str) -> None:
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    written(tmp_path / "secret.h5", link(np.ones((1, 2))))
    with pytest.raises(RawDataError, match=words):
        load_hdf5(written(tmp_path / "x.mat", fill), SHAPE)


@pytest.mark.parametrize("content", [b"", b"MATLAB 5.0 MAT-file" + bytes(600), b"\x89HDF\r\n\x1a\n" + bytes(600)])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.mat").write_bytes(content)
    with pytest.raises(RawDataError, match=r"expected a MATLAB 7\.3 .HDF5. file, found OSError"):
        load_hdf5(tmp_path / "x.mat", SHAPE)


def test_a_pipe_or_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "x.mat")
    for file in (tmp_path / "x.mat", tmp_path, tmp_path / "none"):
        with pytest.raises(RawDataError, match="found no file"):
            load_hdf5(file, SHAPE)


def test_a_damaged_file_ends_in_an_error_of_ours_or_in_numbers(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(40, 2))
    file = written(tmp_path / "x.mat", lambda s: s.create_dataset("a", data=values, compression="gzip", chunks=(8, 2)))
    whole, rng, refused = file.read_bytes(), np.random.default_rng(1), 0
    for case in range(120):
        damaged = bytearray(whole)
        if case % 4 == 0:
            del damaged[int(rng.integers(len(damaged))) :]
        else:
            damaged[int(rng.integers(len(damaged)))] ^= 1 << int(rng.integers(8))
        file.write_bytes(damaged)
        try:
            assert load_hdf5(file, SHAPE)["a"].shape[1] == 2
        except RawDataError:
            refused += 1
    assert refused > 40

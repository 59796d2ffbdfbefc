"""MATLAB files of both kinds, and .npz archives: what is read, and what is refused."""

import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
from scipy.io import savemat

from pipeline.files.formats import hdf5
from pipeline.files.formats.arrays import load_mat, load_npz, number_rows, numbers
from pipeline.files.formats.hdf5 import load_hdf5
from tests.raising import raw_refuses

SHAPE = {"a": [(None, 2)]}


@pytest.mark.parametrize("compressed", [False, True])
def test_variables_come_in_their_stored_types_and_shapes(tmp_path, compressed):
    cells = np.empty((2, 1), object)
    cells[:, 0] = [np.arange(6.0).reshape(2, 3), np.array([[7.5]])]
    stored = {
        "doubles": np.random.default_rng(0).normal(size=(5, 13)),
        "bytes": np.arange(12, dtype=np.uint8).reshape(3, 4),
        "none": np.zeros((0, 3)),
        "cube": np.arange(24, dtype=np.int16).reshape(2, 3, 4),
    }
    file = tmp_path / "a.mat"
    savemat(file, {**stored, "cells": cells, "text": "other"}, do_compression=compressed)
    found = load_mat(file, ["cells", *stored], optional=("nowhere",))
    for got, expected in zip(found.pop("cells")[:, 0], cells[:, 0], strict=True):
        np.testing.assert_array_equal(got, expected)
    assert found.keys() == stored.keys()
    for name, value in stored.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)


def test_a_missing_variable_is_reported_with_those_that_are_there(tmp_path):
    savemat(tmp_path / "a.mat", {"x": np.ones((2, 2))})
    with raw_refuses(r"'x_2'.*only x\.") as caught:
        load_mat(tmp_path / "a.mat", ["x_2"], optional=["x"])
    assert caught.value.reason == "bad_label_file"


def written(file, fill):
    with h5py.File(file, "w", userblock_size=512) as stored:  # MATLAB has its own header before it
        fill(stored)
    return file


@pytest.mark.parametrize(
    "options", [{}, {"compression": "gzip", "shuffle": True, "fletcher32": True, "chunks": (2, 2)}]
)
@pytest.mark.parametrize("dtype", ["f8", "u1", "i8", ">f8"])
def test_numbers_of_every_type_become_float64(tmp_path, dtype, options):
    values = np.arange(10, dtype=dtype).reshape(5, 2)
    file = written(
        tmp_path / "x.mat", lambda stored: stored.create_dataset("a", data=values, **options)
    )
    found = load_hdf5(file, SHAPE)
    assert list(found) == ["a"]
    assert found["a"].dtype == np.float64
    np.testing.assert_array_equal(found["a"], values)


def virtual(stored):
    layout = h5py.VirtualLayout((1, 2), "f8")
    layout[:] = h5py.VirtualSource("secret.h5", "a", (1, 2))
    stored.create_virtual_dataset("a", layout)


def link(to):
    def fill(stored):
        stored["a"] = to

    return fill


@pytest.mark.parametrize(
    ("fill", "words"),
    [
        (lambda stored: None, r"numbers of shape \(any, 2\), found only none"),
        (link(h5py.ExternalLink("secret.h5", "/a")), "ExternalLink"),
        (lambda stored: stored.create_group("a"), "Group"),
        (
            lambda s: s.create_dataset("a", (1, 2), "f8", external=[("secret.bin", 0, 16)]),
            "not in this file",
        ),
        (virtual, "not in this file"),
        (link(np.ones((2, 3))), r"\(2, 3\) float64"),
        (link(np.ones((1, 2), complex)), "complex128"),
        (
            lambda s: s.create_dataset("a", (1 << 40, 2), "f8", chunks=(1, 2)),
            f"over {hdf5.MAX_NUMBERS} numbers",
        ),
        (
            lambda s: s.create_dataset("a", (1, 2), "f8", chunks=(1 << 24, 2), maxshape=(None, 2)),
            "in chunks of",
        ),
        (
            lambda s: s.create_dataset("a", (4, 2), "f8", compression="lzf"),
            r"the filters \[32000\]",
        ),
    ],
)
def test_all_else_is_refused_before_it_is_read(tmp_path, fill, words):
    (tmp_path / "secret.bin").write_bytes(bytes(16))
    written(tmp_path / "secret.h5", link(np.ones((1, 2))))
    with raw_refuses(f"'a'.*{words}"):
        load_hdf5(written(tmp_path / "x.mat", fill), SHAPE)


def test_an_archive_gives_the_wanted_arrays_and_no_object(tmp_path):
    file = tmp_path / "x.npz"
    np.savez(file, a=np.arange(3), text=np.array("male"), objects=np.array([{}], object))
    found = load_npz(file, ["a"], optional=("text", "nowhere"))
    assert {key: value.tolist() for key, value in found.items()} == {"a": [0, 1, 2], "text": "male"}
    for key, words in (("b", "only .*objects"), ("objects", "allow_pickle")):
        with raw_refuses(f"{key}'.*{words}"):
            load_npz(file, [key])


@pytest.mark.parametrize(
    "stored", [[[1, 2], [3]], [["a", "b"]], [[1, 2, 3]], [[1j, 2]], [[None, 1]], 5]
)
def test_what_is_no_table_of_real_numbers_is_refused_by_file_and_key(stored):
    with raw_refuses(r"x\.mat: 'k': expected numbers of shape \(any, 2\)"):
        numbers(Path("x.mat"), "k", stored, (None, 2))


def test_numbers_are_cast_before_anything_is_computed_and_a_table_names_the_wrong_row():
    assert numbers(Path("x"), "k", np.array([250], np.uint8), (1,)).dtype == np.float64
    np.testing.assert_array_equal(
        number_rows(Path("x"), ["a", "b"], [[1, 2], [3, 4.5]], 2), [[1, 2], [3, 4.5]]
    )
    assert number_rows(Path("x"), [], [], 2).shape == (0, 2)
    with raw_refuses("'b'"):
        number_rows(Path("x"), ["a", "b"], [[1, 2], [3, "4"]], 2)


def test_a_compressed_variable_that_ends_in_a_sync_flush_is_read(tmp_path):
    # As two of Penn Action's labels are stored: 16,384 bytes, and a stream without a final block.
    stored = np.random.default_rng(0).normal(size=(157, 13))
    file = tmp_path / "a.mat"
    savemat(file, {"x": stored}, do_compression=True)
    content = file.read_bytes()
    plain = zlib.decompress(content[136:])
    assert len(plain) == 16_384
    packer = zlib.compressobj()
    packed = packer.compress(plain) + packer.flush(zlib.Z_SYNC_FLUSH)
    file.write_bytes(content[:128] + struct.pack("<II", 15, len(packed)) + packed)
    np.testing.assert_array_equal(load_mat(file, ["x"])["x"], stored)

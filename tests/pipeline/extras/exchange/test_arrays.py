"""Any array becomes a stream of an existing split, row by row what the file holds, or is
refused.
"""

import json
import shutil
import tracemalloc
from dataclasses import astuple
from itertools import product
from pathlib import Path

import h5py
import joblib
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.testing import assert_array_equal

import cache
from pipeline.extras.exchange import array_files
from pipeline.extras.exchange.arrays import Imported, import_array
from pipeline.extras.exchange.tables import TableOptions, export
from pipeline.features.spec import StreamSpec
from pipeline.steps.extraction.plan import plan_extraction
from tests.made_splits import make, write_stream
from tests.raising import cache_refuses, pipeline_refuses, raw_refuses

N, NAME = 120, "made/train"
TRACK = np.repeat(["a.b/ü 1/0", "a.b/ü 1/ß.x"], N // 2)  # as `make` writes them
FRAME = np.tile(np.r_[np.arange(30), np.arange(30) + 60], 2)
X = np.random.default_rng(0).normal(size=(N, 3, 2)).astype(np.float32)
KEYS = {"track": TRACK, "frame": FRAME}
SAFE = {"float16": "F16", "float32": "F32", "float64": "F64", "int32": "I32", "uint8": "U8"}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Only to be copied."""
    root = tmp_path_factory.mktemp("made") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache.write.split_writer, "ROWS_PER_SHARD", 32)
        patch.setattr(cache.write.split_writer, "ROWS_PER_CHUNK", 16)
        make(root)
    return root


@pytest.fixture
def root(made, tmp_path, monkeypatch):
    monkeypatch.setattr(array_files, "ROWS", 50)
    return Path(shutil.copytree(made, tmp_path / "cache"))


def imported(root, file, stream="mine", **options):
    done = import_array(file, root, NAME, stream, **options)
    assert cache.verify(root).ok
    return done


def stored(root, stream="mine"):
    split = cache.open(root)[NAME]
    return np.concatenate([split.rows(f"features/{stream}", t.start, t.stop) for t in split.tracks])


def safetensors(file, arrays, **changed):
    """As the format's specification says: a length, JSON, bytes."""
    header, data = {}, b""
    for name, array in arrays.items():
        offsets = [len(data), len(data) + array.nbytes]
        header[name] = {
            "dtype": SAFE[str(array.dtype)],
            "shape": array.shape,
            "data_offsets": offsets,
            **changed,
        }
        data += array.tobytes()
    text = json.dumps({"__metadata__": {"by": "hand"}, **header}).encode()
    text += b" " * (-len(text) % 128)  # its length may begin as a pickle does: 0x80
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


def parquet(file, arrays, *, fixed=True):
    def column(array):
        array = np.asarray(array)
        flat = pa.array(array.reshape(-1))
        for size in array.shape[:0:-1]:
            if fixed:
                flat = pa.FixedSizeListArray.from_arrays(flat, size)
            else:
                starts = np.arange(0, len(flat) + 1, size, dtype=np.int32)
                flat = pa.ListArray.from_arrays(starts, flat)
        return flat

    table = pa.table({name: column(array) for name, array in arrays.items()})
    pq.write_table(table, file, row_group_size=40)


def hdf5(file, arrays, *, chunks):
    """Names are texts of any length in chunks, else of a fixed one."""
    with h5py.File(file, "w") as stored:
        for name, array in arrays.items():
            values = array
            if array.dtype.kind == "U":
                values = array.astype(object) if chunks else np.char.encode(array, "utf-8")
            stored.create_dataset(name, data=values, chunks=chunks)


WRITERS = {
    "x.npy": lambda file, arrays: np.save(file, arrays["x"]),
    "x.npz": lambda file, arrays: np.savez(file, **arrays),
    "packed.npz": lambda file, arrays: np.savez_compressed(file, **arrays),
    # the second array does not begin with the file's numbers
    "x.safetensors": lambda file, arrays: safetensors(
        file, {"one row": arrays["x"][:1], "features": arrays["x"]}
    ),
    "x.parquet": parquet,
    "lists.parquet": lambda file, arrays: parquet(file, arrays, fixed=False),
    "x.pt": lambda file, arrays: joblib.dump(arrays, file),
    "x.h5": lambda file, arrays: hdf5(file, arrays, chunks=None),
    "chunked.h5": lambda file, arrays: hdf5(file, arrays, chunks=True),
}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        *product(WRITERS, ["float16", "int32"]),
        *product(["x.npz", "x.safetensors"], ["float32", "float64"]),
    ],
)
def test_a_row_of_the_stream_is_the_file_s_row(name, dtype, root, tmp_path):
    x = (X * 1000).astype(dtype)
    WRITERS[name](tmp_path / name, {"x": x, **(KEYS if name != "x.parquet" else {})})
    done = imported(root, tmp_path / name)
    keyed = name not in ("x.npy", "x.safetensors", "x.parquet")
    assert astuple(done) == (N, N, 0, "tracks" if keyed else "rows", False, True, ())
    expected = x.reshape(N, 6).astype(np.float16 if dtype == "float16" else np.float32)
    assert stored(root).dtype == expected.dtype and stored(root).tobytes() == expected.tobytes()
    manifest = cache.open(root)[NAME].open_stream("mine").manifest
    assert manifest["imported"]["shape"] == [N, 3, 2] and manifest["imported"]["dtype"] == dtype
    assert manifest["imported"]["file"] == name and manifest["identity"]["kind"] == "imported"
    assert not imported(root, tmp_path / name).is_written


def test_a_compressed_array_of_hdf5_is_refused_only_if_it_is_asked_for(root, tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("packed", data=X.reshape(N, 6), compression="gzip")
        file.create_dataset("features", data=X.reshape(N, 6))
    imported(root, tmp_path / "x.h5")
    assert_array_equal(stored(root), X.reshape(N, 6).astype(np.float32))
    with raw_refuses("h5repack"):
        imported(root, tmp_path / "x.h5", "packed", array="packed")


def test_float16_of_either_byte_order_is_kept(root, tmp_path):
    np.save(tmp_path / "big.npy", X.astype(">f2"))
    imported(root, tmp_path / "big.npy", "big")
    assert stored(root, "big").dtype == np.float16 and np.array_equal(
        stored(root, "big"), X.reshape(N, 6).astype("f2")
    )


@pytest.mark.parametrize("name", ["x.npz", "lists.parquet"])
def test_rows_are_found_by_track_and_frame_and_those_without_numbers_are_left_out(
    name, root, tmp_path
):
    x, order = X.copy(), np.random.default_rng(1).permutation(N)
    x[7, 1, 1] = np.nan
    order = order[order != 70]
    WRITERS[name](
        tmp_path / name, {"x": x[order], "track_name": TRACK[order], "frame_index": FRAME[order]}
    )
    done = imported(root, tmp_path / name)
    assert astuple(done) == (N, N - 1, 2, "tracks", False, True, ())
    rest = np.delete(np.arange(N), [7, 70])
    assert np.array_equal(stored(root)[rest], x.reshape(N, 6)[rest])
    split = cache.open(root)[NAME]
    lost = [split.tracks[0].start + 7, split.tracks[1].start + 10]
    for start, stop in split.windows(8, 1, "mine").tolist():
        assert not any(start <= row < stop for row in lost)
        split.read([[start, stop]], "mine")
    with cache_refuses(f"no features for row {lost[0]}"):
        split.read([[lost[0] - 4, lost[0] + 4]], "mine")


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "packed.npz", "x.parquet", "x.pt"])
def test_a_file_that_is_replaced_while_it_is_read_gives_no_row(name, root, tmp_path):
    WRITERS[name](tmp_path / name, {"x": X})
    (tmp_path / "new").mkdir()
    WRITERS[name](tmp_path / "new" / name, {"x": X + 1})

    def replace(*_):
        if (tmp_path / "new" / name).exists():
            (tmp_path / "new" / name).replace(tmp_path / name)

    with raw_refuses("it was replaced while it was read"):
        import_array(tmp_path / name, root, NAME, "mine", progress=replace)
    assert "mine" not in cache.open(root)[NAME].streams
    imported(root, tmp_path / name)
    assert_array_equal(stored(root), (X + 1).reshape(N, 6))


def test_a_first_import_that_ends_early_is_continued(root, tmp_path):
    np.savez(tmp_path / "x.npz", x=X, **KEYS)

    def end(done, total, message=""):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        import_array(tmp_path / "x.npz", root, NAME, "mine", progress=end)
    assert cache.open(root)[NAME].streams == ()
    assert imported(root, tmp_path / "x.npz").is_written
    assert stored(root).tobytes() == X.reshape(N, 6).tobytes()


def odd(array, row, value):
    return np.array([*array[:row], value, *array[row + 1 :]])


REFUSED = {  # arrays, options, words
    "short": ({"x": X[:-1]}, {}, "120 rows as made/train, found 119"),
    "foreign track": ({"x": X, **KEYS, "track": odd(TRACK, 99, "b")}, {}, "track b.*row 99"),
    "foreign frame": ({"x": X, **KEYS, "frame": odd(FRAME, 60, 31)}, {}, "frame 31 in row 60"),
    "huge frame": ({"x": X, **KEYS, "frame": odd(FRAME, 60, 2**62)}, {}, "in row 60"),
    "repeated": ({"x": X, **KEYS, "frame": odd(FRAME, 55, 3)}, {}, "frame 3 in row 55"),
    "repeated at once": ({"x": X, **KEYS, "frame": odd(FRAME, 4, 3)}, {}, "frame 3 in row 4"),
    "no frames": ({"x": X, "track": TRACK}, {}, "frames .*found track. Add what is missing"),
    "several": ({"x": X, "y": X}, {}, "an array 'features', found x, y. Name one.*--array"),
    "unknown": ({"x": X}, {"array": "z"}, "an array 'z', found x"),
    "texts": ({"x": np.array(["a"] * N)}, {}, "'x': expected numbers, found <U1"),
    "too many frames": ({"x": X[1:], **KEYS}, {}, "119 track names, one per row, found .*120"),
    "large integers": ({"x": np.arange(N) + 2**24 - 20}, {}, "16777217 in row 21"),
    "objects": ({"x": np.array([{}] * N)}, {}, "Python objects, whose pickles can run code"),
    "empty": ({"x": X[:, :, :0]}, {}, "'x': expected an array with rows, found shape"),
    "Fortran order": ({"x": np.asfortranarray(X)}, {}, "numpy.ascontiguousarray"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_file_that_does_not_fit_is_refused_with_its_first_wrong_row(what, root, tmp_path):
    arrays, options, words = REFUSED[what]
    np.savez(tmp_path / "x.npz", **arrays)
    with raw_refuses(words):
        import_array(tmp_path / "x.npz", root, NAME, "mine", **options)
    assert "mine" not in cache.open(root)[NAME].streams


def damaged_npz(file):
    np.savez(file, x=X)
    data = bytearray(file.read_bytes())
    data[400] ^= 1
    file.write_bytes(data)


def of_bytes(content):
    return lambda file: file.write_bytes(content)


def of_parquet(column):
    return lambda file: pq.write_table(pa.table({"x": column}), file)


def elsewhere(file):
    with h5py.File(file, "w") as stored:
        stored.create_dataset("x", (N, 2), "f4", external=[("secret", 0, N * 8)])


FOREIGN = {  # file -> what writes it, words
    "x.npz": (damaged_npz, "'x': .*CRC"),
    "x.pkl": (of_bytes(b"\x80\x04N."), "a joblib file: a dict of NumPy arrays.*found NoneType"),
    "x.gz": (of_bytes(b"\x1f\x8b"), "joblib or HDF5, found a file compressed with gzip"),
    "1.h5": (elsewhere, "not in this file"),
    "2.h5": (of_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "HDF5"),
    "1.safetensors": (of_bytes(b"\xff" * 9), "a header of"),
    "2.safetensors": (lambda file: safetensors(file, {"x": X}, data_offsets=[0, 4]), "4 bytes for"),
    "3.safetensors": (lambda file: safetensors(file, {"x": X}, dtype="BF16"), "numbers of BF16"),
    "1.parquet": (of_parquet([[1.0, 2.0]] * 99 + [[1.0]] * 21), "1 values in row 99, after lists"),
    "2.parquet": (of_parquet([1] * 99 + [None] * 21), "null in row 99"),
    "none.npy": (lambda _: None, "none.npy"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_damaged_and_foreign_files_are_refused(name, root, tmp_path):
    write, words = FOREIGN[name]
    write(tmp_path / name)
    with raw_refuses(words):
        import_array(tmp_path / name, root, NAME, "mine")
    assert "mine" not in cache.open(root)[NAME].streams


def test_memory_follows_a_block_s_bytes_and_an_absurd_row_is_refused(root, tmp_path, monkeypatch):
    monkeypatch.setattr(array_files, "ROWS", 4096)
    monkeypatch.setattr(array_files, "BLOCK", 1 << 19)
    # characters of a name: 14.4 MB of the first file, 72 MB of the second
    for width in (30_000, 150_000):
        np.savez_compressed(
            tmp_path / f"{width}.npz", x=X, frame=FRAME, track=TRACK.astype(f"U{width}")
        )
    tracemalloc.start()
    assert imported(root, tmp_path / "30000.npz").covered == N
    with raw_refuses(r"'track': .*found rows of 600,000 bytes"):
        imported(root, tmp_path / "150000.npz", "other")
    assert tracemalloc.get_traced_memory()[1] < 12e6
    tracemalloc.stop()


def test_more_rows_than_the_split_has_are_refused_before_they_are_read(root, tmp_path):
    n_rows = 4_000_000  # 32 MB of frames, in a file of 100 KB
    arrays = {"x": np.zeros((n_rows, 1), np.int8), "frame": np.zeros(n_rows, np.int64)}
    np.savez_compressed(tmp_path / "x.npz", **arrays, track=np.full(n_rows, "a"))
    tracemalloc.start()
    with raw_refuses(f"at most the {N} rows of {NAME}, found 4,000,000"):
        imported(root, tmp_path / "x.npz")
    assert tracemalloc.get_traced_memory()[1] < 12e6
    tracemalloc.stop()


def test_our_parquet_export_imports_again_as_it_is(root, tmp_path):
    x = X.copy()
    x[9] = np.nan
    np.save(tmp_path / "x.npy", x)
    imported(root, tmp_path / "x.npy")
    export(root, NAME, tmp_path / "out", stream="mine", options=TableOptions(features=True))
    assert imported(root, tmp_path / "out", "again").matched_by == "tracks"
    assert_array_equal(stored(root, "again"), stored(root))


def test_an_imported_stream_is_never_extracted_extended_or_mixed(root, tmp_path):
    spec = StreamSpec("mine", Imported(dim=6))
    with pipeline_refuses(r"imported and cannot be extracted \(not extracted before\). Import it"):
        plan_extraction(root, NAME, spec)
    np.save(tmp_path / "x.npy", X)
    imported(root, tmp_path / "x.npy")
    assert plan_extraction(root, NAME, spec).up_to_date
    with pipeline_refuses(r"imported and cannot be extracted \(--replace\)"):
        plan_extraction(root, NAME, spec, replace=True)
    np.save(tmp_path / "x.npy", X + 1)
    imported(root, tmp_path / "x.npy")
    assert_array_equal(stored(root), (X + 1).reshape(N, 6))
    write_stream(root, NAME, "computed", lambda rows: np.ones((len(rows), 6)), dim=6)
    with pipeline_refuses(r"'computed' was not imported .*--as NAME"):
        imported(root, tmp_path / "x.npy", "computed")


def test_another_file_does_not_replace_a_stream_that_a_tag_needs(root, tmp_path):
    np.save(tmp_path / "x.npy", X)
    imported(root, tmp_path / "x.npy")
    cache.tag(root, "cvpr")
    imported(root, tmp_path / "x.npy")  # the same: nothing is replaced
    np.save(tmp_path / "x.npy", X + 1)
    with cache_refuses(rf"tags/cvpr/{NAME}/features/mine.* --delete"):
        imported(root, tmp_path / "x.npy")
    assert_array_equal(stored(root), X.reshape(N, 6))
    imported(root, tmp_path / "x.npy", "new")


def test_the_command_imports_and_others_know_the_stream(penn, tmp_path, types, command_line):
    penn.converted()
    frames = penn.rows("frame_index")
    keys = {
        "track": np.repeat([*frames], [*map(len, frames.values())])[1:],
        "frame": np.concatenate([*frames.values()])[1:],
    }
    numbers = np.ones((len(keys["track"]), 5), np.float16)
    np.savez(tmp_path / "x.npz", x=numbers, y=numbers, **keys)
    command = "import TMP/x.npz penn_action/train --cache CACHE --format arrays --array x"
    types(command, "--as NAME", code=2)
    types(f"{command} --as mine")
    assert penn.split.open_stream("mine").undecodable() == 1
    types(f"{command} --as mine", "mine is up to date")
    types("status --cache CACHE", "1 row without features in mine")
    extract = "extract penn_action/train --stream mine --kind imported --cache CACHE"
    types(extract, "mine is up to date")
    shards = (penn.root / penn.name / "features/mine/c").rglob("*")
    next(file for file in shards if file.is_file()).unlink()
    repair = command_line("verify --cache CACHE --repair").out
    refused = command_line(extract, code=2).err
    assert "imported and cannot be extracted" in refused
    for message in (repair, refused):
        printed = message.partition(" -m pipeline ")[2].partition("\n")[0]
        types(printed.partition(" #")[0])
    types(extract, "mine is up to date")

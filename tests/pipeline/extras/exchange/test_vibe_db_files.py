"""joblib files: written as joblib reads them, read without unpickling them."""

import io
import os
import pickle

import joblib
import joblib.numpy_pickle as joblib_format
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import PipelineError, RawDataError, UnsafePickle
from pipeline.extras.exchange.pickled_arrays import Blocks, stored_arrays, write_joblib
from tests.hostile import Call
from tests.raising import raw_refuses

HELD = {
    "vid_name": np.array(["0001/0"] * 3 + ["täst/12"] * 4),
    "joints2D": np.arange(7 * 13 * 3, dtype=np.float32).reshape(7, 13, 3),
    "frame_id": np.arange(7),
    "valid": np.array([1, 0, 1, 1, 0, 0, 1], np.uint8),
    "features": np.linspace(-1, 1, 7 * 5).reshape(7, 5).astype(np.float32),
}


def in_blocks(array):
    blocks = [array[at : at + 3] for at in range(0, len(array), 3)]
    return Blocks(array.shape, array.dtype, lambda: blocks)


def written(file, arrays):
    write_joblib(file, {name: in_blocks(array) for name, array in arrays.items()})
    return file


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape), name
        assert np.asarray(found[name]).tobytes() == array.tobytes(), name


@pytest.mark.parametrize("mapped", [None, "r"])
def test_a_file_written_in_blocks_is_the_dict_that_joblib_would_have_written(mapped, tmp_path):
    """In the form that joblib 0.14 reads: of a protocol that Python 3.7 knows, and without the
    padding of joblib 1.2, which it would take for data; and arrays begin where they can be mapped,
    else joblib warns.
    """
    held = {f"{name}{'+' * n}": HELD[name][: n + 3] for n, name in enumerate([*HELD, *HELD])}
    ours = joblib.load(written(tmp_path / "ours.pt", held), mmap_mode=mapped)
    assert_same(ours, held)
    assert {type(array) for array in ours.values()} == {np.memmap if mapped else np.ndarray}
    assert not mapped or all(array.offset % 16 == 0 for array in ours.values())
    data = (tmp_path / "ours.pt").read_bytes()
    assert data[:2] == b"\x80\x03" and b"numpy_array_alignment_bytes" not in data
    joblib.dump({"features": HELD["features"]}, tmp_path / "joblib.pt", protocol=3)
    # what this version would write
    assert b"numpy_array_alignment_bytes" in (tmp_path / "joblib.pt").read_bytes()


def read(file):
    arrays, _ = stored_arrays(file)
    return {name: np.array(array) for name, array in arrays.items()}


def dump_as_before_1_2(held, file, protocol):
    """What joblib 0.14 wrote: without padding."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joblib_format, "NUMPY_ARRAY_ALIGNMENT_BYTES", None)
        own = joblib_format.NumpyArrayWrapper.__init__

        def without(self, *args, **kwargs):
            own(self, *args, **kwargs)
            del self.numpy_array_alignment_bytes

        patch.setattr(joblib_format.NumpyArrayWrapper, "__init__", without)
        joblib.dump(held, file, protocol=protocol)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("before_1_2", [False, True])
def test_arrays_are_read_whichever_version_wrote_them(protocol, before_1_2, tmp_path):
    file = tmp_path / "db.pt"
    (dump_as_before_1_2 if before_1_2 else joblib.dump)(HELD, file, protocol=protocol)
    assert_same(read(file), HELD)
    assert stored_arrays(file)[0]["features"][2:5].tolist() == HELD["features"][2:5].tolist()


def test_arrays_in_other_orders_and_of_other_machines_are_read(tmp_path):
    mapped = np.memmap(tmp_path / "raw", np.float32, "w+", shape=(3, 2))
    mapped[:] = 5
    held = {
        "mapped": mapped,
        "fortran": np.asfortranarray(HELD["joints2D"]),
        "big": np.arange(7, dtype=">i4"),
        "bytes": np.array([b"a", b"bcd"]),
        "scalar": np.array(3.0),
        "empty": np.zeros((0, 4), np.float32),
    }
    joblib.dump({**held, "note": "by hand", "list": [1, 2]}, tmp_path / "db.pt")
    found, others = stored_arrays(tmp_path / "db.pt")
    assert (set(found), others) == (set(held), ("list", "note"))
    assert found["scalar"].shape == ()
    for name in held.keys() - {"scalar"}:
        values = found[name]
        assert values.dtype == held[name].dtype and np.array_equal(values, held[name]), name


@pytest.mark.parametrize("where", ["value", "object array", "top"])
def test_a_file_that_would_run_code_is_refused_and_runs_none(where, tmp_path):
    hostile = Call(os.system, f"touch {tmp_path / 'ran'}")
    held = {
        "value": {"features": np.zeros(3), "x": hostile},
        "object array": {"vid_name": np.array([hostile, "b"], object)},
        "top": hostile,
    }[where]
    joblib.dump(held, tmp_path / "db.pt")
    words = r"system.*Do not unpickle it|Python objects; store texts"
    with pytest.raises((UnsafePickle, RawDataError), match=words):
        stored_arrays(tmp_path / "db.pt")
    assert not (tmp_path / "ran").exists()
    joblib.load(tmp_path / "db.pt")
    assert (tmp_path / "ran").exists()  # what reading it otherwise does


@pytest.mark.parametrize("name", ["NDArrayWrapper", "ZNDArrayWrapper", "np"])
def test_nothing_else_of_joblib_is_let_in(name, tmp_path):
    (tmp_path / "db.pt").write_bytes(b"\x80\x03cjoblib.numpy_pickle\n" + name.encode() + b"\n.")
    with pytest.raises(UnsafePickle, match=name):
        stored_arrays(tmp_path / "db.pt")


def test_a_file_that_ends_early_is_refused_wherever_it_ends(tmp_path):
    data = written(
        tmp_path / "whole.pt", {"a": np.arange(4), "b": np.array(["x", "yy"])}
    ).read_bytes()
    for size in range(len(data)):
        (tmp_path / "cut.pt").write_bytes(data[:size])
        with pytest.raises(PipelineError):
            stored_arrays(tmp_path / "cut.pt")


@given(st.integers(0, 10_000), st.integers(0, 255))
@settings(max_examples=100, deadline=None)
def test_a_damaged_file_is_read_as_something_or_refused_and_never_more_than_it_is(
    tmp_path_factory, at, value
):
    folder = tmp_path_factory.getbasetemp()
    file = folder / "damaged.pt"
    data = bytearray(written(file, {"a": np.arange(4), "b": np.array(["x", "yy"])}).read_bytes())
    data[at % len(data)] = value
    file.write_bytes(data)
    try:
        arrays, _ = stored_arrays(file)
        assert sum(
            array.dtype.itemsize * int(np.prod(array.shape)) for array in arrays.values()
        ) <= len(data)
    except PipelineError:
        pass


def claiming(**changed):
    """A file whose one array says something else of itself."""
    stream = io.BytesIO()
    wrapper = joblib_format.NumpyArrayWrapper(
        np.ndarray, (2,), "C", np.dtype("<i8"), allow_mmap=True
    )
    del wrapper.numpy_array_alignment_bytes
    wrapper.__dict__.update(changed)
    stream.write(b"\x80\x03}" + pickle.dumps("a", 3)[2:-1] + pickle.dumps(wrapper, 3)[2:-1])
    stream.write(np.arange(2).tobytes() + b"s.")
    return stream.getvalue()


@pytest.mark.parametrize(
    "changed",
    [
        {"shape": (2**40,)},
        {"shape": (-1,)},
        {"shape": (2, 2, 2, 2, 2)},
        {"shape": ("2",)},
        {"order": "K"},
        {"dtype": "<i8"},
        {"dtype": np.dtype([("a", "<i8")])},
        {"dtype": np.dtype("<M8[s]")},
        {"subclass": None},
        {"numpy_array_alignment_bytes": "16"},
    ],
    ids=str,
)
def test_what_an_array_says_of_itself_is_not_believed(changed, tmp_path):
    (tmp_path / "good.pt").write_bytes(claiming())
    assert read(tmp_path / "good.pt")["a"].tolist() == [0, 1]
    (tmp_path / "bad.pt").write_bytes(claiming(**changed))
    with pytest.raises(PipelineError):
        stored_arrays(tmp_path / "bad.pt")


def test_a_compressed_file_is_refused_with_what_to_do(tmp_path):
    joblib.dump(HELD, tmp_path / "db.pt", compress=("gzip", 3))
    with raw_refuses(r"compressed with gzip.*without compress"):
        stored_arrays(tmp_path / "db.pt")


FOREIGN = {
    b"": "empty file",
    pickle.dumps([1, 2]): "found list at the top",
    b"PK\x03\x04": "found a zip archive",
    b"\0\0\0 ftypisom": "found a file of another kind",  # a clip
}


@pytest.mark.parametrize("content", FOREIGN)
def test_what_is_no_dict_of_arrays_is_refused(content, tmp_path):
    (tmp_path / "db.pt").write_bytes(content)
    for file in (tmp_path / "db.pt", tmp_path, tmp_path / "missing"):
        with raw_refuses(f"joblib file.*{FOREIGN[content] if file.is_file() else ''}"):
            stored_arrays(file)

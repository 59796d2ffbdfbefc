"""Pickles from strangers are data: what they hold comes out, what they would do does not happen."""

import collections
import pickle
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from pipeline.errors import RawDataError, UnsafePickle
from pipeline.files.formats.pickles import load_pickle
from tests.hostile import Call


def global_(module, name):
    return f"c{module}\n{name}\n".encode()


def text(value):
    """A Python 2 str: SHORT_BINSTRING."""
    return b"U" + bytes([len(value)]) + value.encode("latin1")


def integer(value):
    return b"J" + struct.pack("<i", value)


NUMPY = "numpy.core.multiarray"
reconstruct = global_(NUMPY, "_reconstruct")
ndarray = global_("numpy", "ndarray")
EMPTY = reconstruct + b"(" + ndarray + b"(K\x00t" + text("b") + b"tR"


def raw(value, *, protocol):
    """Array content as Python 2 wrote it: a str, quoted in protocol 0 and counted from 1 on."""
    if protocol == 0:
        quoted = "".join(
            chr(b) if 32 <= b < 127 and b not in b"\\'" else f"\\x{b:02x}" for b in value
        )
        return b"S'" + quoted.encode() + b"'\n"
    return b"T" + struct.pack("<i", len(value)) + value


def dtype(array):
    order, code = array.dtype.str[0], array.dtype.str[1:]
    made = global_("numpy", "dtype") + b"(" + text(code) + b"I0\nI1\ntR"
    rest = integer(-1) + integer(-1) + integer(0)
    return made + b"(" + integer(3) + text(order) + b"NNN" + rest + b"tb"


def array(value, *, protocol=2):
    order = "F" if value.flags.f_contiguous and not value.flags.c_contiguous else "C"
    shape = b"(" + b"".join(integer(n) for n in value.shape) + b"t"
    flag = b"I01\n" if order == "F" else b"I00\n"
    content = raw(value.tobytes(order), protocol=protocol)
    return EMPTY + b"(" + integer(1) + shape + dtype(value) + flag + content + b"tb"


def mapping(**items):
    return b"}(" + b"".join(text(key) + value for key, value in items.items()) + b"u"


def instance(module, name, state, *, protocol=2):
    if protocol < 2:
        empty = (
            global_("copy_reg", "_reconstructor")
            + b"("
            + global_(module, name)
            + global_("__builtin__", "object")
        )
        return empty + b"NtR" + state + b"b"
    return global_(module, name) + b")\x81" + state + b"b"


def chumpy_leaf(value, *, protocol=2):
    dirty = global_("__builtin__", "set") + b"((" + text("x") + b"ltR"
    return instance(
        "chumpy.ch", "Ch", mapping(x=array(value), _dirty_vars=dirty, _itr=b"N"), protocol=protocol
    )


def csc(matrix, *, module="scipy.sparse.csc", protocol=2, **changed):
    state = {key: array(getattr(matrix, key)) for key in ("data", "indices", "indptr")}
    rows, columns = matrix.shape
    state |= {"format": text("csc"), "_shape": b"(" + integer(rows) + integer(columns) + b"t"}
    return instance(module, "csc_matrix", mapping(**(state | changed)), protocol=protocol)


def read(tmp_path, content, kind="sequence"):
    file = tmp_path / "file.pkl"
    file.write_bytes(content)
    return load_pickle(file, kind=kind)


ARRAYS = [
    np.arange(6.0).reshape(2, 3),
    np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3)),
    np.array([True, False]),
    np.array([[1, 2]], ">i4"),
    np.zeros((0, 72)),
    np.array(3.5),
    np.arange(256, dtype=np.uint8),
]


@pytest.mark.parametrize("value", ARRAYS, ids=lambda a: f"{a.dtype}{a.shape}")
@pytest.mark.parametrize("protocol", [0, 1, 2])
def test_an_array_from_python_2_comes_out_as_it_was(value, protocol, tmp_path):
    content = read(tmp_path, mapping(poses=array(value, protocol=protocol)) + b".")
    assert content["poses"].dtype == value.dtype.newbyteorder("=")
    np.testing.assert_array_equal(content["poses"], value)
    assert content["poses"].flags.writeable


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_protocol_of_this_python_is_read(protocol, tmp_path):
    arrays = {str(k): one for k, one in enumerate([*ARRAYS, np.array(["a", "bc"], object)])}
    data = {"sequence": "outdoors_é", "genders": ["m", "f"], "raw": b"\x00\xff" * 9}
    data |= {"number": np.float64(2.5), "empty": b"", "big": 2**70, "none": None}
    data |= {"nested": {"a": (1, 2.5, True)}}
    content = read(tmp_path, pickle.dumps(data | {"arrays": arrays}, protocol))
    for key, got in content.pop("arrays").items():
        np.testing.assert_array_equal(got, arrays[key])
    assert content == data


def test_an_array_named_twice_stays_one_array(tmp_path):
    shared, big = np.arange(3.0), np.arange(3, dtype=">f8")
    content = read(
        tmp_path,
        pickle.dumps({"a": shared, "b": [shared], "c": big, "d": [big, big.astype(">f8")]}, 2),
    )
    assert content["a"] is content["b"][0]
    assert [content["d"][i].tolist() for i in (0, 1)] == [[0, 1, 2]] * 2


@pytest.mark.parametrize("protocol", [1, 2])
@pytest.mark.parametrize("module", ["scipy.sparse.csc", "scipy.sparse._csc"])
def test_a_model_file_gives_its_sparse_matrix(module, protocol, tmp_path):
    matrix = sparse.random(24, 30, density=0.2, format="csc", rng=np.random.default_rng(0))
    content = read(
        tmp_path, mapping(J_regressor=csc(matrix, module=module, protocol=protocol)) + b".", "smpl"
    )
    np.testing.assert_array_equal(content["J_regressor"].toarray(), matrix.toarray())


@pytest.mark.parametrize("protocol", [1, 2])
def test_chumpy_objects_become_their_values_without_chumpy(protocol, tmp_path):
    value = np.arange(24.0).reshape(2, 3, 4)
    index = np.arange(24).reshape(2, 3, 4)[..., :2].ravel()  # value[..., :2]
    shape = b"(" + integer(2) + integer(3) + integer(2) + b"t"
    parts = mapping(
        a=chumpy_leaf(value, protocol=protocol), idxs=array(index), preferred_shape=shape
    )
    selected = instance("chumpy.reordering", "Select", parts, protocol=protocol)
    content = read(tmp_path, mapping(weights=chumpy_leaf(value), shapedirs=selected) + b".", "smpl")
    np.testing.assert_array_equal(content["weights"], value)
    np.testing.assert_array_equal(content["shapedirs"], value[..., :2])


def test_results_of_another_program_are_no_attack(tmp_path):
    # as WHAM's wham_output.pkl
    content = pickle.dumps(collections.defaultdict(dict, {0: {"pose": np.zeros((2, 72))}}))
    words = r"file\.pkl.*collections\.defaultdict.*plain dicts and NumPy arrays"
    with pytest.raises(UnsafePickle, match=words) as caught:
        read(tmp_path, content, "sequence")
    assert not re.search("never|official page|other means", str(caught.value))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_runs_code_is_refused_and_runs_none(protocol, tmp_path):
    trace = tmp_path / "trace"
    content = pickle.dumps({"poses": Call(Path.touch, trace)}, protocol)
    pickle.loads(content)
    assert trace.exists(), "the attack works on an ordinary unpickler"
    trace.unlink()
    with pytest.raises(UnsafePickle, match=r"file\.pkl.*download"):
        read(tmp_path, content, "smpl")
    assert not trace.exists()


@pytest.mark.parametrize(
    "name",
    [
        "os system",
        "builtins eval",
        "__builtin__ getattr",
        "builtins object.__subclasses__",
        "numpy load",
        " ",
        "numpy._core.multiarray _reconstruct.__globals__",
        "numpy.core ndarray",
        "copyreg add_extension",
        "_codecs lookup",
        "chumpy.ch ChLambda",
        "scipy.sparse.csc csr_matrix",
        "torch.storage _load_from_bytes",
    ],
)
@pytest.mark.parametrize("kind", ["sequence", "smpl"])
def test_names_near_those_on_the_list_are_not_on_it(name, kind, tmp_path):
    module, attribute = name.split(" ")
    for content in (global_(module, attribute), text(module) + text(attribute) + b"\x93"):
        with pytest.raises(UnsafePickle, match="not read"):
            read(tmp_path, b"\x80\x02" + content + b")R.", kind)


def test_a_sequence_may_hold_less_than_a_model(tmp_path):
    content = mapping(poses=chumpy_leaf(np.zeros(3))) + b"."
    with pytest.raises(UnsafePickle, match=r"chumpy\.ch\.Ch"):
        read(tmp_path, content, "sequence")


plain_dtype = dtype(np.zeros(1))
EIGHT = text("12345678")


def held(*parts):
    """A pickle of a dict that holds what the parts make."""
    return b"}" + text("a") + b"".join(parts) + b"s."


def state(shape, kind=plain_dtype, content=EIGHT):
    """Of an array with this shape, type and content."""
    return held(EMPTY, b"(K\x01", shape, kind, b"I00\n", content, b"tb")


def type_called(code, ends=b"tR"):
    return global_("numpy", "dtype") + b"(" + text(code) + ends


def select(**parts):
    return mapping(a=instance("chumpy.reordering", "Select", mapping(**parts))) + b"."


def leaf(content):
    return mapping(a=instance("chumpy.ch", "Ch", content)) + b"."


def sparse_of(**changed):
    return mapping(a=csc(sparse.csc_matrix(np.eye(3)), **changed)) + b"."


ONE, zeros = b"(K\x01t", array(np.zeros(3))
hostile = {
    "array of a foreign class": held(reconstruct, b"(", global_("numpy", "dtype"), b"NNtR"),
    "array that claims more than it has": state(b"(" + b"J\xff\xff\xff\x7f" * 2 + b"t"),
    "array of negative size": state(b"(" + integer(-1) + b"t"),
    "array of more dimensions than there are": state(b"(" + b"K\x01" * 100 + b"t"),
    "array with another state": held(EMPTY, b"}b"),
    "objects that are not there": state(b"(K\x05t", type_called("O8"), b"]"),
    "type without meaning": state(ONE, type_called("V8")),
    "type with fields": state(ONE, plain_dtype[:-1] + b"0(K\x03" + text("<") + b"N}}tb"),
    "type from a recipe": state(ONE, type_called("f8,(9999,9999)f8", b"I0\nI1\ntR"), text("1")),
    "type of texts without a size": state(
        b"(J\xff\xff\xff\x7ft", plain_dtype.replace(text("f8"), text("U0")), text("")
    ),
    "objects in another byte order": state(
        ONE, plain_dtype.replace(text("f8"), text("O8")), b"]Na"
    ),
    "type by a text": held(global_(NUMPY, "scalar"), b"(", text("2f8"), text("0" * 16), b"tR"),
    "array that is filled twice": held(zeros, b"(K\x01", ONE, plain_dtype, b"I00\n", EIGHT, b"tb"),
    "array that is filled by a type alone": held(zeros, plain_dtype, b"b"),
    "bytes in a codec": held(global_("_codecs", "encode"), b"(", text("x"), text("zlib"), b"tR"),
    "attributes for a class": held(ndarray, b"}", text("__setstate__"), b"Nsb"),
    "attributes for a function": held(reconstruct, b"}", text("__code__"), b"Nsb"),
    "attributes for a dict": held(b"}}", text("b"), b"K\x01sb"),
    "a call of a value": held(text("x"), b")R"),
    "a name made of numbers": held(b"K\x01K\x02\x93"),
    "a name of the registry": held(b"\x82\x01"),
    "an object elsewhere": held(b"P1\n"),
    "a huge memo index": b"}r\xff\xff\xff\xff" + b"j\x00\x00\x00\x00.",
    "eight exabytes": b"}\x8e" + b"\xff" * 7 + b"\x7f.",
    "a negative length": b"}T\xff\xff\xff\xff.",
    "a number without end": held(b"I" + b"9" * 100_000 + b"\n"),
    "an empty file": b"",
    "no stop": b"}",
    "nothing to stop with": b".",
    "only a mark": b"(.",
    "a list at the top": b"].",
    "numbers for keys at the top": b"}K\x01K\x02s.",
    "a web page": b"<!DOCTYPE html>",
    "a zip archive": b"PK\x03\x04",
    "line ends of another system": b"(dp0\r\nS'a'\r\np1\r\nS'b\r\n",
    "chumpy without its value": leaf(mapping(y=integer(1))),
    "chumpy without a state": leaf(integer(1)),
    "a selection without its source": select(idxs=zeros),
    "a selection outside its source": select(a=chumpy_leaf(np.zeros(3)), idxs=array(np.array([7]))),
    "a sparse matrix whose data have two axes": sparse_of(data=array(np.eye(3))),
    "a sparse matrix without a shape": sparse_of(_shape=integer(2)),
    "a sparse matrix with entries outside itself": sparse_of(
        indices=array(np.array([0, 1, 1_000_000], np.int32))
    ),
}


@pytest.mark.parametrize("case", hostile)
def test_a_broken_or_hostile_file_ends_in_an_error_that_names_it(case, tmp_path):
    with pytest.raises((RawDataError, UnsafePickle), match=r"file\.pkl"):
        read(tmp_path, hostile[case], "smpl")


def test_the_sets_that_chumpy_keeps_are_read_in_new_protocols_too(tmp_path):
    content = b"\x80\x04}" + text("s") + b"\x8f(" + text("x") + text("y") + b"\x90s."
    assert read(tmp_path, content, "smpl") == {"s": {"x", "y"}}


@pytest.mark.parametrize("kind", ["sequence", "smpl"])
def test_a_type_of_lists_in_lists_is_refused_at_once(kind, tmp_path):
    """Each list holds the one before twice: all of it in words would fill the memory."""
    memo = b"]q\x00" + b"".join(
        b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(40)
    )
    content = mapping(poses=memo + b"0" + global_("numpy", "dtype") + b"(h\x28I0\nI1\ntR") + b"."
    with pytest.raises(RawDataError, match="array type"):
        read(tmp_path, content, kind)


def test_objects_that_share_their_parts_are_read_once_each(tmp_path):
    """60 of them, each of which holds the one before twice: 2^60 visits if none were remembered."""
    chain = chumpy_leaf(np.arange(3.0)) + b"q\x000"
    for i in range(60):  # remembered by number, and taken off the stack
        before = b"h" + bytes([i])
        chain += (
            instance("chumpy.ch", "Ch", mapping(x=before, y=before)) + b"q" + bytes([i + 1]) + b"0"
        )
    chain += b"h" + bytes([60])
    content = read(tmp_path, mapping(v_template=chain) + b".", "smpl")
    np.testing.assert_array_equal(content["v_template"], [0, 1, 2])

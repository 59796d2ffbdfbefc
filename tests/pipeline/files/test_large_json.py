"""Large JSON, which is read entry by entry, has the values and faults that `json` finds."""

import json
import re
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import RawDataError
from pipeline.files.formats import large_json
from pipeline.files.formats.arrays import load_json

NUMBERS = st.floats() | st.integers() | st.sampled_from([1e-7, 1e22, -0.0])
TEXTS = st.text(max_size=9) | st.sampled_from(["NaN", "[1,", 'a"b\\', "\U0001f600"])
LEAVES = st.none() | st.booleans() | NUMBERS | TEXTS
VALUES = st.recursive(LEAVES, lambda v: st.lists(v) | st.dictionaries(TEXTS, v), max_leaves=9)
DOCUMENTS = st.lists(VALUES) | st.dictionaries(TEXTS, st.lists(VALUES)) | VALUES


@pytest.fixture
def read(tmp_path, monkeypatch):
    """Reads a text by blocks of some bytes; returns its value, with all lists, or the fault."""

    def of_text(text, n_bytes):
        file = tmp_path / "x.json"
        file.write_bytes(text)
        for options in (large_json._READ, large_json._UNREAD):
            monkeypatch.setitem(options, "buf_size", n_bytes)
        return [found(load_json, file), found(large_json.read_json, file)]

    monkeypatch.setattr(large_json, "LARGE", 0)
    return of_text


def found(reader, file):
    try:
        content = reader(file, do="")
        if isinstance(content, dict):
            return repr({key: whole(value) for key, value in content.items()})
        return repr(whole(content))
    except RawDataError as error:
        return error


def whole(value):
    if not isinstance(value, large_json.StreamedList):
        return value
    assert [*map(repr, value)] == [*map(repr, value)]  # as often as one likes
    assert len([*value]) == len(value)
    return [*value]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    DOCUMENTS, st.integers(4, 40), st.booleans(), st.sampled_from([None, 1]), st.integers(0, 400)
)
def test_values_are_those_of_json_and_a_damaged_text_is_refused_by_both(
    read, document, n_bytes, ascii_only, indent, at
):
    """Whatever the blocks cut through: numbers, escapes, characters of several bytes."""
    text = json.dumps(document, ensure_ascii=ascii_only, indent=indent)
    text = text.encode("utf-8", "surrogatepass")
    expected, value = read(text, n_bytes)
    assert value == expected
    for damaged in (text[:at], text[:at] + b"]" + text[at + 1 :], text + b" 1"):
        expected, value = read(damaged, n_bytes)
        assert isinstance(value, RawDataError) == isinstance(expected, RawDataError), damaged
        if isinstance(expected, str):
            assert value == expected


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b'{"a": [1, 2, 3], "b": [4, x, 5]}', "char 26"),
        (b"[1, 2, 3", "cut off"),
        (b"[1, 2]\n[3]\n", "JSON Lines"),
        (b'["\xff", 1, 2]', "not in UTF-8"),
    ],
)
def test_a_fault_is_told_as_of_small_files(read, text, fault):
    expected, error = read(text, 16)
    assert str(error) == str(expected)
    assert fault in str(error)


def test_a_fault_in_a_file_that_is_too_large_for_json_names_its_block(read, monkeypatch):
    monkeypatch.setattr(large_json, "LARGEST_WHOLE", 0)
    _, error = read(b"[1, 2, " * 4 + b"NaN]" + b" " * 99, 16)
    assert re.search("NaN.*ends at byte 32", str(error)), error


@pytest.mark.parametrize("opened", ["[", '{"a":'])
def test_lists_in_lists_take_no_memory_that_grows_with_their_square(opened, tmp_path, monkeypatch):
    """Also in one block, which closes them again: ijson would take 22 MB."""
    monkeypatch.setattr(large_json, "LARGE", 0)
    file = tmp_path / "x.json"
    closed = {"[": "]", '{"a":': "1}"}[opened]
    file.write_text(f"[{opened * 3000}{closed * 3000}]")
    tracemalloc.start()
    try:
        found(large_json.read_json, file)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_an_object_of_many_objects_is_not_read_again_for_each_of_them(read, monkeypatch):
    looked = []
    values = large_json._values
    monkeypatch.setattr(large_json, "_values", lambda *a: looked.append(a) or values(*a))
    for n, most in ((20, 20), (400, 0)):
        looked.clear()
        frames = {str(frame): {"keypoints": [[frame]]} for frame in range(n)}
        expected, value = read(json.dumps(frames).encode(), 64)
        assert value == expected
        assert len(looked) == most


@pytest.mark.parametrize("key", ["a.b", "", "a"])
def test_keys_of_every_name_are_told_apart(read, key):
    text = f'{{"a": [{{"b": [1]}}], "{key}": [{{"b": 2}}]}}'.encode()
    expected, value = read(text, 16)
    assert value == expected


def test_of_equal_keys_the_last_one_counts(read):
    assert read(b'{"a": [1, 2], "a": [NaN, -Infinity, 3]}', 8)[1] == "{'a': [nan, -inf, 3]}"

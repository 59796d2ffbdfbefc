import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.formats.tf_example import MAX_FIELDS, Example, ExampleError
from pipeline.synthetic.layouts.files import tf_example as written

# As TensorFlow's own tutorial prints it: feature0 False, feature1 4, feature2 b"goat", feature3 0.9876
TUTORIAL = (
    b"\nR\n\x14\n\x08feature3\x12\x08\x12\x06\n\x04[\xd3|?\n\x11\n\x08feature0\x12\x05\x1a\x03\n\x01\x00"
    b"\n\x14\n\x08feature2\x12\x08\n\x06\n\x04goat\n\x11\n\x08feature1\x12\x05\x1a\x03\n\x01\x04"
)
BYTES, FLOATS, INTEGERS = 1, 2, 3  # the lists' field numbers
UNKNOWN = b"\x78\x96\x01" + b"\x79" + bytes(8) + b"\x7a\x03abc" + b"\x7d" + bytes(4)  # field 15, in every wire type


def varint(value: int) -> bytes:
    value %= 2**64
    return bytes([value]) if value < 128 else bytes([value % 128 + 128]) + varint(value // 128)


def message(number: int, content: bytes) -> bytes:
    return varint(number * 8 + 2) + varint(len(content)) + content


def feature(kind: int, values: Sequence[Any], packed: bool = True) -> bytes:
    """A Feature, its list packed or value by value."""
    if kind == BYTES:
        return message(BYTES, b"".join(message(1, value) for value in values))
    stored = [struct.pack("<f", value) if kind == FLOATS else varint(value) for value in values]
    single = b"\x0d" if kind == FLOATS else b"\x08"
    return message(kind, message(1, b"".join(stored)) if packed else b"".join(single + value for value in stored))


def entry(key: str, value: bytes) -> bytes:
    return message(1, message(1, key.encode()) + message(2, value))


def example(features: Mapping[str, bytes]) -> bytes:
    return message(1, b"".join(entry(key, value) for key, value in features.items()))


def values(parsed: Example, key: str, kind: int, most: int = 1000) -> list[Any]:
    if kind == BYTES:
        return [bytes(value) for value in parsed.bytes_list(key, most)]
    return (parsed.floats(key, most) if kind == FLOATS else parsed.integers(key, most)).tolist()


LISTS = st.one_of(
    st.tuples(st.just(BYTES), st.lists(st.binary(max_size=300), max_size=5)),
    st.tuples(st.just(FLOATS), st.lists(st.floats(width=32, allow_nan=False), max_size=40)),
    st.tuples(st.just(INTEGERS), st.lists(st.integers(-(2**63), 2**63 - 1), max_size=40)),
)


FULL = example(
    {
        "image/encoded": feature(BYTES, [b"picture", b"another"]),
        "image/xys": feature(FLOATS, [1.5, -2.5, 3.5]),
        "meta/N": feature(INTEGERS, [7, -7], packed=False),
    }
)


def test_tensorflow_s_own_bytes_mean_what_its_tutorial_says() -> None:
    parsed = Example.parse(TUTORIAL)
    assert sorted(parsed.features) == ["feature0", "feature1", "feature2", "feature3"]
    assert parsed.integers("feature0", 1).tolist() == [0]
    assert parsed.integers("feature1", 1).tolist() == [4]
    assert [bytes(value) for value in parsed.bytes_list("feature2", 1)] == [b"goat"]
    assert parsed.floats("feature3", 1).tolist() == [float(np.float32(0.9876))]
    assert parsed.floats("feature3", 1).dtype == np.float32
    assert parsed.integers("feature1", 1).dtype == np.int64


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.text(max_size=20), LISTS, max_size=6), st.booleans(), st.booleans())
def test_what_was_encoded_comes_back(features: dict[str, tuple[int, list[Any]]], packed: bool, more: bool) -> None:
    unknown = UNKNOWN if more else b""
    encoded = {key: unknown + feature(kind, stored, packed) + unknown for key, (kind, stored) in features.items()}
    parsed = Example.parse(unknown + example(encoded) + unknown)
    assert set(parsed.features) == set(features)
    for key, (kind, stored) in features.items():
        assert key in parsed
        assert values(parsed, key, kind) == stored


def protobuf_s_example() -> Any:
    """The class that protobuf itself makes of TensorFlow's example.proto and feature.proto."""
    proto = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tf", syntax="proto3")

    def message_type(parent: Any, name: str, *fields: dict[str, Any]) -> Any:
        added = parent.add(name=name)
        for number, field in enumerate(fields, start=1):
            added.field.add(**{"number": number, "label": proto.LABEL_OPTIONAL, **field})
        return added

    def nested(name: str, of: str, **more: Any) -> dict[str, Any]:
        return {"name": name, "type": proto.TYPE_MESSAGE, "type_name": f".tf.{of}", **more}

    lists = {"BytesList": proto.TYPE_BYTES, "FloatList": proto.TYPE_FLOAT, "Int64List": proto.TYPE_INT64}
    for name, kind in lists.items():
        message_type(file.message_type, name, {"name": "value", "type": kind, "label": proto.LABEL_REPEATED})
    feature = message_type(file.message_type, "Feature", *(nested(f"of_{name}", name, oneof_index=0) for name in lists))
    feature.oneof_decl.add(name="kind")
    entries = nested("feature", "Features.FeatureEntry", label=proto.LABEL_REPEATED)
    features = message_type(file.message_type, "Features", entries)
    key = {"name": "key", "type": proto.TYPE_STRING}
    message_type(features.nested_type, "FeatureEntry", key, nested("value", "Feature")).options.map_entry = True
    message_type(file.message_type, "Example", nested("features", "Features"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tf.Example"))


PROTOBUF = protobuf_s_example()


def theirs_of(feature: Any, kind: int) -> Any:
    return {BYTES: feature.of_BytesList, FLOATS: feature.of_FloatList, INTEGERS: feature.of_Int64List}[kind]


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=20), LISTS, max_size=6))
def test_what_protobuf_writes_is_read_the_same(features: dict[str, tuple[int, list[Any]]]) -> None:
    theirs = PROTOBUF()
    for key, (kind, stored) in features.items():
        feature = theirs.features.feature[key]
        theirs_of(feature, kind).value.extend(stored)
    parsed = Example.parse(theirs.SerializeToString())
    assert set(parsed.features) == set(features)
    assert {key: values(parsed, key, kind) for key, (kind, _) in features.items()} == {
        key: stored for key, (_, stored) in features.items()
    }


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_of_damaged_bytes_we_make_what_protobuf_makes_of_them_or_nothing(data: st.DataObject) -> None:
    damaged = bytearray(FULL)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(FULL) - 1))] = data.draw(st.integers(0, 255))
    theirs = PROTOBUF()
    try:
        parsed = Example.parse(bytes(damaged))
        theirs.ParseFromString(bytes(damaged))
    except (ExampleError, DecodeError):
        return
    for key, feature in theirs.features.feature.items():  # it passes over entries in which it does not know a field
        for kind in (BYTES, FLOATS, INTEGERS):
            with suppress(ExampleError):
                np.testing.assert_array_equal(values(parsed, key, kind), list(theirs_of(feature, kind).value))


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(st.text(max_size=20), LISTS, max_size=6))
def test_the_embedded_data_s_writer_says_the_same(features: dict[str, tuple[int, list[Any]]]) -> None:
    types = {FLOATS: np.float32, INTEGERS: np.int64}
    arrays = {k: v if kind == BYTES else np.array(v, types[kind]) for k, (kind, v) in features.items()}
    parsed = Example.parse(written(arrays))
    assert {k: values(parsed, k, kind) for k, (kind, _) in features.items()} == {k: v for k, (_, v) in features.items()}


def test_pictures_are_views_of_the_record() -> None:
    data = example({"image/encoded": feature(BYTES, [b"first", b"", b"third"])})
    pictures = Example.parse(data).bytes_list("image/encoded", 3)
    assert [picture.obj is data for picture in pictures] == [True] * 3
    assert [bytes(picture) for picture in pictures] == [b"first", b"", b"third"]


def test_a_feature_that_is_not_there_is_empty_and_so_is_one_without_a_list() -> None:
    parsed = Example.parse(example({"bare": b"", "no floats": feature(FLOATS, [], packed=False)}))
    assert "nothing" not in parsed
    for key in ("nothing", "bare"):
        assert [values(parsed, key, kind) for kind in (BYTES, FLOATS, INTEGERS)] == [[], [], []]
    assert values(parsed, "no floats", FLOATS) == []
    assert Example.parse(b"").features == {}


def test_messages_in_pieces_are_joined_and_the_last_of_two_counts() -> None:
    one, two = feature(INTEGERS, [1, 2]), feature(INTEGERS, [3], packed=False)
    parts = message(1, entry("joined", one + two) + entry("twice", one)) + message(1, entry("twice", two))
    parsed = Example.parse(parts + message(1, entry("other kind", feature(FLOATS, [0.5]) + two)))
    assert parsed.integers("joined", 3).tolist() == [1, 2, 3]
    assert parsed.integers("twice", 3).tolist() == [3]
    assert parsed.integers("other kind", 3).tolist() == [3]


def test_a_known_field_in_another_wire_type_is_unknown() -> None:
    data = b"\x08\x07" + example({"a": feature(INTEGERS, [5]) + b"\x18\x01"}) + b"\x0d" + bytes(4)
    assert Example.parse(data).integers("a", 1).tolist() == [5]
    four = message(BYTES, b"\x08\x07" + message(1, b"picture"))
    assert values(Example.parse(example({"a": four})), "a", BYTES) == [b"picture"]


@pytest.mark.parametrize("asked", [BYTES, FLOATS, INTEGERS])
@pytest.mark.parametrize("stored", [BYTES, FLOATS, INTEGERS])
def test_a_list_of_another_kind_is_refused(asked: int, stored: int) -> None:
    parsed = Example.parse(example({"key": feature(stored, [b"a"] if stored == BYTES else [1])}))
    if asked == stored:
        assert len(values(parsed, "key", asked)) == 1
        return
    with pytest.raises(ExampleError, match=r"'key' is a list of .*, expected is one of "):
        values(parsed, "key", asked)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("kind", "stored"), [(BYTES, [b""] * 5), (FLOATS, [1.0] * 5), (INTEGERS, [-1] * 5)])
def test_more_values_than_expected_are_refused(kind: int, stored: list[Any], packed: bool) -> None:
    parsed = Example.parse(example({"key": feature(kind, stored, packed)}))
    assert values(parsed, "key", kind, most=5) == stored
    with pytest.raises(ExampleError, match=r"key|more than"):
        values(parsed, "key", kind, most=4)


def test_short_integers_do_not_hide_that_there_are_too_many() -> None:
    parsed = Example.parse(example({"key": feature(INTEGERS, [1] * 30)}))  # 30 bytes: three of the longest
    with pytest.raises(ExampleError, match="'key' has 30 values, at most 3 are expected"):
        parsed.integers("key", 3)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x0a", "does not end"),  # a tag, and no length
        (b"\x0a\x05abc", "ends at byte 7 of a message of 5"),
        (b"\x0a" + b"\xff" * 9 + b"\x01", "ends at byte"),  # a length of 2^64 - 1
        (b"\x0a" + b"\xff" * 20, "does not end"),
        (b"\xff" * 20, "does not end"),
        (b"\x09abc", "ends at byte 9"),
        (b"\x0dabc", "ends at byte 5"),
        (b"\x08", "does not end"),
        (b"\x0b\x0c", "wire type 3"),  # groups: protobuf gave them up long ago
        (b"\x0e", "wire type 6"),
        (b"\x02\x00", "field 0"),
        (b"\x78\x01" * (MAX_FIELDS + 1), f"more than {MAX_FIELDS} fields"),
        (message(1, message(1, message(1, b"\xff\xfe"))), "no UTF-8"),
        (b"".join(example({f"{i}{j}": b"" for j in range(1000)}) for i in "ab"), f"more than {MAX_FIELDS} features"),
    ],
)
def test_what_is_no_example_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(ExampleError, match=words):
        Example.parse(data)


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (message(FLOATS, message(1, b"\0" * 5)), "no multiple of 4"),
        (message(INTEGERS, message(1, b"\x01\x80")), "does not end"),
        (message(INTEGERS, message(1, b"\x80" * 10 + b"\x01")), "over 10 bytes"),
        (message(INTEGERS, message(1, b"\xff" * 12)), "does not end"),
        (message(FLOATS, b"\x0d\x00"), "ends at byte 5"),
    ],
)
def test_what_is_no_list_of_numbers_is_refused(stored: bytes, words: str) -> None:
    parsed = Example.parse(example({"key": stored}))
    with pytest.raises(ExampleError, match=words):
        values(parsed, "key", FLOATS if stored[0] >> 3 == FLOATS else INTEGERS)


def test_every_shorter_example_is_refused() -> None:
    for end in range(1, len(FULL)):
        with pytest.raises(ExampleError):
            Example.parse(FULL[:end])


def test_every_flipped_bit_is_an_example_or_refused() -> None:
    """Records have checksums; but what passes them may be damaged all the same."""
    for bit in range(8 * len(FULL)):
        data = bytearray(FULL)
        data[bit // 8] ^= 1 << bit % 8
        try:
            parsed = Example.parse(bytes(data))
        except ExampleError:
            continue
        for key in parsed.features:
            for kind in (BYTES, FLOATS, INTEGERS):
                with suppress(ExampleError):
                    values(parsed, key, kind, most=8)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_example_or_refused(data: bytes) -> None:
    try:
        parsed = Example.parse(data)
    except ExampleError:
        return
    assert all(isinstance(key, str) for key in parsed.features)

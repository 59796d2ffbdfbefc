"""tf.train.Example from its bytes, without TensorFlow and protobuf.  [raw] -> tracks -> features -> windows

An example maps names to lists of bytes, floats or integers. In protobuf's wire format
(https://protobuf.dev/programming-guides/encoding/):

    Example   { Features features = 1 }            Feature   { one of BytesList 1, FloatList 2, Int64List 3 }
    Features  { repeated Entry feature = 1 }       each list { repeated value = 1 }, numbers packed or one by one
    Entry     { string key = 1; Feature value = 2 }

Nothing is decoded that is not asked for, and pictures are views of the record. As protobuf wants it, unknown fields are
passed over, the last of several entries with one key counts, and messages that come in pieces are joined.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

MAX_FIELDS: Final = 1024  # in a message that is no list of values; InstaVariety's examples have 17 features

_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5  # wire types
_LISTS: Final = {1: "bytes", 2: "floats", 3: "integers"}  # field numbers in Feature
_BYTES, _FLOATS, _INTEGERS = _LISTS
_LONGEST_VARINT: Final = 10  # bytes of 7 bits for 64 bits


class ExampleError(ValueError):
    """The bytes are no tf.train.Example, or a feature is of another kind or longer than expected."""


@dataclass(frozen=True, slots=True)
class Example:
    """Features by name, each still as its bytes. A feature that is not there is an empty list of any kind.

    Every method raises ExampleError for a feature of another kind and for one with more than `most` values: what is
    made of it takes memory, and how many there are to be is known.
    """

    features: Mapping[str, memoryview]

    @classmethod
    def parse(cls, data: bytes) -> Example:
        """Find the features in a record. Raises ExampleError."""
        features: dict[str, memoryview] = {}
        for message in _messages(memoryview(data), 1):
            for entry in _messages(message, 1):
                key = _text(_last(_messages(entry, 1)))
                features[key] = _last(_messages(entry, 2))
            if len(features) > MAX_FIELDS:
                raise ExampleError(f"more than {MAX_FIELDS} features")
        return cls(features)

    def __contains__(self, name: str) -> bool:
        return name in self.features

    def bytes_list(self, name: str, most: int) -> list[memoryview]:
        """The values as views of the record: nothing is copied."""
        return list(self._values(name, _BYTES, (_LENGTH,), most))

    def floats(self, name: str, most: int) -> NDArray[np.float32]:
        """(n,) values."""
        stored = self._joined(name, _FLOATS, _FIXED32, most, n_bytes=4)
        if len(stored) % 4:
            raise ExampleError(f"{name!r} has {len(stored)} bytes of floats, no multiple of 4")
        return np.frombuffer(stored, "<f4").astype(np.float32, copy=False)

    def integers(self, name: str, most: int) -> NDArray[np.int64]:
        """(n,) values."""
        found = _varints(self._joined(name, _INTEGERS, _VARINT, most, n_bytes=_LONGEST_VARINT))
        if len(found) > most:
            raise ExampleError(f"{name!r} has {len(found)} values, at most {most} are expected")
        return found

    def _joined(self, name: str, kind: int, single: int, most: int, n_bytes: int) -> bytearray:
        """All numbers of a list one after the other, whether they are stored packed or one by one."""
        stored = bytearray()
        for value in self._values(name, kind, (_LENGTH, single), most):
            if len(stored) + len(value) > most * n_bytes:
                raise ExampleError(f"{name!r} has more than {most} values")
            stored += value
        return stored

    def _values(self, name: str, kind: int, wires: tuple[int, ...], most: int) -> Iterator[memoryview]:
        """The bytes of each `value` in a feature's list that is stored in one of the given ways."""
        found, lists = 0, list[memoryview]()
        for number, wire, value in _fields(self.features.get(name, memoryview(b"")), MAX_FIELDS):
            if wire == _LENGTH and number in _LISTS:  # of several kinds the last counts
                lists = [*lists, value] if number == found else [value]
                found = number
        if found not in (0, kind):
            raise ExampleError(f"{name!r} is a list of {_LISTS[found]}, expected is one of {_LISTS[kind]}")
        n_values = 0
        for message in lists:
            for number, wire, value in _fields(message, most):
                if number == 1 and wire in wires:
                    n_values += 1
                    if n_values > most:
                        raise ExampleError(f"{name!r} has more than {most} values")
                    yield value


def _messages(message: memoryview, number: int) -> list[memoryview]:
    """The messages, or strings, under a field number."""
    return [value for n, wire, value in _fields(message, MAX_FIELDS) if n == number and wire == _LENGTH]


def _last(values: list[memoryview]) -> memoryview:
    return values[-1] if values else memoryview(b"")


def _text(value: memoryview) -> str:
    try:
        return str(value, "utf-8")
    except UnicodeDecodeError as error:
        raise ExampleError(f"a feature's name is no UTF-8: {bytes(value[:40])!r}") from error


def _fields(message: memoryview, most: int) -> Iterator[tuple[int, int, memoryview]]:
    """(field number, wire type, its bytes) of every field. Raises ExampleError beyond the message and `most` fields."""
    position = 0
    for _ in range(most):
        if position == len(message):
            return
        tag, position = _varint(message, position)
        number, wire = tag >> 3, tag & 7
        start = position
        if wire == _VARINT:
            _, stop = _varint(message, position)
        elif wire == _LENGTH:
            length, start = _varint(message, position)
            stop = start + length
        elif wire in (_FIXED64, _FIXED32):
            stop = start + (8 if wire == _FIXED64 else 4)
        else:
            raise ExampleError(f"wire type {wire} at byte {start} of a message of {len(message)}")
        if stop > len(message) or not 0 < number < 1 << 29:
            raise ExampleError(f"field {number} ends at byte {stop} of a message of {len(message)}")
        yield number, wire, message[start:stop]
        position = stop
    if position < len(message):
        raise ExampleError(f"a message has more than {most} fields")


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """An unsigned number in groups of 7 bits, the lowest first, and where it ends."""
    value = shift = 0
    for place in range(position, min(position + _LONGEST_VARINT, len(message))):
        byte = message[place]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place + 1
        shift += 7
    raise ExampleError(f"a number at byte {position} of a message of {len(message)} does not end")


def _varints(stored: bytearray) -> NDArray[np.int64]:
    """(n,) the numbers that are stored one after the other, as signed 64 bits."""
    raw = np.frombuffer(stored, np.uint8)
    ends = np.flatnonzero(raw < 0x80) + 1
    if len(raw) and (not len(ends) or ends[-1] != len(raw)):
        raise ExampleError("the last of a list of integers does not end")
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    lengths = ends - starts
    if (lengths > _LONGEST_VARINT).any():
        raise ExampleError(f"an integer has over {_LONGEST_VARINT} bytes")
    values = np.zeros(len(ends), np.uint64)
    for group in range(int(lengths.max(initial=0))):
        has = lengths > group
        values[has] |= (raw[starts[has] + group] & np.uint8(0x7F)).astype(np.uint64) << np.uint64(7 * group)
    return values.view(np.int64)

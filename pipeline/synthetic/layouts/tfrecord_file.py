"""tf.train.Example records as TensorFlow writes them.  labels -> [raw]

Shares nothing with the reader (`pipeline.formats.tfrecords`, `pipeline.formats.tf_example`), so that one mistake is not
made twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

Feature = Sequence[bytes] | NDArray[np.floating[Any]] | NDArray[np.integer[Any]]


def framed(data: bytes) -> bytes:
    """One record: its length, the data, and a checksum of each."""
    length = len(data).to_bytes(8, "little")
    return length + _checksum(length) + data + _checksum(data)


def example(features: Mapping[str, Feature]) -> bytes:
    """A tf.train.Example. Arrays are written flat, in C order; floats as float32. In the order of the keys."""
    entries = b"".join(
        _field(1, _field(1, key.encode()) + _field(2, _feature(features[key]))) for key in sorted(features)
    )
    return _field(1, entries)


def _feature(values: Feature) -> bytes:
    if not isinstance(values, np.ndarray):
        return _field(1, b"".join(_field(1, value) for value in values))
    if values.dtype.kind == "f":
        number, packed = 2, values.astype("<f4").tobytes()
    else:
        number, packed = 3, b"".join(_varint(int(value) % 2**64) for value in values.ravel())
    return _field(number, _field(1, packed) if packed else b"")


def _field(number: int, content: bytes) -> bytes:
    """A field with a length; its tag is one byte for numbers under 16."""
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def _checksum(data: bytes) -> bytes:
    crc = int(google_crc32c.value(data))
    rotated = (crc >> 15) | (crc << 17 & 0xFFFFFFFF)
    return ((rotated + 0xA282EAD8) % 2**32).to_bytes(4, "little")

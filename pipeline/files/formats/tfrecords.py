"""Read TFRecord files: find records, check their bytes, parse features.  [raw] -> tracks ->
features -> windows

A file is a sequence of records, without anything else. All numbers are little-endian:

    uint64 length | uint32 masked CRC-32C of these 8 bytes | `length` bytes of data | uint32 masked
    CRC-32C of the data

If a record's data are damaged, only that record is lost. If its length is damaged, all records that
follow are lost, too.
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details

A record's data is a tf.train.Example, which has features: names -> lists of bytes, floats or
integers. It is read by protobuf, without TensorFlow.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, Final

import google_crc32c

from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import reading, refuse
from pipeline.files.formats.other_formats import other_format
from pipeline.files.raw.files import open_regular, open_unbuffered

HEADER: Final = 12  # bytes before the data
FOOTER: Final = 4  # bytes after the data
# most bytes of a record's data, which is read as a whole; InstaVariety's longest have about 2^24
MAX_BYTES: Final = 1 << 27
MAX_RECORDS: Final = 100_000  # in a file: what five digits can name. InstaVariety has 50
AGAIN: Final = "Unpack or download this file again."

Span = tuple[int, int]  # bytes [start, stop) of a file

EXAMPLE: Final = """
name: "pipeline_example.proto"  package: "pipeline"  syntax: "proto3"
message_type {
  name: "Bytes"
  field { name: "value" number: 1 type: TYPE_BYTES label: LABEL_REPEATED }
}
message_type {
  name: "Floats"
  field { name: "value" number: 1 type: TYPE_FLOAT label: LABEL_REPEATED }
}
message_type {
  name: "Integers"
  field { name: "value" number: 1 type: TYPE_INT64 label: LABEL_REPEATED }
}
message_type {
  name: "Feature"
  oneof_decl { name: "kind" }
  field {
    name: "bytes_list" number: 1 oneof_index: 0
    type: TYPE_MESSAGE type_name: ".pipeline.Bytes"
  }
  field {
    name: "float_list" number: 2 oneof_index: 0
    type: TYPE_MESSAGE type_name: ".pipeline.Floats"
  }
  field {
    name: "int64_list" number: 3 oneof_index: 0
    type: TYPE_MESSAGE type_name: ".pipeline.Integers"
  }
}
message_type {
  name: "Features"
  field {
    name: "feature" number: 1 label: LABEL_REPEATED
    type: TYPE_MESSAGE type_name: ".pipeline.Features.FeatureEntry"
  }
  nested_type {
    name: "FeatureEntry"
    options { map_entry: true }
    field { name: "key" number: 1 type: TYPE_STRING }
    field { name: "value" number: 2 type: TYPE_MESSAGE type_name: ".pipeline.Feature" }
  }
}
message_type {
  name: "Example"
  field { name: "features" number: 1 type: TYPE_MESSAGE type_name: ".pipeline.Features" }
}
"""


def _masked_crc(data: bytes) -> int:
    """The masked CRC-32C of TFRecord files: CRC-32C (Castagnoli), rotated right by 15 bits, plus a
    constant, modulo 2^32.

    >>> hex(_masked_crc(b"123456789"))  # its CRC-32C is 0xe3069283
    '0xc78ab0e5'
    """
    crc = int(google_crc32c.value(data))
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def spans(file: Path) -> list[Span]:
    """Find the records of a file: the bytes [start, stop) of each, including header and footer.

    Reads 12 bytes per record, and checks the CRC of its length. If a length is damaged, or the file
    unreadable, the rest of the file is the last span, and `read` reports what is wrong with it.
    There is at least one span, (0, 0) for an empty file.
    """
    records: list[Span] = []
    start = size = 0
    # Errors are suppressed: `read` of the last span reports them. The file is not buffered, as a
    # buffer would read 8 KiB for every 12 bytes.
    with suppress(OSError, ValueError), open_unbuffered(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        while start < size and len(records) < MAX_RECORDS:
            stop = _end_of_record(file, stream, start, size)
            records.append((start, stop))
            start = stop
    if start < size or not records:
        records.append((start, size))
    return records


def read(file: Path, start: int, stop: int) -> bytes:
    """Read the data of the record in the bytes [start, stop), and check both CRCs. The length is
    checked before memory is allocated.

    Raises RawDataError with the reason `record_damaged`, or `no_tfrecord` for another file format.
    """
    key = f"bytes {start} to {stop}"
    with (
        reading(file, "an intact record", key=key, do=AGAIN, reason="record_damaged"),
        open_regular(file) as stream,
    ):
        actual = _end_of_record(file, stream, start, os.fstat(stream.fileno()).st_size)
        if actual != stop:
            refuse(
                f"one that ends at byte {actual}: the file was changed, or has over "
                f"{MAX_RECORDS} records"
            )
        data = stream.read(stop - start - HEADER - FOOTER)
        footer = stream.read(FOOTER)
        if len(footer) != FOOTER or _masked_crc(data) != struct.unpack("<I", footer)[0]:
            refuse("data with a wrong checksum; the other records are intact")
    return data


def _end_of_record(file: Path, stream: BinaryIO, start: int, size: int) -> int:
    """The end of the record at `start`, from its header, in a file of `size` bytes.

    Raises ValueError if the header is damaged or the length impossible, RawDataError for another
    file format.
    """
    stream.seek(start)
    header = stream.read(HEADER)
    lost = f"everything from byte {start} on is lost"
    checksum = int.from_bytes(header[8:], "little")
    is_intact = len(header) == HEADER and _masked_crc(header[:8]) == checksum
    # Only if the header is damaged: the bytes of an intact length may look like another format.
    if start == 0 and not is_intact:
        actual = other_format(header)
        if actual:
            do = f"{AGAIN} Shards must not be compressed."
            raise RawDataError(file, "file", "a TFRecord file", actual, do, reason="no_tfrecord")
    if len(header) < HEADER:
        refuse(f"the end of the file at byte {start + len(header)}, within a header: {lost}")
    if not is_intact:
        refuse(f"a length with a wrong checksum: {lost}")
    (length,) = struct.unpack_from("<Q", header)
    if length > MAX_BYTES:
        refuse(f"{length} bytes, more than {MAX_BYTES}: {lost}")
    stop = start + HEADER + int(length) + FOOTER
    if stop > size:
        refuse(f"one that ends at byte {stop}, in a file of {size} bytes: {lost}")
    return stop


def parse_example(data: bytes) -> Mapping[str, Any]:
    """Parse the features of a tf.train.Example, by name. Raises protobuf's DecodeError for other
    bytes.
    """
    features: Mapping[str, Any] = _message().FromString(data).features.feature
    return features


def feature_values(features: Mapping[str, Any], name: str, kind: str, most: int) -> Sequence[Any]:
    """The values of a feature: bytes, float32 or int64 numbers; empty if the feature is missing.

    `kind`: bytes_list, float_list or int64_list. Raises ValueError for a feature of another kind,
    or with more than `most` values.
    """
    if name not in features:
        return ()
    feature = features[name]
    stored_kind = feature.WhichOneof("kind")
    if stored_kind is None:
        return ()
    if stored_kind != kind:
        refuse(f"{name!r} is a {stored_kind}, expected a {kind}")
    values: Sequence[Any] = getattr(feature, kind).value
    if len(values) > most:
        refuse(f"{name!r} has {len(values)} values, expected at most {most}")
    return values


@cache
def _message() -> Any:
    """The protobuf class of a tf.train.Example."""
    # Imported here: it takes 0.02 s, and only InstaVariety needs it.
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

    file = text_format.Parse(EXAMPLE, descriptor_pb2.FileDescriptorProto())
    # a pool of its own: if TensorFlow is imported, it has the same messages in the default pool
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("pipeline.Example"))

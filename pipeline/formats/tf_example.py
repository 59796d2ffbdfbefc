"""tf.train.Example, read by protobuf without TensorFlow.  [raw] -> tracks -> features -> windows

An example maps names to lists of bytes, floats or integers:

    Example   { Features features = 1 }            Feature   { one of BytesList 1, FloatList 2, Int64List 3 }
    Features  { map<string, Feature> feature = 1 } each list { repeated value = 1 }
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

LISTS: Final = {"bytes_list": ".pipeline.Bytes", "float_list": ".pipeline.Floats", "int64_list": ".pipeline.Integers"}


class ExampleError(ValueError):
    """The bytes are no tf.train.Example, or a feature is of another kind or longer than expected."""


@dataclass(frozen=True, slots=True)
class Example:
    """Features by name. A feature that is not there is an empty list of any kind.

    Every method raises ExampleError for a feature of another kind and for one with more than `most` values.
    """

    features: Mapping[str, Any]

    @classmethod
    def parse(cls, data: bytes) -> Example:
        """The features of a record. Raises ExampleError."""
        try:
            return cls(_message().FromString(data).features.feature)
        except DecodeError as error:
            raise ExampleError(f"{len(data)} bytes that are no message: {error}") from error

    def __contains__(self, name: str) -> bool:
        return name in self.features

    def bytes_list(self, name: str, most: int) -> list[bytes]:
        """The values, such as compressed pictures."""
        return list(self._values(name, "bytes_list", most))

    def floats(self, name: str, most: int) -> NDArray[np.float32]:
        """(n,) values."""
        return np.array(self._values(name, "float_list", most), np.float32)

    def integers(self, name: str, most: int) -> NDArray[np.int64]:
        """(n,) values."""
        return np.array(self._values(name, "int64_list", most), np.int64)

    def _values(self, name: str, kind: str, most: int) -> Any:
        found = self.features[name].WhichOneof("kind") if name in self.features else None
        if found is None:
            return ()
        if found != kind:
            raise ExampleError(f"{name!r} is a {found}, expected is a {kind}")
        values = getattr(self.features[name], kind).value
        if len(values) > most:
            raise ExampleError(f"{name!r} has {len(values)} values, at most {most} are expected")
        return values


@cache
def _message() -> Any:
    """The class of a tf.train.Example, from its description above."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="pipeline_example.proto", package="pipeline", syntax="proto3")

    def add(message: Any, name: str, number: int, kind: int | str, *, repeated: bool = False) -> Any:
        of = {"type": kinds.TYPE_MESSAGE, "type_name": kind} if isinstance(kind, str) else {"type": kind}
        label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
        return message.field.add(name=name, number=number, label=label, **of)

    for name, kind in (("Bytes", kinds.TYPE_BYTES), ("Floats", kinds.TYPE_FLOAT), ("Integers", kinds.TYPE_INT64)):
        add(file.message_type.add(name=name), "value", 1, kind, repeated=True)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, of) in enumerate(LISTS.items(), 1):
        add(feature, name, number, of).oneof_index = 0
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry", options={"map_entry": True})
    add(entry, "key", 1, kinds.TYPE_STRING)
    add(entry, "value", 2, ".pipeline.Feature")
    add(features, "feature", 1, ".pipeline.Features.FeatureEntry", repeated=True)
    add(file.message_type.add(name="Example"), "features", 1, ".pipeline.Features")
    pool = descriptor_pool.DescriptorPool()  # its own: TensorFlow, where it is imported, has these messages too
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("pipeline.Example"))

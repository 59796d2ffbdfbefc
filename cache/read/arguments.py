"""Parse the arguments of `Split.read` that choose streams and the dtype.  features -> [windows]"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import DTypeLike

from cache.format.layout import COLUMNS
from cache.read import labels


class DefaultName(str):
    """The default of `stream`, distinct from the same name passed by the caller."""


DEFAULT_STREAM: Final = DefaultName("resnet50")
FLOATS: Final = tuple(map(np.dtype, ("float16", "float32", "float64")))  # of read features


class StreamFields(NamedTuple):
    """The fields of a batch that come from streams.

    `read(stream="resnet50")` reads one stream as the field `features`, without flags:

        features={"features": "resnet50"}, flags={}, history={}

    `read(streams=("resnet50",), history={"resnet50": 4})` names each field after its stream:

        features={"resnet50": "resnet50"}
        flags={"resnet50_ok": "resnet50"}
        history={"resnet50": 4}

    `read(streams={"resnet50": "resnet50.j1"}, ...)` reads another stream, as fields of the same
    names.
    """

    features: Mapping[str, str]  # name of a field of features -> its stream
    flags: Mapping[str, str]  # name of a field `<name>_ok` -> the field of features
    history: Mapping[str, int]  # field of features -> number of rows to read before each window

    @classmethod
    def parse(
        cls,
        stream: str | None,
        streams: Sequence[str] | Mapping[str, str] | None = None,
        history: Mapping[str, int] | None = None,
    ) -> StreamFields:
        """Make the fields from the arguments of `Split.read` with the same names.

        Raises ValueError or TypeError when the arguments do not fit together.
        """
        history = history or {}
        names = [*(streams.values() if isinstance(streams, Mapping) else streams or ())]
        nameless = [name for name in (stream, *names) if not isinstance(name, str | None)]
        if nameless:
            raise TypeError(f"a stream is a name or None; found {nameless}")
        if streams is None and not history:
            return cls({} if stream is None else {"features": stream}, {}, {})
        if streams is None or isinstance(streams, str):
            raise TypeError(
                f"streams must be a sequence of names, also for history; found {streams!r}"
            )
        if not (stream is None or isinstance(stream, DefaultName)):
            raise ValueError(f"expected stream or streams, found both: {stream!r}, {names}")
        unclear = sorted({*streams} & {*labels.FIELDS, *COLUMNS})
        if unclear:
            raise ValueError(
                f"streams: {unclear} are names of labels, too; read these streams by stream=NAME"
            )
        strange = []
        for name, rows in history.items():
            is_count = isinstance(rows, int | np.integer) and rows >= 0
            if name not in streams or not is_count:
                strange.append(f"{name}: {rows!r}")
        if strange:
            raise ValueError(
                f"history: expected 0 or more rows of some of {list(streams)}, found {strange}"
            )
        flags = {f"{name}_ok": name for name in streams}
        return cls(dict(zip(streams, names, strict=True)), flags, history)

    @property
    def streams(self) -> list[str]:
        """Names of the streams, in the given order."""
        return list(self.features.values())

    @property
    def names(self) -> list[str]:
        """Every field that comes from a stream."""
        return [*self.features, *self.flags]


def float_dtype(given: DTypeLike) -> np.dtype[Any]:
    """The dtype of read features. Raises ValueError unless it is one of `FLOATS`."""
    with suppress(TypeError):
        dtype: np.dtype[Any] = np.dtype(given)
        if dtype in FLOATS:
            return dtype
    raise ValueError(f"dtype is {given!r}, expected float16, float32 or float64")

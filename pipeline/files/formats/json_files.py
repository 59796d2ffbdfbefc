"""Untrusted JSON, with file and key in errors.  [raw] -> tracks -> features -> windows"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import reading
from pipeline.files.raw.files import read_regular

LARGEST_WHOLE: Final = 1 << 53  # up to here a float64 holds every whole number


def load_json(file: Path, *, do: str) -> Any:
    """Content of a JSON file. Raises RawDataError for another file and for too deep nesting.

    NaN and infinities come as floats: callers check numbers.
    """
    with reading(file, "JSON", do=do):
        return json.loads(read_regular(file))


def whole(file: Path, key: str, value: object, *, do: str) -> int:
    """A whole number, also written as 3.0. Raises RawDataError for other values, also for `true`."""
    match value:
        case bool():
            pass
        case int() | float() if abs(value) <= LARGEST_WHOLE and value % 1 == 0:  # comparisons with NaN are false
            return int(value)
    raise RawDataError(file, key, "a whole number", kind(value), do)


def records(file: Path, key: str, value: object, *, do: str) -> list[dict[str, Any]]:
    """A list of objects. Raises RawDataError for other values."""
    if not isinstance(value, list):
        raise RawDataError(file, key, "a list of objects", kind(value), do)
    for i, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise RawDataError(file, f"{key}[{i}]", "an object", kind(entry), do)
    return value


def kind(value: object) -> str:
    """Short description of a value of any size and depth.

    >>> kind([1, 2, 3]), kind({}), kind(None), kind(2.5), kind("x" * 100)
    ('3 entries', 'an object', 'nothing', '2.5', "a text 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'...")
    """
    match value:
        case None:
            return "nothing"
        case list():
            return f"{len(value)} entries"
        case dict():
            return "an object"
        case str():
            return f"a text {value[:40]!r}" + ("..." if len(value) > 40 else "")
        case int() if abs(value) > LARGEST_WHOLE:
            return "a number out of range"
        case _:
            return repr(value)

"""Read JSON of any size: the lists of a large file are read entry by entry, by ijson.
[raw] -> tracks

For 40 MB of keypoints ijson takes 1.3 s and 12 MiB, `json` 2.3 s and 245 MiB. A file that ijson
refuses is read by `json`, which tells what is wrong, or takes it: NaN, infinities, whole numbers
above 64 bits, a byte order mark, more than MOST_OBJECTS objects by name, and more than DEEPEST
brackets in each other, for which ijson takes memory that grows with their square. Both take the
last of equal keys; half of a surrogate pair is "?" in ijson.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

import numpy as np

from pipeline.files.formats.arrays import load_json, reading, refuse
from pipeline.files.formats.names import kind
from pipeline.files.raw.files import open_regular
from pipeline.processes import show_done

LARGE: Final = 1 << 22  # bytes; smaller files are read by `json`
LARGEST_WHOLE: Final = 1 << 28  # bytes of a file that `json` reads where ijson cannot
# bytes that are read at once: ijson reads a text that is longer again with each block
BLOCK: Final = 1 << 18
MOST_OBJECTS: Final = 20  # in the file's object: each is looked for from the begin of the file
DEEPEST: Final = 1000  # brackets in each other, also those in texts
_OPENING: Final = [*b"[{"]
_NO_BRACKETS: Final = bytes({*range(256)} - {*b"[{]}"})
_READ: Final = {"buf_size": BLOCK, "use_float": True}  # options of ijson


@dataclass(frozen=True, slots=True, eq=False)
class StreamedList:
    """A list in a file, whose entries are read whenever they are iterated over.

    Raises RawDataError while it is iterated over, if the file has changed.
    """

    file: Path
    prefix: str  # of its entries, as ijson names them
    length: int
    other: tuple[int, str] | None  # place and `kind` of the first entry that is no object
    do: str  # advice for messages

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        return f"{self.length} entries"  # as `kind` says of a list

    def __iter__(self) -> Iterator[Any]:
        return _values(self.file, self.prefix, self.do)


class _Unread:
    """An object, without what is in it."""

    __slots__ = ()

    def __setitem__(self, key: str, value: object) -> None:
        pass


_UNREAD: Final = {**_READ, "map_type": _Unread}


class _Shown:
    """A file of which `show_done` shows how much is read. Raises JSONError where it is too deep."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.n_bytes = os.fstat(stream.fileno()).st_size
        self._depth = 0

    def read(self, size: int = -1) -> bytes:
        import ijson

        show_done(self._stream.tell(), self.n_bytes, "bytes read")
        block = self._stream.read(size)
        brackets = np.frombuffer(block.translate(None, _NO_BRACKETS), np.uint8)
        deeper = np.where(np.isin(brackets, _OPENING), 1, -1)
        depths = np.append(self._depth, self._depth + np.cumsum(deeper))
        if depths.max() > DEEPEST:
            raise ijson.JSONError
        self._depth = int(depths[-1])
        return block


def read_json(file: Path, *, do: str) -> Any:
    """Read a JSON file as `load_json` does. In one above LARGE, its list, or the lists in its
    object, are `StreamedList`.
    """
    import ijson

    with reading(file, "JSON", do=do), open_regular(file) as stream:
        start = stream.read(BLOCK).lstrip()[:1]
        stream.seek(0)
        whole = _Shown(stream)
        try:
            if whole.n_bytes > LARGE and start == b"[":
                return _stream_entries(file, "item", ijson.items(whole, "item", **_UNREAD), do)
            if whole.n_bytes > LARGE and start == b"{":
                return _read_object(file, whole, do)
        except (ijson.JSONError, UnicodeError):
            if whole.n_bytes > LARGEST_WHOLE:
                refuse(
                    "a fault, NaN, an infinity, a whole number above 64 bits, lists that are "
                    f"nested too deeply or over {MOST_OBJECTS} objects with names, in the block "
                    f"that ends at byte {stream.tell()}"
                )
    return load_json(file, do=do)


def _read_object(file: Path, whole: _Shown, do: str) -> dict[str, Any]:
    """The file's object. Raises JSONError also for keys that ijson does not tell apart."""
    import ijson

    content: dict[str, Any] = {}
    for key, value in ijson.kvitems(whole, "", **_UNREAD):
        if not key or "." in key or key in content:
            raise ijson.JSONError
        content[key] = value
        if isinstance(value, list):
            content[key] = _stream_entries(file, f"{key}.item", value, do)
    objects = [key for key, value in content.items() if isinstance(value, _Unread)]
    if len(objects) > MOST_OBJECTS:
        raise ijson.JSONError
    for key in objects:
        content[key] = next(_values(file, key, do))
    return content


def _stream_entries(
    file: Path, prefix: str, entries: Iterable[object], do: str
) -> list[Any] | StreamedList:
    other = None
    n = 0
    for n, entry in enumerate(entries, 1):
        if other is None and not isinstance(entry, _Unread):
            other = (n - 1, kind(entry))
    return StreamedList(file, prefix, n, other, do) if n else []


def _values(file: Path, prefix: str, do: str) -> Iterator[Any]:
    """Read the values with this prefix."""
    import ijson

    with reading(file, "JSON", do=do), open_regular(file) as stream:
        yield from ijson.items(_Shown(stream), prefix, **_READ)

"""Read JSON of any size: of a large file, long lists are read entry by entry.  [raw] -> tracks

`json` parses each entry, so that a large file has the same values as a small one: NaN and
infinities are floats, and of equal keys the last one counts. ijson reads no NaN, which tools write.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from pipeline.files.formats.arrays import json_fault, load_json, reading, refuse
from pipeline.files.formats.names import kind
from pipeline.files.formats.other_formats import other_than_text
from pipeline.files.raw.files import open_regular

LARGE: Final = 1 << 22  # bytes; smaller files are parsed as a whole
BLOCK: Final = 1 << 18  # bytes that are read at once
KEPT: Final = 100  # entries of a list that stays in memory
# characters that may belong to a number whose end is not read yet: 1e-
NUMBER_END: Final = 3
_BLANKS: Final = re.compile(r"[ \t\n\r]*")
_parse = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True, eq=False)
class StreamedList:
    """A long list in a file, whose entries are parsed whenever they are iterated over.

    Raises RawDataError while it is iterated over, if the file has changed.
    """

    file: Path
    start: int  # byte of its bracket
    length: int
    other: tuple[int, str] | None  # place and `kind` of the first entry that is no object
    do: str  # advice for messages

    def __len__(self) -> int:
        return self.length

    def __repr__(self) -> str:
        return f"{self.length} entries"  # as `kind` says of a list

    def __iter__(self) -> Iterator[Any]:
        with reading(self.file, "JSON", do=self.do), open_regular(self.file) as stream:
            yield from _JsonText(stream, self.start).entries()


def read_json(file: Path, *, do: str) -> Any:
    """Read a JSON file as `load_json` does. In one above LARGE, its list, or the lists in its
    object, are `StreamedList` if they are long.
    """
    with reading(file, "JSON", do=do), open_regular(file) as stream:
        head = stream.read(BLOCK)
        n_bytes = stream.seek(0, 2)
        if n_bytes > LARGE and json.detect_encoding(head).startswith("utf-8"):
            text = _JsonText(stream, len(codecs.BOM_UTF8) * head.startswith(codecs.BOM_UTF8))
            try:
                content = _read_content(file, text, do)
                if text.peek():
                    raise text.error("Extra data")
            except (ValueError, RecursionError) as error:
                stream.seek(max(n_bytes - BLOCK, 0))
                refuse(other_than_text(head) or json_fault(head + stream.read(), error))
            return content
    return load_json(file, do=do)


def _read_content(file: Path, text: _JsonText, do: str) -> Any:
    """The file's only value."""
    if text.peek() == "[":
        return _read_list(file, text, do)
    if text.peek() != "{":
        return text.value()
    content = {}
    for key in text.names():
        is_list = text.peek() == "["
        content[key] = _read_list(file, text, do) if is_list else text.value()
    return content


def _read_list(file: Path, text: _JsonText, do: str) -> list[Any] | StreamedList:
    start = text.place()
    entries = []
    other = None
    n = 0
    for n, entry in enumerate(text.entries(), 1):
        if n <= KEPT:
            entries.append(entry)
        if other is None and not isinstance(entry, dict):
            other = (n - 1, kind(entry))
    return entries if n <= KEPT else StreamedList(file, start, n, other, do)


class _JsonText:
    """The text of a file in UTF-8 from a byte on, of which a block is in memory. Methods raise
    ValueError for other text than JSON.
    """

    def __init__(self, stream: BinaryIO, start: int) -> None:
        self._stream = stream
        stream.seek(start)
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogatepass")
        self._text = ""
        self._next = 0  # character of it

    def peek(self) -> str:
        """The next character that is not blank; "" at the end."""
        while True:
            if blanks := _BLANKS.match(self._text, self._next):
                self._next = blanks.end()
            if self._next < len(self._text) or not self._read_more():
                return self._text[self._next : self._next + 1]

    def value(self) -> Any:
        """Parse the next value."""
        self.peek()
        while True:
            try:
                value, stop = _parse(self._text, self._next)
            except json.JSONDecodeError as error:
                if self._read_more():  # the value may end there
                    continue
                self._next = error.pos
                raise self.error(error.msg) from None
            if stop + NUMBER_END <= len(self._text) or not self._read_more():
                self._next = stop
                return value

    def entries(self) -> Iterator[Any]:
        """Parse the entries of a list."""
        self._take("[")
        if self.peek() == "]":
            self._take("]")
            return
        while True:
            yield self.value()
            if self._take(",]") == "]":
                return

    def names(self) -> Iterator[str]:
        """Parse the keys of an object. The caller parses the value after each."""
        self._take("{")
        if self.peek() == "}":
            self._take("}")
            return
        while True:
            if self.peek() != '"':
                raise self.error("Expecting property name enclosed in double quotes")
            key = self.value()
            self._take(":")
            yield key
            if self._take(",}") == "}":
                return

    def place(self) -> int:
        """The next byte."""
        left = self._text[self._next :].encode("utf-8", "surrogatepass")
        return self._stream.tell() - len(left) - len(self._decoder.getstate()[0])

    def error(self, problem: str) -> ValueError:
        """An error at the next byte."""
        return ValueError(f"{problem}: byte {self.place()}")

    def _take(self, expected: str) -> str:
        """The next character, which must be one of `expected`."""
        character = self.peek()
        if not character or character not in expected:
            raise self.error(f"Expecting {' or '.join(expected)}")
        self._next += 1
        return character

    def _read_more(self) -> bool:
        """Read a block, or as much as there is already. False at the end of the file."""
        left = self._text[self._next :]
        more = self._stream.read(max(BLOCK, len(left)))
        text = self._decoder.decode(more, final=not more)
        if more:
            self._text = left + text
            self._next = 0
        return bool(more)

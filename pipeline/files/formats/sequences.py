"""Read single sequences of large JSON files {"<key>": {"<key>": {"<frame>": content}}}.  [raw] ->
tracks

Such files have hundreds of MB. So each process finds the bytes of all sequences of a file once, and
only the bytes of the wanted sequence are parsed.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import FileState, reading, refuse
from pipeline.files.raw.files import open_regular

BLOCK: Final = 1 << 20  # bytes that are searched at a time
N_LEVELS: Final = 3  # how many JSON objects are around the content of a frame
_MARK: Final = re.compile(rb'[{}"\\]')
_KEY: Final = re.compile(rb'"([0-9]{1,9})"\s*:\s*\Z')


class SequenceKeys(NamedTuple):
    """The two keys of a sequence, such as a subject's number and a sequence's."""

    outer: int
    inner: int

    def __str__(self) -> str:
        return f"{self.outer}/{self.inner}"


class _Span(NamedTuple):
    """Bytes [start, stop) of a file."""

    start: int
    stop: int


def load_sequence(file: Path, keys: SequenceKeys, levels: str, *, do: str) -> dict[int, Any]:
    """Read one sequence. Returns its content by frame, sorted; {} if the file does not have it.

    levels: what the keys and frames are called, for messages. Raises RawDataError for other
    content, and for strings with braces or escapes, which the search for sequences does not
    understand.
    """
    spans = _find_sequences(file, FileState.read(file), levels, do)
    if isinstance(spans, RawDataError):
        raise spans.with_traceback(None)  # of the videos before
    if keys not in spans:
        return {}
    span = spans[keys]
    key = str(keys)
    with reading(file, "JSON", key=key, do=do), open_regular(file) as stream:
        stream.seek(span.start)
        stored: dict[str, Any] = json.loads(stream.read(span.stop - span.start))
    for frame in stored:
        if not is_number(frame):
            raise RawDataError(file, key, f"{levels} as numbers", "other keys", do)
    return {int(frame): stored[frame] for frame in sorted(stored, key=int)}


@functools.lru_cache(maxsize=2)  # a reader may need two files at a time: joints and fits
def _find_sequences(
    file: Path, _state: FileState, levels: str, do: str
) -> Mapping[SequenceKeys, _Span] | RawDataError:
    """Find the bytes of each sequence's object, by its keys. An error is returned, not raised, so
    that it is cached for the other videos of the file, too.
    """
    try:
        with reading(file, f"JSON with {levels} as numbers", do=do), open_regular(file) as stream:
            return _scan_braces(stream)
    except RawDataError as error:
        return error


def _scan_braces(stream: BinaryIO) -> Mapping[SequenceKeys, _Span]:
    """Find the sequences of an open file by its braces, in one pass. Raises ValueError and other
    errors for other content.
    """
    spans = dict[SequenceKeys, _Span]()
    starts = list[int]()  # where the objects begin that are open at a byte, outermost first
    n_read = 0
    in_text = False
    for block in iter(lambda: stream.read(BLOCK), b""):
        for mark in _MARK.finditer(block):
            symbol = mark[0]
            position = n_read + mark.start()
            if symbol == b'"':
                in_text = not in_text
            # Strings must have no braces or escapes. Then every second quote ends a string.
            elif in_text or symbol == b"\\":
                refuse(f"a text with {symbol.decode()} at byte {position}")
            elif symbol == b"{":
                starts.append(position)
            else:
                if len(starts) == N_LEVELS:
                    _, outer, start = starts
                    keys = SequenceKeys(_find_key(stream, outer), _find_key(stream, start))
                    spans[keys] = _Span(start, position + 1)
                starts.pop()
            if len(starts) > N_LEVELS + 1:
                refuse("other lists")
        n_read += len(block)
    if starts:
        refuse("a file that ends early")
    if not spans:
        refuse("no sequence")
    return spans


def _find_key(stream: BinaryIO, start: int) -> int:
    """The number that is the key of the object at this byte. Raises ValueError if none is."""
    before = os.pread(stream.fileno(), min(start, 40), max(start - 40, 0))
    key = _KEY.search(before)
    if key is None:
        refuse("an object without a number as its key")
    return int(key[1])


def is_number(text: str) -> bool:
    """Whether a text is a whole number of at most nine plain digits."""
    return text.isascii() and text.isdecimal() and len(text) <= 9

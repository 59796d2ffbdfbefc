"""Numbered pictures under whatever names, and how many frames there are.  [raw pixels] -> tracks -> features -> windows

MPI-INF-3DHP and Human3.6M come as videos, from which people extract pictures under names of their own. Which pictures
there are, and how they are numbered, is decided by their names alone.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

from pipeline.pixels.frames import Pictures, Video
from pipeline.raw.files import open_regular
from pipeline.raw.listing import listed

MAX_MOOV: Final = 1 << 28  # bytes of an MP4's header
# The last number before the extension counts the frames. Braces would be taken for a number in a pattern.
NUMBERED: Final = re.compile(
    r"(?P<before>[^{}\\]*?)(?<![0-9])(?P<number>[0-9]{1,18})(?P<after>\.(?:jpe?g|png))", re.IGNORECASE
)


def picture_pattern(raw: Path, folder: Path) -> Pictures | None:
    """The numbered pictures in `raw / folder`, whatever their names; None where there are none.

    Of several ways of naming the one with most pictures counts, of equally many the first by name. Frame 0 is the
    smallest number there is, so that a missing picture in between shifts nothing.
    """
    numbers_of: dict[tuple[str, str], list[str]] = {}
    for entry in listed(raw / folder, {}):
        if found := numbered(entry.name):
            numbers_of.setdefault((found["before"], found["after"]), []).append(found["number"])
    if not numbers_of:
        return None
    (before, after), numbers = min(numbers_of.items(), key=lambda item: (-len(item[1]), item[0]))
    # The digits to which most numbers are padded: {:06d} gives 000001 and 1000000.
    lengths = Counter(map(len, numbers))
    padded = [length for length in lengths if any(len(n) == length and n[0] == "0" and length > 1 for n in numbers)]
    digits = max(padded, key=lambda length: (lengths[length], -length)) if padded else min(lengths)
    first = min(int(number) for number in numbers if len(str(int(number)).zfill(digits)) == len(number))
    return Pictures(raw, f"{folder.as_posix()}/{before}{{:0{digits}d}}{after}", first)


def n_frames(source: Pictures | Video) -> int:
    """How many frames there are: of pictures up to the last one; of a video those that decode, whatever it states."""
    return source.n_decodable() if isinstance(source, Video) else int(source.indices().max(initial=-1)) + 1


def edit_list_start(file: Path) -> float:
    """Where the edit list of an MP4's first video track begins, in s after its first frame; 0.0 where there is none.

    What is before it is stored and counted by the header, but not decoded (ISO/IEC 14496-12, 8.6.6).
    """
    try:
        with open_regular(file) as stream:
            moov = next((stream.read(min(size, MAX_MOOV)) for kind, size in _boxes_of(stream) if kind == b"moov"), b"")
        return _edit_list_start(moov)
    except (OSError, ValueError, OverflowError, IndexError):  # damaged: whether it decodes is found by decoding
        return 0.0


def _edit_list_start(moov: bytes) -> float:
    for trak in _boxes(moov, b"trak"):
        media = _inner(trak, b"mdia")
        if not any(handler[8:12] == b"vide" for handler in _boxes(media, b"hdlr")):
            continue
        header, edit = _inner(media, b"mdhd"), _inner(trak, b"edts", b"elst")
        if not header or not edit:
            return 0.0
        scale = int.from_bytes(header[20:24] if header[0] == 1 else header[12:16])
        size, at = (20, 8) if edit[0] == 1 else (12, 4)  # of an entry; where its media time is, of as many bytes
        times = [int.from_bytes(edit[8 + i + at : 8 + i + 2 * at], signed=True) for i in range(0, len(edit) - 8, size)]
        # With B-frames the first frame is shown some frames after it is decoded: the usual edit list takes that back.
        first = int.from_bytes(_inner(media, b"minf", b"stbl", b"ctts")[12:16], signed=True)
        return next((max(time - first, 0) / scale for time in times if time >= 0), 0.0) if scale else 0.0  # -1: a pause
    return 0.0


def _boxes_of(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Type and size of content of a file's boxes; the stream is at the content."""
    at = 0
    while len(head := stream.read(16)) >= 8:
        size, begin = int.from_bytes(head[:4]), 8
        if size == 1:
            size, begin = int.from_bytes(head[8:16]), 16
        if size < begin:  # 0: to the end of the file
            size = begin + MAX_MOOV if size == 0 else begin
        stream.seek(at + begin)
        yield head[4:8], size - begin
        at += size
        stream.seek(at)


def _inner(content: bytes, *path: bytes) -> bytes:
    """The content of the first box at a path of types; b"" where there is none."""
    for kind in path:
        content = next(iter(_boxes(content, kind)), b"")
    return content


def _boxes(content: bytes, wanted: bytes) -> list[bytes]:
    """The contents of the boxes of a type within a box."""
    stream = io.BytesIO(content)
    return [stream.read(size) for kind, size in _boxes_of(stream) if kind == wanted]


def numbered(name: str) -> re.Match[str] | None:
    """The parts of a numbered picture's name; None for any other, hidden ones among them."""
    # A name that is not printable (bytes that are no UTF-8 among it) could not be a line of the cache.
    return NUMBERED.fullmatch(name) if name.isprintable() and not name.startswith(".") else None

"""Edit list and size that a video container states.  [pixels]"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from pipeline.files.raw.files import open_regular

MAX_MOOV: Final = 1 << 28  # bytes of an MP4's header
MP4: Final = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")  # one of these boxes is the first
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # of Matroska and WebM


def missing_bytes(file: Path) -> tuple[int, int]:
    """Actual bytes of a file, and bytes by its container: more if it is cut off.

    Equal if the container does not say. Reads MP4, AVI, Matroska and WebM.
    """
    try:
        with open_regular(file) as stream:
            size = os.fstat(stream.fileno()).st_size
            head = stream.read(256)
            stream.seek(0)
            if head.startswith(b"RIFF"):
                end = int.from_bytes(head[4:8], "little") + 8
                return size, size if end == 8 or end >= 1 << 32 else max(end, size)
            if head.startswith(EBML):
                return size, max(_segment_end(head), size)
            if head[4:8] in MP4:
                ends = [stream.tell() + n for _, n in _boxes_of(stream) if n != MAX_MOOV]  # that: to the file's end
                return size, max([size, *ends])
    except (OSError, OverflowError, ValueError):  # whether it decodes is found by decoding
        return 0, 0
    return size, size


def _segment_end(head: bytes) -> int:
    """End of Matroska's segment; 0 if unknown."""
    size, offset = _vint(head, 4)
    offset += size
    if head[offset : offset + 4] != SEGMENT:
        return 0
    size, begin = _vint(head, offset + 4)
    return 0 if size + 1 == 1 << 7 * (begin - offset - 4) else begin + size


def _vint(head: bytes, offset: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    length = 9 - head[offset].bit_length() if offset < len(head) else 1
    return int.from_bytes(head[offset : offset + length]) & ((1 << 7 * length) - 1), offset + length


def edit_list(file: Path) -> tuple[float, float]:
    """What the edit list of an MP4's first video track hides at its start and end, in s; (0.0, 0.0) without one.

    Hidden frames are stored and counted by the header, but not decoded (ISO/IEC 14496-12, 8.6.6). Of several entries,
    the first that shows frames counts.
    """
    try:
        with open_regular(file) as stream:
            moov = next((stream.read(min(size, MAX_MOOV)) for kind, size in _boxes_of(stream) if kind == b"moov"), b"")
        return _edit_list(moov)
    except (OSError, ValueError, OverflowError, IndexError):  # damaged: whether it decodes is found by decoding
        return 0.0, 0.0


def _edit_list(moov: bytes) -> tuple[float, float]:
    for trak in _boxes(moov, b"trak"):
        media = _inner(trak, b"mdia")
        if not any(handler[8:12] == b"vide" for handler in _boxes(media, b"hdlr")):
            continue
        scale, scale_of_edits = _scale(_inner(media, b"mdhd")), _scale(_inner(moov, b"mvhd"))
        edit, stbl = _inner(trak, b"edts", b"elst"), _inner(media, b"minf", b"stbl")
        if not scale or not edit:
            return 0.0, 0.0
        n = 8 if edit[0] == 1 else 4  # bytes of an entry's duration and of its media time; its rate has 4
        entries = [edit[i : i + 2 * n] for i in range(8, len(edit), 2 * n + 4)]
        shown = [(int.from_bytes(e[n:], signed=True), int.from_bytes(e[:n])) for e in entries]
        begin, length = next((entry for entry in shown if entry[0] >= 0), (0, 0))  # -1: a pause
        # With B-frames the first frame is shown some frames after it is decoded: the usual edit list takes that back.
        first, times = int.from_bytes(_inner(stbl, b"ctts")[12:16], signed=True), _inner(stbl, b"stts")
        counts = np.frombuffer(times[8 : len(times) // 8 * 8], ">u4").astype(np.int64)  # and how long each is shown
        end = (first + int(counts[::2] @ counts[1::2])) / scale
        hidden = end - begin / scale - (length + 1) / scale_of_edits if scale_of_edits else 0.0
        return max(begin - first, 0) / scale, max(hidden, 0.0)
    return 0.0, 0.0


def _scale(header: bytes) -> int:
    """Ticks per s, by the header of a movie or media; 0 without one."""
    return int.from_bytes(header[20:24] if header[:1] == b"\1" else header[12:16])


def _boxes_of(stream: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Type and content size of a file's boxes; the stream is at the content."""
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
    """Content of the first box at a path of types; b"" if missing."""
    for kind in path:
        content = next(iter(_boxes(content, kind)), b"")
    return content


def _boxes(content: bytes, wanted: bytes) -> list[bytes]:
    """Contents of the boxes of one type within a box."""
    stream = io.BytesIO(content)
    return [stream.read(size) for kind, size in _boxes_of(stream) if kind == wanted]

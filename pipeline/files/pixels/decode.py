"""Properties of images and videos from their bytes, before decoding; images -> pixels.  [pixels] -> crops

OpenCV turns a truncated JPEG into a partly grey image, and allocates what a header claims. So kind, size and
completeness are checked first. Of a video, the container's size and edit list count.
"""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.accounting import NOT_NOW
from pipeline.files.raw.files import note_fault, open_regular, passes

MAX_PIXELS: Final = 1 << 26  # 8192 x 8192: 200 MB decoded. The largest of the eight datasets are 2048 x 2048
MAX_BYTES: Final = 1 << 28
MAX_MOOV: Final = 1 << 28  # bytes of an MP4's header
MP4: Final = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")  # one of these boxes is the first
EBML, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"  # of Matroska and WebM

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8"
_STANDALONE: Final = frozenset((0x01, *range(0xD0, 0xD8)))  # JPEG markers without a length (TEM, RST0-7)
_FRAME_HEADERS: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # SOF0-15 without DHT, JPG and DAC
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9
_AFTER_SCAN: Final = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # the first marker that is no stuffing and no restart


class PictureError(ValueError):
    """The bytes are not a complete image. `kind` is short and stable, for counting; the message is for people."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[PictureError], tuple[str, str]]:
        return PictureError, (self.kind, str(self))


def decode(data: bytes) -> NDArray[np.uint8]:
    """JPEG or PNG bytes -> (H, W, 3) uint8 RGB. Raises PictureError for damaged, truncated or too large data.

    EXIF rotation is not applied: labels count the stored pixels.
    """
    width, height = picture_size(data, whole=True)
    rgb = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    if rgb is None or rgb.shape != (height, width, 3):
        raise PictureError("picture_damaged", f"cannot be decoded, though its header claims {width} x {height}")
    return np.asarray(rgb, np.uint8)


def read_picture(path: Path) -> bytes:
    """Content of an image file. Raises PictureError."""
    try:
        with open_regular(path) as stream:
            data = stream.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise PictureError("picture_missing", "does not exist") from None
    except OSError as error:
        note_fault(error)
        kind = NOT_NOW if passes(error) else "picture_unreadable"
        raise PictureError(kind, f"cannot be read: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise PictureError("picture_size", f"has over {MAX_BYTES} bytes")
    return data


def picture_size(data: bytes, *, whole: bool = False) -> tuple[int, int]:
    """(width, height) px from a JPEG's or PNG's header. `whole`: require a complete image. Raises PictureError."""
    if data.startswith(_JPEG):
        return _walk_jpeg(data, whole=whole)
    if not data:
        raise PictureError("picture_empty", "is empty (0 bytes)")
    if not data.startswith(_PNG):
        raise PictureError("picture_format", f"is neither JPEG nor PNG: it begins with {data[:8]!r}")
    if len(data) < 24 or data[12:16] != b"IHDR":
        raise PictureError("picture_truncated", f"the PNG is cut short: {len(data)} bytes, no header")
    size = _check_size(*struct.unpack_from(">II", data, 16))
    if whole:
        _require_whole_png(data)
    return size


def _walk_jpeg(data: bytes, *, whole: bool) -> tuple[int, int]:
    """The size; `whole`: require the end-of-image marker, too (ITU T.81, annex B)."""
    size: tuple[int, int] | None = None
    position = 2
    while (found := _read_marker(data, position)) is not None:
        marker, position = found
        if marker == _END_OF_IMAGE:
            if size is None:
                raise PictureError("picture_damaged", "the JPEG ends without a picture in it")
            return size
        if marker in _STANDALONE:
            continue
        if position + 2 > len(data):
            break
        (length,) = struct.unpack_from(">H", data, position)
        if marker in _FRAME_HEADERS and position + 7 <= len(data):
            height, width = struct.unpack_from(">HH", data, position + 3)
            size = _check_size(width, height)
            if not whole:
                return size
        position += max(length, 2)
        if marker == _START_OF_SCAN:
            after = _AFTER_SCAN.search(data, position)
            position = after.start() if after else len(data)
    raise PictureError("picture_truncated", f"the JPEG is cut short: {len(data)} bytes, and no end-of-image marker")


def _read_marker(data: bytes, position: int) -> tuple[int, int] | None:
    """The marker code at `position`, and where it ends; None at the end of the data."""
    while position + 1 < len(data) and data[position] == 0xFF == data[position + 1]:
        position += 1  # fill bytes
    if position + 1 >= len(data):
        return None
    if data[position] != 0xFF:
        raise PictureError("picture_damaged", f"the JPEG is damaged: no marker at byte {position}")
    return data[position + 1], position + 2


def _require_whole_png(data: bytes) -> None:
    position = len(_PNG)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind, end = data[position + 4 : position + 8], position + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(data[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise PictureError(
                "picture_damaged", f"the PNG is damaged: wrong checksum of its {kind!r} at byte {position}"
            )
        if kind == b"IEND":
            return
        position = end + 4
    raise PictureError("picture_truncated", f"the PNG is cut short: {len(data)} bytes, and no end")


def _check_size(width: int, height: int) -> tuple[int, int]:
    if not 0 < width * height <= MAX_PIXELS:
        raise PictureError("picture_size", f"its header claims {width} x {height} px, expected 1 to {MAX_PIXELS}")
    return width, height


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
    """Time that the edit list of an MP4's first video track hides at its start and end, s; (0.0, 0.0) without one.

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

"""Check images from their bytes, and decode them; find videos that are cut off.  [pixels] -> crops

OpenCV turns a damaged JPEG into a partly grey or shifted image without a word, and allocates as
much memory as a header claims. So the format and the size are checked before decoding, simplejpeg
decodes JPEGs and raises what libjpeg warns of, and PNGs have checksums.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.files.raw.files import open_regular

# 8192 x 8192: 200 MB decoded. The largest images of the eight datasets are 2048 x 2048.
MAX_PIXELS: Final = 1 << 26
# An MP4 or MOV file begins with one of these boxes.
MP4: Final = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
EBML = b"\x1a\x45\xdf\xa3"  # first bytes of Matroska and WebM files
SEGMENT = b"\x18\x53\x80\x67"  # id of their segment, which has all the content

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8"
_END_OF_JPEG: Final = b"\xff\xd9"
# libjpeg's warnings of false numbers that some phones and programs write -> where these are, and
# what libjpeg takes in their place
_FALSE_NUMBERS: Final = {
    "Invalid SOS parameters for sequential JPEG": (
        re.compile(
            rb"(\xff\xda\0(?:\x08\x01..|\x0a\x02.{4}|\x0c\x03.{6}|\x0e\x04.{8}))...", re.DOTALL
        ),
        b"\\g<1>\0\x3f\0",
    ),
    "unknown JFIF revision": (re.compile(rb"(JFIF\0).", re.DOTALL), b"\\g<1>\1"),
}
# libjpeg's warning of bytes before the end of a JPEG that belong to no pixel
_SURPLUS: Final = re.compile(r"([0-9]+) extraneous bytes before marker 0xd9")
# It has read up to so many of them ahead, and does not count these.
_READ_AHEAD: Final = 8


class PictureError(ValueError):
    """An error of an image whose bytes are missing, damaged or incomplete.

    `kind` is a short, stable name of the problem, by which problems are counted; the message is for
    people.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[PictureError], tuple[str, str]]:
        return PictureError, (self.kind, str(self))


def decode(data: bytes) -> NDArray[np.uint8]:
    """Decode the bytes of a JPEG or PNG to (H, W, 3) uint8 RGB.

    EXIF rotation is not applied, because labels refer to the pixels as stored. Raises PictureError
    for damaged, truncated or too large images.
    """
    import cv2

    width, height = picture_size(data)
    if data.startswith(_JPEG):
        return _decode_jpeg(data)
    _require_whole_png(data)
    flags = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
    rgb = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    if rgb is None or rgb.shape != (height, width, 3):
        raise PictureError(
            "picture_damaged", f"cannot be decoded, though its header claims {width} x {height}"
        )
    return np.asarray(rgb, np.uint8)


def picture_size(data: bytes) -> tuple[int, int]:
    """The (width, height) in px from the header of a JPEG or PNG.

    Raises PictureError for other or too large images, and for damaged headers.
    """
    if data.startswith(_JPEG):
        from simplejpeg import decode_jpeg_header

        try:
            height, width, *_ = decode_jpeg_header(data)
        except ValueError as error:
            mended = _mend(data, str(error))
            if mended == data:
                raise _jpeg_error(data, error) from error
            return picture_size(mended)
        return _check_size(width, height)
    if not data:
        raise PictureError("picture_empty", "is empty (0 bytes)")
    if not data.startswith(_PNG):
        raise PictureError("picture_format", "is neither JPEG nor PNG")
    # signature (8 bytes), then the first chunk: length (4), kind (4), width (4), height (4), ...
    if len(data) < 24 or data[12:16] != b"IHDR":
        raise PictureError(
            "picture_truncated", f"the PNG is cut short: {len(data)} bytes, no header"
        )
    return _check_size(*struct.unpack_from(">II", data, 16))


def _decode_jpeg(data: bytes) -> NDArray[np.uint8]:
    """Decode a JPEG to (H, W, 3) RGB. Raises PictureError for all that libjpeg warns of, but for
    what `_mend` mends.
    """
    from simplejpeg import decode_jpeg

    try:
        return np.asarray(decode_jpeg(data), np.uint8)
    except ValueError as error:
        mended = _mend(data, str(error))
        if mended == data:
            raise _jpeg_error(data, error) from error
    # Of several warnings, libjpeg tells the last one only.
    return _decode_jpeg(mended)


def _mend(data: bytes, warning: str) -> bytes:
    """A JPEG without what libjpeg warns of, if that changes no pixel: a false number, or equal
    bytes before the end marker, with which some cameras fill their files up.
    """
    for text, (pattern, number) in _FALSE_NUMBERS.items():
        if text in warning:
            return pattern.sub(number, data)
    surplus = _SURPLUS.search(warning)
    if surplus is None:
        return data
    n_surplus = int(surplus[1])
    # The last marker may be of another image, which phones append.
    for marker in reversed([*re.finditer(_END_OF_JPEG, data)]):
        end = marker.start()
        last = data[end - 1 : end]
        before = data[max(0, end - n_surplus - _READ_AHEAD - 1) : end]
        n_equal = len(before) - len(before.rstrip(last))
        is_chance = n_equal == 1 and last != b"\0"
        # Damage would also replace bytes that libjpeg needs.
        if not is_chance and n_surplus <= n_equal <= n_surplus + _READ_AHEAD:
            return data[: end - n_surplus] + data[end:]
    return data


def _jpeg_error(data: bytes, error: ValueError) -> PictureError:
    """The error for a JPEG that libjpeg refuses or warns of."""
    if data.rstrip(b"\0").endswith(_END_OF_JPEG):
        return PictureError("picture_damaged", f"the JPEG is damaged: {error}")
    return PictureError(
        "picture_truncated", f"the JPEG is cut short: {len(data)} bytes, and no end-of-image marker"
    )


def _require_whole_png(data: bytes) -> None:
    """Raise PictureError unless a PNG has all its chunks, with correct checksums."""
    # a chunk: length of its content (4 bytes), kind (4), content, checksum of kind and content (4)
    position = len(_PNG)
    while position + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, position)
        kind = data[position + 4 : position + 8]
        end = position + 8 + length
        if end + 4 > len(data):
            break
        if zlib.crc32(data[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise PictureError(
                "picture_damaged",
                f"the PNG is damaged: wrong checksum of its {kind!r} at byte {position}",
            )
        if kind == b"IEND":
            return
        position = end + 4
    raise PictureError("picture_truncated", f"the PNG is cut short: {len(data)} bytes, and no end")


def _check_size(width: int, height: int) -> tuple[int, int]:
    """Return the size. Raises PictureError if it is 0 or has over MAX_PIXELS."""
    if not 0 < width * height <= MAX_PIXELS:
        raise PictureError(
            "picture_size", f"its header claims {width} x {height} px, expected 1 to {MAX_PIXELS}"
        )
    return width, height


def is_cut_off(file: Path) -> bool:
    """Whether an AVI, Matroska, WebM, MP4 or FLV file is shorter than it states."""
    try:
        with open_regular(file) as stream:
            size = os.fstat(stream.fileno()).st_size
            head = stream.read(256)
            if head[4:8] in MP4:
                return _mp4_end(stream, size) > size
            if head.startswith(b"FLV"):
                return not _ends_with_tag(stream, size)
    except OSError:
        return False
    if head.startswith(EBML):
        return _matroska_end(head) > size
    return head.startswith(b"RIFF") and _avi_end(head) > size


def _mp4_end(stream: BinaryIO, size: int) -> int:
    """Where the last box of an MP4 file of `size` bytes ends (ISO/IEC 14496-12, 4.2).

    A box begins with its length (4 bytes) and its kind (4). A length of 1 stands for one of 8 bytes
    behind the kind, 0 for the rest of the file.
    """
    end = 0
    while end < size:
        stream.seek(end)
        length, kind, long_length = struct.unpack(">I4sQ", stream.read(16).ljust(16, b"\0"))
        if length == 1:
            length = long_length
        if length < 8 or not kind.isalnum():
            return 0
        end += length
    return end


def _ends_with_tag(stream: BinaryIO, size: int) -> bool:
    """Whether an FLV file of `size` bytes ends with a whole tag.

    A tag has a header of 11 bytes, its kind and the length of its content (3 bytes) first, then the
    content, and the length of both (4 bytes).
    """
    stream.seek(max(0, size - 4))
    length = int.from_bytes(stream.read(4))
    stream.seek(max(0, size - 4 - length))
    return 11 + int.from_bytes(stream.read(4)[1:]) == length


def _avi_end(head: bytes) -> int:
    """Where the AVI file with these first bytes ends; 0 if unknown.

    It is one chunk: b"RIFF", the number of bytes that follow (4 bytes, little-endian), the bytes. A
    writer that could not return to the start has left 0 or 2^32 - 1 in it.
    """
    n_bytes = int.from_bytes(head[4:8], "little")
    if n_bytes in (0, 0xFFFFFFFF):
        return 0
    return 8 + n_bytes


def _matroska_end(head: bytes) -> int:
    """Where the Matroska file with these first bytes ends; 0 if unknown.

    It has two elements, the EBML header and the segment. An element is its id (4 bytes for these
    two), the size of its content as a `_read_vint`, and its content.
    """
    header_size, header_start = _read_vint(head, len(EBML))
    if header_size is None:
        return 0
    segment = header_start + header_size
    after_id = segment + len(SEGMENT)
    if head[segment:after_id] != SEGMENT:
        return 0
    size, start = _read_vint(head, after_id)
    return 0 if size is None else start + size


def _read_vint(head: bytes, offset: int) -> tuple[int | None, int]:
    """Read Matroska's number of variable length (RFC 8794, section 4) at `offset`.

    The zero bits before the first one bit tell how many bytes follow the first byte. After the one
    bit, 7 bits for each byte are the number: 0x43 0xA0 is 0b01 and the number 0x3A0.

    Returns the number, or None for the code that means unknown (all bits are 1), and where it ends.
    """
    # At the end of the data, the result ends after it, which shows that the file is cut off.
    first = head[offset : offset + 1] or b"\xff"
    n_bytes = 9 - first[0].bit_length()  # 1 for 0b1..., 2 for 0b01..., 9 for 0
    end = offset + n_bytes
    all_ones = (1 << 7 * n_bytes) - 1
    number = int.from_bytes(head[offset:end]) & all_ones
    return None if number == all_ones else number, end

"""What a file is in place of the expected one, by its first bytes.  [raw]

Downloads are often other files: login pages, archives that are still packed, pointers of Git LFS.
Messages name them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

ZIP: Final = b"PK\x03\x04"  # first bytes of an .npz archive
HDF5: Final = "an HDF5 file"
_OTHERS: Final = {  # first bytes of files that are often downloaded by mistake
    b"<": "a web page (a login or licence page, perhaps)",
    ZIP: "a zip archive",
    b"\x1f\x8b": "a file compressed with gzip",
    b"BZh": "a file compressed with bz2",
    b"\xfd7zXZ": "a file compressed with xz",
    b"]\x00": "a file compressed with lzma",
    b"\x04\x22\x4d\x18": "a file compressed with lz4",
    **dict.fromkeys((b"x\x01", b"x^", b"x\x9c", b"x\xda"), "a file compressed with zlib"),
    b"\x89HDF": HDF5,
    b"version http": "a Git LFS pointer",
}
NO_TEXT: Final = _OTHERS | {  # first bytes of other files that have the name of a text or a clip
    b"GIF8": "a GIF image",
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"RIFF": "an AVI video or WebP image",
    b"\x1aE\xdf\xa3": "a WebM or Matroska video",
    b"%PDF": "a PDF",
    b"\x93NUMPY": "a NumPy array (.npy)",
    b"\x80": "a pickle",
    b"PAR1": "a Parquet file",
    b"MATLAB": "a MATLAB file",
    b"\x30\x26\xb2\x75": "Windows Media, to be converted: ffmpeg -i IN.wmv OUT.mp4",
    b"\xff\xfe": "text in UTF-16, not in UTF-8",
    b"\xfe\xff": "text in UTF-16, not in UTF-8",
}


def other_format(start: bytes) -> str | None:
    """What a file is in place of the expected download, from its first bytes; None if
    unknown."""
    if not start:
        return "empty (0 bytes)"
    return _identify_format(start.lstrip(), _OTHERS)


def other_than_text(content: bytes) -> str | None:
    """What a file is in place of text in UTF-8; None if it may be text."""
    if not content.strip():
        return f"empty ({len(content)} bytes)"
    if not content.strip(b"\0"):
        return "zero bytes alone, as a full disk or a broken copy leaves them"
    if content[4:8] == b"ftyp":
        return "an MP4 or MOV video"
    if content[257:262] == b"ustar":
        return "a tar archive"
    return _identify_format(content.lstrip(), NO_TEXT)


def _identify_format(start: bytes, formats: Mapping[bytes, str]) -> str | None:
    """The name of the first of `formats` (first bytes -> name) that `start` begins with; None
    for none.
    """
    for magic, name in formats.items():
        if start.startswith(magic):
            return name
    return None

"""docs/cache-format.md as code: a reader that knows only what is written there.

No NumPy and nothing of `cache`: `struct`, `json`, `hashlib`, `zipfile`, and our own CRC-32C.
"""

import ast
import hashlib
import json
import math
import re
import struct
import zipfile
from typing import Any

LETTER = {
    "int32": "i",
    "int64": "q",
    "uint8": "B",
    "uint64": "Q",
    "float16": "e",
    "float32": "f",
    "float64": "d",
}
TYPES = {"<i4": "i", "<i8": "q", "|u1": "B", "<f4": "f", "<f8": "d"}  # of tables
ABSENT = 2**64 - 1

Manifest = dict[str, Any]  # any JSON object
Files = dict[str, bytes]  # of tables by name, each as NumPy's .npy
Numbers = tuple[Any, ...]  # of one row
Runs = list[tuple[int, int]]


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return struct.pack("<I", crc ^ 0xFFFFFFFF)


def digest(text):
    """Of a manifest, by its text alone: white space outside strings goes, then the member
    `digest`.
    """
    tokens = re.findall(r'"(?:[^"\\]|\\.)*"|[^\s"]+', text)
    return hashlib.sha256(
        re.sub(r'"digest":"[0-9a-f]*",', "", "".join(tokens)).encode()
    ).hexdigest()


def open_manifest(home):
    """(manifest, the members of the file of tables that it names)."""
    text = (home / "manifest.json").read_text()
    manifest = json.loads(text)
    assert manifest["format"] == "vibe-cache 3"
    assert manifest["digest"] == digest(text)
    files = {}
    if "tables" in manifest:
        tables = home / f"tables-{manifest['tables'][:16]}.npz"
        assert hashlib.sha256(tables.read_bytes()).hexdigest() == manifest["tables"]
        with zipfile.ZipFile(tables) as archive:
            assert archive.testzip() is None
            for member in archive.infolist():
                assert member.compress_type == zipfile.ZIP_STORED
                assert member.date_time == (1980, 1, 1, 0, 0, 0)
                files[member.filename.removesuffix(".npy")] = archive.read(member)
    return manifest, files


def shard_rows(manifest, number):
    size = manifest["geometry"]["rows_per_shard"]
    start = number * size
    return next(
        range(start, min(end, start + size))
        for first, end in manifest["commits"]
        if first <= start < end
    )


def read_shard(file, record, trailing, dtype, geometry):
    """{row within the shard: its numbers}, of all chunks that the shard holds."""
    data = file.read_bytes()
    rows, chunks = (
        geometry["rows_per_chunk"],
        geometry["rows_per_shard"] // geometry["rows_per_chunk"],
    )
    n_numbers = math.prod(trailing)
    packed = struct.Struct(f"<{rows * n_numbers}{LETTER[dtype]}")
    index, checksum = data[-16 * chunks - 4 : -4], data[-4:]
    assert crc32c(index) == checksum
    found = {}
    checksums = b""
    for chunk, (offset, size) in enumerate(struct.iter_unpack("<QQ", index)):
        if offset == ABSENT:
            assert size == ABSENT
            continue
        body, checksum = data[offset : offset + size - 4], data[offset + size - 4 : offset + size]
        assert size == packed.size + 4
        assert crc32c(body) == checksum
        checksums += checksum
        numbers = packed.unpack(body)
        for row in range(rows):
            found[chunk * rows + row] = numbers[row * n_numbers : (row + 1) * n_numbers]
    assert record == f"{len(data)}:{hashlib.sha256(checksums).hexdigest()[:16]}"
    return found


def read_column(base, name, manifest, trailing, dtype):
    """{row: its numbers} for every committed row of a column, in the order in which they are
    stored.
    """
    column = {}
    for number, record in manifest["shards"][name].items():
        file = base.joinpath(name, "c", number, *["0"] * len(trailing))
        rows = shard_rows(manifest, int(number))
        stored = read_shard(file, record, trailing, dtype, manifest["geometry"])
        column |= {row: stored[row - rows.start] for row in rows}
    return column


def read_table(name, files):
    """A list with the numbers of each row."""
    assert files[name][:8] == b"\x93NUMPY\1\0"
    (size,) = struct.unpack("<H", files[name][8:10])
    header = ast.literal_eval(files[name][10 : 10 + size].decode())
    data = files[name][10 + size :]
    letter = TYPES[header["descr"]]
    row = struct.Struct(f"<{math.prod(header['shape'][1:])}{letter}")
    assert (header["fortran_order"], len(data)) == (False, header["shape"][0] * row.size)
    return list(row.iter_unpack(data))


def text(row):
    return bytes(row).rstrip(b"\0").decode()


def windows(runs, *, seqlen, stride):
    return [[start, start + seqlen] for a, b in runs for start in range(a, b - seqlen + 1, stride)]

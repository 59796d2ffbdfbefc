"""One bit of a file, changed."""

from __future__ import annotations

from pathlib import Path


def flip(file: Path, bit: int) -> bytes:
    """Change one bit of a file; its bytes as they were."""
    before = file.read_bytes()
    changed = bytearray(before)
    changed[bit // 8] ^= 1 << bit % 8
    file.write_bytes(changed)
    return before

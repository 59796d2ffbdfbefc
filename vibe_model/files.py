"""Files that are replaced atomically: readers see the old content or the new one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from cache.storage.durable import sync_folder, write_atomic


def replace_file(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Replace a file atomically and durably: readers see the old content or the new one."""
    part = path.with_name(f".{path.name}.part")
    # left by a killed run, or a link: it is replaced, never written through
    part.unlink(missing_ok=True)
    with part.open("xb") as stream:
        write(stream)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
    sync_folder(path.parent)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write sorted JSON without NaN, atomically."""
    text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False)
    write_atomic(path, f"{text}\n".encode())

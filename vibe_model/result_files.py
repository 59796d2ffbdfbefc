"""Write files of results: checkpoints, JSON, CSV, arrays.  No torch.

A file is replaced atomically: readers see the old content or the new one. Training, evaluation and
prediction write their results by these functions.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from cache.storage.durable import sync_folder


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


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 atomically."""
    replace_file(path, lambda stream: stream.write(text.encode()))


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write sorted JSON without NaN, atomically."""
    write_text(path, json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n")


def csv_text(lines: Iterable[Iterable[Any]]) -> str:
    """Lines of cells as CSV."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()

"""Which files and folders below a raw folder are opened: what a reader's tracks may depend on.  [raw -> tracks]

Python tells of every file that it opens and every folder that it lists. What a library of C opens by itself (HDF5,
a video's decoder) is not seen, nor is a question whether a file is there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Opened:
    """Paths below the raw folder, as "labels/0001.mat"; "." is the raw folder itself."""

    files: set[str] = field(default_factory=set)  # opened, there or not
    folders: set[str] = field(default_factory=set)  # listed, there or not


@contextmanager
def watched(raw: Path) -> Iterator[Opened]:
    """What this process opens below `raw` until the end of the block, in any thread. Blocks must not be nested."""
    opened = Opened()
    _listen()
    _watching.append((tuple({os.path.abspath(raw), os.path.realpath(raw)}), opened))  # noqa: PTH100 - with links, too
    try:
        yield opened
    finally:
        _watching.clear()


_watching: list[tuple[tuple[str, ...], Opened]] = []  # the one block that listens


@cache
def _listen() -> None:
    """Once in a process: who listens to Python's events cannot be taken away again."""
    sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching or event not in ("open", "os.listdir", "os.scandir"):
        return
    roots, opened = _watching[-1]
    path = "." if arguments[0] is None else arguments[0]
    if isinstance(path, int):  # a descriptor: of what was opened before
        return
    below = _below(roots, os.path.abspath(os.fsdecode(path)))  # noqa: PTH100 - links stay as they are
    if below is not None:
        lists = event != "open" or arguments[2] & os.O_DIRECTORY
        (opened.folders if lists else opened.files).add(below)


def _below(roots: tuple[str, ...], path: str) -> str | None:
    """`path` as it is called below one of `roots`; None where it lies elsewhere."""
    return next((os.path.relpath(path, root) for root in roots if path == root or path.startswith(f"{root}/")), None)

"""Contract of a reader for its raw files: listing and opening.  [raw]"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pipeline.files.raw import RawVideo

_RECORDED: Final[list[set[str]]] = []


def listing_problems(listed: Sequence[RawVideo], again: Sequence[RawVideo]) -> Iterator[str]:
    """Problems of a list of videos, compared with a second listing."""
    names = [video.name for video in listed]
    if names != sorted(names):
        yield "videos() is not sorted by name"
    if len(set(names)) != len(names):
        yield "videos() lists a name twice"
    if listed != again:
        yield "videos() lists something else the second time"
    for video in listed:
        if any(path.is_absolute() for path in video.paths):
            yield f"{video.name}: its files and folders are not below the raw folder"


def opened_problems(video: RawVideo, opened: Iterable[Path]) -> Iterator[str]:
    """Opened files (paths below the raw folder) that the video does not name."""
    named = {Path(os.path.normpath(path)) for path in video.paths}
    for path in sorted(opened):
        if named.isdisjoint((path, path.parent)):
            yield f"{video.name}: read() opens {path}, which neither videos() nor shared() names"


@contextmanager
def files_opened(raw: Path) -> Iterator[set[Path]]:
    """Set that gets, on exit, the files below `raw` that Python code of this process opened, as paths below it."""
    _listen()
    paths: set[str] = set()
    opened: set[Path] = set()
    _RECORDED.append(paths)
    try:
        yield opened
    finally:
        _RECORDED.remove(paths)
        root = raw.absolute()
        absolute = (Path(os.path.normpath(Path(path).absolute())) for path in paths)
        opened |= {path.relative_to(root) for path in absolute if path.is_relative_to(root) and path.is_file()}


@functools.cache
def _listen() -> None:
    """Once per process: audit hooks cannot be removed."""
    sys.addaudithook(_record)


def _record(event: str, arguments: tuple[Any, ...]) -> None:
    if _RECORDED and event == "open" and isinstance(arguments[0], str | bytes | os.PathLike):
        for paths in _RECORDED:
            paths.add(os.fsdecode(arguments[0]))

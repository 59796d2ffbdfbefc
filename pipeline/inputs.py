"""Have the raw files changed? Cheap to ask (sizes and times), exact to answer (content).

A video's *stamp* is what a look at the folder tells: sizes, times and counts. Its *digest* is what decides: the content
of its label and video files, in label folders too, and the names and sizes of its pictures. Stamps differ between
copies of the same data, so they are kept beside the commit (stamps.json), never in it; digests are part of it. A stamp
says nothing unless the digest that was taken with it is the committed one, so a crash between the two files does no
harm.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, TypedDict

from pipeline.datasets.base import RawVideo
from pipeline.digests import contents_digest, file_digest, folder_digest, span_digest

Stamp = list[list[str | int]]  # [path below the raw folder, sizes and counts, times in ns, span] per input

STAMPS: Final = "stamps.json"


class Seen(TypedDict):
    """A video as it was when it was last read."""

    stamp: Stamp
    digest: str


def stamp(raw: Path, video: RawVideo) -> Stamp:
    """Size and time of every file, count and time of every folder; of label folders also what their files add up to.

    What cannot be looked at counts as -1.
    """
    entries: Stamp = []
    for file in video.files:
        entries.append([_below(raw, file), *_size_and_time(raw / file), *(video.span or ())])
    for folder in video.folders:
        try:
            entries.append([_below(raw, folder), len(os.listdir(raw / folder)), (raw / folder).stat().st_mtime_ns])  # noqa: PTH208 - the fast count
        except OSError:
            entries.append([_below(raw, folder), -1, -1])
    for folder in video.label_folders:
        entries.append([_below(raw, folder), *_count_size_and_times(raw / folder)])
    return entries


def write_stamps(folder: Path, seen: Mapping[str, Seen]) -> None:
    """Remember what the raw folder looked like at a commit. Safe to lose: without it, contents are compared."""
    beside = folder / f".{STAMPS}.part"
    beside.write_text(json.dumps(seen))
    beside.replace(folder / STAMPS)


def read_stamps(folder: Path) -> dict[str, Seen]:
    """What `write_stamps` remembered; nothing when it is not there or not readable."""
    try:
        seen = json.loads((folder / STAMPS).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return seen if isinstance(seen, dict) else {}


def video_digest(raw: Path, video: RawVideo) -> str:
    """Content of the video's files and label folders, names and sizes of what lies in its folders: sha256, hex."""
    total = hashlib.sha256()
    for file in video.files:
        digest = file_digest(raw / file) if video.span is None else span_digest(raw / file, *video.span)
        total.update(f"{_below(raw, file)}\0{digest}\n".encode())
    for folder in video.folders:
        total.update(f"{_below(raw, folder)}\0{folder_digest(raw / folder)}\n".encode())
    for folder in video.label_folders:
        total.update(f"{_below(raw, folder)}\0{contents_digest(raw / folder)}\n".encode())
    return total.hexdigest()


def _count_size_and_times(folder: Path) -> tuple[int, int, int, int]:
    """Count, total size and newest time of what lies in a folder, and the folder's own time.

    A file rewritten in place shows in the newest time alone, files that changed places in the folder's alone.
    """
    try:
        with os.scandir(folder) as entries:
            found = [_size_and_time(entry) for entry in entries]
        own = folder.stat().st_mtime_ns
    except OSError:
        return -1, -1, -1, -1
    return len(found), sum(size for size, _ in found), max((time for _, time in found), default=-1), own


def _size_and_time(file: Path | os.DirEntry[str]) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:  # also a link that leads nowhere
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _below(raw: Path, path: Path) -> str:
    return utf8((path.relative_to(raw) if path.is_absolute() else path).as_posix())


def utf8(name: str) -> str:
    """A file's name as JSON and tables can hold it: bytes that are no UTF-8 are written out."""
    return name.encode(errors="backslashreplace").decode()

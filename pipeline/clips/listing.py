"""Clips below a raw folder.  [pixels] -> raw keypoints -> tracks"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pipeline.cli.text import count, first_few
from pipeline.clips.files import KEYPOINTS
from pipeline.files.raw.files import VIDEOS, is_litter, list_files

ENDINGS: Final = ", ".join(VIDEOS)
KINDS: Final = f"files that end in {ENDINGS}"
# usual files beside clips, which `describe_others` does not mention
_BESIDE_CLIPS: Final = (".json", ".txt", ".md", ".csv", ".xml", ".yaml", ".yml", ".cfg", ".log")


def list_clips(raw: Path) -> list[str]:
    """List video files anywhere below `raw`, sorted, except litter; [] without such a folder."""
    return [file for file in list_files(raw) if _kind(file) in VIDEOS]


def visible_entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of a folder, unsorted, except litter; none of a missing folder."""
    if folder.is_dir():
        with os.scandir(folder) as scanned:
            yield from (entry for entry in scanned if not is_litter(entry.name))


def _kind(file: str) -> str:
    return file[file.rfind(".") :].lower()  # a fiftieth of PurePath's time


def describe_others(raw: Path) -> str:
    """Say which files below `raw` are skipped: "skipped 2 files of other kinds: a.heic, b.jpg".

    "" if there are only clips, labels, tables and texts.
    """
    skipped_files = []
    for file in list_files(raw):
        is_beside = not file.startswith(f"{KEYPOINTS}/")
        if is_beside and _kind(file) not in (*VIDEOS, *_BESIDE_CLIPS):
            skipped_files.append(file)
    if not skipped_files:
        return ""
    names = first_few(skipped_files)
    return f"skipped {count(len(skipped_files), 'file')} of other kinds: {names}"

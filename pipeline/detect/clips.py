"""Which files of a folder are clips.  [pixels] -> raw keypoints -> tracks"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

EXTENSIONS: Final = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")  # in any capitals


def clips_in(raw: Path) -> list[str]:
    """Video files anywhere below `raw`, as paths below it, in order; none where there is no such folder.

    Hidden files and folders are passed over; links to folders are followed, but not back to a folder that they are in.
    """
    found = []
    for folder, folders, names in os.walk(raw, followlinks=True):
        here = os.path.realpath(folder)
        kept = (name for name in folders if not name.startswith("."))
        folders[:] = sorted(name for name in kept if not here.startswith(_real(folder, name)))
        clips = (name for name in names if Path(name).suffix.lower() in EXTENSIONS and not name.startswith("."))
        found += [(Path(folder) / name).relative_to(raw).as_posix() for name in clips]
    return sorted(found)


def _real(folder: str, name: str) -> str:
    return os.path.realpath(os.path.join(folder, name))  # noqa: PTH118 - as os.walk gives them

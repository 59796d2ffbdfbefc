"""Files in untrusted folders: videos, opening, changes.  [raw] -> tracks -> features -> windows"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class RawVideo:
    """One unit of conversion, accounting and change detection. All paths are below the raw folder."""

    name: str  # unique within the dataset; without what is the same for all videos
    files: tuple[Path, ...]  # label files and videos: their content decides the tracks
    folders: tuple[Path, ...] = ()  # image folders: the names in them decide the tracks
    label_folders: tuple[Path, ...] = ()  # folders of label files: names and content decide the tracks
    span: tuple[int, int] | None = None  # bytes [start, stop) of the one file that are this video's; None: all of it

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files and folders."""
        return *self.files, *self.folders, *self.label_folders

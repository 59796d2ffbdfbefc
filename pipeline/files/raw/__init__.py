"""Files in untrusted folders: videos, opening, changes, and the marker of demo data.  [raw] -> tracks -> features"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pipeline.errors import StandInMixed

MARKER: Final = "STAND_IN.json"  # in each folder of demo data, which is never mixed with real data
BODY: Final = "[paths] body (or --body)"


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


def is_stand_in(folder: Path) -> bool:
    """Whether a folder has demo data's marker file."""
    return (folder / MARKER).is_file()


def refuse_mixture(
    data: Path | str, data_stands_in: bool, body: Path, body_stands_in: bool, *, option: str = BODY
) -> None:
    """Raise StandInMixed if exactly one of data (a raw folder, a split's name) and body is demo data.

    option: the setting of the body, for the message.
    """
    if data_stands_in == body_stands_in:
        return
    kind = {True: "demo data", False: "real data"}
    raise StandInMixed(
        f"{data} is {kind[data_stands_in]}, but the body in {body} is {kind[body_stands_in]}: labels made from both "
        f"would mean nothing. Point {option} at the SMPL files for real data, at the synthesized body for demo data."
    )

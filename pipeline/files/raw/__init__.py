"""Files in untrusted folders: videos, opening, changes, and the marker of demo data.  [raw] ->
tracks -> features
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

from pipeline.errors import StandInMixed

MARKER: Final = "STAND_IN.json"  # in each folder of demo data, which is never mixed with real data
BODY: Final = "[paths] body (or --body)"


@dataclass(frozen=True, slots=True)
class RawVideo:
    """One unit of conversion, accounting and change detection. All paths are below the raw
    folder.
    """

    name: str  # unique within the dataset; without what all share: 0001 of labels/0001.mat
    files: tuple[Path, ...]  # label files and videos: their content decides the tracks
    folders: tuple[Path, ...] = ()  # image folders: the names in them decide the tracks
    # folders of label files: names and content decide the tracks
    label_folders: tuple[Path, ...] = ()
    # bytes [start, stop) of the one file that are this video's; None: all of it
    span: tuple[int, int] | None = None
    # `ClipRecord.as_dict` of an earlier conversion
    clip: Mapping[str, Any] | None = field(default=None, compare=False)
    clip_digest: str = field(default="", compare=False)  # of the pixels of `clip`

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files and folders."""
        return *self.files, *self.folders, *self.label_folders


class VideoTexts(NamedTuple):
    """A RawVideo with texts for paths, and without the record of an earlier conversion."""

    name: str
    files: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    label_folders: tuple[str, ...] = ()
    span: tuple[int, int] | None = None

    @classmethod
    def from_video(cls, video: RawVideo) -> VideoTexts:
        return cls(
            video.name,
            tuple(map(str, video.files)),
            tuple(map(str, video.folders)),
            tuple(map(str, video.label_folders)),
            video.span,
        )

    def video(self) -> RawVideo:
        return RawVideo(
            self.name,
            tuple(map(Path, self.files)),
            tuple(map(Path, self.folders)),
            tuple(map(Path, self.label_folders)),
            self.span,
        )


class RawVideos(Sequence[RawVideo]):
    """Raw videos as texts, since there are half a million: an object is made on access."""

    def __init__(self, texts: Sequence[VideoTexts]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return RawVideos(self.texts[number])
        return self.texts[number].video()


def texts_of(videos: Sequence[RawVideo]) -> Sequence[VideoTexts]:
    """The videos as texts, without making objects of `RawVideos`."""
    if isinstance(videos, RawVideos):
        return videos.texts
    return [VideoTexts.from_video(video) for video in videos]


def is_stand_in(folder: Path) -> bool:
    """Whether a folder has demo data's marker file."""
    return (folder / MARKER).is_file()


def refuse_mixture(
    data: Path | str, data_stands_in: bool, body: Path, body_stands_in: bool, *, option: str = BODY
) -> None:
    """Raise StandInMixed if exactly one of data (a raw folder, a split's name) and body is demo
    data.

    option: the setting of the body, for the message.
    """
    if data_stands_in == body_stands_in:
        return
    kinds = {False: "real data", True: "demo data"}
    raise StandInMixed(
        f"{data} is {kinds[data_stands_in]}, but the body in {body} is {kinds[body_stands_in]}: "
        f"labels made from both would mean nothing. Point {option} at the SMPL files for real "
        "data, at the synthesized body for demo data."
    )

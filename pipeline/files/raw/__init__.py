"""Raw folders, which are untrusted.  [raw] -> tracks -> features

This module has what readers and commands share: `RawVideo`, the description of one video;
`RawVideos`, that of half a million clips; and the marker file of folders with demo data. `files`
opens files, and `changes` finds out which have changed.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pipeline.errors import StandInMixed

if TYPE_CHECKING:
    from pipeline.files.raw.corrections import Correction

MARKER: Final = "STAND_IN.json"  # in each folder of demo data, which is never mixed with real data


class CommittedClip(NamedTuple):
    """What an earlier conversion has found out about a video's pixels."""

    digest: str  # of the pixels
    record: Mapping[str, Any] | None  # `ClipRecord.as_dict`; None: of images


@dataclass(frozen=True, slots=True)
class RawVideo:
    """One raw video: the unit of conversion, accounting and change detection. All paths are
    relative to the raw folder.
    """

    # unique within the dataset, without parts that all paths share: 0001 for labels/0001.mat
    name: str
    files: tuple[Path, ...]  # label files and videos: their content decides the tracks
    folders: tuple[Path, ...] = ()  # image folders: the names in them decide the tracks
    # folders of label files: their names and content decide the tracks
    label_folders: tuple[Path, ...] = ()
    # if many videos share the one file: this video's bytes [start, stop) in it; None: the whole
    span: tuple[int, int] | None = None
    corrections: tuple[Correction, ...] = ()  # by the user, of its tracks
    # None: no earlier conversion has read the video
    committed: CommittedClip | None = field(default=None, compare=False)

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files and folders of the video."""
        return *self.files, *self.folders, *self.label_folders


class VideoTexts(NamedTuple):
    """The name and the paths of a `RawVideo`, as texts: Path objects take ten times as long."""

    name: str
    files: tuple[str, ...]
    folders: tuple[str, ...] = ()
    label_folders: tuple[str, ...] = ()
    span: tuple[int, int] | None = None

    def raw_video(self) -> RawVideo:
        """The video. Its paths are made now."""
        files, folders, label_folders = (tuple(map(Path, paths)) for paths in self[1:4])
        return RawVideo(self.name, files, folders, label_folders, self.span)


class RawVideos(Sequence[RawVideo]):
    """Raw videos, each made when it is accessed: of unchanged ones, texts are enough. These are
    kept as bytes, which take a third of the memory.
    """

    def __init__(self, texts: Iterable[VideoTexts]) -> None:
        self._packed = [marshal.dumps(tuple(text)) for text in texts]

    def texts(self) -> Iterator[VideoTexts]:
        return map(_unpack, self._packed)

    def __getitem__(self, number: Any) -> Any:
        if isinstance(number, slice):
            return [self[k] for k in range(len(self))[number]]
        return _unpack(self._packed[number]).raw_video()

    def __len__(self) -> int:
        return len(self._packed)


def _unpack(packed: bytes) -> VideoTexts:
    return VideoTexts(*marshal.loads(packed))  # noqa: S302  packed by this process


def texts_of(videos: Sequence[RawVideo]) -> Iterator[VideoTexts]:
    """The names and paths of videos, in their order."""
    if isinstance(videos, RawVideos):
        yield from videos.texts()
        return
    for video in videos:
        yield VideoTexts(
            video.name,
            tuple(map(str, video.files)),
            tuple(map(str, video.folders)),
            tuple(map(str, video.label_folders)),
            video.span,
        )


def is_demo_data(folder: Path) -> bool:
    """Whether a folder holds demo data: it has the marker file."""
    return (folder / MARKER).is_file()


def refuse_mixture(
    data: Path | str, body: Path, *, is_demo: bool, option: str = "[paths] body (or --body)"
) -> None:
    """Raise StandInMixed unless data and body model are both for demos, or both real.

    Args:
        data: What the data is, for the message: a raw folder, or a split's name.
        body: Folder of the body model's files.
        is_demo: Whether the data is for demos.
        option: The setting that names `body`, for the message.
    """
    if is_demo == is_demo_data(body):
        return
    kinds = ("demo data", "real data") if is_demo else ("real data", "demo data")
    raise StandInMixed(
        f"{data} is {kinds[0]}, but the body in {body} is {kinds[1]}: labels made from both would "
        f"mean nothing. Point {option} at the SMPL files for real data, at the synthesized body "
        "for demo data."
    )

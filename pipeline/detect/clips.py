"""Which files of a folder are clips, and which are their labels.  [pixels] -> raw keypoints -> tracks

Of a clip `<folders>/<clip>.mp4`, in whatever formats of `pipeline.files.formats.labels.detections` they are:

    keypoints/<folders>/<clip>.mp4.json     `python -m pipeline detect`; also .txt and .csv
    keypoints/<folders>/<clip>.mp4/         a file for each frame
    keypoints/<folders>/<clip>.json         also .txt and .csv; unless another clip there is called <clip>, too
    keypoints/<folders>/<clip>/
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Final

from pipeline.detect.files import KEYPOINTS
from pipeline.errors import RawDataError
from pipeline.files.formats.labels.detections import SUFFIXES, UNREAD
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import is_folder
from pipeline.files.raw.stand_in import MARKER

EXTENSIONS: Final = (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v")  # in any capitals
PICTURES: Final = (".jpg", ".jpeg", ".png", ".heic", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def clips_in(raw: Path, suffix: str = "") -> list[str]:
    """Video files anywhere below `raw`, as paths below it, in order; none where there is no such folder.

    suffix: what follows their names: ".json", of what `detect` has written of them.

    Hidden files and folders are passed over; links to folders are followed, but not back to a folder that they are in.
    """
    files = (file for file in _files_in(raw) if file.endswith(suffix))
    return [file for file in files if PurePath(file.removesuffix(suffix)).suffix.lower() in EXTENSIONS]


def others_in(raw: Path) -> list[str]:
    """The same of all other files but labels, and but demo data's marker."""
    files = (file for file in _files_in(raw) if not file.startswith(f"{KEYPOINTS}/") and file != MARKER)
    return [file for file in files if PurePath(file).suffix.lower() not in EXTENSIONS]


def pictures_in(raw: Path) -> list[str]:
    """The same of pictures: photos among clips."""
    return [file for file in others_in(raw) if PurePath(file).suffix.lower() in PICTURES]


def of_images(raw: Path) -> str:
    """What to do with a folder of images without clips; "" where there are none."""
    n = len(pictures_in(raw)) if raw.is_dir() else 0
    return f" ({n:,} images; make a clip of numbered ones: ffmpeg -i %06d.jpg clip.mp4)" if n else ""


def _files_in(raw: Path) -> list[str]:
    files: list[str] = []
    for folder, folders, names in os.walk(raw, followlinks=True):
        here = os.path.realpath(folder)
        kept = (name for name in folders if not name.startswith("."))
        folders[:] = sorted(name for name in kept if not here.startswith(_real(folder, name)))
        files += [(Path(folder) / name).relative_to(raw).as_posix() for name in names if not name.startswith(".")]
    return sorted(files)


def _real(folder: str, name: str) -> str:
    return os.path.realpath(os.path.join(folder, name))  # noqa: PTH118 - as os.walk gives them


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What is in a folder except hidden things (of a Mac: ._<clip>.mp4), by name; nothing when it is not there."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as found:
        return sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)


class ClipLabels:
    """Labels of `clips` below a folder `keypoints`, whose folders are listed once each."""

    def __init__(self, raw: Path, clips: Sequence[str] = ()) -> None:
        self._raw = raw
        self._called: dict[str, list[str]] = {}  # path, with or without its suffix -> clips
        for clip in clips:
            for called in (clip, _stem(clip)):
                self._called.setdefault(called, []).append(clip)
        self._listed: dict[str, Mapping[str, bool]] = {}

    def below(self, folder: str) -> Mapping[str, bool]:
        """Names in `keypoints/<folder>`, and whether each is a folder."""
        if folder not in self._listed:
            entries_here = entries(self._raw / KEYPOINTS / folder)
            self._listed[folder] = {entry.name: is_folder(entry) for entry in entries_here}
        return self._listed[folder]

    def video(self, clip: str) -> RawVideo:
        """A clip, called by its path, with its labels; between them the clips whose labels these may be, too."""
        folder, _, name = clip.rpartition("/")
        files, folders = self.of(name, folder)
        stems = (_stem(name), *(_stem(name) + suffix for suffix in (*SUFFIXES, *UNREAD)))
        by_stem = any(path.name in stems for path in (*files, *folders))
        others = (Path(other) for other in self._called.get(_stem(clip), ()) if other != clip) if by_stem else ()
        return RawVideo(clip, files=(Path(clip), *others, *files), label_folders=folders)

    def of(self, clip: str, folder: str) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
        """A clip's labels in `keypoints/<folder>`, a file or a folder; both empty where it has none.

        A file of a kind that is not read, where there is no other: reading it says so.
        """
        if not (names := self.below(folder)):
            return (), ()
        for suffixes in (SUFFIXES, UNREAD):
            for called in (clip, _stem(clip)):
                if file := next((called + suffix for suffix in suffixes if names.get(called + suffix) is False), None):
                    return (Path(KEYPOINTS, folder, file),), ()
                if names.get(called):
                    return (), (Path(KEYPOINTS, folder, called),)
        return (), ()


def _stem(clip: str) -> str:
    return clip.rpartition(".")[0]


def labels_of(raw: Path, video: RawVideo) -> Path | None:
    """The file or folder of a video's labels; None where it has none."""
    files = (file for file in video.files if file.parts[0] == KEYPOINTS)
    return next((raw / path for path in (*files, *video.label_folders)), None)


def require_own_labels(video: RawVideo, labels: Path) -> None:
    """Raise RawDataError for a clip of `ClipLabels.video` whose labels may as well be another clip's."""
    clips = [file for file in video.files if file.parts[0] != KEYPOINTS]
    if len(clips) > 1:
        own = PurePath(KEYPOINTS, video.name)
        raise RawDataError(
            labels,
            "name",
            expected="labels of one clip",
            found=f"{', '.join(sorted(map(str, clips)))}, which share this name",
            do=f"Name each clip's labels by its whole file name: {own}.json (.txt, .csv), or the folder {own}/.",
        )

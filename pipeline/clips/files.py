"""Clips in a folder, their label files, and the clips that need detection.  [pixels] -> raw
keypoints -> tracks

Labels of `<folders>/<clip>.mp4`, in any format of `pipeline.files.formats.people.detections`:

    keypoints/<folders>/<clip>.mp4.json     `python -m pipeline detect`; also .txt and .csv
    keypoints/<folders>/detected.zip        those of many clips of a folder, each as <clip>.mp4.json
    keypoints/<folders>/<clip>.mp4/         a file for each frame
    keypoints/<folders>/<clip>.json         also .txt and .csv; unless another clip there has the
                                            name <clip>
    keypoints/<folders>/<clip>/

A file of `detect` is in COCO's JSON format:

    {"info": {...},                 on a line of its own: a fingerprint, the detector, the clip, its
                                    cuts, frame counts
     "images": [{"id", "frame_index", "file_name", "width", "height"}, ...],
                                    every decoded frame, from 0; where the camera moves, "camera": 8
                                    numbers of the `pipeline.homography` from the frame before
     "annotations": [{"id", "image_id", "category_id", "bbox" x y w h px,
                      "keypoints" 17 x (x, y, v), "num_keypoints", "score",
                      "keypoint_scores" 17 x 0..1, "area", "iscrowd"}, ...],
     "categories": [...]}           COCO's person

v is 2 for a joint of confidence 0.3 or more, else 1. pycocotools reads these files, and here
`pipeline.files.formats.people.detections`. `.detect/<fingerprint>` has the reason why a clip has no
file.
In a PACK, a file's comment is its fingerprint; a file beside it counts more.
"""

from __future__ import annotations

import errno
import functools
import itertools
import json
import os
import re
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.cli.text import FEW, count
from pipeline.clips.file_names import NAMES_OF_ALL, PACKED, plain
from pipeline.errors import FOLDER, RawDataError
from pipeline.files.formats.arrays import state_of
from pipeline.files.formats.people.detections import ALPHAPOSE, SUFFIXES, UNREAD
from pipeline.files.pixels.frames import Video
from pipeline.files.raw import RawVideo, VideoTexts
from pipeline.files.raw.files import (
    PACK,
    VIDEOS,
    is_folder,
    is_packed,
    open_regular,
    packed_entry,
    packed_names,
)

MADE_BY: Final = "python -m pipeline detect"
# the folder beside clips in which the dataset `videos` looks for them
KEYPOINTS: Final = "keypoints"
RECORDS: Final = ".detect"  # the lock, and why clips have no file
LONGEST_NAME: Final = 255  # bytes, of Linux's file systems
VERSION: Final = 2  # raised by hand whenever the same clip and detector would give another file
END: Final = b"}]}\n"  # only a complete file ends like this
EXTENSIONS: Final = VIDEOS
ENDINGS: Final = ", ".join(EXTENSIONS)
# listed for a PACK that cannot be read: reading the keypoints of a clip tells
_DAMAGED: Final = f"{PACK}/"
KINDS: Final = f"files that end in {ENDINGS}"
_OF_ALL: Final = "*"  # no clip's plain name
# not named as skipped
BESIDE_CLIPS: Final = (".json", ".txt", ".md", ".csv", ".xml", ".yaml", ".yml", ".cfg", ".log")
PICTURES: Final = (".jpg", ".jpeg", ".png", ".heic", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def list_clips(raw: Path, suffix: str = "") -> list[str]:
    """Sorted paths of video files anywhere below `raw`, without hidden ones; empty without such a
    folder.

    suffix: what follows their names; ".json" lists the files of `detect`. Links to folders are
    followed, without cycles.
    """
    files = (file for file in list_files(raw) if file.endswith(suffix))
    return [
        file for file in files if PurePath(file.removesuffix(suffix)).suffix.lower() in EXTENSIONS
    ]


def list_images(raw: Path) -> list[str]:
    """Image files among the clips, but for those in `keypoints`."""
    files = (file for file in list_files(raw) if not file.startswith(f"{KEYPOINTS}/"))
    return [file for file in files if PurePath(file).suffix.lower() in PICTURES]


def describe_others(raw: Path) -> str:
    """ "skipped 2 files of other kinds: a.heic, b.jpg"; "" if there are only clips, labels, tables
    and texts.
    """
    others = []
    for file in list_files(raw):
        is_known = PurePath(file).suffix.lower() in (*EXTENSIONS, *BESIDE_CLIPS)
        if not is_known and not file.startswith(f"{KEYPOINTS}/") and PurePath(file).name != PACK:
            others.append(file)
    if not others:
        return ""
    names = ", ".join(others[:FEW]) + (", ..." if len(others) > FEW else "")
    return f"skipped {count(len(others), 'file')} of other kinds: {names}"


def images_hint(raw: Path) -> str:
    """Advice for a folder of images or of a packed file without clips; "" for another one."""
    packed = [file for file in list_files(raw) if file.casefold().endswith(PACKED)]
    if packed:
        return f" ({packed[0]}: unpack it)"
    images = list_images(raw)
    numbered = "clip.gif" if images and images[0].casefold().endswith(".gif") else "%06d.jpg"
    return (
        f" ({len(images):,} images; make a clip of them: ffmpeg -i {numbered} clip.mp4)"
        if images
        else ""
    )


def list_files(raw: Path) -> list[str]:
    """Sorted paths of all files below `raw`, without hidden ones."""
    files: list[str] = []
    for folder, folders, names in os.walk(raw, followlinks=True):
        resolved = Path(folder).resolve()
        shown = (name for name in folders if not name.startswith("."))
        folders[:] = sorted(
            name
            for name in shown
            if not resolved.is_relative_to(os.path.realpath(f"{folder}/{name}"))
        )
        files += [
            (Path(folder) / name).relative_to(raw).as_posix()
            for name in names
            if not name.startswith(".")
        ]
    return sorted(files)


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder, unsorted, without hidden ones (a Mac's ._<clip>.mp4); empty for a
    missing folder.
    """
    if not folder.is_dir():
        return []
    with os.scandir(folder) as found:
        return [entry for entry in found if not entry.name.startswith(".")]


class ClipLabels:
    """Labels of `clips` in the folder `keypoints`; each of its folders is listed once.

    Raises RawDataError if there is none, but one of a similar name.
    """

    def __init__(self, raw: Path, clips: Sequence[str] = (), stems: Container[str] = ()) -> None:
        """stems: of clips whose labels may lie in other folders."""
        self._raw = raw
        self._stems = stems
        _require_folder_name(raw)
        self._called: dict[str, list[str]] = {}  # path, with or without its suffix -> clips
        for clip in clips:
            for called in (clip, _stem(clip)):
                self._called.setdefault(called, []).append(clip)
        self._listed: dict[str, tuple[set[str], set[str]]] = {}
        self._similar: dict[str, dict[str, str]] = {}  # folder -> `plain` name -> name

    def below(self, folder: str) -> tuple[set[str], set[str]]:
        """Names of the files and of the folders in `keypoints/<folder>`."""
        if (listed := self._listed.get(folder)) is None:
            folders, files = listed = set(), set()
            for entry in entries(self._raw / KEYPOINTS / folder):
                (folders if is_folder(entry) else files).add(entry.name)
            if PACK in files:
                try:
                    files.update(
                        f"{PACK}/{name}"
                        for name in packed_names(self._raw / KEYPOINTS / folder / PACK)
                    )
                except OSError:
                    files.add(_DAMAGED)
            self._listed[folder] = listed = (files, folders)
        return listed

    def video(self, clip: str) -> VideoTexts:
        """A clip with its labels, and other clips that the labels may belong to."""
        folder, _, name = clip.rpartition("/")
        files, folders = self.find(name, folder)
        if not files and not folders:
            files, folders = self.find_similar(name, folder)
        stems = (_stem(name), *(_stem(name) + suffix for suffix in (*SUFFIXES, *UNREAD)))
        by_stem = any(path.rpartition("/")[2] in stems for path in (*files, *folders))
        others = (
            (other for other in self._called.get(_stem(clip), ()) if other != clip)
            if by_stem
            else ()
        )
        return VideoTexts(clip, files=(clip, *others, *files), label_folders=folders)

    def find(self, clip: str, folder: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """A clip's labels in `keypoints/<folder>`: one file or one folder; both empty if it has
        none.

        If there is only a file of an unsupported kind, that file: reading it raises the error.
        """
        files, folders = self.below(folder)
        if not files and not folders:
            return (), ()
        below = f"{KEYPOINTS}/{folder}/" if folder else f"{KEYPOINTS}/"
        packed = f"{PACK}/{clip}.json"
        if f"{clip}.json" not in files and (packed in files or _DAMAGED in files):
            return (below + packed,), ()
        for suffixes in (SUFFIXES, UNREAD):
            for called in (clip, _stem(clip)):
                for suffix in suffixes if files else ():
                    if called + suffix in files:
                        return (f"{below}{called}{suffix}",), ()
                if called in folders:
                    return (), (below + called,)
        return (), ()

    def find_similar(self, clip: str, folder: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """As `find`: labels that seem to be the clip's, but have another name or lie in another
        folder.

        `file_names.require_own_name` raises the error.
        """
        for place in dict.fromkeys((folder, "")):
            similar = self._list_similar(place)
            name = similar.get(plain(_stem(clip))) if similar else None
            if name is None and place == folder:
                name = similar.get(_OF_ALL)
            path = PurePath(KEYPOINTS, place, name or "").as_posix()
            if name is None or read_info(self._raw / path).get("description") == MADE_BY:
                continue  # `detect` renames its own files
            if (self._raw / path).is_dir():
                return (), (path,)
            return (path,), ()
        return (), ()

    def _list_similar(self, folder: str) -> dict[str, str]:
        """Labels that are of no clip, also those a folder deeper, by plain name; _OF_ALL: a file as
        of all clips.
        """
        if folder in self._similar:
            return self._similar[folder]
        found = self._similar[folder] = {}
        files, folders = self.below(folder)
        for name in sorted(files | folders):
            if name.startswith(PACK) or self._is_of_a_clip(folder, name):
                continue
            key = plain(name)
            if key in NAMES_OF_ALL or name == ALPHAPOSE:
                key = _OF_ALL
            found[key] = name
            if name in folders:
                for inner in sorted(
                    entry.name for entry in entries(self._raw / KEYPOINTS / folder / name)
                ):
                    found.setdefault(plain(inner), f"{name}/{inner}")
        return found

    def _is_of_a_clip(self, folder: str, name: str) -> bool:
        """Whether `find` takes a name in `keypoints/<folder>` for a clip's labels, or it is a
        folder of clips.
        """
        path = f"{folder}/{name}" if folder else name
        if name in self._stems or _stem(name) in self._stems or _stem(_stem(name)) in self._stems:
            return True
        if name in self.below(folder)[1]:
            return path in self._called or (self._raw / path).is_dir()
        return _stem(path) in self._called and name.endswith((*SUFFIXES, *UNREAD))


def _require_folder_name(raw: Path) -> None:
    """Raise RawDataError for `Keypoints`, `keypoint` or `keypoints.zip` without a folder
    `keypoints`.
    """
    if (raw / KEYPOINTS).is_dir():
        return
    for entry in entries(raw):
        if (
            plain(entry.name) not in (KEYPOINTS, "keypoint")
            or PurePath(entry.name).suffix.lower() in VIDEOS
        ):
            continue
        found = "a file"
        do = f"Write a file for each clip, named as the clip, into {KEYPOINTS}/."
        if is_folder(entry):
            found = "another name"
            do = f"Rename it to {KEYPOINTS}."
        elif entry.name.casefold().endswith(PACKED):
            found = "a packed file"
            do = f"Unpack it into {KEYPOINTS}/."
        raise RawDataError(
            raw / entry.name, FOLDER, f"keypoint files in a folder {KEYPOINTS}/", found, do
        )


def _stem(clip: str) -> str:
    return clip.rpartition(".")[0]


def labels_of(raw: Path, video: RawVideo) -> Path | None:
    """The file or folder of a video's labels, or None."""
    files = (file for file in video.files if file.parts[0] == KEYPOINTS)
    return next((raw / path for path in (*files, *video.label_folders)), None)


def require_own_labels(video: RawVideo, labels: Path) -> None:
    """Raise RawDataError if the labels of a clip (`ClipLabels.video`) may belong to another
    clip.
    """
    clips = [file for file in video.files if file.parts[0] != KEYPOINTS]
    if len(clips) > 1:
        own = PurePath(KEYPOINTS, video.name)
        actual = f"{', '.join(sorted(map(str, clips)))}, which share this name"
        do = (
            f"Name each clip's labels by its whole file name: {own}.json (.txt, .csv), or the "
            f"folder {own}/."
        )
        raise RawDataError(labels, "name", "labels of one clip", actual, do)


@dataclass(frozen=True, slots=True)
class ClipFiles:
    """The file of one clip."""

    out: Path
    clip: str  # path below the raw folder
    fingerprint: str

    @property
    def file(self) -> Path:
        """The file to write."""
        return self.out / f"{self.clip}.json"

    @property
    def failed(self) -> Path:
        """File with the reason why an earlier run, with the same fingerprint, gave the clip up."""
        return self.out / RECORDS / self.fingerprint

    def done(self) -> bool:
        """Whether the file is complete and has this fingerprint.

        Raises RawDataError for a file that `detect` did not write: it is never replaced.
        """
        if len(os.fsencode(self.file.name)) > LONGEST_NAME:
            raise OSError(
                errno.ENAMETOOLONG, "File name too long. Rename the clip.", str(self.file)
            )
        if (file := detected_file(self.out, self.clip)) is None:
            return False
        if file != self.file:
            return packed_entry(file).comment == self.fingerprint.encode()
        info = read_info(self.file)
        if info.get("description") != MADE_BY:
            actual = "another one, which is left as it is"
            do = "Move it, or name another folder."
            raise RawDataError(
                self.file, "description", f"a file that `{MADE_BY}` has written", actual, do
            )
        return info.get("fingerprint") == self.fingerprint and is_whole(self.file)


def is_whole(file: Path) -> bool:
    """Whether the file of `detect` is complete. Raises OSError."""
    with file.open("rb") as stream:
        stream.seek(max(file.stat().st_size - len(END), 0))
        return stream.read() == END


def detected_file(out: Path, clip: str) -> Path | None:
    """The file of `detect` for a clip, by itself or else in its folder's PACK."""
    file = out / f"{clip}.json"
    packed = file.with_name(PACK) / file.name
    return file if file.exists() else packed if is_packed(packed) else None


def read_info(file: Path | None) -> dict[str, Any]:
    """The first line's `info`; empty for a missing file or another format."""
    if file is None:
        return {}
    try:
        with open_regular(file) as stream:
            line = stream.readline(1 << 20).rstrip()
        info = json.loads(line.removesuffix(b",") + b"}")["info"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return info if isinstance(info, dict) else {}


def moved_frames(clip: Video) -> NDArray[np.int64] | None:
    """Frames, ascending, before which the camera moved, by the clip's file of `detect`; None
    without one.
    """
    if (file := detected_file(clip.root / KEYPOINTS, clip.path)) is None:
        return None
    return _read_moved_frames(file, state_of(file.parent if file.parent.name == PACK else file))


@functools.lru_cache(maxsize=1)  # tracks of one clip follow each other
def _read_moved_frames(file: Path, _state: tuple[int, int]) -> NDArray[np.int64] | None:
    if read_info(file).get("description") != MADE_BY:
        return None
    with open_regular(file) as stream:  # a line for each image; people follow
        images = itertools.takewhile(lambda line: not line.startswith(b"],"), stream)
        moved = [
            re.search(rb'"frame_index": (\d+)', line) for line in images if b'"camera": ' in line
        ]
    return np.array([int(match[1]) for match in moved if match], np.int64)

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
import json
import os
import re
from collections import defaultdict
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
from pipeline.files.raw.files import VIDEOS, is_folder_entry, open_regular
from pipeline.files.raw.pack import PACK, is_packed, packed_entry, packed_names

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


# (files, folders) with a clip's labels: one or none in all
_Labels = tuple[tuple[str, ...], tuple[str, ...]]


def list_clips(raw: Path, suffix: str = "") -> list[str]:
    """Sorted paths of video files anywhere below `raw`, without hidden ones; empty without such a
    folder.

    suffix: what follows their names; ".json" lists the files of `detect`. Links to folders are
    followed, without cycles.
    """
    clips = []
    for file in list_files(raw):
        if file.endswith(suffix) and _kind(file.removesuffix(suffix)) in EXTENSIONS:
            clips.append(file)
    return clips


def describe_others(raw: Path) -> str:
    """ "skipped 2 files of other kinds: a.heic, b.jpg"; "" if there are only clips, labels, tables
    and texts.
    """
    others = []
    for file in _files_beside_keypoints(raw):
        is_usual = _kind(file) in (*EXTENSIONS, *BESIDE_CLIPS)
        if not is_usual and PurePath(file).name != PACK:
            others.append(file)
    if not others:
        return ""
    names = others[:FEW]
    if len(others) > FEW:
        names.append("...")
    return f"skipped {count(len(others), 'file')} of other kinds: {', '.join(names)}"


def images_hint(raw: Path) -> str:
    """Advice for a folder of images or of a packed file without clips; "" for another one."""
    for file in list_files(raw):
        if file.casefold().endswith(PACKED):
            return f" ({file}: unpack it)"
    images = [file for file in _files_beside_keypoints(raw) if _kind(file) in PICTURES]
    if not images:
        return ""
    source = "%06d.jpg"
    if _kind(images[0]) == ".gif":
        source = "clip.gif"
    return f" ({len(images):,} images; make a clip of them: ffmpeg -i {source} clip.mp4)"


def _files_beside_keypoints(raw: Path) -> list[str]:
    return [file for file in list_files(raw) if not file.startswith(f"{KEYPOINTS}/")]


def _kind(file: str) -> str:
    return PurePath(file).suffix.lower()


def list_files(raw: Path) -> list[str]:
    """Sorted paths of all files below `raw`, without hidden ones."""
    files: list[str] = []
    for folder, folders, names in os.walk(raw, followlinks=True):
        resolved = Path(folder).resolve()
        shown = [name for name in folders if not name.startswith(".")]
        folders.clear()
        for name in shown:
            is_cycle = resolved.is_relative_to(os.path.realpath(f"{folder}/{name}"))
            if not is_cycle:
                folders.append(name)
        below = PurePath(folder).relative_to(raw)
        files += [(below / name).as_posix() for name in names if not name.startswith(".")]
    return sorted(files)


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder, unsorted, without hidden ones (a Mac's ._<clip>.mp4); empty for a
    missing folder.
    """
    if not folder.is_dir():
        return []
    with os.scandir(folder) as scanned:
        return [entry for entry in scanned if not entry.name.startswith(".")]


class ClipLabels:
    """Labels of `clips` in the folder `keypoints`; each of its folders is listed once.

    Raises RawDataError if there is none, but one of a similar name.
    """

    def __init__(self, raw: Path, clips: Sequence[str] = (), stems: Container[str] = ()) -> None:
        """stems: of clips whose labels may lie in other folders."""
        self._raw = raw
        self._stems = stems
        _require_folder_name(raw)
        # path, with or without its suffix -> clips
        self._called: dict[str, list[str]] = defaultdict(list)
        for clip in clips:
            self._called[clip].append(clip)
            self._called[_stem(clip)].append(clip)
        self._listed: dict[str, tuple[set[str], set[str]]] = {}
        self._similar: dict[str, dict[str, str]] = {}  # folder -> `plain` name -> name

    def below(self, folder: str) -> tuple[set[str], set[str]]:
        """Names of the files and of the folders in `keypoints/<folder>`."""
        if folder not in self._listed:
            self._listed[folder] = self._list(self._raw / KEYPOINTS / folder)
        return self._listed[folder]

    def _list(self, folder: Path) -> tuple[set[str], set[str]]:
        files = set[str]()
        folders = set[str]()
        for entry in entries(folder):
            if is_folder_entry(entry):
                folders.add(entry.name)
            else:
                files.add(entry.name)
        if PACK in files:
            try:
                files.update(f"{PACK}/{name}" for name in packed_names(folder / PACK))
            except OSError:
                files.add(_DAMAGED)
        return files, folders

    def video(self, clip: str) -> VideoTexts:
        """A clip with its labels, and other clips that the labels may belong to."""
        folder, _, name = clip.rpartition("/")
        files, folders = self.find(name, folder)
        if not files and not folders:
            files, folders = self.find_similar(name, folder)
        stem = _stem(name)
        by_stem = {stem + suffix for suffix in ("", *SUFFIXES, *UNREAD)}
        others: list[str] = []
        for path in (*files, *folders):
            if path.rpartition("/")[2] in by_stem:
                others += [other for other in self._called.get(_stem(clip), ()) if other != clip]
        return VideoTexts(clip, files=(clip, *others, *files), label_folders=folders)

    def find(self, clip: str, folder: str) -> _Labels:
        """A clip's labels in `keypoints/<folder>`: one file or one folder; both empty if it has
        none.

        If there is only a file of an unsupported kind, that file: reading it raises the error.
        """
        files, folders = self.below(folder)
        if not files and not folders:
            return (), ()
        # text: a million paths as objects take seconds
        below = f"{KEYPOINTS}/{folder}" if folder else KEYPOINTS
        packed = f"{PACK}/{clip}.json"
        is_in_pack = packed in files or _DAMAGED in files
        if is_in_pack and f"{clip}.json" not in files:
            return (f"{below}/{packed}",), ()
        for suffixes in (SUFFIXES, UNREAD):
            for name in (clip, _stem(clip)):
                for suffix in suffixes:
                    if name + suffix in files:
                        return (f"{below}/{name}{suffix}",), ()
                if name in folders:
                    return (), (f"{below}/{name}",)
        return (), ()

    def find_similar(self, clip: str, folder: str) -> _Labels:
        """As `find`: labels that seem to be the clip's, but have another name or lie in another
        folder.

        `file_names.require_own_name` raises the error.
        """
        for parent in dict.fromkeys((folder, "")):
            similar = self._list_similar(parent)
            if not similar:
                continue
            name = similar.get(plain(_stem(clip)))
            if name is None and parent == folder:
                name = similar.get(_OF_ALL)
            if name is None:
                continue
            labels = str(PurePath(KEYPOINTS, parent, name))
            path = self._raw / labels
            if read_info(path).get("description") == MADE_BY:
                continue  # `detect` renames its own files
            if path.is_dir():
                return (), (labels,)
            return (labels,), ()
        return (), ()

    def _list_similar(self, folder: str) -> dict[str, str]:
        """Labels that are of no clip, also those a folder deeper, by plain name; _OF_ALL: a file as
        of all clips.
        """
        if folder in self._similar:
            return self._similar[folder]
        similar: dict[str, str] = {}
        self._similar[folder] = similar
        files, folders = self.below(folder)
        for name in sorted(files | folders):
            if name.startswith(PACK) or self._is_of_a_clip(folder, name):
                continue
            key = plain(name)
            if key in NAMES_OF_ALL or name == ALPHAPOSE:
                key = _OF_ALL
            similar[key] = name
            if name in folders:
                deeper = entries(self._raw / KEYPOINTS / folder / name)
                for inner in sorted(entry.name for entry in deeper):
                    similar.setdefault(plain(inner), f"{name}/{inner}")
        return similar

    def _is_of_a_clip(self, folder: str, name: str) -> bool:
        """Whether `find` takes a name in `keypoints/<folder>` for a clip's labels, or it is a
        folder of clips.
        """
        stem = _stem(name)
        if any(of_clip in self._stems for of_clip in (name, stem, _stem(stem))):
            return True
        path = f"{folder}/{name}".removeprefix("/")
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
        is_similar = plain(entry.name) in (KEYPOINTS, "keypoint")
        if not is_similar or _kind(entry.name) in EXTENSIONS:
            continue
        actual = "a file"
        do = f"Write a file for each clip, named as the clip, into {KEYPOINTS}/."
        if is_folder_entry(entry):
            actual = "another name"
            do = f"Rename it to {KEYPOINTS}."
        elif entry.name.casefold().endswith(PACKED):
            actual = "a packed file"
            do = f"Unpack it into {KEYPOINTS}/."
        expected = f"keypoint files in a folder {KEYPOINTS}/"
        raise RawDataError(raw / entry.name, FOLDER, expected, actual, do)


def _stem(clip: str) -> str:
    return clip.rpartition(".")[0]


def labels_of(raw: Path, video: RawVideo) -> Path | None:
    """The file or folder of a video's labels, or None."""
    for file in video.files:
        if file.parts[0] == KEYPOINTS:
            return raw / file
    for folder in video.label_folders:
        return raw / folder
    return None


def require_own_labels(video: RawVideo, labels: Path) -> None:
    """Raise RawDataError if the labels of a clip (`ClipLabels.video`) may belong to another
    clip.
    """
    clips = [str(file) for file in video.files if file.parts[0] != KEYPOINTS]
    if len(clips) > 1:
        own = PurePath(KEYPOINTS, video.name)
        actual = f"{', '.join(sorted(clips))}, which share this name"
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

    def is_up_to_date(self) -> bool:
        """Whether the file is complete and has this fingerprint.

        Raises RawDataError for a file that `detect` did not write: it is never replaced.
        """
        if len(os.fsencode(self.file.name)) > LONGEST_NAME:
            problem = "File name too long. Rename the clip."
            raise OSError(errno.ENAMETOOLONG, problem, str(self.file))
        file = detected_file(self.out, self.clip)
        if file is None:
            return False
        if file != self.file:
            return packed_entry(file).comment == self.fingerprint.encode()
        info = read_info(file)
        if info.get("description") != MADE_BY:
            expected = f"a file that `{MADE_BY}` has written"
            actual = "another one, which is left as it is"
            do = "Move it, or name another folder."
            raise RawDataError(file, "description", expected, actual, do)
        return info.get("fingerprint") == self.fingerprint and is_whole(file)


def is_whole(file: Path) -> bool:
    """Whether the file of `detect` is complete. Raises OSError."""
    with file.open("rb") as stream:
        stream.seek(max(file.stat().st_size - len(END), 0))
        return stream.read() == END


def detected_file(out: Path, clip: str) -> Path | None:
    """The file of `detect` for a clip, by itself or else in its folder's PACK."""
    file = out / f"{clip}.json"
    if file.exists():
        return file
    packed = file.with_name(PACK) / file.name
    if is_packed(packed):
        return packed
    return None


def read_info(file: Path | None) -> dict[str, Any]:
    """The first line's `info`; empty for a missing file or another format."""
    if file is None:
        return {}
    try:
        with open_regular(file) as stream:
            line = stream.readline(1 << 20).rstrip()
        info = json.loads(line.removesuffix(b",") + b"}")["info"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    if not isinstance(info, dict):
        return {}
    return info


def moved_frames(clip: Video) -> NDArray[np.int64] | None:
    """Frames, ascending, before which the camera moved, by the clip's file of `detect`; None
    without one.
    """
    file = detected_file(clip.root / KEYPOINTS, clip.path)
    if file is None:
        return None
    on_disk = file
    if file.parent.name == PACK:
        on_disk = file.parent
    return _read_moved_frames(file, state_of(on_disk))


@functools.lru_cache(maxsize=1)  # tracks of one clip follow each other
def _read_moved_frames(file: Path, _state: tuple[int, int]) -> NDArray[np.int64] | None:
    if read_info(file).get("description") != MADE_BY:
        return None
    frames: list[int] = []
    with open_regular(file) as stream:
        for line in stream:  # one for each image; people follow
            if line.startswith(b"],"):
                break
            if b'"camera": ' in line:
                frames += map(int, re.findall(rb'"frame_index": (\d+)', line))
    return np.array(frames, np.int64)

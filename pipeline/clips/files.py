"""Clips in a folder, their label files, and the clips that need detection.  [pixels] -> raw
keypoints -> tracks

Labels of `<folders>/<clip>.mp4`, in any format of `pipeline.files.formats.people.detections`:

    keypoints/<folders>/<clip>.mp4.json     as `python -m pipeline detect` writes; also .txt, .csv
    keypoints/<folders>/detected.zip        the PACK: files of many clips, each as <clip>.mp4.json
    keypoints/<folders>/<clip>.mp4/         a folder with a file for each frame
    keypoints/<folders>/<clip>.json         also .txt and .csv; refused if another clip there has
                                            the name <clip>
    keypoints/<folders>/<clip>/             a folder; refused in the same case

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

v is 2 for a joint of confidence 0.3 or more, 1 for one of less, 0 for an unknown one. pycocotools
and `pipeline.files.formats.people.detections` read these files. If a clip gets no file, the file
`.detect/<fingerprint>` has the reason. In a PACK, the comment of a file is its fingerprint. A file
beside the PACK is preferred to a packed one.
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
RECORDS: Final = ".detect"  # folder of the lock, and of the reasons why clips have no file
LONGEST_NAME: Final = 255  # bytes, of Linux's file systems
VERSION: Final = 2  # raised by hand whenever the same clip and detector would give another file
END: Final = b"}]}\n"  # only a complete file ends like this
EXTENSIONS: Final = VIDEOS
ENDINGS: Final = ", ".join(EXTENSIONS)
# Listed instead of the content of a PACK that cannot be read: it may have labels of every clip in
# its folder, and reading them raises the error.
_DAMAGED: Final = f"{PACK}/"
KINDS: Final = f"files that end in {ENDINGS}"
# key of a file with the people of all clips, in `_list_similar`; `plain` returns it for no name
_OF_ALL: Final = "*"
# usual files beside clips, which `describe_others` does not mention
BESIDE_CLIPS: Final = (".json", ".txt", ".md", ".csv", ".xml", ".yaml", ".yml", ".cfg", ".log")
PICTURES: Final = (".jpg", ".jpeg", ".png", ".heic", ".webp", ".gif", ".bmp", ".tif", ".tiff")


# (files, folders) with a clip's labels: one file, one folder, or both empty
_Labels = tuple[tuple[str, ...], tuple[str, ...]]


def list_clips(raw: Path, suffix: str = "") -> list[str]:
    """List video files anywhere below `raw`, sorted, except hidden ones; [] without such a folder.

    suffix: ending that follows the name of a video file; ".json" lists the files of `detect`.
    """
    clips = []
    for file in list_files(raw):
        if file.endswith(suffix) and _kind(file.removesuffix(suffix)) in EXTENSIONS:
            clips.append(file)
    return clips


def describe_others(raw: Path) -> str:
    """Say which files below `raw` are skipped: "skipped 2 files of other kinds: a.heic, b.jpg".

    "" if there are only clips, labels, tables and texts.
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
    """Advice for a folder without clips but with an archive or images; "" for another folder."""
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
    """List all files below `raw`, sorted, except hidden ones. Follows links to folders."""
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
    """List the entries of a folder, unsorted, except hidden ones; [] for a missing folder.

    Hidden entries include a Mac's ._<clip>.mp4.
    """
    if not folder.is_dir():
        return []
    with os.scandir(folder) as scanned:
        return [entry for entry in scanned if not entry.name.startswith(".")]


class ClipLabels:
    """Finds the labels of clips in the folder `keypoints`. Lists each of its folders once.

    Args:
        clips: Paths of all clips below `raw`.
        stems: File names without ending of clips whose labels may lie in other folders.

    Raises RawDataError if there is no folder `keypoints`, but a file or folder of a similar name.
    """

    def __init__(self, raw: Path, clips: Sequence[str] = (), stems: Container[str] = ()) -> None:
        self._raw = raw
        self._stems = stems
        _require_folder_name(raw)
        # path with or without its suffix -> clips of this path
        self._called: dict[str, list[str]] = defaultdict(list)
        for clip in clips:
            self._called[clip].append(clip)
            self._called[_stem(clip)].append(clip)
        self._listed: dict[str, tuple[set[str], set[str]]] = {}
        self._similar: dict[str, dict[str, str]] = {}  # folder -> `plain` name -> name

    def below(self, folder: str) -> tuple[set[str], set[str]]:
        """Names of the files, packed ones included, and of the folders in `keypoints/<folder>`."""
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
        """A clip with its labels, and with other clips to which the labels may belong.

        `require_own_labels` refuses labels that may belong to several clips.
        """
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
        """Find a clip's labels in `keypoints/<folder>`: one file or one folder, or neither.

        If there is only a file of an unsupported kind, returns that file; reading it raises the
        error.
        """
        files, folders = self.below(folder)
        if not files and not folders:
            return (), ()
        # as text: to make a million Path objects takes seconds
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
        """Find labels that seem to be the clip's, but have another name or lie in another folder.

        Returns what `find` returns. Such labels are not used: `file_names.require_own_name` raises
        the error.
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
        """Plain name -> path in `keypoints/<folder>` of labels that match no clip.

        Includes labels one folder deeper. The key _OF_ALL has a file whose name says that it has
        the people of all clips.
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
        """Whether a name in `keypoints/<folder>` matches a clip, or a folder of clips."""
        stem = _stem(name)
        if any(of_clip in self._stems for of_clip in (name, stem, _stem(stem))):
            return True
        path = f"{folder}/{name}".removeprefix("/")
        if name in self.below(folder)[1]:
            return path in self._called or (self._raw / path).is_dir()
        return _stem(path) in self._called and name.endswith((*SUFFIXES, *UNREAD))


def _require_folder_name(raw: Path) -> None:
    """Raise RawDataError if `keypoints` is missing but a similar name is there.

    Similar names are `Keypoints`, `keypoint` and `keypoints.zip`.
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
    """The keypoint file that `detect` writes for one clip into the folder `out`.

    The fingerprint depends on the clip's pixels, the detector and its options.
    """

    out: Path
    clip: str  # path below the raw folder
    fingerprint: str

    @property
    def file(self) -> Path:
        """The file to write."""
        return self.out / f"{self.clip}.json"

    @property
    def failed(self) -> Path:
        """File with the reason why an earlier run with the same fingerprint gave the clip up."""
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
    """Path of the file of `detect` for a clip, beside or in its folder's PACK; None without."""
    file = out / f"{clip}.json"
    if file.exists():
        return file
    packed = file.with_name(PACK) / file.name
    if is_packed(packed):
        return packed
    return None


def read_info(file: Path | None) -> dict[str, Any]:
    """Read the `info` in a keypoint file's first line; {} for a missing file or another format."""
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
    """Numbers of frames, ascending, in which the camera moved since the frame before.

    Read from the clip's file of `detect`; None without such a file.
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

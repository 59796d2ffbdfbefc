"""Find the label file or folder of each clip.  [pixels] -> raw keypoints -> tracks

`ClipLabels` finds the labels of a clip `<folders>/<clip>.mp4` below a raw folder. The first of
these names that exists is used, whichever tool wrote it:

    keypoints/<folders>/<clip>.mp4.json     as `python -m pipeline detect` writes
    keypoints/<folders>/<clip>.mp4.txt      then .csv, then .trc
    keypoints/<folders>/<clip>.mp4/         a folder with a file for each frame, or one for all
    keypoints/<folders>/<clip>.json         then .txt, .csv, .trc
    keypoints/<folders>/<clip>/             a folder

Labels of the last two names may belong to several clips: a.json to both a.mp4 and a.avi. Then
`ClipLabels.video` lists these clips, too, in the video's `files`, and `own_labels` refuses
a video with several clips when it is read.

Without labels of these names, a file is the clip's whose name differs by what an upload to an
annotation tool adds (`is_upload_of`), if no other clip and no other file fits:

    keypoints/<folders>/<clip>_mp4.rf.0a1b2c3d.json     as Roboflow writes
    keypoints/<folders>/0a1b2c3d-<clip>.json            as Label Studio writes

Labels whose names only resemble these are probably the clip's under a wrong name. They are found by
`find_similar`, and `own_labels` refuses them. `pipeline.clips.labels.detections`
reads all formats.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Final, NamedTuple

from pipeline.clips.files import KEYPOINTS, read_detection
from pipeline.clips.listing import visible_entries
from pipeline.errors import FOLDER, RawDataError
from pipeline.files.raw import RawVideo, VideoTexts
from pipeline.files.raw.files import VIDEOS, is_folder_entry

ALPHAPOSE: Final = "alphapose-results.json"
SUFFIXES: Final = (".json", ".txt", ".csv", ".trc")
# formats that are not supported; they are only recognised for error messages
UNREAD: Final = frozenset({
    ".npz", ".npy", ".pt", ".pth", ".pkl", ".pickle", ".joblib", ".mat", ".h5", ".hdf5",
    ".parquet", ".jsonl", ".xml", ".yaml", ".yml", ".msgpack", ".bvh", ".c3d", ".xlsx", ".xls",
    ".ods", ".tsv", ".slp",
})  # fmt: skip
CLASSES: Final = "labels.txt"  # names of MOT's classes, as CVAT writes them: a line each
_PACKED: Final = (".zip", ".gz", ".bz2", ".xz", ".zst", ".tar", ".tgz", ".7z", ".rar")
_SUFFIXES: Final = (*SUFFIXES, *UNREAD, *_PACKED, *VIDEOS, ".part", ".crdownload", ".tmp", ".bak")
_ADDED: Final = re.compile(  # endings that programs and browsers add to a clip's name
    rf"({'|'.join(map(re.escape, _SUFFIXES))}|_keypoints|[ _]?\(\d+\)| - copy)+$"
)
# a name with Label Studio's prefix, which differs from a date, or with Roboflow's hash
_DATE: Final = r"(19|20)[0-9]{2}[01][0-9][0-3][0-9]|[0-3][0-9][0-3][0-9](19|20)[0-9]{2}"
_UPLOADED: Final = re.compile(
    rf"(?P<prefix>(?!{_DATE})[0-9a-f]{{8}}-)?(?P<name>.+?)"
    rf"([._]({'|'.join(ending[1:] for ending in VIDEOS)}))?(?P<hash>\.rf\.[0-9a-z]+)?"
    rf"({'|'.join(map(re.escape, SUFFIXES))})",
    re.IGNORECASE,
)
# usual names of one file with the people of all clips
_NAMES_OF_ALL: Final = (
    "all",
    "annotations",
    "detections",
    "keypoints",
    "labels",
    "output",
    "poses",
    "predictions",
    "results",
)


class _LabelPaths(NamedTuple):
    """A clip's labels: a file or a folder."""

    path: str  # below the raw folder: keypoints/train/a.mp4.json
    is_folder: bool
    # paths of other files with the clip's name before an upload, and of the list of classes
    # (CLASSES) beside a text file
    more: Sequence[str] = ()


class _FolderNames(NamedTuple):
    """Names in one folder below `keypoints`, except hidden ones."""

    files: set[str]
    folders: set[str]


class _Unmatched(NamedTuple):
    """Names in one folder below `keypoints` that match no clip, also those one folder deeper."""

    by_plain_name: dict[str, str]  # "myclip" -> "My clip (1).json" or "others/My clip (1).json"
    of_all: str | None  # a file whose name says that it has the people of all clips: "all.json"
    uploaded: Mapping[str, Sequence[str]]  # "myclip" -> ["My_clip_mp4.rf.0a1b2c3d.json"]


def _find_first(files: Collection[str], name: str, suffixes: Iterable[str]) -> str | None:
    """The first of `name` with a suffix that is one of the files; None if none is."""
    if not files:  # a folder for each clip has no files: no look for half a million names
        return None
    for suffix in suffixes:
        if name + suffix in files:
            return name + suffix
    return None


class ClipLabels:
    """Finds the labels of clips in the folder `keypoints`. Lists each of its folders once.

    Args:
        clips: Paths of all clips below `raw`.

    Raises RawDataError if there is no folder `keypoints`, but a file or folder of a similar name.
    """

    def __init__(self, raw: Path, clips: Sequence[str]) -> None:
        self._raw = raw
        self._clips = clips
        _require_folder_name(raw)
        # path with or without its suffix -> clips of this path
        self._clips_by_path: dict[str, list[str]] = defaultdict(list)
        for clip in clips:
            self._clips_by_path[clip].append(clip)
            self._clips_by_path[_stem(clip)].append(clip)
        self._names: dict[str, _FolderNames] = {}  # by folder
        self._unmatched: dict[str, _Unmatched] = {}  # by folder

    def video(self, clip: str) -> VideoTexts:
        """A clip with its labels. `files` begins with the clip, and also has other clips to which
        the labels may belong, for `own_labels`.
        """
        folder, _, name = clip.rpartition("/")
        own = self.find(name, folder)
        labels = own or self.find_similar(name, folder)
        clips = [clip]
        stem = _stem(name)
        shared_names = {stem + suffix for suffix in ("", *SUFFIXES, *UNREAD)}
        if labels is not None and labels.path.rpartition("/")[2] in shared_names:
            same_stem = self._clips_by_path.get(_stem(clip), ())
            clips += [sibling for sibling in same_stem if sibling != clip]
        elif labels not in (own, None) and is_upload_of(labels.path.rpartition("/")[2], stem):
            same_letters = self._clips_by_letters[folder, _letters(stem)]
            clips += [sibling for sibling in same_letters if sibling != clip]
        return self.make_video(clip, clips, labels)

    @functools.cached_property
    def _clips_by_letters(self) -> Mapping[tuple[str, str], Sequence[str]]:
        """(folder, letters of the name) -> clips."""
        clips = defaultdict[tuple[str, str], list[str]](list)
        for clip in self._clips:
            folder, _, name = clip.rpartition("/")
            clips[folder, _letters(_stem(name))].append(clip)
        return clips

    @staticmethod
    def make_video(name: str, clips: Sequence[str], labels: _LabelPaths | None) -> VideoTexts:
        """The video of this name, with its clips and the labels that were found for it."""
        if labels is None:
            return VideoTexts(name, tuple(clips))
        if labels.is_folder:
            return VideoTexts(name, tuple(clips), (), (labels.path,))
        return VideoTexts(name, (*clips, labels.path, *labels.more))

    def find(self, clip: str, folder: str) -> _LabelPaths | None:
        """Find the labels of the clip with this file name in `keypoints/<folder>`.

        The module docstring has the order of the names. If there is only a file of an unsupported
        kind, returns that file; reading it raises the error.
        """
        files, folders = self.list_names(folder)
        if not files and not folders:
            return None
        below = f"{KEYPOINTS}/{folder}" if folder else KEYPOINTS
        for suffixes in (SUFFIXES, UNREAD):
            for name in (clip, _stem(clip)):
                file = _find_first(files, name, suffixes)
                if file is not None:
                    return self._file(folder, file)
                if name in folders:
                    return _LabelPaths(f"{below}/{name}", is_folder=True)
        return None

    def _file(self, folder: str, name: str, *others: str) -> _LabelPaths:
        """The file `name` in `keypoints/<folder>`, and others with the clip's name before an
        upload.
        """
        below = str(PurePath(KEYPOINTS, folder))
        more = [*others]
        if CLASSES in self.list_names(folder).files and name.endswith((".txt", ".csv")):
            more.append(CLASSES)
        return _LabelPaths(
            f"{below}/{name}", is_folder=False, more=[f"{below}/{file}" for file in more]
        )

    def list_names(self, folder: str) -> _FolderNames:
        """List the names in `keypoints/<folder>`."""
        if folder not in self._names:
            names = self._names[folder] = _FolderNames(set(), set())
            for entry in visible_entries(self._raw / KEYPOINTS / folder):
                if is_folder_entry(entry):
                    names.folders.add(entry.name)
                else:
                    names.files.add(entry.name)
        return self._names[folder]

    def find_similar(self, clip: str, folder: str) -> _LabelPaths | None:
        """Find labels with the clip's name before an upload; or else labels that seem to be the
        clip's, but have another name or lie in another folder: `own_labels` refuses these.
        """
        uploaded = self._list_unmatched(folder).uploaded
        letters = _letters(_stem(clip)) if uploaded else ""
        if letters in uploaded and (folder, letters) in self._clips_by_letters:
            return self._file(folder, *uploaded[letters])
        for parent in dict.fromkeys((folder, "")):  # the clip's own folder first
            unmatched = self._list_unmatched(parent)
            name = None
            if unmatched.by_plain_name:  # else save the time of `_plain`
                name = unmatched.by_plain_name.get(_plain(_stem(clip)))
            if name is not None and self._is_detection(parent, name):
                continue
            if name is None and parent == folder:
                name = unmatched.of_all
            if name is None:
                continue
            labels = str(PurePath(KEYPOINTS, parent, name))
            return _LabelPaths(labels, (self._raw / labels).is_dir())
        return None

    def _is_detection(self, folder: str, name: str) -> bool:
        """Whether `detect` wrote a file in `keypoints/<folder>`: it renames its own files."""
        return read_detection(self._raw / KEYPOINTS / folder / name) is not None

    def _list_unmatched(self, folder: str) -> _Unmatched:
        """List the names in `keypoints/<folder>` that match no clip."""
        if folder in self._unmatched:
            return self._unmatched[folder]
        by_plain_name: dict[str, str] = {}
        uploaded = defaultdict[str, list[str]](list)
        of_all = None
        files, folders = self.list_names(folder)
        for name in sorted(files | folders):
            if name == CLASSES or self.is_of_a_clip(folder, name):
                continue
            original = _original_name(name)
            if original is not None and name in files:
                uploaded[original].append(name)
            plain_name = _plain(name)
            if plain_name in _NAMES_OF_ALL or name == ALPHAPOSE:
                if not self._is_detection(folder, name):  # asked once, not for each clip
                    of_all = name
            else:
                by_plain_name[plain_name] = name
            if name in folders:
                deeper = visible_entries(self._raw / KEYPOINTS / folder / name)
                for inner in sorted(entry.name for entry in deeper):
                    by_plain_name.setdefault(_plain(inner), f"{name}/{inner}")
        self._unmatched[folder] = _Unmatched(by_plain_name, of_all, uploaded)
        return self._unmatched[folder]

    def is_of_a_clip(self, folder: str, name: str) -> bool:
        """Whether a name in `keypoints/<folder>` matches a clip, or a folder of clips."""
        # paths of clips are known with and without their endings
        path = f"{folder}/{name}".removeprefix("/")
        if name in self.list_names(folder).folders:
            return path in self._clips_by_path or (self._raw / path).is_dir()
        return _stem(path) in self._clips_by_path and name.endswith((*SUFFIXES, *UNREAD))


def _require_folder_name(raw: Path) -> None:
    """Raise RawDataError if `keypoints` is missing but a similar name is there.

    Similar names are `Keypoints`, `keypoint` and `keypoints.zip`.
    """
    if (raw / KEYPOINTS).is_dir():
        return
    for entry in visible_entries(raw):
        is_similar = _plain(entry.name) in (KEYPOINTS, "keypoint")
        is_clip = PurePath(entry.name).suffix.lower() in VIDEOS
        if is_clip or not is_similar:
            continue
        expected = f"keypoint files in a folder {KEYPOINTS}/"
        do = f"Rename the folder, or unpack the file, to {KEYPOINTS}/: a file for each clip."
        raise RawDataError(raw / entry.name, FOLDER, expected, "another name", do)


def _stem(clip: str) -> str:
    return clip.rpartition(".")[0]


def labels_of(raw: Path, video: RawVideo) -> Path | None:
    """The file or folder of a video's labels, or None."""
    for path in video.paths:
        if path.parts[:1] == (KEYPOINTS,):  # the raw folder itself, ".", has no parts
            return raw / path
    return None


def own_labels(raw: Path, video: RawVideo, *, knows_clip: bool = False) -> Path | None:
    """The file or folder of a video's labels; None if it has none.

    Raises RawDataError if the labels may belong to another clip. knows_clip: whether the reader
    knows that all files of the video are the same clip.
    """
    labels = labels_of(raw, video)
    if labels is None:
        return None
    if not knows_clip:
        _require_one_clip(video, labels)
    _require_own_name(raw / KEYPOINTS, video, labels)
    return labels


def _require_one_clip(video: RawVideo, labels: Path) -> None:
    """Raise RawDataError if a clip's labels may belong to another clip: `ClipLabels.video` has
    listed both in the video's files.
    """
    clips = [str(file) for file in video.files if file.parts[0] != KEYPOINTS]
    if len(clips) > 1:
        stem = PurePath(KEYPOINTS, video.name)
        actual = f"{', '.join(sorted(clips))}, which share this name"
        do = (
            f"Name each clip's labels by its whole file name: {stem}.json (.txt, .csv), or the "
            f"folder {stem}/."
        )
        raise RawDataError(labels, "name", "labels of one clip", actual, do)


def _plain(name: str) -> str:
    """Reduce a name to small letters and digits, without endings that programs add.

    >>> _plain("My clip (1).JSON"), _plain("my_clip_keypoints.json.gz")
    ('myclip', 'myclip')
    """
    return _letters(_ADDED.sub("", unicodedata.normalize("NFC", name).casefold()))


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFC", name).casefold())


def _original_name(labels: str) -> str | None:
    """The letters of a clip's name before its upload, by the name of its labels; None if nothing
    was added.

    >>> _original_name("My_clip_mp4.rf.0a1b2c3d.csv"), _original_name("0a1b2c3d-my clip.csv")
    ('myclip', 'myclip')
    """
    match = _UPLOADED.fullmatch(labels)
    if match is None or not (match["prefix"] or match["hash"]):
        return None
    return _letters(match["name"])


def is_upload_of(labels: str, stem: str) -> bool:
    """Whether labels of this file name are a clip's, but for what an upload added. stem: the
    clip's name without its ending.
    """
    return _original_name(labels) == _letters(stem)


def _require_own_name(keypoints: Path, video: RawVideo, labels: Path) -> None:
    """Raise RawDataError unless `labels` have a name and a folder of the clip's own labels.

    Labels that `ClipLabels.find_similar` found do not. keypoints: the folder in the raw folder.
    """
    clip = video.files[0].name if video.files else PurePath(video.name).name
    stem = _stem(clip) or clip
    uploaded = [file.name for file in video.files if is_upload_of(file.name, stem)]
    if len(uploaded) > 1 and labels.name in uploaded:
        do = f"Keep one, or name it {clip}{labels.suffix}."
        raise RawDataError(labels, "name", f"one file of {clip}", ", ".join(uploaded), do)
    own_names = [clip, stem]
    if not labels.is_dir():
        own_names = [name + suffix for name in own_names for suffix in (*SUFFIXES, *UNREAD)]
    own_names += uploaded
    # a clip's labels may lie in the folders of its path; in `keypoints` itself if it has none
    *folders, top = (keypoints / parent for parent in PurePath(video.name).parents)
    if labels.name not in own_names or labels.parent not in (folders or [top]):
        place = PurePath(KEYPOINTS, video.name).parent
        expected = (
            f"{clip}.json or {stem}.json (.txt, .csv; or a folder {clip}/ or {stem}/) in {place}/"
        )
        do = (
            f"Rename it or move it to {place}/. Unpack a packed file; of one for several clips, "
            "write a file for each clip."
        )
        raise RawDataError(labels, "name", expected, "another name or folder", do)

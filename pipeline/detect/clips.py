"""Clips in a folder, their label files, and the clips that need detection.  [pixels] -> raw keypoints -> tracks

Labels of `<folders>/<clip>.mp4`, in any format of `pipeline.files.formats.detections`:

    keypoints/<folders>/<clip>.mp4.json     `python -m pipeline detect`; also .txt and .csv
    keypoints/<folders>/<clip>.mp4/         a file for each frame
    keypoints/<folders>/<clip>.json         also .txt and .csv; unless another clip there has the name <clip>
    keypoints/<folders>/<clip>/

A file of `detect` is in COCO's JSON format:

    {"info": {...},                 on a line of its own: a fingerprint, the detector, the clip, its cuts, frame counts
     "images": [{"id", "frame_index", "file_name", "width", "height"}, ...],     every decoded frame, from 0; where the
                camera moves, "camera": 8 numbers of the `pipeline.homography` from the frame before
     "annotations": [{"id", "image_id", "category_id", "bbox" x y w h px, "keypoints" 17 x (x, y, v), "num_keypoints",
                      "score", "keypoint_scores" 17 x 0..1, "area", "iscrowd"}, ...],
     "categories": [...]}           COCO's person

v is 2 for a joint of confidence 0.3 or more, else 1. pycocotools reads these files, and here
`pipeline.files.formats.detections`. `.provenance` has the speed of the run over the most frames, for forecasts.
`.detect/<fingerprint>` has the reason why a clip has no file.
"""

from __future__ import annotations

import errno
import functools
import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePath
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cache import fingerprint
from cache.write.parts import Part
from pipeline.cli.text import command, count, from_here
from pipeline.detect import Detector, identity, terms
from pipeline.errors import ConfigError, PipelineError, RawDataError
from pipeline.files.formats.arrays import state_of
from pipeline.files.formats.detections import SUFFIXES, UNREAD
from pipeline.files.pixels.frames import Video
from pipeline.files.raw import RawVideo, VideoTexts, is_stand_in
from pipeline.files.raw.changes import utf8
from pipeline.files.raw.files import VIDEOS, file_digest, is_folder

MADE_BY: Final = "python -m pipeline detect"
KEYPOINTS: Final = "keypoints"  # the folder beside clips in which the dataset `videos` looks for them
RECORDS: Final = ".detect"  # the lock, and why clips have no file
PROVENANCE: Final = ".provenance"
LONGEST_NAME: Final = 255  # bytes, of Linux's file systems
VERSION: Final = 2  # raised by hand whenever the same clip and detector would give another file
END: Final = b"}]}\n"  # only a complete file ends like this
EXTENSIONS: Final = VIDEOS  # those that cannot be decoded (.wmv) are rejected with the reason, not skipped
ENDINGS: Final = ", ".join(suffix for suffix in EXTENSIONS if suffix != ".wmv")
_KINDS: Final = f"files that end in {ENDINGS}"
PICTURES: Final = (".jpg", ".jpeg", ".png", ".heic", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def list_clips(raw: Path, suffix: str = "") -> list[str]:
    """Sorted paths of video files anywhere below `raw`, without hidden ones; empty without such a folder.

    suffix: what follows their names; ".json" lists the files of `detect`. Links to folders are followed, without
    cycles.
    """
    files = (file for file in _list_files(raw) if file.endswith(suffix))
    return [file for file in files if PurePath(file.removesuffix(suffix)).suffix.lower() in EXTENSIONS]


def list_images(raw: Path) -> list[str]:
    """Image files among the clips, but for those in `keypoints`."""
    files = (file for file in _list_files(raw) if not file.startswith(f"{KEYPOINTS}/"))
    return [file for file in files if PurePath(file).suffix.lower() in PICTURES]


def images_hint(raw: Path) -> str:
    """Advice for a folder of images without clips; "" without images."""
    n = len(list_images(raw))
    return f" ({n:,} images; make a clip of numbered ones: ffmpeg -i %06d.jpg clip.mp4)" if n else ""


def _list_files(raw: Path) -> list[str]:
    files: list[str] = []
    for folder, folders, names in os.walk(raw, followlinks=True):
        resolved = Path(folder).resolve()
        shown = (name for name in folders if not name.startswith("."))
        folders[:] = sorted(name for name in shown if not resolved.is_relative_to(os.path.realpath(f"{folder}/{name}")))
        files += [(Path(folder) / name).relative_to(raw).as_posix() for name in names if not name.startswith(".")]
    return sorted(files)


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder, unsorted, without hidden ones (a Mac's ._<clip>.mp4); empty for a missing folder."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as found:
        return [entry for entry in found if not entry.name.startswith(".")]


class ClipLabels:
    """Labels of `clips` in the folder `keypoints`; each of its folders is listed once."""

    def __init__(self, raw: Path, clips: Sequence[str] = ()) -> None:
        self._raw = raw
        self._called: dict[str, list[str]] = {}  # path, with or without its suffix -> clips
        for clip in clips:
            for called in (clip, _stem(clip)):
                self._called.setdefault(called, []).append(clip)
        self._listed: dict[str, tuple[set[str], set[str]]] = {}

    def below(self, folder: str) -> tuple[set[str], set[str]]:
        """Names of the files and of the folders in `keypoints/<folder>`."""
        if (listed := self._listed.get(folder)) is None:
            folders, files = listed = set(), set()
            for entry in entries(self._raw / KEYPOINTS / folder):
                (folders if is_folder(entry) else files).add(entry.name)
            self._listed[folder] = listed = (files, folders)
        return listed

    def video(self, clip: str) -> VideoTexts:
        """A clip with its labels, and other clips that the labels may belong to."""
        folder, _, name = clip.rpartition("/")
        files, folders = self.find(name, folder)
        stems = (_stem(name), *(_stem(name) + suffix for suffix in (*SUFFIXES, *UNREAD)))
        by_stem = any(path.rpartition("/")[2] in stems for path in (*files, *folders))
        others = (other for other in self._called.get(_stem(clip), ()) if other != clip) if by_stem else ()
        return VideoTexts(clip, files=(clip, *others, *files), label_folders=folders)

    def find(self, clip: str, folder: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """A clip's labels in `keypoints/<folder>`: one file or one folder; both empty if it has none.

        If there is only a file of an unsupported kind, that file: reading it raises the error.
        """
        files, folders = self.below(folder)
        if not files and not folders:
            return (), ()
        below = f"{KEYPOINTS}/{folder}/" if folder else f"{KEYPOINTS}/"
        for suffixes in (SUFFIXES, UNREAD):
            for called in (clip, _stem(clip)):
                for suffix in suffixes if files else ():
                    if called + suffix in files:
                        return (f"{below}{called}{suffix}",), ()
                if called in folders:
                    return (), (below + called,)
        return (), ()


def _stem(clip: str) -> str:
    return clip.rpartition(".")[0]


def labels_of(raw: Path, video: RawVideo) -> Path | None:
    """The file or folder of a video's labels, or None."""
    files = (file for file in video.files if file.parts[0] == KEYPOINTS)
    return next((raw / path for path in (*files, *video.label_folders)), None)


def require_own_labels(video: RawVideo, labels: Path) -> None:
    """Raise RawDataError if the labels of a clip (`ClipLabels.video`) may belong to another clip."""
    clips = [file for file in video.files if file.parts[0] != KEYPOINTS]
    if len(clips) > 1:
        own = PurePath(KEYPOINTS, video.name)
        actual = f"{', '.join(sorted(map(str, clips)))}, which share this name"
        do = f"Name each clip's labels by its whole file name: {own}.json (.txt, .csv), or the folder {own}/."
        raise RawDataError(labels, "name", "labels of one clip", actual, do)


@dataclass(frozen=True, slots=True)
class ClipFiles:
    """The file of one clip."""

    out: Path
    clip: str  # path below the raw folder
    fingerprint: str

    @property
    def file(self) -> Path:
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
            raise OSError(errno.ENAMETOOLONG, "File name too long. Rename the clip.", str(self.file))
        info = read_info(self.file)
        if info.get("description") != MADE_BY and self.file.exists():
            actual, do = "another one, which is left as it is", "Move it, or name another folder."
            raise RawDataError(self.file, "description", f"a file that `{MADE_BY}` has written", actual, do)
        return info.get("fingerprint") == self.fingerprint and _is_whole(self.file)


def _is_whole(file: Path) -> bool:
    with file.open("rb") as stream:
        stream.seek(max(file.stat().st_size - len(END), 0))
        return stream.read() == END


def read_speed(out: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """`finished`, `host` and `measured` of the longest run; empty without one of this detector (`about`)."""
    try:
        note: dict[str, Any] = json.loads((out / PROVENANCE).read_bytes())
        return note if note | json.loads(json.dumps(dict(about))) == note else {}
    except (OSError, ValueError, TypeError):
        return {}


def read_info(file: Path) -> dict[str, Any]:
    """The first line's `info`; empty for a missing file or another format."""
    try:
        with file.open("rb") as stream:
            line = stream.readline(1 << 20).rstrip()
        info = json.loads(line.removesuffix(b",") + b"}")["info"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return info if isinstance(info, dict) else {}


def moved_frames(clip: Video) -> NDArray[np.int64] | None:
    """Frames, ascending, before which the camera moved, by the clip's file of `detect`; None without one."""
    file = clip.root / KEYPOINTS / f"{clip.path}.json"
    return _read_moved_frames(file, state_of(file)) if file.is_file() else None


@functools.lru_cache(maxsize=1)  # tracks of one clip follow each other
def _read_moved_frames(file: Path, _state: tuple[int, int]) -> NDArray[np.int64] | None:
    if read_info(file).get("description") != MADE_BY:
        return None
    with file.open("rb") as stream:  # a line for each image; people follow
        images = itertools.takewhile(lambda line: not line.startswith(b"],"), stream)
        moved = [re.search(rb'"frame_index": (\d+)', line) for line in images if b'"camera": ' in line]
    return np.array([int(match[1]) for match in moved if match], np.int64)


# ------------------------------------------------------------------------------------------------------------ plan


@dataclass(frozen=True, slots=True)
class DetectionPlan:
    """Work of a detection, picklable."""

    raw: Path
    out: Path
    detector: Detector
    about: Mapping[str, Any]  # the part of a file's `info` that all clips share
    missing: Sequence[ClipFiles]  # clips without a file of these pixels, weights and settings
    renamed: Mapping[ClipFiles, ClipFiles]  # renamed clips -> their files under the old names
    failed: Mapping[ClipFiles, str]  # clips that an earlier run gave up, and why
    done: int  # clips that have their file
    refused: Mapping[str, str]  # clips that cannot have one, and why
    orphans: Sequence[str]  # files of `detect` whose clips are gone
    weights: Sequence[Mapping[str, str]]  # `Detector.terms`, if there are clips to detect

    @property
    def up_to_date(self) -> bool:
        """Whether there is nothing to do, except to retry failed clips."""
        return not self.missing and not self.renamed

    @property
    def problems(self) -> dict[str, str]:
        """Clip -> why it has no file."""
        return dict(self.refused) | {files.clip: why for files, why in self.failed.items()}

    def detected_otherwise(self, clips: Iterable[str]) -> list[str]:
        """Clips with keypoints of another detector or other options: "2 clips by rtmpose, other every"."""
        now, found = json.loads(json.dumps(self.about)), Counter[str]()
        for clip in clips:
            info = read_info(self.out / f"{clip}.json")
            options, name = dict(info.get("options") or {}), str(info.get("detector"))
            differ = [key for key in sorted({*options, *now["options"]}) if options.get(key) != now["options"].get(key)]
            if info.get("description") == MADE_BY and (name != now["detector"] or differ):
                found[name if name != now["detector"] else f"{name} with another {', '.join(differ)}"] += 1
        return [f"{count(n, 'clip')} by {by}" for by, n in found.items()]

    @property
    def again(self) -> str:
        """The command that retries clips that were given up."""
        options = [f"{field.name}={getattr(self.detector, field.name)}" for field in fields(self.detector)]
        words = [word for option in options for word in ("--set", option)]
        raw, to = from_here(self.raw), from_here(self.out)
        return command("detect", raw, "--out", to, "--detector", self.detector.name, *words)


def usual_detector(raw: Path) -> str:
    """The default detector: `demo` for demo data, else `rtmpose`. raw: a folder of clips, or a clip."""
    return "demo" if is_stand_in(raw.parent if raw.is_file() else raw) else "rtmpose"


def unlabelled_clips(raw: Path, *, by_any_detector: bool = False) -> list[str]:
    """Clips below `raw` without another tool's labels: `detect` may write theirs.

    by_any_detector: also without labels of `detect`, by any detector. Raises ConfigError as `_clips_of`.
    """
    raw, clips = _clips_of(raw)
    labels = ClipLabels(raw, clips)
    return [clip for clip in clips if not _is_labelled(raw, labels, clip, by_any_detector)]


def _is_labelled(raw: Path, labels: ClipLabels, clip: str, by_any_detector: bool) -> bool:
    if clip.startswith(f"{KEYPOINTS}/"):
        return True
    folder, _, name = clip.rpartition("/")
    if not any(labels.find(name, folder)):
        return False
    info = read_info(raw / KEYPOINTS / f"{clip}.json")
    by_detect = info.get("description") == MADE_BY
    return not by_detect or (by_any_detector and info.get("clip_digest") == file_digest(raw / clip))


def plan_detection(
    raw: Path, out: Path, detector: Detector, only: Sequence[str] | None = None, part: Part | None = None
) -> DetectionPlan:
    """Compare the clips below `raw`, or the clip `raw`, with the files in `out`. `only`, `part`: plan these clips only.

    Writes nothing. Raises ConfigError without any clip and for a stand-in detector on real data, MissingAssets for
    missing weights, PlugInError if another package's detector fails.
    """
    one_clip = raw.is_file()  # the other files in `out` are of other clips
    raw, clips = _clips_of(raw)
    demo = is_stand_in(raw)
    if detector.stand_in and not demo:
        raise ConfigError(
            f"{detector.name} finds people only in demo data, but {raw} is real data. Use another detector, or the "
            "output of another tool (docs/datasets/videos.md)."
        )
    options = identity(detector)
    kind = {"version": VERSION, "detector": detector.name, "detector_version": detector.version, "options": options}
    lost = {} if one_clip else _find_lost_clips(raw, out, clips)
    clips = clips if only is None else list(only)
    clips = clips if part is None else list(part.share(clips))
    before = {files.fingerprint: files for files in lost.values()}  # of the same pixels, by the same detector
    missing, renamed, failed, done = [], dict[ClipFiles, ClipFiles](), {}, 0
    refused: dict[str, str] = {}
    for clip in clips:
        try:
            files = _files(out, Video(raw, clip), kind)
            is_done = files.done()
        except (PipelineError, OSError) as error:
            refused[utf8(clip)] = str(error)
            continue
        if is_done:
            done += 1
        elif files.failed.is_file():
            failed[files] = files.failed.read_text()
        elif files.fingerprint in before:
            renamed[files] = before.pop(files.fingerprint)
        else:
            missing.append(files)
    about = {"detector": detector.name, "version": detector.version, "options": options, "stand_in": demo}
    orphans = [files.file.relative_to(out).as_posix() for files in lost.values() if files not in renamed.values()]
    weights = terms(detector) if missing or failed else []
    return DetectionPlan(raw, out, detector, about, missing, renamed, failed, done, refused, orphans, weights)


def _clips_of(raw: Path) -> tuple[Path, list[str]]:
    """A folder and its clips; for a clip, its folder and itself. Raises ConfigError if there is none."""
    if raw.is_file():
        if raw.suffix.lower() not in EXTENSIONS:
            raise ConfigError(f"{raw}: expected a clip or a folder of clips, {_KINDS}; found another file")
        return raw.parent, [raw.name]
    if not (clips := list_clips(raw)):
        reason = f"no clips in this folder{images_hint(raw)}" if raw.is_dir() else "no such file or folder"
        raise ConfigError(f"{raw}: {reason}. Name a folder with {_KINDS}.")
    return raw, clips


def _files(out: Path, video: Video, kind: Mapping[str, Any]) -> ClipFiles:
    """Raises RawDataError for a clip that can have no file."""
    if utf8(video.path) != video.path:
        do = "Rename it, for example with convmv."
        raise RawDataError(video.root / utf8(video.path), "name", "UTF-8", "other bytes", do)
    video.require_whole()
    return ClipFiles(out, video.path, fingerprint({**kind, "pixels": video.digest()}))


def _find_lost_clips(raw: Path, out: Path, clips: Sequence[str]) -> dict[str, ClipFiles]:
    """Files of `detect` whose clips are gone from `raw` (deleted or renamed), by clip."""
    lost = {}
    for clip in {path.removesuffix(".json") for path in list_clips(out, ".json")} - {*clips}:
        info = {} if (raw / clip).exists() else read_info(out / f"{clip}.json")
        if info.get("description") == MADE_BY and info.get("clip") == clip:
            lost[clip] = ClipFiles(out, clip, str(info.get("fingerprint")))
    return dict(sorted(lost.items()))

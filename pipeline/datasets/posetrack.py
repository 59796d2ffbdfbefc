"""PoseTrack 2018: videos of many people, joints and identities labelled.  [raw -> tracks] -> features -> windows

Andriluka et al.: PoseTrack: A Benchmark for Human Pose Estimation and Tracking, CVPR 2018.

    posetrack_data/annotations/<split>/<seq>.json     or annotations/<split>/<seq>.json
    images/<split>/<seq>/<000000>.jpg
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.accounting import VideoAccount
from pipeline.datasets.base import Dataset, RawVideo
from pipeline.datasets.posetrack_labels import Labels, read_labels
from pipeline.datasets.release import Mistake, Part, Totals, counted
from pipeline.errors import PipelineError, RawDataError
from pipeline.formats.json_files import kind
from pipeline.pixels.frames import Pictures, below
from pipeline.raw import listing
from pipeline.skeletons import convert
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body

ANNOTATIONS: Final = ("posetrack_data/annotations", "annotations")  # the first that has a sequence is used
LABELS: Final = "posetrack18_v0.45_public_labels.tar.gz"
PICTURES: Final = "posetrack18_images.tar.aa to .ar"
UNPACK: Final = f"Unpack {LABELS} and {PICTURES} again."
MIN_FRAMES: Final = 8
BOX_FACTOR: Final = 0.8  # `bbox` is the joints' extent with 15% of it added on every side
MIN_SIDE_PX: Final = 1.0
MAX_PX: Final = 1e5  # ten times any picture: some of the release's boxes begin at minus a million
MAX_NAME: Final = 4096  # characters: as long as a path can be
OTHER_NAME, NO_PICTURE = -1, -2  # in the place of a frame index
# The last number of a name counts the frames. Braces would be taken for a number in a picture pattern.
_NUMBERED: Final = re.compile(r"(?P<before>[^{}]*?)(?P<digits>[0-9]{1,12})(?P<after>\.[A-Za-z]+)")


@dataclass(frozen=True)
class PoseTrack(Dataset):
    """One track a person (`track_id`) of a sequence. The release names no frame rate."""

    name: ClassVar[str] = "posetrack"
    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    version: ClassVar[int] = 1
    page: ClassVar[str] = "https://posetrack.net"
    harmless: ClassVar[frozenset[str]] = frozenset({"no_annotations"})  # more was filmed than annotated
    parts: ClassVar[tuple[Part, ...]] = (  # known: of the labels v0.45; v0.2 had 74 for val (lighttrack's issue 16)
        *(
            Part(
                f"{what} annotations",
                tuple(f"{folder}/{split}/*.json" for folder in ANNOTATIONS),
                LABELS,
                (split,),
                known,
                shown=tuple(f"{folder}/{split}/<sequence>.json" for folder in ANNOTATIONS),
            )
            for split, what, known in (("train", "training", 593), ("val", "validation", 170))
        ),
        *(
            Part(
                f"{what} pictures",
                (f"images/{split}/*/",),
                PICTURES,
                (split,),
                shown=(f"images/{split}/<sequence>/<000000>.jpg",),
            )
            for split, what in (("train", "training"), ("val", "validation"))
        ),
    )
    # Of train, more sequences are there as pictures than are annotated: how many is not known for certain.
    totals: ClassVar[Mapping[str, Totals]] = {"val": Totals(videos=170)}

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:  # noqa: ARG002 - the same for all
        return ("frame_index", "bbox", "kp_2d")

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        pictures = raw / "images" / split
        if not pictures.is_dir():
            expected = "a folder with <seq>/<000000>.jpg pictures"
            raise RawDataError(pictures, "folder", expected=expected, found="none", do=f"Unpack {PICTURES}.")
        files: dict[str, list[Path]] = {entry.name: [] for entry in pictures.iterdir() if entry.is_dir()}
        annotated = _annotation_files(raw, split)
        if not annotated:
            expected = " or ".join(f"{folder}/{split}/<seq>.json" for folder in ANNOTATIONS)
            raise RawDataError(raw, "annotations", expected=expected, found="neither", do=f"Unpack {LABELS}.")
        for file in annotated:
            files.setdefault(file.stem, []).append(file)
        return [
            RawVideo(name, files=tuple(files[name]), folders=(Path("images", split, name),))
            for name in sorted(files)
            if not name.startswith(".")  # left behind by file managers
        ]

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None  # noqa: ARG002
    ) -> Sequence[Track]:  # fmt: skip
        if not video.files:
            account.put_aside("no_annotations", f"{raw / video.folders[0]}: pictures that nobody annotated")
            return []
        file, *others = video.files
        account.notes.extend(f"{other.as_posix()} is not used: {file.as_posix()} is" for other in others)
        labels = read_labels(raw / file, account)
        if labels is None:
            account.put_aside("no_annotations", f"{raw / file}: nobody in it has keypoints: nothing to convert")
            return []
        pictures, frame_of_picture = _pictures(raw, raw / file, labels.file_names, account)
        if pictures.place != raw / video.folders[0]:
            where = pictures.place.relative_to(raw).as_posix()
            account.notes.append(f"its pictures lie in {where}: whether they change is not looked at")
        frame_index = frame_of_picture[labels.picture]
        kept = _usable(labels, frame_index, account)
        tracks = []
        for person in np.unique(labels.track_id).tolist():
            rows = np.flatnonzero(kept & (labels.track_id == person))
            if len(rows) < MIN_FRAMES:
                account.drop_track("track_too_short", len(rows))
                continue
            rows = rows[np.argsort(frame_index[rows])]
            account.keep_track(len(rows))
            tracks.append(
                Track(
                    dataset=self.name,
                    split=split,
                    name=f"{video.name}/{person}",
                    video=video.name,
                    fps=math.nan,
                    frame_index=frame_index[rows],
                    bbox=_square(labels.box[rows]),
                    kp_2d=convert(labels.kp_2d[rows], source=labels.skeleton, target="spin49").astype(np.float32),
                    frames=pictures,
                )
            )
        return tracks

    def known(self, raw: Path, part: Part) -> int | None:
        """Of pictures, at least a folder for every annotated sequence; more were filmed than annotated."""
        if part.source != PICTURES:
            return part.known
        split = part.splits[0]
        annotated = {file.stem for file in _annotation_files(raw, split)}
        return len(annotated | {folder.name for folder in listing.all_folders_in(raw / "images" / split)}) or None

    def mistakes(self, raw: Path) -> Iterator[Mistake]:
        yield from _other_downloads(raw)
        for split in self.splits:
            yield from _missing_in(raw, split)


def _annotation_files(raw: Path, split: str) -> list[Path]:
    """Below `raw`, those that are preferred first."""
    folders = [Path(folder, split) for folder in ANNOTATIONS]
    return [f / file.name for f in folders for file in sorted((raw / f).glob("*.json")) if file.name[0] != "."]


def _pictures(
    raw: Path, file: Path, file_names: Sequence[str], account: VideoAccount
) -> tuple[Pictures, NDArray[np.int64]]:
    """Where the labelled pictures are, and (F,) each one's frame index: the number in its name.

    Most of the names decide how a sequence's pictures are called; of equally many, the first. In the frame index's
    place stands OTHER_NAME for one that is called otherwise, and NO_PICTURE for one that is not there.
    """
    parsed = list(_parsed(raw, file, file_names))
    patterns = Counter(pattern for pattern, _ in parsed if pattern)
    if not patterns:
        expected, found = "names with a number at the end, such as 000000.jpg", kind(file_names[0])
        raise RawDataError(file, "file_name", expected=expected, found=found, do=UNPACK)
    pattern = patterns.most_common(1)[0][0]
    pictures = Pictures(raw, pattern)
    frame_index = np.array([number if p == pattern else OTHER_NAME for p, number in parsed], np.int64)
    _note(account, frame_index == OTHER_NAME, f"are not called {pattern}", file_names)
    absent = (frame_index != OTHER_NAME) & ~np.isin(frame_index, _there(pictures))
    if absent.sum() == patterns[pattern]:
        expected = f"{len(file_names)} labelled pictures"
        raise RawDataError(
            pictures.place, "pictures", expected=expected, found="none of them", do=UNPACK, reason="no_picture"
        )
    _note(account, absent, "are not there", file_names)
    return pictures, np.where(absent, NO_PICTURE, frame_index)


def _parsed(raw: Path, file: Path, file_names: Sequence[str]) -> Iterator[tuple[str, int]]:
    """`_pattern` of every name. They mostly differ in their numbers alone, so all else is looked at once."""
    patterns: dict[tuple[str, int, str], str] = {}
    for name in file_names:
        numbered = _NUMBERED.fullmatch(name) if len(name) <= MAX_NAME else None
        if numbered is None:
            yield _pattern(raw, file, name)
            continue
        key = (numbered["before"], len(numbered["digits"]), numbered["after"])
        if key not in patterns:
            patterns[key] = _pattern(raw, file, name)[0]
        yield patterns[key], int(numbered["digits"]) if patterns[key] else 0


def _pattern(raw: Path, file: Path, name: str) -> tuple[str, int]:
    """`images/val/x/000012.jpg` -> (`images/val/x/{:06d}.jpg`, 12), or ("", 0) where the name says no number.

    Raises RawDataError (`path_outside`) for a path that leads out of the raw folder.
    """
    if len(name) > MAX_NAME:
        return "", 0
    try:
        below(raw, name)
    except PipelineError as error:
        expected = f"a path below {raw}, without '..' or '\\'"
        do = "Trust nothing in this file: download the annotations from the official page."
        raise RawDataError(
            file, "file_name", expected=expected, found=kind(name), do=do, reason="path_outside"
        ) from error
    path = PurePosixPath(name)
    numbered = _NUMBERED.fullmatch(path.name)
    if numbered is None or not name.isprintable() or set(name) & {"{", "}"}:
        return "", 0
    before, digits, after = numbered["before"], numbered["digits"], numbered["after"]
    return str(path.with_name(f"{before}{{:0{len(digits)}d}}{after}")), int(digits)


def _there(pictures: Pictures) -> NDArray[np.int64]:
    try:
        return pictures.indices()
    except OSError as error:  # no permission, or a name that no file system takes
        expected, found = "a folder that can be read", str(error.strerror)
        raise RawDataError(
            pictures.place, "pictures", expected=expected, found=found, do=UNPACK, reason="no_picture"
        ) from error


def _note(account: VideoAccount, applies: NDArray[np.bool_], what: str, file_names: Sequence[str]) -> None:
    if n := int(applies.sum()):
        first = kind(file_names[int(applies.argmax())])
        account.notes.append(f"{n} of {len(file_names)} labelled pictures {what}: the first has {first}")


def _usable(labels: Labels, frame_index: NDArray[np.int64], account: VideoAccount) -> NDArray[np.bool_]:
    """(N,) the annotations that can be part of a track. Each of the others counts under one reason."""
    n_seen = (labels.kp_2d[..., 2] > 0).sum(axis=1)
    side = labels.box[:, 2:]
    reasons = {
        "other_file_name": frame_index == OTHER_NAME,
        "no_picture": frame_index == NO_PICTURE,
        "no_visible_joint": n_seen == 0,
        "degenerate_box": np.isnan(labels.box).any(axis=1) | (side <= 0).any(axis=1) | (side.max(axis=1) < MIN_SIDE_PX),
        "huge_box": (np.abs(labels.box) > MAX_PX).any(axis=1),
    }
    kept = np.ones(len(frame_index), np.bool_)
    for reason, applies in reasons.items():
        account.drop(reason, int((kept & applies).sum()))
        kept &= ~applies
    # Of one person's annotations in one picture, the one with most joints comes first, of equal ones the file's first.
    rows = np.flatnonzero(kept)
    rows = rows[np.lexsort((-n_seen[rows], frame_index[rows], labels.track_id[rows]))]
    of_same = (np.diff(labels.track_id[rows]) == 0) & (np.diff(frame_index[rows]) == 0)
    account.drop("duplicate_person", int(of_same.sum()))
    kept[rows[1:][of_same]] = False
    return kept


def _square(box: NDArray[np.float64]) -> NDArray[np.float32]:
    """(N, 4) corner and size -> (N, 4) cxcywh px: the larger side decides."""
    side = np.repeat(box[:, 2:].max(axis=1, keepdims=True), 2, axis=1) * BOX_FACTOR
    return np.concatenate([box[:, :2] + box[:, 2:] / 2, side], axis=1).astype(np.float32)


def _other_downloads(raw: Path) -> Iterator[Mistake]:
    do = f"Download PoseTrack 2018: {LABELS} and {PICTURES}."
    for pattern in ("images/*_5sec", "posetrack_data/images/*_5sec", "*annotations/*/*.mat", "*/annotations/*/*.mat"):
        if (found := next(raw.glob(pattern), None)) is not None:
            yield Mistake(f"{found.relative_to(raw).as_posix()} is of PoseTrack 2017", do, instead=True)
            break
    if any(raw.glob("posetrack_data/*/*.json")) and not (raw / ANNOTATIONS[0]).is_dir():
        yield Mistake(
            "posetrack_data/<split>/*.json, without annotations/ in between, is PoseTrack21's layout", do, instead=True
        )


def _missing_in(raw: Path, split: str) -> Iterator[Mistake]:
    annotated = _annotation_files(raw, split)
    names = sorted({file.stem for file in annotated})
    without = [name for name in names if not any((raw / "images" / split / name).glob("*.jpg"))]
    if without:
        annotated_there = counted(len(names), "annotated sequence", "annotated sequences")
        where = f"images/{split} has no pictures of {len(without)} of {annotated_there}"
        yield Mistake(f"{where}, the first is {without[0]}", f"Unpack {PICTURES} again.")
    if annotated:
        try:
            empty = read_labels(raw / annotated[0], VideoAccount(names[0])) is None
        except RawDataError:
            return  # told by name when it is converted
        if empty:
            what = f"nobody in {annotated[0].as_posix()} has keypoints, as in the annotations of test"
            yield Mistake(what, f"Unpack {LABELS} again, each split into its own folder.")

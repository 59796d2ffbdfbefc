"""Compare a download, or the body model's files, with what a release has.  [raw]

`examine` takes a dataset and its raw folder and returns an `Examination`, which `doctor` prints.
Each dataset declares the parts of its release, as patterns of file names with the number of files,
and known mistakes, such as a file under another name (`pipeline.datasets.base`). Only names of
files and folders are compared with these: seconds for a full download. Two things are opened: the
keypoints of the first few clips, and the first frames of clips of the user's own.

A part is *required* unless it says what is left out without it (`ReleasePart.without`). A folder is
*in part* unpacked if folders of images lack some.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Final, NamedTuple

from pipeline.cli.text import count as count_of
from pipeline.clips.files import KEYPOINTS
from pipeline.clips.labels.detections import read_detections
from pipeline.clips.labels.label_content import NOT_STATED
from pipeline.clips.labels.label_files import labels_of
from pipeline.datasets.base import Dataset, Mistake, Release, ReleasePart, globs
from pipeline.datasets.releases.downloads import has_gaps, incomplete_inputs
from pipeline.datasets.releases.misplaced import letters, misplaced_parts
from pipeline.datasets.shared.clips.clip_dataset import ClipDataset
from pipeline.errors import RawDataError, describe_error
from pipeline.files.pixels.frames import Video
from pipeline.files.raw import MARKER, RawVideo, files
from pipeline.files.raw.files import VIDEOS
from pipeline.people import smpl_files

KEYPOINTS_READ: Final = 3  # clips whose keypoints are read
CLIPS_OPENED: Final = 100  # clips of a split whose first frame is decoded
SPIN: Final = "data of SPIN, by fetch_data.sh of github.com/nkolot/SPIN"
ARCHIVE: Final = (
    "SMPL_python_v.1.1.0.zip: smpl/models/basicmodel_{}_lbs_10_207_0_v1.1.0.pkl, renamed to {}.pkl"
)
_ARCHIVE: Final = re.compile(
    r"\.(zip|7z|rar|tgz|tbz2?|txz|tar(\.[a-z0-9]+)?)(\.\d{3})?$", re.IGNORECASE
)
# A piece of a split archive: x.tar.aa, x.tar.gzaa. x.tar.gz, .lz and .xz are whole.
_PIECE: Final = re.compile(r"(.+\.tar\.?(?:gz|bz2)?)(?![glx]z$)[a-z]{2}")


@dataclass(frozen=True)
class _BodyFiles:
    """A body model's files, declared as those of a dataset, so that `examine` takes both."""

    name: str
    release: Release
    splits: tuple[str, ...] = ()


BODY: Final = _BodyFiles(
    "body",
    Release(
        page="https://smpl.is.tue.mpg.de",
        parts=(
            ReleasePart(
                "SMPL, neutral",
                ("SMPL_NEUTRAL.{pkl,npz}",),
                ARCHIVE.format("neutral", "SMPL_NEUTRAL"),
            ),
            ReleasePart("joints for spin49", (smpl_files.REGRESSOR_EXTRA,), SPIN),
            ReleasePart("Human3.6M's joints", (smpl_files.REGRESSOR_H36M,), SPIN),
            ReleasePart("mean parameters", (smpl_files.MEAN_PARAMS,), SPIN),
            *(
                ReleasePart(
                    f"SMPL, {gender}",
                    (f"{name}.{{pkl,npz}}",),
                    ARCHIVE.format(gender[0], name),
                    without=f"bodies of {gender} actors in evaluation",
                )
                for gender, name in (("male", "SMPL_MALE"), ("female", "SMPL_FEMALE"))
            ),
        ),
        mistakes=tuple(
            Mistake(
                f"{folder}basicmodel_<gender>_<version>.pkl",
                "has its name in SMPL's archive",
                "Rename it: see below.",
            )
            for folder in ("", "*/")
        ),
    ),
)
SMPLX: Final = _BodyFiles(
    "body, SMPL-X",
    Release(
        page="https://smpl-x.is.tue.mpg.de",
        parts=tuple(
            ReleasePart(f"SMPL-X, {gender}", (f"SMPLX_{gender.upper()}.npz",), "SMPL-X v1.1 (npz)")
            for gender in ("male", "female")
        ),
    ),
)


class PartState(StrEnum):
    """How much of a part of a release is there."""

    THERE = "there"
    INCOMPLETE = "incomplete"
    INVALID = "invalid"
    MISSING = "missing"
    # missing, and the user need not get it
    LEFT_OUT = "left out"
    TO_BE_MADE = "will be made"
    NOT_NEEDED = "not needed yet"


class PartCount(NamedTuple):
    """One part of a release, with the number of its files or folders that are there."""

    what: str  # name of the part, such as "labels of train"
    where: tuple[str, ...]  # the part's patterns
    source: str  # the archive that has it, or how to get it
    without: str  # what is left out without the part; "" if it is required
    splits: tuple[str, ...]
    found: int
    known: int | None  # number in the release; None: unknown, or demo data
    state: PartState

    @classmethod
    def from_part(
        cls, part: ReleasePart, splits: tuple[str, ...], found: int, known: int | None
    ) -> PartCount:
        """A part of which `found` files are there, of `known` in the release.

        splits: of the dataset, for a part that belongs to all of them.
        """
        state = PartState.THERE
        if not found:
            state = PartState.LEFT_OUT if part.without else PartState.MISSING
        elif known is not None and found < known:
            state = PartState.INCOMPLETE
        return cls(
            part.what,
            part.patterns,
            part.source,
            part.without,
            part.splits or splits,
            found,
            known,
            state,
        )

    @property
    def prevents_conversion(self) -> bool:
        return self.state in (PartState.MISSING, PartState.INVALID)


@dataclass(frozen=True, slots=True)
class Examination:
    """The content of one raw folder, compared with the dataset's release."""

    dataset: str  # name; "body" for the body model's folder
    page: str  # URL of the download; "" for the user's own clips
    raw: Path
    stand_in: bool  # demo data
    splits: tuple[str, ...]
    parts: tuple[PartCount, ...]
    mistakes: tuple[str, ...]  # messages: what is wrong, and what to do
    packed: tuple[Path, ...] = ()  # archives
    usable: tuple[str, ...] = ()  # splits of which no required part is missing or invalid
    is_in_part: bool = False  # folders of images lack some of them

    @property
    def missing(self) -> tuple[PartCount, ...]:
        """The parts for lack of which a split cannot be converted: missing and invalid ones."""
        return tuple(part for part in self.parts if part.prevents_conversion)

    @property
    def incomplete(self) -> tuple[PartCount, ...]:
        return tuple(part for part in self.parts if part.state is PartState.INCOMPLETE)

    def replace_missing(self, excuse: PartState) -> Examination:
        """The same, but the state of missing parts is `excuse`: why the user need not get them."""
        parts = list[PartCount]()
        for part in self.parts:
            is_missing = part.state is PartState.MISSING
            parts.append(part._replace(state=excuse) if is_missing else part)
        return replace(self, parts=tuple(parts))


def examine(dataset: Dataset | _BodyFiles, raw: Path) -> Examination:
    """Examine the raw folder of a dataset, or the body model's folder."""
    splits = dataset.splits
    parts = _choose_layout(raw, dataset.release.parts)
    unreadable = files.Unreadable()
    stand_in = files.is_there(raw / MARKER)
    counts = list[PartCount]()
    bad_keypoints = list[str]()
    for part in parts:
        if isinstance(dataset, Dataset) and part.patterns[0].startswith(KEYPOINTS):
            counts.append(_count_keypoints(dataset, raw, part, bad_keypoints))
        else:
            counts.append(_count_files(raw, part, splits, unreadable, stand_in=stand_in))

    packed = _find_archives(raw, parts)
    problems = list[str]()
    for path, why in sorted(unreadable.items()):
        problems.append(f"{path} cannot be read: {why}. Make it readable.")
    problems += bad_keypoints
    pairs = zip(parts, counts, strict=True)
    absent = [part for part, count in pairs if count.state is PartState.MISSING]
    misplaced = [*misplaced_parts(raw, parts, absent, dataset.name)]
    problems += misplaced
    required = [count for count in counts if not count.without]
    is_incomplete = any(count.state is not PartState.THERE for count in required)
    if is_incomplete and not misplaced:
        problems += _packed_parts(raw, packed)
    elif not (stand_in or is_incomplete) and any(count.known is None for count in required):
        problems += _unopened_archives(raw, packed, counts)
    problems += _find_mistakes(raw, dataset.release.mistakes)
    problems += _find_surplus(counts)

    in_part = list[str]()
    if isinstance(dataset, Dataset):  # not the body model's files
        in_part = incomplete_inputs(dataset, raw)
        for split in splits:
            note = dataset.label_note(raw, split)
            if note:
                problems.append(f"{split}: {note}")
        if not parts:
            counts, unlistable = _count_videos(dataset, raw, stand_in=stand_in)
            problems += unlistable
            if not dataset.release.page:
                splits = tuple(itertools.chain.from_iterable(part.splits for part in counts))
    unusable = set[str]()
    for part_count in counts:
        if part_count.prevents_conversion:
            unusable.update(part_count.splits)
    return Examination(
        dataset.name,
        dataset.release.page,
        raw,
        stand_in,
        splits,
        tuple(counts),
        mistakes=(*in_part, *problems),
        packed=packed,
        usable=tuple(split for split in splits if split not in unusable),
        is_in_part=bool(in_part),
    )


def _choose_layout(raw: Path, parts: Sequence[ReleasePart]) -> Sequence[ReleasePart]:
    """The parts to look for. Some releases come in two layouts, and a part names its counterpart in
    the other one (`instead`): that is taken if the part is missing, and the first counterpart of
    the same splits is there.
    """
    is_other_there: dict[tuple[str, ...], bool] = {}  # splits -> is the first counterpart there?
    chosen = list[ReleasePart]()
    for part in parts:
        other = part.instead
        if other and part.splits not in is_other_there:
            is_other_there[part.splits] = files.has_match(raw, globs(other.patterns))
        if other and is_other_there[part.splits] and not files.has_match(raw, globs(part.patterns)):
            chosen.append(other)
        else:
            chosen.append(part)
    return chosen


def _count_files(
    raw: Path,
    part: ReleasePart,
    splits: tuple[str, ...],
    unreadable: files.Unreadable,
    *,
    stand_in: bool,
) -> PartCount:
    """Count the files of a part. Its patterns come back with the most files first, since that one
    tells a reader best where they are. Folders that cannot be read are added to `unreadable`.
    """
    n_files = dict[str, int]()  # by pattern
    for pattern in part.patterns:
        n_files[pattern] = 0
        for glob in globs([pattern]):
            n_files[pattern] += sum(1 for _ in files.find(raw, glob, unreadable))
    patterns = sorted(n_files, key=lambda pattern: -n_files[pattern])
    total = None if stand_in else part.known
    sorted_part = replace(part, patterns=tuple(patterns))
    return PartCount.from_part(sorted_part, splits, sum(n_files.values()), total)


def _find_surplus(counts: Sequence[PartCount]) -> Iterator[str]:
    """A message for each part of which there are more files than in the release."""
    for part in counts:
        if part.known is not None and part.found > part.known:
            yield (
                f"{part.what}: the official download has {part.known:,}, found {part.found:,}. Are "
                "two releases or splits mixed here?"
            )


def _find_mistakes(raw: Path, mistakes: Sequence[Mistake]) -> Iterator[str]:
    """A message for each known mistake that the name of a file shows, with the first such file."""
    for mistake in mistakes:
        paths = list[str]()
        for glob in globs([mistake.pattern]):
            paths += files.find(raw, glob, {})
        if paths:
            yield f"{min(paths)} {mistake.what}. {mistake.do}"


def _count_videos(
    dataset: Dataset, raw: Path, *, stand_in: bool
) -> tuple[list[PartCount], list[str]]:
    """Count the videos that the reader lists, for a dataset that declares no parts, such as the
    user's own clips: its splits take the place of parts.

    Returns the counts, and messages about what is wrong or unusual.
    """
    counts = list[PartCount]()
    problems = dict[str, None]()  # messages, each once, in order
    source = "the download" if dataset.release.page else "your own clips"
    for split in dataset.splits:
        n = 0
        try:
            videos = dataset.videos(raw, split)
            n = len(videos)
            if dataset.labels.keypoints_from == "detected":
                problems |= dict.fromkeys(_unusual_clips(raw, videos[:CLIPS_OPENED]))
        except RawDataError as error:
            problems[str(error)] = None
        except Exception as error:  # a reader of another package
            do = "Please report this bug of the dataset's code to its authors."
            problems[f"{dataset.name} cannot be examined: {describe_error(error)}. {do}"] = None
        known: int | None = None
        total = dataset.release.totals.get(split)
        if total is not None and not stand_in:
            known = total.videos
        part = ReleasePart(f"videos of {split}", (), source, (split,))
        counts.append(PartCount.from_part(part, dataset.splits, n, known))

        if n and dataset.labels.keypoints_from == "detected":
            refused = list[str]()
            part = ReleasePart(f"videos of {split} with keypoints", (), source, (split,))
            labelled = _count_keypoints(dataset, raw, part, refused)
            if labelled.found:
                counts.append(labelled)
                problems |= dict.fromkeys(refused)
    if not dataset.release.page:  # own clips need not be in every split
        counts = [part for part in counts if part.found] or counts
        sibling = raw.parent / KEYPOINTS
        if files.is_folder_there(sibling) and not files.is_folder_there(raw / KEYPOINTS):
            problems[f"{sibling} is beside {raw}. Move it there: it is not read."] = None
    return counts, [*problems]


def _unusual_clips(raw: Path, videos: Sequence[RawVideo]) -> Iterator[str]:
    """A message for each thing that is unusual about clips, with the first such clip.

    Only headers and first frames are looked at: the conversion decodes all of a clip.
    """
    clips_of = dict[str, list[str]]()
    for video in videos:
        clip = video.name
        if video.files:
            clip = str(video.files[0])
        if PurePath(clip).suffix.lower() not in VIDEOS:
            continue
        try:
            remarks = Video(raw, clip).first_look().remarks()
        except RawDataError as error:
            remarks = [str(error)]
        for remark in remarks:
            clips_of.setdefault(remark, []).append(clip)
    for remark, clips in clips_of.items():
        shown = clips[0]
        if len(clips) > 1:
            shown += f" and {count_of(len(clips) - 1, 'other clip')}"
        yield f"{shown}: {remark}"


def _count_keypoints(
    dataset: Dataset, raw: Path, part: ReleasePart, refused: list[str]
) -> PartCount:
    """Count the clips with keypoint files. The part is invalid if not one of the first
    KEYPOINTS_READ files can be read.

    Messages about those that cannot are added to `refused`.
    """
    videos: Sequence[RawVideo] = ()
    if files.is_folder_there(raw / KEYPOINTS):
        with suppress(RawDataError):  # there is no clip either
            videos = dataset.videos(raw, part.splits[0])
    labelled = list[tuple[RawVideo, Path]]()
    for video in videos:
        labels = labels_of(raw, video)
        if labels:
            labelled.append((video, labels))
    errors = list[str]()
    n = min(KEYPOINTS_READ, len(labelled))
    for video, labels in labelled[:n]:
        clip = PurePath(video.name)
        if video.files:
            clip = PurePath(video.files[0])
        stated = NOT_STATED
        if isinstance(dataset, ClipDataset):
            stated = dataset.stated(video.name)
        try:
            read_detections(labels, clip.stem, Video(raw, clip.as_posix()).sizes, stated)
        except RawDataError as error:
            errors.append(f"{error} (of the first {n} of {len(labelled)} clips with keypoints)")
    refused += errors
    refused += filter(None, (has_gaps(path) for _, path in labelled if files.is_folder_there(path)))
    counted = PartCount.from_part(part, dataset.splits, len(labelled), None)
    if labelled and len(errors) == n:
        return counted._replace(state=PartState.INVALID)
    return counted


def _packed_parts(raw: Path, archives: Sequence[Path]) -> Iterator[str]:
    """Yield a message for each folder with archives. It says how to join an archive in pieces."""
    for folder in dict.fromkeys(archive.parent for archive in archives):
        first, *more = [archive for archive in archives if archive.parent == folder]
        subject = f"{first} and {len(more)} more are" if more else f"{first} is"
        message = f"{subject} still packed. Unpack in {raw}."
        piece = _PIECE.fullmatch(first.name)
        if piece is not None:
            joined = folder / "joined.tar"
            message += f" Join its pieces first: cat {folder / piece[1]}* > {joined}"
        yield message


def _unopened_archives(
    raw: Path, archives: Sequence[Path], counts: Sequence[PartCount]
) -> Iterator[str]:
    """Yield a message for each archive beside a release of unknown size, unless a part that is
    there names it, or a folder has its name, as CMU has for CMU.tar.bz2 and SSM for SSMsynced.zip.
    """
    sources = " ".join(count.source for count in counts if count.found)
    for archive in archives:
        folders = (*files.list_folders(raw), *files.list_folders(archive.parent))
        names = tuple(filter(None, (letters(folder.name) for folder in folders)))
        if archive.name not in sources and not letters(archive.name).startswith(names):
            yield f"{archive} has no folder of its name. If it is still packed, unpack it in {raw}."


def _find_archives(raw: Path, parts: Sequence[ReleasePart]) -> tuple[Path, ...]:
    """Find archives in the raw folder and its subfolders.

    If the raw folder does not exist: archives in and below its parent that `parts` name.
    """
    if files.is_folder_there(raw):
        return tuple(_list_archives(raw))
    sources = [part.source.lower() for part in parts]
    archives = _list_archives(raw.parent)
    return tuple(file for file in archives if any(file.name.lower() in text for text in sources))


def _list_archives(folder: Path) -> list[Path]:
    archives: list[Path] = []
    for parent in (folder, *files.list_folders(folder)):
        for entry in files.scan_folder(parent, {}):
            path = parent / entry.name
            is_archive = _ARCHIVE.search(entry.name) and not files.is_litter(entry.name)
            if is_archive and files.is_there(path) and not files.is_folder_there(path):
                archives.append(path)
    return sorted(archives)

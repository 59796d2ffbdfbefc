"""Kinetics-400: clips from YouTube, with keypoints of a detector.  [raw -> tracks] -> features -> windows

Kay et al.: The Kinetics Human Action Video Dataset, 2017.

    <split>/<class>/<clip>.mp4, or <split>/<clip>.mp4
    keypoints/<split>/<clip>/<clip>_<12 digits>_keypoints.json    OpenPose --write_json, or
    keypoints/<split>/<clip>/<clip>.json                          AlphaPose
"""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Final

from pipeline.accounting import VideoAccount
from pipeline.datasets.base import Dataset, RawVideo
from pipeline.datasets.release import Mistake, Part, Totals, counted
from pipeline.errors import RawDataError
from pipeline.formats.detections import (
    Detections,
    openpose_files,
    persons,
    read_alphapose,
    read_openpose,
    rows_of,
    usable,
)
from pipeline.pixels.frames import Video
from pipeline.raw import listing
from pipeline.raw.files import is_folder
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body

EXTENSIONS: Final = (".mp4", ".avi", ".mkv", ".webm")  # the order in which one is chosen, where a clip has several
KINDS: Final = ",".join(extension[1:] for extension in EXTENSIONS)
MIN_FRAMES: Final = 25
LIST_BYTES: Final = 1 << 28  # of annotations/<split>.csv, at most; the release's largest has 15 MB
LOOKED_INTO: Final = 20  # folders of keypoints, for how their files are named
LIST: Final = "Download the annotations of the CVDF mirror again."
RUN: Final = "Run OpenPose (--write_json) or AlphaPose on it, into keypoints/ as the module says."


def _parts(split: str) -> tuple[Part, ...]:
    clips = tuple(f"{split}/{folder}*{extension}" for folder in ("*/", "") for extension in EXTENSIONS)
    source = f"the {split} archives of the CVDF mirror (k400_downloader.sh, k400_extractor.sh)"
    detector = "your own: OpenPose (--write_json) or AlphaPose, run on the clips"
    return (
        Part(
            f"clips of {split}",
            clips,
            source,
            (split,),
            shown=tuple(f"{split}/{folder}<clip>.{{{KINDS}}}" for folder in ("<class>/", "")),
        ),
        Part(
            f"clips of {split} with keypoints",
            (f"keypoints/{split}/*/",),
            detector,
            (split,),
            shown=tuple(f"keypoints/{split}/<clip>/<clip>{kind}.json" for kind in ("_<12 digits>_keypoints", "")),
        ),
        Part(
            f"list of {split}",
            (f"annotations/{split}.csv",),
            "the annotations of the CVDF mirror",
            (split,),
            without="how many clips there should be is not known",
        ),
    )


@dataclass(frozen=True)
class Kinetics(Dataset):
    """One track a person. Detectors that do not track leave it to us who is who."""

    name: ClassVar[str] = "kinetics"
    splits: ClassVar[tuple[str, ...]] = ("train", "val")
    version: ClassVar[int] = 2
    page: ClassVar[str] = "https://github.com/cvdfoundation/kinetics-dataset"
    harmless: ClassVar[frozenset[str]] = frozenset({"no_keypoints"})  # the detector need not have run on every clip
    parts: ClassVar[tuple[Part, ...]] = (*_parts("train"), *_parts("val"))
    totals: ClassVar[Mapping[str, Totals]] = {"val": Totals(videos=19_906)}  # rows of the release's list

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:  # noqa: ARG002 - the same for all
        return ("frame_index", "bbox", "kp_2d")

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:
        clips, detected = raw / split, raw / "keypoints" / split
        if not clips.is_dir() and not detected.is_dir():
            expected = f"{split}/<class>/<clip>.mp4 and keypoints/{split}/<clip>/"
            do = "Point the raw folder at the downloaded clips."
            raise RawDataError(clips, "folder", expected=expected, found="no such folder", do=do)
        with_keypoints = {entry.name for entry in _entries(detected) if is_folder(entry)}
        files: dict[str, list[Path]] = {}
        for file in _clips(clips, Path(split)):
            files.setdefault(file.with_suffix("").as_posix(), []).append(file)
        for clip in with_keypoints - {name.rpartition("/")[2] for name in files}:
            files[f"{split}/{clip}"] = []  # keypoints of a video that is not there: each is told
        return [_raw_video(split, name, files[name], with_keypoints) for name in sorted(files)]

    def known(self, raw: Path, part: Part) -> int | None:
        """Of clips, the rows of the release's own list, where that is there too; of keypoints, the clips there."""
        split = part.splits[0]
        if part.what == f"clips of {split}":
            listed = _rows_of_list(raw / f"annotations/{split}.csv")
            whole = listed is not None and listed >= len(_names_of_clips(raw, split))
            return listed if whole else self.totals.get(split, Totals()).videos
        if part.what == f"clips of {split} with keypoints":
            return len(_names_of_clips(raw, split) | listing.names_in(raw / "keypoints" / split)) or None
        return part.known

    def mistakes(self, raw: Path) -> Iterator[Mistake]:
        if listing.names_in(raw / "replacement"):
            what = "replacement/ holds whole clips for those of train that were published corrupted"
            yield Mistake(what, "Move them over the clips of the same names in train/, and remove that folder.")
        yield from _without_split(raw, self.splits)
        for split in self.splits:
            detected, clips = raw / "keypoints" / split, _names_of_clips(raw, split)
            with_keypoints = listing.names_in(detected)
            yield from _bad_list(raw / f"annotations/{split}.csv", len(clips))
            if not with_keypoints:
                continue  # then that is told as a missing part
            if without := clips - with_keypoints:
                of = counted(len(clips), "clip", "clips")
                what = f"{len(without):,} of {of} of {split} have no keypoints, first {min(without)}"
                yield Mistake(what, "They are counted as no_keypoints; run the detector on them to have them too.")
            if alone := with_keypoints - clips:
                belong = counted(
                    len(alone), f"folder in keypoints/{split} belongs", f"folders in keypoints/{split} belong"
                )
                what = f"{belong} to no clip, first {min(alone)}"
                yield Mistake(what, "A folder must be called as its clip, without the extension and without its class.")
            for clip in heapq.nsmallest(LOOKED_INTO, with_keypoints):
                if (found := _names_of_another_kind(detected / clip)) is not None:
                    what = f"keypoints/{split}/{clip}/ holds {found}"
                    yield Mistake(
                        what, f"Expected {clip}_<12 digits>_keypoints.json (OpenPose) or {clip}.json (AlphaPose)."
                    )
                    break

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None  # noqa: ARG002
    ) -> Sequence[Track]:  # fmt: skip
        clip = video.name.rpartition("/")[2]
        detections = _detections(raw / video.label_folders[0], clip, account) if video.label_folders else None
        if detections is None:
            account.put_aside("no_keypoints", f"{raw / 'keypoints' / split / clip}: no keypoints of this video. {RUN}")
            return []
        account.found = detections.n_persons
        source = _source(raw, video, account)
        header = source.header()
        source.require_decodable()
        if len(detections.frame_index) and header.n_frames is not None:
            last = int(detections.frame_index[-1])
            if last >= header.n_frames:
                account.notes.append(f"keypoints reach frame {last}, the video says it has {header.n_frames} frames")

        detections = usable(detections, account)
        tracks = []
        for person, members in persons(detections, account):
            rows = rows_of(detections, members, account, MIN_FRAMES)
            if rows is not None:
                frame_index, bbox, kp_2d = rows
                tracks.append(
                    Track(
                        dataset=self.name,
                        split=split,
                        name=f"{video.name}/{person}",
                        video=video.name,
                        fps=header.fps,
                        frame_index=frame_index,
                        bbox=bbox,
                        kp_2d=kp_2d,
                        frames=source,
                    )
                )
        return tracks


def _rows_of_list(file: Path) -> int | None:
    """Clips in a list of the release; None when there is no such list."""
    try:
        with file.open("rb") as lines:
            if b"youtube_id" not in lines.readline(1 << 16) or file.stat().st_size > LIST_BYTES:
                return None
            return sum(1 for line in lines if line.strip())
    except OSError:
        return None


def _bad_list(file: Path, n_clips: int) -> Iterator[Mistake]:
    """A list that broke off, or is an error page, says nothing of how many clips there should be."""
    if not file.is_file():
        return
    rows, name = _rows_of_list(file), f"annotations/{file.name}"
    if rows is None:
        yield Mistake(f"{name} is not the release's list: its first line does not name youtube_id", LIST)
    elif rows < n_clips:
        listed, there = counted(rows, "clip", "clips"), counted(n_clips, "is", "are")
        yield Mistake(f"{name} lists {listed}, and {there} there: not used", LIST)


def _without_split(raw: Path, splits: Sequence[str]) -> Iterator[Mistake]:
    """Keypoints of clips whose split was left out of their path."""
    alone = [folder.name for folder in listing.all_folders_in(raw / "keypoints") if folder.name not in splits]
    clips = {split: _names_of_clips(raw, split) for split in splits} if alone else {}
    for split, names in clips.items():
        if found := [clip for clip in alone if clip in names]:
            lie = counted(len(found), "folder lies", "folders lie")
            what = f"{lie} in keypoints/ itself, first {found[0]}, which is a clip of {split}"
            yield Mistake(what, f"Move the folders of {split}'s clips into keypoints/{split}/.")


def _names_of_clips(raw: Path, split: str) -> set[str]:
    return {file.stem for file in _clips(raw / split, Path(split))}


def _names_of_another_kind(folder: Path) -> str | None:
    """A name in a folder of keypoints where none is as it must be; None when one is, or there are none."""
    clip = re.escape(folder.name)
    expected = re.compile(rf"{clip}(_\d{{12}}_keypoints)?\.json")
    names = listing.names_in(folder)
    return None if not names or any(expected.fullmatch(name) for name in names) else min(names)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in a folder but hidden things (of a Mac: ._<clip>.mp4), by name; nothing when it is not there."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _clips(folder: Path, below: Path) -> Iterator[Path]:
    """Video files in a split's folder and in its class folders."""
    for entry in _entries(folder):
        if is_folder(entry):
            inner = (below / entry.name / file.name for file in _entries(folder / entry.name))
            yield from (file for file in inner if file.suffix.lower() in EXTENSIONS)
        elif Path(entry.name).suffix.lower() in EXTENSIONS:
            yield below / entry.name


def _raw_video(split: str, name: str, clips: list[Path], with_keypoints: set[str]) -> RawVideo:
    clip = name.rpartition("/")[2]
    files = sorted(clips, key=lambda file: (EXTENSIONS.index(file.suffix.lower()), file.name))
    keypoints = (Path("keypoints", split, clip),) if clip in with_keypoints else ()
    return RawVideo(name, files=tuple(files), label_folders=keypoints)


def _source(raw: Path, video: RawVideo, account: VideoAccount) -> Video:
    if not video.files:
        expected, do = f"{video.name}.mp4", "Download it again, if YouTube still has it."
        raise RawDataError(
            raw / video.name, "video", expected=expected, found="keypoints alone", do=do, reason="video_missing"
        )
    clip, *others = video.files
    account.notes.extend(f"{other.name} is not used: {clip.name} is the same clip" for other in others)
    return Video(raw, clip.as_posix())


def _detections(folder: Path, clip: str, account: VideoAccount) -> Detections | None:
    """OpenPose's files, or else AlphaPose's; None when there are neither."""
    files, alphapose = openpose_files(folder, clip), folder / f"{clip}.json"
    if files:
        if alphapose.is_file():
            account.notes.append(f"{alphapose.name} is not used: OpenPose's files lie beside it")
        return read_openpose(files)
    return read_alphapose(alphapose) if alphapose.is_file() else None

"""Rows of an opened database file as videos and tracks of the cache.  [database files -> tracks],
features

`vibe_db.importing` takes the videos from a `FileReader`:

    neighbouring rows with one name -> a segment -> its labels (`labels`) -> usable rows -> a track
    for each run of them whose frame numbers increase (`_increasing_runs`)

All segments whose names have the same video are one video.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

import cache
from pipeline.accounting import VideoAccount
from pipeline.cli import pages
from pipeline.errors import PipelineError
from pipeline.extras.exchange.array_files import StampedFile
from pipeline.extras.exchange.rows import names_of
from pipeline.extras.exchange.vibe_db.database import Database, Segment
from pipeline.extras.exchange.vibe_db.labels import OTHER_UNIT, LabelReader, Labels
from pipeline.grades import video_numbers
from pipeline.people.skeletons import Ints, are_usable_numbers
from pipeline.people.track import FLAGS, Track, column_problems, other_units

_LARGEST_FRAME: Final = 2**40
UNITS: Final = ("pose", "has_smpl")  # a column whose units are checked, and its flag
_LAST_NUMBER: Final = re.compile(r"([0-9]{1,18})([^0-9/]*)\Z")


@dataclass(frozen=True, slots=True, eq=False)
class _ImportedVideo:
    """One video for the cache, and the numbers of its rows in the file."""

    entry: cache.VideoEntry
    tracks: tuple[Track, ...]
    account: VideoAccount
    rows: Ints  # row numbers in the file, in the order of the tracks' rows


class _SegmentTracks(NamedTuple):
    """The tracks of a segment."""

    image_names: list[str]  # of all its rows; empty if the file has none
    frame_index: Ints  # of all its rows
    tracks: list[Track]
    rows: list[Ints]  # for each track, the numbers of its rows in the file


@dataclass(frozen=True, slots=True)
class FileReader:
    """Reads the videos of a split from a database file."""

    database: Database
    labels: LabelReader
    dataset: str
    split: str
    file: StampedFile

    @property
    def columns(self) -> tuple[str, ...]:
        """The cache's columns that the file can fill."""
        return ("frame_index", *self.labels.columns)

    def videos(self) -> Iterator[_ImportedVideo]:
        """Yield every video, in the order of their first rows. Holds one video's labels, and all
        names.
        """
        by_video: dict[str, list[Segment]] = {}
        for segment in self.database.segments():
            by_video.setdefault(segment.video, []).append(segment)
        for video, segments in by_video.items():
            yield self._video(video, segments)

    def _video(self, video: str, segments: Sequence[Segment]) -> _ImportedVideo:
        """Read a video's rows."""
        account = VideoAccount(video, found=sum(len(segment.rows) for segment in segments))
        n_tracks = Counter[str]()  # by person
        parts = []
        for segment in segments:
            part = self._segment_tracks(segment, n_tracks[segment.person], account)
            n_tracks[segment.person] += len(part.tracks)
            parts.append(part)
        account.check()
        image_names = [name for part in parts for name in part.image_names]
        source = _source_of(image_names, np.concatenate([part.frame_index for part in parts]))
        if image_names and source is None:
            account.note("img_name is not kept: its names are no numbered images in a raw folder")
        fingerprint = hashlib.sha256(f"{self.file.sha256} {video}".encode()).hexdigest()
        rows = [np.zeros(0, np.int64)]
        tracks: list[Track] = []
        for part in parts:
            rows += part.rows
            tracks += part.tracks
        entry = cache.VideoEntry(
            name=video,
            source=source or "",
            fingerprint=fingerprint,
            account=account.as_dict(),
            **video_numbers([track.rows for track in tracks], account.as_dict()),
        )
        return _ImportedVideo(entry, tuple(tracks), account, np.concatenate(rows))

    def _segment_tracks(
        self, segment: Segment, n_before: int, account: VideoAccount
    ) -> _SegmentTracks:
        """Read a segment's tracks, and count its rows.

        A person's first track is called VIDEO/PERSON, the next one VIDEO/PERSON_part1. n_before:
        number of the person's tracks in the segments before.
        """
        image_names: list[str] = []
        if "img_name" in self.database.fields:
            image_names = self.database.texts("img_name", segment.rows)
        frame_index = self._frames(segment, image_names)
        labels = self.labels.read(segment.rows)
        is_usable = np.broadcast_to(account.drop_rows(_reasons_to_drop(labels)), frame_index.shape)
        usable = np.flatnonzero(is_usable)
        if not len(usable):
            account.drop_track("no_frame_left", 0)
        tracks = []
        rows = []
        for number, run in enumerate(_increasing_runs(frame_index, usable), n_before):
            name = f"{segment.video}/{segment.person}"
            if number:
                name += f"_part{number}"
            run_labels = {column: values[run] for column, values in labels.items()}
            tracks.append(self._track(name, segment.video, frame_index[run], run_labels))
            account.keep_track(len(run))
            rows.append(segment.rows.start + run)
        return _SegmentTracks(image_names, frame_index, tracks, rows)

    def _track(self, name: str, video: str, frame_index: Ints, labels: Labels) -> Track:
        """The track of these rows. Raises RawDataError for the first problem with its values."""
        flags: dict[str, Any] = {
            flag: labels[flag].astype(bool) for flag in FLAGS if flag in labels
        }
        track = Track(
            dataset=self.dataset,
            split=self.split,
            name=name,
            video=video,
            fps=np.nan,
            frame_index=frame_index,
            crop_scale=self.labels.layout.crop_scale,
            **(labels | flags),
        )
        problem = next(column_problems(track.columns), None)
        if problem:
            expected = f"rows that comply with {pages.CACHE_FORMAT}"
            raise self.database.error("vid_name", expected, problem)
        checked: Labels = {column: labels[column] for column in UNITS if column in labels}
        for column, expected, actual in other_units(checked):
            raise self.database.error(column, expected, f"{actual} in {name}", OTHER_UNIT)
        return track

    def _frames(self, segment: Segment, image_names: Sequence[str]) -> Ints:
        """Frame indices: the numbers in frame_id ("frame_000012" is 12), else in the image names,
        else 0, 1, 2, ... Raises RawDataError for numbers out of range.
        """
        field = "frame_id"
        numbers = self._frame_ids(segment)
        if numbers is None:
            field = "img_name"
            numbers = self._image_numbers(image_names)
        if numbers is None:
            return np.arange(len(segment.rows))
        lowest = numbers.min()
        highest = numbers.max()
        if lowest < 0 or highest > _LARGEST_FRAME:
            actual = f"{lowest} to {highest} in {segment.name!r}"
            raise self.database.error(field, "frame numbers from 0 on", actual)
        return numbers

    def _frame_ids(self, segment: Segment) -> Ints | None:
        """The numbers of frame_id; None without."""
        stored = self.database.fields.get("frame_id")
        if stored is None:
            return None
        if stored.dtype.kind in "biu":
            return self.database.read("frame_id", segment.rows).astype(np.int64)
        return _parse_numbers(self.database.texts("frame_id", segment.rows))

    def _image_numbers(self, image_names: Sequence[str]) -> Ints | None:
        """The frame numbers in image names; None without."""
        numbers = _parse_numbers(image_names)
        first_picture = self.labels.layout.first_picture
        if numbers is not None and numbers.min() >= first_picture:
            return numbers - first_picture
        return numbers


def _reasons_to_drop(labels: Labels) -> dict[str, ArrayLike]:
    """Reason -> (n,) whether it applies to a row of a segment: no box, or no visible joint, where
    the file has these.
    """
    if "bbox" not in labels:
        return {}
    bbox = labels["bbox"]
    is_box = are_usable_numbers(bbox).all(axis=1) & (bbox[:, 2] > 0)
    is_visible = (labels["kp_2d"][..., 2] > 0).any(axis=1)
    return {"degenerate_box": ~is_box, "no_visible_joint": ~is_visible}


def _increasing_runs(frame_index: Ints, rows: Ints) -> list[Ints]:
    """Split row numbers where the rows' frame numbers do not increase. frame_index: of
    all rows.

    >>> [run.tolist() for run in _increasing_runs(np.array([3, 4, 4, 7]), np.array([0, 1, 2, 3]))]
    [[0, 1], [2, 3]]
    """
    if not len(rows):
        return []
    starts = np.flatnonzero(np.diff(frame_index[rows]) <= 0) + 1
    return np.split(rows, starts)


def _parse_numbers(texts: Sequence[str]) -> Ints | None:
    """The last number in each text, such as 12 in "frames/0001/000012.jpg"; None if a text has no
    number, or there are no texts.
    """
    numbers = []
    for text in texts:
        match = _LAST_NUMBER.search(text)
        if match is None:
            return None
        numbers.append(int(match[1]))
    return np.array(numbers, np.int64) if numbers else None


def _source_of(names: Sequence[str], frame_index: Ints) -> str | None:
    """The pixel source whose frames have these names; None if there is none in a raw folder.

    >>> _source_of(["a/000007.jpg", "a/000009.jpg"], np.array([6, 8]))
    'pictures:a/{:06d}.jpg+1'
    >>> _source_of(["/elsewhere/000007.jpg"], np.array([6]))
    """
    numbers = _parse_numbers(names)
    if numbers is None:
        return None
    first = int(numbers[0] - frame_index[0])  # the number of the image of frame 0
    source = _guess_source(names, first)
    if source is None:
        return None
    try:
        name_of = names_of(source)
    except (PipelineError, ValueError):  # an absolute path, or one with '..'
        return None
    source_names = [name_of(frame) for frame in frame_index.tolist()]
    return source if source_names == list(names) else None


def _guess_source(names: Sequence[str], first: int) -> str | None:
    """The source that the first name suggests; None if no pattern can have such names.

    first: the number of the image of frame 0.
    """
    match = _LAST_NUMBER.search(names[0])
    assert match is not None  # as `_parse_numbers` found
    before = names[0][: match.start()]
    after = match[2]
    if before.endswith("#") and not after and first == 0:
        return f"video:{before.removesuffix('#')}"
    if re.search("[{}]", before + after):  # a pattern would fill them in
        return None
    texts = [name[len(before) : len(name) - len(after)] for name in names]
    padded = [len(text) for text in texts if text.startswith("0")]
    digits = padded[0] if padded else 1
    return f"pictures:{before}{{:0{digits}d}}{after}+{first}"

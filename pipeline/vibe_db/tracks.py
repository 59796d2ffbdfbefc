"""A database file's rows as videos and tracks.  [database files -> tracks], features

All rows of one name are one video; of one name written by our own export, the video and the person that it names. A
name that comes back later in the file, and a frame number that does not increase, begin another track.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline.accounting import VideoAccount
from pipeline.conversion.convert import FLAGS, PER_FRAME
from pipeline.datasets.contract import column_problems
from pipeline.track import Track
from pipeline.vibe_db.layouts import Layout
from pipeline.vibe_db.picture_names import numbers_in, source_of
from pipeline.vibe_db.rows import converted, dropped_rows
from pipeline.vibe_db.stored import Database, Segment

Rows = NDArray[np.int64]

_OWN: Final = re.compile(r"(.+)/(\d+(?:_(?:seg|part)\d+)*)")  # <video>/<person>, and a stretch of it
LARGEST_FRAME: Final = 2**40


@dataclass(frozen=True, slots=True, eq=False)
class ImportedVideo:
    """One video as it goes into the cache, and where in the file its rows are."""

    entry: cache.VideoEntry
    tracks: tuple[cache.TrackRows, ...]
    account: VideoAccount
    rows: Rows  # of the file, in the order of the tracks' rows


@dataclass(frozen=True, slots=True)
class FileReader:
    """Reads videos out of a database file. `columns` are the cache's that it fills."""

    database: Database
    layout: Layout
    dataset: str
    split: str
    columns: tuple[str, ...]
    digest: str  # sha256 of the file

    def videos(self) -> Iterator[ImportedVideo]:
        """Every video, in the order in which they begin in the file. Memory: one video's labels, and all names."""
        for video, parts in grouped(self.database.segments()).items():
            yield self._video(video, parts)

    def _video(self, video: str, parts: Sequence[tuple[str, Segment]]) -> ImportedVideo:
        account = VideoAccount(video, found=sum(part.stop - part.start for _, part in parts))
        tracks: list[cache.TrackRows] = []
        rows: list[Rows] = []
        pictures: list[str] = []
        frames: list[Rows] = []
        numbers: dict[str, int] = {}
        for person, part in parts:
            names = self._texts("img_name", part)
            frame = self._frames(part, names)
            pictures += names or ()
            frames.append(frame)
            labels = converted(self.database, self.layout, self.columns, part.start, part.stop)
            keep = np.ones(len(frame), bool)
            for reason, dropped in dropped_rows(labels).items():
                account.drop(reason, int(dropped.sum()))
                keep &= ~dropped
            if not keep.any():
                account.drop_track("no_frame_left", 0)
            for piece in increasing_pieces(frame, np.flatnonzero(keep)):
                number = numbers[person] = numbers.get(person, -1) + 1
                name = f"{video}/{person}" + (f"_part{number}" if number else "")
                tracks.append(self._track(name, video, frame[piece], {k: v[piece] for k, v in labels.items()}))
                account.keep_track(len(piece))
                rows.append(piece + part.start)
        account.check()
        source = source_of(pictures, np.concatenate(frames)) if pictures else ""
        if pictures and not source:
            account.notes.append("img_name is not kept: these names are no numbered pictures below a raw folder")
        fingerprint = hashlib.sha256(f"{self.digest} {video}".encode()).hexdigest()
        entry = cache.VideoEntry(name=video, source=source, fingerprint=fingerprint, account=account.as_dict())
        return ImportedVideo(entry, tuple(tracks), account, np.concatenate([np.zeros(0, np.int64), *rows]))

    def _track(self, name: str, video: str, frame: Rows, labels: dict[str, NDArray[Any]]) -> cache.TrackRows:
        flags: dict[str, Any] = {flag: labels[flag].astype(bool) for flag in FLAGS if flag in labels}
        track = Track(
            dataset=self.dataset,
            split=self.split,
            name=name,
            video=video,
            fps=np.nan,
            frame_index=frame,
            crop_scale=self.layout.crop_scale,
            **(labels | flags),
        )
        columns = {column: getattr(track, column) for column in (*PER_FRAME, *FLAGS)}
        columns = {column: values for column, values in columns.items() if values is not None}
        if problems := column_problems(columns):
            raise self.database.error("vid_name", "rows that keep the promises of docs/cache-format.md", problems[0])
        return cache.TrackRows(
            name=name, video=video, step=track.step, fps=np.nan, crop_scale=track.crop_scale, columns=columns
        )

    def _frames(self, part: Segment, names: list[str] | None) -> Rows:
        """Frame indices of a segment: as the file has them, else by the names of its pictures, else counted from 0."""
        frame = self._numbers(part)
        if frame is None and names is not None and (numbered := numbers_in(names)) is not None:
            first = self.layout.first_picture
            frame = numbered - (first if numbered.min() >= first else 0)
        if frame is None:
            return np.arange(part.stop - part.start)
        if (frame < 0).any() or (frame > LARGEST_FRAME).any():
            raise self.database.error("frame_id", "frame numbers from 0 on", f"{frame.min()} in {part.name!r}")
        return frame

    def _texts(self, field: str, part: Segment) -> list[str] | None:
        return self.database.texts(field, part.start, part.stop) if field in self.database.fields else None

    def _numbers(self, part: Segment) -> Rows | None:
        """frame_id as numbers, or the numbers in it ("frame_000012"); None without."""
        if "frame_id" not in self.database.fields:
            return None
        if self.database.fields["frame_id"].dtype.kind in "biu":
            return self.database.read("frame_id", part.start, part.stop).astype(np.int64)
        return numbers_in(self.database.texts("frame_id", part.start, part.stop))


def increasing_pieces(frame: Rows, kept: Rows) -> list[Rows]:
    """`kept`, cut where the frame number does not increase.

    >>> [piece.tolist() for piece in increasing_pieces(np.array([3, 4, 4, 7]), np.array([0, 1, 2, 3]))]
    [[0, 1], [2, 3]]
    """
    return np.split(kept, np.flatnonzero(np.diff(frame[kept]) <= 0) + 1) if len(kept) else []


def grouped(segments: Iterator[Segment]) -> dict[str, list[tuple[str, Segment]]]:
    """Video -> its segments, each with the person that it shows, in the order of the file.

    >>> grouped(iter([Segment("0001/0_seg1", 0, 9), Segment("/data/labels/0002.mat", 9, 12)]))
    {'0001': [('0_seg1', Segment(name='0001/0_seg1', start=0, stop=9))], \
'/data/labels/0002.mat': [('0', Segment(name='/data/labels/0002.mat', start=9, stop=12))]}
    """
    videos: dict[str, list[tuple[str, Segment]]] = {}
    for segment in segments:
        own = _OWN.fullmatch(segment.name)
        video, person = (own[1], own[2]) if own else (segment.name, "0")
        videos.setdefault(video, []).append((person, segment))
    return videos

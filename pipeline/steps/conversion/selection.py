"""Which of a reader's tracks and rows the user takes: `[convert] corrections` and `max_fps`.
[raw -> tracks] -> features -> windows

`files.raw.corrections` reads the lines of the user's file. Readers of clips do those of people;
`select` takes away the tracks and frames that others leave out, then rows that follow each other
faster than `max_fps`. Both count in the video's account. The account also has the lines and where
their tracks are (`VideoAccount.corrections`): the plan reads a video again of which the file has
other lines now, and all videos if `max_fps` is another, as part of the reader's identity.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline import datasets
from pipeline.accounting import ABOVE_MAX_FPS, LEFT_OUT, VideoAccount
from pipeline.datasets.base import Dataset
from pipeline.errors import ConfigError
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.files.raw import RawVideo
from pipeline.files.raw.corrections import LEAVE_OUT, Correction, read_corrections
from pipeline.files.raw.video_names import VideoNames
from pipeline.people.skeletons import Doubles, Ints
from pipeline.people.track import Track, free_name
from pipeline.steps.conversion_record import CORRECTIONS, ConversionRecord

SAME_RATE: Final = 0.99  # 30.02 frames a second, as phones film, are no more than 30
TIME_ERROR: Final = 0.005  # s: 2 ms at both ends of a clip, by phones; and containers round
SHORTEST: Final = 0.9  # share of 1 / max_fps that rows of uneven frames are apart
CHANGE: Final = 1.0  # s that another step must last, so that a track is cut
TICK: Final = 0.002  # s, shorter than any frame
ROUNDING: Final = 2e-6  # s, of stored times


@dataclass(frozen=True, slots=True)
class RowSelection:
    """The settings of [convert] that decide which tracks and rows of the reader are taken."""

    max_fps: float | None = None  # most rows a second; None: all
    corrections: Path | None = None  # the user's file; None: tracks are as the reader gives them

    @classmethod
    def from_record(cls, record: ConversionRecord) -> RowSelection:
        """Which of the reader's tracks and rows a committed conversion took."""
        corrections = record.split.provenance.get(CORRECTIONS)
        return cls(record.reader.get("max_fps"), Path(str(corrections)) if corrections else None)

    def mark(
        self, videos: Sequence[RawVideo], split: str, names: VideoNames, dataset: Dataset
    ) -> tuple[RawVideo, ...]:
        """The videos of a split, each with its lines of the file (`RawVideo.corrections`).

        Raises ConfigError as `read_corrections` does, and for lines about people of a dataset that
        has no detected ones. names: of all videos of the dataset.
        """
        if self.corrections is None:
            return tuple(videos)
        by_video = defaultdict[str, list[Correction]](list)
        in_records = {video.name for video in videos if video.span is not None}
        others = {*datasets.names()} - {dataset.name}
        for line in read_corrections(self.corrections, names, others):
            has_people = dataset.corrects_people and line.video not in in_records
            if line.verb != LEAVE_OUT and not has_people:
                raise ConfigError(
                    f"{line.where}: join, cut, exchange_sides and identities hold for clips of "
                    f"videos, kinetics and insta_variety alone, found {line.text!r}."
                )
            if line.split in ("", split):
                by_video[line.video].append(line)
        return tuple(
            replace(video, corrections=tuple(by_video.get(video.name, ()))) for video in videos
        )


ALL_ROWS: Final = RowSelection()


def select(
    tracks: Sequence[Track],
    account: VideoAccount,
    corrections: Sequence[Correction],
    max_fps: float | None,
    extra: Collection[cache.ExtraColumn],
) -> list[Track]:
    """The tracks and rows of a video that the user takes; counts the others in its account.

    extra: the reader's extra columns. Raises RawDataError for a line that fits no track, and for
    one about people that the reader has not done.
    """
    if account.set_aside or account.other_split:
        account.corrections = {line.text: [] for line in corrections}
        return [*tracks]
    for line in corrections:
        if line.names[0] == account.name:
            account.corrections[line.text] = []
    record = ClipRecord.from_dict(account.clip)
    used_names = {track.name for track in tracks}
    subjects = []
    names = []
    selected_tracks = []
    for number, track in enumerate(tracks):
        parts = [track]
        if max_fps is not None and not math.isnan(track.fps):
            parts = _limit_rate(track, max_fps, record, extra)
        account.tracks_kept += len(parts) - 1
        n_above = len(track.frame_index)
        for k, part in enumerate(parts):
            n_rows = len(part.frame_index)
            n_above -= n_rows
            name = free_name(track.name, "-", k, used_names)
            names.append(name)
            if k:
                person = track.name.removeprefix(f"{account.name}/")
                whole = [person, *track.frame_index[[0, -1]].tolist()]
                account.people[name] = account.people.get(track.name, [whole])
            rows = _rows_to_take(name, part, account, corrections)
            if not len(rows):
                account.take_back_track(LEFT_OUT, n_rows)
                continue
            account.take_back_rows(LEFT_OUT, n_rows - len(rows))
            selected_tracks.append(replace(part.take(rows, extra), name=name))
            subjects += account.subjects[number : number + 1]
        account.take_back_rows(ABOVE_MAX_FPS, n_above)
    if len(account.subjects) == len(tracks):
        account.subjects = subjects
    for line in corrections:
        if line.text not in account.corrections:
            tracks_now = f"a track of this video, which has {', '.join(names) or 'none'}"
            raise line.misfit(tracks_now, line.text)
    if len(names) > len(tracks):
        account.note(f"cut where the frame rate changes: {', '.join(names)}")
    return selected_tracks


def _rows_to_take(
    name: str, track: Track, account: VideoAccount, corrections: Sequence[Correction]
) -> Ints:
    """The rows of a track that no line leaves out."""
    frames = track.frame_index
    boxes = np.zeros((len(frames), 3)) if track.bbox is None else track.bbox[:, :3]
    places = np.column_stack([frames, boxes])
    is_out = np.zeros(len(frames), np.bool_)
    for line in corrections:
        is_inside = (frames >= line.frames[0]) & (frames <= line.frames[1])
        if line.verb == LEAVE_OUT and line.names[0] in (name, account.name) and is_inside.any():
            if line.places:
                line.check_place(0, places[frames == line.places[0][0]].tolist())
            if line.names[0] == name:
                account.corrections[line.text] = [places[len(places) // 2].tolist()]
            is_out |= is_inside
    return np.flatnonzero(~is_out)


def _limit_rate(
    track: Track,
    max_fps: float,
    record: ClipRecord | None,
    extra: Collection[cache.ExtraColumn],
) -> list[Track]:
    """The rows of a track that are far enough apart.

    Rows of even frames are at least 1 / max_fps apart, by their numbers. Of uneven ones, none is
    nearer than SHORTEST / max_fps to the one before; where the usual step changes, the track is in
    parts, as windows have one step.
    """
    frames = track.frame_index.astype(np.int64)
    if record is None or record.is_even:
        fps = track.fps
        if record is not None and record.n_frames > 1:
            # the lowest rate that may look like this one, which matters in short clips
            fps /= 1 + TIME_ERROR * fps / (record.n_frames - 1)
        apart = math.ceil(fps / max_fps * SAME_RATE)
        rows = _rows_apart(frames, np.full(len(frames), apart))
        return [track if len(rows) == len(frames) else track.take(rows, extra)]

    as_played = replace(record, filmed_fps=math.nan)  # as `times` are
    filmed_per_played = track.fps / as_played.fps_of(frames)
    from_first = frames - frames[0]
    times = record.all_times[frames[0] : frames[-1] + 1]
    shortest = SHORTEST / max_fps * filmed_per_played - ROUNDING
    apart_at, cuts = _frames_apart(times, shortest)
    rows = _rows_apart(from_first, apart_at[from_first])
    parts = []
    for part in np.split(rows, np.searchsorted(from_first[rows], cuts)):
        if len(part):
            fps = filmed_per_played * as_played.fps_of(frames[part])
            parts.append(replace(track.take(part, extra), fps=fps))
    return parts


def _frames_apart(times: Doubles, shortest: float) -> tuple[Ints, Ints]:
    """How many frames rows are apart that are at least `shortest` (s) apart in time.

    times: (N,) s of all frames. Returns a number for each frame, and the frames from which on the
    usual number is another one for CHANGE or longer. It is not lower for less than half of CHANGE:
    of rounded times, some steps of n frames are long enough and others are not, and then rows are
    n + 1 frames apart.
    """
    from scipy.ndimage import grey_closing, grey_opening  # 0.1 s, and most clips are even

    least = np.searchsorted(times, times + shortest) - np.arange(len(times))
    # A pause, which may be of years where a camera sets its clock, counts as 2 * CHANGE.
    steps = np.minimum(np.diff(times, prepend=times[0]), 2 * CHANGE)
    clock = np.cumsum(steps)
    ticks = np.arange(0, clock[-1] + 2 * TICK, TICK)
    at_ticks = least[np.searchsorted(clock, ticks, side="right") - 1]
    size = round(CHANGE / TICK)
    usual = grey_opening(grey_closing(at_ticks, size // 2), size)[np.searchsorted(ticks, clock)]
    return np.maximum(least, usual), np.flatnonzero(np.diff(usual)) + 1


def _rows_apart(frames: NDArray[np.integer], apart: NDArray[np.integer]) -> NDArray[np.int64]:
    """The rows from the first one on that are far enough behind the last one taken.

    frames: (T,) increasing. apart: (T,) frames from each row to the next one that may be taken.

    >>> _rows_apart(np.array([0, 1, 2, 3, 7, 8]), np.full(6, 2)).tolist()
    [0, 2, 4]
    """
    rows = []
    earliest = 0
    for row, frame in enumerate(frames.tolist()):
        if frame >= earliest:
            rows.append(row)
            earliest = frame + int(apart[row])
    return np.array(rows, np.int64)

"""Which of a reader's tracks and rows the user takes: `[convert] leave_out` and `max_fps`.
[raw -> tracks] -> features -> windows

`leave_out` names a list of tracks, which pages of tracks help to write: a full name on each line,
and why, behind " #":

    videos/train/dance.mp4/1  # bad: two people

`select` takes these tracks away, and of the others the rows that follow each other faster than
`max_fps`. Both count in the video's account. The account also has the names that the list had of
the video (`VideoAccount.left_out`): the plan reads a video again of which it has
others now, and all videos if `max_fps` is another, as part of the reader's identity.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline import datasets
from pipeline.accounting import ABOVE_MAX_FPS, LEFT_OUT, VideoAccount
from pipeline.datasets.base import Dataset
from pipeline.errors import ConfigError, did_you_mean
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.files.raw import RawVideo
from pipeline.skeletons import Doubles, Ints
from pipeline.track import Track, free_name

COMMENT: Final = " #"
SAME_RATE: Final = 0.99  # 30.02 frames a second, as phones film, are no more than 30
TIME_ERROR: Final = 0.005  # s: 2 ms at both ends of a clip, by phones; and containers round
SHORTEST: Final = 0.9  # share of 1 / max_fps that rows of uneven frames are apart
CHANGE: Final = 1.0  # s that another step must last, so that a track is cut
TICK: Final = 0.002  # s, shorter than any frame
ROUNDING: Final = 2e-6  # s, of stored times
KEY: Final = "[convert] leave_out"


class _ListedTrack(NamedTuple):
    """A line of the list."""

    number: int  # from 1
    track: str  # without dataset and split


@dataclass(frozen=True, slots=True)
class RowSelection:
    """The settings of [convert] that decide which tracks and rows of the reader are taken."""

    max_fps: float | None = None  # most rows a second; None: all
    leave_out: Path | None = None  # the user's list of tracks; None: no track is left out

    def mark(
        self,
        videos: Iterable[RawVideo],
        dataset: Dataset,
        split: str,
        committed: cache.Split | None,
    ) -> tuple[RawVideo, ...]:
        """The videos, each with the names of its tracks in the list (`RawVideo.left_out`).

        Raises ConfigError, with the line, for a list that cannot be read, and for a track of a
        video that neither the raw folder nor the cache has.
        """
        listed = tuple(videos)
        if self.leave_out is None:
            return listed
        by_video: dict[str, list[_ListedTrack]] = {}
        for line in _read_list(self.leave_out, dataset, split):
            by_video.setdefault(line.track.rpartition("/")[0], []).append(line)
        if not by_video:
            return listed
        marked = []
        for video in listed:
            lines = by_video.get(video.name, ())
            names = tuple(sorted({line.track for line in lines}))
            marked.append(replace(video, left_out=names) if names else video)
        video_names = {video.name for video in listed}
        if committed is not None:
            video_names.update(committed.videos.names)
        for video_name, lines in by_video.items():
            if video_name not in video_names:
                similar = did_you_mean(video_name, sorted(video_names)) or "."
                name = f"{dataset.name}/{split}"
                raise ConfigError(
                    f"{self.leave_out}, line {lines[0].number}: {name} has no video "
                    f"{video_name!r}, so no track {lines[0].track!r}{similar} Correct the line, "
                    "or take it away."
                )
        return tuple(marked)


ALL_ROWS: Final = RowSelection()


def _read_list(file: Path, dataset: Dataset, split: str) -> list[_ListedTrack]:
    """The lines of a list that are about one split.

    Raises ConfigError, with the line, if the file cannot be read, and for a line without a known
    dataset and split.
    """
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(
            f"{file}: expected the list of tracks that {KEY} names: {why}. Pages of tracks "
            "(`python -m pipeline show`) help to write one; or take the setting away."
        ) from error
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        name = _remove_comment(line)
        if not name:
            continue
        of_dataset, _, path = name.partition("/")
        of_split, _, track = path.partition("/")
        if of_dataset == dataset.name and of_split in dataset.splits and "/" in track:
            if of_split == split:
                lines.append(_ListedTrack(number, track))
        elif of_dataset == dataset.name or of_dataset not in datasets.names():
            expected = f"{dataset.name}/{split}/VIDEO/PERSON"
            raise ConfigError(
                f"{file}, line {number}: expected a track's full name, such as {expected}, found "
                f"{name!r}. Copy it from a page of tracks."
            )
    return lines


def _remove_comment(line: str) -> str:
    """The name on a line: what stands before the last " #", as a name may have one, too.

    >>> _remove_comment("videos/train/take #2.mp4/0  # bad: two people")
    'videos/train/take #2.mp4/0'
    >>> _remove_comment("# all of the first day")
    ''
    """
    if line.lstrip().startswith("#"):
        return ""
    name, separator, _ = line.rpartition(COMMENT)
    return (name if separator else line).strip()


def select(
    tracks: Sequence[Track],
    account: VideoAccount,
    left_out: Sequence[str],
    max_fps: float | None,
    extra: Collection[cache.ExtraColumn],
) -> list[Track]:
    """The tracks and rows of a video that the user takes; counts the others in its account.

    left_out: names of tracks. A name that no track has becomes a note in the account. extra: the
    reader's extra columns.
    """
    account.left_out = list(left_out)
    record = ClipRecord.from_dict(account.clip)
    used_names = {track.name for track in tracks}
    if len(account.subjects) == len(tracks):
        pairs = zip(tracks, account.subjects, strict=True)
        account.subjects = [subject for track, subject in pairs if track.name not in left_out]
    names = []
    selected_tracks = []
    for track in tracks:
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
            if name in left_out:
                account.take_back_track(LEFT_OUT, n_rows)
            else:
                selected_tracks.append(replace(part, name=name))
        account.take_back_rows(ABOVE_MAX_FPS, n_above)
    for name in left_out:
        if name not in names:
            account.note(
                f"{KEY} names {name!r}, which is no track of this video: "
                f"it has {', '.join(names) or 'none'}"
            )
    if len(names) > len(tracks):
        account.note(f"cut where the frame rate changes: {', '.join(names)}")
    return selected_tracks


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

    filmed_per_played = track.fps / record.fps_of(frames)
    from_first = frames - frames[0]
    times = record.all_times[frames[0] : frames[-1] + 1]
    shortest = SHORTEST / max_fps * filmed_per_played - ROUNDING
    apart_at, cuts = _frames_apart(times, shortest)
    rows = _rows_apart(from_first, apart_at[from_first])
    parts = []
    for part in np.split(rows, np.searchsorted(from_first[rows], cuts)):
        if len(part):
            fps = filmed_per_played * record.fps_of(frames[part])
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
    ticks = np.arange(times[0], times[-1] + 2 * TICK, TICK)
    at_ticks = least[np.searchsorted(times, ticks, side="right") - 1]
    size = round(CHANGE / TICK)
    usual = grey_opening(grey_closing(at_ticks, size // 2), size)[np.searchsorted(ticks, times)]
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

"""Which of a reader's tracks and rows the user takes: `[convert] leave_out` and `max_fps`.
[raw -> tracks] -> features -> windows

`leave_out` names a list of tracks, which pages of tracks help to write: a name on each line
(`video_names`), and why, behind " #":

    videos/train/dance.mp4/1  # bad: two people
    videos/train/crowd.mp4    # all of its tracks

`select` takes these tracks away, and of the others the rows that follow each other faster than
`max_fps`. Both count in the video's account. The account also has the names that the list had of
the video, and where these tracks are (`VideoAccount.left_out`): the plan reads a video again of
which it has others now, and all videos if `max_fps` is another, as part of the reader's identity.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

import cache
from pipeline import datasets
from pipeline.accounting import ABOVE_MAX_FPS, LEFT_OUT, OTHER_TRACK, VideoAccount
from pipeline.errors import ConfigError
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.files.raw import RawVideo
from pipeline.files.raw.video_names import VideoNames
from pipeline.people.skeletons import Array, Doubles, Ints
from pipeline.people.track import Track, free_name
from pipeline.steps.conversion_record import LEAVE_OUT, ConversionRecord

SAME_RATE: Final = 0.99  # 30.02 frames a second, as phones film, are no more than 30
TIME_ERROR: Final = 0.005  # s: 2 ms at both ends of a clip, by phones; and containers round
SHORTEST: Final = 0.9  # share of 1 / max_fps that rows of uneven frames are apart
CHANGE: Final = 1.0  # s that another step must last, so that a track is cut
TICK: Final = 0.002  # s, shorter than any frame
ROUNDING: Final = 2e-6  # s, of stored times
# Share of its side by which the box of another detection of a person differs at most. A guess:
# people who stand side by side are farther apart.
SAME_PERSON: Final = 0.2
KEY: Final = "[convert] leave_out"


@dataclass(frozen=True, slots=True)
class RowSelection:
    """The settings of [convert] that decide which tracks and rows of the reader are taken."""

    max_fps: float | None = None  # most rows a second; None: all
    leave_out: Path | None = None  # the user's list of tracks; None: no track is left out

    @classmethod
    def recorded(cls, record: ConversionRecord) -> RowSelection:
        """Which of the reader's tracks and rows a committed conversion took."""
        leave_out = record.split.provenance.get(LEAVE_OUT)
        return cls(record.reader.get("max_fps"), Path(str(leave_out)) if leave_out else None)

    def mark(
        self, videos: Iterable[RawVideo], split: str, names: VideoNames
    ) -> tuple[RawVideo, ...]:
        """The videos of a split, each with the names of its tracks in the list
        (`RawVideo.left_out`).

        Raises ConfigError for a list that cannot be read, or has no line, and, with the line, for a
        track of none of the dataset's videos, `names`.
        """
        if self.leave_out is None:
            return tuple(videos)
        by_video: dict[str, set[str]] = {}
        for listed in _read_list(self.leave_out, names):
            if listed.split in ("", split):
                by_video.setdefault(listed.path, set()).add(listed.name)
        return tuple(
            replace(video, left_out=tuple(sorted(by_video.get(video.name, ())))) for video in videos
        )


ALL_ROWS: Final = RowSelection()


class _ListedTrack(NamedTuple):
    """A track of the list, or all of a video."""

    split: str  # "" if it is not stated
    path: str  # of its video
    name: str  # of the track; of all: the path


def _read_list(file: Path, names: VideoNames) -> Iterator[_ListedTrack]:
    """The tracks of a list that are of one dataset. Raises ConfigError as `mark` does."""
    try:
        text = file.read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(
            f"{file}: expected the list of tracks that {KEY} names: {why}. Pages of tracks "
            f"(`python -m pipeline show`) help to write one; {KEY} = none takes all tracks."
        ) from error
    lines = enumerate(map(str.strip, text.splitlines()), 1)
    numbered = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not numbered:
        raise ConfigError(f"{file}: the list has no track. {KEY} = none takes all tracks.")
    for number, line in numbered:
        try:
            track = _find_track(line, names)
        except ConfigError as error:
            raise ConfigError(f"{file}, line {number}: {error}.") from error
        if track is not None:
            yield track


def _find_track(line: str, names: VideoNames) -> _ListedTrack | None:
    """The track of a line; None if it is of another dataset.

    A name ends before a "#" behind a blank. It may have such a "#", too: the shortest one that fits
    is meant, and the track of a video before another video. Raises ConfigError without one.
    """
    ends = [comment.start() for comment in re.finditer(r"\s+#|$", line)]
    for end in ends:
        path, _, person = line[:end].rpartition("/")
        video = names.find(path)
        if video is not None:
            return _ListedTrack(*video, f"{video[1]}/{person}")
        video = names.find(line[:end])
        if video is not None:
            return _ListedTrack(*video, video[1])
    dataset = line.partition("/")[0]
    if dataset != names.dataset and dataset in datasets.names():
        return None
    candidates = [name for end in ends for name in (line[:end].rpartition("/")[0], line[:end])]
    suggestion = next(filter(None, map(names.suggest, candidates)), "")
    expected = f"VIDEO or VIDEO/PERSON, also with {names.dataset}/SPLIT/ before it, of a video"
    raise ConfigError(f"expected {expected}, found {line!r}{suggestion}")


def select(
    tracks: Sequence[Track],
    account: VideoAccount,
    left_out: Sequence[str],
    max_fps: float | None,
    extra: Collection[cache.ExtraColumn],
) -> list[Track]:
    """The tracks and rows of a video that the user takes; counts the others in its account.

    Rejects the video if it lacks one of the left-out tracks.
    left_out: names of tracks; the video's own name: all. extra: the reader's extra columns.
    """
    if account.set_aside or account.other_split:
        account.left_out = {name: [] for name in left_out}
        return [*tracks]
    all_out = account.name in left_out
    if all_out:
        account.left_out[account.name] = []
    record = ClipRecord.from_dict(account.clip)
    used_names = {track.name for track in tracks}
    if len(account.subjects) == len(tracks):
        pairs = zip(tracks, account.subjects, strict=True)
        account.subjects = [
            subject for track, subject in pairs if not (all_out or track.name in left_out)
        ]
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
                account.left_out[name] = place_of(part.columns)
            if all_out or name in left_out:
                account.take_back_track(LEFT_OUT, n_rows)
            else:
                selected_tracks.append(replace(part, name=name))
        account.take_back_rows(ABOVE_MAX_FPS, n_above)
    missing = [name for name in left_out if name not in (*names, account.name)]
    if missing:
        tracks_now = f"no track of this video, which has {', '.join(names) or 'none'}"
        refuse_line(account, missing[0], tracks_now)
        return []
    if len(names) > len(tracks):
        account.note(f"cut where the frame rate changes: {', '.join(names)}")
    return selected_tracks


def refuse_line(account: VideoAccount, track: str, what: str) -> None:
    """Reject a video because of a line of the list."""
    account.left_out = {}
    do = "Take the line away, convert, and look at the tracks."
    account.reject(OTHER_TRACK, f"{KEY} names {track}: {what}. {do}")


def place_of(columns: Mapping[str, Array]) -> list[float]:
    """Where a track is: its first and last frame and, with images, its first box (cxcywh px)."""
    frames = columns["frame_index"].tolist()
    return [frames[0], frames[-1], *columns.get("bbox", np.empty((1, 0)))[0].tolist()]


def may_be_same(place: Sequence[float], before: Sequence[float]) -> bool:
    """Whether tracks at these places (`place_of`) may be of one person: they have common frames,
    and begin at one place.
    """
    changes = np.abs(np.subtract(place[2:], before[2:]))
    begins_there = bool((changes <= SAME_PERSON * before[-1]).all())
    return begins_there and place[0] <= before[1] and before[0] <= place[1]


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

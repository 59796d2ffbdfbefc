"""The tracks and the part of a clip that a player has.  [tracks]

`choose_people` leaves out tracks of a crowd, `WholeClip` finds the clip's frames and times and
chooses a part, and a `PlayedTrack` is what a track has in that part.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from pipeline.cli.text import count
from pipeline.errors import PipelineError
from pipeline.files.pixels.frames import FrameSource, Video
from pipeline.files.pixels.pictures import Pictures
from pipeline.grades import find_jumps, outside_crop
from pipeline.grades.joints import seen_points
from pipeline.grades.words import WORDS
from pipeline.people.hands import HANDS
from pipeline.people.skeletons import Bools, Doubles, Ints
from pipeline.show.clip import DrawnTrack
from pipeline.show.drawing import NAMES
from pipeline.show.player_video import picture_size
from pipeline.show.tracks import ShownTrack
from pipeline.show.video_file import DEFAULT_FPS

LONGEST_S: Final = 600.0  # of a clip in one page
MOST_PEOPLE: Final = 30  # in a frame
LABEL_BYTES: Final = 24_000_000  # of boxes and joints in a page
PORTRAITS: Final = 8  # of a track
DRAWN: Final = (*NAMES, *HANDS)  # the joints that a page may have
# column of joints -> their places among DRAWN
COLUMNS: Final = {"kp_2d": slice(len(NAMES)), "kp_2d_hands": slice(len(NAMES), len(DRAWN))}


def choose_people(tracks: Sequence[ShownTrack]) -> tuple[list[DrawnTrack], list[str]]:
    """The tracks, the worst first, with at most MOST_PEOPLE in a frame, and what is left out."""
    people = [DrawnTrack(track, number) for number, track in enumerate(tracks)]
    n_in = Counter[int]()
    chosen = []
    for person in sorted(people, key=lambda person: badness(person.track)):
        if all(n_in[frame] < MOST_PEOPLE for frame in person.rows):
            n_in.update(person.rows.keys())
            chosen.append(person)
    if len(chosen) == len(people):
        return chosen, []
    left = f"{len(chosen)} of {count(len(people), 'track')}: the worst, at most {MOST_PEOPLE} in a"
    return chosen, [f"{left} frame. `show --out CLIP.mp4` draws all of them"]


def badness(track: ShownTrack) -> tuple[int, int]:
    """A key that sorts tracks from the worst to the best; those without a grade are last."""
    word = track.grade.word
    rank = len(WORDS) if word is None else WORDS.index(word)
    return rank, -len(track.grade.reasons)


class ShownFrames(NamedTuple):
    """The n frames of a clip that a page has."""

    first: int  # frame number of the first one
    step: int  # frames from one to the next
    times: Doubles  # (n,) s
    size: tuple[int, int]  # width, height px of the clip

    @property
    def stop(self) -> int:
        return self.first + self.step * len(self.times)

    @property
    def picture(self) -> tuple[int, int]:
        return picture_size(self.size)

    @property
    def scale(self) -> Doubles:
        """(2,) px of the picture for a px of the clip."""
        scale: Doubles = np.array(self.picture) / np.array(self.size)
        return scale

    @property
    def seconds(self) -> float:
        return float(self.times[-1] - self.times[0])


@dataclass(frozen=True)
class WholeClip:
    """All frames of a clip that a player may show."""

    whole: ShownFrames

    @classmethod
    def find(cls, people: Sequence[DrawnTrack], source: FrameSource) -> WholeClip:
        """The frames of a source. If rows are several frames apart, so are they."""
        frame_index = np.unique(np.concatenate([[*person.rows] for person in people]))
        step = int(np.gcd.reduce(np.diff(frame_index))) or 1
        first = int(frame_index[0]) % step
        stop = int(frame_index[-1]) + 1
        rate = people[0].track.record.fps
        if isinstance(source, Pictures):
            stop = source.count_frames()
        if isinstance(source, Video):
            record = people[0].track.clip or source.record()
            stop = record.n_frames
            rate = record.played_fps
            if np.isfinite(record.times).any():
                return cls(ShownFrames(first, step, record.all_times[first::step], source.size()))
        if not math.isfinite(rate):
            rate = DEFAULT_FPS
        return cls(ShownFrames(first, step, np.arange(first, stop, step) / rate, source.size()))

    def choose_part(self, people: Sequence[DrawnTrack], start_s: float) -> ShownFrames:
        """The part from `start_s` on that one page can have. Raises PipelineError if the clip is
        shorter.
        """
        first, step, times, size = self.whole
        seconds = times - times[0]
        if start_s > seconds[-1]:
            raise PipelineError(f"--start {start_s:g}: the clip ends after {seconds[-1]:.1f} s")
        start, stop = np.searchsorted(seconds, [start_s, start_s + LONGEST_S])
        n_rows = np.zeros(len(times), np.int64)
        for person in people:
            n_rows[(np.array([*person.rows]) - first) // step] += 1
        n_bytes = np.cumsum(n_rows[start:stop]) * _bytes_of_row(people)
        stop = start + max(1, int(np.searchsorted(n_bytes, LABEL_BYTES)))
        return ShownFrames(first + step * int(start), step, times[start:stop], size)

    def describe_part(self, part: ShownFrames, video: str) -> list[str]:
        """A sentence if it is not the whole clip."""
        if len(part.times) == len(self.whole.times):
            return []
        zero = self.whole.times[0]
        start = part.times[0] - zero
        end = part.times[-1] - zero
        return [
            f"{video} is {self.whole.seconds:.0f} s long: the page has seconds {start:.0f} to "
            f"{end:.0f}. `show --start SECONDS` has other parts"
        ]


def _bytes_of_row(people: Sequence[DrawnTrack]) -> int:
    """Bytes in a page of a row: its frame, box, and joints."""
    return 4 + 8 + 5 * len(seen_joints(people))


def joints_of(track: ShownTrack, rows: Ints) -> Doubles:
    """(n, 91, 3) px px confidence, the joints DRAWN of these rows; 0 where there are none."""
    joints = np.zeros((len(rows), len(DRAWN), 3))
    for name, places in COLUMNS.items():
        if name in track.rows:
            joints[:, places] = track.rows[name][rows]
    return joints


def seen_joints(people: Sequence[DrawnTrack]) -> list[int]:
    """Numbers of the joints of DRAWN that any track has."""
    seen = np.zeros(len(DRAWN), np.bool_)
    for person in people:
        for name, places in COLUMNS.items():
            if name in person.track.rows:
                seen[places] |= (person.track.rows[name][..., 2] > 0).any(axis=0)
    joints: list[int] = np.flatnonzero(seen).tolist()
    return joints


class PlayedTrack(NamedTuple):
    """The n rows of a track within the part of a page. Frames are numbered from its first one."""

    person: DrawnTrack
    rows: Ints  # (n,) numbers of the track's rows
    frames: Ints  # (n,)
    is_jump: Bools  # (n,) whether a joint jumps
    is_outside: Bools  # (n,) whether a joint is outside the crop
    portraits: tuple[int, ...]  # of the n rows, those with a portrait

    @classmethod
    def from_person(cls, person: DrawnTrack, part: ShownFrames) -> PlayedTrack:
        track = person.track
        frame_index = track.rows["frame_index"].astype(np.int64)
        rows = np.flatnonzero((frame_index >= part.first) & (frame_index < part.stop))
        jumps = find_jumps(track.rows, track.record.fps, track.clip)
        n_portraits = min(PORTRAITS, len(rows))
        return cls(
            person=person,
            rows=rows,
            frames=(frame_index[rows] - part.first) // part.step,
            is_jump=np.isin(rows, jumps),
            is_outside=_outside_crop(track)[rows],
            portraits=tuple(np.linspace(0, len(rows) - 1, n_portraits).round().astype(int)),
        )

    @property
    def starts(self) -> Ints:
        """Of the n rows, those at the start of a run without a gap."""
        usual = self.frames_step
        return np.flatnonzero(np.diff(self.frames, prepend=-usual - 1) != usual)

    @property
    def frames_step(self) -> int:
        """The usual number of frames from a row to the next."""
        if len(self.frames) < 2:
            return 1
        return int(np.diff(self.frames).min())

    @property
    def portrait_frames(self) -> Ints:
        """(P,) frames of the portraits."""
        return self.frames[[*self.portraits]]

    @property
    def odd_frames(self) -> list[int]:
        """Frames to look at: jumps, the first one after a gap, and the first one of those with
        joints outside the crop.
        """
        begins_outside = self.is_outside & ~np.concatenate([[False], self.is_outside[:-1]])
        is_odd = self.is_jump | begins_outside
        is_odd[self.starts[1:]] = True
        frames: list[int] = self.frames[is_odd].tolist()
        return frames


def _outside_crop(track: ShownTrack) -> Bools:
    """(T,) whether a seen joint is outside the crop of a row."""
    rows = track.rows
    if "kp_2d" not in rows:
        return np.zeros(len(rows["frame_index"]), np.bool_)
    points = seen_points(rows["kp_2d"])
    is_outside = outside_crop(points, rows["bbox"], track.record.crop_scale)
    return np.asarray(is_outside.any(axis=1))

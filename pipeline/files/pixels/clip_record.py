"""What a video is: its frames, times, rate, and what is unusual about it.  [pixels] -> crops

A `Survey` (`survey.py`) is given all frames of a video while they are decoded for something else,
and makes its `ClipRecord`. Conversion stores the record as JSON (`ClipRecord.as_dict`,
`from_dict`), so that the video need not be decoded again for its rate or its faults.

Words:
    lost: a frame that cannot be decoded, because of damage. It keeps its number.
    known: of times, those that the file states. A lost frame's time is not known (nan), nor is
        one that goes back alone, and some containers state none at all.
    played, filmed: a clip in slow motion is filmed at a higher rate than it is played. Times are
        as played; `fps` is as filmed, since people move at that rate.
    even: all frames are as long as each other, so that a frame's number tells its time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import cached_property
from typing import Any, Final, Self

import numpy as np

from cache.arrays import Doubles, Ints
from pipeline.cli.text import count
from pipeline.files.pixels.view import HLG, PQ, View

# raised by hand whenever the same file would give another record; older ones are made again
VERSION: Final = 3  # 3: ends of H.264 slices; 2: one thread, wrong times
HDR: Final = {PQ: "PQ", HLG: "HLG"}  # transfer functions of HDR videos -> their names
# Two rates that differ by a smaller part are equal: containers round times to ms.
SAME_RATE: Final = 1e-3
# Two rates that differ by a larger part are worth a remark.
OTHER_RATE: Final = 0.03
MANY_REPEATED: Final = 0.2  # part of the frames from which repeated ones are worth a remark
MOST_NAMED: Final = 5  # lost frames in a remark
# If a frame's time is further than this from where a constant rate puts it, in mean lengths of a
# frame, times are not even.
UNEVEN: Final = 0.5
PLACES: Final = 6  # decimals of stored times


@dataclass(frozen=True, eq=False)  # eq=False: == of arrays is ambiguous
class ClipRecord:
    """What a video is, found by decoding all of it once.

    The first three fields are those of a `View`: how a player shows the stored frames. The others
    are counts of frames, unless they say otherwise.
    """

    stored: tuple[int, int]  # width, height px
    aspect: tuple[int, int]  # width : height of a stored pixel
    matrix: tuple[int, int, int, int]
    # (n,) s of all frames, as played, never going back; nan for a lost one, and where the file
    # states none, or a wrong one
    times: Doubles
    lost: tuple[int, ...]  # numbers of the lost frames
    n_hidden: int  # cut out by an edit list
    n_missing: int  # listed in the header, and beyond the file's end
    n_interlaced: int  # made of two fields
    n_resized: int  # of another size than the first one
    n_repeated: int  # equal to the one before
    n_streams: int  # video streams of the file
    stream: int  # number of the one that is read, from 1
    n_restarts: int  # places where the file's own times go back: see `survey.py`
    transfer: int  # transfer function, by ITU-T H.273
    header_frames: int | None  # number of frames by the header; None: not stated
    header_fps: float  # frames a second by the header; nan: not stated
    filmed_fps: float  # frames a second at which it was filmed; nan: not stated

    @property
    def n_frames(self) -> int:
        """Number of frames, lost ones among them."""
        return len(self.times)

    @property
    def view(self) -> View:
        """How a player shows its frames."""
        return View(self.stored, Fraction(*self.aspect), self.matrix)

    @cached_property
    def played_fps(self) -> float:
        """Frames a second as a player shows them; nan if unknown.

        By the frames' times, if there are any. The header's rate is taken where both agree: it is
        not rounded.
        """
        rate = _mean_rate(self.times)
        is_as_stated = math.isclose(rate, self.header_fps, rel_tol=SAME_RATE)
        if is_as_stated or math.isnan(rate):
            return self.header_fps
        return rate

    @property
    def fps(self) -> float:
        """Frames a second of the scene that was filmed: in slow motion, more than are played. nan
        if unknown.
        """
        if math.isfinite(self.filmed_fps):
            return self.filmed_fps
        return self.played_fps

    @cached_property
    def is_even(self) -> bool:
        """Whether all frames are as long as each other, as far as their times are known."""
        rate = _mean_rate(self.times)
        if not math.isfinite(rate):
            return True
        frames = _frames_with_time(self.times)
        times = self.times[frames]
        # what the frames' numbers would be at a constant rate from the first one on
        at_constant_rate = (times - times[0]) * rate + frames[0]
        return bool(np.abs(at_constant_rate - frames).max() <= UNEVEN)

    @cached_property
    def all_times(self) -> Doubles:
        """(n,) s, `times` with those of lost frames interpolated. Some time must be known."""
        timed = _frames_with_time(self.times)
        return np.interp(np.arange(self.n_frames), timed, self.times[timed])

    def fps_of(self, frames: Ints) -> float:
        """`fps` from the first to the last of these frames (T,); that of the clip if it is even."""
        if self.is_even:
            return self.fps
        ends = frames[[0, -1]]
        n_frames = float(np.ptp(ends))
        seconds = float(np.ptp(self.all_times[ends]))
        if not seconds:
            return self.fps
        return n_frames / seconds * self.fps / self.played_fps

    @cached_property
    def usual_fps(self) -> float:
        """Frames a second where the recording did not pause: `fps` if times are even, else at
        least `fps`.

        A pause lowers the mean rate, `fps`. The median step between two frames is that of the
        frames around the pause.
        """
        if self.is_even:
            return self.fps
        steps = _steps(self.times)
        median_rate = 1 / float(np.median(steps[steps > 0]))
        return self.fps * max(1.0, median_rate / self.played_fps)

    @cached_property
    def clock(self) -> Ints:
        """(n,) the time of each frame as a whole number of ticks, `usual_fps` ticks a second.

        If times are even, that is the frame's number. Else a pause is a gap between two ticks:
        frames at 0, 0.1, 0.2, 1.0 and 1.1 s have the ticks 0, 1, 2, 10 and 11. Ticks increase
        strictly.
        """
        numbers = np.arange(self.n_frames, dtype=np.int64)
        if self.is_even:
            return numbers
        times = self.all_times
        # times are as played, `usual_fps` is as filmed
        ticks_a_second = self.usual_fps * self.played_fps / self.fps
        ticks = np.round((times - times[0]) * ticks_a_second).astype(np.int64)
        # at least one tick from frame to frame
        return np.maximum.accumulate(ticks - numbers) + numbers

    @property
    def otherwise(self) -> list[str]:
        """Why its images are not those that OpenCV decodes: ["interlaced"]. Empty for most clips.
        The digest of its pixels has these words.
        """
        kinds = {
            "interlaced": self.n_interlaced > 0,
            "HDR": self.transfer in HDR,
            "mirrored": self.view.is_mirrored,
            "pixels not square": self.view.aspect != 1,
            "damaged": bool(self.lost),
            "size changes": self.n_resized > 0,
        }
        return [kind for kind, applies in kinds.items() if applies]

    def remarks(self) -> list[str]:
        """What is unusual about the clip, in sentences for the person whose clip it is."""
        remarks = []
        if self.lost:
            shown = ", ".join(map(str, self.lost[:MOST_NAMED]))
            remarks.append(
                f"{count(len(self.lost), 'frame')} cannot be decoded, such as {shown}: the file "
                "is damaged"
            )
        if self.n_missing:
            remarks.append(f"the file is cut off, and lacks {self.n_missing} frames or more")
        remarks += self._remarks_on_times()
        remarks += self._remarks_on_images()
        if self.n_streams > 1:
            remarks.append(f"{self.n_streams} video streams: number {self.stream} is read")
        if self.n_repeated > MANY_REPEATED * self.n_frames:
            remarks.append(
                f"{self.n_repeated / self.n_frames:.0%} of the frames repeat the one before"
            )
        return remarks

    def _remarks_on_times(self) -> list[str]:
        """Remarks on the frame rate, and on times that go back."""
        remarks = []
        played = self.played_fps
        if abs(played / self.header_fps - 1) > OTHER_RATE:
            remarks.append(
                f"{played:.5g} frames a second by their times, {self.header_fps:.5g} by the header"
            )
        if abs(self.fps / played - 1) > OTHER_RATE:
            remarks.append(
                f"filmed at {self.fps:.5g} frames a second, played at {played:.5g}: slow motion"
            )
        if not self.is_even:
            steps = 1000 * _steps(self.times)
            remarks.append(
                f"the frame rate varies: from {steps.min():.0f} to {steps.max():.0f} ms a frame"
            )
        if self.n_restarts:
            remarks.append(
                f"times begin anew {count(self.n_restarts, 'time')}: several recordings in one file"
            )
        return remarks

    def _remarks_on_images(self) -> list[str]:
        """Remarks on how images differ from the stored frames."""
        remarks = []
        if self.n_interlaced:
            remarks.append(f"interlaced: {count(self.n_interlaced, 'frame')} of two fields")
        if self.transfer in HDR:
            remarks.append(f"HDR clip ({HDR[self.transfer]}), shown as SDR")
        if self.view.aspect != 1:
            width, height = self.view.stored
            shown_width, shown_height = self.view.square
            remarks.append(
                f"{width} x {height} pixels that are not square, shown as {shown_width} x "
                f"{shown_height}"
            )
        if self.view.is_mirrored:
            remarks.append("mirrored, as its header says")
        if self.n_resized:
            remarks.append(
                f"{count(self.n_resized, 'frame')} of another size, scaled to the first frame's"
            )
        return remarks

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON values, which `from_dict` restores. nan becomes null.

        Times that are not even are a list. Of even ones, there are only their number and the first
        and last known one: {"n": 10, "known": [[0, 0.0], [9, 0.3]]} for frame 0 at 0 s and frame 9
        at 0.3 s.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.is_even:
            values["times"] = {"n": self.n_frames, "known": _first_and_last(self.times)}
        else:
            values["times"] = [*map(_json_number, self.times.round(PLACES).tolist())]
        for name in ("header_fps", "filmed_fps"):
            values[name] = _json_number(values[name])
        return values | {"version": VERSION}

    @classmethod
    def from_dict(cls, values: object) -> Self | None:
        """Restore the record from the JSON values of `as_dict`. Returns None for any other values,
        and for those of another version: the caller decodes the video again.
        """
        if not isinstance(values, Mapping):
            return None
        restored = dict(values)
        is_current = restored.pop("version", None) == VERSION
        if not is_current or restored.keys() != {field.name for field in fields(cls)}:
            return None
        try:
            for name in ("stored", "aspect", "matrix", "lost"):
                restored[name] = tuple(int(number) for number in values[name])
            for name in ("header_fps", "filmed_fps"):
                restored[name] = _restore_number(values[name])
            restored["times"] = _restore_times(values["times"])
            record = cls(**restored)
            record.view.size  # noqa: B018 - raises unless stored, aspect and matrix are of this form
        except (TypeError, ValueError, KeyError, IndexError, ZeroDivisionError):
            return None
        return record


def _json_number(number: float) -> float | None:
    return number if math.isfinite(number) else None


def _restore_number(stored: Any) -> float:
    return math.nan if stored is None else float(stored)


def _frames_with_time(times: Doubles) -> Ints:
    """Numbers of the frames whose time is known."""
    return np.flatnonzero(np.isfinite(times))


def _steps(times: Doubles) -> Doubles:
    """Seconds from each known time to the next known one."""
    return np.diff(times[np.isfinite(times)])


def _first_and_last(times: Doubles) -> list[list[float]]:
    """[number, time] of the first and of the last frame whose time is known; empty if none is."""
    timed = _frames_with_time(times)
    if not len(timed):
        return []
    return [[int(number), round(float(times[number]), PLACES)] for number in timed[[0, -1]]]


def _restore_times(stored: Any) -> Doubles:
    """Restore times (n,) from their form in `ClipRecord.as_dict`."""
    if isinstance(stored, list):
        return np.array([*map(_restore_number, stored)])
    n_frames = int(stored["n"])
    if not stored["known"]:
        return np.full(n_frames, math.nan)
    (first, start), (last, end) = stored["known"]
    step = (end - start) / max(1, last - first)
    return np.asarray(start + step * (np.arange(n_frames) - first), np.float64)


def _mean_rate(times: Doubles) -> float:
    """Frames a second between the first and the last known time of (n,); nan if fewer than two are
    known, or if they are equal.
    """
    timed = _frames_with_time(times)
    if len(timed) < 2:
        return math.nan
    first = timed[0]
    last = timed[-1]
    seconds = times[last] - times[first]
    if seconds <= 0:
        return math.nan
    return float((last - first) / seconds)

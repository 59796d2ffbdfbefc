"""What a video is: its frames, times, rate, and what is unusual about it.  [pixels] -> crops"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from pipeline.cli.text import count
from pipeline.files.pixels.decode import is_cut_off
from pipeline.files.pixels.video import (
    HLG,
    PQ,
    NumberedFrame,
    OpenVideo,
    Undecodable,
    VideoHeader,
    View,
    view_of,
)
from pipeline.skeletons import Doubles, Ints

HDR: Final = {PQ: "PQ", HLG: "HLG"}
SAME_RATE: Final = 1e-3  # containers round times to ms
OTHER_RATE: Final = 0.03  # of the header's rate
MANY_REPEATED: Final = 0.2  # of the frames
MOST_NAMED: Final = 5  # lost frames in a remark
# every so many pixels and rows are compared with the frame before; if they are equal, all are
SAMPLED: Final = 8
# of the mean time of a frame: further from its place, a frame is at another time
UNEVEN: Final = 0.5
# frames a second; a camera states 30 or 60 also where it filmed fewer in the dark
SLOW_MOTION: Final = 100.0
PLACES: Final = 6  # decimals of times


@dataclass(frozen=True, slots=True, eq=False)  # eq=False: == of arrays is ambiguous
class ClipRecord:
    """What a video is, found by decoding all of it once."""

    stored: tuple[int, int]  # width, height px
    aspect: tuple[int, int]  # width : height of a stored pixel
    matrix: tuple[int, int, int, int]  # of `View`
    times: Doubles  # (n,) s of the frames, as played; nan for lost ones and where the file has none
    lost: tuple[int, ...]  # frames that cannot be decoded
    n_hidden: int  # frames that an edit list hides
    n_missing: int  # frames that the header lists beyond the file's end
    n_interlaced: int
    n_resized: int  # frames of another size than the first one's
    n_repeated: int  # frames equal to the one before
    n_streams: int  # of video
    n_restarts: int  # places where the file's times begin anew; here, times go on by the usual step
    transfer: int  # transfer function, by ITU-T H.273
    header_frames: int | None
    header_fps: float  # nan: not in the header
    filmed_fps: float  # frames a second at which it was filmed, if that is stated; else nan

    @property
    def n_frames(self) -> int:
        return len(self.times)

    @property
    def view(self) -> View:
        return View(self.stored, Fraction(*self.aspect), self.matrix)

    @property
    def played_fps(self) -> float:
        """Frames a second, by their times, else as the header states it; nan if unknown."""
        rate = mean_rate(self.times)
        is_stated = math.isclose(rate, self.header_fps, rel_tol=SAME_RATE)
        if is_stated or math.isnan(rate):
            return self.header_fps
        return rate

    @property
    def fps(self) -> float:
        """Frames a second of what was filmed: in slow motion, more than are played. nan if
        unknown.
        """
        if math.isfinite(self.filmed_fps):
            return self.filmed_fps
        return self.played_fps

    @property
    def is_even(self) -> bool:
        """Whether all frames are as long as each other, as far as their times are known."""
        known = _frames_with_time(self.times)
        rate = mean_rate(self.times)
        if not math.isfinite(rate):
            return True
        # the frames' numbers by their times, if the first with a time has its own
        places = (self.times[known] - self.times[known[0]]) * rate + known[0]
        return bool(np.abs(places - known).max() <= UNEVEN)

    @property
    def usual_fps(self) -> float:
        """Frames a second where none is missing: `fps`, or more if the times are uneven, as by a
        pause.
        """
        if self.is_even:
            return self.fps
        steps = _steps(self.times)
        usual = 1 / float(np.median(steps[steps > 0]))
        return self.fps * max(1.0, usual / self.played_fps)

    def clock(self) -> Ints:
        """(n,) the time of each frame in frames at `usual_fps`, strictly increasing; its number if
        times are even.
        """
        numbers = np.arange(self.n_frames, dtype=np.int64)
        if self.is_even:
            return numbers
        known = _frames_with_time(self.times)
        times = np.interp(numbers, known, self.times[known])
        rate = self.usual_fps * self.played_fps / self.fps
        ticks = np.round((times - times[0]) * rate).astype(np.int64)
        # at least one tick from frame to frame
        return np.maximum.accumulate(ticks - numbers) + numbers

    @property
    def otherwise(self) -> list[str]:
        """Why its pixels are not those that OpenCV decodes, as earlier versions did; empty for most
        clips.
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
        """What is unusual, in words for the person whose clip it is."""
        remarks = []
        if self.lost:
            shown = ", ".join(map(str, self.lost[:MOST_NAMED]))
            remarks.append(
                f"{count(len(self.lost), 'frame')} cannot be decoded, such as {shown}: the file "
                "is damaged"
            )
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
        if self.n_streams > 1:
            remarks.append(f"{self.n_streams} video streams: the one that players choose is read")
        if self.n_repeated > MANY_REPEATED * self.n_frames:
            remarks.append(
                f"{self.n_repeated / self.n_frames:.0%} of the frames repeat the one before"
            )
        return remarks

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON values; `record_from` restores it.

        Even times are their number, with the first and the last known one:
        {"n": 10, "known": [[0, 0.0], [9, 0.3]]}; others are a list.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.is_even:
            values["times"] = {"n": self.n_frames, "known": _ends(self.times)}
        else:
            values["times"] = [*map(_json_number, self.times.round(PLACES).tolist())]
        for name in ("header_fps", "filmed_fps"):
            values[name] = _json_number(values[name])
        return values


def record_from(values: object) -> ClipRecord | None:
    """The record of `ClipRecord.as_dict`; None for anything else, such as an older form: it is made
    again.
    """
    names = {field.name for field in fields(ClipRecord)}
    if not isinstance(values, Mapping) or values.keys() != names:
        return None
    try:
        restored = dict(values)
        for name in ("stored", "aspect", "matrix", "lost"):
            restored[name] = tuple(int(number) for number in values[name])
        for name in ("header_fps", "filmed_fps"):
            restored[name] = _restore_number(values[name])
        restored["times"] = _restore_times(values["times"])
        record = ClipRecord(**restored)
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
    """From each known time to the next one, s."""
    return np.diff(times[np.isfinite(times)])


def _ends(times: Doubles) -> list[list[float]]:
    """Number and time of the first and the last frame with a time."""
    known = _frames_with_time(times)
    if not len(known):
        return []
    return [[int(number), round(float(times[number]), PLACES)] for number in known[[0, -1]]]


def _restore_times(stored: Any) -> Doubles:
    if isinstance(stored, list):
        return np.array([*map(_restore_number, stored)])
    n_frames = int(stored["n"])
    if not stored["known"]:
        return np.full(n_frames, math.nan)
    (first, start), (last, end) = stored["known"]
    step = (end - start) / max(1, last - first)
    return np.asarray(start + step * (np.arange(n_frames) - first), np.float64)


class Survey:
    """Makes the record of a video from its frames, in order, while they are read."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._lost: list[int] = []
        self._n_interlaced = 0
        self._n_resized = 0
        self._n_repeated = 0
        self._first: VideoFrame | None = None
        self._before: VideoFrame | None = None

    def add(self, frame: NumberedFrame) -> None:
        """The next frame of the video."""
        self._times.append(frame.time)
        decoded = frame.decoded
        if decoded is None:
            self._lost.append(frame.number)
            return

        if self._first is None:
            self._first = decoded
        first = self._first
        if decoded.interlaced_frame:
            self._n_interlaced += 1
        if (decoded.width, decoded.height) != (first.width, first.height):
            self._n_resized += 1
        if self._before is not None and _is_copy(self._before, decoded):
            self._n_repeated += 1
        self._before = decoded

    def record(self, video: OpenVideo, path: Path) -> ClipRecord:
        """The record, after the last frame. Raises Undecodable if no frame was decoded. path: for
        messages.
        """
        if self._first is None:
            raise Undecodable(f"{path}: none of its frames can be decoded")
        header = video.header()
        n_hidden = video.n_hidden
        if video.index is not None:
            n_hidden += max(0, (header.n_frames or 0) - len(video.index))
        view = view_of(video.stream, self._first)
        times, n_restarts = _join(np.array(self._times))

        return ClipRecord(
            stored=view.stored,
            aspect=view.aspect.as_integer_ratio(),
            matrix=view.matrix,
            times=times,
            lost=tuple(self._lost),
            n_hidden=n_hidden,
            n_missing=count_missing(video, path, video.n_packets),
            n_interlaced=self._n_interlaced,
            n_resized=self._n_resized,
            n_repeated=self._n_repeated,
            n_streams=video.n_streams,
            n_restarts=n_restarts,
            transfer=int(self._first.color_trc),
            header_frames=header.n_frames,
            header_fps=header.fps,
            filmed_fps=_filmed_fps(video, header),
        )


def _filmed_fps(video: OpenVideo, header: VideoHeader) -> float:
    """The rate that Android's camera states for slow motion, which its file plays more slowly; else
    nan.
    """
    stated = video.metadata.get("com.android.capture.fps", "")
    try:
        rate = float(stated)
    except ValueError:
        return math.nan
    is_played = abs(rate / header.fps - 1) < OTHER_RATE
    if is_played or not rate >= SLOW_MOTION:  # nan, too
        return math.nan
    return rate


def count_missing(video: OpenVideo, path: Path, n_packets: int | None = None) -> int:
    """Number of frames that the header lists beyond the file's end.

    n_packets: packets that the file has, which other files than MP4 do not list. Without it, one of
    those that is cut off has at least one frame less.
    """
    if video.index is not None:
        return sum(entry.pos + entry.size > video.n_bytes for entry in video.index)
    if not is_cut_off(path):
        return 0
    if n_packets is None:
        return 1
    return max(0, (video.header().n_frames or 0) - n_packets)


def _is_copy(before: VideoFrame, frame: VideoFrame) -> bool:
    """Whether the first planes of two frames are equal."""
    one = _first_plane(before)
    other = _first_plane(frame)
    if not np.array_equal(one[::SAMPLED, ::SAMPLED], other[::SAMPLED, ::SAMPLED]):
        return False
    return np.array_equal(one, other)


def _first_plane(frame: VideoFrame) -> NDArray[np.uint8]:
    """Bytes of the plane, without the padding of its rows."""
    plane = frame.planes[0]
    data: Any = plane
    rows: NDArray[np.uint8] = np.frombuffer(data, np.uint8).reshape(plane.height, plane.line_size)
    if frame.format.is_planar:
        n_bytes = plane.width * math.ceil(frame.format.components[0].bits / 8)
    else:
        n_bytes = plane.width * frame.format.padded_bits_per_pixel // 8
    return rows[:, :n_bytes]


def _join(times: Doubles) -> tuple[Doubles, int]:
    """Times (n,) that never go back, and at how many places they did, as in recordings that were
    joined.
    """
    known = _frames_with_time(times)
    steps = np.diff(times[known])
    is_back = steps < 0
    if not is_back.any():
        return times, 0
    usual = 0.0
    if not is_back.all():
        usual = np.median(steps[~is_back])
    steps[is_back] = usual
    joined = times.copy()
    joined[known[1:]] = times[known[0]] + np.cumsum(steps)
    return joined, int(is_back.sum())


def mean_rate(times: Doubles) -> float:
    """Frames a second by the first and the last time of (n,); nan if unknown."""
    known = _frames_with_time(times)
    if len(known) < 2:
        return math.nan
    first = known[0]
    last = known[-1]
    seconds = times[last] - times[first]
    if seconds <= 0:
        return math.nan
    return float((last - first) / seconds)

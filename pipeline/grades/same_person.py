"""Tracks that may be one person, as where linking lost somebody who moved fast.  [tracks]

Two tracks of one scene may be one person if they are hardly ever in one frame, one is seen where
and when the other is not, and their limbs are equally long there. benchmarks/grades.md has how many
tracks of different people are mistaken for one person.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from pipeline.grades.joints import LIMB_ENDS, seen_points
from pipeline.people.skeletons import Doubles, Ints

TOGETHER: Final = 0.02  # share of the shorter track's frames in which both may be
APART_S: Final = 1.0  # s from a row of one track to the next row, which is of the other one
FAR: Final = 0.8  # sides of the smaller box between them then: about a body's height
UNLIKE: Final = 0.1  # share by which the limbs differ in length, of the median limb
FEWEST: Final = 4  # limbs that are seen of both


def find_same_people(
    people: Sequence[Mapping[str, Any]], fps: float, cuts: Sequence[int] = ()
) -> list[float]:
    """For each track of a video, the number of another one that may be the same person, from 0;
    nan: none.

    people: the columns of each track; only those with `kp_2d` and `bbox` are compared. fps: frames
    a second. cuts: first frames of new scenes.
    """
    found = [math.nan] * len(people)
    frames = {}
    for number, columns in enumerate(people):
        if {"kp_2d", "bbox"} <= columns.keys():
            frames[number] = columns["frame_index"][:]
    second = APART_S * fps
    for one, other in _pairs(frames, second):
        tracks = (
            _TrackView(people[one], frames[one], second),
            _TrackView(people[other], frames[other], second),
        )
        steps = _steps_between(frames[one], frames[other], second, cuts)
        if any(_are_alike(tracks, rows) for rows in steps):
            found[one] = other
            found[other] = one
    return found


def _pairs(frames: Mapping[int, Ints], second: float) -> Iterator[tuple[int, int]]:
    """Yield pairs of tracks without those whose first and last frames and number of rows already
    show that they are far apart in time, or often in one frame: in a crowd, nearly all.
    """
    if not frames:
        return
    numbers = np.array([*frames])
    of_tracks = [*frames.values()]
    n_rows = np.array([*map(len, of_tracks)])
    ends = np.array([of_track[[0, -1]] for of_track in of_tracks])
    first, last = ends.T
    in_order = np.unique(np.concatenate(of_tracks))  # frames in which anybody is seen
    start, stop = np.searchsorted(in_order, ends).T
    n_missing = stop + 1 - start - n_rows
    for k, one in enumerate(numbers.tolist()):
        later_first = np.maximum(first[k], first[k + 1 :])
        earlier_last = np.minimum(last[k], last[k + 1 :])
        later_start = np.maximum(start[k], start[k + 1 :])
        earlier_stop = np.minimum(stop[k], stop[k + 1 :])
        fewer_rows = np.minimum(n_rows[k], n_rows[k + 1 :])
        n_missed = n_missing[k] + n_missing[k + 1 :]
        n_together = earlier_stop + 1 - later_start - n_missed  # or more
        is_impossible = n_together > TOGETHER * fewer_rows
        is_impossible |= later_first - earlier_last > second
        others = numbers[k + 1 :][~is_impossible]
        for other in others.tolist():
            yield one, other


class _TrackView(NamedTuple):
    """A track of T rows."""

    columns: Mapping[str, Any]
    frames: Ints  # (T,)
    second: float  # frames

    def box(self, row: int) -> Doubles:
        """(4,) px, the box in a row: centre and size."""
        box: Doubles = self.columns["bbox"][row : row + 1][0]
        return box

    def limb_lengths(self, row: int) -> Doubles:
        """(8,) px, the median length of each limb a second before and after a row; nan if it is not
        seen.
        """
        frame = self.frames[row]
        limits = [frame - self.second, frame + self.second]
        start, stop = np.searchsorted(self.frames, limits).tolist()
        points = seen_points(self.columns["kp_2d"][start:stop])
        starts, ends = np.transpose(LIMB_ENDS)
        limbs = points[:, starts] - points[:, ends]
        lengths = np.linalg.norm(limbs, axis=-1)
        in_order = np.sort(lengths, axis=0)  # nan is last
        n_seen = np.isfinite(in_order).sum(axis=0)
        middle = np.maximum(n_seen - 1, 0) // 2
        medians: Doubles = np.take_along_axis(in_order, middle[None], axis=0)[0]
        return medians


def _steps_between(
    one: Ints, other: Ints, longest: float, cuts: Sequence[int]
) -> list[tuple[int, int]]:
    """The rows (of one, of the other) of each step from a frame of a track to the next frame, which
    is the other track's; none if they are often in one frame.

    one, other: (T,) frames of the tracks. longest: frames.
    """
    if len(np.intersect1d(one, other)) > TOGETHER * min(len(one), len(other)):
        return []
    merged = np.concatenate([one, other])
    order = np.argsort(merged, kind="stable")
    frames = merged[order]
    is_other = order >= len(one)
    scene = np.searchsorted(cuts, frames, side="right")
    length = np.diff(frames)
    is_step = np.diff(is_other) & (length > 0)
    is_step &= length <= longest
    is_step &= np.diff(scene) == 0
    steps = np.flatnonzero(is_step)
    both = [order[steps], order[steps + 1]]
    of_one, of_other = np.sort(both, axis=0)
    of_other -= len(one)
    return [*zip(of_one.tolist(), of_other.tolist(), strict=True)]


def _are_alike(tracks: tuple[_TrackView, _TrackView], rows: tuple[int, int]) -> bool:
    """Whether two people are near each other in these rows, and equally large."""
    one, other = tracks
    row, other_row = rows
    box = one.box(row)
    other_box = other.box(other_row)
    distance = np.linalg.norm(box[:2] - other_box[:2])
    if distance > FAR * min(box[2], other_box[2]):
        return False
    ratios = np.log(one.limb_lengths(row) / other.limb_lengths(other_row))
    known = np.abs(ratios[np.isfinite(ratios)])
    return len(known) >= FEWEST and bool(np.median(known) <= math.log(1 + UNLIKE))

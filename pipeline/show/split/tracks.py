"""The tracks of a split as its page has them: the worst first, each with a stick figure.  cache ->
[tracks] -> page

Grades are stored, so a few rows in the middle of a track are enough: of one is the stick figure,
and of all are the lengths of limbs, by which a track is compared with the others.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

import cache
from pipeline.grades.stored import worst_first
from pipeline.grades.words import MEASURES, Grade
from pipeline.people.skeletons import (
    KEYPOINTS_13,
    Array,
    Doubles,
    Floats,
    Ints,
    keypoints_13,
    limbs_of,
)
from pipeline.show.drawing import joints_3d
from pipeline.show.player_pictures import PORTRAIT_SCALE
from pipeline.steps.grading import grades_by_video

LISTED: Final = 10_000  # tracks that a page has, the worst
ROWS: Final = 60  # of a track, in its middle
ACROSS: Final = 254  # a figure's coordinate at the right or lower edge of its picture
UNSEEN: Final = 255  # as a coordinate
# pairs of KEYPOINTS_13
BONES: Final = [
    *limbs_of(KEYPOINTS_13),
    (0, 1),  # from the head to the shoulders
    (0, 2),
    (1, 2),  # shoulders
    (7, 8),  # hips
    (1, 7),  # sides of the trunk
    (2, 8),
]
SHOULDERS: Final = slice(1, 3)  # of KEYPOINTS_13
ANKLES: Final = slice(11, 13)
# Lengths are compared by their logarithm. Below SHORT, a share of the person, they hardly differ;
# and limbs that are equally long in nearly all tracks differ by at least LEAST.
SHORT: Final = 0.02
LEAST: Final = 0.03
# columns of 3D joints or poses
_SOLID: Final = (
    "kp_3d",
    "kp_3d_eval",
    "pose",
    "betas",
    "has_3d",
    "has_smpl",
)


class ListedTrack(NamedTuple):
    """A track on the page, and what one of its rows shows."""

    name: str
    video: int  # number in the split
    grade: Grade
    frame: int  # of the row
    joints: Floats  # (49, 3) px of the image and confidence; of a motion, m to the right and down
    # of the joints' picture, in their unit
    centre: Floats  # (2,)
    size: Floats  # (2,) width, height
    shares: Doubles  # (B,) median lengths of BONES, as shares of the person; nan if not seen

    @property
    def places(self) -> Doubles:
        """(49, 2) where the joints are in the picture: 0 to 1 from its upper left corner."""
        from_centre = self.joints[:, :2] - self.centre
        places: Doubles = from_centre / self.size + 0.5
        return places

    @property
    def figure(self) -> Array:
        """(13, 2) uint8, KEYPOINTS_13 in the picture: 0 to ACROSS, or UNSEEN."""
        confidence = self.joints[:, 2]
        joints = keypoints_13(np.column_stack([self.places, confidence]))
        places = joints[:, :2]
        is_inside = ((places >= 0) & (places <= 1)).all(axis=1)
        is_drawn = is_inside & (joints[:, 2] > 0)
        figure = np.full((13, 2), UNSEEN, np.uint8)
        figure[is_drawn] = np.rint(ACROSS * places[is_drawn])
        return figure


class SplitTracks(NamedTuple):
    """A split's N tracks."""

    numbers: Doubles  # (N, M) of their grades, in the order of MEASURES
    worst: Ints  # (L,) numbers of the worst tracks, the worst first
    listed: list[ListedTrack]  # these tracks
    # places in `listed`, each with a limb that is unlike the others', the most unlike first; of
    # tracks of whole people
    unlike: list[tuple[int, str]]

    @classmethod
    def read(cls, split: cache.Split, body: Path | None) -> SplitTracks:
        """Read grades, and rows of the worst tracks. body: folder of a body model, for motions.

        Raises CacheError and OSError for rows that cannot be read, and what `joints_3d` raises.
        """
        numbers = np.full((len(split.tracks), len(MEASURES)), np.nan)
        pairs = {}  # of tracks that may be one person with another: the grade names it
        for _, tracks, graded in grades_by_video(split):
            for track, grade in zip(tracks, graded, strict=True):
                numbers[track] = grade.numbers
                if not np.isnan(grade.same_person):
                    pairs[track] = grade
        worst = worst_first(numbers)[:LISTED]
        rows = _read_rows(split, np.sort(worst), body)
        listed = []
        for track in worst.tolist():
            name = split.tracks.names[track]
            video = int(split.tracks.video[track])
            grade = pairs.get(track) or Grade(*numbers[track].tolist())
            listed.append(ListedTrack(name, video, grade, *rows[track]))
        return cls(numbers, worst, listed, _find_unlike(listed))


_Row = tuple[int, Floats, Floats, Floats, Doubles]  # the last fields of a `ListedTrack`


def _read_rows(split: cache.Split, tracks: Ints, body: Path | None) -> dict[int, _Row]:
    """Read a row in the middle of each of these tracks, which are in the order of their rows."""
    numbers = tracks.tolist()
    if "bbox" in split.columns:
        return {track: _read_person(split, track) for track in numbers}
    motions = _read_motions(split, tracks, body)
    return dict(zip(numbers, motions, strict=True))


def _read_person(split: cache.Split, track: int) -> _Row:
    """Read the middle of a track with boxes."""
    first = int(split.tracks.start[track])
    end = int(split.tracks.stop[track])
    middle = (first + end) // 2
    start = max(first, middle - ROWS // 2)
    stop = min(end, middle + ROWS // 2 + 1)
    kp_2d = np.zeros((stop - start, 49, 3))
    if "kp_2d" in split.columns:
        kp_2d[:] = split.rows("kp_2d", start, stop)
    (frame,) = split.rows("frame_index", middle, middle + 1)
    (bbox,) = split.rows("bbox", middle, middle + 1).astype(np.float64)
    shares = _limb_shares(keypoints_13(kp_2d))
    size = PORTRAIT_SCALE * bbox[2:]
    return int(frame), kp_2d[middle - start], bbox[:2], size, shares


def _read_motions(split: cache.Split, tracks: Ints, body: Path | None) -> Iterator[_Row]:
    """Read a row in the middle of motions, as `views` shows it from the front."""
    middles = (split.tracks.start + split.tracks.stop) // 2
    chosen = middles[tracks].tolist()
    rows = {}
    for name in {*_SOLID, "frame_index"} & {*split.columns}:
        of_tracks = [split.rows(name, row, row + 1) for row in chosen]
        rows[name] = np.concatenate(of_tracks)
    joints, _ = joints_3d(rows, body)
    if joints is None:
        joints = np.zeros((len(chosen), 49, 4))
    unknown = np.full(len(BONES), np.nan)
    for frame, of_row in zip(rows["frame_index"].tolist(), joints, strict=True):
        x, _, z, confidence = of_row.T
        front = np.column_stack([x, -z, confidence])
        seen = front[confidence > 0, :2]
        low = seen.min(axis=0, initial=0)  # the pelvis is at 0
        high = seen.max(axis=0, initial=0)
        side = max(1.0, PORTRAIT_SCALE * float((high - low).max()))
        yield frame, front, (low + high) / 2, np.full(2, side), unknown


def _limb_shares(kp: Doubles) -> Doubles:
    """(B,) median lengths of BONES in T rows, as shares of the person. kp: (T, 13, 3).

    Rows without a shoulder or an ankle do not count: the person is larger than what is seen.
    """
    is_seen = kp[..., 2] > 0
    is_whole = is_seen[:, SHOULDERS].any(axis=1) & is_seen[:, ANKLES].any(axis=1)
    points = np.where(is_seen[..., None], kp[..., :2], np.nan)
    points[~is_whole] = np.nan
    low = np.fmin.reduce(points, axis=1)
    high = np.fmax.reduce(points, axis=1)
    person = np.linalg.norm(high - low, axis=-1)
    person[person == 0] = np.nan
    starts, ends = np.transpose(BONES)
    limbs = points[:, starts] - points[:, ends]
    lengths = np.linalg.norm(limbs, axis=-1)
    shares = np.sort(lengths / person[:, None], axis=0)  # nan is last
    n_known = np.isfinite(shares).sum(axis=0)
    middles = np.maximum(n_known - 1, 0) // 2
    medians: Doubles = shares[middles, np.arange(len(BONES))]
    return medians


def _find_unlike(tracks: Sequence[ListedTrack]) -> list[tuple[int, str]]:
    """Places of tracks by their most unusual limb, in median absolute deviations (MADs) of all
    tracks, with that limb in words.
    """
    shares = np.array([track.shares for track in tracks]).reshape(-1, len(BONES))
    is_known = np.isfinite(shares)
    places = np.flatnonzero(is_known.any(axis=1))
    if not len(places):
        return []
    lengths = np.log(shares[places] + SHORT)
    with warnings.catch_warnings(action="ignore"):  # limbs that no track has
        differences = lengths - np.nanmedian(lengths, axis=0)
        mads = np.nanmedian(np.abs(differences), axis=0) + LEAST
    unusual = np.nan_to_num(np.abs(differences) / mads)
    limbs = unusual.argmax(axis=1)
    order = np.argsort(-unusual.max(axis=1), kind="stable")
    found = []
    for place in order.tolist():
        start, end = (KEYPOINTS_13[joint] for joint in BONES[limbs[place]])
        times = np.exp(differences[place, limbs[place]])
        found.append((int(places[place]), f"{start} to {end}: {times:.2g} times the others'"))
    return found

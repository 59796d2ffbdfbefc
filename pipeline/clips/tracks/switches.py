"""Find where a track continues on another person.  raw -> [tracks] -> features -> windows

Where people cross or hide each other, two tracks may be exchanged, or one may continue on somebody
else. `find_switches` compares how a track arrives at a detection with how it leaves a later one: at
which place, and with which velocity. A place is the joints' mean, and as its third coordinate the
logarithm of their spread; both are relative to the camera's motion. With n frames between, the cost
is

    (|jump|^2 / S + |turn|^2 / U) / unrest + 3 log(S / R)

jump is the way between the two places without the way that the mean velocity explains; turn is the
difference of the velocities. S and U are their variances, of noise and of a velocity that changes
at random; R is the noise alone. unrest is 1 for a track that moves evenly. A track is cut where

- its cost, and that of another track at the same time, are together MARGIN above the cost of
  exchanging them, whose first term is at most FITTING. If the other track begins or ends there,
  only one of the two costs exists
- its cost is above FARTHEST: farther than a person moves

Of a few detections beside such a place, those are left out that cost most (`SKIPPED_BEFORE`,
`SKIPPED_AFTER`): a person who is detected badly in one or two frames comes back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from pipeline.clips.labels.people_table import blocks
from pipeline.clips.tracks.sides import follow
from pipeline.people.boxes import extents
from pipeline.people.skeletons import Doubles, Ints

# lengths are in diagonals of the box, the median over a track
NOISE: Final = 0.006  # standard deviation of a detection's place
TURN: Final = 0.0025  # per frame: of the velocity's change in a frame
GROWTH: Final = 0.4  # diagonals that a change of the spread's logarithm counts as
LEAST_SPREAD: Final = 0.05  # added to a spread, so that few joints close together say little
NEAR: Final = 5  # detections from which a velocity is; the least distance of two cuts
# numbers of detections that are left out before and after a place, as five choices
SKIPPED_BEFORE: Final = np.array([0, 1, 2, 0, 0])
SKIPPED_AFTER: Final = np.array([0, 0, 0, 1, 2])
USUAL: Final = 2.7  # median of a track's costs up to which its unrest is 1
MOST_UNREST: Final = 10.0
MARGIN: Final = 10.0
FITTING: Final = 15.0
FARTHEST: Final = 1500.0
FEW: Final = 16  # tracks that are all compared; of more, those within REACH
REACH: Final = 2.0  # diagonals of the largest track


@dataclass(frozen=True, slots=True, eq=False)
class _Path:
    """A track of N detections."""

    frame_index: Ints  # (N,)
    keypoints: Doubles  # (N, J, 3) px px confidence
    centre: Doubles  # (N, 2) px, of the boxes
    diagonal: float  # px, median of the boxes'
    # (N + NEAR, 3) a frame, of NEAR steps: with which it arrives at each detection, and, NEAR rows
    # later, with which it leaves it; near the ends, the first and the last one
    velocity: Doubles
    unrest: float
    # (N + 1,) between the detection before and this one; 0 near both ends and cuts
    cost: Doubles


class _Exchange(NamedTuple):
    """What is gained if a track is exchanged with another one from its row `row` on."""

    gain: float
    track: int
    row: int  # its number of rows if it has ended


def find_switches(
    tracks: Sequence[tuple[Ints, Doubles]], camera: Mapping[int, Doubles]
) -> list[list[int]]:
    """Find where tracks continue on another person.

    Args:
        tracks: Of each track, the frame numbers (N,), ascending, and joints (N, J, 3) px px
            confidence; 0 for unseen joints. Tracks of at most 2 NEAR detections are not compared.
        camera: Frame -> homography (3, 3) px from the frame before; without one, it is still.

    Returns:
        For each track, the rows that begin another person, ascending.
    """
    paths = {
        number: _path(frame_index, keypoints, camera)
        for number, (frame_index, keypoints) in enumerate(tracks)
        if len(frame_index) > 2 * NEAR
    }
    suspects = []
    for number, path in paths.items():
        for row in np.flatnonzero(path.cost > MARGIN / 2).tolist():
            suspects.append((float(path.cost[row]), number, row))

    suspects.sort(reverse=True)
    switches: list[list[int]] = [[] for _ in tracks]
    for (cost, number, row), near in zip(suspects, _nearby_paths(paths, suspects), strict=True):
        if not paths[number].cost[row]:
            continue
        exchange = _best_exchange(near, number, row, camera)
        cuts = []
        if exchange.gain > MARGIN or cost > FARTHEST:
            cuts.append((number, row))
        if exchange.gain > MARGIN and paths[exchange.track].cost[exchange.row]:
            cuts.append((exchange.track, exchange.row))
        for track, first in cuts:
            switches[track].append(first)
            paths[track].cost[max(first - NEAR, 0) : first + NEAR + 1] = 0
    return [sorted(rows) for rows in switches]


def _path(frame_index: Ints, keypoints: Doubles, camera: Mapping[int, Doubles]) -> _Path:
    """The path of a track of more than 2 NEAR detections. Arguments as for `find_switches`."""
    corners, _ = extents(keypoints)
    sides = corners[:, 1] - corners[:, 0]
    diagonals = np.linalg.norm(sides, axis=-1)
    diagonal = max(float(np.median(diagonals)), 1)
    last = len(frame_index) - 1
    steps = np.zeros((last + 1, 3))
    for block in blocks(last):
        after = slice(block.start + 1, block.stop + 1)
        before = _move(keypoints[block], frame_index[block], frame_index[after], camera)
        steps[after] = np.nan_to_num(_way(before, keypoints[after], diagonal))
    position = np.cumsum(steps, axis=0)

    n_frames = frame_index[NEAR:] - frame_index[:-NEAR]
    inner_velocity = (position[NEAR:] - position[:-NEAR]) / n_frames[:, None]
    velocity = np.pad(inner_velocity, ((NEAR, NEAR), (0, 0)), mode="edge")

    costs = []
    for block in blocks(last):
        rows = np.arange(block.start, block.stop)[:, None]
        start = np.maximum(rows - SKIPPED_BEFORE, 0)
        stop = np.minimum(rows + 1 + SKIPPED_AFTER, last)
        way = position[stop] - position[start]
        n_frames = frame_index[stop] - frame_index[start]
        costs.append(_costs(way, n_frames, velocity[start], velocity[stop + NEAR]))
    misfit, unsure = map(np.concatenate, zip(*costs, strict=True))
    usual = np.median(misfit.min(axis=1))
    unrest = float(np.clip(usual / USUAL, 1, MOST_UNREST))
    inner_cost = (misfit / unrest + unsure).min(axis=1)
    cost = np.pad(inner_cost, 1)
    cost[:NEAR] = 0
    cost[-NEAR:] = 0
    centre = corners.mean(axis=1)
    return _Path(frame_index, keypoints, centre, diagonal, velocity, unrest, cost)


def _move(
    keypoints: Doubles, frames: Ints, following: Ints, camera: Mapping[int, Doubles]
) -> Doubles:
    """Joints (N, J, 3) of `frames` (N,), moved with the camera to the frames `following` (N,)."""
    if not camera:
        return keypoints
    moved = keypoints.copy()
    moved[..., :2] = follow(keypoints[..., :2], frames, following, camera)
    return moved


def _way(before: Doubles, after: Doubles, diagonal: float) -> Doubles:
    """The way (N, 3) from joints (N, J, 3) to later ones, by those that are seen in both; nan
    without any.
    """
    is_shared = (before[..., 2] > 0) & (after[..., 2] > 0)
    shared = is_shared[..., None]
    n = np.maximum(is_shared.sum(axis=1), 1)
    places = []
    for joints in (before, after):
        points = joints[..., :2]
        mean = (points * shared).sum(axis=1) / n[:, None]
        apart = (points - mean[:, None]) * shared
        variance = np.square(apart).sum(axis=(1, 2)) / n
        spread = np.sqrt(variance) / diagonal + LEAST_SPREAD
        size = GROWTH * np.log(spread)
        places.append(np.column_stack([mean / diagonal, size]))
    displacement: Doubles = places[1] - places[0]
    has_shared = is_shared.any(axis=1)
    displacement[~has_shared] = np.nan
    return displacement


def _costs(way: Doubles, n: Ints, before: Doubles, after: Doubles) -> tuple[Doubles, Doubles]:
    """Terms of the costs of ways (..., 3) in n (...) frames, between velocities (..., 3):
    |jump|^2 / S + |turn|^2 / U, and 3 log(S / R).
    """
    noise = 2 * NOISE**2
    velocities = 2 * (noise / NEAR**2 + TURN**2 * NEAR / 3)  # variance of their difference
    jump_variance = noise + n**2 * velocities / 4 + TURN**2 * n**3 / 12
    turn_variance = velocities + TURN**2 * n
    jump = way - n[..., None] * (before + after) / 2
    turn = after - before
    misfit = np.square(jump).sum(axis=-1) / jump_variance
    misfit += np.square(turn).sum(axis=-1) / turn_variance
    return misfit, 3 * np.log(jump_variance / noise)


def _nearby_paths(
    paths: Mapping[int, _Path], suspects: Sequence[tuple[float, int, int]]
) -> Iterator[Mapping[int, _Path]]:
    """Yield for each suspect (cost, track, row) the tracks it is compared with, and its own: those
    with a detection within REACH of its step, and in time within the longest gap of a track.
    """
    if len(paths) <= FEW:
        yield from [paths] * len(suspects)
        return
    # 0.1 s, which clips of few people need not wait for
    from scipy.spatial import KDTree

    reach = REACH * max(path.diagonal for path in paths.values())
    gap = max(int(np.diff(path.frame_index).max()) for path in paths.values())
    duration = gap + NEAR
    places = {}
    for number, path in paths.items():
        time = path.frame_index / duration
        places[number] = np.column_stack([path.centre / reach, time])
    counts = [*map(len, places.values())]
    track = np.repeat([*places], counts)
    tree = KDTree(np.concatenate([*places.values()]))
    for _, number, row in suspects:
        step = places[number][row - 1 : row + 1]
        before, after = tree.query_ball_point(step, 1, p=np.inf)
        near = np.unique(track[before + after])
        yield {other: paths[other] for other in near.tolist()}


def _best_exchange(
    paths: Mapping[int, _Path], number: int, row: int, camera: Mapping[int, Doubles]
) -> _Exchange:
    """The exchange with another track by which a track gains most from a row on."""
    best = _Exchange(0.0, number, 0)
    path = paths[number]
    frame, following = path.frame_index[row - 1 : row + 1].tolist()
    for other_number, candidate in paths.items():
        first, last = candidate.frame_index[[0, -1]]
        if other_number == number or first > following + NEAR or last < frame - NEAR:
            continue
        # it may be exchanged at any time between the two detections
        start = int(np.searchsorted(candidate.frame_index, frame, side="right"))
        stop = int(np.searchsorted(candidate.frame_index, following))
        other_row = start + int(np.argmax(candidate.cost[start : stop + 1]))
        gain = float(path.cost[row] + candidate.cost[other_row])
        if gain > MARGIN:
            gain -= _exchanged_cost(path, row, candidate, other_row, camera)
        best = max(best, _Exchange(gain, other_number, other_row))
    return best


def _exchanged_cost(
    path: _Path, row: int, other: _Path, other_row: int, camera: Mapping[int, Doubles]
) -> float:
    """The cost of two tracks that are exchanged from a row of each on; infinite above FITTING."""
    exchanged = []
    if other_row < len(other.frame_index):
        exchanged.append(_cross(path, row - 1, other, other_row, camera))
    if other_row > 0:
        exchanged.append(_cross(other, other_row - 1, path, row, camera))
    misfit, unsure = np.sum(exchanged, axis=0)
    return float(misfit + unsure) if misfit <= FITTING else np.inf  # also if nan


def _cross(
    path: _Path, row: int, other: _Path, other_row: int, camera: Mapping[int, Doubles]
) -> tuple[float, float]:
    """The two terms of the least cost between a row of a track and a later one of another track."""
    last = len(other.frame_index) - 1
    rows = np.maximum(row - SKIPPED_BEFORE, 0)
    other_rows = np.minimum(other_row + SKIPPED_AFTER, last)
    frames = path.frame_index[rows]
    other_frames = other.frame_index[other_rows]
    before = _move(path.keypoints[rows], frames, other_frames, camera)
    after = other.keypoints[other_rows]
    misfit, unsure = _costs(
        _way(before, after, max(path.diagonal, other.diagonal)),
        other_frames - frames,
        path.velocity[rows],
        other.velocity[other_rows + NEAR],
    )
    misfit *= 2 / (path.unrest + other.unrest)
    best = np.argmin(misfit + unsure)
    return float(misfit[best]), float(unsure[best])

"""Link detections to persons over time.  raw -> [tracks] -> features -> windows

Readers of detections (`datasets.shared.clips.people`) call `link`, which makes persons of the
detections in a clip's frames, then `cleaning.clean`, which selects the frames of one person.

Each person moves at a constant velocity that changes at random (a Kalman filter on the
joints' mean, as in SORT, Bewley et al. 2016), relative to the camera's motion. Each frame's
detections are paired with the persons at the least total cost (Kuhn: The Hungarian method, 1955).
The cost of a pair is

    |d|^2 / S + (r / SHAPE)^2 + SURENESS log(S / R) + NEWCOMER / n - 2 log c

with d (px) the mean offset, a vector, from the joints expected to those detected, over joints seen
in both, weighted by the product of their confidences, because a network guesses where hidden joints
are; S its expected variance, which grows with time, and R that of a detection, which grows as c
falls; r the mean distance that remains without d, weighted alike, by the box diagonal; n how often
the person was seen; c the mean confidence of the detection's joints, so that figures that are
nobody, and parts of people, do not take a track from a surer detection. Pairs up to SURE_COST are
linked first; pairs above MAX_COST, or REACH diagonals apart, never. Nothing is linked across a
scene cut. Lengths are in box diagonals of the last detection; benchmarks/scenes.py has the scenes
from which the constants are.

What all people do at once is the camera's motion: a known homography, then a shift estimated from
the detections (BoT-SORT, Aharon et al. 2022, takes it from the background). Candidates are none,
and the offsets from the steadiest persons to all detections. The shift with the least sum of its
own cost and the persons' costs |d|^2 / S + (r / SHAPE)^2, each up to CAP, is taken and refined: the
mean of the offsets that it explains, weighted by 1 / S, and of none, weighted by how usual such
shifts are, which is learned, so that one walker in a still scene is not the camera. Sudden shifts
are as rare as Student's t has them. Roll and zoom are not estimated (benchmarks/linking.md).

Above SECOND frames a second, time counts in seconds; below, the root of a step does: measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from types import MappingProxyType
from typing import Final

import numpy as np

from pipeline.clips.tracks.pairs import CAP, MAX_COST, Pairs, assign, square
from pipeline.clips.tracks.seen_detections import SeenDetections
from pipeline.people.homography import transfer
from pipeline.people.skeletons import Array, Bools, Doubles, Floats, Ints
from pipeline.processes import show_done

SECOND: Final = 25  # frames that count as a second if the frame rate is unknown
# diagonals: standard deviation of a detection's joints on average, where all have confidence 1
NOISE: Final = 0.02
START: Final = 0.1  # diagonals a frame: of a new person's velocity
# the velocity's change in a frame: in diagonals a frame of anybody, and as a share of the velocity,
# because those who are fast turn
CHANGE: Final = 0.006
TURN: Final = 0.15
SHAPE: Final = 0.07  # diagonals: usual difference of two frames' joints, relative to their mean
SURENESS: Final = 0.3  # weight of the term that prefers persons who were seen recently
# weight of the term that prefers persons who were seen often, so that half of a person, briefly
# detected as another one, does not take over the track
NEWCOMER: Final = 10.0
# diagonals from where a person is expected: one who appears farther away is somebody else
REACH: Final = 0.7
# the camera's shift from frame to frame; lengths in diagonals
SPREAD: Final = 0.1  # standard deviation of shifts in a clip's first frames
LEAST_SPREAD: Final = 0.005
LEARNING: Final = 0.05  # weight of a frame in the mean square of shifts
TAIL: Final = 1.0  # degrees of freedom of Student's t: so rare are shifts beyond the usual
EXPLAINED: Final = 6.0  # a frame whose persons all cost less without a shift needs no search
STEADIEST: Final = 3  # persons whose offsets are tried as the shift
NEAREST: Final = 32  # detections of least cost to each of them: a crowd has more
ALL_PAIRS: Final = 1 << 9  # up to so many pairs in a frame, all are compared; then those near
SLACK: Final = 1e-6  # px: more than rounding


def link(
    keypoints: Sequence[Floats],
    frame_index: Sequence[int] | Ints,
    max_gap: int = SECOND,
    *,
    cuts: Sequence[int] = (),
    camera: Mapping[int, Doubles] = MappingProxyType({}),
    fps: float = math.nan,
) -> list[Ints]:
    """Link each frame's detections to the persons of the frames before.

    A person who is not seen for more than `max_gap` frames, or across a cut, is a new person
    afterwards. Detections without a seen joint are ignored; their order in a frame does not matter.

    Args:
        keypoints: For each of T frames, the joints (P, J, 3) px px confidence of its P detections.
            Joints of confidence 0, or not finite, count as not seen.
        frame_index: (T,) frame numbers, strictly increasing.
        cuts: First frames of new scenes.
        camera: Frame -> homography (3, 3) that maps px of the frame before to this frame, for
            things that do not move. What is left of the camera's motion is estimated.
        fps: Frames a second; nan if unknown.

    Returns:
        One (n, 2) array per person, in time order: rows (t, p) for detection p of `keypoints[t]`.
        Persons are sorted by their first frame, then from left to right.
    """
    if not len(keypoints):
        return []
    seen_detections = SeenDetections.collect(keypoints)
    frames = np.asarray(frame_index, np.int64)
    scene = _scenes(frame_index, cuts)
    persons: list[list[int]] = []  # indices of each person's detections in `seen_detections`
    step = _step(fps)
    filters = _Filters(seen_detections)
    for t, frame in enumerate(frames.tolist()):
        show_done(t, len(frames), "frames linked")
        # predict where the persons are in this frame
        if t > 0 and scene[t] == scene[t - 1]:
            previous = int(frames[t - 1])
            last_seen = frames[seen_detections.rows[filters.last, 0]]
            filters.keep_persons(frame - last_seen - 1 <= max_gap)
            filters.advance((frame - previous) * step)
            filters.follow_camera(camera, range(previous + 1, frame + 1))
        else:
            filters = _Filters(seen_detections)

        # pair them with the frame's detections, after moving all as all have moved
        detections = np.arange(seen_detections.start[t], seen_detections.start[t + 1])
        unpaired = _pair(filters, detections, persons)
        filters.add(unpaired, len(persons))
        persons += [[detection] for detection in unpaired.tolist()]
    return [seen_detections.rows[person] for person in persons]


def _pair(filters: _Filters, detections: Ints, persons: Sequence[list[int]]) -> Ints:
    """Give a frame's detections to the persons that they fit. Returns those without one."""
    if not len(detections) or not len(filters.last):
        return detections
    pairs = filters.follow_people(detections)
    linked = assign(pairs, filters.costs(pairs))
    rows = pairs.row[linked]
    now = detections[pairs.column[linked]]
    for person, detection in zip(filters.person[rows], now.tolist(), strict=True):
        persons[person].append(detection)
    filters.update(rows, now, pairs.offset[linked])
    return np.delete(detections, pairs.column[linked])


class _Filters:
    """Kalman filters of the A persons who may be seen again, one row of each array for a person.

    The state of a filter is a vector (px): how far the joints are expected to be from where they
    were last seen, and its velocity (px per frame). x and y have equal, independent covariances.
    Detections are given by their indices in `seen`.
    """

    def __init__(self, seen: SeenDetections) -> None:
        self._seen = seen
        self.person = np.zeros(0, np.int64)  # (A,) number of the person
        self.last = np.zeros(0, np.int64)  # (A,) index of the person's last detection
        self._n_seen = np.zeros(0, np.int64)  # (A,) number of detections so far
        self._state = np.zeros((0, 2, 2))  # (A, 2, 2): (px, px per frame) by (x, y)
        self._variance = np.zeros((0, 2, 2))  # (A, 2, 2) covariance of position and velocity
        self._shift_spread = SPREAD**2  # variance of the camera's shifts, diagonals^2
        self._shift_variance = 0.0  # px^2: of the error of the last shift

    def keep_persons(self, is_kept: Bools) -> None:
        """Drop the persons for whom `is_kept` (A,) is false."""
        self.person = self.person[is_kept]
        self.last = self.last[is_kept]
        self._n_seen = self._n_seen[is_kept]
        self._state = self._state[is_kept]
        self._variance = self._variance[is_kept]

    def add(self, detections: Ints, first: int) -> None:
        """Begin a new person, numbered from `first`, at each of these detections."""
        n = len(detections)
        size = self._seen.size[detections]
        variance = np.zeros((n, 2, 2))
        variance[:, 0, 0] = self._noise(detections, size)
        variance[:, 1, 1] = (START * size) ** 2
        numbers = np.arange(first, first + n)
        once = np.ones(n, np.int64)
        at_rest = np.zeros((n, 2, 2))
        self.person = np.append(self.person, numbers)
        self.last = np.append(self.last, detections)
        self._n_seen = np.append(self._n_seen, once)
        self._state = np.concatenate([self._state, at_rest])
        self._variance = np.concatenate([self._variance, variance])

    def advance(self, n: float) -> None:
        """Predict all persons n steps ahead."""
        step = np.array([[1, n], [0, 1]])
        # a velocity that changes at random, with variance 1 a step, leads to this covariance of
        # position and velocity
        covariance = np.array([[n**3 / 3, n**2 / 2], [n**2 / 2, n]])
        size = self._seen.size[self.last]
        speed = np.linalg.norm(self._state[:, 1], axis=-1)
        by_size = CHANGE * size
        by_speed = TURN * speed
        change = by_size**2 + by_speed**2
        grown = step @ self._variance @ step.T
        self._state = step @ self._state
        changed = change[:, None, None] * covariance
        self._variance = grown + changed

    def follow_camera(self, camera: Mapping[int, Doubles], frames: range) -> None:
        """Move all predictions as the camera's motion in `frames` moves things that are still."""
        if not camera or not len(self.last):
            return
        for frame in frames:
            homography = camera.get(frame)
            if homography is None:
                continue
            expected = self._expected_centres()
            move = transfer(homography, expected) - expected
            is_finite = np.isfinite(move)  # some map to infinity
            self._state[:, 0] += np.where(is_finite, move, 0)

    def _expected_centres(self) -> Doubles:
        """Where the centres (A, 2) px of the persons' boxes are expected."""
        return self._seen.centre[self.last] + self._state[:, 0]

    def pair(self, detections: Ints, shifts: Doubles, reach: Doubles) -> Pairs:
        """Compare persons with those of B detections who are near if the camera shifts all by one
        of C shifts px: at least those with an offset up to `reach` (A,) px.
        """
        n_rows = len(self.last)
        n_pairs = n_rows * len(detections)
        if n_pairs <= ALL_PAIRS:
            return self._compare(detections, np.arange(n_pairs))
        found = self._search(detections, shifts, reach)
        column = np.fromiter(chain.from_iterable(found), np.int64)
        query = np.repeat(np.arange(len(found)), [*map(len, found)])
        shift, row = np.divmod(query, n_rows)
        pairs, which = np.unique(row * len(detections) + column, return_inverse=True)
        # boxes are larger than `reach`: few of their pairs are near
        seen_offsets = self._seen.offsets(self.last, detections, pairs)
        expected = self._state[row, 0] + shifts[shift]
        is_near = square(seen_offsets[which] - expected) <= (reach[row] + SLACK) ** 2
        near = np.unique(which[is_near])
        return self._compare(detections, pairs[near])

    def _search(
        self, detections: Ints, shifts: Doubles, reach: Doubles, *, lists: bool = True
    ) -> Array:
        """Numbers of the detections near each person for each of C shifts, (C * A,) lists; or
        whether there are any. The means of joints are in their boxes, so no offset is shorter than
        the way from one to the other.
        """
        # 0.1 s, which clips of few people need not wait for
        from scipy.spatial import KDTree

        largest = self._seen.sides[detections].max(axis=0)
        scale = np.maximum(largest, 1)  # px: boxes are higher than wide
        half_sides = (self._seen.sides[self.last] + largest) / 2
        radius = (reach[:, None] + half_sides) / scale
        shifted = self._expected_centres() + shifts[:, None]  # (C, A, 2)
        tree = KDTree(self._seen.centre[detections] / scale)
        centres = shifted.reshape(-1, 2)
        places = centres / scale
        largest_radius = radius.max(axis=1)
        radii = np.tile(largest_radius, len(shifts))
        if not lists:  # the nearest one is found faster than all
            nearest, _ = tree.query(places, p=math.inf)
            return np.asarray(nearest <= radii)
        found: Array = tree.query_ball_point(places, radii, p=math.inf)
        return found

    def _compare(self, detections: Ints, pairs: Ints) -> Pairs:
        """Compare persons with B detections, by the numbers (P,) of the pairs: row * B + column."""
        row, column = np.divmod(pairs, len(detections))
        last = self.last[row]
        seen = detections[column]
        old = self._seen.keypoints[last]  # (P, J, 3)
        new = self._seen.keypoints[seen]
        size = self._seen.size[last]
        weight = old[..., 2] * new[..., 2]
        total = weight.sum(axis=1)
        is_shared = total > 0
        weight /= np.where(is_shared, total, 1)[:, None]

        expected = old[..., :2] + self._state[row, :1]
        offsets = new[..., :2] - expected  # (P, J, 2)
        offset = np.einsum("pjk,pj->pk", offsets, weight)  # d
        residual = offsets - offset[:, None]
        length = np.sqrt(square(residual))
        mean_length = np.einsum("pj,pj->p", length, weight)  # r, in px

        noise = self._noise(seen, size)  # R
        variance = self._variance[row, 0, 0] + noise  # S
        larger = np.maximum(size, self._seen.size[seen])
        shape = mean_length / larger / SHAPE
        sureness = SURENESS * np.log(variance / noise)
        newcomer = NEWCOMER / self._n_seen[row]
        unsure = -2 * np.log(self._seen.confidence[seen])
        shape_cost = np.where(is_shared, shape**2, np.inf)
        other = sureness + newcomer + unsure
        return Pairs(row, column, offset, variance, shape_cost, other)

    def follow_people(self, detections: Ints) -> Pairs:
        """Move all predictions by the shift px that all persons have in common; return their pairs
        with B detections after it. There are some of both.
        """
        shift = np.zeros(2)
        size = self._seen.size[self.last]
        least_confidence = self._seen.confidence[detections].min()
        noise = (NOISE * size) ** 2 / least_confidence
        variance = self._variance[:, 0, 0] + noise
        explained = np.sqrt(CAP * variance)  # px: longer offsets cost CAP
        pairs = self.pair(detections, shift[None], explained)
        is_all = len(pairs.row) == len(size) * len(detections)
        usual = self._shift_spread * size.mean() ** 2
        cost = pairs.cost
        least = pairs.least(cost)
        rareness = TAIL
        if len(least) < len(size) or least.max() > EXPLAINED:
            offsets = self._offsets_of_steadiest(detections)
            shifts = np.concatenate([shift[None], offsets])
            rarenesses = TAIL + square(shifts) / usual
            price = (TAIL + 2) * np.log(rarenesses / TAIL)
            if not is_all:
                # without those that cost more than none, by the persons alone who are near nobody
                has_near = self._search(detections, shifts, explained, lists=False)
                n_near = has_near.reshape(len(shifts), -1).sum(axis=1)
                lost = len(size) - n_near
                n_unpaired = len(size) - len(least)
                most = least.sum() + CAP * n_unpaired + 1e-6
                tried = np.flatnonzero(price + CAP * lost <= most)
                shifts = shifts[tried]
                rarenesses = rarenesses[tried]
                price = price[tried]
                pairs = self.pair(detections, shifts, explained)
            costs = pairs.costs(shifts)
            total = pairs.least(costs).sum(axis=1)
            best = np.argmin(total + price)
            cost = costs[best]
            rareness = rarenesses[best]

        # the mean of the offsets that this shift explains, and of usual shifts
        order = np.lexsort((cost, pairs.row))
        nearest = order[pairs.first]
        nearest = nearest[cost[nearest] < CAP]
        weight = 1 / pairs.variance[nearest]
        weight_of_none = TAIL / (rareness * usual)
        self._shift_variance = 1 / (weight_of_none + weight.sum())
        shift = self._shift_variance * (weight @ pairs.offset[nearest])
        self._learn_spread(shift, usual)
        if not is_all:
            possible = np.sqrt(MAX_COST * variance)  # px: longer offsets cost too much
            pairs = self.pair(detections, shift[None], np.minimum(REACH * size, possible))
        self._state[:, 0] += shift
        return pairs._replace(offset=pairs.offset - shift)

    def _learn_spread(self, shift: Doubles, usual: float) -> None:
        """Learn how usual such shifts are. shift: (2,) px. usual: (px^2) their variance so far."""
        squared = shift @ shift / 2 + self._shift_variance
        spread = squared / usual * self._shift_spread
        change = LEARNING * (spread - self._shift_spread)
        spread = self._shift_spread + change
        self._shift_spread = max(float(spread), LEAST_SPREAD**2)

    def _offsets_of_steadiest(self, detections: Ints) -> Doubles:
        """Offsets (n, 2) px of the steadiest persons from the detections of least cost to each."""
        size = self._seen.size[self.last]
        unsteadiness = self._variance[:, 0, 0] / size**2
        steadiest = np.argsort(unsteadiness, kind="stable")[:STEADIEST, None]
        numbers = steadiest * len(detections) + np.arange(len(detections))
        pairs = self._compare(detections, numbers.ravel())
        order = np.argsort(pairs.cost.reshape(numbers.shape), axis=1, kind="stable")
        nearest = np.sort(order[:, :NEAREST], axis=1)
        offsets = pairs.offset.reshape(*numbers.shape, 2)
        chosen: Doubles = np.take_along_axis(offsets, nearest[..., None], axis=1)
        return chosen.reshape(-1, 2)

    def costs(self, pairs: Pairs) -> Doubles:
        """Costs (P,) of linking; infinite if they are REACH apart."""
        reach = REACH * self._seen.size[self.last]
        is_near = square(pairs.offset) < reach[pairs.row] ** 2
        return np.where(is_near, pairs.cost + pairs.other, np.inf)

    def update(self, rows: Ints, detections: Ints, innovation: Doubles) -> None:
        """Correct the filters of linked persons.

        rows: (n,) of the persons, 0 to A - 1. detections: (n,) linked to them. innovation: (n, 2)
        px, the mean offset of the joints from where they were expected.
        """
        size = self._seen.size[self.last[rows]]
        noise = self._noise(detections, size)
        self.last[rows] = detections
        self._n_seen[rows] += 1

        total = self._variance[rows, 0, 0] + noise
        gain = self._variance[rows, :, :1] / total[:, None, None]  # (n, 2, 1): position, velocity
        # positions count from the joints just seen, so the prediction is at -innovation
        self._state[rows, 0] = -innovation
        self._state[rows] += gain * innovation[:, None]
        # what a person's offset said about the camera, it does not say about the person
        own = 1 - self._shift_variance / total
        gain *= np.maximum(own, 0)[:, None, None]
        self._variance[rows] -= gain * self._variance[rows, :1]

    def _noise(self, detections: Ints, size: Doubles) -> Doubles:
        """Variances (px^2) of D detections' mean joints, for diagonals that broadcast with (D,)."""
        return (NOISE * size) ** 2 / self._seen.confidence[detections]


def _step(fps: float) -> float:
    """The time from a frame to the next, in frames of SECOND a second.

    >>> _step(50), _step(25), _step(6.25), _step(math.nan)
    (0.5, 1.0, 2.0, 1.0)
    """
    if not 0 < fps < math.inf:
        return 1.0
    step = SECOND / fps
    if fps > SECOND:
        return step
    return math.sqrt(step)


def _scenes(frame_index: Sequence[int] | Ints, cuts: Sequence[int]) -> Ints:
    """(T,) scene number of each frame; `cuts` are the first frames of new scenes.

    >>> _scenes([0, 1, 5, 6, 9], cuts=[3, 6]).tolist()
    [0, 0, 1, 2, 2]
    """
    scene = np.searchsorted(sorted(cuts), frame_index, side="right")
    return np.asarray(scene, np.int64)


def split_at_gaps(frame_index: Ints, max_gap: int, cuts: Sequence[int] = ()) -> list[Ints]:
    """Split one person's frames (T,) at cuts, and at gaps of more than `max_gap` frames.

    Returns the parts as positions 0..T-1.

    >>> frames = np.array([0, 1, 4, 9, 10, 11])
    >>> [part.tolist() for part in split_at_gaps(frames, max_gap=2, cuts=[11])]
    [[0, 1, 2], [3, 4], [5]]
    """
    is_gap = np.diff(frame_index) > max_gap + 1
    scene = _scenes(frame_index, cuts)
    is_cut = np.diff(scene) > 0
    starts = np.flatnonzero(is_gap | is_cut) + 1
    return np.split(np.arange(len(frame_index)), starts)

"""Does linking keep people apart? Simulated scenes, linked by `pipeline.linking` and by ByteTrack
of the library `trackers`.

    .venv/bin/pip install -e '.[benchmarks]'
    .venv/bin/python benchmarks/linking.py --out benchmarks/linking.md

In the scenes, people of 1.5 to 1.9 m walk on a plane, 5 to 12 m from a camera at 2.2 m, so that
nearer ones are larger and lower in the image, and hide those behind them. 1280 x 720 px, 25 frames
a second, 10 s.

Constants of our linking, and the fitted options of ByteTrack, were chosen with seeds from 0 to 19,
and the scenes are judged with seeds from 1000 on. Ours sees joints, and knows a moving camera to
1 px, as `_detect` measures it; ByteTrack sees boxes and scores. All may bridge a second. "Fitted"
are the options with the highest mean among 18 sets: ByteTrack begins and prefers tracks from a
score of 0.25 on, reports them from the first frame on, and pairs boxes by GIoU from -0.25 on.
Tracks of fewer than 8 detections are dropped, of all.

IDF1 (Ristani et al. 2016) over detections: twice the number of detections in the track that is
paired with their person, divided by the number of detections plus that of detections in tracks, for
the best pairing. Exchanges: how often a track goes over to another person.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import parser, report, table
from pipeline.linking import link

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

SEEDS: Final = range(1000, 1020)
SHORT: Final = 8  # detections

WIDTH, HEIGHT, FPS, FRAMES = 1280, 720, 25, 250  # px, px, frames a second
FOCAL: Final = 900.0  # px
HORIZON: Final = 250.0  # px from the top
CAMERA_HEIGHT: Final = 2.2  # m
NEAREST, MIDDLE, FARTHEST = 5.0, 8.5, 12.0  # m
# COCO's joints of a figure of height 1: to the side, and up
BODY: Final = np.array(
    [
        [0, 0.93], [0.02, 0.95], [-0.02, 0.95], [0.04, 0.94], [-0.04, 0.94],
        [0.11, 0.82], [-0.11, 0.82], [0.14, 0.65], [-0.14, 0.65], [0.14, 0.49],
        [-0.14, 0.49], [0.07, 0.5], [-0.07, 0.5], [0.07, 0.27], [-0.07, 0.27],
        [0.07, 0.04], [-0.07, 0.04],
    ]
)  # fmt: skip
# forward, in a step
SWING: Final = np.array([0] * 7 + [0.06, -0.06, 0.12, -0.12, 0, 0, -0.06, 0.06, -0.14, 0.14])
MARGIN: Final = 0.04  # heights: of a box around joints
# heights: standard deviations of joints that the camera sees, and of hidden ones, which a network
# guesses; it takes some of them from the person in front
NOISE, GUESS = 0.012, 0.06
MISTAKEN: Final = 0.3
BOX_NOISE: Final = 0.01  # heights, of a box of somebody who is not hidden; up to 5 times as much
# shares of visible joints below which nobody is detected, and from which on everybody is
LEAST, ENOUGH = 0.1, 0.4


@dataclass(frozen=True)
class _Scene:
    """A kind of scene."""

    people: int = 12
    speed: float = 1.2  # m a second
    rows: float = 0.0  # m between the nearest and farthest of two rows that meet; 0: all wander
    shake: float = 0.0  # px, standard deviation of the camera's position from frame to frame
    missed: float = 0.0  # share of detections
    false: float = 0.0  # detections a frame that are nobody, or part of somebody
    confidence: float = 1.0  # factor of scores and of joints' confidences
    stay: float = 10.0  # s that each person stays
    away: float = 0.0  # s that each person is behind something, once
    doors: bool = False  # somebody leaves through each of n / 2 doors, then another one enters


class _Detected(NamedTuple):
    """The P detections of a frame."""

    person: Ints  # (P,) number of the person, -1 for nobody
    boxes: Doubles  # (P, 4) corners
    scores: Doubles  # (P,)
    keypoints: Doubles  # (P, 17, 3)

    def select(self, rows: NDArray[Any]) -> _Detected:
        """These detections alone: their positions, or (P,) whether each is one of them."""
        return _Detected(
            self.person[rows], self.boxes[rows], self.scores[rows], self.keypoints[rows]
        )


SCENES: Final = {
    "six people walk past each other, up to 2 m apart in depth": _Scene(6, rows=2),
    "six people walk past each other, up to 0.6 m apart": _Scene(6, rows=0.6),
    "two people cross": _Scene(2, rows=1),
    "a crowd of 12": _Scene(),
    "12 people who run": _Scene(speed=3),
    "12 people, a camera that shakes by 5 px": _Scene(shake=5),
    "12 people, 25% of detections missed": _Scene(missed=0.25),
    "8 people, 1.5 false detections a frame": _Scene(8, false=1.5),
    "8 people, half as certain": _Scene(8, confidence=0.5),
    "24 people who come and go": _Scene(24, stay=4),
    "4 people leave by a door, others come in by it": _Scene(8, doors=True),
    "4 people, each unseen for 0.8 s": _Scene(4, away=0.8),
    "12 people run, camera shake, 25% missed": _Scene(speed=3, shake=5, missed=0.25),
}
Way = Callable[[Sequence[_Detected], Doubles], list[Ints]]


def _score(truth: Sequence[Ints], tracks: Sequence[Ints]) -> tuple[float, int]:
    """IDF1, and the number of exchanges, of frames with people (P,), -1 for nobody, and their
    tracks (P,), -1 for none.

    Person 0 is in track 5 eight times, then in none; person 1 in track 6 eight times, then in 5:
    16 are right, of 18 detections, 17 in tracks.

    >>> _score([np.array([0, 1])] * 9, [np.array([5, 6])] * 8 + [np.array([-1, 5])])
    (0.9142857142857143, 1)
    """
    from scipy.optimize import linear_sum_assignment

    person = np.concatenate(truth)
    track = np.concatenate(tracks)
    _, number, n_detections = np.unique(track, return_inverse=True, return_counts=True)
    in_track = (track >= 0) & (n_detections[number] >= SHORT)
    both = in_track & (person >= 0)
    together = np.zeros((person.max() + 1, number.max() + 1))
    np.add.at(together, (person[both], number[both]), 1)
    right = together[linear_sum_assignment(-together)].sum()
    n_exchanges = 0
    for one in np.unique(track[both]):
        n_exchanges += int(np.count_nonzero(np.diff(person[both & (track == one)])))
    return float(2 * right / ((person >= 0).sum() + in_track.sum())), n_exchanges


def ours(frames: Sequence[_Detected], shift: Doubles) -> list[Ints]:
    """The track of each detection by `pipeline.linking`, whose camera is 1 px off."""
    steps = np.diff(shift, axis=0)
    steps += np.random.default_rng(0).normal(0, 1, steps.shape) * shift.any()
    camera = {t: np.array([[1, 0, x], [0, 1, y], [0, 0, 1]]) for t, (x, y) in enumerate(steps, 1)}
    tracks = [np.full(len(frame.person), -1) for frame in frames]
    visible = [np.where(frame.keypoints[..., 2:] < 0.3, 0, frame.keypoints) for frame in frames]
    for number, track in enumerate(link(visible, range(len(frames)), camera=camera)):
        for t, p in track:
            tracks[t][p] = number
    return tracks


def _byte_track(**options: Any) -> Way:
    """ByteTrack with these options."""
    import supervision as sv  # type: ignore[import-not-found]
    from trackers import ByteTrackTracker  # type: ignore[import-not-found]

    def way(frames: Sequence[_Detected], shift: Doubles) -> list[Ints]:
        del shift
        tracker = ByteTrackTracker(frame_rate=FPS, **options)
        tracks = []
        for frame in frames:
            data = {"p": np.arange(len(frame.boxes))}
            seen = sv.Detections(xyxy=frame.boxes, confidence=frame.scores, data=data)
            tracked = tracker.update(seen)
            track = np.full(len(frame.person), -1)
            if len(tracked):
                track[tracked.data["p"]] = tracked.tracker_id
            tracks.append(track)
        return tracks

    return way


def _measured(seeds: Sequence[int]) -> Iterator[str]:
    """IDF1 and exchanges of each way in each scene."""
    from trackers import GIoU

    fitted = _byte_track(
        minimum_consecutive_frames=1,
        track_activation_threshold=0.25,
        high_conf_det_threshold=0.25,
        iou=GIoU(),
        minimum_iou_threshold=-0.25,
    )
    ways: dict[str, Way] = {"ours": ours, "ByteTrack, fitted": fitted, "ByteTrack": _byte_track()}
    seconds = dict.fromkeys(ways, 0.0)
    n_detections = 0
    rows = []
    for name, scene in SCENES.items():
        scores: dict[str, list[tuple[float, int]]] = {way: [] for way in ways}
        for seed in seeds:
            frames, shift = _simulate(scene, seed)
            truth = [frame.person for frame in frames]
            n_detections += sum(map(len, truth))
            for way, linked in ways.items():
                began = time.process_time()
                tracks = linked(frames, shift)
                seconds[way] += time.process_time() - began
                scores[way].append(_score(truth, tracks))
        cells = []
        for of_way in scores.values():
            idf1, n_exchanges = np.transpose(of_way)
            cells.append(f"{idf1.mean():.3f} ± {idf1.std():.3f}; {n_exchanges.mean():.1f}")
        rows.append((name, *cells))
    yield (
        f"IDF1, mean over {len(seeds)} seeds from {seeds[0]} on ± standard deviation; exchanges a "
        "scene:\n"
    )
    yield from table(("scene", *ways), rows)
    rates = (f"{way} {n_detections / spent:,.0f}" for way, spent in seconds.items())
    yield f"\nDetections per second of CPU time: {', '.join(rates)}."


def main() -> None:
    """Measure, print, write the report."""
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=len(SEEDS))
    args = options.parse_args()
    lines = _measured(SEEDS[: args.seeds])
    report("People who are linked over time.", "Does linking keep people apart?", lines, args)


def _simulate(scene: _Scene, seed: int) -> tuple[list[_Detected], Doubles]:
    """The detections of each frame, and the camera's shift (T, 2) px."""
    rng = np.random.default_rng(seed)
    times = np.arange(FRAMES)[:, None] / FPS
    places, heading, is_there = _meet(scene, times, rng) if scene.rows else _wander(scene, rng)
    is_there &= _is_present(scene, times, rng)
    depth = places[..., 1]
    height = FOCAL * rng.uniform(1.5, 1.9, scene.people) / depth
    phase = 2 * np.pi * ((0.4 + 0.5 * scene.speed) * times + rng.random(scene.people))
    swing = SWING * (np.sin(phase) * np.cos(heading))[..., None]
    across = BODY[:, 0] * np.sin(heading)[..., None] + swing  # (T, N, 17)
    x = (WIDTH / 2 + FOCAL * places[..., 0] / depth)[..., None] + across * height[..., None]
    y = (HORIZON + FOCAL * CAMERA_HEIGHT / depth)[..., None] - BODY[:, 1] * height[..., None]
    joints = np.stack([x, y], axis=-1)
    shift = rng.normal(0, scene.shake, (FRAMES, 2))
    frames = []
    for t in range(FRAMES):
        here = np.flatnonzero(is_there[t])
        people = here[np.argsort(depth[t, here])]
        seen = _detect(scene, people, joints[t, people], height[t, people, None], rng)
        for _ in range(rng.poisson(scene.false)):
            seen = _add_nobody(seen, rng)
        order = rng.permutation(len(seen.person))
        keypoints = seen.keypoints + np.append(shift[t], 0)
        moved = seen._replace(boxes=seen.boxes + np.tile(shift[t], 2), keypoints=keypoints)
        frames.append(moved.select(order))
    return frames, shift


def _meet(
    scene: _Scene, times: Doubles, rng: np.random.Generator
) -> tuple[Doubles, Doubles, Bools]:
    """Two rows of N people walk past each other. As `_wander`; times: (T, 1) s."""
    n = scene.people
    way = np.where(np.arange(n) % 2, 1.0, -1.0)
    speed = way * scene.speed * rng.uniform(0.7, 1.3, n)
    x = speed * (times - rng.uniform(4, 6, n)) + rng.uniform(-1, 1, n)
    sway = 0.1 * np.sin(times * rng.uniform(0.5, 1.5, n) + rng.uniform(0, 6, n))
    depth = 7.5 + scene.rows * rng.uniform(-0.5, 0.5, n) + sway
    return np.stack([x, depth], axis=-1), np.arctan2(0, way + 0 * x), np.ones(x.shape, bool)


def _wander(scene: _Scene, rng: np.random.Generator) -> tuple[Doubles, Doubles, Bools]:
    """N people wander. Places (T, N, 2) m, to the right and away from the camera; headings (T, N)
    rad, 0 to the right; and whether they are before a door, (T, N).
    """
    n = scene.people
    speed = scene.speed * rng.uniform(0.7, 1.3, n)
    place: Doubles = np.column_stack([rng.uniform(-0.6, 0.6, n), rng.uniform(NEAREST, FARTHEST, n)])
    place[:, 0] *= place[:, 1]
    facing: Doubles = rng.uniform(-np.pi, np.pi, n)
    left = rng.integers(75, 175, n // 2)  # frames: people of even numbers go through a door,
    entered = left + rng.integers(5, 26, n // 2)  # and those of odd numbers come out of it
    is_there = np.ones((FRAMES, n), bool)
    door = place[::2]
    places, headings = [], []
    for t in range(FRAMES):
        if scene.doors:
            is_there[t, ::2] = t < left
            is_there[t, 1::2] = t >= entered
            door = np.where(np.equal(left, t)[:, None], place[::2], door)
            place[1::2] = np.where(np.equal(entered, t)[:, None], door, place[1::2])
            facing[1::2] = np.where(t == entered, facing[::2] + np.pi, facing[1::2])
        # those who leave the plane that the camera sees turn back to its middle
        outside = np.abs(place[:, 0]) > 0.6 * place[:, 1]
        outside |= np.abs(place[:, 1] - MIDDLE) > MIDDLE - NEAREST
        back = np.arctan2(MIDDLE - place[:, 1], -place[:, 0])
        turn = (back - facing + np.pi) % (2 * np.pi) - np.pi
        facing = facing + rng.normal(0, 0.1, n) + outside * np.clip(turn, -0.15, 0.15)
        step = np.column_stack([np.cos(facing), np.sin(facing)])
        place = place + step * speed[:, None] / FPS
        places.append(place)
        headings.append(facing)
    return np.stack(places), np.stack(headings), is_there


def _is_present(scene: _Scene, times: Doubles, rng: np.random.Generator) -> Bools:
    """(T, N) whether people are there, and not behind something. times: (T, 1) s."""
    begin = rng.uniform(-scene.stay / 2, 10 - scene.stay / 2, scene.people)
    begin = np.where(scene.stay < 10, begin, 0)
    leaves = rng.uniform(1, 8, scene.people)
    stays = (times >= begin) & (times < begin + scene.stay)
    return stays & ((times < leaves) | (times >= leaves + scene.away))


def _detect(
    scene: _Scene, people: Ints, joints: Doubles, height: Doubles, rng: np.random.Generator
) -> _Detected:
    """What a detector finds of N people, nearest first: their joints (N, 17, 2) px, and heights
    (N, 1) px.
    """
    n = len(people)
    low = joints.min(axis=1) - MARGIN * height
    high = joints.max(axis=1) + MARGIN * height
    is_within = (joints[:, :, None] > low) & (joints[:, :, None] < high)  # (N, 17, by N, 2)
    covers = is_within.all(axis=-1) & np.tri(n, k=-1, dtype=bool)[:, None]
    hidden = covers.any(axis=-1)
    visible = 1 - hidden.mean(axis=1)

    points = joints.copy()
    rows, columns = np.nonzero(hidden & (rng.random(hidden.shape) < MISTAKEN))
    points[rows, columns] = joints[covers.argmax(axis=-1)[rows, columns], columns]
    noise = np.where(hidden, GUESS, NOISE) * height
    points += rng.normal(0, 1, points.shape) * noise[..., None]
    guessed = rng.uniform(0.05, 0.5, hidden.shape)
    confidence = np.where(hidden, guessed, rng.uniform(0.55, 1, hidden.shape))
    scores = np.clip(0.25 + 0.65 * visible + rng.normal(0, 0.05, n), 0.05, 1)
    blur = BOX_NOISE * (5 - 4 * visible[:, None]) * height
    boxes = np.concatenate([low, high], axis=1) + rng.normal(0, 1, (n, 4)) * blur
    keypoints = np.concatenate([points, scene.confidence * confidence[..., None]], axis=-1)

    is_found = rng.random(n) < (visible - LEAST) / (ENOUGH - LEAST)
    is_found &= np.abs(joints[:, :, 0].mean(axis=1) - WIDTH / 2) < WIDTH / 2
    is_found &= rng.random(n) >= scene.missed
    return _Detected(people, boxes, scene.confidence * scores, keypoints).select(is_found)


def _add_nobody(seen: _Detected, rng: np.random.Generator) -> _Detected:
    """Add a detection of nobody: a figure anywhere, or the upper half of somebody."""
    size = rng.uniform(120, 300)
    place = rng.uniform([0, HEIGHT / 2], [WIDTH, HEIGHT])
    points = place + size * (BODY * [1, -1] + rng.normal(0, 0.03, BODY.shape))
    confidence = rng.uniform(0.05, 0.6, 17)
    if len(seen.person) and rng.random() < 0.5:
        somebody = seen.keypoints[rng.integers(len(seen.person))]
        points = somebody[:, :2] + rng.normal(0, 3, points.shape)
        confidence = np.where(np.arange(17) < 11, somebody[:, 2], 0.05)
    half = points[confidence > 0.05]
    box = np.concatenate([half.min(axis=0), half.max(axis=0)])
    keypoints = np.column_stack([points, confidence])
    return _Detected(
        np.append(seen.person, -1),
        np.concatenate([seen.boxes, [box]]),
        np.append(seen.scores, rng.uniform(0.1, 0.5)),
        np.concatenate([seen.keypoints, [keypoints]]),
    )


if __name__ == "__main__":
    main()

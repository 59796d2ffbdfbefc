"""Does linking keep people apart? Simulated scenes, linked by `pipeline.linking` and by the library
`trackers`.

    .venv/bin/pip install -e '.[benchmarks]'
    .venv/bin/python benchmarks/linking.py --out benchmarks/linking.md

Figures of 17 joints walk in 1280 x 720 px, 25 frames a second, for 10 s. A person is missed if a
nearer one covers more than half of the box; covered joints have a confidence of 0.1. Joints are off
by 2 px, boxes by 3 px (standard deviations). Our camera is known to 1 px, as `detect` measures it.
SORT and ByteTrack get boxes and scores. Both may bridge a second, and report a person from the
first frame on, since all detections here are people; ByteTrack begins tracks from a score of 0.25
on, which is better than its 0.7 here. Other options have their defaults.

IDF1 (Ristani et al. 2016) over detections: twice the number of detections in the track that is
paired with their person, divided by the number of detections plus that of detections in tracks, for
the best pairing.
"""

from __future__ import annotations

import sys
import warnings
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

WIDTH, HEIGHT, FPS = 1280, 720, 25
HIDDEN: Final = 0.5  # share of a covered box from which on its person is missed
# COCO's joints of a figure of height 1, from its feet: x, y up
BODY: Final = np.array(
    [
        [0, 0.93], [0.02, 0.95], [-0.02, 0.95], [0.04, 0.94], [-0.04, 0.94],
        [0.11, 0.82], [-0.11, 0.82], [0.14, 0.65], [-0.14, 0.65], [0.14, 0.49],
        [-0.14, 0.49], [0.07, 0.5], [-0.07, 0.5], [0.07, 0.27], [-0.07, 0.27],
        [0.07, 0.04], [-0.07, 0.04],
    ]
)  # fmt: skip
# of x, in a step
SWING: Final = np.array([0] * 7 + [0.06, -0.06, 0.12, -0.12, 0, 0, -0.06, 0.06, -0.14, 0.14])


@dataclass(frozen=True)
class Scene:
    """A kind of scene."""

    people: int = 12
    speed: float = 0.8  # heights a second
    facing: bool = False  # two rows walk towards each other; otherwise everybody wanders
    shake: float = 0.0  # px, standard deviation of the camera's position from frame to frame
    missed: float = 0.0  # share of detections
    stay: float = 10.0  # s that each person stays
    away: float = 0.0  # s that each person is not seen, once
    frames: int = 250


SCENES: Final = {
    "two rows walk past each other": Scene(6, facing=True),
    "a crowd of 12": Scene(),
    "12 people, three times as fast": Scene(speed=2.4),
    "12 people, a camera that shakes by 6 px": Scene(shake=6),
    "12 people, 25% of detections missed": Scene(missed=0.25),
    "24 people who come and go": Scene(24, stay=4),
    "two people cross": Scene(2, facing=True),
    "4 people, each leaves for 0.8 s and comes back": Scene(4, away=0.8),
    "12 fast people, camera shake, 25% missed": Scene(speed=2.4, shake=6, missed=0.25),
}


class Detected(NamedTuple):
    """The P people that are detected in a frame."""

    person: Ints  # (P,) number of the person
    boxes: Doubles  # (P, 4) corners
    scores: Doubles  # (P,)
    keypoints: Doubles  # (P, 17, 3)


def feet(scene: Scene, rng: np.random.Generator) -> tuple[Doubles, Doubles]:
    """Positions of all feet (T, N, 2) px, and heights (N,) px."""
    n, times = scene.people, np.arange(scene.frames) / FPS
    height = rng.uniform(160, 220, n)
    speed = scene.speed * height * rng.uniform(0.7, 1.3, n)
    if scene.facing:
        way = np.where(np.arange(n) % 2, 1, -1)
        across = WIDTH * rng.uniform(0.35, 0.65, n)
        x = across + way * speed * (times[:, None] - times[-1] / 2 - rng.uniform(-1, 1, n))
        y = np.broadcast_to(HEIGHT * rng.uniform(0.55, 0.7, n), x.shape)
        return np.stack([x, y], axis=-1), height
    at = np.column_stack([rng.uniform(100, WIDTH - 100, n), rng.uniform(0.45, 0.98, n) * HEIGHT])
    heading, low, high = (
        rng.uniform(0, 2 * np.pi, n),
        np.array([60, 0.4 * HEIGHT]),
        np.array([WIDTH - 60, HEIGHT]),
    )
    path = []
    for _ in times:
        heading += rng.normal(0, 0.12, n)  # 34 degrees a second
        step = np.column_stack([np.cos(heading), 0.4 * np.sin(heading)]) * speed[:, None] / FPS
        outside = ((at + step < low) & (step < 0)) | ((at + step > high) & (step > 0))
        heading = np.where(
            outside[:, 0], np.pi - heading, np.where(outside[:, 1], -heading, heading)
        )
        at = at + np.where(outside, -step, step)
        path.append(at)
    return np.stack(path), height


def simulate(scene: Scene, seed: int) -> tuple[list[Detected], Doubles]:
    """The detections of each frame, and the camera's shift (T, 2) px."""
    rng = np.random.default_rng(seed)
    at, height = feet(scene, rng)
    shift = rng.normal(0, scene.shake, (scene.frames, 2))
    phase = rng.uniform(0, 2 * np.pi, scene.people)
    begin = rng.uniform(-scene.stay / 2, scene.frames / FPS - scene.stay / 2, scene.people) * (
        scene.stay < 10
    )
    leaves = rng.uniform(1, scene.frames / FPS - 2, scene.people)  # s
    frames = []
    for t in range(scene.frames):
        step = np.sin(2 * np.pi * 1.0 * max(scene.speed, 1) * t / FPS + phase)
        body = np.stack(
            [BODY[:, 0] + step[:, None] * SWING, np.broadcast_to(-BODY[:, 1], (scene.people, 17))],
            -1,
        )
        joints = at[t][:, None] + body * height[:, None, None]
        low, high = (
            joints.min(axis=1) - 0.04 * height[:, None],
            joints.max(axis=1) + 0.04 * height[:, None],
        )
        x0, y0, x1, y1 = low[:, 0], low[:, 1], high[:, 0], high[:, 1]
        here = (t >= begin * FPS) & (t < (begin + scene.stay) * FPS)
        here &= (t < leaves * FPS) | (t >= (leaves + scene.away) * FPS)
        nearer = (at[t][None, :, 1] > at[t][:, None, 1]) & here  # (N, by N)
        wide = np.minimum(x1[:, None], x1) - np.maximum(x0[:, None], x0)
        tall = np.minimum(y1[:, None], y1) - np.maximum(y0[:, None], y0)
        overlap = np.where(nearer, np.clip(wide, 0, None) * np.clip(tall, 0, None), 0)
        covered = overlap.max(axis=1) / ((x1 - x0) * (y1 - y0))
        within = (joints[:, :, None] > low) & (joints[:, :, None] < high)  # (N, 17, by N, 2)
        under = (within.all(axis=-1) & nearer[:, None]).any(axis=-1)
        inside = (joints[:, :, 0].mean(axis=1) > 0) & (joints[:, :, 0].mean(axis=1) < WIDTH)
        detected = inside & here & (covered < HIDDEN) & (rng.random(scene.people) >= scene.missed)
        who = rng.permutation(np.flatnonzero(detected))
        points = joints[who] + rng.normal(0, 2, (len(who), 17, 2)) + shift[t]
        boxes = (
            np.column_stack([low, high])[who]
            + rng.normal(0, 3, (len(who), 4))
            + np.tile(shift[t], 2)
        )
        scores = np.clip(0.9 - 0.8 * covered[who] + rng.normal(0, 0.05, len(who)), 0.3, 1)
        confidence = np.where(under[who], 0.1, 0.9)[..., None]
        frames.append(Detected(who, boxes, scores, np.concatenate([points, confidence], axis=-1)))
    return frames, shift


def idf1(truth: Sequence[Ints], tracks: Sequence[Ints]) -> float:
    """IDF1 of frames with people (P,) and their tracks (P,), -1 for none.

    Person 0 is in track 5 twice, then in none; person 1 in 6, 7 and 5: 2 + 1 are right, of 6
    detections, 5 in tracks.

    >>> idf1([np.array([0, 1])] * 3, [np.array([5, 6]), np.array([5, 7]), np.array([-1, 5])])
    0.5454545454545454
    """
    from scipy.optimize import linear_sum_assignment

    who, track = np.concatenate(truth), np.concatenate(tracks)
    given = track >= 0
    people, tracked = (
        np.unique(who[given], return_inverse=True)[1],
        np.unique(track[given], return_inverse=True)[1],
    )
    together = np.zeros((people.max(initial=-1) + 1, tracked.max(initial=-1) + 1))
    np.add.at(together, (people, tracked), 1)
    right = together[linear_sum_assignment(-together)].sum()
    return float(2 * right / (len(who) + given.sum()))


def linked(frames: Sequence[Detected], **options: Any) -> list[Ints]:
    """The track of each detection by `pipeline.linking`."""
    numbers = [np.full(len(frame.person), -1) for frame in frames]
    visible = [np.where(frame.keypoints[..., 2:] < 0.3, 0, frame.keypoints) for frame in frames]
    for number, track in enumerate(link(visible, range(len(frames)), **options)):
        for t, p in track:
            numbers[t][p] = number
    return numbers


def linked_by_library(tracker: Any, frames: Sequence[Detected]) -> list[Ints]:
    """The track of each detection by a tracker of `trackers`."""
    import supervision as sv  # type: ignore[import-not-found]

    numbers = []
    for frame in frames:
        data = {"p": np.arange(len(frame.boxes))}
        tracked = tracker.update(
            sv.Detections(xyxy=frame.boxes, confidence=frame.scores, data=data)
        )
        number = np.full(len(frame.person), -1)
        if len(tracked):
            number[tracked.data["p"]] = tracked.tracker_id
        numbers.append(number)
    return numbers


def ways() -> dict[str, Callable[[Sequence[Detected], Doubles], list[Ints]]]:
    """Ways to link frames with a camera's shift; those of the library if it is installed."""
    by_name: dict[str, Callable[[Sequence[Detected], Doubles], list[Ints]]] = {
        "ours": lambda frames, _: linked(frames),
        "ours, camera known": lambda frames, shift: linked(frames, camera=camera(shift)),
    }
    try:
        import trackers  # type: ignore[import-not-found]
    except ImportError:
        return by_name
    # 30: a second
    options = {"lost_track_buffer": 30, "frame_rate": FPS, "minimum_consecutive_frames": 1}
    by_score = options | {"track_activation_threshold": 0.25}
    by_name["SORT"] = lambda frames, _: linked_by_library(trackers.SORTTracker(**options), frames)
    by_name["ByteTrack"] = lambda frames, _: linked_by_library(
        trackers.ByteTrackTracker(**by_score), frames
    )
    return by_name


def camera(shift: Doubles) -> dict[int, Doubles]:
    """Homographies from frame to frame, 1 px off."""
    steps = (
        np.diff(shift, axis=0)
        + np.random.default_rng(0).normal(0, 1, (len(shift) - 1, 2)) * shift.any()
    )
    return {t: np.array([[1, 0, x], [0, 1, y], [0, 0, 1]]) for t, (x, y) in enumerate(steps, 1)}


def measured(seeds: Sequence[int]) -> Iterator[str]:
    """IDF1 of each way in each scene: mean over seeds, and the least."""
    warnings.simplefilter("ignore", UserWarning)
    by_way = ways()
    rows = []
    for name, scene in SCENES.items():
        drawn = [simulate(scene, seed) for seed in seeds]
        scores = [
            [idf1([f.person for f in one], way(one, shift)) for one, shift in drawn]
            for way in by_way.values()
        ]
        rows.append((name, *(f"{np.mean(values):.3f} ({min(values):.2f})" for values in scores)))
    yield f"IDF1, mean over {len(seeds)} seeds (least):\n"
    yield from table(("scene", *by_way), rows)
    if "SORT" not in by_way:
        yield "\nSORT and ByteTrack: .venv/bin/pip install -e '.[benchmarks]'"


def main() -> None:
    """Measure, print, write the report."""
    options = parser(__doc__, at="nothing")
    options.add_argument("--seeds", type=int, default=10)
    args = options.parse_args()
    report(
        "People who are linked over time.",
        "Does linking keep people apart?",
        measured(range(args.seeds)),
        args,
    )


if __name__ == "__main__":
    main()

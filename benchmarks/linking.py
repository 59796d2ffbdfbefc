"""Who is who over time, beside plain SORT, where the truth is known; and where a video changes its scene.

    .venv/bin/python benchmarks/linking.py [--clips FILE[@CUT,...] ...]

People made of 17 COCO joints walk, swing their limbs and are found by a played detector (noise of 2% of a person's
height, 3% of persons and 10% of joints missed, 5% of frames with a person who is not there):

- crossing: two to four walk towards each other; who is covered by over 60% is not found.
- occlusion: everybody passes behind something and is not found for 3 to 12 frames, walking on.
- crowd: eight people walk about at random, and cover each other.
- cut: as crossing, but half-way the scene changes: other people, about where the first ones were.

`link` (pipeline/linking.py) is compared with SORT (Bewley et al. 2016: Hungarian on the IoU of boxes that a Kalman
filter of constant velocity predicts, gate 0.3) that may wait one frame, as published, and as long as `link` does. All
get the same detections. By definition: ID switches (CLEAR MOT), IDF1 (Ristani et al. 2016), HOTA's association (Luiten
et al. 2020; a detection is right or it is not there, so the localisation threshold changes nothing).

With --clips, real videos, and after an @ the frames at which they change their scene themselves: 100 pairs of pieces of
different scenes, joined, and 100 uncut pieces, each with a person who stands in the same place throughout. A pair over
whose cut the person is linked is a false bridge; an uncut piece in which the link breaks has a missed link.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from pipeline.boxes import extents, intersection_over_union
from pipeline.files.pixels.cuts import Histogram, cuts, difference, histogram
from pipeline.files.pixels.frames import Video
from pipeline.files.pixels.numbered import n_frames
from pipeline.linking import link

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import report

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WIDTH, HEIGHT = 640, 360
FRAMES: Final = 120
KINDS: Final = ("crossing", "occlusion", "crowd", "cut")
PART: Final = 25  # frames on each side of a join
MAX_GAP: Final = 12  # frames that a person may be missing
# COCO's 17 joints of someone of height 1, from the middle of the body, and how far each swings while walking.
_HEAD = ((0, -0.43), (0.02, -0.45), (-0.02, -0.45), (0.04, -0.44), (-0.04, -0.44))
_ARMS = ((0.11, -0.3), (-0.11, -0.3), (0.14, -0.13), (-0.14, -0.13), (0.15, 0.03), (-0.15, 0.03))
_LEGS = ((0.07, 0.02), (-0.07, 0.02), (0.08, 0.26), (-0.08, 0.26), (0.08, 0.48), (-0.08, 0.48))
BODY: Final = np.array([*_HEAD, *_ARMS, *_LEGS])
SWING: Final = np.array([0, 0, 0, 0, 0, 0, 0, -0.05, 0.05, -0.12, 0.12, 0, 0, 0.07, -0.07, 0.14, -0.14])


class Scene(NamedTuple):
    """The played detector's output, and the truth."""

    keypoints: list[Floats]  # of each frame (P, 17, 3)
    identity: list[Ints]  # of each frame (P,), -1 for a person who is not there
    cuts: tuple[int, ...]  # frames that begin another scene


@dataclass
class Walker:
    """One person: (FRAMES, 2) px of the body's middle, height in px, step's phase and rate, and distance."""

    path: Floats
    height: float
    phase: float
    rate: float
    depth: float

    @classmethod
    def drawn(cls, rng: np.random.Generator, path: Floats) -> Walker:
        return cls(path, rng.uniform(110, 190), rng.uniform(0, 6), rng.uniform(0.2, 0.35), rng.uniform())

    def joints(self, t: int) -> Floats:
        swing = np.column_stack([SWING * np.sin(self.phase + self.rate * t), np.zeros(17)])
        return np.asarray(self.path[t] + self.height * (BODY + swing), np.float64)


def straight(rng: np.random.Generator, direction: float) -> Walker:
    x = WIDTH / 2 + direction * rng.uniform(1.5, 4.5) * (np.arange(FRAMES) - rng.uniform(40, 80))
    y = np.full(FRAMES, HEIGHT / 2 + rng.uniform(-25, 25))
    return Walker.drawn(rng, np.column_stack([x, y]))


def wandering(rng: np.random.Generator) -> Walker:
    speed = np.cumsum(rng.normal(0, 0.35, (FRAMES, 2)) * (1, 0.3), axis=0) + rng.uniform(-2, 2, 2) * (1, 0.2)
    start = rng.uniform((100, 140), (WIDTH - 100, HEIGHT - 140))
    return Walker.drawn(rng, start + np.cumsum(np.clip(speed, -4, 4), axis=0))


def detected(rng: np.random.Generator, walkers: Sequence[Walker], hidden: NDArray[np.bool_]) -> Iterator[list[Floats]]:
    """Of each frame, (17, 3) of each walker, or (0, 17, 3)."""
    for t in range(FRAMES):
        joints = [walker.joints(t) for walker in walkers]
        boxes = [np.stack([points.min(axis=0), points.max(axis=0)]) for points in joints]
        found = []
        for i, (walker, points) in enumerate(zip(walkers, joints, strict=True)):
            nearer = [boxes[k] for k, other in enumerate(walkers) if other.depth < walker.depth]
            covered = max((_covered(boxes[i], box) for box in nearer), default=0.0)
            if hidden[t, i] or covered > 0.6 or rng.random() < 0.03:
                found.append(np.zeros((0, 17, 3)))
                continue
            noisy = points + rng.normal(0, 0.02 * walker.height, points.shape)
            found.append(np.column_stack([noisy, rng.random(17) > 0.1])[None])
        yield found


def _covered(box: Floats, by: Floats) -> float:
    shared = np.clip(np.minimum(box[1], by[1]) - np.maximum(box[0], by[0]), 0, None)
    return float(shared.prod() / (box[1] - box[0]).prod())


def scene(kind: str, rng: np.random.Generator) -> Scene:
    """One of "crossing", "occlusion", "crowd", "cut"."""
    n = {"crowd": 8, "occlusion": 3}.get(kind, int(rng.integers(2, 5)))
    walkers = [wandering(rng) if kind == "crowd" else straight(rng, (-1) ** i) for i in range(n)]
    hidden = np.zeros((FRAMES, n), np.bool_)
    if kind == "occlusion":
        for i in range(n):
            for start in (20, 60, 95):
                begin = start + int(rng.integers(-5, 5))
                hidden[begin : begin + int(rng.integers(3, 13)), i] = True
    frames = list(detected(rng, walkers, hidden))
    names = np.tile(np.arange(n), (FRAMES, 1))
    cuts: tuple[int, ...] = ()
    if kind == "cut":
        cuts = (FRAMES // 2,)
        others = [Walker.drawn(rng, walker.path + rng.normal(0, 15, 2)) for walker in walkers]
        frames[cuts[0] :] = list(detected(rng, others, hidden))[cuts[0] :]
        names[cuts[0] :] += n
    keypoints, identity = [], []
    for found, name in zip(frames, names, strict=True):
        who = [np.repeat(k, len(points)) for k, points in zip(name, found, strict=True)]
        if rng.random() < 0.05:  # someone who is not there
            ghost = Walker.drawn(rng, np.tile(rng.uniform((60, 90), (WIDTH - 60, HEIGHT - 90)), (FRAMES, 1)))
            found = [*found, np.column_stack([ghost.joints(0), np.ones(17)])[None]]
            who.append(np.array([-1]))
        order = rng.permutation(sum(map(len, found)))
        keypoints.append(np.concatenate(found)[order])
        identity.append(np.concatenate(who).astype(np.int64)[order])
    return Scene(keypoints, identity, cuts)


Tracker = Callable[[Scene], list[Ints]]  # -> of each frame (P,) track, or -1


def labelled(tracks: Sequence[Ints], scene: Scene) -> list[Ints]:
    """Tracks as `link` gives them -> of each frame (P,) track."""
    out = [np.full(len(persons), -1) for persons in scene.keypoints]
    for k, rows in enumerate(tracks):
        for t, p in rows:
            out[t][p] = k
    return out


def ours(scene: Scene) -> list[Ints]:
    return labelled(link(scene.keypoints, range(len(scene.keypoints)), MAX_GAP, cuts=scene.cuts), scene)


@dataclass
class Filtered:
    """A person of SORT: the filter's state and covariance, and frames since it was seen."""

    x: Floats
    p: Floats
    name: int
    age: int = 0


def sort(scene: Scene, max_age: int) -> list[Ints]:
    """Plain SORT: a Kalman filter over (x, y, area, ratio) with the published noise; it knows nothing of cuts."""
    step = np.eye(7)
    step[0, 4] = step[1, 5] = step[2, 6] = 1
    process = np.diag([1, 1, 1, 1, 0.01, 0.01, 1e-4])
    noise = np.diag([1.0, 1, 10, 10])
    seen = np.eye(4, 7)
    active: list[Filtered] = []
    out, n_tracks = [], 0
    for persons in scene.keypoints:
        corners, _ = extents(persons)
        z = np.column_stack([corners.mean(axis=1), *(_area_and_ratio(corners))])
        for one in active:
            if one.x[6] + one.x[2] <= 0:
                one.x[6] = 0
            one.x, one.p = step @ one.x, step @ one.p @ step.T + process
        states = np.array([one.x for one in active]).reshape(-1, 7)
        overlap = intersection_over_union(_corners(states)[:, None], corners[None])
        rows, columns = linear_sum_assignment(-overlap)
        matched = {c: r for r, c in zip(rows.tolist(), columns.tolist(), strict=True) if overlap[r, c] >= 0.3}
        label, kept = [], []
        for c in range(len(persons)):
            if c in matched:
                one = active[matched[c]]
                gain = one.p @ seen.T @ np.linalg.inv(seen @ one.p @ seen.T + noise)
                one.x, one.p, one.age = one.x + gain @ (z[c] - seen @ one.x), (np.eye(7) - gain @ seen) @ one.p, 0
            else:
                start = np.concatenate([z[c], np.zeros(3)])
                one = Filtered(start, np.diag([10.0, 10, 10, 10, 1e4, 1e4, 1e4]), n_tracks)
                n_tracks += 1
            label.append(one.name)
            kept.append(one)
        for i, one in enumerate(active):
            if i not in matched.values() and one.age < max_age:
                one.age += 1
                kept.append(one)
        active = kept
        out.append(np.array(label, np.int64))
    return out


def _area_and_ratio(corners: Floats) -> tuple[Floats, Floats]:
    width, height = np.maximum(corners[:, 1] - corners[:, 0], 1).T
    return width * height, width / height


def _corners(states: Floats) -> Floats:
    width = np.sqrt(np.maximum(states[:, 2] * states[:, 3], 1e-9))
    half = np.column_stack([width, states[:, 2] / width]) / 2
    return np.stack([states[:, :2] - half, states[:, :2] + half], axis=1)


@dataclass
class Score:
    """Counts over scenes; `hota` and the like are of all of them together."""

    switches: int = 0
    idtp: int = 0
    n_truth: int = 0
    n_tracked: int = 0
    association: float = 0.0  # sum over right detections
    n_right: int = 0

    @property
    def idf1(self) -> float:
        return 2 * self.idtp / (self.n_truth + self.n_tracked)

    @property
    def hota(self) -> float:
        detection = self.n_right / (self.n_truth + self.n_tracked - self.n_right)
        return float(np.sqrt(detection * self.association / self.n_right))

    def add(self, truth: Sequence[Ints], tracks: Sequence[Ints]) -> None:
        """Of each frame (P,) true identity (-1: not there) and (P,) track (-1: left out)."""
        true, track = np.concatenate(truth), np.concatenate(tracks)
        last: dict[int, int] = {}
        for names, found in zip(truth, tracks, strict=True):
            for name, one in zip(names.tolist(), found.tolist(), strict=True):
                if name >= 0 and one >= 0:
                    self.switches += last.get(name, one) != one
                    last[name] = one
        both = (true >= 0) & (track >= 0)
        table = np.zeros((true.max() + 1, track.max() + 1), np.int64)
        np.add.at(table, (true[both], track[both]), 1)
        rows, columns = linear_sum_assignment(-table)
        self.idtp += int(table[rows, columns].sum())
        self.n_truth += int((true >= 0).sum())
        self.n_tracked += int((track >= 0).sum())
        self.n_right += int(both.sum())
        of_name, of_track = Counter(true[true >= 0].tolist()), Counter(track[track >= 0].tolist())
        for (name, one), n in np.ndenumerate(table):
            if n:
                self.association += n * n / (of_name[name] + of_track[one] - n)


def quality(n_scenes: int) -> Iterator[str]:
    """The table's rows."""
    trackers: dict[str, Tracker] = {
        "`link`": ours,
        "SORT, 1 frame": functools.partial(sort, max_age=1),
        f"SORT, {MAX_GAP} frames": functools.partial(sort, max_age=MAX_GAP),
    }
    for kind in KINDS:
        rng = np.random.default_rng(0)
        scenes = [scene(kind, rng) for _ in range(n_scenes)]
        for name, tracker in trackers.items():
            score, began = Score(), time.process_time()
            for one in scenes:
                score.add(one.identity, tracker(one))
            rate = n_scenes * FRAMES / (time.process_time() - began)
            yield f"| {kind} | {name} | {score.switches} | {score.idf1:.3f} | {score.hota:.3f} | {rate:,.0f} |"


def read(clip: Path) -> list[Histogram]:
    """Every frame's colours; a clip takes a second of reading, its pieces none."""
    frames = Video(clip.parent, clip.name).read(range(n_frames(Video(clip.parent, clip.name))))
    return [histogram(frame.image) for frame in frames if frame.image is not None]


def pieces(clips: Sequence[tuple[str, list[Histogram]]], rng: np.random.Generator, n: int) -> Iterator[list[Histogram]]:
    """`n` random pieces, of one scene each, as long as they go up to 2 * PART frames."""
    for _ in range(n):
        _, frames = clips[int(rng.integers(len(clips)))]
        start = int(rng.integers(0, max(1, len(frames) - 2 * PART + 1)))
        yield frames[start : start + 2 * PART]


def found(frames: Sequence[Histogram]) -> list[int]:
    return cuts([0.0, *(difference(a, b) for a, b in itertools.pairwise(frames))])


def n_linked(frames: Sequence[Histogram]) -> int:
    """The tracks of a person who stands still throughout."""
    person = np.column_stack([300 + 150 * BODY, np.ones(17)])[None]
    return len(link([person] * len(frames), range(len(frames)), MAX_GAP, cuts=found(frames)))


def scene_cuts(files: Sequence[Path]) -> Iterator[str]:
    """False bridges and missed links, in lines."""
    clips = []
    for file in files:
        name, *known = str(file).split("@")  # CLIP@30,76: cuts that the clip itself has
        frames = read(Path(name))
        edges = [0, *(int(cut) for part in known for cut in part.split(",")), len(frames)]
        scenes = [frames[a:b] for a, b in itertools.pairwise(edges)]
        clips += [(f"{Path(name).name} {k}", part) for k, part in enumerate(scenes) if len(part) >= PART]
    rng = np.random.default_rng(0)
    bridged = extra = 0
    for _ in range(100):
        a, b = rng.choice(len(clips), 2, replace=False)
        ends = [clips[k][1] for k in (a, b)]
        starts = [int(rng.integers(0, len(one) - PART + 1)) for one in ends]
        joined = [frame for one, start in zip(ends, starts, strict=True) for frame in one[start : start + PART]]
        bridged += PART not in found(joined)
        extra += any(cut != PART for cut in found(joined))
    broken = sum(n_linked(piece) > 1 for piece in pieces(clips, rng, 100))
    yield f"- {len(clips)} scenes of {len(files)} clips, {PART} frames before and after a join, {2 * PART} uncut."
    yield f"- False bridges on 100 joined pairs: **{bridged}**. Pairs with a cut elsewhere, too: {extra}."
    yield f"- Missed links on 100 uncut pieces: **{broken}**."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", nargs="*", default=[], type=Path, metavar="FILE[@CUT,...]")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--small", action="store_true")
    args = parser.parse_args()
    lines = [f"One core. Gaps up to {MAX_GAP} frames.", ""]
    lines += ["| scenes | | ID switches | IDF1 | HOTA | frames/s |", "|---|---|---|---|---|---|"]
    lines += quality(2 if args.small else 100)
    if args.clips:
        lines += ["", "## Scene cuts in real clips", "", *scene_cuts(args.clips)]
    about = "Everything in the first table is made up, and its truth known."
    report(about, "Who is who, and where scenes change", lines, args)


if __name__ == "__main__":
    main()

"""Does linking keep people apart? Simulated scenes, linked by `pipeline.linking` and by ByteTrack
of the library `trackers`.

    .venv/bin/pip install -e '.[benchmarks]'
    .venv/bin/python benchmarks/linking.py --out benchmarks/linking.md

`linking_scenes.py` has the scenes. Constants of our linking, and the fitted options of ByteTrack,
were chosen with seeds from 0 to 19, and the scenes are judged with seeds from 1000 on. Ours sees
joints, and knows a moving camera to 1 px, as `detect` measures it; ByteTrack sees boxes and scores.
All may bridge a second. "Fitted" are the options with the highest mean among 18 sets: ByteTrack
begins and prefers tracks from a score of 0.25 on, reports them from the first frame on, and pairs
boxes by GIoU from -0.25 on. Tracks of fewer than 8 detections are dropped, of all.

IDF1 (Ristani et al. 2016) over detections: twice the number of detections in the track that is
paired with their person, divided by the number of detections plus that of detections in tracks, for
the best pairing. Exchanges: how often a track goes over to another person.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import parser, report, table
from benchmarks.linking_scenes import FPS, Detected, Doubles, Ints, Scene, simulate
from pipeline.linking import link

SEEDS: Final = range(1000, 1020)
SHORT: Final = 8  # detections
SCENES: Final = {
    "six people walk past each other, up to 2 m apart in depth": Scene(6, rows=2),
    "six people walk past each other, up to 0.6 m apart": Scene(6, rows=0.6),
    "two people cross": Scene(2, rows=1),
    "a crowd of 12": Scene(),
    "12 people who run": Scene(speed=3),
    "12 people, a camera that shakes by 5 px": Scene(shake=5),
    "12 people, 25% of detections missed": Scene(missed=0.25),
    "8 people, 1.5 false detections a frame": Scene(8, false=1.5),
    "8 people, half as certain": Scene(8, confidence=0.5),
    "24 people who come and go": Scene(24, stay=4),
    "4 people leave by a door, others come in by it": Scene(8, doors=True),
    "4 people, each unseen for 0.8 s": Scene(4, away=0.8),
    "12 people run, camera shake, 25% missed": Scene(speed=3, shake=5, missed=0.25),
}
Way = Callable[[Sequence[Detected], Doubles], list[Ints]]


def score(truth: Sequence[Ints], tracks: Sequence[Ints]) -> tuple[float, int]:
    """IDF1, and the number of exchanges, of frames with people (P,), -1 for nobody, and their
    tracks (P,), -1 for none.

    Person 0 is in track 5 eight times, then in none; person 1 in track 6 eight times, then in 5:
    16 are right, of 18 detections, 17 in tracks.

    >>> score([np.array([0, 1])] * 9, [np.array([5, 6])] * 8 + [np.array([-1, 5])])
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


def ours(frames: Sequence[Detected], shift: Doubles) -> list[Ints]:
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


def byte_track(**options: Any) -> Way:
    """ByteTrack with these options."""
    import supervision as sv  # type: ignore[import-not-found]
    from trackers import ByteTrackTracker  # type: ignore[import-not-found]

    def way(frames: Sequence[Detected], shift: Doubles) -> list[Ints]:
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


def measured(seeds: Sequence[int]) -> Iterator[str]:
    """IDF1 and exchanges of each way in each scene."""
    from trackers import GIoU

    fitted = byte_track(
        minimum_consecutive_frames=1,
        track_activation_threshold=0.25,
        high_conf_det_threshold=0.25,
        iou=GIoU(),
        minimum_iou_threshold=-0.25,
    )
    ways: dict[str, Way] = {"ours": ours, "ByteTrack, fitted": fitted, "ByteTrack": byte_track()}
    seconds = dict.fromkeys(ways, 0.0)
    n_detections = 0
    rows = []
    for name, scene in SCENES.items():
        scores: dict[str, list[tuple[float, int]]] = {way: [] for way in ways}
        for seed in seeds:
            frames, shift = simulate(scene, seed)
            truth = [frame.person for frame in frames]
            n_detections += sum(map(len, truth))
            for way, linked in ways.items():
                began = time.process_time()
                tracks = linked(frames, shift)
                seconds[way] += time.process_time() - began
                scores[way].append(score(truth, tracks))
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
    lines = measured(SEEDS[: args.seeds])
    report("People who are linked over time.", "Does linking keep people apart?", lines, args)


if __name__ == "__main__":
    main()

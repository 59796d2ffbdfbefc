"""Does linking keep people apart? Simulated scenes, linked by `pipeline.clips.tracks.linking`, by
two earlier states of it, and by ByteTrack of the library `trackers`.

    .venv/bin/pip install --group benchmarks
    .venv/bin/python benchmarks/linking.py --out benchmarks/linking.md

`benchmarks/scenes.py` describes the scenes. Constants of our linking were chosen on its first set
and its tuning scenes, with seeds from 0 to 19, and options of ByteTrack on the first set; the page
has the first and the second set, with seeds from FIRST_SEED on. Scenes are linked without
homographies between frames, and some with them, known to 1 px; cameras that only shift are alike
then. ByteTrack gets homographies, too: its boxes are those of the first frame's view. Ours sees
joints, ByteTrack boxes and scores. All may bridge a second. ByteTrack's options are those with the
highest mean among 18 sets: it begins and prefers tracks from a score of 0.25 on, reports them from
the first frame on, and pairs boxes by GIoU from -0.25 on. Tracks of fewer than 8 detections are
dropped, of all.

IDF1 (Ristani et al. 2016) over detections: twice the number of detections in the track that is
paired with their person, divided by the number of detections plus that of detections in tracks, for
the best pairing.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import ROOT, parser, report, table
from benchmarks.scenes import (
    FIRST,
    FIRST_KNOWN,
    INSTANT,
    SECOND,
    SECOND_KNOWN,
    TUNING,
    Clip,
    Doubles,
    Ints,
    Scene,
    simulate,
)
from pipeline.clips.tracks.linking import link

FIRST_SEED: Final = 14000
SHORT: Final = 8  # detections
FEW: Final = 6  # people: scenes of so many or fewer are timed by themselves
BEFORE, TODAY = "82862ad1", "3e733d41"  # commits whose linking is compared
MARGIN: Final = 0.01  # of IDF1
# the track of each detection, by a clip, its frames a second and its homographies
Way = Callable[[Clip, float, Mapping[int, Doubles]], list[Ints]]


def _score(truth: Sequence[Ints], tracks: Sequence[Ints]) -> float:
    """IDF1 of frames with people (P,), -1 for nobody, and their tracks (P,), -1 for none.

    Person 0 is in track 5 eight times, then in none; person 1 in track 6 eight times, then in 5:
    16 are right, of 18 detections, 17 in tracks.

    >>> _score([np.array([0, 1])] * 9, [np.array([5, 6])] * 8 + [np.array([-1, 5])])
    0.9142857142857143
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
    return float(2 * right / ((person >= 0).sum() + in_track.sum()))


def _ours(
    linked: Callable[..., list[Ints]], clip: Clip, fps: float, camera: Mapping[int, Doubles]
) -> list[Ints]:
    """By `pipeline.clips.tracks.linking.link`, or by one of an earlier commit."""
    tracks = [np.full(len(frame.person), -1) for frame in clip.frames]
    visible = []
    for frame in clip.frames:
        is_visible = frame.keypoints[..., 2:] >= 0.3
        visible.append(np.where(is_visible, frame.keypoints, 0))
    frames = range(len(visible))
    rate = {"fps": fps} if linked is link else {}  # earlier ones know no rate
    for number, track in enumerate(linked(visible, frames, round(fps), camera=camera, **rate)):
        for t, p in track:
            tracks[t][p] = number
    return tracks


def _byte_track(
    options: dict[str, Any], clip: Clip, fps: float, camera: Mapping[int, Doubles]
) -> list[Ints]:
    """By ByteTrack with these options, of boxes in the view of the first frame."""
    import supervision as sv  # type: ignore[import-not-found]
    from trackers import ByteTrackTracker  # type: ignore[import-not-found]

    tracker = ByteTrackTracker(frame_rate=fps, **options)
    tracks = []
    view = np.eye(3)  # from this frame to the first one
    for t, frame in enumerate(clip.frames):
        view = view @ np.linalg.inv(camera.get(t, np.eye(3)))
        corners = frame.boxes[:, [[0, 1], [2, 1], [0, 3], [2, 3]]] @ view[:2, :2].T + view[:2, 2]
        boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
        data = {"p": np.arange(len(boxes))}
        seen = sv.Detections(xyxy=boxes, confidence=frame.scores, data=data)
        tracked = tracker.update(seen)
        track = np.full(len(boxes), -1)
        if len(tracked):
            track[tracked.data["p"]] = tracked.tracker_id
        tracks.append(track)
    return tracks


@cache
def _ways() -> dict[str, Way]:
    """Every way of linking, by its name; ours first."""
    from trackers import GIoU

    fitted = {
        "minimum_consecutive_frames": 1,
        "track_activation_threshold": 0.25,
        "high_conf_det_threshold": 0.25,
        "iou": GIoU(),
        "minimum_iou_threshold": -0.25,
    }
    return {
        "ours": partial(_ours, link),
        TODAY: partial(_ours, _load(TODAY)),
        BEFORE: partial(_ours, _load(BEFORE)),
        "ByteTrack": partial(_byte_track, fitted),
    }


def _load(commit: str) -> Callable[..., list[Ints]]:
    """`link` of an earlier commit of this repository."""
    source = subprocess.check_output(
        ["git", "show", f"{commit}:pipeline/linking.py"], cwd=ROOT, text=True
    )
    for module in ("boxes", "homography", "skeletons"):  # which have moved since
        source = source.replace(
            f"from pipeline.{module} import", f"from pipeline.people.{module} import"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"linking_{commit}.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec and spec.loader
        loaded = importlib.util.module_from_spec(spec)
        sys.modules[path.stem] = loaded  # where dataclasses look for it
        spec.loader.exec_module(loaded)
    linked: Callable[..., list[Ints]] = loaded.link
    return linked


class _Result(NamedTuple):
    """What was measured of a scene."""

    people: int
    scores: dict[str, Doubles]  # way -> IDF1 of each seed
    seconds: dict[str, float]  # way -> CPU time
    n_detections: int


def _measure(scene: Scene, seeds: Sequence[int], is_known: bool) -> _Result:
    """Simulate a scene with each seed, and link it in each way, with homographies if `is_known`."""
    scores: dict[str, list[float]] = {way: [] for way in _ways()}
    seconds = dict.fromkeys(_ways(), 0.0)
    n_detections = 0
    for seed in seeds:
        clip = simulate(scene, seed)
        truth = [frame.person for frame in clip.frames]
        n_detections += sum(map(len, truth))
        camera = clip.known_camera() if is_known else {}
        for name, way in _ways().items():
            began = time.process_time()
            tracks = way(clip, scene.fps, camera)
            seconds[name] += time.process_time() - began
            scores[name].append(_score(truth, tracks))
    by_way = {way: np.array(values) for way, values in scores.items()}
    return _Result(scene.people, by_way, seconds, n_detections)


def _lines(seeds: Sequence[int], sets: Mapping[str, Mapping[str, Scene]]) -> Iterator[str]:
    """The page's tables."""
    yield (
        f"IDF1, mean over {len(seeds)} seeds from {seeds[0]} on; and by how much it is above that "
        "of others, ± the standard error of the paired difference. Bold: behind by more than "
        f"{MARGIN} and two standard errors."
    )
    everything = []
    with ProcessPoolExecutor(2) as pool:
        for title, scenes in sets.items():
            measure = partial(_measure, seeds=seeds, is_known="with homographies" in title)
            results = list(pool.map(measure, scenes.values()))
            everything += results
            yield f"\n## {title}\n"
            rows = [(name, *_cells(of)) for name, of in zip(scenes, results, strict=True)]
            yield from table(("scene", *_ways()), rows)
    yield "\n## Speed\n\nDetections per second of CPU time:\n"
    few = [result for result in everything if result.people <= FEW]
    rows = [(f"{FEW} people or fewer", *_rates(few)), ("all scenes", *_rates(everything))]
    yield from table(("", *_ways()), rows)


def _cells(result: _Result) -> Iterator[str]:
    """IDF1 of ours, and its differences from the others."""
    ours, *others = result.scores.values()
    yield f"{ours.mean():.3f}"
    for other in others:
        above = ours - other
        error = above.std(ddof=1) / np.sqrt(len(above))
        cell = f"{above.mean():+.3f} ± {error:.3f}"
        yield f"**{cell}**" if above.mean() < -MARGIN - 2 * error else cell


def _rates(results: Sequence[_Result]) -> Iterator[str]:
    """Detections a second of each way."""
    n_detections = sum(result.n_detections for result in results)
    for way in _ways():
        yield f"{n_detections / sum(result.seconds[way] for result in results):,.0f}"


def main() -> None:
    """Measure, print, write the report."""
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=24)
    options.add_argument("--first-seed", type=int, default=FIRST_SEED)
    options.add_argument("--tuning", action="store_true", help="measure the tuning scenes alone")
    args = options.parse_args()
    sets = {
        "First set": FIRST,
        "First set, with homographies": FIRST_KNOWN,
        "Second set": SECOND,
        "Second set, with homographies": SECOND_KNOWN,
        "Reported alone": INSTANT,
    }
    if args.tuning:
        sets = {"Tuning": TUNING, "Tuning, with homographies": TUNING}
    lines = _lines(range(args.first_seed, args.first_seed + args.seeds), sets)
    report("People who are linked over time.", "Does linking keep people apart?", lines, args)


if __name__ == "__main__":
    main()

"""Are tracks of different people taken for one person? Simulated scenes, and OpenPose's example.

    .venv/bin/python benchmarks/same_person.py --openpose ../shared/data/openpose/json

Prints a section of benchmarks/grades.md. The scenes are those of benchmarks/linking.md
(`benchmarks/scenes.py`), linked by `pipeline.clips.tracks.linking`. A track is that of the person
who has most of its detections. It is wrongly doubtful if `pipeline.grades.same_person` takes it and
a track of another person for one. Of the people in OpenPose's example, who they are is not known:
each track that becomes doubtful counts.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import table
from benchmarks.scenes import FIRST, SECOND, Ints, Scene, simulate
from pipeline.clips.labels.detections import read_detections
from pipeline.clips.tracks.linking import link
from pipeline.grades.same_person import find_same_people
from pipeline.people.boxes import tight_boxes
from pipeline.people.skeletons import Skeleton, convert

FIRST_SEED: Final = 14000
SEEN: Final = 0.3  # confidence below which a joint is not seen
SHORTEST_S: Final = 0.5  # of the tracks
OPENPOSE_FPS: Final = 50.0


class _Tracks(NamedTuple):
    """Linked tracks."""

    people: list[dict[str, Any]]  # columns of each
    members: list[Ints]  # (T, 2) frame and person of each row


def _link(keypoints: Sequence[Any], frames: Sequence[int], order: Skeleton, fps: float) -> _Tracks:
    """Link the people of each frame, (P, J, 3)."""
    visible = [np.where(of_frame[..., 2:] >= SEEN, of_frame, 0) for of_frame in keypoints]
    tracks = _Tracks([], [])
    for members in link(visible, frames, round(fps), fps=fps):
        if len(members) < SHORTEST_S * fps:
            continue
        joints = np.array([visible[t][p] for t, p in members])
        columns = {
            "frame_index": np.asarray(frames)[members[:, 0]],
            "bbox": tight_boxes(joints, 1.1)[0],
            "kp_2d": convert(joints, source=order, target="spin49"),
        }
        tracks.people.append(columns)
        tracks.members.append(members)
    return tracks


def _count(scene: Scene, seeds: Sequence[int]) -> list[int]:
    """Numbers of tracks; of those that are wrongly doubtful; of those whose person has several; and
    of these, those that are doubtful.
    """
    counts = np.zeros(4, np.int64)
    for seed in seeds:
        clip = simulate(scene, seed)
        keypoints = [frame.keypoints for frame in clip.frames]
        tracks = _link(keypoints, range(len(keypoints)), "coco", scene.fps)
        person = []
        for members in tracks.members:
            numbers = [clip.frames[t].person[p] for t, p in members]
            person.append(np.bincount(np.add(numbers, 1)).argmax() - 1)
        partners = find_same_people(tracks.people, scene.fps)
        for number, partner in zip(person, partners, strict=True):
            is_doubtful = not math.isnan(partner)
            is_split = number >= 0 and person.count(number) > 1
            is_wrong = is_doubtful and person[int(partner)] != number
            is_found = is_split and is_doubtful and not is_wrong
            counts += np.array([1, is_wrong, is_split, is_found], np.int64)
    found: list[int] = counts.tolist()
    return found


def _lines(seeds: Sequence[int], openpose: Path | None) -> Iterator[str]:
    sets: Mapping[str, Mapping[str, Scene]] = {"First set": FIRST, "Second set": SECOND}
    yield f"Seeds {seeds[0]} to {seeds[-1]}; tracks of at least {SHORTEST_S} s."
    for title, scenes in sets.items():
        counts = {name: _count(scene, seeds) for name, scene in scenes.items()}
        total = np.sum([*counts.values()], axis=0)
        counts["all"] = total.tolist()
        share = f"{total[1] / total[0]:.2%}"
        yield f"\n### {title}: {total[1]} of {total[0]:,} tracks wrongly doubtful, {share}\n"
        heading = ("scene", "tracks", "wrongly doubtful", "parts of one person", "doubtful parts")
        yield from table(
            heading, [(name, *map(str, of_scene)) for name, of_scene in counts.items()]
        )
    if openpose is not None:
        found = read_detections(openpose, "video", lambda: [(1280, 720)])
        assert found is not None, "a folder of OpenPose"
        tracks = _link([*found.keypoints], found.frame_index.tolist(), found.skeleton, OPENPOSE_FPS)
        partners = find_same_people(tracks.people, OPENPOSE_FPS)
        n_doubtful = sum(not math.isnan(partner) for partner in partners)
        yield f"\nOpenPose's example, 74 frames: {n_doubtful} of {len(partners)} tracks doubtful."


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seeds", type=int, default=6)
    options.add_argument("--openpose", type=Path, help="folder of OpenPose's JSON files")
    args = options.parse_args()
    for line in _lines(range(FIRST_SEED, FIRST_SEED + args.seeds), args.openpose):
        print(line, flush=True)


if __name__ == "__main__":
    main()

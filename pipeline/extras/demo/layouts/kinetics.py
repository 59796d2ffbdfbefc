"""Kinetics-400's layout: clips by class, lists of clips, and a detector's keypoints.  pixels and
labels -> [raw]

The detector is simulated: its keypoints are the projected joints with noise, with misses, without
identities.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.random import Generator

from pipeline.extras.demo.layouts import (
    ReleaseLayout,
    Request,
    pick_cyclic,
    write_json,
    write_video,
)
from pipeline.extras.demo.scene import Shot, Take, corners, stage
from pipeline.people.skeletons import Bools, Doubles, add_confidence, convert

Detections = list[tuple[int, Doubles]]  # of one frame: (person, joints)

CLASSES: Final = {  # class of Kinetics-400 -> actions
    "jumpstyle dancing": ("dance", "march", "jumping_jacks"),
    "punching person (boxing)": ("box", "dance"),
    "high kick": ("kick", "lunge"),
    "lunge": ("lunge", "squat", "side_bend"),
    "marching": ("walk", "march", "wave"),
    "stretching arm": ("arm_raise", "reach", "side_bend"),
    "playing tennis": ("swing", "throw", "reach"),
    "tai chi": ("reach", "bow", "lunge"),
}
ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
SIZE: Final = (340, 256)  # width, height px, as Kinetics is commonly resized to

RANDOM_KEY: Final = 102  # of the dataset, in `Request.rng`
NOISE_PX: Final = 0.3  # sigma of the detector's noise in x and in y
MISS_RATE: Final = 0.02  # share of person-frames that the detector misses
BLIND_FRAMES: Final = (12, 14)  # frames without detections in every fourth clip
# every fifth clip has keypoints in AlphaPose's format, the others in OpenPose's
ALPHAPOSE_EVERY: Final = 5


def _plan(request: Request) -> Iterator[Shot]:
    """6 clips for training and 2 for validation by default, of 60 to 75 frames; every third shows
    two people.
    """
    for slot in request.slots("kinetics", RANDOM_KEY, train=6, val=2):
        number = slot.number
        label, actions = pick_cyclic(tuple(CLASSES.items()), number)
        start = int(slot.rng.integers(0, 200))
        name = f"{''.join(slot.rng.choice(list(ALPHABET), 11))}_{start:06d}_{start + 10:06d}"
        yield slot.shot(
            name,
            request.frames(slot.rng, 60, 75, least=45),
            25.0 if number % 2 else 30.0,
            SIZE,
            n_people=2 if number % 3 == 1 else 1,
            actions=actions,
            hand_held=number % 4 == 2,
            file=f"{slot.split}/{label}/{name}.mp4",
        )


def _record(shot: Shot, folder: Path) -> Take:
    """Write `<split>/<class>/<name>.mp4` and `keypoints/<split>/<name>/`."""
    take = stage(shot)
    rng = shot.rng("detector")
    visible = write_video(take, folder / shot.file)
    detections = [_detect(take, frame, visible[frame], rng) for frame in range(shot.n_frames)]
    keypoints = folder / "keypoints" / shot.split / shot.name
    if shot.number % ALPHAPOSE_EVERY == ALPHAPOSE_EVERY - 1:
        write_json(keypoints / f"{shot.name}.json", _alphapose(detections, rng))
    else:
        for frame, people in enumerate(detections):
            write_json(
                keypoints / f"{shot.name}_{frame:012d}_keypoints.json",
                _openpose(people),
                compact=True,
            )
    return take


def _finish(folder: Path, shots: Sequence[Shot]) -> None:
    """Write `annotations/{train,val}.csv`, the release's lists of clips."""
    (folder / "annotations").mkdir()
    for split in sorted({shot.split for shot in shots}):
        file = folder / "annotations" / f"{split}.csv"
        with file.open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream, lineterminator="\n")
            table.writerow(["label", "youtube_id", "time_start", "time_end", "split"])
            for shot in shots:
                if shot.split == split:
                    label = Path(shot.file).parent.name
                    video_id = shot.name[:11]
                    start, end = shot.name[12:].split("_")
                    table.writerow([label, video_id, int(start), int(end), split])


def _detect(take: Take, frame: int, visible: Bools, rng: Generator) -> Detections:
    """Detections in a frame: (person, (49, 3) x, y, confidence) in random order; 0, 0, 0 for
    missing joints.
    """
    is_blind = take.shot.number % 4 == 0 and frame in BLIND_FRAMES
    people = []
    for person, (actor, is_visible) in enumerate(zip(take.actors, visible, strict=True)):
        is_missed = rng.random() < MISS_RATE
        xy = actor.kp_2d[frame] + rng.normal(0, NOISE_PX, (49, 2))
        high = rng.uniform(0.6, 1.0, 49)
        low = rng.uniform(0.05, 0.55, 49)
        joints = add_confidence(xy, np.where(is_visible, high, low))
        is_dropped = ~is_visible & (rng.random(49) < 0.5)
        joints[is_dropped] = 0
        if not is_missed and not is_blind:
            people.append((person, joints))
    return [people[i] for i in rng.permutation(len(people))]


def _openpose(people: Detections) -> dict[str, Any]:
    """A frame's file of OpenPose's `--write_json`, BODY_25, format 1.3."""
    parts = ("face", "hand_left", "hand_right")
    empty: dict[str, list[float]] = {f"{part}_keypoints_2d": [] for part in parts}
    empty |= {"pose_keypoints_3d": []} | {f"{part}_keypoints_3d": [] for part in parts}
    entries = []
    for _, joints in people:
        body_25 = convert(joints, source="spin49", target="body_25")
        entries.append({"person_id": [-1], "pose_keypoints_2d": _round(body_25, 3), **empty})
    return {"version": 1.3, "people": entries}


def _alphapose(detections: Sequence[Detections], rng: Generator) -> list[dict[str, Any]]:
    """AlphaPose's result format with tracking: one list of people, COCO's 17 joints, `idx` from
    1.
    """
    entries = []
    for frame, people in enumerate(detections):
        for person, joints in people:
            coco = convert(joints, source="spin49", target="coco")
            low, high = corners(coco[coco[:, 2] > 0, :2])
            entry = {
                "image_id": f"{frame}.jpg",
                "category_id": 1,
                "keypoints": _round(coco, 4),
                # AlphaPose adds box and joint scores: above 1
                "score": round(float(rng.uniform(2.2, 3.1)), 4),
                "box": _round(np.concatenate([low, high - low]), 2),
                "idx": person + 1,
            }
            entries.append(entry)
    return entries


def _round(values: Doubles, digits: int) -> list[float]:
    return [round(value, digits) for value in values.ravel().tolist()]


LAYOUT: Final = ReleaseLayout(
    "kinetics",
    "Rendered people in Kinetics-400's layout, with a played detector: nothing of Kinetics.",
    _plan,
    _record,
    _finish,
)

"""Kinetics-400's layout: clips by class, and a detector's keypoints.  pixels and
labels -> [raw]

The detector is simulated: its keypoints are the projected joints with noise, with misses, without
identities.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from pipeline.extras.demo.scene import Shot, Take, stage
from pipeline.people.skeletons import Bools, Doubles, add_confidence, convert

CLASSES: Final = {  # class of Kinetics-400 -> actions
    "jumpstyle dancing": ("random_poses", "march"),
    "squat": ("squat", "arm_raise"),
    "marching": ("walk", "march"),
    "stretching arm": ("arm_raise", "random_poses"),
}
SIZE: Final = (340, 256)  # width, height px, as Kinetics is commonly resized to
NOISE_PX: Final = 0.3  # sigma of the detector's noise in x and in y
MISS_RATE: Final = 0.02  # share of person-frames that the detector misses
BLIND_FRAMES: Final = (12, 14)  # frames without detections in every fourth clip


def _plan(request: Request) -> Iterator[Shot]:
    """3 clips for training and 1 for validation by default, of 45 frames; every third shows
    two people.
    """
    for number, split in request.places(train=3, val=1):
        label, actions = pick_cyclic(tuple(CLASSES.items()), number)
        name = f"_-demo{number:05d}_{number:06d}_{number + 10:06d}"
        yield Shot(
            "kinetics",
            split,
            name,
            number,
            request.seed,
            request.frames(45),
            25.0 if number % 2 else 30.0,
            *SIZE,
            n_people=2 if number % 3 == 1 else 1,
            actions=actions,
            hand_held=number % 4 == 2,
            file=f"{split}/{label}/{name}.mp4",
        )


def _record(shot: Shot, folder: Path) -> Take:
    """Write `<split>/<class>/<name>.mp4` and `keypoints/<split>/<name>/`."""
    take = stage(shot)
    rng = shot.rng("detector")
    visible = write_video(take, folder / shot.file)
    keypoints = folder / "keypoints" / shot.split / shot.name
    for frame in range(shot.n_frames):
        people = _detect(take, frame, visible[frame], rng)
        file = keypoints / f"{shot.name}_{frame:012d}_keypoints.json"
        write_json(file, _openpose(people))
    return take


def _detect(take: Take, frame: int, visible: Bools, rng: Generator) -> list[Doubles]:
    """Detections in a frame: (49, 3) x, y, confidence in random order; 0, 0, 0 for
    missing joints.
    """
    is_blind = take.shot.number % 4 == 0 and frame in BLIND_FRAMES
    people = []
    for actor, is_visible in zip(take.actors, visible, strict=True):
        is_missed = rng.random() < MISS_RATE
        xy = actor.kp_2d[frame] + rng.normal(0, NOISE_PX, (49, 2))
        high = rng.uniform(0.6, 1.0, 49)
        low = rng.uniform(0.05, 0.55, 49)
        joints = add_confidence(xy, np.where(is_visible, high, low))
        is_dropped = ~is_visible & (rng.random(49) < 0.5)
        joints[is_dropped] = 0
        if not is_missed and not is_blind:
            people.append(joints)
    return [people[i] for i in rng.permutation(len(people))]


def _openpose(people: list[Doubles]) -> dict[str, Any]:
    """A frame's file of OpenPose's `--write_json`, BODY_25, format 1.3."""
    empty: dict[str, list[float]] = {"face_keypoints_2d": [], "pose_keypoints_3d": []}
    entries = []
    for joints in people:
        body_25 = convert(joints, source="spin49", target="body_25").round(3)
        entries.append({"person_id": [-1], "pose_keypoints_2d": body_25.ravel().tolist(), **empty})
    return {"version": 1.3, "people": entries}


LAYOUT: Final = ReleaseLayout(
    "kinetics",
    "Rendered people in Kinetics-400's layout, with a played detector: nothing of Kinetics.",
    _plan,
    _record,
    n_frames=28,
    labels={"keypoints/*/*/*.json": "pose_keypoints_2d"},
)

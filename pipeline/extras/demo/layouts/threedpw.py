"""3DPW's layout: image folders and a Python 2 pickle per sequence.  pixels and labels -> [raw]"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.random import Generator

from pipeline.extras.demo.files import python2_pickle
from pipeline.extras.demo.layouts import ReleaseLayout, Request, pick_cyclic, write_pictures
from pipeline.extras.demo.scene import Actor, Shot, Take, stage
from pipeline.people.skeletons import JOINTS, Array, Bools, add_confidence, convert

PLACES: Final = ("courtyard", "outdoors", "downtown", "office", "flat")
TITLES: Final = {  # title in a sequence's name -> its actions
    "walking": ("walk", "wave", "march"),
    "exercising": ("squat", "arm_raise"),
    "stretching": ("arm_raise", "random_poses"),
    "waving": ("wave", "walk", "arm_raise"),
    "training": ("march", "squat"),
}
PICTURES: Final = ((400, 300), (360, 300), (300, 300))  # width, height px
FPS: Final = 30.0
PAIR_EVERY: Final = 14  # one of so many training sequences shows two actors
# 18, in the order of OpenPose's COCO model
POSES_2D: Final = (*JOINTS["3dpw"], "reye", "leye", "rear", "lear")
# first frames of every third sequence without a detection, as in the release
UNSEEN_FRAMES: Final = 5
INVALID_FRAMES: Final = 6  # last frames of every fourth sequence with an invalid camera pose


def _plan(request: Request) -> Iterator[Shot]:
    """28, 3 and 5 sequences by default, of 24 frames; a few training sequences show two
    actors.

    Many short sequences, because a small network learns more from more people and poses.
    """
    for number, split in request.places(train=28, validation=3, test=5):
        title, actions = pick_cyclic(tuple(TITLES.items()), number)
        yield Shot(
            "3dpw",
            split,
            f"{pick_cyclic(PLACES, number)}_{title}_{number:02d}",
            number,
            request.seed,
            request.frames(24),
            FPS,
            *pick_cyclic(PICTURES, number),
            n_people=2 if split == "train" and number % PAIR_EVERY == 2 else 1,
            actions=actions,
            hand_held=True,
        )


def _record(shot: Shot, folder: Path) -> Take:
    """Write `imageFiles/<name>/image_<5 digits>.jpg` and `sequenceFiles/<split>/<name>.pkl`."""
    take = stage(shot)
    visible = write_pictures(take, folder / "imageFiles" / shot.name, "image_{:05d}.jpg")
    sequence = folder / "sequenceFiles" / shot.split / f"{shot.name}.pkl"
    sequence.parent.mkdir(parents=True, exist_ok=True)
    sequence.write_bytes(python2_pickle(_labels_of(take, visible)))
    return take


def _labels_of(take: Take, visible: Bools) -> dict[str, Any]:
    """The content of a sequence file; visible (T, actors, 49). Lists have one entry per actor."""
    shot = take.shot
    actors = take.actors
    n_frames = shot.n_frames
    valid = np.ones(n_frames, np.bool_)
    if shot.number % 4 == 3:
        valid[-INVALID_FRAMES:] = False
    rng = shot.rng("labels")
    return {
        "sequence": shot.name,
        "genders": [actor.gender[0] for actor in actors],
        "betas": [np.concatenate([actor.betas, np.zeros(290)]) for actor in actors],
        "poses": [actor.pose for actor in actors],
        "trans": [actor.trans for actor in actors],
        "jointPositions": [actor.joints.reshape(n_frames, 72) for actor in actors],
        "poses2d": [_poses2d(actor, visible[:, i], shot, rng) for i, actor in enumerate(actors)],
        "cam_poses": take.view.extrinsics,
        "cam_intrinsics": take.view.intrinsics,
        "campose_valid": [valid for _ in actors],
    }


def _poses2d(actor: Actor, visible: Bools, shot: Shot, rng: Generator) -> Array:
    """(T, 3, 18) x, y, confidence: exact projections, with confidence for visible joints; 0 in
    undetected frames.
    """
    kp_2d = add_confidence(actor.kp_2d, visible)
    joints = convert(kp_2d, source="spin49", target=POSES_2D)
    is_visible = joints[..., 2] > 0
    high = rng.uniform(0.55, 0.98, is_visible.shape)
    low = rng.uniform(0.05, 0.5, is_visible.shape)
    joints[..., 2] = np.where(is_visible, high, low)
    poses2d = joints.transpose(0, 2, 1)
    if shot.number % 3 == 1:
        poses2d[:UNSEEN_FRAMES] = 0
    return np.ascontiguousarray(poses2d)


LAYOUT: Final = ReleaseLayout(
    "3dpw",
    "Rendered people in 3DPW's layout, all with the neutral template (genders are labels "
    "only): nothing of 3DPW.",
    _plan,
    _record,
    n_frames=10,
    labels={
        "sequenceFiles/*/*.pkl": "poses2d poses trans betas cam_poses cam_intrinsics campose_valid"
    },
)

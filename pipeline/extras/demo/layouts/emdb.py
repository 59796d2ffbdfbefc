"""EMDB's layout: image folders and a pickle per sequence, with a moving camera.  pixels and labels
-> [raw]

The world is that of `scene`, y up, as in the release. Labels use the gendered body, pixels the
neutral one.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.extras.demo.body import procedural, skin, spin49
from pipeline.extras.demo.layouts import ReleaseLayout, Request, pick_cyclic, write_pictures
from pipeline.extras.demo.scene import Actor, Shot, Take, corners, stage

FPS: Final = 30.0
# A sequence's splits, name and actions. Three sequences of the release are in both splits.
SEQUENCES: Final = (
    ("emdb1 emdb2", "outdoor_walk", ("walk", "wave")),
    ("emdb1", "indoor_warmup", ("squat", "arm_raise")),
    ("emdb2", "outdoor_stroll", ("walk", "march")),
)
# width, height px; sizes differ as in the release
PICTURES: Final = ((300, 400), (240, 320), (300, 400))
NOT_GOOD: Final = slice(8, 11)  # frames of the first sequence whose labels are marked as bad
NO_BOX: Final = 3  # frame


def _plan(request: Request) -> Iterator[Shot]:
    """3 sequences by default, of 24 frames: one in both splits, one in each."""
    for number in range(request.videos(len(SEQUENCES))):
        split, title, actions = pick_cyclic(SEQUENCES, number)
        yield Shot(
            "emdb",
            split,
            f"P{number % 10}/{number:02d}_{title}",
            number,
            request.seed,
            request.frames(24),
            FPS,
            *pick_cyclic(PICTURES, number),
            actions=actions,
            hand_held=True,
        )


def _record(shot: Shot, folder: Path) -> Take:
    """Write `P<n>/<sequence>/images/<5 digits>.jpg`, and `P<n>_<sequence>_data.pkl` beside them."""
    take = stage(shot)
    write_pictures(take, folder / shot.name / "images", "{:05d}.jpg")
    labelled = replace(take, actors=tuple(apply_gender(actor, take) for actor in take.actors))
    labels = folder / shot.name / f"{shot.name.replace('/', '_')}_data.pkl"
    labels.write_bytes(pickle.dumps(_labels_of(labelled), protocol=4))
    return labelled


def apply_gender(actor: Actor, take: Take) -> Actor:
    """The same motion with the body of the actor's gender, as in EMDB's labels."""
    body = procedural(actor.gender)
    skinned = skin(body, actor.betas, actor.pose, actor.trans)
    joints = spin49(body, skinned)
    return replace(actor, joints=skinned.joints, spin49=joints, kp_2d=take.view.project(joints))


def _labels_of(take: Take) -> dict[str, Any]:
    """Content of a sequence's file."""
    (actor,) = take.actors
    shot = take.shot
    view = take.view
    kp_2d = view.project(actor.joints)  # (T, 24, 2)
    good = np.ones(shot.n_frames, np.bool_)
    if shot.number == 0:
        good[NOT_GOOD] = False
    margin = 0.05 * np.ptp(kp_2d, axis=1)
    low, high = corners(kp_2d)
    boxes = np.concatenate([low - margin, high + margin], axis=1)  # x1 y1 x2 y2
    boxes[NO_BOX] = 0
    return {
        "gender": actor.gender,
        "name": shot.name.replace("/", "_"),
        "emdb1": "emdb1" in shot.split,
        "emdb2": "emdb2" in shot.split,
        "n_frames": shot.n_frames,
        "good_frames_mask": good,
        "camera": {
            "intrinsics": view.intrinsics,
            "extrinsics": view.extrinsics,
            "width": view.width,
            "height": view.height,
        },
        "smpl": {
            "poses_root": actor.pose[:, :3],
            "poses_body": actor.pose[:, 3:],
            "trans": actor.trans,
            "betas": actor.betas,
        },
        "kp2d": kp_2d,
        "bboxes": {"bboxes": boxes, "invalid_idxs": np.array([NO_BOX])},
    }


LAYOUT: Final = ReleaseLayout(
    "emdb",
    "Rendered people in EMDB's layout, filmed by a moving camera: nothing of EMDB.",
    _plan,
    _record,
    n_videos=3,
    labels={
        "P*/*/*_data.pkl": "kp2d trans extrinsics bboxes poses_root betas "
        "intrinsics good_frames_mask"
    },
)

"""RICH's layout: a folder of images for each camera, a pickle of SMPL-X for each person and frame,
and cameras as XML.  pixels and labels -> [raw]

Each sequence has one camera. The world is that of `scene`, where the release's is its first
camera's. Labels use the gendered body, pixels the neutral one.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from pipeline.extras.demo.layouts import ReleaseLayout, Request, write_pictures
from pipeline.extras.demo.layouts.emdb import apply_gender
from pipeline.extras.demo.scene import Actor, Shot, Take, stage

FPS: Final = 30.0
# split -> the scene and the subjects of its sequences, and what they do
SEQUENCES: Final = {
    "train": ("BBQ_001", ("arm_raise", "wave")),
    "val": ("Pavallion_013_003", ("wave", "arm_raise")),
    "test": ("Gym_010", ("squat", "arm_raise")),
}
FEMALE: Final = ("010", "013")  # others are male
PICTURES: Final = (320, 240)  # width, height px
N_BODY: Final = 22  # joints of SMPL that SMPL-X has
HAND: Final = 0.2  # of each component of a hand


def _plan(request: Request) -> Iterator[Shot]:
    """A sequence in each split by default, of 16 frames; those of val have two people."""
    for number, split in request.places(**dict.fromkeys(SEQUENCES, 1)):
        people, actions = SEQUENCES[split]
        yield Shot(
            "rich",
            split,
            f"{people}_gym{number}/cam_{number:02d}",
            number,
            request.seed,
            request.frames(16),
            FPS,
            *PICTURES,
            n_people=people.count("_"),
            actions=actions,
        )


def _record(shot: Shot, folder: Path) -> Take:
    """Write `images/<split>/<sequence>/cam_<n>/`, the people's `bodies/`, and `<n>.xml`."""
    take = stage(shot)
    sequence, camera = shot.name.split("/")
    number = int(camera.removeprefix("cam_"))
    scene, *subjects, _ = sequence.split("_")
    images = folder / "images" / shot.split / shot.name
    write_pictures(take, images, f"{{:05d}}_{number:02d}.jpeg")
    bodies = folder / "bodies" / shot.split / sequence
    actors = []
    for subject, actor in zip(subjects, take.actors, strict=True):
        gender = "female" if subject in FEMALE else "male"
        labelled = apply_gender(replace(actor, gender=gender), take)
        _write_bodies(labelled, bodies, subject)
        actors.append(labelled)
    calibration = folder / "scan_calibration" / scene / "calibration" / f"{number:03d}.xml"
    calibration.parent.mkdir(parents=True, exist_ok=True)
    storage = cv2.FileStorage(str(calibration), cv2.FILE_STORAGE_WRITE)
    storage.write("CameraMatrix", take.view.extrinsics[0, :3])
    storage.write("Intrinsics", take.view.intrinsics)
    storage.write("Distortion", np.zeros((5, 1)))
    storage.release()
    return replace(take, actors=tuple(actors))


def _write_bodies(actor: Actor, folder: Path, subject: str) -> None:
    """Write a person's `<frame>/<subject>.pkl`."""
    hand = np.full(12, HAND)
    still = np.zeros(3)
    for frame, pose in enumerate(actor.pose):
        rows = {
            "transl": actor.trans[frame],
            "global_orient": pose[:3],
            "body_pose": pose[3 : 3 * N_BODY],
            "betas": actor.betas,
            "expression": np.zeros(10),
            "left_hand_pose": hand,
            "right_hand_pose": hand,
            "jaw_pose": still,
            "leye_pose": still,
            "reye_pose": still,
        }
        content = {key: row[None].astype(np.float32) for key, row in rows.items()}
        file = folder / f"{frame:05d}" / f"{subject}.pkl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(pickle.dumps(content, protocol=4))


LAYOUT: Final = ReleaseLayout(
    "rich",
    "Rendered people in RICH's layout, with SMPL-X bodies: nothing of RICH.",
    _plan,
    _record,
    labels={"bodies/*/*/*/*.pkl": "global_orient body_pose left_hand_pose betas expression transl"},
)

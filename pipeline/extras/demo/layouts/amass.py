"""AMASS's layout: files of SMPL-H poses.  motion -> [raw]

<subset>/<subject>/<motion>_poses.npz     a motion: poses, translations, frame rate
<subset>/<subject>/shape.npz              the person's gender and shape
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
from numpy.random import Generator
from scipy.spatial.transform import Rotation

from pipeline.extras.demo.body import procedural, rest_joints
from pipeline.extras.demo.layouts import ReleaseLayout, Request, pick_cyclic
from pipeline.extras.demo.motion import perform, random_betas
from pipeline.extras.demo.scene import GENDERS, Actor, Shot, Take
from pipeline.people.skeletons import Doubles

SUBSETS: Final = ("ACCAD", "CMU", "KIT", "SFU")
FRAME_RATES: Final = (120.0, 120.0, 100.0, 120.0, 60.0, 120.0)  # Hz, in turn
Z_UP: Final = Rotation.from_rotvec([np.pi / 2, 0, 0])  # AMASS's ground is z = 0, SMPL's up is y
N_JOINTS: Final = 22  # of SMPL-H's body, before 15 of each hand
N_BETAS: Final = 16  # in AMASS's files
# SMPL's hands -> the joints of SMPL-H there, the index fingers' roots
SMPLH_HANDS: Final = {22: 22, 23: 37}


def _plan(request: Request) -> Iterator[Shot]:
    """12 motions of 5 s by default, three per subset, each with a different subject."""
    for number, split in request.places(train=12):
        fps = pick_cyclic(FRAME_RATES, number)
        subset = pick_cyclic(SUBSETS, number)
        subject = number // len(SUBSETS) + 1
        name = f"{subset}/subject{subject:02d}/motion{number + 1:02d}"
        n_frames = request.frames(round(5 * fps))
        file = f"{name}_poses.npz"
        yield Shot("amass", split, name, number, request.seed, n_frames, fps, file=file)


def _record(shot: Shot, folder: Path) -> Take:
    """Write `<subset>/<subject>/<motion>_poses.npz`, and `shape.npz` beside it."""
    rng = shot.rng("motion")
    betas = random_betas(rng)
    facing = float(rng.uniform(-np.pi, np.pi))
    motion = perform(rng, betas, facing, shot.n_frames, shot.fps)
    gender = str(rng.choice(GENDERS))
    fingers = _curl_fingers(rng, shot.n_frames)
    posed = motion.pose.reshape(shot.n_frames, -1, 3).copy()
    for smpl, smplh in SMPLH_HANDS.items():
        posed[:, smpl] = fingers[:, smplh - N_JOINTS]
    y_up = posed.reshape(shot.n_frames, -1)
    joints = rest_joints(procedural(), betas)
    pose, trans = _turn_z_up(y_up, motion.trans, joints[0])
    unseen = np.zeros((shot.n_frames, 0, 3))  # no camera films the person
    actor = Actor(motion, gender, pose, betas, trans, unseen, unseen, unseen[..., :2])

    file = folder / shot.file
    file.parent.mkdir(parents=True, exist_ok=True)
    padding = np.zeros(N_BETAS - len(betas))
    shape = np.concatenate([betas, padding])
    np.savez(file.with_name("shape.npz"), gender=gender, betas=shape)
    body_pose = pose[:, : 3 * N_JOINTS]
    hand_pose = fingers.reshape(shot.n_frames, -1)
    np.savez(
        file,
        trans=trans,
        gender=gender,
        mocap_framerate=shot.fps,
        betas=shape,
        dmpls=np.zeros((shot.n_frames, 8)),
        poses=np.hstack([body_pose, hand_pose]),
    )
    return Take(shot, None, (actor,))


def _curl_fingers(rng: Generator, n_frames: int) -> Doubles:
    """Axis-angle (T, 30, 3) rad of the joints of the left hand, then of the right, which curl
    slowly; with palms down, fingers bend about z.
    """
    phase = np.linspace(0, 2 * np.pi, n_frames)
    start = rng.uniform(0, 2 * np.pi, 30)
    wave = np.sin(phase[:, None] + start)
    curl = 0.25 + 0.15 * wave
    sides = np.repeat([-1.0, 1.0], 15)
    fingers = np.zeros((n_frames, 30, 3))
    fingers[..., 2] = curl * sides
    return fingers


def _turn_z_up(pose: Doubles, trans: Doubles, pelvis: Doubles) -> tuple[Doubles, Doubles]:
    """The same motion in a world whose z is up.

    SMPL turns a body about its pelvis, which is at `pelvis` in the rest pose, so the translation
    changes with it.
    """
    turned = pose.copy()
    root = Z_UP * Rotation.from_rotvec(pose[:, :3])
    turned[:, :3] = root.as_rotvec()
    pelvis_path = Z_UP.apply(trans + pelvis)
    return turned, np.asarray(pelvis_path - pelvis)


LAYOUT: Final = ReleaseLayout(
    "amass",
    "Made-up motions in AMASS's layout: nothing of AMASS.",
    _plan,
    _record,
    n_videos=3,
    n_frames=300,
    labels={"*/*/*_poses.npz": "poses trans betas mocap_framerate"},
)

"""AMASS's layout: subset / subject / motion files of SMPL-H poses.  motion -> [raw]"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.demo.body import procedural, rest_joints
from pipeline.demo.layouts import ReleaseLayout, Request, pick_cyclic
from pipeline.demo.motion import perform, random_betas
from pipeline.demo.scene import GENDERS, Actor, Shot, Take

SUBSETS: Final = ("ACCAD", "CMU", "KIT", "SFU")
FRAME_RATES: Final = (120.0, 120.0, 100.0, 120.0, 60.0, 120.0)  # Hz, in turn
Z_UP: Final = Rotation.from_rotvec([np.pi / 2, 0, 0])  # AMASS's ground is z = 0, SMPL's up is y
# SMPL's hands -> the joints of SMPL-H there, the index fingers' roots
SMPLH_HANDS: Final = {22: 22, 23: 37}


def _plan(request: Request) -> Iterator[Shot]:
    """12 motions of 4 to 10 s by default, three per subset, each with a different subject."""
    for number, split, rng in request.enumerate_videos(103, train=12):
        fps = pick_cyclic(FRAME_RATES, number)
        subset = pick_cyclic(SUBSETS, number)
        subject = number // len(SUBSETS) + 1
        name = f"{subset}/subject{subject:02d}/motion{number + 1:02d}"
        n_frames = request.frames(rng, round(4 * fps), round(10 * fps), least=round(3 * fps))
        yield Shot(
            "amass", split, name, number, request.seed, n_frames, fps, file=f"{name}_poses.npz"
        )


def _record(shot: Shot, folder: Path) -> Take:
    """`<subset>/<subject>/<motion>_poses.npz` and `shape.npz` beside it."""
    rng = shot.rng("motion")
    betas = random_betas(rng)
    facing = float(rng.uniform(-np.pi, np.pi))
    motion = perform(rng, betas, facing, shot.n_frames, shot.fps)
    gender = str(rng.choice(GENDERS))
    # 15 joints of the left hand, then of the right, slightly and slowly curled; palms down, fingers
    # bend about z.
    curl = 0.25 + 0.15 * np.sin(
        np.linspace(0, 2 * np.pi, shot.n_frames)[:, None] + rng.uniform(0, 2 * np.pi, 30)
    )
    fingers = np.zeros((shot.n_frames, 30, 3))
    fingers[..., 2] = curl * np.repeat([-1.0, 1.0], 15)
    for smpl, smplh in SMPLH_HANDS.items():
        motion.pose[:, 3 * smpl : 3 * smpl + 3] = fingers[:, smplh - 22]
    pose, trans = z_up(motion.pose, motion.trans, rest_joints(procedural(), betas)[0])
    file = folder / shot.file
    file.parent.mkdir(parents=True, exist_ok=True)
    shape: dict[str, Any] = {
        "gender": np.array(gender),
        "betas": np.concatenate([betas, np.zeros(6)]),
    }
    np.savez(file.with_name("shape.npz"), **shape)
    arrays: dict[str, Any] = {
        "trans": trans,
        "gender": shape["gender"],
        "mocap_framerate": np.array(shot.fps),
    }
    arrays |= {"betas": shape["betas"], "dmpls": np.zeros((shot.n_frames, 8))}
    np.savez(file, **arrays, poses=np.concatenate([pose[:, :66], fingers.reshape(-1, 90)], axis=1))
    nowhere = np.zeros((shot.n_frames, 0, 3))
    return Take(
        shot, None, (Actor(motion, gender, pose, betas, trans, nowhere, nowhere, nowhere[..., :2]),)
    )


def z_up(
    pose: NDArray[Any], trans: NDArray[Any], pelvis: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Pose (T, 72) and translation (T, 3) of the same motion in a world whose z is up.

    SMPL turns a body about its pelvis, which is at `pelvis` in the rest pose, so the translation
    changes with it.
    """
    turned = pose.copy()
    turned[:, :3] = (Z_UP * Rotation.from_rotvec(pose[:, :3])).as_rotvec()
    return turned, np.asarray(Z_UP.apply(trans + pelvis) - pelvis)


LAYOUT: Final = ReleaseLayout(
    "amass", "Made-up motions in AMASS's layout: nothing of AMASS.", _plan, _record
)

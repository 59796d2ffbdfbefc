"""Predicted bodies as motion files of AMASS's layout, for Blender and for humanoid robots.  bodies -> [motions]

SMPL's add-ons for Blender read `poses`, `betas`, `trans`, `gender` and `mocap_framerate`, and take 55 joints a frame,
SMPL-X's; what maps motions to humanoid robots reads the same rotations as `root_orient` and `pose_body`, and
`mocap_frame_rate` (GMR, general_motion_retargeting/utils/smpl.py). SMPL's 24 joints have the same meaning there, but
for the two hands, which turn whole: their rotation goes to the first joints of four fingers. The world has z up, as
AMASS's: the camera looks along its y axis, and is taken to be level.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.body import Body
from pipeline.errors import PipelineError
from pipeline.rotations import in_camera, resample_linear, resample_rotations
from vibe_model import runs
from vibe_model.prediction.predict import TrackBodies, file_name

Doubles = NDArray[np.float64]

TO_WORLD: Final = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # x right, y down, z forward -> x right, z up
N_JOINTS: Final = 55
N_BETAS: Final = 16  # of AMASS's files with SMPL-X's joints; SMPL's ten come first, the others are 0
HANDS: Final = {22: (25, 28, 31, 34), 23: (40, 43, 46, 49)}  # SMPL's hands: index, middle, little and ring fingers
MIN_RATE: Final = 30.0  # frames a second: what is slower, GMR plays at 30
RATE_NOISE: Final = 0.01  # 29.97 is 30
ENDING: Final = "_stageii.npz"  # of AMASS's files with SMPL-X's joints


def write_motion(folder: Path, bodies: TrackBodies, body: Body, fps: float) -> Path:
    """One person's motion, from the first frame to the last; frames that are missing are interpolated.

    fps: of the source's frames. Below MIN_RATE, frames are interpolated between two, as many as reach it. The place is
    that of a camera whose focal length is the picture's diagonal: how far away a person is cannot be seen. The shape is
    the mean of all frames'. Beside AMASS's keys, `about` is a JSON text with the first frame's number and the frames
    here for one of the source. Raises PipelineError where the pictures' size is not
    known. Returns the file.
    """
    frames, step = bodies.frame_index, bodies.track.step
    parts = max(1, math.ceil(MIN_RATE * step / fps - RATE_NOISE))  # frames here for one of the source
    every = frames[0] + np.arange((frames[-1] - frames[0]) // step * parts + 1) * step / parts
    position = np.interp(every, frames, np.arange(len(frames)))
    betas = bodies.shape.mean(axis=0, dtype=np.float64)
    trans = resample_linear(place(bodies), position) @ TO_WORLD.T
    pelvis = _pelvis(body, betas)  # SMPL turns about it, and it is not at the origin
    pose = Rotation.from_matrix(bodies.rotmat.reshape(-1, 3, 3)).as_rotvec().reshape(-1, 24, 3)
    turned = in_camera(resample_rotations(pose, position).reshape(-1, 72), TO_WORLD).reshape(-1, 24, 3)
    poses = np.zeros((len(every), N_JOINTS, 3))
    poses[:, :22] = turned[:, :22]
    for hand, fingers in HANDS.items():
        poses[:, fingers] = turned[:, [hand]]
    about = {"track": bodies.track.name, "first_frame": int(frames[0]), "interpolated": len(every) - len(frames)}
    about["frames_for_one"] = parts
    flat, rate = poses.reshape(len(every), 3 * N_JOINTS), np.array(fps / step * parts)
    arrays: dict[str, Any] = {
        "poses": flat,
        "root_orient": flat[:, :3],
        "pose_body": flat[:, 3:66],
        "pose_hand": flat[:, 75:],  # jaw and eyes are before it
        "trans": trans + pelvis @ TO_WORLD.T - pelvis,
        "betas": np.pad(betas, (0, N_BETAS - len(betas))),
        "gender": np.array("neutral"),
        "mocap_framerate": rate,
        "mocap_frame_rate": rate,
        "about": np.array(json.dumps({**about, "stand_in": bool(body.is_stand_in)})),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (file_name(bodies.track.name).removesuffix(".npz") + ENDING)
    runs.replace_file(path, lambda stream: np.savez(stream, **arrays))
    return path


def place(bodies: TrackBodies) -> Doubles:
    """(F, 3) m, camera axes: the body's translation before a camera whose focal length is the picture's diagonal.

    By the weak perspective: the camera's scale is how many pixels a metre has, which focal length / depth is too.
    """
    if bodies.picture is None:
        raise PipelineError(f"{bodies.track.name}: the size of its pictures is not recorded: no place can be computed")
    size = np.array(bodies.picture, np.float64)
    camera, box = bodies.camera.astype(np.float64), bodies.bbox.astype(np.float64)
    px_per_m = np.maximum(camera[:, :1] * box[:, 2:3] * float(bodies.track.crop_scale) / 2, 1e-3)  # (F, 1)
    sideways = camera[:, 1:] + (box[:, :2] - size / 2) / px_per_m
    return np.concatenate([sideways, math.hypot(*size) / px_per_m], axis=1)


def _pelvis(body: Body, betas: Doubles) -> Doubles:
    """(3,) m: where the root joint is in the body at rest."""
    shape = torch.as_tensor(betas[None], dtype=torch.float32, device=body.faces.device)
    at_rest = torch.eye(3, device=shape.device).expand(1, 24, 3, 3)
    with torch.no_grad():
        posed = body.smpl(betas=shape, global_orient=at_rest[:, :1], body_pose=at_rest[:, 1:], pose2rot=False)
    return np.asarray(posed.joints[0, 0].double().cpu().numpy())

"""Predicted bodies as motion files in AMASS's layout, for Blender and humanoid robots.  bodies ->
[motions]

`write_motion` writes one file per person, for `tasks predict --export`. It decides which frames
the file has (`_Timeline`), and resamples rotations and translations to them.

SMPL's Blender add-ons read `poses` (SMPL-X's 55 joints), `betas`, `trans`, `gender` and
`mocap_framerate`. Retargeting to humanoid robots reads the same rotations as `root_orient` and
`pose_body`, and `mocap_frame_rate` (GMR, general_motion_retargeting/utils/smpl.py). SMPL-X has
SMPL's joints except the two hands, whose rotation goes to the first joints of four fingers. The
world has z up, as in AMASS: a level camera looks along its y axis.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from pipeline.errors import PipelineError
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.files.places import file_name
from pipeline.people.body import Body
from pipeline.people.cameras import pose_in_camera, resample_linear, resample_rotations
from pipeline.people.skeletons import Doubles
from vibe_model.files import replace_file
from vibe_model.prediction.predict import TrackBodies

# x right, y down, z forward -> x right, z up
TO_WORLD: Final = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
N_JOINTS: Final = 55  # of SMPL-X
N_BETAS: Final = 16  # of AMASS's SMPL-X files; SMPL's ten come first, the others are 0
# SMPL's hands: index, middle, little and ring fingers
HANDS: Final = {22: (25, 28, 31, 34), 23: (40, 43, 46, 49)}
MIN_RATE: Final = 30.0  # frames per second: GMR plays slower files at 30
RATE_NOISE: Final = 0.01  # treats 29.97 as 30
ENDING: Final = "_stageii.npz"  # of AMASS's SMPL-X files


def write_motion(
    folder: Path,
    bodies: TrackBodies,
    body: Body,
    fps: float,
    clip: ClipRecord | None = None,
) -> Path:
    """Write one person's motion, from the first frame to the last. Returns the file.

    Interpolates missing frames, and below MIN_RATE as many frames between two as reach it. The
    shape is the mean over frames. The translation assumes a focal length equal to the image's
    diagonal. Besides AMASS's keys, `about` is a JSON text with the first frame's number and the
    number of frames written for each source frame.

    Args:
        fps: Rate of the source's frames during the track.
        clip: Of the source, if it is a clip: frames of uneven length keep their times.

    Raises:
        PipelineError: the images' size is unknown.
    """
    timeline = _Timeline.plan(bodies, fps, clip)
    betas = bodies.shape.mean(axis=0, dtype=np.float64)
    trans = resample_linear(_translations(bodies), timeline.position) @ TO_WORLD.T
    pelvis = _pelvis(body, betas)  # SMPL rotates about the pelvis, which is not at the origin
    poses = _poses(bodies, timeline.position)
    about = {
        "track": bodies.track.name,
        "first_frame": int(bodies.frame_index[0]),
        "interpolated": len(timeline.position) - len(bodies),
        "frames_for_one": timeline.parts,
        "stand_in": bool(body.is_stand_in),
    }
    rate = np.array(timeline.fps)
    arrays: dict[str, Any] = {
        "poses": poses,
        "root_orient": poses[:, :3],
        "pose_body": poses[:, 3:66],
        "pose_hand": poses[:, 75:],  # after jaw and eyes
        "trans": trans + pelvis @ TO_WORLD.T - pelvis,
        "betas": np.pad(betas, (0, N_BETAS - len(betas))),
        "gender": np.array("neutral"),
        "mocap_framerate": rate,
        "mocap_frame_rate": rate,
        "about": np.array(json.dumps(about)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(bodies.track.name, ENDING)
    replace_file(path, lambda stream: np.savez(stream, **arrays))
    return path


class _Timeline(NamedTuple):
    """The N frames of a motion file, evenly spaced in time."""

    # (N,) where each is among the F predicted frames: 1.5 is halfway between the second and third
    position: Doubles
    parts: int  # frames written for each source frame
    fps: float  # rate of the written frames

    @classmethod
    def plan(cls, bodies: TrackBodies, fps: float, clip: ClipRecord | None) -> _Timeline:
        """Choose the frames to write. fps, clip: as for `write_motion`."""
        frames = bodies.frame_index
        step = bodies.track.step
        if clip is not None and not clip.is_even:
            fps *= clip.usual_fps / clip.fps_of(frames)
            frames = clip.clock[frames]  # in frames of the usual length
        parts = max(1, math.ceil(MIN_RATE * step / fps - RATE_NOISE))
        n_steps = (frames[-1] - frames[0]) // step
        written = np.arange(n_steps * parts + 1)
        source_frames = frames[0] + written * step / parts
        position = np.interp(source_frames, frames, np.arange(len(frames)))
        return cls(position, parts, fps / step * parts)


def _poses(bodies: TrackBodies, position: Doubles) -> Doubles:
    """Axis-angle (N, 3 * N_JOINTS) rad of SMPL-X's joints at positions (N,), z up."""
    matrices = bodies.rotmat.reshape(-1, 3, 3)
    rotvec = Rotation.from_matrix(matrices).as_rotvec().reshape(-1, 24, 3)
    in_camera = resample_rotations(rotvec, position).reshape(-1, 72)
    turned = pose_in_camera(in_camera, TO_WORLD).reshape(-1, 24, 3)
    poses = np.zeros((len(turned), N_JOINTS, 3))
    poses[:, :22] = turned[:, :22]
    for hand, fingers in HANDS.items():
        poses[:, fingers] = turned[:, [hand]]
    return poses.reshape(len(turned), 3 * N_JOINTS)


def _translations(bodies: TrackBodies) -> Doubles:
    """Translations (F, 3) m in camera axes, for a focal length equal to the image's diagonal.

    The weak perspective camera s (x + tx) of a crop of side 2 gives the pixels per metre, s times
    half the crop's side, which equal focal length / depth.
    """
    if bodies.picture is None:
        raise PipelineError(
            f"{bodies.track.name}: its image size is not recorded, so its translation is unknown"
        )
    size = np.array(bodies.picture, np.float64)
    camera = bodies.camera.astype(np.float64)
    box = bodies.bbox.astype(np.float64)
    crop_scale = float(bodies.track.crop_scale)
    half_crop = camera[:, :1] * box[:, 2:3] * crop_scale / 2
    px_per_m = np.maximum(half_crop, 1e-3)  # (F, 1)
    from_middle = box[:, :2] - size / 2
    sideways = camera[:, 1:] + from_middle / px_per_m
    depth = math.hypot(*size) / px_per_m
    return np.concatenate([sideways, depth], axis=1)


def _pelvis(body: Body, betas: Doubles) -> Doubles:
    """Position (3,) m of the root joint in the body's rest pose."""
    shape = torch.as_tensor(betas[None], dtype=torch.float32, device=body.faces.device)
    at_rest = torch.eye(3, device=shape.device).expand(1, 24, 3, 3)
    with torch.no_grad():
        posed = body.smpl(
            betas=shape, global_orient=at_rest[:, :1], body_pose=at_rest[:, 1:], pose2rot=False
        )
    return np.asarray(posed.joints[0, 0].double().cpu().numpy())

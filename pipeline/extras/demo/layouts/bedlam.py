"""BEDLAM's layout: one npz per scene, one row per person and image.  pixels and labels -> [raw]

Each person has a world whose origin is at the body and whose vertical rotation follows the camera:
y points down, z into the image. Bodies are neutral; `gender` is only a label. `proj_verts` are
omitted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

import cv2
import numpy as np

from pipeline.errors import PipelineError
from pipeline.extras.demo.body import procedural, rest_joints
from pipeline.extras.demo.layouts import ReleaseLayout, Request, pick_cyclic
from pipeline.extras.demo.scene import Actor, Shot, Take, corners, film, stage
from pipeline.people.cameras import pose_in_camera
from pipeline.people.skeletons import Array, Doubles, add_confidence

FPS: Final = 30


class _Scene(NamedTuple):
    """The content of a scene. Its name says how it is filmed (TURNED, MOVING, SPARSE)."""

    name: str
    n_people: int
    size: tuple[int, int]  # width, height px
    actions: tuple[str, ...]


SCENES: Final = (
    _Scene(
        "20221010_2_1_batch01hand_closeup_suburb_6fps",
        2,
        (216, 384),
        ("arm_raise", "wave", "squat"),
    ),
    _Scene("20221014_1_1_batch01hand_orbit_archviz_30fps", 1, (320, 180), ("wave", "arm_raise")),
    _Scene("20221018_1_1_batch01hand_30fps", 1, (320, 180), ("arm_raise", "random_poses")),
)
# in names of scenes
TURNED: Final = "closeup"  # images are rotated
MOVING: Final = "orbit"  # the camera moves
SPARSE: Final = "6fps"  # every fifth image exists
HOLE: Final = slice(4, 6)  # images of the first scene in which its second person is not labelled
TRAINING: Final = "all_npz_12_smpl_training"
SEQUENCE: Final = "seq_000000"
N_BODY_JOINTS: Final = 22  # of SMPL's 24, without the hands


def _plan(request: Request) -> Iterator[Shot]:
    """3 scenes of one sequence by default, of 20 images: two people; a moving camera; a
    static one.
    """
    for number, split in request.places(train=len(SCENES)):
        scene = pick_cyclic(SCENES, number)
        name = f"{scene.name}/{SEQUENCE}"
        if number >= len(SCENES):
            name = f"{number:03d}_{name}"
        n_images = request.frames(20)
        yield Shot(
            "bedlam",
            split,
            name,
            number,
            request.seed,
            _step(scene.name) * (n_images - 1) + 1,
            FPS,
            *scene.size,
            n_people=scene.n_people,
            actions=scene.actions,
            hand_held=MOVING in scene.name,
        )


def _record(shot: Shot, folder: Path) -> Take:
    """Write `<scene>/png/<sequence>/<sequence>_<4 digits>.png` and
    `all_npz_12_smpl_training/<scene>.npz`.
    """
    take = stage(shot)
    scene, sequence = shot.name.split("/")
    images = folder / scene / "png" / sequence
    images.mkdir(parents=True)
    step = _step(scene)
    for number, filmed in enumerate(film(take, step)):
        image = filmed.image[..., ::-1]
        if TURNED in scene:
            image = np.rot90(image)
        file = images / f"{sequence}_{number * step:04d}.png"
        if not cv2.imwrite(str(file), image):
            raise PipelineError(
                "OpenCV cannot encode PNG. Install opencv-python with its image codecs."
            )

    labels = folder / TRAINING / f"{scene}.npz"
    labels.parent.mkdir(exist_ok=True)
    content: dict[str, Any] = {}  # the first person's rows, then the second's
    by_person = [_rows(take, person, actor) for person, actor in enumerate(take.actors)]
    for key in by_person[0]:
        content[key] = np.concatenate([rows[key] for rows in by_person])
    np.savez(labels, **content)
    return take


def _rows(take: Take, person: int, actor: Actor) -> dict[str, Array]:
    """A person's rows in a scene's labels, by column."""
    shot = take.shot
    scene, sequence = shot.name.split("/")
    to_camera = take.view.extrinsics[:, :3, :3]
    to_level = _level(to_camera)
    pelvis = rest_joints(procedural(), actor.betas)[0]
    origin = actor.trans[0] * (1, 0, 1)  # of the person's world: below the body
    extrinsics = take.view.extrinsics.copy()
    extrinsics[:, :3, :3] = to_camera @ to_level.transpose(0, 2, 1)  # without the camera's yaw
    extrinsics[:, :3, 3] += to_camera @ origin
    pelvis_path = actor.trans + pelvis - origin
    kp_2d = take.view.project(actor.joints)  # (T, 24, 2)
    low, high = corners(kp_2d[:, :N_BODY_JOINTS])
    images = [f"{sequence}/{sequence}_{frame:04d}.png" for frame in range(shot.n_frames)]
    rows = {
        "imgname": np.array(images),
        "center": (low + high) / 2,
        "scale": (high - low).max(axis=1) / 200 * 1.2,  # in 200 px, with a margin
        "pose_cam": pose_in_camera(actor.pose, to_camera),
        "pose_world": pose_in_camera(actor.pose, to_level),
        "trans_cam": np.einsum("tij,tj->ti", to_camera, pelvis_path) - pelvis,
        "trans_world": np.einsum("tij,tj->ti", to_level, pelvis_path) - pelvis,
        "cam_ext": extrinsics,
        "gtkps": add_confidence(kp_2d),
    }
    constant = {
        "shape": actor.betas,
        "cam_int": take.view.intrinsics,
        "gender": actor.gender,
        "sub": f"demo_{shot.number:03d}_posed_{person:03d}",
    }
    for key, value in constant.items():
        rows[key] = np.array([value] * shot.n_frames)
    labelled = np.arange(0, shot.n_frames, _step(scene))
    if person and len(labelled) > HOLE.stop:
        labelled = np.delete(labelled, HOLE)
    return {key: values[labelled] for key, values in rows.items()}


def _level(rotation: Doubles) -> Doubles:
    """Rotations (T, 3, 3) from the world (y up) to the level axes of a camera: right, down, ahead.

    rotation: (T, 3, 3) from the world to the camera.
    """
    ahead = rotation[:, 2] * (1, 0, 1)
    ahead /= np.linalg.norm(ahead, axis=1, keepdims=True)
    down = np.broadcast_to(np.array([0.0, -1, 0]), ahead.shape)
    return np.stack([np.cross(down, ahead), down, ahead], axis=1)


def _step(scene: str) -> int:
    """Frames from one image to the next."""
    if scene.endswith(SPARSE):
        return 5
    return 1


LAYOUT: Final = ReleaseLayout(
    "bedlam",
    "Rendered people in BEDLAM's layout, all of the neutral body: nothing of BEDLAM.",
    _plan,
    _record,
    n_videos=3,
    labels={
        "all_npz_12_smpl_training/*.npz": "center scale pose_cam shape trans_cam "
        "cam_int cam_ext gtkps"
    },
)

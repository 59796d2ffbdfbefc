"""MPI-INF-3DHP's layout: sequences of 14 cameras, test videos with HDF5 labels.  pixels and labels
-> [raw]

    S1/Seq1/imageFrames/video_0/frame_000000.jpg            a training video: images,
    S1/Seq1/imageSequence/video_1.avi                       or a file
    S1/Seq1/annot.mat, camera.calibration                   joints and cameras of a sequence
    mpi_inf_3dhp_test_set/TS1/imageSequence/img_000001.jpg  a test video
    mpi_inf_3dhp_test_set/TS1/annot_data.mat                its joints

A sequence is one motion, which 14 cameras see; two of them film it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.extras.demo.camera import Camera, frame_people
from pipeline.extras.demo.files import write_mat, write_mat73
from pipeline.extras.demo.layouts import (
    ReleaseLayout,
    Request,
    pick_cyclic,
    write_pictures,
    write_video,
)
from pipeline.extras.demo.scene import Actor, Shot, Take, corners, stage
from pipeline.people.skeletons import JOINTS, Array, Doubles, convert

N_CAMERAS: Final = 14
PAIRS: Final = ((0, 1), (2, 4), (5, 6), (7, 8))  # cameras that film a sequence, in turn
# degrees of each camera about the actor, 0 in front; the two of a pair are 90 degrees apart
AZIMUTHS: Final = (-79, 11, -56, 116, 34, -34, 56, -11, 79, 142, 167, 193, 219, 244)
SEQUENCES: Final = (  # the release's sequences at 25 fps
    *(f"S{subject}/Seq1" for subject in (1, 2, 4, 6, 7, 8)),
    *(f"S{subject}/Seq2" for subject in (2, 4, 6, 7, 8)),
)
FPS: Final = 25.0
SIDE_PX: Final = 320  # 2048 in the release
TEST_FOLDER: Final = "mpi_inf_3dhp_test_set"
TESTS: Final = ("TS1", "TS5", "TS2", "TS6", "TS3", "TS4")
# width, height px; 300 x 300 for the others
TEST_PICTURES: Final = {"TS5": (384, 216), "TS6": (384, 216)}
INVALID_FRAMES: Final = 5  # first frames of every test video, whose labels evaluation may not use
BOX_COLUMNS: Final = 34  # of `bb_crop`: a box x1 y1 x2 y2; the others are not used
UNIVERSAL_LEG_M: Final = 0.83  # hip to ankle of the skeleton that `univ_annot3` is scaled to
# actions for static cameras
ON_THE_SPOT: Final = ("squat", "arm_raise", "wave", "random_poses")
# native joints that spin49 lacks -> the nearest SMPL joint
NEAREST_SMPL: Final = {
    "spine2": "smpl_spine1", "spine3": "smpl_spine2", "spine4": "smpl_spine3",
    "left_clavicle": "smpl_lcollar", "right_clavicle": "smpl_rcollar",
    "left_hand": "smpl_lhand", "right_hand": "smpl_rhand", "left_foot": "smpl_lfoot",
    "right_foot": "smpl_rfoot",
}  # fmt: skip
# native toes -> spin49's
TOES: Final = {"left_toe": "OP LBigToe", "right_toe": "OP RBigToe"}


def _plan(request: Request) -> Iterator[Shot]:
    """By default 4 training videos of 20 frames (two views of two sequences), and 2 test videos of
    24 frames.
    """
    n_training = request.videos(4)
    for number in range(n_training):
        yield _training_shot(request, number)
    for number, name in enumerate(TESTS[: request.videos(2)], start=n_training):
        yield Shot(
            "mpi_inf_3dhp",
            "test",
            name,
            number,
            request.seed,
            request.frames(24),
            FPS,
            *TEST_PICTURES.get(name, (300, 300)),
            actions=ON_THE_SPOT,
            file=f"{TEST_FOLDER}/{name}/imageSequence",
        )


def _training_shot(request: Request, number: int) -> Shot:
    """Training videos 2 k and 2 k + 1 are two views of the same take."""
    take, view = divmod(number, 2)
    sequence = pick_cyclic(SEQUENCES, take)
    camera = pick_cyclic(PAIRS, take // len(SEQUENCES))[view]
    # Every fourth video is a file, as in the download; the others are extracted images.
    file = f"{sequence}/imageFrames/video_{camera}"
    if number % 4 == 3:
        file = f"{sequence}/imageSequence/video_{camera}.avi"
    return Shot(
        "mpi_inf_3dhp",
        "train",
        f"{sequence}/video_{camera}",
        number,
        request.seed,
        request.frames(20),
        FPS,
        SIDE_PX,
        SIDE_PX,
        actions=ON_THE_SPOT,
        file=file,
    )


def _record(shot: Shot, folder: Path) -> Take:
    """Write a training or a test video with its labels."""
    if shot.split == "train":
        return _record_training(shot, folder)
    images = folder / shot.file
    take = stage(shot)
    write_pictures(take, images, "img_{:06d}.jpg", first=1)
    write_mat73(images.parent / "annot_data.mat", _test_labels(take))
    return take


def _record_training(shot: Shot, folder: Path) -> Take:
    """Write a training video; the first one of a sequence also writes the sequence's labels."""
    sequence, _, camera = shot.name.rpartition("/")
    played = stage(replace(shot, name=sequence))  # the same for all cameras
    cameras = _place_cameras(played)
    take = played.switch_camera(cameras[int(camera.removeprefix("video_"))])
    path = folder / shot.file
    if path.suffix:
        write_video(take, path)
    else:
        write_pictures(take, path, "frame_{:06d}.jpg")
    if shot.number % 2 == 0:
        write_mat(folder / sequence / "annot.mat", _training_labels(take, cameras), compressed=True)
        calibration = folder / sequence / "camera.calibration"
        calibration.write_text(_calibration(cameras), encoding="ascii")
    return replace(take, shot=shot)


def _place_cameras(take: Take) -> list[Camera]:
    """14 cameras around the actor: the eight of PAIRS at the front and the sides, the others
    behind.
    """
    shot = take.shot
    actor = take.actors[0]
    size = (shot.width, shot.height)
    cameras = []
    for number, degrees in enumerate(AZIMUTHS):
        heading = actor.motion.heading + np.radians(degrees)
        rng = shot.rng(f"camera {number}")
        cameras.append(frame_people(rng, actor.spin49, size, heading=heading, turn=8))
    return cameras


def _training_labels(take: Take, cameras: list[Camera]) -> dict[str, Any]:
    """The variables of annot.mat: cells with one entry per camera.

    annot2 is in px; annot3 in mm of the camera.
    """
    points = _native_joints(take.actors[0])
    n_frames = len(points)
    in_cameras = [1000 * camera.to_camera(points).reshape(n_frames, -1) for camera in cameras]
    return {
        "frames": np.arange(n_frames, dtype=np.int32)[:, None],
        "cameras": np.arange(N_CAMERAS, dtype=np.uint8)[None],
        "annot2": _cell([camera.project(points).reshape(n_frames, -1) for camera in cameras]),
        "annot3": _cell(in_cameras),
    }


def _calibration(cameras: list[Camera]) -> str:
    """The text of camera.calibration: static cameras, extrinsics in mm."""
    lines = ["Skeletool Camera Calibration File V1.0"]
    for number, camera in enumerate(cameras):
        intrinsics = np.eye(4)
        extrinsics = camera.extrinsics[0].copy()
        intrinsics[:3, :3] = camera.intrinsics
        extrinsics[:3, 3] *= 1000
        lines += [
            f"name          {number}",
            "  sensor      10 10",
            f"  size        {camera.width} {camera.height}",
            "  animated    0",
            f"  intrinsic   {_matrix_text(intrinsics)}",
            f"  extrinsic   {_matrix_text(extrinsics)}",
            "  radial      0",
        ]
    return "\n".join(lines) + "\n"


def _matrix_text(matrix: Doubles) -> str:
    return " ".join(f"{value:.10g}" for value in matrix.ravel())


def _test_labels(take: Take) -> dict[str, Array]:
    """The variables of annot_data.mat, with HDF5's order of axes."""
    points = convert(take.actors[0].spin49, source="spin49", target="mpi_inf_3dhp_test")
    pixels = take.view.project(points)
    mm = take.view.to_camera(points) * 1000
    n_frames = len(points)
    valid = np.ones((n_frames, 1))
    valid[:INVALID_FRAMES] = 0
    boxes = np.zeros((n_frames, BOX_COLUMNS))
    boxes[:, :4] = np.concatenate(corners(pixels), axis=1)
    return {
        "annot2": pixels[:, None],
        "annot3": mm[:, None],
        "univ_annot3": _universal_scale(take) * mm[:, None],
        "valid_frame": valid,
        "bb_crop": boxes,
    }


def _universal_scale(take: Take) -> float:
    """Scale of the universal skeleton relative to the actor."""
    joint = dict(zip(JOINTS["spin49"], take.actors[0].spin49[0], strict=True))
    thigh = np.linalg.norm(joint["lhip"] - joint["lknee"])
    shin = np.linalg.norm(joint["lknee"] - joint["lankle"])
    return float(UNIVERSAL_LEG_M / (thigh + shin))


def _native_joints(actor: Actor) -> Doubles:
    """Joints in the release's order, (T, 28, 3) m in the world."""
    smpl = JOINTS["smpl54"][: actor.joints.shape[1]]
    paths = dict(zip(JOINTS["spin49"], actor.spin49.transpose(1, 0, 2), strict=True))
    for name, nearest in NEAREST_SMPL.items():
        paths[name] = actor.joints[:, smpl.index(nearest)]
    for name, toe in TOES.items():
        paths[name] = paths[toe]
    return np.stack([paths[name] for name in JOINTS["mpi_inf_3dhp"]], axis=1)


def _cell(arrays: list[Doubles]) -> NDArray[np.object_]:
    """Make a MATLAB cell (n, 1) of these arrays."""
    cell = np.empty((len(arrays), 1), object)
    for i, array in enumerate(arrays):
        cell[i, 0] = array
    return cell


LAYOUT: Final = ReleaseLayout(
    "mpi_inf_3dhp",
    "Rendered people in MPI-INF-3DHP's layout, projected without error: nothing of MPI-INF-3DHP.",
    _plan,
    _record,
    n_videos=4,
    n_frames=6,
    labels={
        "S*/*/annot.mat": "annot2 annot3",
        "*/TS*/annot_data.mat": "annot2 univ_annot3 valid_frame",
    },
)

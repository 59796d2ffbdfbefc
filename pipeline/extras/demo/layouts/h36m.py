"""Human3.6M's layout: videos, CDF files of poses, metadata.xml and SMPL fits.  pixels and labels ->
[raw]

The same four cameras film every subject, so that a take is seen by up to four of them. Lengths in
files are in millimetres. The world of metadata.xml has z up, as in the release; fits and their
cameras use the axes of `scene` (y up).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np
from scipy.spatial.transform import Rotation

from pipeline.datasets.labels.h36m import CAMERAS
from pipeline.extras.demo.camera import Camera
from pipeline.extras.demo.layouts import (
    ReleaseLayout,
    Request,
    pick_cyclic,
    write_json,
    write_video,
)
from pipeline.extras.demo.scene import Shot, Take, stage
from pipeline.people.skeletons import JOINTS, Doubles, Floats

# px; the release has 1000 x 1002 and 1000 x 1000
SIZES: Final = ((300, 302), (300, 300), (300, 300), (300, 302))
AZIMUTHS: Final = (40.0, 145.0, 320.0, 220.0)  # degrees about the place, 0 in front of it
DISTANCE_M: Final = 4.0  # of the cameras from the place
HEIGHT_M: Final = 1.4  # of the cameras
AIM_M: Final = 0.9  # height at which they look
FOCAL: Final = 1.45  # times the width
DISTORTION: Final = (0.0, 0.0, 0.0, 0.0, 0.0)  # the release has some: k1 k2 k3 p1 p2
FPS: Final = 50.0
SUBJECTS: Final = tuple(f"S{k}" for k in range(1, 12))
ACTIONS: Final = (  # ids 1 to 16, each with subactions 1 and 2
    "_ALL", "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Posing", "Purchases",
    "Sitting", "SittingDown", "Smoking", "TakingPhoto", "Waiting", "Walking", "WalkingDog",
    "WalkTogether",
)  # fmt: skip
# split -> (subject, action, actions of `actions.py`); on the spot, for static cameras
TAKES: Final = {
    "train": (
        ("S1", "Walking", ("march",)),
        ("S5", "Greeting", ("wave", "arm_raise")),
        ("S6", "Directions", ("arm_raise", "random_poses")),
        ("S7", "Posing", ("wave", "random_poses")),
        ("S8", "Sitting", ("squat",)),
    ),
    "val": (
        ("S9", "Posing", ("arm_raise", "wave")),
        ("S11", "Waiting", ("random_poses",)),
    ),
}
Z_UP: Final = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # from the scene's world, y up
FITTED: Final = "S1"  # the subject with SMPL fits
UNFITTED_FRAMES: Final = 3  # last frames of its videos, without a fit
UNLABELLED_FRAMES: Final = 2  # last frames of the second subject's videos, without poses

# The 32 stored joints; the release repeats some of them.
STORED: Final = (
    "hip", "rhip", "rknee", "rankle", "OP RBigToe", "OP RBigToe",
    "lhip", "lknee", "lankle", "OP LBigToe", "OP LBigToe",
    "hip", "Spine (H36M)", "thorax", "Head (H36M)", "headtop",
    "neck", "lshoulder", "lelbow", "lwrist", "lwrist", "lwrist", "lwrist", "lwrist",
    "neck", "rshoulder", "relbow", "rwrist", "rwrist", "rwrist", "rwrist", "rwrist",
)  # fmt: skip


def _plan(request: Request) -> Iterator[Shot]:
    """By default 6 training videos, four views of one take and two of another, and 3 validation
    videos, of 40 frames.
    """
    number = itertools.count()
    for split, usual in (("train", 6), ("val", 3)):
        for view in range(request.videos(usual)):
            turn, camera = divmod(view, len(CAMERAS))
            if split == "val":
                # the frontal one first: protocol 2 evaluates on it alone
                camera = len(CAMERAS) - 1 - camera
            subject, action, actions = pick_cyclic(TAKES[split], turn)
            # A subject's takes: the first of this action, its second, the first of the next, ...
            n_before = turn // len(TAKES[split])
            number_of_action = ACTIONS.index(action) - 1 + n_before // 2
            played = ACTIONS[1 + number_of_action % (len(ACTIONS) - 1)]  # without _ALL
            file_name = _file_name(played, 1 + n_before % 2, subject)
            yield Shot(
                "h36m",
                split,
                f"{subject}/{file_name}.{CAMERAS[camera]}",
                next(number),
                request.seed,
                request.frames(40),
                FPS,
                *SIZES[camera],
                actions=actions,
            )


def _record(shot: Shot, folder: Path) -> Take:
    """Write `S<k>/Videos/<name>.mp4`, and the two pose files."""
    subject, _, stem = shot.name.partition("/")
    camera = _camera_of(shot.name.rpartition(".")[2], shot.n_frames)
    played = _stage_take(shot).switch_camera(camera)
    # of the shared shot, so that people and backdrop look the same in all cameras
    write_video(played, folder / subject / "Videos" / f"{stem}.mp4")
    take = replace(played, shot=shot)
    for kind, pose in _poses_of(take).items():
        file = folder / subject / "MyPoseFeatures" / kind / f"{stem}.cdf"
        file.parent.mkdir(parents=True, exist_ok=True)
        _write_cdf(file, pose)
    return take


def _finish(folder: Path, shots: Sequence[Shot]) -> None:
    """Write metadata.xml, and the SMPL fits of one subject with their cameras."""
    (folder / "metadata.xml").write_bytes(_metadata())
    by_name = {shot.name.rpartition(".")[0]: shot for shot in shots}  # one of four cameras
    fits: dict[str, dict[str, Any]] = {}
    for action_id, subaction_id, name in _files_of(FITTED):
        shot = by_name.get(f"{FITTED}/{name}")
        if shot:
            fits.setdefault(action_id, {})[subaction_id] = _fits_of(_stage_take(shot))
    stem = f"Human36M_subject{FITTED.removeprefix('S')}"
    write_json(folder / "smpl_param" / f"{stem}_smpl_param.json", fits)
    write_json(folder / "smpl_param" / f"{stem}_camera.json", _cameras())


def _camera_of(name: str, n_frames: int) -> Camera:
    """The static camera with this name."""
    number = CAMERAS.index(name)
    width, height = SIZES[number]
    azimuth = np.radians(AZIMUTHS[number])
    x = DISTANCE_M * np.sin(azimuth)
    z = DISTANCE_M * np.cos(azimuth)
    position = np.tile([x, HEIGHT_M, z], (n_frames, 1))
    focal = FOCAL * width + number
    centre_x = (width - 1) / 2 + number
    centre_y = (height - 1) / 2 - number
    intrinsics = np.array([[focal, 0, centre_x], [0, focal + 1, centre_y], [0, 0, 1]])
    target = np.array([0.0, AIM_M, 0.0])
    return Camera.aim(SIZES[number], intrinsics, position, target, np.zeros(n_frames))


def _stage_take(shot: Shot) -> Take:
    """The take shared by all cameras."""
    name = shot.name.rpartition(".")[0]
    return stage(replace(shot, name=name, number=0, width=300, height=300))


def _poses_of(take: Take) -> dict[str, Doubles]:
    """D2_Positions (F, 64) px and D3_Positions_mono (F, 96) mm in the camera's axes."""
    (actor,) = take.actors
    n_frames = take.shot.n_frames
    if take.shot.name.startswith("S5/"):
        n_frames -= UNLABELLED_FRAMES
    index = [JOINTS["spin49"].index(name) for name in STORED]
    in_camera = 1000 * take.view.to_camera(actor.spin49)
    return {
        "D2_Positions": actor.kp_2d[:n_frames, index].reshape(n_frames, -1),
        "D3_Positions_mono": in_camera[:n_frames, index].reshape(n_frames, -1),
    }


def _fits_of(take: Take) -> dict[str, Any]:
    """Frame -> fit, of every second frame, in the world's axes."""
    (actor,) = take.actors
    shape = actor.betas.tolist()
    frames = range(0, take.shot.n_frames - UNFITTED_FRAMES, 2)
    return {
        str(t): {"pose": actor.pose[t].tolist(), "shape": shape, "trans": actor.trans[t].tolist()}
        for t in frames
    }


def _cameras() -> dict[str, Any]:
    """Camera "1" to "4" -> rotation and translation (mm) from the world, focal lengths and
    principal point (px).
    """
    described = {}
    for number, name in enumerate(CAMERAS, start=1):
        camera = _camera_of(name, 1)
        described[str(number)] = {
            "R": camera.extrinsics[0, :3, :3].tolist(),
            "t": (1000 * camera.extrinsics[0, :3, 3]).tolist(),
            "f": camera.intrinsics[[0, 1], [0, 1]].tolist(),
            "c": camera.intrinsics[:2, 2].tolist(),
        }
    return described


def _metadata() -> bytes:
    """metadata.xml: the action of each file, the cameras' ids and parameters (`w0`).

    w0 has three angles and the position (mm) for every camera and subject, then the intrinsics of
    every camera.
    """
    rows = [["", "", *SUBJECTS]]
    for files in zip(*map(_files_of, SUBJECTS), strict=True):
        rows.append([*files[0][:2], *(name for _, _, name in files)])
    extrinsic = list[float]()
    intrinsic = list[float]()
    for camera in _cameras().values():
        turn = camera["R"] @ Z_UP.T
        angles = Rotation.from_matrix(turn).as_euler("XYZ")
        extrinsic += [*angles.tolist(), *(-turn.T @ camera["t"]).tolist()] * len(SUBJECTS)
        intrinsic += [*camera["f"], *camera["c"], *DISTORTION]
    root = Element("metadata")
    mapping = SubElement(root, "mapping")
    tables = [(SubElement(mapping, "tr"), row) for row in rows]
    tables.append((SubElement(root, "actionnames"), list(ACTIONS)))
    tables.append((SubElement(SubElement(root, "dbcameras"), "index2id"), list(CAMERAS)))
    for parent, texts in tables:
        for text in texts:
            SubElement(parent, "td").text = text
    numbers = " ".join(repr(float(value)) for value in (*extrinsic, *intrinsic))
    SubElement(root, "w0").text = f"[{numbers}]"
    indent(root)
    return bytes(tostring(root, encoding="utf-8", xml_declaration=True)) + b"\n"


def _files_of(subject: str) -> Iterator[tuple[str, str, str]]:
    """Ids of action and subaction, and the name, of each take of a subject."""
    for number, action in enumerate(ACTIONS, start=1):
        for subaction in (1, 2):
            yield str(number), str(subaction), _file_name(action, subaction, subject)


def _file_name(action: str, subaction: int, subject: str) -> str:
    """The release's name of a subject's take of an action."""
    if subject == "S6":
        return action if subaction == 1 else f"{action} 1"
    return f"{action} {subaction}"


def _write_cdf(file: Path, pose: Floats) -> None:
    """Write `Pose` as MATLAB does: one record of (F, C) float32, column-major, uncompressed (gzip
    stores the time).
    """
    from cdflib.cdfwrite import CDF  # slow to import

    columns_first = np.ascontiguousarray(pose.T.astype(np.float32)).reshape(1, *pose.shape)
    variable = {
        "Variable": "Pose",
        "Data_Type": CDF.CDF_FLOAT,
        "Num_Elements": 1,
        "Rec_Vary": True,
        "Compress": 0,
        "Dim_Sizes": list(pose.shape),
    }
    cdf = CDF(file, {"Majority": CDF.COLUMN_MAJOR, "Encoding": CDF.IBMPC_ENCODING, "Compressed": 0})
    cdf.write_var(variable, var_data=columns_first)
    cdf.close()


LAYOUT: Final = ReleaseLayout(
    "h36m",
    "Rendered people in Human3.6M's layout: videos and labels made by this program, nothing "
    "of Human3.6M.",
    _plan,
    _record,
    _finish,
    n_videos=2,
    n_frames=16,
    labels={
        "S*/MyPoseFeatures/*/*.cdf": "Pose",
        "smpl_param/*_param.json": "pose shape trans",
        "smpl_param/*_camera.json": "R t f c",
    },
)

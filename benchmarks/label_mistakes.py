"""Mistakes in the labels of demo layouts, as copies of official datasets have them once somebody
repacked, resized or filtered them. benchmarks/contradictions.py says which of them are noted.
"""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from scipy.io import loadmat
from scipy.spatial.transform import Rotation

from pipeline.extras.demo.files import write_mat

Labels = dict[str, Any]
Edit = Callable[[Labels, Path], None]


class Mistake(NamedTuple):
    """A mistake in the labels of a dataset."""

    dataset: str
    what: str
    edit: Edit  # changes the content of a label file, or files beside it


# --------------------------------------------------------------------------------------------------
# label files


def _load_pickle(file: Path) -> Labels:
    with file.open("rb") as stream:
        return dict(pickle.load(stream, encoding="latin1"))


def _save_pickle(file: Path, labels: Labels) -> None:
    file.write_bytes(pickle.dumps(labels, protocol=4))


def _load_npz(file: Path) -> Labels:
    with np.load(file) as stored:
        return dict(stored)


def _save_npz(file: Path, labels: Labels) -> None:
    np.savez(file, **labels)


def _load_mat(file: Path) -> Labels:
    return {key: value for key, value in loadmat(file).items() if not key.startswith("__")}


def _load_json(file: Path) -> Labels:
    return dict(json.loads(file.read_text()))


def _save_json(file: Path, labels: Labels) -> None:
    file.write_text(json.dumps(labels))


class _Files(NamedTuple):
    """The label files of a dataset."""

    split: str
    pattern: str
    load: Callable[[Path], Labels]
    save: Callable[[Path, Labels], None]


FILES: Final[Mapping[str, _Files]] = {
    "penn_action": _Files("train", "labels/*.mat", _load_mat, write_mat),
    "amass": _Files("train", "*/*/*_poses.npz", _load_npz, _save_npz),
    "3dpw": _Files("train", "sequenceFiles/train/*.pkl", _load_pickle, _save_pickle),
    "emdb": _Files("emdb1", "P*/*/*.pkl", _load_pickle, _save_pickle),
    "bedlam": _Files("train", "*/*.npz", _load_npz, _save_npz),
    "mpi_inf_3dhp": _Files("train", "S*/*/annot.mat", _load_mat, write_mat),
    "posetrack": _Files("train", "posetrack_data/annotations/*/*.json", _load_json, _save_json),
}


# --------------------------------------------------------------------------------------------------
# edits


def changed(key: str, change: Callable[[Any], Any]) -> Edit:
    """Replace the value of a key, such as `camera/extrinsics`; of a list or a cell, each entry."""

    def edit(labels: Labels, _: Path) -> None:
        *folders, name = key.split("/")
        inner = labels
        for folder in folders:
            inner = inner[folder]
        value = inner[name]
        if isinstance(value, list) or value.dtype.kind == "O":
            flat = value if isinstance(value, list) else value.reshape(-1)
            for i, entry in enumerate(flat):
                flat[i] = change(entry)
        else:
            inner[name] = change(value)

    return edit


def scaled(key: str, factor: float) -> Edit:
    return changed(key, lambda value: value * factor)


def late(*keys: str, frames: int) -> Edit:
    """Values of earlier frames, and of the first one before it."""

    def edit(labels: Labels, file: Path) -> None:
        for key in keys:
            changed(key, lambda v: v[np.maximum(np.arange(len(v)) - frames, 0)])(labels, file)

    return edit


def rotations(change: Callable[[Rotation], Any]) -> Callable[[Any], Any]:
    """A change of poses (N, 3 J), axis-angle in rad."""

    def converted(poses: Any) -> Any:
        turns = Rotation.from_rotvec(poses.reshape(-1, 3))
        return np.reshape(change(turns), poses.shape)

    return converted


def exchanged(key: str, *axes: int) -> Edit:
    """Other order of the last axis."""
    return changed(key, lambda value: np.ascontiguousarray(value[..., axes]))


def _turn(root: Any, trans: Any, cameras: Any) -> tuple[Any, Any]:
    """Bodies of the world in the camera; the pelvis is left out."""
    turn = Rotation.from_matrix(cameras[:, :3, :3])
    return (turn * Rotation.from_rotvec(root)).as_rotvec(), turn.apply(trans) + cameras[:, :3, 3]


def _turn_3dpw(labels: Labels, _: Path) -> None:
    for poses, trans in zip(labels["poses"], labels["trans"], strict=True):
        poses[:, :3], trans[:] = _turn(poses[:, :3], trans, labels["cam_poses"])


def _turn_emdb(labels: Labels, _: Path) -> None:
    smpl = labels["smpl"]
    cameras = labels["camera"]["extrinsics"]
    smpl["poses_root"], smpl["trans"] = _turn(smpl["poses_root"], smpl["trans"], cameras)


def _half_2d(labels: Labels, _: Path) -> None:
    for points in labels["poses2d"]:
        points[:, :2] /= 2


def _percent(labels: Labels, _: Path) -> None:
    for points in labels["poses2d"]:
        points[:, 2] *= 100


def _other_actors(labels: Labels, _: Path) -> None:
    labels["poses2d"].reverse()


def _penn_modulo(labels: Labels, _: Path) -> None:
    for key in "xy":
        labels[key] = labels[key].astype(np.int64).astype(np.uint8)


def _penn_normalised(labels: Labels, _: Path) -> None:
    labels["x"] = labels["x"] / labels["dimensions"].flat[1]


def _penn_reversed(labels: Labels, _: Path) -> None:
    for key in ("x", "y", "visibility"):
        labels[key] = labels[key][:, ::-1]


def _penn_crop(labels: Labels, _: Path) -> None:
    corner = labels["bbox"][:, :2].min(axis=0).astype(np.float64)
    for key, offset in zip("xy", corner, strict=True):
        labels[key] = labels[key] - offset


def _again(_: Labels, file: Path) -> None:
    shutil.copy(file, file.with_name("another_poses.npz"))


def _keypoints(change: Callable[[Any], Any]) -> Edit:
    """A change of PoseTrack's keypoints (17, 3)."""

    def edit(labels: Labels, _: Path) -> None:
        for annotation in labels["annotations"]:
            points = np.reshape(annotation["keypoints"], (-1, 3))
            annotation["keypoints"] = np.ravel(change(points)).tolist()

    return edit


def _boxes(change: Callable[[Any], Any]) -> Edit:
    """A change of PoseTrack's boxes x y w h."""

    def edit(labels: Labels, _: Path) -> None:
        for annotation in labels["annotations"]:
            if annotation["bbox"]:
                annotation["bbox"] = change(np.array(annotation["bbox"])).tolist()

    return edit


def _moved_names(labels: Labels, _: Path) -> None:
    names = labels["categories"][0]["keypoints"]
    names.append(names.pop(0))


def _calibration(file: Path) -> list[list[str]]:
    """Words of the lines of camera.calibration beside annot.mat."""
    text = file.with_name("camera.calibration").read_text()
    return [line.split() for line in text.splitlines()]


def _metres(_: Labels, file: Path) -> None:
    lines = _calibration(file)
    for words in lines:
        if words[0] == "extrinsic":
            for i in (4, 8, 12):
                words[i] = str(float(words[i]) / 1000)
    text = "\n".join(" ".join(words) for words in lines)
    file.with_name("camera.calibration").write_text(f"{text}\n")


def _in_world(labels: Labels, file: Path) -> None:
    matrices = [words[1:] for words in _calibration(file) if words[0] == "extrinsic"]
    for camera, words in enumerate(matrices):
        matrix = np.reshape(words, (4, 4)).astype(float)
        joints = labels["annot3"].flat[camera]
        world = (joints.reshape(-1, 3) - matrix[:3, 3]) @ matrix[:3, :3]
        labels["annot3"].flat[camera] = world.reshape(joints.shape)


def by_joint(change: Callable[[Any], Any], n: int) -> Callable[[Any], Any]:
    """A change of (N, J, n) of rows (N, J n)."""
    return lambda rows: change(rows.reshape(len(rows), -1, n)).reshape(rows.shape)


GIVEN: Final = (
    Mistake("penn_action", "x alone divided by the width", _penn_normalised),
    Mistake("penn_action", "joints in reversed order", _penn_reversed),
    Mistake("penn_action", "coordinates as uint8", _penn_modulo),
    Mistake("penn_action", "coordinates of a crop", _penn_crop),
    Mistake("amass", "betas times 100", scaled("betas", 100)),
    Mistake(
        "amass",
        "x of all joints, then y, then z",
        changed("poses", lambda p: p.reshape(len(p), -1, 3).swapaxes(1, 2).reshape(p.shape)),
    ),
    Mistake("amass", "a motion under two names", _again),
    Mistake(
        "3dpw",
        "camera matrix with x and y exchanged",
        changed("cam_intrinsics", lambda k: k[[1, 0, 2]][:, [1, 0, 2]]),
    ),
    Mistake("3dpw", "cameras inverted", changed("cam_poses", np.linalg.inv)),
    Mistake("3dpw", "cameras 5 frames late", late("cam_poses", frames=5)),
    Mistake("3dpw", "trans in cm", scaled("trans", 100)),
    Mistake("3dpw", "trans with y before z", exchanged("trans", 0, 2, 1)),
    Mistake("3dpw", "bodies already in the camera", _turn_3dpw),
    Mistake(
        "3dpw", "poses as Euler angles", changed("poses", rotations(lambda r: r.as_euler("xyz")))
    ),
    Mistake("3dpw", "poses negated", scaled("poses", -1)),
    Mistake("3dpw", "2D joints at half size", _half_2d),
    Mistake("3dpw", "2D joints in reversed order", exchanged("poses2d", *range(17, -1, -1))),
    Mistake("3dpw", "scores in per cent", _percent),
    Mistake("3dpw", "2D joints of the other actor", _other_actors),
    Mistake("3dpw", "bodies 6 frames late", late("poses", "trans", frames=6)),
    Mistake("emdb", "boxes at half size", scaled("bboxes/bboxes", 0.5)),
    Mistake("emdb", "cameras inverted", changed("camera/extrinsics", np.linalg.inv)),
    Mistake("emdb", "trans in cm", scaled("smpl/trans", 100)),
    Mistake("emdb", "root orientation in degrees", changed("smpl/poses_root", np.degrees)),
    Mistake("emdb", "bodies already in the camera", _turn_emdb),
    Mistake("emdb", "2D joints at half size", scaled("kp2d", 0.5)),
    Mistake("bedlam", "poses negated", scaled("pose_cam", -1)),
    Mistake("bedlam", "trans_cam in mm", scaled("trans_cam", 1000)),
    Mistake("bedlam", "trans_cam negated", scaled("trans_cam", -1)),
    Mistake("bedlam", "scale in px", scaled("scale", 200)),
    Mistake("bedlam", "centre with y before x", exchanged("center", 1, 0)),
    Mistake("bedlam", "2D joints at half size", changed("gtkps", lambda k: k * [0.5, 0.5, 1])),
    Mistake("bedlam", "poses of another row", changed("pose_cam", lambda p: p[::-1])),
    Mistake("mpi_inf_3dhp", "2D joints at half size", scaled("annot2", 0.5)),
    Mistake("mpi_inf_3dhp", "2D joints with y before x", changed("annot2", by_joint(np.fliplr, 2))),
    Mistake(
        "mpi_inf_3dhp",
        "3D joints with y up",
        changed("annot3", by_joint(lambda p: p * [1, -1, 1], 3)),
    ),
    Mistake("mpi_inf_3dhp", "3D joints in the world", _in_world),
    Mistake("mpi_inf_3dhp", "calibration in metres", _metres),
    Mistake("posetrack", "boxes as two corners", _boxes(lambda b: np.append(b[:2], b[:2] + b[2:]))),
    Mistake("posetrack", "boxes at half size", _boxes(lambda b: b / 2)),
    Mistake("posetrack", "keypoints at half size", _keypoints(lambda k: k * [0.5, 0.5, 1])),
    Mistake("posetrack", "names of joints moved by one", _moved_names),
    Mistake("posetrack", "all x, then all y, then all scores", _keypoints(np.transpose)),
)


# written when the limits were fixed

OPENGL: Final = np.diag([1.0, -1, -1, 1])  # y up, z back
LEFT_RIGHT: Final = (  # of SMPL's 23 joints without the root
    *(1, 0, 2, 4, 3, 5, 7, 6, 8, 10, 9, 11, 13, 12, 14, 16, 15, 18, 17, 20, 19, 22, 21),
)


def _penn_exchanged(labels: Labels, _: Path) -> None:
    labels["x"], labels["y"] = labels["y"], labels["x"]


def _penn_half(labels: Labels, _: Path) -> None:
    for key in "xy":
        labels[key] = labels[key] / 2


def _penn_backwards(labels: Labels, _: Path) -> None:
    for key in ("x", "y", "visibility"):
        labels[key] = labels[key][::-1]


def _corner_and_size(corners: Any) -> Any:
    low, high = np.split(corners.astype(np.float64), 2, axis=1)
    return np.hstack([low, high - low])


def _weigh(betas: Any) -> Any:
    return np.append(70.0, betas[1:])


def _transpose(cameras: Any) -> Any:
    transposed = cameras.copy()
    transposed[:, :3, :3] = cameras[:, :3, :3].swapaxes(1, 2)
    return transposed


def _zoom(camera: Any) -> Any:
    return camera * [[2.0, 1, 1], [1, 2, 1], [1, 1, 1]]


def _focal_in_mm(cameras: Any) -> Any:
    changed_cameras = cameras.copy()
    changed_cameras[:, (0, 1), (0, 1)] = 35
    return changed_cameras


def _without_root(poses: Any) -> Any:
    return np.hstack([np.zeros((len(poses), 3)), poses[:, 3:]])


def _other_side(poses: Any) -> Any:
    return poses.reshape(len(poses), -1, 3)[:, LEFT_RIGHT].reshape(poses.shape)


def _mirrored_2d(labels: Labels, _: Path) -> None:
    width = 2 * labels["cam_intrinsics"][0, 2]
    for points in labels["poses2d"]:
        points[:, 0] = width - points[:, 0]


def _shift_in_cm(cameras: Any) -> Any:
    changed_cameras = cameras.copy()
    changed_cameras[:, :3, 3] *= 100
    return changed_cameras


def _without_shift(cameras: Any) -> Any:
    changed_cameras = cameras.copy()
    changed_cameras[:, :3, 3] = 0
    return changed_cameras


def _other_camera(labels: Labels, _: Path) -> None:
    labels["annot2"] = np.roll(labels["annot2"], -1, axis=0)


def _back(joints: Any) -> Any:
    return joints * [1, 1, -1]


def _flip(joints: Any) -> Any:
    return joints[:, ::-1]


def _centre(box: Any) -> Any:
    return np.append(box[:2] + box[2:] / 2, box[2:])


def _next_boxes(labels: Labels, _: Path) -> None:
    boxes = [annotation["bbox"] for annotation in labels["annotations"]]
    for annotation, box in zip(labels["annotations"], [*boxes[1:], boxes[0]], strict=True):
        annotation["bbox"] = box


OWN: Final = (
    Mistake("penn_action", "y in x, and x in y", _penn_exchanged),
    Mistake("penn_action", "coordinates at half size", _penn_half),
    Mistake("penn_action", "boxes as corner and size", changed("bbox", _corner_and_size)),
    Mistake("penn_action", "boxes with y before x", exchanged("bbox", 1, 0, 3, 2)),
    Mistake("penn_action", "frames in reversed order", _penn_backwards),
    Mistake("amass", "weight in kg as first of betas", changed("betas", _weigh)),
    Mistake("amass", "trans negated", scaled("trans", -1)),
    Mistake("3dpw", "trans in mm", scaled("trans", 1000)),
    Mistake("3dpw", "trans negated", scaled("trans", -1)),
    Mistake("3dpw", "trans about its first frame", changed("trans", lambda t: t - t[:1])),
    Mistake("3dpw", "trans in feet", scaled("trans", 3.28)),
    Mistake("3dpw", "cameras with rotations transposed", changed("cam_poses", _transpose)),
    Mistake("3dpw", "cameras with y up", changed("cam_poses", lambda c: OPENGL @ c)),
    Mistake("3dpw", "focal length of another zoom", changed("cam_intrinsics", _zoom)),
    Mistake("3dpw", "root orientation 0", changed("poses", _without_root)),
    Mistake("3dpw", "weight in kg as first of betas", changed("betas", _weigh)),
    Mistake("3dpw", "2D joints mirrored", _mirrored_2d),
    Mistake("3dpw", "bodies in reversed time", changed("poses", np.flipud)),
    Mistake("emdb", "boxes as corner and size", changed("bboxes/bboxes", _corner_and_size)),
    Mistake("emdb", "boxes with y before x", exchanged("bboxes/bboxes", 1, 0, 3, 2)),
    Mistake("emdb", "2D joints mirrored", changed("kp2d", lambda k: [300, 0] + k * [-1, 1])),
    Mistake("emdb", "2D joints with y before x", exchanged("kp2d", 1, 0)),
    Mistake("emdb", "trans 0", scaled("smpl/trans", 0)),
    Mistake("emdb", "cameras with their shift in cm", changed("camera/extrinsics", _shift_in_cm)),
    Mistake("emdb", "cameras 5 frames late", late("camera/extrinsics", frames=5)),
    Mistake("emdb", "left and right of poses exchanged", changed("smpl/poses_body", _other_side)),
    Mistake("bedlam", "centre at half size", scaled("center", 0.5)),
    Mistake("bedlam", "scale at half size", scaled("scale", 0.5)),
    Mistake("bedlam", "root orientation 0", changed("pose_cam", _without_root)),
    Mistake("bedlam", "focal length in mm", changed("cam_int", _focal_in_mm)),
    Mistake("bedlam", "2D joints with y before x", exchanged("gtkps", 1, 0, 2)),
    Mistake("bedlam", "2D joints in reversed order", changed("gtkps", np.fliplr)),
    Mistake("bedlam", "cameras without their shift", changed("cam_ext", _without_shift)),
    Mistake("mpi_inf_3dhp", "2D joints of the next camera", _other_camera),
    Mistake("mpi_inf_3dhp", "3D joints with z back", changed("annot3", by_joint(_back, 3))),
    Mistake("mpi_inf_3dhp", "2D joints in reversed order", changed("annot2", by_joint(_flip, 2))),
    Mistake("posetrack", "boxes as centre and size", _boxes(_centre)),
    Mistake("posetrack", "boxes with y before x", _boxes(lambda b: b[[1, 0, 3, 2]])),
    Mistake("posetrack", "keypoints at double size", _keypoints(lambda k: k * [2, 2, 1])),
    Mistake("posetrack", "boxes of the next annotation", _next_boxes),
)

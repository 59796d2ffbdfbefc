"""Each dataset prepared the plain way, as one does it for a paper: what `convert.py` measures the pipeline against.

One process; sorted(glob) over everything; loops over frames; lists for the whole dataset, concatenated and dumped at
the end. The meaning is the readers': the same boxes, joints and frames left out, so that the numbers can be compared.
What such a script leaves out is left out: fingerprints of the raw files, accounts of what was dropped, distrust of the
files, a place to go on from when it is killed. Imports stand where they are used: each function stands for a script.

    python benchmarks/plain_scripts.py DATASET RAW OUT [BODY]
"""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from glob import glob
from pathlib import Path
from typing import Any, Final

import joblib
import numpy as np

from pipeline.skeletons import JOINTS

SPIN49: Final = JOINTS["spin49"]
Lists = dict[str, list[Any]]


def prepare(name: str, raw: str, out: str, body: str = "") -> None:
    """The training split of a dataset -> one file with everything in it."""
    data: Lists = {}
    if name == "3dpw":
        threedpw(raw, data, body)
    else:
        SCRIPTS[name](raw, data)
    joblib.dump({key: np.concatenate(parts) for key, parts in data.items()}, out)


def add(data: Lists, name: str, **rows: Any) -> None:
    """One track's rows to the whole dataset's."""
    data.setdefault("vid_name", []).append(np.array([name] * len(rows["frame_id"])))
    for key, values in rows.items():
        data.setdefault(key, []).append(np.array(values))


def to_spin49(joints: Any, names: Any) -> Any:
    """(J, C) -> (49, C) of one frame."""
    out = np.zeros((49, joints.shape[1]))
    for j, name in enumerate(names):
        if name in SPIN49:
            out[SPIN49.index(name)] = joints[j]
    return out


def tight_box(joints: Any, factor: float = 1.0) -> Any:
    """cx cy w h around the visible ones among (J, 3) joints; None when there is nothing to see."""
    seen = joints[joints[:, 2] > 0, :2]
    if len(seen) == 0:
        return None
    low, high = seen.min(axis=0), seen.max(axis=0)
    side = max(high - low)
    if side < 1:
        return None
    return np.array([*(low + high) / 2, side * factor, side * factor])


def smooth_boxes(frames: Any, threshold: float = 0.3) -> Any:
    """Frame -> cx cy w h, smoothed over time, from the first to the last of (T, J, 3) with somebody in it."""
    from scipy.ndimage import gaussian_filter1d
    from scipy.signal import medfilt

    centres, scales, found = [], [], []
    for t, joints in enumerate(frames):
        seen = joints[joints[:, 2] > threshold, :2]
        diagonal = np.linalg.norm(seen.max(axis=0) - seen.min(axis=0)) if len(seen) else 0
        if diagonal >= 0.5:
            found.append(t)
            centres.append((seen.min(axis=0) + seen.max(axis=0)) / 2)
            scales.append(150 / diagonal)
    if not found:
        return {}
    every = np.arange(found[0], found[-1] + 1)
    columns = [*np.array(centres).T, np.array(scales)]
    x, y, scale = (gaussian_filter1d(medfilt(np.interp(every, found, column), 11), 8) for column in columns)
    return {t: np.array([x[i], y[i], 150 / scale[i], 150 / scale[i]]) for i, t in enumerate(every)}


def penn_action(raw: str, data: Lists) -> None:
    from scipy.io import loadmat

    for file in sorted(glob(f"{raw}/labels/*.mat")):
        label, name = loadmat(file), Path(file).stem
        images = sorted(glob(f"{raw}/frames/{name}/*.jpg"))
        if label["train"][0, 0] != 1:
            continue
        boxes, joints2d, frames, paths = [], [], [], []
        for t in range(min(len(images), len(label["x"]))):
            joints = np.stack([label["x"][t], label["y"][t], label["visibility"][t]], axis=1).astype(float)
            box = tight_box(joints)
            if box is None:
                continue
            boxes.append(box)
            joints2d.append(to_spin49(joints, JOINTS["penn_action"]))
            frames.append(t)
            paths.append(images[t])
        if frames:
            add(data, name, frame_id=frames, bbox=boxes, kp_2d=joints2d, img_name=paths)


def posetrack(raw: str, data: Lists) -> None:
    renamed = {"head_bottom": "neck", "head_top": "headtop"}
    for file in sorted(glob(f"{raw}/posetrack_data/annotations/train/*.json")):
        with open(file) as stream:
            content = json.load(stream)
        images = {image["id"]: image["file_name"] for image in content["images"] if image["is_labeled"]}
        names = [
            renamed.get(name, name.replace("left_", "l").replace("right_", "r"))
            for name in content["categories"][0]["keypoints"]
        ]
        tracks: dict[int, list[Any]] = {}
        for annotation in content["annotations"]:
            if annotation["image_id"] not in images or not annotation["bbox"]:
                continue
            joints = np.array(annotation["keypoints"]).reshape(-1, 3)
            joints[:, 2] = (joints[:, :2] != 0).any(axis=1)
            x, y, w, h = annotation["bbox"]
            if joints[:, 2].sum() == 0 or min(w, h) <= 0 or max(w, h) < 1:
                continue
            box = np.array([x + w / 2, y + h / 2, max(w, h) * 0.8, max(w, h) * 0.8])
            path = images[annotation["image_id"]]
            tracks.setdefault(annotation["track_id"], []).append((int(Path(path).stem), box, joints, path))
        for person, rows in sorted(tracks.items()):
            if len(rows) < 8:
                continue
            rows.sort(key=lambda row: row[0])
            joints2d = [to_spin49(joints, names) for _, _, joints, _ in rows]
            frames, paths = [row[0] for row in rows], [row[3] for row in rows]
            add(data, f"{file}-{person}", frame_id=frames, bbox=[r[1] for r in rows], kp_2d=joints2d, img_name=paths)


def insta_variety(raw: str, data: Lists) -> None:
    from PIL import Image

    for file in sorted(glob(f"{raw}/train/*.tfrecord")):
        for i, record in enumerate(tf_records(file)):
            feature = record.features.feature
            n = feature["meta/N"].int64_list.value[0]
            pictures = feature["image/encoded"].bytes_list.value
            xys = np.array(feature["image/xys"].float_list.value).reshape(n, 2, 14)
            seen = np.array(feature["image/visibilities"].int64_list.value).reshape(n, 1, 14)
            face = np.array(feature["image/face_pts"].float_list.value).reshape(n, 3, 5)
            toes = np.array(feature["image/toe_pts"].float_list.value or np.zeros(18 * n)).reshape(n, 3, 6)
            boxes, joints2d, frames = [], [], []
            for t in range(n):
                width, height = Image.open(io.BytesIO(pictures[t])).size
                joints = np.concatenate([np.concatenate([xys[t], seen[t]]), face[t], toes[t]], axis=1).T
                if len(feature["image/phis"].float_list.value):
                    annotated = joints.any(axis=1)
                    joints[annotated, :2] = (joints[annotated, :2] + 1) * (width, height) / 2
                if (joints[:, 2] > 0).sum() == 0:
                    continue
                boxes.append([width / 2, height / 2, max(width, height), max(width, height)])
                joints2d.append(to_spin49(joints, JOINTS["insta_variety"]))
                frames.append(t)
            if frames:
                add(data, f"{file}-{i}", frame_id=frames, bbox=boxes, kp_2d=joints2d)


def example_message() -> Any:
    """tf.train.Example: features by name, each a list of bytes, floats or integers."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="plain", syntax="proto3")
    fields: dict[str, list[tuple[str, int, bool]]] = {
        "BytesList": [("value", kinds.TYPE_BYTES, True)],
        "FloatList": [("value", kinds.TYPE_FLOAT, True)],
        "Int64List": [("value", kinds.TYPE_INT64, True)],
        "Feature": [(f"{kind}_list", kinds.TYPE_MESSAGE, False) for kind in ("bytes", "float", "int64")],
        "Features": [("feature", kinds.TYPE_MESSAGE, True)],
        "Example": [("features", kinds.TYPE_MESSAGE, False)],
    }
    types = {"feature": "Features.FeatureEntry", "features": "Features", "bytes_list": "BytesList"}
    types |= {"float_list": "FloatList", "int64_list": "Int64List"}
    for name, listed in fields.items():
        message = file.message_type.add(name=name)
        for number, (field, kind, repeated) in enumerate(listed, start=1):
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            message.field.add(name=field, number=number, type=kind, label=label)
            if field in types:
                message.field[-1].type_name = f".plain.{types[field]}"
    entry = file.message_type[4].nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=kinds.LABEL_OPTIONAL)
    entry.field.add(
        name="value", number=2, type=kinds.TYPE_MESSAGE, type_name=".plain.Feature", label=kinds.LABEL_OPTIONAL
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("plain.Example"))


def tf_records(file: str) -> Iterator[Any]:
    """tf.train.Example messages, by protobuf itself: what TensorFlow's own Python classes are."""
    example = example_message()
    with open(file, "rb") as stream:
        while header := stream.read(12):
            yield example.FromString(stream.read(struct.unpack("<Q", header[:8])[0]))
            stream.read(4)


def kinetics(raw: str, data: Lists) -> None:
    """OpenPose's keypoints; people linked from frame to frame."""
    import cv2

    for video in sorted(glob(f"{raw}/train/*/*.mp4")):
        clip, capture = Path(video).stem, cv2.VideoCapture(video)
        if not capture.read()[0]:
            continue
        people: dict[int, list[Any]] = {}
        for file in sorted(glob(f"{raw}/keypoints/train/{clip}/*_keypoints.json")):
            with open(file) as stream:
                found = [np.array(p["pose_keypoints_2d"]).reshape(-1, 3) for p in json.load(stream)["people"]]
            for joints in found:
                joints[:, 2] = np.where(joints[:, 2] < 0.3, 0, np.minimum(joints[:, 2], 1))
            people[int(file.split("_")[-2])] = [joints for joints in found if joints[:, 2].any()]
        for person, track in enumerate(link(people)):
            first = min(track)
            over_time = np.zeros((max(track) - first + 1, *track[first].shape))
            for t, joints in track.items():
                over_time[t - first] = joints
            boxes = smooth_boxes(over_time)
            frames = [t for t, joints in track.items() if t - first in boxes and (joints[:, 2] > 0).sum() >= 6]
            if len(frames) < 25:
                continue
            bbox = [boxes[t - first] * (1, 1, 1.1, 1.1) for t in frames]
            joints2d = [to_spin49(track[t], JOINTS["body_25"]) for t in frames]
            fps = [capture.get(cv2.CAP_PROP_FPS)] * len(frames)
            add(data, f"{clip}-{person}", frame_id=frames, bbox=bbox, kp_2d=joints2d, fps=fps)


def corners(joints: Any) -> Any:
    seen = joints[joints[:, 2] > 0, :2]
    return np.array([seen.min(axis=0), seen.max(axis=0)])


def link(people: dict[int, list[Any]]) -> list[dict[int, Any]]:
    """Frame -> detections in, a list of frame -> joints out, one a person."""
    from scipy.optimize import linear_sum_assignment

    tracks: list[dict[int, Any]] = []
    for t in sorted(people):
        now = sorted(people[t], key=lambda joints: (*corners(joints).ravel(), *joints.ravel()))
        active = [track for track in tracks if t - max(track) - 1 <= 5]
        cost = np.ones((len(active), len(now)))
        for i, track in enumerate(active):
            for k, joints in enumerate(now):
                cost[i, k] = dissimilarity(track[max(track)], joints)
        rows, columns = linear_sum_assignment(np.minimum(cost, 0.6))
        partner = {k: active[i] for i, k in zip(rows, columns, strict=True) if cost[i, k] < 0.6}
        for k, joints in enumerate(now):
            if k in partner:
                partner[k][t] = joints
            else:
                tracks.append({t: joints})
    return tracks


def dissimilarity(a: Any, b: Any) -> float:
    """(1 - IoU + mean distance of shared joints in diagonals) / 2 of two detections (J, 3)."""
    box_a, box_b = (corners(joints) + np.array([[-1], [1]]) for joints in (a, b))
    width, height = np.maximum(np.minimum(box_a[1], box_b[1]) - np.maximum(box_a[0], box_b[0]), 0)
    union = np.prod(box_a[1] - box_a[0]) + np.prod(box_b[1] - box_b[0]) - width * height
    shared = (a[:, 2] > 0) & (b[:, 2] > 0)
    if not shared.any():
        return float((1 - width * height / union + 1) / 2)
    distance = np.linalg.norm(a[shared, :2] - b[shared, :2], axis=1).mean()
    diagonal = max(np.linalg.norm(box_a[1] - box_a[0]), np.linalg.norm(box_b[1] - box_b[0]))
    return float((1 - width * height / union + min(distance / diagonal, 1)) / 2)


def mpi_inf_3dhp(raw: str, data: Lists) -> None:
    import cv2
    from scipy.io import loadmat

    names = JOINTS["mpi_inf_3dhp"]
    used = [j for j, name in enumerate(names) if name in SPIN49]
    for file in sorted(glob(f"{raw}/S*/Seq*/annot.mat")):
        label, folder = loadmat(file), Path(file).parent
        for camera in (0, 1, 2, 4, 5, 6, 7, 8):
            images = sorted(glob(f"{folder}/imageFrames/video_{camera}/*.jpg"))
            if not images:
                continue
            picture: Any = cv2.imread(images[0])
            height, width = picture.shape[:2]
            joints_2d = label["annot2"][camera][0].reshape(-1, 28, 2)
            joints_3d = label["annot3"][camera][0].reshape(-1, 28, 3) / 1000
            boxes, joints2d, joints3d, frames, paths = [], [], [], [], []
            for t in range(min(len(images), len(joints_2d))):
                x, y = joints_2d[t, used].T
                if x.min() < 0 or y.min() < 0 or x.max() >= width or y.max() >= height:
                    continue
                joints = np.concatenate([joints_2d[t], np.ones((28, 1))], axis=1)
                box = tight_box(joints[used], 1.1)
                if box is None:
                    continue
                centred = joints_3d[t] - joints_3d[t, names.index("hip")]
                boxes.append(box)
                joints2d.append(to_spin49(joints, names))
                joints3d.append(to_spin49(np.concatenate([centred, np.ones((28, 1))], axis=1), names))
                frames.append(t)
                paths.append(images[t])
            if frames:
                add(
                    data,
                    f"{folder}-{camera}",
                    frame_id=frames,
                    bbox=boxes,
                    kp_2d=joints2d,
                    kp_3d=joints3d,
                    img_name=paths,
                )


def h36m(raw: str, data: Lists) -> None:
    import cdflib
    import cv2

    names = JOINTS["h36m"]
    stored = [11, 6, 7, 8, 1, 2, 3, 12, 24, 14, 15, 17, 18, 19, 25, 26, 27]
    for subject in ("S1", "S5", "S6", "S7", "S8"):
        for video in sorted(glob(f"{raw}/{subject}/Videos/*.mp4")):
            name, capture = Path(video).stem, cv2.VideoCapture(video)
            if not capture.read()[0]:
                continue
            poses = Path(raw, subject, "MyPoseFeatures")
            px = cdflib.CDF(poses / f"D2_Positions/{name}.cdf")["Pose"][0].reshape(-1, 32, 2)[:, stored]
            mm = cdflib.CDF(poses / f"D3_Positions_mono/{name}.cdf")["Pose"][0].reshape(-1, 32, 3)[:, stored]
            boxes, joints2d, joints3d, frames = [], [], [], []
            for t in range(0, min(len(px), len(mm), int(capture.get(cv2.CAP_PROP_FRAME_COUNT))), 2):
                joints = np.concatenate([px[t], np.ones((17, 1))], axis=1)
                box = tight_box(joints, 1.1)
                if box is None:
                    continue
                centred = (mm[t].astype(float) - mm[t, names.index("hip")]) / 1000
                boxes.append(box)
                joints2d.append(to_spin49(joints, names))
                joints3d.append(to_spin49(np.concatenate([centred, np.ones((17, 1))], axis=1), names))
                frames.append(t)
            if frames:
                add(data, f"{subject}/{name}", frame_id=frames, bbox=boxes, kp_2d=joints2d, kp_3d=joints3d)


def threedpw(raw: str, data: Lists, body_folder: str) -> None:
    import cv2
    import torch
    from scipy.spatial.transform import Rotation

    from pipeline.body import Body

    body = Body.load(body_folder)
    limbs = [j for j, name in enumerate(JOINTS["3dpw"]) if name in JOINTS["common14"]]
    for file in sorted(glob(f"{raw}/sequenceFiles/train/*.pkl")):
        with open(file, "rb") as stream:
            sequence = pickle.load(stream, encoding="latin1")
        images = sorted(glob(f"{raw}/imageFiles/{Path(file).stem}/*.jpg"))
        for p in range(len(sequence["poses"])):
            detected = np.transpose(sequence["poses2d"][p], (0, 2, 1))
            smooth = smooth_boxes(detected)
            boxes, joints2d, poses, frames = [], [], [], []
            for t in range(len(images)):
                joints = detected[t, :14].copy()
                joints[:, 2] = joints[:, 2] > 0.3
                if t not in smooth or joints[limbs, 2].sum() <= 6:
                    continue
                pose = np.array(sequence["poses"][p][t])
                turn = sequence["cam_poses"][t, :3, :3] @ cv2.Rodrigues(pose[:3])[0]
                pose[:3] = cv2.Rodrigues(turn)[0][:, 0]
                boxes.append(smooth[t] * (1, 1, 1.1, 1.1))
                joints2d.append(to_spin49(joints[limbs], [JOINTS["3dpw"][j] for j in limbs]))
                poses.append(pose)
                frames.append(t)
            if not frames:
                continue
            betas = torch.tensor(sequence["betas"][p][:10]).float().repeat(len(poses), 1)
            rotmat = Rotation.from_rotvec(np.reshape(poses, (-1, 3))).as_matrix().reshape(-1, 24, 3, 3)
            with torch.no_grad():
                joints3d = body(betas=betas, rotmat=torch.tensor(rotmat).float()).joints.numpy()
            joints3d = np.concatenate([joints3d - joints3d[:, 39:40], np.ones((len(poses), 49, 1))], axis=2)
            rows = {"bbox": boxes, "kp_2d": joints2d, "kp_3d": joints3d, "pose": poses, "betas": betas.numpy()}
            add(data, f"{file}-{p}", frame_id=frames, img_name=[images[t] for t in frames], **rows)


def amass(raw: str, data: Lists) -> None:
    from scipy.spatial.transform import Rotation, Slerp

    joints = [*range(22), 22, 37]
    for file in sorted(glob(f"{raw}/*/*/*.npz")):
        if file.endswith("shape.npz"):
            continue
        motion = np.load(file)
        poses, rate = motion["poses"].reshape(-1, 52, 3), float(motion["mocap_framerate"])
        times = np.arange(int((len(poses) - 1) * 25 / rate + 1e-9) + 1) * rate / 25
        times = np.minimum(times, len(poses) - 1)
        if len(times) < 60:
            continue
        old = np.arange(len(poses))
        pose = [Slerp(old, Rotation.from_rotvec(poses[:, j]))(times).as_rotvec() for j in joints]
        trans = [np.interp(times, old, column) for column in motion["trans"].T]
        betas = np.repeat(motion["betas"][None, :10], len(times), axis=0)
        pose72 = np.stack(pose, axis=1).reshape(-1, 72)
        add(data, file, frame_id=np.arange(len(times)), pose=pose72, betas=betas, trans=np.stack(trans, axis=1))


SCRIPTS: Final[Mapping[str, Callable[[str, Lists], None]]] = {
    "penn_action": penn_action,
    "posetrack": posetrack,
    "insta_variety": insta_variety,
    "kinetics": kinetics,
    "mpi_inf_3dhp": mpi_inf_3dhp,
    "h36m": h36m,
    "amass": amass,
}

if __name__ == "__main__":
    prepare(*sys.argv[1:])

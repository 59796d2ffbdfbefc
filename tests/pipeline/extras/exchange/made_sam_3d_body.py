"""What people save of SAM 3D Body's process_one_image, of planted people."""

import json
import pickle

import numpy as np

from pipeline.clips.labels.sam_3d_body import NAMES
from pipeline.extras.exchange.bodies.estimate import pinhole
from pipeline.people.cameras import project
from pipeline.people.skeletons import JOINTS
from tests.pipeline.extras.exchange import planted_bodies as planted

SPIN = JOINTS["spin49"]
OURS = {"left": "l", "right": "r"}


def name_of(joint):
    """Our name of one of its joints; None if it is not among the 49."""
    side, _, part = joint.partition("_")
    candidates = (
        joint,
        f"{OURS.get(side)}{part}",
        f"OP {side[0].upper()}{part.title().replace('_', '')}",
    )
    special = {"op_neck": "OP Neck"}.get(joint)
    return special or next((name for name in candidates if name in SPIN), None)


def person(number, t, focal=planted.DIAGONAL):
    """The dict of a planted person in a frame: joints that are not among the 49 are about the nose.
    Only the second person has `expr_params`.
    """
    stored = planted.joints(number)[t]
    rng = np.random.default_rng([number, t])
    joints = np.array([stored[SPIN.index(name_of(j) or "nose")] for j in NAMES])
    others = [name_of(j) is None for j in NAMES]
    joints[others] += rng.normal(size=(sum(others), 3)) * 0.05
    place = np.array([0.01, 0.02, 0.03])
    joints = (joints - place).astype(np.float32)
    cam_t = (planted.trans(number)[t] + place).astype(np.float32)
    points = project(joints.astype(float) + cam_t, pinhole(focal, planted.SIZE))
    low, high = points.min(axis=0), points.max(axis=0)
    return {
        "bbox": np.concatenate([low, high]).astype(np.float32),
        "focal_length": np.float32(focal),
        "pred_keypoints_2d": points,
        "pred_keypoints_3d": joints,
        "pred_cam_t": cam_t,
        "mhr_model_params": rng.normal(size=204).astype(np.float32),
        "shape_params": rng.normal(size=45).astype(np.float32),
        "mask": None,
    } | ({"expr_params": rng.normal(size=72).astype(np.float32)} if number else {})


def listed(t, focal=planted.DIAGONAL):
    """Both people of a frame; in odd ones, the other one is first; in frame 3 the second is missing,
    in frame 5 there is a third, far from all.
    """
    people = [person(0, t, focal), person(1, t, focal)][:: 1 - 2 * (t % 2)]
    if t == 3:
        people = [person(0, t, focal)]
    if t == 5:
        ghost = person(0, t, focal)
        ghost["pred_cam_t"] = ghost["pred_cam_t"] + [0, 0, 30]
        shown = ghost["pred_keypoints_3d"] + ghost["pred_cam_t"]
        people.append(ghost | {"pred_keypoints_2d": project(shown, pinhole(focal, planted.SIZE))})
    return people


def plain(value):
    if isinstance(value, dict):
        return {key: plain(entry) for key, entry in value.items() if key != "mask"}
    return [plain(entry) for entry in value] if isinstance(value, list) else value.tolist()


def save_images(folder, suffix, focal=planted.DIAGONAL):
    """A file for each image, below walk/."""
    below = folder / "walk"
    below.mkdir(parents=True)
    for t in range(planted.N):
        file = below / f"img_{t:06d}{suffix}"
        if suffix == ".npz":
            np.savez(file, data=np.array(listed(t, focal), object))
        elif suffix == ".pkl":
            file.write_bytes(pickle.dumps(listed(t, focal)))
        else:
            file.write_text(json.dumps(plain(listed(t, focal))))
    return below


def save_all(folder, form):
    """One file of all images."""
    file = folder / f"walk.{form}"
    if form == "json":
        every = {f"img_{t:06d}": plain(listed(t)) for t in range(planted.N)}
        file.write_text(json.dumps(every))
    else:
        every = [one | {"frame": t} for t in range(planted.N) for one in listed(t)]
        file.write_bytes(pickle.dumps(every))
    return file

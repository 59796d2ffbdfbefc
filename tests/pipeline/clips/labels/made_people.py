"""People of the demo body, projected: motions, and symmetrical poses from all sides."""

import functools

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from pipeline.extras.demo.motion import perform, random_betas
from pipeline.people import skeletons
from pipeline.people.body import Body

N_FRAMES = 24
COCO = skeletons.joint_names("coco")

body = functools.cache(Body.stand_in)


def joints_of(pose, betas=None):
    """(T, 49, 3) m of the demo body, y up, in poses (T, 24, 3) rad."""
    rotmat = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)
    shapes = np.tile(np.zeros(10) if betas is None else betas, (len(rotmat), 1))
    numbers = torch.tensor(rotmat, dtype=torch.float32)
    shapes = torch.tensor(shapes, dtype=torch.float32)
    return body().joints(betas=shapes, rotmat=numbers).double().numpy()


def seen(joints, degrees=0, height=300, *, upside_down=False, noise=0.01, seed=0):
    """(T, 49, 3) px of joints seen from a side, as tall as `height`, with a score of 0.9."""
    turned = joints @ Rotation.from_rotvec([0, np.radians(degrees), 0]).as_matrix().T
    xy = turned[..., :2] * [1, 1 if upside_down else -1] * height / 1.7 + 500
    xy = xy + np.random.default_rng(seed).normal(0, noise * height, xy.shape)
    return np.concatenate([xy, np.full((*xy.shape[:2], 1), 0.9)], axis=-1)


@functools.cache
def motion(seed=5):
    """People who walk, march, raise their arms, wave and move at random, seen from all sides."""
    rng = np.random.default_rng(seed)
    clips = []
    for degrees, action in enumerate(("walk", "march", "arm_raise", "wave", "random_poses")):
        betas = random_betas(rng)
        pose = perform(rng, betas, 0.0, 84, 25.0, [action]).pose.reshape(-1, 24, 3)
        clips.append(seen(joints_of(pose, betas), 72 * degrees, seed=seed))
    return np.concatenate(clips)


# Radians by joint of the body model: both sides alike, so that seen from the side they are over
# each other.
ARMS_DOWN = {16: (0, 0, -1.3), 17: (0, 0, 1.3)}
ARMS_FORWARD = {16: (0, -1.5, 0), 17: (0, 1.5, 0)}
SQUAT = {1: (-2, 0, 0), 2: (-2, 0, 0), 4: (2.2, 0, 0), 5: (2.2, 0, 0)}
SEATED = {1: (-1.5, 0, 0), 2: (-1.5, 0, 0), 4: (1.5, 0, 0), 5: (1.5, 0, 0)}
PHONE = {16: (0, -0.5, -1.2), 17: (0, 0.5, 1.2), 18: (0, -2, 0), 19: (0, 2, 0)}
HEELS = {1: (-0.3, 0, 0), 2: (-0.3, 0, 0), 4: (2.5, 0, 0), 5: (2.5, 0, 0)}
POSES = {
    "standing": ARMS_DOWN,
    "arms forward": ARMS_FORWARD,
    "squatting": ARMS_FORWARD | SQUAT,
    "seated": ARMS_DOWN | SEATED,
    "bent": ARMS_DOWN | {1: (-1.5, 0, 0), 2: (-1.5, 0, 0)},
    "with a phone": PHONE,
    "on the heels": ARMS_DOWN | HEELS,
}


def in_order(spin49, names):
    """(T, J, 3). Midpoints are where the layouts define them."""
    point_of = dict(zip(skeletons.joint_names("spin49"), np.moveaxis(spin49, 1, 0), strict=True))
    point_of["OP Neck"] = (point_of["lshoulder"] + point_of["rshoulder"]) / 2
    point_of["OP MidHip"] = point_of["hip"] = (point_of["lhip"] + point_of["rhip"]) / 2
    nothing = np.zeros((len(spin49), 3))
    return np.stack([point_of.get(name, nothing) for name in names], axis=1)


def without(people, names, hidden):
    """The same people, without joints whose names have one of these parts."""
    columns = [i for i, name in enumerate(names) if any(part in name.lower() for part in hidden)]
    people = people.copy()
    people[:, columns] = 0
    return people


def exchange(names, part, other):
    """An order in which two joints of both sides are exchanged."""
    return [
        name.replace(part, other) if part in name else name.replace(other, part) for name in names
    ]


def results(people):
    """A list of results, one person (J, 3) a frame."""
    return [
        {"image_id": f"{t}.jpg", "category_id": 1, "keypoints": person.ravel().tolist()}
        for t, person in enumerate(people)
    ]


# --------------------------------------------------------------------------------------------------
# frames of people (J, 3) without boxes or identities, whose joints have these names


def as_openpose(frames, names):
    return [
        {"people": [{"pose_keypoints_2d": p.ravel().tolist()} for p in people]} for people in frames
    ]


def as_results(frames, names):
    return [
        {"image_id": f"{t}.jpg", "category_id": 1, "keypoints": p.ravel().tolist(), "score": 2.5}
        for t, people in enumerate(frames)
        for p in people
    ]


def as_mmpose(frames, names):
    return [
        {"frame_id": t, "instances": [
            {"keypoints": p[:, :2].tolist(), "keypoint_scores": p[:, 2].tolist()} for p in people
        ]}
        for t, people in enumerate(frames)
    ]  # fmt: skip


def as_demo(frames, names):
    frames = [frame | {"frame_id": t} for t, frame in enumerate(as_mmpose(frames, names), start=1)]
    by_id = {str(j): name for j, name in enumerate(names)}
    return {"meta_info": {"keypoint_id2name": by_id}, "instance_info": frames}


def as_coco(frames, names):
    people = as_results(frames, names)
    return {
        "images": [{"id": t, "file_name": f"{t}.jpg"} for t in range(len(frames))],
        "annotations": [p | {"image_id": int(p["image_id"][:-4])} for p in people],
        "categories": [{"id": 1, "name": "person", "keypoints": names}],
    }

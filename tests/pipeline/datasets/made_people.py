"""People of the demo body who move before a camera, and files of their keypoints by every tool.

A scene is a list of frames, a frame a list of `Person`. Writers take the people's joints in the
order that they have; `in_order` chooses one.
"""

import functools
from typing import Any, NamedTuple

import numpy as np
from scipy.interpolate import CubicSpline

from pipeline.extras.demo.body import procedural, skin, spin49
from pipeline.extras.demo.motion import perform, random_betas
from pipeline.people.skeletons import coco_name, joint_names

WIDTH, HEIGHT, FPS, N = 640, 480, 25.0, 160  # px, px, frames a second, frames
FOCAL, CAMERA_M = 520.0, 1.3  # px, height of the camera
KEYS = 10.0  # poses a second that are made; those between are interpolated
SCENES = (
    "three people",
    "one acts",
    "close",
    "far at the left",
    "leaves",
    "run, camera in the hand",
    "from behind",
    "six people",
)
SPIN49 = joint_names("spin49")


class Person(NamedTuple):
    points: Any  # (J, 3) px, px, score
    box: Any  # (4,) px, corners
    number: int  # who it is
    score: float


def person(points, number=0):
    """Somebody in a box that is 5 px around the joints that are seen."""
    seen = points[points[:, 2] > 0, :2] if points[:, 2].any() else points[:, :2]
    box = np.concatenate([seen.min(axis=0) - 5, seen.max(axis=0) + 5])
    return Person(points, box, number, 0.9)


@functools.cache
def moving(seed, *actions):
    """Joints (T, 49, 3) m of somebody who stays at the origin, y up, facing 0 (+z)."""
    rng = np.random.default_rng(seed)
    motion = perform(rng, random_betas(rng), 0.0, round(N / FPS * KEYS), KEYS, actions)
    still = motion.trans * [0, 1, 0]
    joints = spin49(procedural(), skin(procedural(), motion.betas, motion.pose, still))
    times = np.arange(len(joints)) / KEYS
    return CubicSpline(times, joints)(np.minimum(np.arange(N) / FPS, times[-1]))


def placed(joints, facing, x, depth):
    """The joints in the camera's px (N, 49, 2); facing in rad, 0 to the camera, pi / 2 to the right
    of the image; x (N,) m to the right, depth (N,) m.
    """
    angle = facing + np.pi
    turned = joints @ np.array(
        [[np.cos(angle), 0, -np.sin(angle)], [0, 1, 0], [np.sin(angle), 0, np.cos(angle)]]
    )
    # x to the left, y up, z away from the camera: right-handed, as the body's
    place = np.stack(
        [np.broadcast_to(np.negative(x), N), np.zeros(N), np.broadcast_to(depth, N)], axis=-1
    )
    world = turned + place[:, None]
    across = WIDTH / 2 - FOCAL * world[..., 0] / world[..., 2]
    down = HEIGHT / 2 - FOCAL * (world[..., 1] - CAMERA_M) / world[..., 2]
    return np.stack([across, down], axis=-1)


def detected(people, seed=0, shift=0.0, missed=0.0):
    """A scene of people, whose joints are (N, 49, 2) px. shift: (N, 2) px of all in a frame; missed:
    share of the people in a frame.
    """
    rng = np.random.default_rng(seed)
    frames = []
    for t in range(N):
        frame = []
        for number, joints in enumerate(people):
            true = joints[t] + np.broadcast_to(shift, (N, 2))[t]
            is_inside = ((true > 0) & (true < [WIDTH, HEIGHT])).all(axis=1)
            if is_inside[:25].sum() < 8 or rng.random() < missed:
                continue
            low, high = true.min(axis=0), true.max(axis=0)
            size = np.linalg.norm(high - low)
            points = true + rng.normal(0, 0.006 * size, true.shape)
            # a network guesses what it does not see, near the border
            guess = np.clip(true, -4, [WIDTH + 4, HEIGHT + 4]) + rng.normal(0, 0.06 * size, (49, 2))
            is_sure = is_inside & (rng.random(49) > 0.03)
            points = np.where(is_sure[:, None], points, guess)
            scores = np.where(is_sure, rng.uniform(0.5, 0.98, 49), rng.uniform(0.02, 0.25, 49))
            margin = 0.06 * (high - low)
            box = np.clip([*(low - margin), *(high + margin)], 0, [WIDTH, HEIGHT] * 2)
            score = float(rng.uniform(0.6, 0.95))
            frame.append(Person(np.column_stack([points, scores]), box, number, score))
        frames.append(frame)
    return frames


@functools.cache
def scenes():
    """Scenes by name; all people are in the image at some time."""
    t = np.arange(N) / FPS
    walk = moving(0, "walk")
    other = np.roll(walk, 40, axis=0)
    acts = moving(1, "squat", "wave", "march", "arm_raise", "random_poses")
    right, left = np.pi / 2, -np.pi / 2
    crossing = [
        placed(walk, right, -2.0 + 0.45 * t, 4.4),
        placed(other, left, 2.2 - 0.42 * t, 5.2),
        placed(acts, 0.3, 0.9, 6.5),
    ]
    running = [
        placed(np.tile(walk[::2], (2, 1, 1)), right, (-2.6 + 3 * t + k) % 6 - 3, 4 + 1.2 * k)
        for k in range(3)
    ]
    rng = np.random.default_rng(5)
    pan = np.cumsum(6 * np.sin(t)[:, None] * [1, 0] + rng.normal(0, 2, (N, 2)), axis=0)
    pan = 60 * np.sin(pan / 60)
    six = [
        placed(
            np.roll(walk, 17 * k, axis=0),
            right if k % 2 else left,
            (-1) ** k * (2.4 - (0.4 + 0.05 * k) * (t + 0.7 * k)),
            4.6 + 0.5 * k,
        )
        for k in range(6)
    ]
    made = [
        detected(crossing),
        detected([placed(acts, 0.2, 0.1, 4.0)], 1),
        detected([placed(acts, 0.1, 0.05, 1.45)], 2),
        detected([placed(walk, right, -2.6 + 0.12 * t, 9.0)], 3),
        detected([placed(walk, right, -0.6 + 0.32 * t, 4.0)], 4),
        detected(running, 5, pan),
        detected([placed(acts, 3.0, -0.5, 4.2), placed(walk, 2.6, 0.8, 5.0)], 6),
        detected(six, 7, missed=0.03),
    ]
    return dict(zip(SCENES, made, strict=True))


def in_order(frames, order):
    """The scene with joints in the order of a key of JOINTS, or names of spin49 (None: 0, 0, 0)."""
    names = joint_names(order) if isinstance(order, str) else order
    columns = [SPIN49.index(name) for name in names]
    return changed(frames, lambda person: person.points[columns])


def changed(frames, change):
    """The scene with other points of each person."""
    return [
        [person._replace(points=np.asarray(change(person))) for person in frame] for frame in frames
    ]


def whole_body(frames, seed=0):
    """COCO-WholeBody's 133 joints: the face about the nose, hands about the wrists, of which a
    network guesses most badly.
    """
    rng = np.random.default_rng(seed)
    body = in_order(frames, "coco_feet")

    def add(person):
        points = person.points
        size = np.linalg.norm(person.box[2:] - person.box[:2])
        parts = [points]
        for n, joint in ((68, 0), (21, 9), (21, 10)):
            near = points[joint, :2] + rng.normal(0, 0.03 * size, (n, 2))
            if points[joint, 2] < 0.3:
                near += rng.normal(0, 0.6 * size, 2)
            parts.append(np.column_stack([near, rng.uniform(0.05, 0.6, n)]))
        return np.concatenate(parts)

    return changed(body, add)


# --------------------------------------------------------------------------------------------------
# files: name -> content, as `made_detections.write` writes them; "" is the file itself


def flat(person):
    return person.points.ravel().tolist()


def xywh(person):
    x0, y0, x1, y1 = (float(number) for number in person.box)
    return [x0, y0, x1 - x0, y1 - y0]


def corners(person):
    return [float(number) for number in person.box]


def openpose(frames):
    return {
        f"c_{t:012d}_keypoints.json": {
            "version": 1.3,
            "people": [{"person_id": [-1], "pose_keypoints_2d": flat(person)} for person in frame],
        }
        for t, frame in enumerate(frames)
    }


def comfyui(frames, **canvas):
    return {
        "": [
            {"people": [{"pose_keypoints_2d": flat(person)} for person in frame]} | canvas
            for frame in frames
        ]
    }


def _each(frames, entry):
    return {"": [entry(t, person) for t, frame in enumerate(frames) for person in frame]}


def alphapose(frames):
    def entry(t, person):
        result = {"image_id": f"{t}.jpg", "category_id": 1, "score": 2.5}
        return result | {
            "keypoints": flat(person),
            "box": xywh(person),
            "idx": person.number + 1,
        }

    return _each(frames, entry)


def results(frames):
    """COCO's results of keypoints."""
    return _each(
        frames,
        lambda t, person: {
            "image_id": t,
            "category_id": 1,
            "keypoints": flat(person),
            "score": person.score,
        },
    )


def box_results(frames):
    return _each(
        frames,
        lambda t, person: {
            "image_id": t,
            "category_id": 1,
            "bbox": xywh(person),
            "score": person.score,
        },
    )


def coco(frames, names=None, joints=True, size=(WIDTH, HEIGHT)):
    """COCO's object; names: of the joints, in its category."""
    images = [
        {"id": t + 1, "file_name": f"c_{t:06d}.jpg", "width": size[0], "height": size[1]}
        for t in range(len(frames))
    ]
    annotations = []
    for t, frame in enumerate(frames):
        for person in frame:
            entry = {"id": len(annotations), "image_id": t + 1, "category_id": 1}
            entry |= {"bbox": xywh(person), "score": person.score, "track_id": person.number + 1}
            if joints:
                entry["keypoints"] = flat(person)
            annotations.append(entry)
    category = {"id": 1, "name": "person"} | ({"keypoints": names} if names else {})
    return {"": {"images": images, "annotations": annotations, "categories": [category]}}


def _instances(frame, ids):
    return [
        {
            "keypoints": person.points[:, :2].tolist(),
            "keypoint_scores": person.points[:, 2].tolist(),
            "bbox": [corners(person)],
            "bbox_score": person.score,
        }
        | ({"track_id": person.number} if ids else {})
        for person in frame
    ]


def inferencer(frames, ids=False):
    return {
        "": [{"frame_id": t, "instances": _instances(frame, ids)} for t, frame in enumerate(frames)]
    }


def demo(frames, names):
    meta = {"keypoint_id2name": {str(j): name for j, name in enumerate(names)}}
    frames = [
        {"frame_id": t + 1, "instances": _instances(frame, ids=False)}
        for t, frame in enumerate(frames)
    ]
    return {"": {"meta_info": meta, "instance_info": frames}}


def ultralytics(frames):
    def entry(person):
        x, y, visible = person.points.T.tolist()
        joints = {"x": x, "y": y, "visible": visible}
        return {"name": "person", "track_id": person.number + 1, "keypoints": joints}

    return {"": [[entry(person) for person in frame] for frame in frames]}


def yolo(frames, joints=False):
    files = {}
    for t, frame in enumerate(frames):
        lines = []
        for person in frame:
            x0, y0, x1, y1 = person.box / [WIDTH, HEIGHT, WIDTH, HEIGHT]
            values = [0, (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0]
            if joints:
                values += (person.points / [WIDTH, HEIGHT, 1]).ravel().tolist()
            values += [person.score, person.number + 1]
            lines.append(" ".join(f"{value:.6g}" for value in values))
        files[f"c_{t + 1}.txt"] = "\n".join([*lines, ""])
    return files


def mot(frames, box=xywh):
    lines = []
    for t, frame in enumerate(frames):
        for person in frame:
            x, y, w, h = box(person)
            place = f"{x + 1:.3f},{y + 1:.3f},{w:.3f},{h:.3f}"
            lines.append(f"{t + 1},{person.number + 1},{place},{person.score:.3f},-1,-1,-1")
    return {"": "\n".join([*lines, ""])}


def csv(frames):
    lines = ["track,frame,x,y,w,h"]
    for t, frame in enumerate(frames):
        for person in frame:
            numbers = ",".join(f"{value:.3f}" for value in xywh(person))
            lines.append(f"{person.number},{t},{numbers}")
    return {"": "\n".join([*lines, ""])}


def trc(frames):
    """Sports2D's files in px, one for each person."""
    names = [name.removeprefix("OP ") for name in joint_names("body_25")]
    header = ["PathFileType\t4\t(X/Y/Z)\tc_px.trc", "DataRate\tCameraRate\tNumFrames\tNumMarkers"]
    header.append(f"{FPS}\t{FPS}\t{N}\t{len(names)}\tm\t{FPS}\t0\t{N}")
    header.append("Frame#\tTime\t" + "\t\t\t".join(names))
    header.append("\t\t" + "\t".join(f"X{j}\tY{j}\tZ{j}" for j in range(1, len(names) + 1)))
    files = {}
    for number in range(3):
        lines = []
        for t, frame in enumerate(frames):
            for person in frame:
                if person.number == number:
                    points = person.points * [1, 1, 0]
                    row = "\t".join(f"{value:.3f}" for value in points.ravel())
                    lines.append(f"{t}\t{t / FPS:.4f}\t{row}")
        if lines:
            files[f"c_px_person{number:02d}.trc"] = "\n".join([*header, *lines, ""])
    return files


COCO_NAMES = [coco_name(joint) for joint in joint_names("coco")]

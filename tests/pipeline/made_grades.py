"""People whose joints are known, as columns of a track, and their grades."""

import math

import numpy as np

import cache
from pipeline.files.pixels.clip_record import ClipRecord
from pipeline.grades import grades_of
from pipeline.people.skeletons import KEYPOINTS_13, convert

T = 400
BODY = {"nose": (0, 1.6), "lshoulder": (0.2, 1.4), "lelbow": (0.25, 1.1), "lwrist": (0.25, 0.85), "lhip": (0.1, 0.95),
        "lknee": (0.1, 0.5), "lankle": (0.1, 0.1)}  # fmt: skip
BODY |= {f"r{name[1:]}": (-x, y) for name, (x, y) in BODY.items() if name != "nose"}
# (13, 3) m, y up, z towards the camera
FRONT = np.array([(*BODY[name], 0) for name in KEYPOINTS_13])
AT = {name: i for i, name in enumerate(KEYPOINTS_13)}
RECORD = ClipRecord(
    stored=(800, 600),
    aspect=(1, 1),
    matrix=(1, 0, 0, 1),
    times=np.arange(T) / 30,
    lost=(),
    n_hidden=0,
    n_missing=0,
    n_interlaced=0,
    n_resized=0,
    n_repeated=0,
    n_streams=1,
    stream=1,
    n_restarts=0,
    transfer=1,
    header_frames=None,
    header_fps=30.0,
    filmed_fps=math.nan,
)


def person(extra=0):
    """(T, 13, 3) m: somebody who stands, moved by `extra`."""
    return np.broadcast_to(FRONT, (T, 13, 3)) + extra


def flat(joints, side=400, step=1):
    """Columns of these joints in px, in a box of this side, which is 2 m."""
    kp = np.concatenate(
        [joints[..., :2] * [1, -1] * side / 2 + 500, np.ones((len(joints), 13, 1))], axis=-1
    )
    box = np.tile(np.array([500, 500, side, side]), (len(joints), 1))
    return {"frame_index": np.arange(7, 7 + step * T, step), "bbox": box, "kp_2d": _spin49(kp)}


def solid(joints, **more):
    """Columns of these joints in the axes of a camera that stands, about the hips."""
    hips = joints[:, [AT["lhip"], AT["rhip"]]].mean(axis=1)
    kp = _spin49(
        np.concatenate([(joints - hips[:, None]) * [1, -1, 1], np.ones((T, 13, 1))], axis=-1)
    )
    still = np.tile(np.eye(4), (T, 1, 1))
    columns = {
        "frame_index": np.arange(T),
        "bbox": np.full((T, 4), 400.0),
        "kp_3d": kp,
        "has_3d": np.ones(T, bool),
    }
    return (
        columns
        | {"trans": hips * [1, -1, 1], "extrinsics": still, "up": np.array([0, -1, 0])}
        | more
    )


def grades_of_people(people, clip=None):
    """Grades of these columns at 30 frames a second, as of one video's tracks."""
    tracks = [
        cache.TrackRows(name=f"a/{number}", video="a", step=1, fps=30, crop_scale=1)
        for number in range(len(people))
    ]
    return grades_of(tracks, people, {"clip": clip or {}})


def _spin49(kp):
    return convert(kp, source=KEYPOINTS_13, target="spin49").astype(np.float32)

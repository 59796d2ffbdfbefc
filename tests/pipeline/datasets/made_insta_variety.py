"""InstaVariety's records, by hand."""

import numpy as np

from pipeline.extras.demo.files import tf_example as example
from pipeline.extras.demo.files import tfrecord as framed
from pipeline.people.skeletons import JOINTS
from tests.pipeline.datasets.by_hand import jpeg

SPIN49 = JOINTS["spin49"]


def put(names):
    return [SPIN49.index(name if name == "headtop" else f"OP {name}") for name in names]


PICTURE = jpeg()


def clip(n_frames=3, **changes):
    """A clip as officially stored: joint j of a list in frame i at (10 j + i + 1, 15 j + 2), all
    seen.
    """

    def rows(n_joints, more):
        i, j = np.mgrid[:n_frames, :n_joints]
        return 10.0 * j + i + 1 + more, 15.0 * j + 2 + more

    seen = np.ones((n_frames, 14), np.int64)
    features = {
        "meta/N": np.array([n_frames]),
        "image/encoded": [PICTURE] * n_frames,
        "image/filenames": [b"tag/clip/frame000001.png"] * n_frames,
        "image/xys": np.stack(rows(14, 0), axis=1),
        "image/visibilities": seen,
        "image/face_pts": np.stack([*rows(5, 0.5), seen[:, :5]], axis=1),
        "image/toe_pts": np.stack([*rows(6, 0.25), seen[:, :6]], axis=1),
    }
    features |= {key.replace("__", "/"): value for key, value in changes.items()}
    return {key: value for key, value in features.items() if value is not None}


def write(raw, *clips, split="train", shard="clips_00"):
    (raw / split).mkdir(parents=True, exist_ok=True)
    file = raw / split / f"{shard}.tfrecord"
    file.write_bytes(b"".join(framed(example(features)) for features in clips))
    return file

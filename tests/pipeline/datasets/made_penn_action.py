"""Penn Action's labels and pictures, by hand."""

import numpy as np
from scipy.io import savemat

from tests.pipeline.datasets.by_hand import touch


def write_video(raw, name="0001", n_frames=3, train=1, pictures=None, **changes):
    """One video as officially stored: joint j of frame i at (10 j + i + 1, 20 j + 1)."""
    i, j = np.mgrid[:n_frames, :13]
    label = {
        "x": (10 * j + i + 1).astype(float),
        "y": (20 * j + 1).astype(float),
        "visibility": np.ones((n_frames, 13), np.uint8),
        "train": train,
        "nframes": np.uint8(n_frames),
        "bbox": np.tile([1.0, 1, 130, 250], (n_frames, 1)),
        "dimensions": np.array([270, 480, n_frames], np.uint16),
        "action": "squat",
        "pose": "left",
    }
    label |= changes
    (raw / "labels").mkdir(parents=True, exist_ok=True)
    savemat(
        raw / "labels" / f"{name}.mat",
        {key: value for key, value in label.items() if value is not None},
    )
    touch(raw / "frames" / name, *map("{:06d}.jpg".format, pictures or range(1, n_frames + 1)))
    return label

"""Distributions by dataset: track length, visible joints, box size, pose variety.  tracks -> features -> [report]"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

import cache
from pipeline.skeletons import JOINTS
from report.data.splits import UNREADABLE, Array, Opened, Rows, Sample, problem, read_rows, sample
from report.figures import histogram
from report.page import Section

N_JOINTS: Final = len(JOINTS["spin49"])
BODY_JOINTS: Final = 21  # SMPL's 1 to 21: the root is the camera's matter, and few datasets know hands
# Points of the body by its parts. BODY_25 and the common joints name most of them twice; one that is visible counts.
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "head's top": ("headtop",),
    "face": ("nose", "reye", "leye", "rear", "lear"),
    "shoulders": ("rshoulder", "lshoulder"),
    "elbows": ("relbow", "lelbow"),
    "wrists": ("rwrist", "lwrist"),
    "hips": ("rhip", "lhip"),
    "knees": ("rknee", "lknee"),
    "ankles": ("rankle", "lankle"),
    "feet": ("rbigtoe", "lbigtoe", "rsmalltoe", "lsmalltoe", "rheel", "lheel"),
}
LINE: Final = "track lengths, visible joints, box sizes, pose variety"
ABOUT_LENGTH: Final = (
    "Rows of each track: frames in which its person is annotated. Of all tracks. The axis is logarithmic."
)
ABOUT_VISIBLE: Final = (
    "Of the 49 joints, those with a confidence above 0. Most points of the body have two places among the 49, of which "
    "a dataset may fill one or both: this is about what a dataset annotates as much as about what is hidden."
)
ABOUT_BOX: Final = (
    "The longer side of each person's box in its picture, before it is enlarged for the crop. The axis is logarithmic. "
    "A crop has 224 px: what is smaller is enlarged to that."
)
ABOUT_POSE: Final = (
    "How far each frame's pose is from the mean pose of its dataset: the angle between a joint's rotation and its mean "
    "rotation (the chordal L2 mean), averaged over the 21 joints of SMPL's body, without its root and its hands. "
    "Farther to the right is more varied. Of rows with SMPL poses."
)


def distributions_section(opened: Opened) -> Section:
    """Each measure by dataset, over all its splits."""
    problems: list[str] = []
    samples = {name: sample(splits) for name, splits in opened.datasets.items()}
    lengths = {
        name: np.concatenate([split.tracks.stop - split.tracks.start for split in splits])
        for name, splits in opened.datasets.items()
    }
    seen, sides, poses = (
        {name: _read(of, column, take, problems) for name, of in samples.items()}
        for column, take in (
            ("kp_2d", lambda kp_2d: kp_2d[..., 2] > 0),
            ("bbox", lambda bbox: bbox[..., 2:].max(axis=-1)),
            ("pose", np.asarray),
        )
    )
    counts = {name: one.sum(axis=-1) if len(one) else one for name, one in seen.items()}
    apart = {name: distances_from_mean(pose) for name, pose in poses.items()}
    each_joint = np.arange(N_JOINTS + 2) - 0.5
    data = {
        "plots": [
            histogram("track-length", "Track length", ABOUT_LENGTH, lengths, unit="frames", log=True),
            histogram("visible", "Visible joints in a frame", ABOUT_VISIBLE, counts, unit="joints", bins=each_joint),
            histogram("box-size", "Box size", ABOUT_BOX, sides, unit="px", log=True),
            histogram("pose-variety", "Pose variety", ABOUT_POSE, apart, unit="degrees"),
        ],
        "group_header": ("dataset", *GROUPS),
        "group_rows": [
            (name, *(round(visible_share(one, points), 1) for points in GROUPS.values()))
            for name, one in seen.items()
            if len(one)
        ],
        "samples": {name: str(of) for name, of in samples.items()},
        "without": {
            what: [name for name, of in samples.items() if not any(column in split.columns for split, _ in of.of)]
            for what, column in {"2D keypoints": "kp_2d", "boxes": "bbox", "SMPL poses": "pose"}.items()
        },
        "problems": list(dict.fromkeys(problems)),
    }
    return Section("distributions", "Distributions", "distributions.html", data, LINE)


def distances_from_mean(pose: Array) -> NDArray[np.float64]:
    """pose (N, 72) rad -> (N,) degrees: the angle of each body joint from its mean rotation, averaged over the joints.

    The mean is the rotation with the least sum of squared chordal distances (Hartley et al. 2013, section 5.3).
    """
    if not len(pose):
        return np.empty(0)
    joints = pose.reshape(len(pose), 24, 3)[:, 1 : BODY_JOINTS + 1].astype(np.float64)
    turned = [Rotation.from_rotvec(joints[:, joint]) for joint in range(BODY_JOINTS)]
    angles = [(one.mean().inv() * one).magnitude() for one in turned]
    return np.asarray(np.rad2deg(np.mean(angles, axis=0)))


def visible_share(visible: Array, points: Sequence[str]) -> float:
    """visible (N, 49) bool -> % of the points, over all rows, that are visible at one of their places."""
    places = [
        [j for j, name in enumerate(JOINTS["spin49"]) if name.removeprefix("OP ").lower() == point] for point in points
    ]
    return float(100 * np.mean([visible[:, place].any(axis=1).mean() for place in places]))


def _read(of: Sample, column: str, take: Callable[[Array], Array], problems: list[str]) -> Array:
    """What to `take` of a column, at the sampled rows where it is known. What cannot be read goes to `problems`."""
    found: list[Array] = []
    for split, rows in of.of:
        if column in split.columns:
            try:
                found += [take(row) for row in _known_rows(split, column, rows)]
            except UNREADABLE as error:
                problems.append(problem(split.name, error))
    return np.stack(found) if found else np.empty(0)


def _known_rows(split: cache.Split, column: str, rows: Rows) -> Iterator[Array]:
    """Poses by their flag, boxes that have a size; keypoints have their confidence."""
    flags = read_rows(split, "has_smpl", rows) if column == "pose" else repeat(np.uint8(1))
    for row, flag in zip(read_rows(split, column, rows), flags, strict=False):
        if column == "kp_2d" or (flag == 1 and np.isfinite(row).all() and (column != "bbox" or row[2:].max() > 0)):
            yield row

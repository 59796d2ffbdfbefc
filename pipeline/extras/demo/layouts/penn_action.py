"""Penn Action's layout: numbered images and a MATLAB file of labels per video.  pixels and labels
-> [raw]

    frames/0001/000001.jpg      a video's images
    labels/0001.mat             its joints (T, 13), boxes, action and split
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.extras.demo.files import write_mat
from pipeline.extras.demo.layouts import ReleaseLayout, Request, pick_cyclic, write_pictures
from pipeline.extras.demo.scene import Shot, Take, corners, stage
from pipeline.people.skeletons import Array, Bools, add_confidence, convert

# The dataset's actions -> actions of `actions.py`.
ACTIONS: Final = {
    "squat": ("squat", "arm_raise"),
    "jump_rope": ("march", "wave"),
    "tennis_serve": ("arm_raise", "random_poses"),
    "bowl": ("walk", "random_poses"),
    "clean_and_jerk": ("squat", "random_poses"),
}
PICTURES: Final = ((480, 270), (360, 270), (480, 360), (270, 360))  # width, height px
NOT_LABELLED: Final = 0.75  # coordinates that the release gives an unmarked joint
UNMARKED_SHARE: Final = 0.36  # of the release's invisible joints
BOX_MARGIN_PX: Final = 6.0


def _plan(request: Request) -> Iterator[Shot]:
    """By default 8 training videos and 3 test videos among them, of 25 frames."""
    splits = _interleave(train=request.videos(8), test=request.videos(3))
    for number, split in enumerate(splits):
        yield Shot(
            "penn_action",
            split,
            f"{number + 1:04d}",
            number,
            request.seed,
            request.frames(25),
            30.0,
            *pick_cyclic(PICTURES, number),
            actions=pick_cyclic(tuple(ACTIONS.values()), number),
        )


def _interleave(**n_videos: int) -> list[str]:
    """The split of each video; those of a split are spread evenly over all."""
    places: list[tuple[float, str]] = []  # 0..1, split
    for split, n in n_videos.items():
        places += [((i + 0.5) / n, split) for i in range(n)]
    places.sort(key=operator.itemgetter(0))
    return [split for _, split in places]


def _record(shot: Shot, folder: Path) -> Take:
    """Write `frames/<name>/<000001..>.jpg` and `labels/<name>.mat`."""
    take = stage(shot)
    visible = write_pictures(take, folder / "frames" / shot.name, "{:06d}.jpg", first=1)
    (folder / "labels").mkdir(exist_ok=True)
    write_mat(folder / "labels" / f"{shot.name}.mat", _labels_of(take, visible[:, 0]))
    return take


def _labels_of(take: Take, visible: Bools) -> dict[str, Any]:
    """The variables of a label file; visible (T, 49). Coordinates count from 1, as MATLAB does."""
    shot = take.shot
    actor = take.actors[0]
    kp_2d = add_confidence(actor.kp_2d + 1, visible)
    x, y, visibility = np.moveaxis(convert(kp_2d, source="spin49", target="penn_action"), -1, 0)
    is_hidden = visibility == 0
    unmarked = is_hidden & (shot.rng("labels").random(x.shape) < UNMARKED_SHARE)
    x[unmarked] = NOT_LABELLED
    y[unmarked] = NOT_LABELLED
    train = 1 if shot.split == "train" else -1
    return {
        "action": pick_cyclic(tuple(ACTIONS), shot.number),
        "pose": "front",  # the camera's view
        "x": x,
        "y": y,
        "visibility": visibility.astype(np.uint8),
        "train": np.int32(train),
        "bbox": _boxes(actor.kp_2d, shot),
        "dimensions": np.array([shot.height, shot.width, shot.n_frames], np.uint16),
        "nframes": np.min_scalar_type(shot.n_frames).type(shot.n_frames),
    }


def _boxes(kp_2d: Array, shot: Shot) -> Array:
    """Boxes (T, 4) x1 y1 x2 y2, from 1. As in the release, every other video has integers of the
    smallest type.
    """
    last_pixel = (shot.width - 1, shot.height - 1)
    low, high = corners(kp_2d)
    low = np.maximum(low - BOX_MARGIN_PX, 0)
    high = np.minimum(high + BOX_MARGIN_PX, last_pixel)
    boxes = np.concatenate([low, high], axis=1) + 1
    if shot.number % 2:
        return boxes
    rounded = np.round(boxes)
    return rounded.astype(np.min_scalar_type(int(rounded.max())))


LAYOUT: Final = ReleaseLayout(
    "penn_action",
    "Rendered people in Penn Action's layout: pictures and labels made by this program, "
    "nothing of Penn Action.",
    _plan,
    _record,
    n_videos=3,
    n_frames=8,
    labels={"labels/*.mat": "x y visibility nframes dimensions"},
)

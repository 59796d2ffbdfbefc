"""PoseTrack 2018's layout: numbered images and a JSON file of labels per sequence.  pixels and
labels -> [raw]
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np

from pipeline.extras.demo.layouts import (
    ReleaseLayout,
    Request,
    pick_cyclic,
    write_json,
    write_pictures,
)
from pipeline.extras.demo.scene import Shot, Take, corners, stage
from pipeline.people.skeletons import JOINTS, Array, Bools, Doubles, add_confidence, convert

NAMES: Final = (  # the release's joints, in the order of `JOINTS["posetrack"]`
    "nose", "head_bottom", "head_top", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
    "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
CATEGORY: Final = {
    "id": 1,
    "name": "person",
    "keypoints": NAMES,
}
# (0, 0, 0) in the release
NEVER_LABELLED: Final = [JOINTS["posetrack"].index(name) for name in ("lear", "rear")]
HEAD: Final = [JOINTS["posetrack"].index(name) for name in ("nose", "neck", "headtop")]
BOX_MARGIN: Final = 0.15  # of the joints' extent, on each of the four sides
PICTURES: Final = ((320, 320), (400, 300), (300, 300), (384, 288))  # width, height px


def _stride_of(number: int) -> int:
    """Step between labelled frames: 4 in every 4th shot, which is longer, as in the release."""
    return 4 if number % 4 == 3 else 1


def _plan(request: Request) -> Iterator[Shot]:
    """By default 3 training sequences and 1 for validation, of 20 frames; every second one shows
    two people.

    One training sequence has 68 frames, of which every 4th is labelled.
    """
    for number, split in request.places(train=3, val=1):
        origin = "bonn" if number % 2 else "mpii"
        purpose = "train" if split == "train" else "test"
        yield Shot(
            "posetrack",
            split,
            f"{number + 1:06d}_{origin}_{purpose}",
            number,
            request.seed,
            request.frames(68 if _stride_of(number) > 1 else 20),
            25.0,
            *pick_cyclic(PICTURES, number),
            n_people=1 + number % 2,
            hand_held=number % 3 == 2,
        )


def _record(shot: Shot, folder: Path) -> Take:
    """Write `images/<split>/<name>/<000000..>.jpg` and
    `posetrack_data/annotations/<split>/<name>.json`.
    """
    take = stage(shot)
    visible = write_pictures(take, folder / "images" / shot.split / shot.name, "{:06d}.jpg")
    labels = folder / "posetrack_data" / "annotations" / shot.split / f"{shot.name}.json"
    write_json(labels, _labels_of(take, visible))
    return take


def _labels_of(take: Take, visible: Bools) -> dict[str, Any]:
    """The content of a sequence's file; visible (T, people, 49)."""
    shot = take.shot
    labelled = range(0, shot.n_frames, _stride_of(shot.number))
    people = [_joints(actor.kp_2d, visible[:, i]) for i, actor in enumerate(take.actors)]
    annotations = []
    for frame in labelled:
        for person, joints in enumerate(people):
            annotations.append(_annotation(_image_id(shot, frame), person, joints[frame]))
    return {
        "images": [_image(shot, frame, labelled) for frame in range(shot.n_frames)],
        "annotations": annotations,
        "categories": [CATEGORY],
    }


def _image_id(shot: Shot, frame: int) -> int:
    """1, the six digits of the sequence, and four of the frame, as in the release."""
    return int(f"1{shot.name[:6]}{frame:04d}")


def _image(shot: Shot, frame: int, labelled: range) -> dict[str, Any]:
    image_id = _image_id(shot, frame)
    return {
        "is_labeled": frame in labelled,
        "file_name": f"images/{shot.split}/{shot.name}/{frame:06d}.jpg",
        "frame_id": image_id,
        "id": image_id,
    }


def _annotation(image_id: int, person: int, joints: Doubles) -> dict[str, Any]:
    """A person's annotation. joints: (17, 3)."""
    return {
        "bbox_head": [round(value) for value in _box(joints[HEAD])],
        "keypoints": joints.ravel().tolist(),
        "track_id": person,
        "image_id": image_id,
        "bbox": _box(joints),
        "scores": [],
        "category_id": 1,
        "id": image_id * 100 + person,
    }


def _joints(kp_2d: Array, visible: Bools) -> Doubles:
    """Joints (T, 17, 3): x y 1 if visible, else 0 0 0."""
    joints = np.where(visible[..., None], add_confidence(kp_2d), 0.0)
    posetrack = convert(joints, source="spin49", target="posetrack")
    posetrack[:, NEVER_LABELLED] = 0
    return posetrack


def _box(joints: Doubles) -> list[float]:
    """Box x y w h of the labelled joints of (J, 3), with a margin; [] if none is labelled."""
    points = joints[joints[:, 2] > 0, :2]
    if not len(points):
        return []
    low, high = corners(points)
    margin = BOX_MARGIN * (high - low)
    return [*(low - margin).tolist(), *(high - low + 2 * margin).tolist()]


LAYOUT: Final = ReleaseLayout(
    "posetrack",
    "Rendered people in PoseTrack 2018's layout: pictures and labels made by this program, "
    "nothing of PoseTrack.",
    _plan,
    _record,
    n_videos=2,
    n_frames=9,
    labels={"posetrack_data/annotations/*/*.json": "keypoints bbox"},
)

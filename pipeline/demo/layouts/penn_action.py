"""Penn Action's layout: numbered images and a MATLAB file of labels per video.  pixels and labels
-> [raw]
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.demo.files import write_mat
from pipeline.demo.layouts import ReleaseLayout, Request, pick_cyclic, write_pictures
from pipeline.demo.scene import Shot, Take, stage
from pipeline.skeletons import Bools, convert

# The dataset's actions -> actions of `actions.py`.
ACTIONS: Final = {
    "baseball_pitch": ("throw", "reach"),
    "tennis_forehand": ("swing", "reach"),
    "squat": ("squat", "lunge", "arm_raise"),
    "jumping_jacks": ("jumping_jacks", "arm_raise"),
    "golf_swing": ("swing", "bow"),
    "jump_rope": ("march", "jumping_jacks", "dance"),
    "clean_and_jerk": ("squat", "arm_raise", "dance"),
    "strum_guitar": ("reach", "look_around", "dance"),
    "tennis_serve": ("throw", "arm_raise", "dance"),
    "bowl": ("lunge", "throw", "walk"),
}
PICTURES: Final = ((480, 270), (360, 270), (480, 360), (270, 360))  # width, height px
NOT_LABELLED: Final = 0.75  # coordinates that the release gives an unmarked joint
BOX_MARGIN_PX: Final = 6.0


def _plan(request: Request) -> Iterator[Shot]:
    """By default 10 training videos and 4 test videos among them, of 28 to 52 frames."""
    counts = {"train": request.videos(10), "test": request.videos(4)}
    # spread over the numbers
    through = [((i + 0.5) / n, split) for split, n in counts.items() for i in range(n)]
    for number, (_, split) in enumerate(sorted(through, key=lambda at: at[0])):
        n_frames = request.frames(request.rng(101, number), 28, 52, least=20)
        size = pick_cyclic(PICTURES, number)
        actions = pick_cyclic(tuple(ACTIONS.values()), number)
        name = f"{number + 1:04d}"
        yield Shot(
            "penn_action", split, name, number, request.seed, n_frames, 30.0, *size, actions=actions
        )


def _record(shot: Shot, folder: Path) -> Take:
    """`frames/<name>/<000001..>.jpg` and `labels/<name>.mat`."""
    take = stage(shot)
    visible = write_pictures(take, folder / "frames" / shot.name, "{:06d}.jpg", first=1)
    (folder / "labels").mkdir(exist_ok=True)
    write_mat(folder / "labels" / f"{shot.name}.mat", _labels_of(take, visible[:, 0]))
    return take


def _labels_of(take: Take, visible: Bools) -> dict[str, Any]:
    """The variables of a label file; visible (T, 49). Coordinates count from 1, as MATLAB does."""
    shot = take.shot
    actor = take.actors[0]
    joints = convert(actor.kp_2d + 1, source="spin49", target="penn_action")
    visible_joints = convert(
        visible[..., None].astype(np.float64), source="spin49", target="penn_action"
    )[..., 0]
    # of the release's invisible joints
    unmarked = shot.rng("labels").random(visible_joints.shape) < 0.36
    joints[(visible_joints == 0) & unmarked] = NOT_LABELLED
    return {
        "action": pick_cyclic(tuple(ACTIONS), shot.number),
        "pose": _view_side(take),
        "x": joints[..., 0],
        "y": joints[..., 1],
        "visibility": visible_joints.astype(np.uint8),
        "train": np.int32(1 if shot.split == "train" else -1),
        "bbox": _boxes(actor.kp_2d, shot),
        "dimensions": np.array([shot.height, shot.width, shot.n_frames], np.uint16),
        "nframes": np.uint8(shot.n_frames) if shot.n_frames < 256 else np.uint16(shot.n_frames),
    }


def _boxes(kp_2d: NDArray[Any], shot: Shot) -> NDArray[Any]:
    """Boxes (T, 4) x1 y1 x2 y2, from 1; rounded to the smallest type in every other video, as in
    the release.
    """
    low = np.maximum(kp_2d.min(axis=1) - BOX_MARGIN_PX, 0) + 1
    high = np.minimum(kp_2d.max(axis=1) + BOX_MARGIN_PX, (shot.width - 1, shot.height - 1)) + 1
    boxes = np.concatenate([low, high], axis=1)
    if shot.number % 2:
        return boxes
    return np.round(boxes).astype(np.uint8 if np.round(boxes).max() < 256 else np.uint16)


def _view_side(take: Take) -> str:
    """The release's name of the camera's view."""
    middle = take.shot.n_frames // 2
    heading = take.actors[0].motion.heading[middle]
    across, _, away = take.view.extrinsics[middle, :3, :3] @ np.array(
        [np.sin(heading), 0, np.cos(heading)]
    )
    if abs(across) > abs(away):
        return "right" if across > 0 else "left"
    return "front" if away < 0 else "back"


WHAT: Final = (
    "Rendered people in Penn Action's layout: pictures and labels made by this program, "
    "nothing of Penn Action."
)
LAYOUT: Final = ReleaseLayout("penn_action", WHAT, _plan, _record)

"""Penn Action's layout: numbered pictures and a MATLAB file of labels a video.  pixels and labels -> [raw]"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.skeletons import convert
from pipeline.synthetic.layouts.encode import write_jpeg
from pipeline.synthetic.layouts.layout import Layout, Request
from pipeline.synthetic.layouts.matlab_files import write_mat
from pipeline.synthetic.scene.scene import Shot, Take, film, stage

if TYPE_CHECKING:
    from pipeline.smpl.assets import SmplArrays

# The dataset's names of actions, and what is played for them.
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
NOT_LABELLED: Final = 0.75  # where the release puts a joint that nobody marked
BOX_MARGIN_PX: Final = 6.0


def shots(request: Request) -> list[Shot]:
    """10 videos for training and 4 for testing by default, of 28 to 52 frames."""
    n_train, n_test = request.videos(10), request.videos(4)
    splits = sorted(["train"] * n_train + ["test"] * n_test, key=_mixed(n_train, n_test))
    planned = []
    for number, split in enumerate(splits):
        rng = np.random.default_rng([request.seed, 101, number])
        width, height = PICTURES[number % len(PICTURES)]
        planned.append(
            Shot(
                dataset="penn_action",
                split=split,
                name=f"{number + 1:04d}",
                number=number,
                seed=request.seed,
                n_frames=request.frames(rng, 28, 52, least=20),
                fps=30.0,
                width=width,
                height=height,
                actions=tuple(ACTIONS.values())[number % len(ACTIONS)],
            )
        )
    return planned


def record(body: SmplArrays, shot: Shot, folder: Path) -> Take:
    """`frames/<name>/<000001..>.jpg` and `labels/<name>.mat`."""
    take = stage(body, shot)
    frames = folder / "frames" / shot.name
    frames.mkdir(parents=True)
    visible = []
    for number, filmed in enumerate(film(body, take), start=1):
        write_jpeg(frames / f"{number:06d}.jpg", filmed.image)
        visible.append(filmed.visible[0])
    labels = folder / "labels"
    labels.mkdir(exist_ok=True)
    write_mat(labels / f"{shot.name}.mat", labels_of(take, np.array(visible)))
    return take


def labels_of(take: Take, visible: NDArray[np.bool_]) -> dict[str, Any]:
    """The variables of a label file; visible (T, 49). Coordinates count from 1, as MATLAB does."""
    shot, actor = take.shot, take.actors[0]
    joints = convert(actor.kp_2d + 1, source="spin49", target="penn_action")
    seen = convert(visible[..., None].astype(np.float64), source="spin49", target="penn_action")[..., 0]
    rng = shot.rng("labels")
    unmarked = (seen == 0) & (rng.random(seen.shape) < 0.36)  # 64% of the release's invisible joints carry coordinates
    joints[unmarked] = NOT_LABELLED
    return {
        "action": list(ACTIONS)[shot.number % len(ACTIONS)],
        "pose": _seen_from(take),
        "x": joints[..., 0],
        "y": joints[..., 1],
        "visibility": seen.astype(np.uint8),
        "train": np.int32(1 if shot.split == "train" else -1),
        "bbox": _boxes(actor.kp_2d, shot),
        "dimensions": np.array([shot.height, shot.width, shot.n_frames], np.uint16),
        "nframes": np.uint8(shot.n_frames) if shot.n_frames < 256 else np.uint16(shot.n_frames),
    }


def _boxes(kp_2d: NDArray[Any], shot: Shot) -> NDArray[Any]:
    """(T, 4) x1 y1 x2 y2, from 1; in every other video whole and in the smallest type, as the release mixes them."""
    low = np.maximum(kp_2d.min(axis=1) - BOX_MARGIN_PX, 0) + 1
    high = np.minimum(kp_2d.max(axis=1) + BOX_MARGIN_PX, (shot.width - 1, shot.height - 1)) + 1
    boxes = np.concatenate([low, high], axis=1)
    if shot.number % 2:
        return np.asarray(boxes)
    whole = np.round(boxes)
    return whole.astype(np.uint8 if whole.max() < 256 else np.uint16)


def _seen_from(take: Take) -> str:
    """The release's word for the side from which the camera sees the person."""
    if take.camera is None:
        raise ValueError("a Penn Action video needs a camera")
    middle = take.shot.n_frames // 2
    ahead = np.array([np.sin(take.actors[0].motion.heading[middle]), 0, np.cos(take.actors[0].motion.heading[middle])])
    across, _, away = take.camera.extrinsics[middle, :3, :3] @ ahead
    if abs(across) > abs(away):
        return "right" if across > 0 else "left"
    return "front" if away < 0 else "back"


def _mixed(n_train: int, n_test: int) -> Callable[[str], float]:
    """Spread the test videos among the others: sorting keys by how far each split is through."""
    counters = {"train": 0, "test": 0}

    def key(split: str) -> float:
        counters[split] += 1
        return (counters[split] - 0.5) / (n_train if split == "train" else n_test)

    return key


LAYOUT: Final = Layout(
    name="penn_action",
    what="Rendered people in Penn Action's layout: pictures and labels made by this program, nothing of Penn Action.",
    shots=shots,
    record=record,
)

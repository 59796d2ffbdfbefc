"""InstaVariety's layout: shards of examples, pictures inside.  pixels and labels -> [raw]

As in the release, shards for training hold pictures that were preprocessed for a network, with coordinates in [-1, 1],
or the larger ones from which those are cut, in pixels; shards for testing hold small ones in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.skeletons import convert
from pipeline.synthetic.layouts.encode import jpeg
from pipeline.synthetic.layouts.layout import Layout, Request
from pipeline.synthetic.layouts.tfrecord_file import Feature, example, framed
from pipeline.synthetic.scene.scene import Shot, Take, film, stage

if TYPE_CHECKING:
    from pipeline.smpl.assets import SmplArrays

TAGS: Final = {  # of Instagram, and what is played for them
    "javelinthrow": ("throw", "reach"),
    "hopscotch": ("march", "jumping_jacks"),
    "instagolf": ("swing", "bow"),
    "fencing": ("lunge", "reach"),
    "penaltykick": ("kick", "march"),
    "tabletennis": ("swing", "side_bend"),
    "yogachallenge": ("side_bend", "arm_raise"),
    "boxingtraining": ("box", "squat"),
}
A_SHARD: Final = 3  # examples; the release has 50
CROP_PX, LARGE_PX = 224, 300  # sides of pictures that are ready for a network, and of those that are not
FILLED: Final = 0.72  # of a picture's side, by the person's joints in all frames together
PHI: Final = 2048  # numbers a frame
TOELESS: Final = 1  # the example of each shard for testing whose feet nobody looked at


def shots(request: Request) -> list[Shot]:
    """6 examples for training, in shards of 3, and 2 for testing by default, of 24 frames."""
    splits = [(split, i) for split, usual in (("train", 6), ("test", 2)) for i in range(request.videos(usual))]
    planned = []
    for number, (split, i) in enumerate(splits):
        rng = np.random.default_rng([request.seed, 105, number])
        shard, position = divmod(i, A_SHARD)
        stem = f"insta_variety_{shard:02d}_copy00"  # as in the release, the same in both splits
        side = LARGE_PX if split == "train" and shard % 2 else CROP_PX
        planned.append(
            Shot(
                dataset="insta_variety",
                split=split,
                name=f"{split}/{stem}/{position:05d}",
                number=number,
                seed=request.seed,
                n_frames=request.frames(rng, 24, 24, least=20),
                fps=30.0,
                width=side,
                height=side,
                actions=tuple(TAGS.values())[number % len(TAGS)],
                hand_held=True,
                file=f"{split}/{stem}.tfrecord",
            )
        )
    return planned


def record(body: SmplArrays, shot: Shot, folder: Path) -> Take:
    """One record, in a file of its own until `finish` puts the shards together."""
    take = cut_out(stage(body, shot))
    filmed = list(film(body, take))
    visible = np.array([frame.visible[0] for frame in filmed])
    features = features_of(take, [jpeg(frame.image) for frame in filmed], visible)
    file = _piece(folder, shot)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(framed(example(features)))
    return take


def finish(folder: Path, shots: Sequence[Shot]) -> None:
    """`<split>/<shard>.tfrecord`, one record after the other."""
    for shot in shots:
        piece = _piece(folder, shot)
        with (folder / shot.file).open("ab") as shard:
            shard.write(piece.read_bytes())
        piece.unlink()


def cut_out(take: Take) -> Take:
    """The same take as if its pictures were cut out of larger ones, around the person: by another lens, so exactly."""
    if take.camera is None:
        raise ValueError("an InstaVariety clip needs a camera")
    points = take.actors[0].kp_2d.reshape(-1, 2)
    low, high = points.min(axis=0), points.max(axis=0)
    zoom = FILLED * take.shot.width / (high - low).max()
    onto_picture = np.diag([zoom, zoom, 1.0])
    onto_picture[:2, 2] = take.shot.width / 2 - zoom * (low + high) / 2
    camera = replace(take.camera, intrinsics=onto_picture @ take.camera.intrinsics)
    actors = tuple(replace(actor, kp_2d=camera.project(actor.spin49)) for actor in take.actors)
    return replace(take, camera=camera, actors=actors)


def features_of(take: Take, pictures: Sequence[bytes], visible: NDArray[np.bool_]) -> dict[str, Feature]:
    """The features of an example; visible (T, 49). Labels are (T, 3, J) as stored: rows x, y, seen."""
    shot = take.shot
    n_frames, testing = shot.n_frames, shot.split == "test"
    joints = np.concatenate([take.actors[0].kp_2d, visible[..., None]], axis=-1)
    labels = convert(joints, source="spin49", target="insta_variety").transpose(0, 2, 1)
    preprocessed = not testing and shot.width == CROP_PX
    if preprocessed:
        labels[:, :2] = 2 * labels[:, :2] / CROP_PX - 1
        labels *= labels[:, 2:]  # nothing is told of a joint that is not seen
    xys, face, toes = labels[:, :2, :14], labels[..., 14:19], labels[..., 19:]
    tag = list(TAGS)[shot.number % len(TAGS)]
    features: dict[str, Feature] = {
        "meta/N": np.array([n_frames]),
        "meta/has_3d": np.array([0]),
        "meta/has_3d_joints": np.array([0]),
        "image/encoded": pictures,
        "image/filenames": [f"{tag}/{shot.number:08d}/frame{i + 1:06d}.png".encode() for i in range(n_frames)],
        "image/heightwidths": np.full((n_frames, 2), shot.width),
        "image/centers": np.full((n_frames, 2), shot.width // 2),
        "image/scale_factors": np.ones((n_frames,) if testing else (n_frames, 2)),
        "image/crop_pts": np.zeros((n_frames, 2), np.int64),
        "image/cams": np.zeros(0 if testing else (n_frames, 3)),
        "image/xys": xys,
        "image/visibilities": labels[:, 2, :14].astype(np.int64),
        "image/face_pts": face,
        "image/toe_pts": toes,
        **_no_3d(n_frames),
    }
    if preprocessed:
        features["image/phis"] = np.zeros((n_frames, PHI))
    if testing:
        features["meta/time_pts"] = np.array([0, n_frames])
    if testing and int(shot.name[-5:]) == TOELESS:
        del features["image/toe_pts"]
    return features


def _no_3d(n_frames: int) -> dict[str, NDArray[Any]]:
    """What the release stores of bodies that nobody measured."""
    return {
        "mosh/shape": np.full(10, -1.0),
        "mosh/poses": np.full((n_frames, 72), -1.0),
        "mosh/gt3ds": np.zeros((n_frames, 14, 3)),
    }


def _piece(folder: Path, shot: Shot) -> Path:
    return folder / shot.split / shot.name.removeprefix(f"{shot.split}/").replace("/", ".")


LAYOUT: Final = Layout(
    name="insta_variety",
    what="Rendered people in InstaVariety's layout: pictures and labels made by this program, nothing of InstaVariety.",
    shots=shots,
    record=record,
    finish=finish,
)

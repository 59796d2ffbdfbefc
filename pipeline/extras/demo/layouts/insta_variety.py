"""InstaVariety's layout: TFRecord shards of examples with images.  pixels and labels -> [raw]

As in the release, training shards have images preprocessed for a network, with coordinates in [-1,
1], or the larger images that these are cut from, in pixels; test shards have small images, in
pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from pipeline.extras.demo.files import Feature, jpeg, tf_example, tfrecord
from pipeline.extras.demo.layouts import ReleaseLayout, Request, pick_cyclic, write_frames
from pipeline.extras.demo.scene import Shot, Take, stage
from pipeline.people.skeletons import Bools, Doubles, add_confidence, convert

TAGS: Final = {  # tag of Instagram -> actions
    "yogachallenge": ("arm_raise", "random_poses"),
    "hopscotch": ("march", "random_poses"),
    "squatchallenge": ("squat", "wave"),
}
TRAINING: Final = 6  # usual number of training examples
A_SHARD: Final = 3  # examples per shard; 50 in the release
N_FRAMES: Final = 20  # usual number
# sides of images with and without preprocessing for a network
CROP_PX: Final = 224
LARGE_PX: Final = 300
PHI: Final = 2048  # numbers per frame
TOELESS: Final = 1  # example of each test shard without toe labels


def _plan(request: Request) -> Iterator[Shot]:
    """By default 6 training examples in shards of 3, and 2 test examples, of 20 frames."""
    for number, split in request.places(train=TRAINING, test=2):
        example = number  # in its split
        if split == "test":
            example -= request.videos(TRAINING)
        shard, position = divmod(example, A_SHARD)
        # as in the release, the same in both splits
        stem = f"{split}/insta_variety_{shard:02d}_copy00"
        side = LARGE_PX if split == "train" and shard % 2 else CROP_PX
        yield Shot(
            "insta_variety",
            split,
            f"{stem}/{position:05d}",
            number,
            request.seed,
            request.frames(N_FRAMES),
            30.0,
            side,
            side,
            actions=pick_cyclic(tuple(TAGS.values()), number),
            hand_held=True,
            file=f"{stem}.tfrecord",
        )


def _record(shot: Shot, folder: Path) -> Take:
    """Write one record into a separate file, which `_finish` appends to a shard."""
    take = stage(shot)
    images: list[bytes] = []
    visible = write_frames(take, lambda _, image: images.append(jpeg(image)))
    features = _features_of(take, images, visible[:, 0])
    file = _record_file(folder, shot)
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(tfrecord(tf_example(features)))
    return take


def _finish(folder: Path, shots: Sequence[Shot]) -> None:
    """Write `<split>/<shard>.tfrecord`, one record after the other."""
    for shot in shots:
        record = _record_file(folder, shot)
        with (folder / shot.file).open("ab") as shard:
            shard.write(record.read_bytes())
        record.unlink()


def _features_of(take: Take, pictures: Sequence[bytes], visible: Bools) -> dict[str, Feature]:
    """The features of an example; visible (T, 49)."""
    shot = take.shot
    n_frames = shot.n_frames
    testing = shot.split == "test"
    preprocessed = not testing and shot.width == CROP_PX
    labels = _labels_of(take, visible, in_crop=preprocessed)
    tag = pick_cyclic(tuple(TAGS), shot.number)
    names = [f"{tag}/{shot.number:08d}/frame{i + 1:06d}.png" for i in range(n_frames)]
    features: dict[str, Feature] = {
        "meta/N": np.array([n_frames]),
        "image/encoded": pictures,
        "image/filenames": [name.encode() for name in names],
        "image/scale_factors": np.ones((n_frames,) if testing else (n_frames, 2)),
        "image/xys": labels[:, :2, :14],
        "image/visibilities": labels[:, 2, :14].astype(np.int64),
        "image/face_pts": labels[..., 14:19],
        "image/toe_pts": labels[..., 19:],
    }
    if preprocessed:
        features["image/phis"] = np.zeros((n_frames, PHI))
    if testing and shot.name.endswith(f"{TOELESS:05d}"):
        del features["image/toe_pts"]
    return features


def _labels_of(take: Take, visible: Bools, *, in_crop: bool) -> Doubles:
    """(T, 3, J) as stored: rows x, y, seen; in_crop: x and y in [-1, 1], else in pixels."""
    joints = add_confidence(take.actors[0].kp_2d, visible)
    labels = convert(joints, source="spin49", target="insta_variety").transpose(0, 2, 1)
    if in_crop:
        labels[:, :2] = 2 * labels[:, :2] / CROP_PX - 1
        labels *= labels[:, 2:]  # an invisible joint is (0, 0, 0)
    return labels


def _record_file(folder: Path, shot: Shot) -> Path:
    return folder / shot.split / shot.name.removeprefix(f"{shot.split}/").replace("/", ".")


LAYOUT: Final = ReleaseLayout(
    "insta_variety",
    "Rendered people in InstaVariety's layout: pictures and labels made by this program, "
    "nothing of InstaVariety.",
    _plan,
    _record,
    _finish,
    n_videos=4,
    n_frames=6,
    labels={"*/*.tfrecord": "image/xys image/face_pts image/toe_pts"},
)

"""Penn Action: 2,326 videos of one person each, 13 joints labelled by hand.  [raw -> tracks] ->
features -> windows

Zhang, Zhu, Derpanis: From Actemes to Action, ICCV 2013.

    labels/<0001..2326>.mat            x, y, visibility (frames, 13); train 1 or -1; dimensions:
                                       height, width, frames
    frames/<0001..2326>/<000001..>.jpg

`read` compares `dimensions` with the joints and the images: joints outside are accepted only if the
images have the stated size.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from pipeline.accounting import Totals, VideoAccount
from pipeline.datasets.base import Dataset, ImageFolders, Release, ReleasePart
from pipeline.datasets.shared.checks import LabelRules, finite_joints, require_labels
from pipeline.datasets.shared.images import (
    RESIZED,
    SAME_SIZE,
    frames_there,
    require_size,
    require_source_pixels,
)
from pipeline.datasets.shared.in_pixels import require_pixels
from pipeline.datasets.shared.labelled_track import labelled_track
from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import StoredArrays, load_mat, numbers
from pipeline.files.pixels.pictures import Pictures
from pipeline.files.raw import RawVideo
from pipeline.people.skeletons import JOINTS, Doubles, Floats
from pipeline.people.track import Track

if TYPE_CHECKING:
    from pipeline.people.body import Body

N_JOINTS: Final = len(JOINTS["penn_action"])
SPLIT_OF: Final[Mapping[float, str]] = {1: "train", -1: "test"}  # the stored `train`
ARCHIVE: Final = "Penn_Action.tar.gz"
UNPACK: Final = f"Unpack {ARCHIVE} again."


@dataclass(frozen=True)
class PennAction(Dataset):
    """One track per video, without a frame rate, which the release does not state.

    Coordinates are MATLAB's, where the first pixel is 1; they are not changed.
    """

    name = "penn_action"
    splits = ("train", "test")
    version = 4  # 4: images under other numbers are refused
    release = Release(
        page="http://dreamdragon.github.io/PennAction/",
        access="free",
        parts=(
            ReleasePart("label files", ("labels/<0001>.mat",), ARCHIVE, known=2326),
            ReleasePart("videos with images", ("frames/<0001>/000001.jpg",), ARCHIVE, known=2326),
        ),
        image_folders=ImageFolders(),
        # counted over the official label files
        totals={"train": Totals(videos=1258), "test": Totals(videos=1068)},
    )
    labels = LabelRules(checks_joints=True)

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:  # only the label has the split
        labels = raw / "labels"
        frames = raw / "frames"
        contents = {
            labels: "a folder with <0001>.mat label files",
            frames: "a folder with <0001>/<000001>.jpg images",
        }
        do = f"Point the raw folder at the unpacked {ARCHIVE}."
        for folder, expected in contents.items():
            if not raw.is_dir():
                raise RawDataError(raw, "folder", expected, "no such folder", do)
            if not folder.is_dir():
                raise RawDataError(folder, "folder", expected, "none", do)
        names = {file.stem for file in labels.glob("*.mat")}
        names |= {entry.name for entry in frames.iterdir()}
        videos = []
        for name in sorted(filter(str.isdecimal, names)):  # .DS_Store is no video
            label = Path("labels", f"{name}.mat")
            videos.append(RawVideo(name, files=(label,), folders=(Path("frames", name),)))
        return videos

    def stated_images(self, raw: Path, video: RawVideo) -> int:
        try:
            stated = load_mat(raw / video.files[0], ("nframes",))["nframes"]
        except RawDataError:  # which reading reports
            return 0
        if stated.size != 1 or stated.dtype.kind not in "iuf":
            return 0
        return int(stated.flat[0])

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None
    ) -> Sequence[Track]:
        file = raw / video.files[0]
        require_labels(file, UNPACK)
        keys = ("x", "y", "visibility", "train")
        label = StoredArrays(file, load_mat(file, keys, optional=("nframes", "dimensions", "bbox")))
        train = label.scalar("train")
        if train not in SPLIT_OF:
            raise RawDataError(file, "train", "1 or -1", str(train), UNPACK)
        if SPLIT_OF[train] != split:
            account.other_split = True
            return []
        kp_2d = finite_joints(_keypoints(label), account)
        account.found = len(kp_2d)
        pictures = Pictures(raw, f"frames/{video.name}/{{:06d}}.jpg", first=1)
        size, n_outside = _note_contradictions(label, kp_2d, account)
        if size is None or n_outside:
            # If the images have the size that the label states, joints outside are the release's.
            require_source_pixels(file, kp_2d, pictures, size)
        else:
            # refuses joints in metres
            require_pixels(file, kp_2d, (round(size[0]), round(size[1])), do=SAME_SIZE)
            require_size(
                pictures, size, file, f"{UNPACK[:-1]}, without resizing images.", tolerance=RESIZED
            )
        return labelled_track(
            self,
            split,
            video,
            account,
            pictures,
            reasons={"no_picture": ~frames_there(pictures, len(kp_2d), account)},
            skeleton="penn_action",
            kp_2d=kp_2d,
            boxes=_read_boxes(label, len(kp_2d)),
            fps=math.nan,
        )


def _keypoints(label: StoredArrays) -> Doubles:
    """Read the joints, (frames, 13, 3): x px, y px, and 1 where visible, else 0.

    Most invisible joints have coordinates, too.
    """
    x = label.take("x", None, N_JOINTS)
    y = label.take("y", len(x), N_JOINTS)
    visible = label.take("visibility", len(x), N_JOINTS) > 0
    return np.stack([x, y, visible], axis=-1)


def _read_boxes(label: StoredArrays, n_frames: int) -> Doubles | None:
    """Read the boxes drawn by hand, (frames, 4) cx cy w h px; None without one for each frame."""
    with suppress(RawDataError):
        low, high = np.split(label.take("bbox", n_frames, 4), 2, axis=1)
        return np.concatenate([(low + high) / 2, high - low], axis=1)
    return None


def _note_contradictions(
    label: StoredArrays, kp_2d: Floats, account: VideoAccount
) -> tuple[tuple[float, float] | None, int]:
    """Note keys of the label file that contradict its joints.

    Returns the label's image width and height, or None, and the number of visible joints outside.
    """

    def read_values(key: str, n: int) -> list[float]:
        """The `n` numbers under a key; none, and a note, for other content."""
        if key not in label.content:
            return []
        try:
            values = numbers(label.file, key, label.value(key).reshape(-1), (n,))
        except RawDataError as error:
            account.note(f"not used: {error}")
            return []
        if not np.isfinite(values).all():
            account.note(f"not used: {key} holds {values.tolist()}")
            return []
        return list(values.tolist())

    for n_frames in read_values("nframes", 1):
        if n_frames != len(kp_2d):
            account.note(f"nframes is {n_frames:.10g}, {len(kp_2d)} frames are labelled")
    dimensions = read_values("dimensions", 3)
    if not dimensions:
        return None, 0
    height, width, _ = dimensions
    xy = kp_2d[..., :2]
    is_outside = ((xy < 0) | (xy > (width + 1, height + 1))).any(axis=-1)
    is_visible = kp_2d[..., 2] > 0
    n_outside = int((is_visible & is_outside).sum())
    if n_outside:  # four videos have coordinates at another scale
        account.note(
            f"{n_outside} visible joints are outside the {width:.0f} x {height:.0f} picture"
        )
    return (width, height), n_outside

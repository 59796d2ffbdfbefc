"""EMDB: people filmed with a moving camera, with SMPL bodies in a world.  [raw -> tracks] ->
features -> windows

Kaufmann et al.: EMDB: The Electromagnetic Database of Global 3D Human Pose and Shape in the Wild,
ICCV 2023.

    P<0..9>/<sequence>/P<0..9>_<sequence>_data.pkl     a pickle: cameras, SMPL in the world (y up),
                                                       boxes, 2D joints
    P<0..9>/<sequence>/images/<5 digits>.jpg           from 00000

The pickle is a dict with `emdb1` and `emdb2` (whether the sequence is in the split), `gender`,
`n_frames`, `good_frames_mask`, `kp2d`, and dicts `camera`, `smpl` and `bboxes`. `_convert_labels`
checks and converts it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pipeline.accounting import Totals, VideoAccount
from pipeline.datasets.base import REGISTERED, Dataset, ImageFolders, Origin, Release, ReleasePart
from pipeline.datasets.shared.checks import LabelRules, finite_joints, finite_rows, require_labels
from pipeline.datasets.shared.images import frames_there, require_size
from pipeline.datasets.shared.labelled_track import labelled_track
from pipeline.datasets.shared.smpl import BODIES, EXTRINSICS, UP, smpl_labels
from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import StoredArrays
from pipeline.files.formats.names import quote_name
from pipeline.files.formats.pickles import load_labels
from pipeline.files.pixels.pictures import Pictures
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import find
from pipeline.people.cameras import is_rigid
from pipeline.people.skeletons import (
    JOINTS,
    Bools,
    Doubles,
    Ints,
    add_confidence,
    are_usable_numbers,
)
from pipeline.people.smpl_files import gender_of
from pipeline.people.track import Track

if TYPE_CHECKING:
    from pipeline.people.body import Body

FPS: Final = 30.0
CROP_SCALE: Final = 1.2
GENDERS: Final = ("male", "female")
WORLD_UP: Final = np.array([0, 1, 0], np.float32)
UNPACK: Final = "Unpack the archive of this person again."
SAME_NAMES: Final = "Unpack the images without changing names or sizes."
OTHER_GENDER: Final = "Remove this sequence: other genders are not supported."
SEQUENCE: Final = "P<0..9>/<sequence>"


@dataclass(frozen=True)
class Emdb(Dataset):
    """One track per sequence, with the frames that the release marks as good.

    Three sequences are in both splits.
    """

    name = "emdb"
    splits = ("emdb1", "emdb2")
    version = 3  # 3: images that the labels do not count are refused
    uses = Dataset.uses | BODIES
    release = Release(
        page="https://eth-ait.github.io/emdb",
        access="registration",
        licence=REGISTERED,
        parts=(
            ReleasePart("label files", (f"{SEQUENCE}/P<0..9>_<sequence>_data.pkl",), "P<0..9>.zip"),
            ReleasePart("sequences' images", (f"{SEQUENCE}/images/00000.jpg",), "P<0..9>.zip"),
        ),
        recording="sequence",
        image_folders=ImageFolders(),
        totals={"emdb1": Totals(17), "emdb2": Totals(25)},
    )
    labels = LabelRules(
        uses_body=True,
        columns=("frame_index", "bbox", "kp_2d", "pose", "betas", "has_smpl", "valid"),
        body_columns=("kp_3d_eval", "has_3d", "trans"),
        extra=(EXTRINSICS, UP),
    )

    @property
    def genders(self) -> tuple[str, ...]:
        return GENDERS

    def origin(self, video: str) -> Origin:
        """The person and the sequence.

        >>> Emdb().origin("P0/09_outdoor_walk")
        Origin(subject='P0', recording='P0/09_outdoor_walk')
        """
        match = re.fullmatch(r"(P[0-9]+)/[^/]+", video)
        if match is None:
            return Origin()
        return Origin(match[1], video)

    def videos(self, raw: Path, split: str) -> Sequence[RawVideo]:  # only the label has the split
        folders = map(Path, find(raw, "P[0-9]*/*/", {}))
        names = sorted(folder.relative_to(raw).as_posix() for folder in folders)
        if not names:
            do = "Set the raw folder to the folder with the unpacked P0, P1, ..."
            raise RawDataError(raw, "folder", expected=f"{SEQUENCE}/", found="none", do=do)
        videos = []
        for name in names:
            label = Path(name, f"{name.replace('/', '_')}_data.pkl")
            videos.append(RawVideo(name, files=(label,), folders=(Path(name, "images"),)))
        return videos

    def read(
        self, raw: Path, split: str, video: RawVideo, account: VideoAccount, body: Body | None
    ) -> Sequence[Track]:
        file = raw / video.files[0]
        require_labels(file, UNPACK)
        stored = StoredArrays(file, load_labels(file), UNPACK)
        # the split's name is a key: whether the sequence belongs to it
        if not stored.take(split):
            account.other_split = True
            return []
        labels = _convert_labels(stored)

        kp_2d = finite_joints(add_confidence(labels.kp_2d), account)
        account.found = len(kp_2d)
        pictures = Pictures(raw, f"{video.name}/images/{{:05d}}.jpg")
        has_picture = frames_there(pictures, len(kp_2d), account, spare=0)
        size = labels.width, labels.height
        require_size(pictures, size, file, SAME_NAMES, labels.intrinsics)
        is_finite = finite_rows(labels.pose, labels.trans, labels.extrinsics)
        reasons = {
            "not_good": ~labels.good,
            "no_picture": ~has_picture,
            "no_box": labels.no_box,
            "no_visible_joint": ~(kp_2d[..., 2] > 0).any(axis=1),
            "label_not_finite": ~is_finite,
            "bad_camera": ~is_rigid(labels.extrinsics),
        }
        return labelled_track(
            self,
            split,
            video,
            account,
            pictures,
            reasons=reasons,
            skeleton="smpl",
            kp_2d=kp_2d,
            bbox=labels.boxes,
            extrinsics=labels.extrinsics,
            labels_of=functools.partial(_smpl_of, labels, body),
            fps=FPS,
            valid=np.ones(len(kp_2d), np.bool_),
            gender=labels.gender,
            crop_scale=CROP_SCALE,
            intrinsics=labels.intrinsics,
            extra={"up": WORLD_UP},
        )


@dataclass(frozen=True, slots=True, eq=False)
class _SequenceLabels:
    """Labels of a sequence of F frames, with boxes as centre and side."""

    gender: str
    good: Bools  # (F,) good_frames_mask
    width: int  # px of the camera's images
    height: int
    intrinsics: Doubles  # (3, 3) px
    extrinsics: Doubles  # (F, 4, 4) world to camera, m
    pose: Doubles  # (F, 72) rad, global orientation in the world
    betas: Doubles  # (10,)
    trans: Doubles  # (F, 3) m, in the world
    kp_2d: Doubles  # (F, 24, 2) px
    boxes: Doubles  # (F, 4) cx, cy, side, side px
    no_box: Bools  # (F,) frames in `invalid_idxs`, and frames whose corners are no box


def _smpl_of(labels: _SequenceLabels, body: Body | None, rows: Ints) -> dict[str, Any]:
    """The labels of the body in these frames."""
    return smpl_labels(
        labels.pose[rows],
        labels.betas,
        labels.trans[rows],
        labels.extrinsics[rows],
        None if body is None else body.of(labels.gender),
        evaluation=True,
    )


def _convert_labels(stored: StoredArrays) -> _SequenceLabels:
    """Check and convert the content of a label file. Raises RawDataError."""
    n = int(_take_whole(stored, "n_frames"))  # F
    stated = stored.value("gender")
    gender = gender_of(stated)
    if gender not in GENDERS:
        expected = " or ".join(GENDERS)
        raise RawDataError(stored.file, "gender", expected, quote_name(str(stated)), OTHER_GENDER)
    corners = stored.take("bboxes/bboxes", n, 4).reshape(n, 2, 2)
    low = corners[:, 0]
    high = corners[:, 1]
    side = (high - low).max(axis=1)
    is_stated_invalid = np.isin(np.arange(n), _take_whole(stored, "bboxes/invalid_idxs", None))
    # comparisons with NaN are false
    is_box = ((high - low >= 1) & are_usable_numbers(corners).all(axis=1)).all(axis=1)
    root = stored.take("smpl/poses_root", n, 3)
    joints = stored.take("smpl/poses_body", n, 69)
    return _SequenceLabels(
        gender=gender,
        good=stored.take("good_frames_mask", n) > 0,
        width=int(_take_whole(stored, "camera/width")),
        height=int(_take_whole(stored, "camera/height")),
        intrinsics=stored.take("camera/intrinsics", 3, 3, finite=True),
        extrinsics=stored.take("camera/extrinsics", n, 4, 4),
        pose=np.concatenate([root, joints], axis=1),
        betas=stored.take("smpl/betas", 10, finite=True),
        trans=stored.take("smpl/trans", n, 3),
        kp_2d=stored.take("kp2d", n, len(JOINTS["smpl"]), 2),
        boxes=np.column_stack([(low + high) / 2, side, side]),
        no_box=is_stated_invalid | ~is_box,
    )


def _take_whole(stored: StoredArrays, key: str, *shape: None) -> Doubles:
    """The whole numbers from 0 under a key. Raises RawDataError for other ones."""
    values = stored.take(key, *shape)
    if not ((values >= 0) & (values % 1 == 0)).all():
        raise stored.error(key, "whole numbers from 0", str(values)[:80])
    return values

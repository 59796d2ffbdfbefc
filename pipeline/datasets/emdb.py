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

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

import cache
from pipeline.accounting import Totals, VideoAccount
from pipeline.cameras import is_rigid
from pipeline.datasets.base import Dataset, LabelRules
from pipeline.datasets.checks import finite_joints, finite_rows, require_labels
from pipeline.datasets.labels.smpl import EXTRINSICS, UP, smpl_labels
from pipeline.datasets.pixels import frames_there, require_size
from pipeline.datasets.release import ImageFolders, Origin, Release, ReleasePart
from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import UNPACK_AGAIN, numbers
from pipeline.files.formats.names import shown, shown_names
from pipeline.files.formats.pickles import load_labels
from pipeline.files.formats.smpl_files import gender_of
from pipeline.files.pixels.frames import Pictures
from pipeline.files.raw import RawVideo
from pipeline.files.raw.files import is_folder_there
from pipeline.skeletons import JOINTS, LARGEST, Bools, Doubles, add_confidence, convert
from pipeline.track import Track

if TYPE_CHECKING:
    from pipeline.body import Body

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

    name: ClassVar[str] = "emdb"
    splits: ClassVar[tuple[str, ...]] = ("emdb1", "emdb2")
    version: ClassVar[int] = 3  # 3: images that the labels do not count are refused
    release: ClassVar[Release] = Release(
        page="https://eth-ait.github.io/emdb",
        parts=(
            ReleasePart("label files", (f"{SEQUENCE}/P<0..9>_<sequence>_data.pkl",), "P<0..9>.zip"),
            ReleasePart("sequences' images", (f"{SEQUENCE}/images/00000.jpg",), "P<0..9>.zip"),
        ),
        recording="sequence",
        image_folders=ImageFolders(),
        totals={"emdb1": Totals(17), "emdb2": Totals(25)},
    )
    labels: ClassVar[LabelRules] = LabelRules(uses_body=True)

    @property
    def genders(self) -> tuple[str, ...]:
        return GENDERS

    def columns(self, split: str, *, body: bool) -> tuple[str, ...]:
        labels = ("frame_index", "bbox", "kp_2d", "pose", "betas", "has_smpl", "valid")
        return (*labels, "kp_3d_eval", "has_3d", "trans") if body else labels

    def extra_columns(self, split: str, *, body: bool) -> tuple[cache.ExtraColumn, ...]:
        return EXTRINSICS, UP

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
        folders = filter(is_folder_there, raw.glob("P[0-9]*/[!.]*"))
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
        stored = load_labels(file)
        # the split's name is a key: whether the sequence belongs to it
        if not numbers(file, split, _entry(file, stored, split), (), do=UNPACK):
            account.other_split = True
            return []
        labels = _convert_labels(file, stored)

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
        rows = account.keep_rows(reasons)
        if not len(rows):
            return []

        extrinsics = labels.extrinsics[rows]
        smpl = smpl_labels(
            labels.pose[rows],
            labels.betas,
            labels.trans[rows],
            extrinsics,
            None if body is None else body.of(labels.gender),
            evaluation=True,
        )
        track = self.track(
            split,
            video,
            fps=FPS,
            frame_index=rows,
            bbox=labels.boxes[rows].astype(np.float32),
            kp_2d=convert(kp_2d[rows], source="smpl", target="spin49").astype(np.float32),
            valid=np.ones(len(rows), np.bool_),
            gender=labels.gender,
            crop_scale=CROP_SCALE,
            intrinsics=labels.intrinsics.astype(np.float32),
            frames=pictures,
            extra={"extrinsics": extrinsics.astype(np.float32), "up": WORLD_UP},
            **smpl,
        )
        return [track]


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


def _convert_labels(file: Path, stored: Mapping[str, Any]) -> _SequenceLabels:
    """Check and convert the content of a label file. Raises RawDataError."""

    def array(
        *keys: str, shape: tuple[int | None, ...], whole: bool = False, finite: bool = False
    ) -> Doubles:
        """The array under nested keys. whole, finite: what its numbers must be."""
        key = "/".join(keys)
        values = numbers(file, key, _entry(file, stored, *keys), shape, do=UNPACK)
        if whole and not ((values >= 0) & (values % 1 == 0)).all():
            raise RawDataError(file, key, "whole numbers from 0", str(values)[:80], UNPACK)
        if finite and not (np.abs(values) < LARGEST).all():
            raise RawDataError(file, key, "finite numbers", str(values)[:80], UNPACK)
        return values

    n = int(array("n_frames", shape=(), whole=True))  # F
    gender = gender_of(_entry(file, stored, "gender"))
    if gender not in GENDERS:
        found = shown(str(stored["gender"]))
        raise RawDataError(
            file, "gender", expected=" or ".join(GENDERS), found=found, do=OTHER_GENDER
        )
    corners = array("bboxes", "bboxes", shape=(n, 4)).reshape(n, 2, 2)
    low = corners[:, 0]
    high = corners[:, 1]
    side = (high - low).max(axis=1)
    is_stated_invalid = np.isin(
        np.arange(n), array("bboxes", "invalid_idxs", shape=(None,), whole=True)
    )
    # comparisons with NaN are false
    is_box = ((high - low >= 1) & (np.abs(corners) < LARGEST).all(axis=1)).all(axis=1)
    root = array("smpl", "poses_root", shape=(n, 3))
    joints = array("smpl", "poses_body", shape=(n, 69))
    return _SequenceLabels(
        gender=gender,
        good=array("good_frames_mask", shape=(n,)) > 0,
        width=int(array("camera", "width", shape=(), whole=True)),
        height=int(array("camera", "height", shape=(), whole=True)),
        intrinsics=array("camera", "intrinsics", shape=(3, 3), finite=True),
        extrinsics=array("camera", "extrinsics", shape=(n, 4, 4)),
        pose=np.concatenate([root, joints], axis=1),
        betas=array("smpl", "betas", shape=(10,), finite=True),
        trans=array("smpl", "trans", shape=(n, 3)),
        kp_2d=array("kp2d", shape=(n, len(JOINTS["smpl"]), 2)),
        boxes=np.column_stack([(low + high) / 2, side, side]),
        no_box=is_stated_invalid | ~is_box,
    )


def _entry(file: Path, stored: Any, *keys: str) -> Any:
    """The value under nested keys. Raises RawDataError with the missing key."""
    for n, key in enumerate(keys, start=1):
        if not isinstance(stored, dict) or key not in stored:
            actual = type(stored).__name__
            if isinstance(stored, dict):
                actual = f"only {shown_names(map(str, stored))}"
            raise RawDataError(file, "/".join(keys[:n]), "this key", actual, UNPACK_AGAIN)
        stored = stored[key]
    return stored

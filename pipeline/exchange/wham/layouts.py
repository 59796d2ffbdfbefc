"""What WHAM's files hold, by split, and what of it its code reads.  tracks, features -> [files of other programs]

Shin et al.: WHAM: Reconstructing World-Grounded Humans with Accurate 3D Motion, CVPR 2024: lib/data_utils/ writes these
files, lib/data/datasets/ reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from pipeline.exchange.rows import FEATURES, JOINTS_3D, SMPL

PELVIS, REGRESSOR = "SMPL's files", "SMPL's files with J_regressor_wham.npy (31, 6890)"
NO_SIZE: Final = "no size of the picture"
NO_GENDER: Final = "no gender, male or female"
NO_RATE: Final = "another rate than 30 frames a second"
REGRESSED: Final = 31  # 17 joints as COCO's, 14 as LSP's
FROM_MIRRORED: Final = "HMR2.0 on the mirrored crops, which no stream holds"
FROM_FIRST: Final = "the bodies of HMR2.0's own heads on the first crop, which no stream holds"
NOT_DERIVED: Final = {
    "flipped_features": FROM_MIRRORED,
    "init_kp3d": FROM_FIRST,
    "init_pose": FROM_FIRST,
    "flipped_init_kp3d": FROM_MIRRORED,
    "flipped_init_pose": FROM_MIRRORED,
}


class Field(NamedTuple):
    """One entry of a file."""

    dtype: str
    columns: tuple[str, ...] = ()  # of the cache, without which it cannot be written
    rows_with: tuple[str, ...] = ()  # rows that have this alone are written
    body: str = ""  # what of --set body it needs


FIELDS: Final[Mapping[str, Field]] = {
    "vid": Field("<i8"),
    "frame_id": Field("<i8"),
    "bbox": Field("<f4", ("bbox",)),
    "res": Field("<f4"),
    "pose": Field("<f4", ("pose", "betas"), (SMPL,)),
    "betas": Field("<f4", ("pose", "betas"), (SMPL,)),
    "transl": Field("<f4", ("pose", "betas", "trans"), (SMPL,), PELVIS),
    "body_transl": Field("<f4", ("pose", "betas", "trans", "extrinsics"), (SMPL, NO_GENDER), PELVIS),
    "kp2d": Field("<f4", ("kp_2d",)),
    "joints3D": Field("<f4", ("kp_3d",), (JOINTS_3D,)),
    "joints2D": Field("<f4", ("kp_2d",)),
    "body_joints3D": Field("<f4", ("pose", "betas", "trans", "extrinsics"), (SMPL, NO_GENDER), REGRESSOR),
    "body_joints2D": Field("<f4", ("pose", "betas", "trans", "extrinsics", "intrinsics"), (SMPL, NO_GENDER), REGRESSOR),
    "cam_poses": Field("<f4", ("extrinsics",)),
    "gender": Field("<i8", (), (NO_GENDER,)),
    "features": Field("<f4", (), (FEATURES,)),
    "stationaries": Field("<f4"),
    "root": Field("<f4", ("pose", "extrinsics"), (SMPL,)),
    "w_trans": Field("<f4", ("pose", "betas", "trans", "extrinsics"), (SMPL,), PELVIS),
    "c_trans": Field("<f4", ("trans",)),
    "extrinsics": Field("<f4", ("extrinsics",)),
    "intrinsics": Field("<f4", ("intrinsics",)),
    "flipped_bbox": Field("<f4", ("bbox",)),
    "flipped_kp2d": Field("<f4", ("kp_2d",)),
}


@dataclass(frozen=True, slots=True)
class Layout:
    """One of WHAM's files: rows of all videos, or lists with an entry a sequence."""

    file: str
    fields: tuple[str, ...]
    not_read: tuple[str, ...] = ("frame_id", "transl")  # by WHAM's code
    kind: Literal["videos", "motions", "sequences"] = "videos"
    rows_with: str = NO_SIZE  # what rows that lack it are left out for, whatever the fields are

    def reason(self, field: str, why: str) -> str:
        """Why a field is absent, with whether WHAM's code goes without it."""
        return f"{why} ({'WHAM does not read it' if file_field(field) in self.not_read else 'WHAM reads it'})"


def file_field(field: str) -> str:
    """A field of FIELDS by its name in the file."""
    return field.removeprefix("body_")


_LABELS: Final = ("vid", "frame_id", "bbox", "res", "pose", "betas", "kp2d")
_REAL: Final = (*_LABELS, "joints3D", "joints2D", "cam_poses", "features", "stationaries")
_PW3D: Final = (*_LABELS, "body_transl", "body_joints3D", "body_joints2D", "cam_poses", "gender", "features")
_INSTA: Final = (*_LABELS, "joints2D", "features")
_BEDLAM: Final = ("vid", "pose", "betas", "root", "w_trans", "c_trans", "extrinsics", "intrinsics", "bbox", "features")
_SEQUENCES: Final = (*_LABELS, "gender", "cam_poses", "features", "flipped_bbox", "flipped_kp2d", *NOT_DERIVED)
_BY_FLIPPING: Final = tuple(field for field in _SEQUENCES if field.startswith("flipped_"))  # FLIP_EVAL alone


def _sequences(file: str) -> Layout:
    return Layout(file, _SEQUENCES, _BY_FLIPPING, "sequences")


LAYOUTS: Final[Mapping[str, Layout]] = {
    "3dpw/train": Layout("3dpw_train_vit.pth", _PW3D),
    "mpi_inf_3dhp/train": Layout("mpii3d_train_vit.pth", _REAL),
    "h36m/train": Layout("human36m_train_vit.pth", _REAL),
    "insta_variety/train": Layout("insta_train_vit.pth", _INSTA, ("frame_id", "bbox", "res")),
    "bedlam/train": Layout("bedlam_train_vit.pth", _BEDLAM, (), rows_with=NO_RATE),
    "amass/train": Layout("amass.pth", ("vid", "pose", "betas", "transl"), (), "motions", ""),
    "3dpw/validation": _sequences("3dpw_val_vit.pth"),
    "3dpw/test": _sequences("3dpw_test_vit.pth"),
    "emdb/emdb1": _sequences("emdb_1_vit.pth"),
    "emdb/emdb2": _sequences("emdb_2_vit.pth"),
}

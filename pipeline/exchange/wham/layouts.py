"""Fields of WHAM's files by split.  tracks, features -> [files of other programs]

Shin et al.: WHAM: Reconstructing World-Grounded Humans with Accurate 3D Motion, CVPR 2024.
lib/data_utils/ writes these files, lib/data/datasets/ reads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pipeline.exchange.rows import NO_FEATURES, NO_JOINTS_3D, NO_SMPL, FileField

# files that a field needs, as messages name them
SMPL_FILES: Final = "SMPL's files"
WHAM_REGRESSOR: Final = "SMPL's files with J_regressor_wham.npy (31, 6890)"
REGRESSED: Final = 31  # its joints: 17 of COCO's, 14 of LSP's

# why rows are not exported, or a field is absent
NO_SIZE: Final = "no image size"
NO_GENDER: Final = "no gender (male or female)"
NO_RATE: Final = "no rate of 30 frames per second"
NO_TRANS: Final = "no trans"
NO_EXTRINSICS: Final = "no extrinsics"
NO_INTRINSICS: Final = "no intrinsics"
FROM_MIRRORED: Final = "HMR2.0 on mirrored crops, which no stream contains"
FROM_FIRST: Final = "bodies from HMR2.0's heads on the first crop, which no stream contains"
# fields that no cache has, and why
NOT_DERIVED: Final = {
    "flipped_features": FROM_MIRRORED,
    "init_kp3d": FROM_FIRST,
    "init_pose": FROM_FIRST,
    "flipped_init_kp3d": FROM_MIRRORED,
    "flipped_init_pose": FROM_MIRRORED,
}

# columns and checks of several fields
_LABELLED: Final = ("pose", "betas")
_IN_CAMERA: Final = (*_LABELLED, "trans", "extrinsics")
_GENDERED: Final = (NO_SMPL, NO_GENDER, NO_TRANS, NO_EXTRINSICS)

# Fields that begin with body_ are computed with the body of the person's gender. `file_field` gives
# their names in the file.
FIELDS: Final[Mapping[str, FileField]] = {
    "vid": FileField(dtype="<i8"),
    "frame_id": FileField(dtype="<i8"),
    "bbox": FileField(("bbox",)),
    "res": FileField(),
    "pose": FileField(_LABELLED, (NO_SMPL,)),
    "betas": FileField(_LABELLED, (NO_SMPL,)),
    "transl": FileField((*_LABELLED, "trans"), (NO_SMPL, NO_TRANS), body=SMPL_FILES),
    "body_transl": FileField(_IN_CAMERA, _GENDERED, body=SMPL_FILES),
    "kp2d": FileField(("kp_2d",)),
    "joints3D": FileField(("kp_3d",), (NO_JOINTS_3D,)),
    "joints2D": FileField(("kp_2d",)),
    "body_joints3D": FileField(_IN_CAMERA, _GENDERED, body=WHAM_REGRESSOR),
    "body_joints2D": FileField(_IN_CAMERA, (*_GENDERED, NO_INTRINSICS), body=WHAM_REGRESSOR),
    "cam_poses": FileField(("extrinsics",), (NO_EXTRINSICS,)),
    "gender": FileField((), (NO_GENDER,), dtype="<i8"),
    "features": FileField((), (NO_FEATURES,)),
    "stationaries": FileField(),
    "root": FileField(("pose", "extrinsics"), (NO_SMPL, NO_EXTRINSICS)),
    "w_trans": FileField(_IN_CAMERA, (NO_SMPL, NO_TRANS, NO_EXTRINSICS), body=SMPL_FILES),
    "c_trans": FileField(("trans",), (NO_TRANS,)),
    "extrinsics": FileField(("extrinsics",), (NO_EXTRINSICS,)),
    "intrinsics": FileField((), (NO_INTRINSICS,)),
    "flipped_bbox": FileField(("bbox",)),
    "flipped_kp2d": FileField(("kp_2d",)),
}


@dataclass(frozen=True, slots=True)
class FileLayout:
    """One of WHAM's files: rows of all videos, or lists with one entry per sequence."""

    file: str
    fields: tuple[str, ...]
    not_read: tuple[str, ...] = ("frame_id", "transl")  # by WHAM's code
    kind: Literal["videos", "motions", "sequences"] = "videos"
    rows_with: str = NO_SIZE  # check that all rows must pass; "": none

    def reason(self, field: str, why: str) -> str:
        """Why a field is absent, and whether WHAM's code reads it."""
        verb = "does not read" if file_field(field) in self.not_read else "reads"
        return f"{why} (WHAM {verb} it)"


def file_field(field: str) -> str:
    """The name in the file of a field of FIELDS."""
    return field.removeprefix("body_")


_LABELS: Final = ("vid", "frame_id", "bbox", "res", "pose", "betas", "kp2d")
_REAL: Final = (*_LABELS, "joints3D", "joints2D", "cam_poses", "features", "stationaries")
_PW3D: Final = (
    *_LABELS,
    "body_transl",
    "body_joints3D",
    "body_joints2D",
    "cam_poses",
    "gender",
    "features",
)
_INSTA: Final = (*_LABELS, "joints2D", "features")
_BEDLAM: Final = (
    "vid",
    "pose",
    "betas",
    "root",
    "w_trans",
    "c_trans",
    "extrinsics",
    "intrinsics",
    "bbox",
    "features",
)
_AMASS: Final = ("vid", "pose", "betas", "transl")
_SEQUENCES: Final = (
    *_LABELS,
    "gender",
    "cam_poses",
    "features",
    "flipped_bbox",
    "flipped_kp2d",
    *NOT_DERIVED,
)
# read with FLIP_EVAL only
_BY_FLIPPING: Final = tuple(field for field in _SEQUENCES if field.startswith("flipped_"))


def _sequences(file: str) -> FileLayout:
    return FileLayout(file, _SEQUENCES, not_read=_BY_FLIPPING, kind="sequences")


LAYOUTS: Final[Mapping[str, FileLayout]] = {
    "3dpw/train": FileLayout("3dpw_train_vit.pth", _PW3D),
    "mpi_inf_3dhp/train": FileLayout("mpii3d_train_vit.pth", _REAL),
    "h36m/train": FileLayout("human36m_train_vit.pth", _REAL),
    "insta_variety/train": FileLayout(
        "insta_train_vit.pth", _INSTA, not_read=("frame_id", "bbox", "res")
    ),
    "bedlam/train": FileLayout("bedlam_train_vit.pth", _BEDLAM, not_read=(), rows_with=NO_RATE),
    "amass/train": FileLayout("amass.pth", _AMASS, not_read=(), kind="motions", rows_with=""),
    "3dpw/validation": _sequences("3dpw_val_vit.pth"),
    "3dpw/test": _sequences("3dpw_test_vit.pth"),
    "emdb/emdb1": _sequences("emdb_1_vit.pth"),
    "emdb/emdb2": _sequences("emdb_2_vit.pth"),
}

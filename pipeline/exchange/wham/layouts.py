"""Fields of WHAM's files by split.  tracks, features -> [files of other programs]

Shin et al.: WHAM: Reconstructing World-Grounded Humans with Accurate 3D Motion, CVPR 2024.
lib/data_utils/ writes these files, lib/data/datasets/ reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from pipeline.exchange.rows import (
    NO_EXTRINSICS,
    NO_FEATURES,
    NO_INTRINSICS,
    NO_JOINTS_3D,
    NO_RATE,
    NO_SIZE,
    NO_SMPL,
    NO_TRANS,
    RowCheck,
    SplitRows,
)
from pipeline.exchange.wham.bodies import REGRESSOR_FILES, SMPL_FILES
from pipeline.exchange.wham.fields import NO_GENDER, RowFields, UnknownField, WhamField
from pipeline.exchange.wham.motions import MotionFields
from pipeline.skeletons import Array

Fields = Mapping[str, WhamField | UnknownField]  # by their names in the file


def _column(name: str) -> Callable[[SplitRows, range], Array]:
    """The function that reads a column of the cache."""
    return lambda split, rows: split.column(name, rows)


@dataclass(frozen=True, slots=True)
class FileLayout:
    """One of WHAM's files: rows of all videos, or lists with one entry per sequence."""

    file: str
    fields: Fields
    kind: Literal["videos", "motions", "sequences"] = "videos"
    all_rows: tuple[RowCheck, ...] = (NO_SIZE,)  # checks that all rows must pass


_GENDERED: Final = (NO_SMPL, NO_GENDER, NO_TRANS, NO_EXTRINSICS)

_BBOX: Final = WhamField(RowFields.boxes, columns=("bbox",))
_POSE: Final = WhamField(_column("pose"), (NO_SMPL,))
_BETAS: Final = WhamField(_column("betas"), (NO_SMPL,))
_JOINTS_2D: Final = WhamField(RowFields.labelled_joints_2d, columns=("kp_2d",))
_EXTRINSICS: Final = WhamField(_column("extrinsics"), (NO_EXTRINSICS,))
_GENDER: Final = WhamField(RowFields.are_female, (NO_GENDER,), dtype="<i8")
_FEATURES: Final = WhamField(RowFields.features, (NO_FEATURES,))

_LABELS: Final[Fields] = {
    "vid": WhamField(RowFields.segment_numbers, dtype="<i8"),
    "frame_id": WhamField(_column("frame_index"), dtype="<i8"),
    "bbox": _BBOX,
    "res": WhamField(RowFields.resolutions),
    "pose": _POSE,
    "betas": _BETAS,
    "kp2d": WhamField(RowFields.keypoints, columns=("kp_2d",)),
}
_REAL: Final[Fields] = {
    **_LABELS,
    "joints3D": WhamField(RowFields.labelled_joints, (NO_JOINTS_3D,)),
    "joints2D": _JOINTS_2D,
    "cam_poses": _EXTRINSICS,
    "features": _FEATURES,
    "stationaries": WhamField(RowFields.contacts),
}
_PW3D: Final[Fields] = {  # bodies of the people's gender
    **_LABELS,
    "transl": WhamField(RowFields.body_places, _GENDERED, needs=SMPL_FILES),
    "joints3D": WhamField(RowFields.body_joints, _GENDERED, needs=REGRESSOR_FILES),
    "joints2D": WhamField(
        RowFields.project_joints, (*_GENDERED, NO_INTRINSICS), needs=REGRESSOR_FILES
    ),
    "cam_poses": _EXTRINSICS,
    "gender": _GENDER,
    "features": _FEATURES,
}
_INSTA: Final[Fields] = {**_LABELS, "joints2D": _JOINTS_2D, "features": _FEATURES}
_BEDLAM: Final[Fields] = {
    "vid": _LABELS["vid"],
    "pose": _POSE,
    "betas": _BETAS,
    "root": WhamField(RowFields.world_roots, (NO_SMPL, NO_EXTRINSICS)),
    "w_trans": WhamField(
        RowFields.world_places, (NO_SMPL, NO_TRANS, NO_EXTRINSICS), needs=SMPL_FILES
    ),
    "c_trans": WhamField(_column("trans"), (NO_TRANS,)),
    "extrinsics": _EXTRINSICS,
    "intrinsics": WhamField(RowFields.intrinsics, (NO_INTRINSICS,)),
    "bbox": _BBOX,
    "features": _FEATURES,
}
_AMASS: Final[Fields] = {
    "vid": WhamField(MotionFields.vid, dtype=None),
    "pose": WhamField(MotionFields.pose, (NO_SMPL,)),
    "betas": WhamField(MotionFields.betas, (NO_SMPL,)),
    "transl": WhamField(MotionFields.transl, (NO_SMPL, NO_TRANS), needs=SMPL_FILES),
}
_FROM_MIRRORED: Final = UnknownField("HMR2.0 on mirrored crops, which no stream contains")
_FROM_FIRST: Final = UnknownField(
    "bodies from HMR2.0's heads on the first crop, which no stream contains"
)
_SEQUENCES: Final[Fields] = {
    **_LABELS,
    "gender": _GENDER,
    "cam_poses": _EXTRINSICS,
    "features": _FEATURES,
    "flipped_bbox": WhamField(RowFields.flipped_boxes, columns=("bbox",)),
    "flipped_kp2d": WhamField(RowFields.flipped_keypoints, columns=("kp_2d",)),
    "flipped_features": _FROM_MIRRORED,
    "init_kp3d": _FROM_FIRST,
    "init_pose": _FROM_FIRST,
    "flipped_init_kp3d": _FROM_MIRRORED,
    "flipped_init_pose": _FROM_MIRRORED,
}


def _sequences(file: str) -> FileLayout:
    return FileLayout(file, _SEQUENCES, kind="sequences")


LAYOUTS: Final[Mapping[str, FileLayout]] = {
    "3dpw/train": FileLayout("3dpw_train_vit.pth", _PW3D),
    "mpi_inf_3dhp/train": FileLayout("mpii3d_train_vit.pth", _REAL),
    "h36m/train": FileLayout("human36m_train_vit.pth", _REAL),
    "insta_variety/train": FileLayout("insta_train_vit.pth", _INSTA, all_rows=()),
    "bedlam/train": FileLayout("bedlam_train_vit.pth", _BEDLAM, all_rows=(NO_RATE,)),
    "amass/train": FileLayout("amass.pth", _AMASS, kind="motions", all_rows=()),
    "3dpw/validation": _sequences("3dpw_val_vit.pth"),
    "3dpw/test": _sequences("3dpw_test_vit.pth"),
    "emdb/emdb1": _sequences("emdb_1_vit.pth"),
    "emdb/emdb2": _sequences("emdb_2_vit.pth"),
}

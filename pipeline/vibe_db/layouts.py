"""What a database file holds, by dataset: fields, joint orders, names.  tracks, features <-> [database files]"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final, Literal

from pipeline.skeletons import Skeleton

Container = Literal["joblib", "hdf5"]

PICTURE: Final = 224  # px, a side: the pictures in whose pixels InstaVariety's joints are given
CROP_SCALE: Final = 1.3
COMMON: Final = slice(25, 39)  # the 14 joints of the 49 that existing code takes for known in every row


@dataclass(frozen=True, slots=True)
class Layout:
    """One kind of database file. Fields are arrays with a row a frame."""

    file: str  # the usual name, without what stands for the split
    fields: tuple[str, ...]
    joints_2d: Skeleton = "spin49"  # that of joints2D
    joints_3d: str = "spin49"  # that of joints3D
    known_3d: str = "spin49"  # which of them the dataset annotates; what else stands there is no annotation
    container: Container = "joblib"
    crop_scale: float = CROP_SCALE  # crop side / box side that the features were computed with
    first_picture: int = 0  # the number of the picture that is frame 0, where only pictures have numbers

    @property
    def in_crops(self) -> bool:
        """Pictures are crops already: joints are in the pixels of a picture of 224 x 224, and there are no boxes."""
        return "joints2D" in self.fields and "bbox" not in self.fields


_2D: Final = ("vid_name", "img_name", "joints2D", "bbox", "features")
_3D: Final = ("vid_name", "frame_id", "img_name", "joints2D", "joints3D", "bbox", "features")
_SMPL: Final = (*_3D[:5], "shape", "pose", "bbox", "features", "valid")
_MOTION: Final = ("theta", "vid_name")

_LAYOUTS: Final[Mapping[str, Layout]] = {
    "penn_action": Layout("pennaction", _2D, joints_2d="penn_action", first_picture=1),
    "posetrack": Layout("posetrack", _2D),
    "mpi_inf_3dhp": Layout("mpii3d", _3D, known_3d="mpi_inf_3dhp"),
    "3dpw": Layout("3dpw", _SMPL, joints_2d="common14", crop_scale=1.2),
    "h36m": Layout("h36m", _SMPL, known_3d="h36m"),
    "insta_variety": Layout(
        "insta",
        ("vid_name", "frame_id", "joints2D", "features"),
        joints_2d="insta_variety",
        container="hdf5",
        crop_scale=1.0,
    ),
    "amass": Layout("amass", _MOTION),
}
_VALIDATION: Final = {("3dpw", "validation"): "val", ("mpi_inf_3dhp", "test"): "val"}
REQUIRED: Final = ("vid_name", "joints2D", "bbox", "theta")  # of those that a layout has, a file must have these


def layout_of(dataset: str, split: str, columns: Collection[str]) -> Layout:
    """The layout of a split's file; of a dataset that existing code does not know, one with what it has, in 49 joints.

    `columns`: names of the cache's columns that the split has, or that its dataset's reader would fill.
    """
    if dataset not in _LAYOUTS:
        return _general(dataset, columns)
    layout = _LAYOUTS[dataset]
    if dataset == "3dpw" and split != "train":
        return replace(layout, joints_3d="common14")
    if (dataset, split) == ("mpi_inf_3dhp", "test"):
        return replace(layout, fields=(*layout.fields, "valid_i"), known_3d="mpi_inf_3dhp_test")
    return layout


def usual_name(layout: Layout, dataset: str, split: str) -> str:
    """The name under which existing code looks for the file.

    >>> usual_name(layout_of("mpi_inf_3dhp", "test", ()), "mpi_inf_3dhp", "test")
    'mpii3d_val_db.pt'
    """
    if dataset == "amass":
        return "amass_db.pt"
    part = _VALIDATION.get((dataset, split), split)
    return f"{layout.file}_{part}_db.{'h5' if layout.container == 'hdf5' else 'pt'}"


def _general(dataset: str, columns: Collection[str]) -> Layout:
    if "kp_2d" not in columns:
        return Layout(dataset, _MOTION)
    needs = {"joints3D": "kp_3d", "shape": "betas", "pose": "pose", "valid": "valid"}
    return Layout(dataset, tuple(name for name in _SMPL if name not in needs or needs[name] in columns))

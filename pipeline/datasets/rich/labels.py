"""RICH's label files, and its bodies as a camera sees them.  [raw -> tracks]

    bodies/<split>/<sequence>/<frame>/<subject>.pkl     a dict of arrays (1, n): PARTS, in the world
    scan_calibration/<scene>/calibration/<camera>.xml   a static camera, as OpenCV writes matrices

The world is the first camera's. Hands are 12 components about the body model's mean hands. The lens
distortion is not used, as in the release's own projection.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np

from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import StoredArrays, reading, refuse
from pipeline.files.formats.pickles import load_labels
from pipeline.files.raw.files import read_regular
from pipeline.people.boxes import tight_boxes
from pipeline.people.cameras import is_rigid, project, rigid
from pipeline.people.skeletons import Bools, Doubles, Float32s, add_confidence, are_usable_numbers

if TYPE_CHECKING:
    from pipeline.people.smplx_body import SmplxBody

PARTS: Final = {  # keys of a body's file, which are smplx's -> how many numbers; rad, m
    "global_orient": 3,
    "body_pose": 63,
    "jaw_pose": 3,
    "leye_pose": 3,
    "reye_pose": 3,
    "left_hand_pose": 12,
    "right_hand_pose": 12,
    "betas": 10,
    "expression": 10,
    "transl": 3,
}
N_SHARED: Final = 22  # the first joints of SMPL and of SMPL-X, which have the same names
UNPACK: Final = "Unpack the bodies of this sequence again."


class StaticCamera(NamedTuple):
    """A static camera."""

    intrinsics: Doubles  # (3, 3) px
    extrinsics: Doubles  # (4, 4) world to camera, m


def read_camera(file: Path) -> StaticCamera:
    """Read a camera's XML file. Raises RawDataError: `no_camera` if there is none."""
    if not file.is_file():
        expected = "the calibration of this camera"
        do = "Unpack scan_calibration. A moving camera has none: it is not supported."
        raise RawDataError(file, "file", expected, "none", do, reason="no_camera")
    with reading(file, "a camera in OpenCV's XML", do="Unpack scan_calibration again."):
        text = read_regular(file).decode()
        matrix = _read_matrix(text, "CameraMatrix", 4)
        extrinsics = rigid(matrix[:, :3], matrix[:, 3])
        if not is_rigid(extrinsics[None])[0]:
            refuse("a CameraMatrix that is no rotation and translation")
        return StaticCamera(_read_matrix(text, "Intrinsics", 3), extrinsics)


def _read_matrix(text: str, name: str, n_columns: int) -> Doubles:
    """The numbers (3, n) in <name>...<data>...</data>: no XML parser, as a file may be hostile.
    Raises ValueError.
    """
    _, _, content = text.partition(f"<{name}")
    stored = re.search("<data>([^<]*)</data>", content)
    values = np.array(stored[1].split() if stored else [], np.float64)
    if len(values) != 3 * n_columns or not are_usable_numbers(values).all():
        refuse(f"{len(values)} numbers of {name}, or not finite ones")
    return values.reshape(3, n_columns)


class SeenBodies(NamedTuple):
    """A person's bodies in N frames, in a camera's axes; in frames with a flag, of no meaning."""

    joints: Doubles  # (N, 22, 3) m
    kp_2d: Doubles  # (N, 22, 3) px px and confidence: 1 in the image, else 0
    boxes: Float32s  # (N, 4) px, around all vertices
    is_finite: Bools  # (N,) whether the labels are
    is_behind: Bools  # (N,) whether a vertex is not in front of the camera


def see_body(
    file: Path, body: SmplxBody, camera: StaticCamera, size: tuple[int, int]
) -> SeenBodies:
    """Read a body's file, pose the body and project it: N = 1. Raises RawDataError.

    size: width and height px of the images.
    """
    stored = StoredArrays(file, load_labels(file), UNPACK)
    values = {key: stored.take(key, 1, n) for key, n in PARTS.items()}
    is_finite = all(are_usable_numbers(part).all() for part in values.values())
    if not is_finite:
        values = {key: np.zeros_like(part) for key, part in values.items()}
    joints, verts = body.posed(values)
    rotation = camera.extrinsics[:3, :3].T
    shift = values["transl"] @ rotation + camera.extrinsics[:3, 3]
    joints = joints[:, :N_SHARED] @ rotation + shift
    places = project(joints, camera.intrinsics)
    # pixel centres are whole numbers; comparisons with NaN are false
    in_image = np.all((places >= -0.5) & (places <= np.subtract(size, 0.5)), axis=-1)
    outline = project(verts @ rotation + shift, camera.intrinsics)
    boxes, *_ = tight_boxes(add_confidence(outline))
    return SeenBodies(
        joints=joints,
        kp_2d=add_confidence(np.nan_to_num(places), np.asarray(in_image)),
        boxes=boxes,
        is_finite=np.array([is_finite]),
        is_behind=np.asarray(np.isnan(outline).any(axis=(1, 2))),
    )

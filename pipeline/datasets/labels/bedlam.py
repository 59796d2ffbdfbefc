"""BEDLAM's label files: where they may be, and the rows of a scene.  [raw] -> tracks

The reader (`pipeline.datasets.bedlam`) finds the files, and reads one with `SceneLabels.read`. A
file holds arrays of N rows, each of one person in one image:

    imgname             texts: seq_000000/seq_000000_0125.png is image 125 of a sequence
    sub                 texts: rp_emma_posed_008; some files have none
    center, scale       (N, 2) px and (N,): centre of the crop, and a 200th of its side in px
    pose_cam, shape     SMPL's pose (N, 72) and betas (N, 10 or 11), or SMPL-X's (N, 165) and
                        (N, 1 to 16), in the camera
    trans_cam           (N, 3) m
    cam_int, cam_ext    (N, 3, 3) px and (N, 4, 4) m
    gtkps               (N, J, 3) px px visibility
"""

from __future__ import annotations

import functools
import hashlib
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import FileState, StoredArrays, load_npz
from pipeline.people.skeletons import Array, Bools, Doubles, Ints
from pipeline.people.smpl_files import N_BETAS, N_POSE, SMPLX_N_BETAS, SMPLX_N_POSE

AGAIN: Final = "Unpack the labels again."
OTHER_JOINTS: Final = "Use the labels of the official release: other joint orders are unknown."
KEYS: Final = (
    "imgname",
    "center",
    "scale",
    "pose_cam",
    "shape",
    "trans_cam",
    "cam_int",
    "cam_ext",
    "gtkps",
)
UNNAMED: Final = "shape_"  # prefix of subjects without a `sub`
# number of joints in `gtkps` -> how many of the first ones are used
N_JOINTS: Final = {
    24: 22,  # SMPL's order
    45: 22,  # SMPL's order
    127: 22,  # SMPL-X's order
    44: 25,  # OpenPose's order
}
STILL: Final = 1e-4  # tolerance of a static camera, m and entries of a rotation
SKIPPED: Final = "bedlam-labels-v2-format"  # folder with another layout of the same labels


@dataclass(frozen=True, slots=True, eq=False)
class SceneLabels:
    """Labels of N rows, each of one person in one image."""

    sequence: NDArray[np.str_]  # (N,)
    number: Ints  # (N,) of the image
    subject: NDArray[np.str_]  # (N,)
    center: Doubles  # (N, 2) px
    scale: Doubles  # (N,) a 200th of the crop's side in px
    pose: Doubles  # (N, 72), or (N, 165) of SMPL-X
    betas: Doubles  # (N, 10), or (N, 11); SMPL-X's have up to 16
    trans: Doubles  # (N, 3) m
    intrinsics: Doubles  # (N, 3, 3) px
    extrinsics: Doubles  # (N, 4, 4) of the person's own world
    keypoints: Doubles  # (N, J, 3) px px confidence

    @property
    def is_smplx(self) -> bool:
        return bool(self.pose.shape[1] == SMPLX_N_POSE)

    def select(self, rows: Bools | Ints) -> SceneLabels:
        """The labels of some rows."""
        return SceneLabels(*(getattr(self, column.name)[rows] for column in fields(self)))

    def is_camera_static(self) -> bool:
        """Whether the camera is known to be static: `extrinsics` is constant per person, and some
        person is in two images.
        """
        subjects, first, person = np.unique(self.subject, return_index=True, return_inverse=True)
        camera = self.extrinsics
        is_constant = np.allclose(camera, camera[first][person], rtol=0, atol=STILL)
        return len(subjects) < len(person) and is_constant

    @staticmethod
    @functools.lru_cache(maxsize=1)
    def read(file: Path, n_joints: int | None, _state: FileState) -> SceneLabels:
        """Read the labels of a scene. Raises RawDataError, also for pickled objects.

        Without the key `sub`, rows with the same `shape` are one subject.

        Args:
            n_joints: Use so many of the first joints of `gtkps`; None: by N_JOINTS.
            _state: Size and time of the file, by which the cache knows that the file has not
                changed.
        """
        stored = StoredArrays(file, load_npz(file, KEYS, ("sub",)), AGAIN)
        pose = stored.take("pose_cam", None, None)
        n_rows, n_pose = pose.shape
        if n_pose not in (N_POSE, SMPLX_N_POSE):
            expected = f"{N_POSE} (SMPL) or {SMPLX_N_POSE} (SMPL-X) numbers per row"
            raise RawDataError(file, "pose_cam", expected, str(n_pose), AGAIN)

        pattern = r"(seq_[0-9]{6})/\1_([0-9]{4})\.png"
        example = "seq_000000/seq_000000_0125.png"
        images = _match_texts(file, "imgname", stored.content["imgname"], n_rows, pattern, example)

        keypoints = stored.take("gtkps", n_rows, None, 3)
        n_used = _count_used_joints(file, keypoints.shape[1], n_joints)

        betas = stored.take("shape", n_rows, None)
        n_betas = betas.shape[1]
        if n_pose == N_POSE and n_betas not in (N_BETAS, N_BETAS + 1):
            raise RawDataError(file, "shape", "10 or 11 numbers per row", str(n_betas), AGAIN)
        if n_pose == SMPLX_N_POSE and not 1 <= n_betas <= SMPLX_N_BETAS:
            raise RawDataError(file, "shape", "up to 16 numbers per row", str(n_betas), AGAIN)

        if "sub" in stored.content:
            names = _match_texts(
                file, "sub", stored.content["sub"], n_rows, r"[\w.-]+", "rp_emma_posed_008"
            )
            subjects = [name[0] for name in names]
        else:
            digests = [hashlib.sha256(row.tobytes()).hexdigest() for row in betas]
            subjects = [f"{UNNAMED}{digest[:12]}" for digest in digests]
        return SceneLabels(
            sequence=np.array([image[1] for image in images], str),
            number=np.array([int(image[2]) for image in images], np.int64),
            subject=np.array(subjects, str),
            center=stored.take("center", n_rows, 2),
            scale=stored.take("scale", n_rows),
            pose=pose,
            betas=betas,
            trans=stored.take("trans_cam", n_rows, 3),
            intrinsics=stored.take("cam_int", n_rows, 3, 3),
            extrinsics=stored.take("cam_ext", n_rows, 4, 4),
            keypoints=keypoints[:, :n_used].copy(),
        )


def _count_used_joints(file: Path, n_stored: int, n_joints: int | None) -> int:
    """How many of the stored joints are used. Raises RawDataError for an unknown number of them."""
    n_used = n_joints or N_JOINTS.get(n_stored)
    if n_used is None or n_stored < n_used:
        expected = f"{', '.join(map(str, N_JOINTS))} joints"
        if n_joints:
            expected = f"at least {n_joints} joints"
        raise RawDataError(file, "gtkps", expected, str(n_stored), OTHER_JOINTS)
    return n_used


def _match_texts(
    file: Path, key: str, values: Array, n_rows: int, pattern: str, example: str
) -> list[re.Match[str]]:
    """Match each of `n_rows` texts with a pattern. Raises RawDataError if one does not match."""
    expected = f"{n_rows} texts like {example}"
    matches = []
    if values.dtype.kind == "U" and values.ndim == 1:
        for value in values:
            match = re.fullmatch(pattern, str(value))
            if match is None:
                raise RawDataError(file, key, expected, str(value), AGAIN)
            matches.append(match)
    if len(matches) != n_rows:
        raise RawDataError(file, key, expected, f"{values.shape} {values.dtype}", AGAIN)
    return matches

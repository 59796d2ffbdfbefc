"""Scenes of BEDLAM and BEDLAM2: an npz, a row of which is one person in one picture.  [raw] -> tracks -> features

Where labels and pictures are in a raw folder, and what is in a scene's file.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import load_npz, numbers, state_of
from pipeline.files.raw.listing import listed

AGAIN: Final = "Unpack the labels again."
OTHER_JOINTS: Final = "Take the labels of the release's own site: the order of other joints is not known."
KEYS: Final = ("imgname", "center", "scale", "pose_cam", "shape", "trans_cam", "cam_int", "cam_ext", "gtkps")
UNNAMED: Final = "shape_"  # begins the name of a subject whom no `sub` names
N_POSE, N_POSE_X, N_BETAS = 72, 165, 10
UNRELEASED: Final = (  # BEDLAM2's labels have 68 scenes, its release 66: github.com/pixelite1201/BEDLAM/issues/69
    "20240805_5-10_250_busstation_orbit_zoom",
    "20240621_1_250_archmodelsvol8_tracking",
)
STILL: Final = 1e-4  # m, and entries of a rotation: what a camera that stands may differ by
N_JOINTS: Final = {24: 22, 45: 22, 127: 22, 44: 25}  # in `gtkps`: SMPL's, SMPL's, SMPL-X's, OpenPose's and 19 others


def folders_of(*names: str) -> tuple[str, ...]:
    """Folders of labels below a raw folder, the first name's first: as unpacked, and as the releases' scripts do it."""
    return tuple(f"{f}{name}" for name in names for f in ("", "training_labels/", "training-labels/", "bedlam_labels/"))


LABELS: Final = (  # SMPL's first
    *folders_of("all_npz_12_smpl_training", "bedlam-labels"),
    "bedlam_labels",
    *folders_of("all_npz_12_training"),
)
LABELS2: Final = folders_of("all_npz_12_smpl_training", "bedlam_v2", "all_npz_12_training")
IMAGES: Final = ("", "training_images", "training-images", "training-images/bedlam_v2")


def label_files(raw: Path, folders: Sequence[str]) -> dict[str, Path]:
    """Scene -> its file in the first of `folders`, without AGORA's. Raises RawDataError where there is none."""
    files: dict[str, Path] = {}
    for folder in folders:
        for file in sorted((raw / folder).glob("[!.]*.npz")):
            if not file.stem.startswith("agora"):
                files.setdefault(file.stem, file.relative_to(raw))
    if not files:
        expected = " or ".join(f"{folder}/<scene>.npz" for folder in folders if "/" not in folder)
        raise RawDataError(raw, "folder", expected=expected, found="none", do="Unpack the labels.")
    return files


def pictures_of(raw: Path, scene: str) -> Path:
    """The folder of a scene's sequences, below `raw`; the usual one where there is none."""
    names = (scene, without_rate(scene))
    folders = [Path(folder, name, "png") for name in names for folder in IMAGES]
    return next((folder for folder in folders if (raw / folder).is_dir()), folders[0])


def without_rate(scene: str) -> str:
    """A scene's name without `_6fps` or `_30fps`.

    >>> without_rate("20221010_3_1000_batch01hand_6fps")
    '20221010_3_1000_batch01hand'
    """
    return re.sub(r"_[0-9]+fps$", "", scene)


def split_of(scene: str) -> str:
    """What was not released is no one's training: whom it shows may be of a test that is kept back."""
    return "unreleased" if without_rate(scene) in UNRELEASED else "train"


def sequences_in(pictures: Path) -> list[str]:
    """Names of the sequences that have a folder of pictures there."""
    return sorted(entry.name for entry in listed(pictures, {}) if re.fullmatch("seq_[0-9]{6}", entry.name))


def load_scene(file: Path, n_joints: int | None) -> dict[str, NDArray[Any]]:
    """The used arrays of a scene, N rows, with `sequence` and `number` of the picture for `imgname`.

    Of `gtkps` the first `n_joints` (None: 22 or 25, by how many there are). Without `sub`, rows of one `shape` are one
    subject. Read once for all sequences of the scene. Raises RawDataError, also for pickled objects.
    """
    return _cached(file, n_joints, state_of(file))


@functools.lru_cache(maxsize=1)
def _cached(file: Path, n_joints: int | None, state: tuple[int, int]) -> dict[str, NDArray[Any]]:  # noqa: ARG001
    stored = load_npz(file, KEYS, ("sub",))

    def array(key: str, *shape: int | None) -> NDArray[np.float64]:
        return numbers(file, key, stored[key], shape, do=AGAIN)

    def texts(key: str, pattern: str, expected: str) -> list[re.Match[str]]:
        values = stored[key]
        found = [re.fullmatch(pattern, str(v)) for v in values] if values.dtype.kind == "U" and values.ndim == 1 else []
        if len(found) != n or not all(found):
            bad = str(values[found.index(None)]) if None in found else f"{values.shape} {values.dtype}"
            raise RawDataError(file, key, expected=f"{n} texts like {expected}", found=bad, do=AGAIN)
        return [match for match in found if match]

    pose = array("pose_cam", None, None)
    n = len(pose)
    if pose.shape[1] not in (N_POSE, N_POSE_X):
        expected = f"{N_POSE} numbers a row (SMPL) or {N_POSE_X} (SMPL-X)"
        raise RawDataError(file, "pose_cam", expected=expected, found=str(pose.shape[1]), do=AGAIN)
    names = texts("imgname", r"(seq_[0-9]{6})/\1_([0-9]{4})\.png", "seq_000000/seq_000000_0125.png")
    keypoints = array("gtkps", n, None, 3)
    n_found = keypoints.shape[1]
    n_used = n_joints or N_JOINTS.get(n_found)
    if n_used is None or n_found < n_used:
        expected = f"at least {n_joints} joints" if n_joints else f"{', '.join(map(str, N_JOINTS))} joints"
        raise RawDataError(file, "gtkps", expected=expected, found=str(n_found), do=OTHER_JOINTS)
    shape = array("shape", n, None)
    if pose.shape[1] == N_POSE and shape.shape[1] not in (N_BETAS, N_BETAS + 1):
        raise RawDataError(file, "shape", expected="10 or 11 numbers a row", found=str(shape.shape[1]), do=AGAIN)
    if "sub" in stored:
        sub = [match[0] for match in texts("sub", r"[\w.-]+", "rp_emma_posed_008")]
    else:
        sub = [f"{UNNAMED}{hashlib.sha256(row.tobytes()).hexdigest()[:12]}" for row in shape]
    return {
        "sequence": np.array([name[1] for name in names], str),
        "number": np.array([int(name[2]) for name in names], np.int64),
        "sub": np.array(sub, str),
        "center": array("center", n, 2),
        "scale": array("scale", n),
        "pose_cam": pose,
        "shape": shape,
        "trans_cam": array("trans_cam", n, 3),
        "cam_int": array("cam_int", n, 3, 3),
        "cam_ext": array("cam_ext", n, 4, 4),
        "gtkps": keypoints[:, :n_used].copy(),
    }


def camera_stands(labels: Mapping[str, NDArray[Any]]) -> bool:
    """Whether the camera is seen to stand: some person is in two pictures, and each has one `cam_ext` in all."""
    subs, first, person = np.unique(labels["sub"], return_index=True, return_inverse=True)
    camera = labels["cam_ext"]
    return len(subs) < len(person) and np.allclose(camera, camera[first][person], rtol=0, atol=STILL)

"""Label files and folders of BEDLAM and BEDLAM2.  [raw] -> tracks -> features

A scene is an npz file; its rows are one person in one image.
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
from pipeline.files.raw.listing import scan_folder

AGAIN: Final = "Unpack the labels again."
OTHER_JOINTS: Final = "Use the labels of the official release: other joint orders are unknown."
KEYS: Final = ("imgname", "center", "scale", "pose_cam", "shape", "trans_cam", "cam_int", "cam_ext", "gtkps")
UNNAMED: Final = "shape_"  # prefix of subjects without a `sub`
N_POSE, N_POSE_X, N_BETAS = 72, 165, 10
UNRELEASED: Final = (  # BEDLAM2's labels have 68 scenes, its release 66: github.com/pixelite1201/BEDLAM/issues/69
    "20240805_5-10_250_busstation_orbit_zoom",
    "20240621_1_250_archmodelsvol8_tracking",
)
STILL: Final = 1e-4  # tolerance of a static camera, m and entries of a rotation
N_JOINTS: Final = {24: 22, 45: 22, 127: 22, 44: 25}  # in `gtkps` -> used: SMPL's, SMPL's, SMPL-X's, OpenPose's


def folders_of(*names: str) -> tuple[str, ...]:
    """Label folders in a raw folder: as unpacked by hand, and by the releases' scripts."""
    return tuple(f"{f}{name}" for name in names for f in ("", "training_labels/", "training-labels/", "bedlam_labels/"))


LABELS: Final = (  # SMPL's first
    *folders_of("all_npz_12_smpl_training", "bedlam-labels"),
    "bedlam_labels",
    *folders_of("all_npz_12_training"),
)
LABELS2: Final = folders_of("all_npz_12_smpl_training", "bedlam_v2", "all_npz_12_training")
SKIPPED: Final = "bedlam-labels-v2-format"  # another layout of the same labels
IMAGES: Final = ("", "training_images", "training-images", "training-images/bedlam_v2")


def label_files(raw: Path, folders: Sequence[str]) -> dict[str, Path]:
    """Scene -> its file in the first of `folders`, without AGORA's. Raises RawDataError if there is none."""
    files: dict[str, Path] = {}
    for folder in folders:
        for file in sorted((raw / folder).glob("[!.]*.npz")):
            if not file.stem.startswith("agora"):
                files.setdefault(file.stem, file.relative_to(raw))
    if not files:
        skipped = next((folder for folder in folders_of(SKIPPED) if (raw / folder).is_dir()), "")
        found = f"only {skipped}/, which is skipped" if skipped else "none"
        expected = " or ".join(f"{folder}/<scene>.npz" for folder in folders if "/" not in folder)
        raise RawDataError(raw, "folder", expected=expected, found=found, do="Unpack the labels.")
    return files


def images_folder(raw: Path, scene: str) -> Path:
    """The folder of a scene's sequences relative to `raw`; the usual one if none exists."""
    names = (scene, strip_rate(scene))
    folders = [Path(folder, name, "png") for name in names for folder in IMAGES]
    return next((folder for folder in folders if (raw / folder).is_dir()), folders[0])


def strip_rate(scene: str) -> str:
    """A scene's name without `_6fps` or `_30fps`.

    >>> strip_rate("20221010_3_1000_batch01hand_6fps")
    '20221010_3_1000_batch01hand'
    """
    return re.sub(r"_[0-9]+fps$", "", scene)


def split_of(scene: str) -> str:
    """The split of a scene. Scenes without a release may belong to a hidden test set, so they are no training data."""
    return "unreleased" if strip_rate(scene) in UNRELEASED else "train"


def list_sequences(pictures: Path) -> list[str]:
    """Names of the sequences with a folder of images."""
    return sorted(entry.name for entry in scan_folder(pictures, {}) if re.fullmatch("seq_[0-9]{6}", entry.name))


def load_scene(file: Path, n_joints: int | None) -> dict[str, NDArray[Any]]:
    """Read the arrays of a scene (cached), N rows, with the image's `sequence` and `number` instead of `imgname`.

    Uses the first `n_joints` of `gtkps` (None: 22 or 25, depending on their number). Without `sub`, rows with the same
    `shape` are one subject. Raises RawDataError, also for pickled objects.
    """
    return _load_cached(file, n_joints, state_of(file))


@functools.lru_cache(maxsize=1)
def _load_cached(file: Path, n_joints: int | None, state: tuple[int, int]) -> dict[str, NDArray[Any]]:  # noqa: ARG001
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
        expected = f"{N_POSE} (SMPL) or {N_POSE_X} (SMPL-X) numbers per row"
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
        raise RawDataError(file, "shape", expected="10 or 11 numbers per row", found=str(shape.shape[1]), do=AGAIN)
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


def is_camera_static(labels: Mapping[str, NDArray[Any]]) -> bool:
    """Whether the camera is known to be static: `cam_ext` is constant per person, and some person is in two images."""
    subs, first, person = np.unique(labels["sub"], return_index=True, return_inverse=True)
    camera = labels["cam_ext"]
    return len(subs) < len(person) and np.allclose(camera, camera[first][person], rtol=0, atol=STILL)

"""SMPL fits of other authors to Human3.6M, of one JSON file per subject.  [raw] -> tracks

    smpl_param/Human36M_subject<k>_smpl_param.json       fits in the world; or
    annotations/Human36M_subject<k>_SMPL_NeuralAnnot.json
    smpl_param/Human36M_subject<k>_camera.json           cameras that go with them

Each file may be in either folder. The reader of `h36m` lists the files of a subject
(`label_files`), and converts the fits of a video to camera axes (`smpl_labels`).
"""

from __future__ import annotations

import functools
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pipeline.accounting import VideoAccount
from pipeline.cameras import is_rotation, pose_in_camera
from pipeline.datasets.labels.smpl import fit_labels
from pipeline.errors import RawDataError
from pipeline.files.formats.h36m import load_cameras, load_fits
from pipeline.files.formats.sequences import SequenceKeys
from pipeline.files.formats.smpl_files import N_POSE
from pipeline.files.raw import RawVideo
from pipeline.skeletons import Float32s, Floats, Ints

if TYPE_CHECKING:
    from pipeline.body import Body

FILE: Final = (
    "Human36M_subject"  # start of each file's name; the subject's number and an ending follow
)
CAMERA: Final = "_camera.json"
FITS: Final = ("_smpl_param.json", "_SMPL_NeuralAnnot.json")  # the preferred first
FOLDERS: Final = ("smpl_param", "annotations")  # the preferred first


def label_files(raw: Path, subject: str, *kinds: tuple[str, ...]) -> list[Path]:
    """Return a subject's files that exist, at most one of each kind.

    A kind is a tuple of name endings, such as FITS; the first ending with a file in one of FOLDERS
    is used.
    """
    files = list[Path]()
    for endings in kinds:
        for ending, folder in itertools.product(endings, FOLDERS):
            file = Path(folder, f"{FILE}{subject[1:]}{ending}")
            if (raw / file).is_file():
                files.append(file)
                break
    return files


def smpl_labels(
    raw: Path,
    video: RawVideo,
    frame_index: Ints,
    action: SequenceKeys | None,
    joints: Floats,
    body: Body | None,
    account: VideoAccount,
) -> dict[str, Any]:
    """Make the `Track` fields `pose`, `betas` and `has_smpl` from SMPL fits, in camera axes.

    Frames without a usable fit have NaN, and false in `has_smpl` (`fit_labels`).

    Args:
        frame_index: (N,) the frames of the track.
        action: (action, subaction) of the video; None if unknown.
        joints: (N, 14, 3) m, the labelled joints of these frames, in the order of common14.
    """
    file = _find_file(raw, video, FITS)
    load = None
    if file is not None:
        load = functools.partial(_load_in_camera, raw, video, file, frame_index, action)
    return fit_labels(load, len(frame_index), account, body, joints)


def _load_in_camera(
    raw: Path, video: RawVideo, fits: Path, frame_index: Ints, action: SequenceKeys | None
) -> Float32s:
    """Read pose and betas, (N, 82), of the frames `frame_index`; not finite without a fit.

    The global orientation is in camera axes. Raises RawDataError if the camera of the fits, or
    metadata.xml, is missing.
    """
    cameras = _find_file(raw, video, (CAMERA,))
    actual = "nothing that fits"
    do = "See docs/datasets/h36m.md for its place."
    if action is None:
        raise RawDataError(fits, "mapping", "metadata.xml to go with it", actual, do)
    if cameras is None:
        expected = f"Human36M_subject*{CAMERA} to go with it"
        raise RawDataError(fits, "camera", expected, actual, do)
    camera = video.name.rpartition(".")[2]
    rotation = load_cameras(cameras, "R").get(camera, {}).get("R")
    if rotation is None or not is_rotation(rotation[None])[0]:
        actual = "none" if rotation is None else str(rotation.tolist())
        raise RawDataError(cameras, camera, "a rotation", actual, "Download the fits again.")
    values = load_fits(fits, action, frame_index)
    has_fit = np.isfinite(values).all(axis=1)
    values[has_fit, :N_POSE] = pose_in_camera(values[has_fit, :N_POSE], rotation)
    return values


def _find_file(raw: Path, video: RawVideo, endings: tuple[str, ...]) -> Path | None:
    """The video's first file whose name has one of these endings."""
    for file in video.files:
        if file.name.endswith(endings):
            return raw / file
    return None

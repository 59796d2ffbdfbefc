"""Read SMPL bodies that NeuralAnnot fitted to MPI-INF-3DHP, in the world of its own cameras.  [raw]
-> tracks -> features

    MPI-INF-3DHP_SMPL_NeuralAnnot.json      subject -> sequence -> frame -> pose 72, shape 10, trans
                                            3 (m)
    MPI-INF-3DHP_joint_3d.json              subject -> sequence -> frame -> 17 joints (mm)
    MPI-INF-3DHP_camera_1k.json             subject -> sequence -> camera -> R (3, 3), t (3,) (mm):
                                            R X + t

The converter of MPI-INF-3DHP calls `load_fits` for each video. A wrong camera, unit or frame number
would not be visible in the result. So NeuralAnnot's joints must be at the release's labels of the
video (`_require_cameras`), and its bodies at its joints (`_require_bodies`).

The first two files have hundreds of MB, so only the bytes of a sequence are parsed, and each
process caches the last sequence.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import (
    FileState,
    StoredArrays,
    load_json,
    number_rows,
    reading,
)
from pipeline.files.formats.sequences import SequenceKeys, load_sequence
from pipeline.people.cameras import pose_in_camera
from pipeline.people.skeletons import JOINTS, Doubles, Ints
from pipeline.people.smpl_files import N_POSE

FITS: Final = "MPI-INF-3DHP_SMPL_NeuralAnnot.json"
WORLD: Final = "MPI-INF-3DHP_joint_3d.json"
CAMERAS: Final = "MPI-INF-3DHP_camera_1k.json"
CALIBRATED: Final = "camera.calibration"  # the release's file of cameras
ORDER: Final = "mpi_inf_3dhp_test"  # order of the 17 joints
N_JOINTS = len(JOINTS[ORDER])
PELVIS = JOINTS[ORDER].index("hip")
KEYS: Final = ("pose", "shape", "trans")
N_FIT = 82  # numbers of pose and shape
N_BODY = 85  # numbers of all KEYS together
CLOSE_M: Final = 0.005  # largest distance of the joints from the labels
FAR_M: Final = 0.025  # that in a single frame
NEAR_M: Final = 0.6  # largest distance of `trans` from the pelvis; about 0.3 m is usual
SHIFTS: Final = (-2, -1, 1, 2)  # by how many frames wrong frame numbers may be off
AGAIN: Final = "Put NeuralAnnot's three files into the raw folder as they are downloaded."


def load_fits(raw: Path, video: str, kp_3d: Doubles, calibrated: Any, rows: Ints) -> Doubles:
    """Read the fits of T frames of a video: (T, 82), pose in rad with the global orientation in the
    camera, then betas. Frames without a fit, or with one that is elsewhere, are NaN.

    Args:
        video: name of the video, such as "S1/Seq2/video_0".
        kp_3d: all labels of the video, (F, 17, 3) m in the camera's axes, in ORDER.
        calibrated: the release's camera, (4, 4) m, for a camera that CAMERAS lacks; None: unknown.
        rows: the T frames.

    Raises RawDataError if NeuralAnnot's joints, seen by the camera, are not at the labels, with the
    probable cause (a wrong camera, unit or frame number); and if the bodies are not at the joints.
    """
    sequence = video.rpartition("/video_")[0]
    subject, number = map(int, sequence.removeprefix("S").split("/Seq"))
    keys = SequenceKeys(subject, number)
    bodies = _load(raw / FITS, keys, N_BODY, _flatten_body, FileState.read(raw / FITS))
    world = _load(raw / WORLD, keys, 3 * N_JOINTS, np.ravel, FileState.read(raw / WORLD))
    joints = _PersonRows(world.frames, world.values.reshape(-1, N_JOINTS, 3) / 1000)
    fits = np.full((len(rows), N_FIT), np.nan)
    if not len(bodies.frames):
        return fits

    cameras = _load_cameras(raw / CAMERAS, keys, video, calibrated)
    _require_cameras(raw / CAMERAS, video, cameras, joints, kp_3d)
    trans = _PersonRows(bodies.frames, bodies.values[:, N_FIT:])
    pelvis = _PersonRows(joints.frames, joints.values[:, PELVIS])
    _require_bodies(raw / FITS, sequence, trans, pelvis)

    frames, to_rows, from_rows = np.intersect1d(rows, bodies.frames, return_indices=True)
    is_there = np.isin(frames, _frames_at_labels(cameras[0], joints, kp_3d, trans, pelvis))
    to_rows = to_rows[is_there]
    from_rows = from_rows[is_there]
    bodies_in_rows = bodies.values[from_rows]
    pose = pose_in_camera(bodies_in_rows[:, :N_POSE], cameras[0].rotation)
    fits[to_rows] = np.concatenate([pose, bodies_in_rows[:, N_POSE:N_FIT]], axis=1)
    return fits


class _PersonRows(NamedTuple):
    """The numbers of some frames of a sequence."""

    frames: Ints  # (N,) increasing
    values: Doubles  # (N, ...)


class _CalibratedCamera(NamedTuple):
    """A camera, which maps a point X of the world to rotation X + translation."""

    name: str
    rotation: Doubles  # (3, 3)
    translation: Doubles  # (3,) m


def _load_cameras(
    file: Path, keys: SequenceKeys, video: str, calibrated: Any
) -> list[_CalibratedCamera]:
    """Read the cameras of a sequence; the video's own is the first."""
    stored: Any = load_json(file, do=AGAIN)
    with reading(file, "subjects, sequences and cameras", do=AGAIN):
        of_sequence = stored.get(str(keys.outer), {}).get(str(keys.inner), {})
        entries = StoredArrays(file, of_sequence, AGAIN)
        names = [*of_sequence]
    cameras = {}
    if calibrated is not None:
        matrix = np.asarray(calibrated, np.float64)
        cameras[CALIBRATED] = _CalibratedCamera(CALIBRATED, matrix[:3, :3], matrix[:3, 3])
    for name in names:
        rotation = entries.take(f"{name}/R", 3, 3)
        cameras[name] = _CalibratedCamera(name, rotation, entries.take(f"{name}/t", 3) / 1000)

    camera = video.rpartition("/video_")[2]
    if camera not in cameras:
        camera = CALIBRATED
    if camera not in cameras:
        raise RawDataError(file, video, "R and t", "neither", AGAIN)
    return [cameras.pop(camera), *cameras.values()]


def _require_cameras(
    file: Path,
    video: str,
    cameras: Sequence[_CalibratedCamera],
    joints: _PersonRows,
    kp_3d: Doubles,
) -> None:
    """Raise RawDataError unless the joints, seen by the first camera, are at the labels, and no
    shift of frame numbers fits better. The error names the other camera, unit or frame numbers that
    would fit.
    """

    def distance(camera: _CalibratedCamera = cameras[0], scale: float = 1, shift: int = 0) -> float:
        """The median distance in m of the joints from the labels."""
        rows = joints.frames + shift
        is_labelled = (rows >= 0) & (rows < len(kp_3d))
        in_world = scale * joints.values[is_labelled]
        in_camera = in_world @ camera.rotation.T + camera.translation
        return _median_length(in_camera - kp_3d[rows[is_labelled]])

    # cause of an error -> the distance if it were mended
    causes = {
        f"{WORLD}, frame numbers: the labels of {k:+d} fit": distance(shift=k) for k in SHIFTS
    }
    away = distance()
    if not away > min(CLOSE_M, *causes.values()):
        return
    for unit, scale in (("m", 1000), ("cm", 10)):
        causes[f"{WORLD}, unit: {unit} fit"] = distance(scale=scale)
    for camera in cameras[1:]:
        causes[f"{CAMERAS}, camera: that of {camera.name} fits"] = distance(camera)
    cause = min(causes, key=causes.__getitem__)
    actual = f"{away * 1000:.0f} mm away"
    if causes[cause] <= CLOSE_M:
        actual += f" ({cause})"
    expected = f"joints of {WORLD} within {CLOSE_M * 1000:.0f} mm of annot3"
    raise RawDataError(file, video, expected, actual, AGAIN)


def _frames_at_labels(
    camera: _CalibratedCamera,
    joints: _PersonRows,
    kp_3d: Doubles,
    trans: _PersonRows,
    pelvis: _PersonRows,
) -> Ints:
    """The frames in which the joints are at the labels, and a body's `trans` near the pelvis."""
    is_labelled = (joints.frames >= 0) & (joints.frames < len(kp_3d))
    frames = joints.frames[is_labelled]
    in_camera = joints.values[is_labelled] @ camera.rotation.T + camera.translation
    off = np.median(np.linalg.norm(in_camera - kp_3d[frames], axis=-1), axis=1)
    _, rows, pelvis_rows = np.intersect1d(trans.frames, pelvis.frames, return_indices=True)
    away = np.linalg.norm(trans.values[rows] - pelvis.values[pelvis_rows], axis=-1)
    return np.intersect1d(frames[off <= FAR_M], trans.frames[rows][away <= NEAR_M])


def _median_length(vectors: Doubles) -> float:
    """The median length of the finite vectors among (N, ..., 3); infinity if there is none."""
    lengths = np.linalg.norm(vectors, axis=-1)
    is_finite = np.isfinite(lengths)
    if not is_finite.any():
        return np.inf
    return float(np.median(lengths[is_finite]))


def _flatten_body(body: Any) -> Doubles:
    """(85,) pose, shape and trans of a body."""
    return np.hstack([body[key] for key in KEYS])


@functools.lru_cache(maxsize=2)  # one sequence of each of the two large files
def _load(
    file: Path,
    keys: SequenceKeys,
    n: int,
    flatten: Callable[[Any], Doubles],
    _state: FileState,
) -> _PersonRows:
    """Read a sequence, with n numbers for each frame. `flatten` makes them of a frame's content.
    `_state`: of the file, so that a changed file is read again.
    """
    stored = load_sequence(file, keys, "subject, sequence and frame", do=AGAIN)
    with reading(file, f"{n} numbers a frame", do=AGAIN):
        rows = [flatten(content) for content in stored.values()]
    values = number_rows(file, [f"{keys}/{frame}" for frame in stored], rows, n)
    return _PersonRows(np.array([*stored], np.int64), values.reshape(-1, n))


def _require_bodies(file: Path, sequence: str, trans: _PersonRows, pelvis: _PersonRows) -> None:
    """Raise RawDataError unless the bodies' `trans` is near the pelvis, and moves with it in the
    same frames, not in frames that are shifted by SHIFTS. Both are (N, 3) m.
    """

    def offsets(shift: int) -> Doubles:
        """The vectors (N, 3) in m from the pelvis to `trans`, if frame numbers are shifted."""
        _, trans_rows, pelvis_rows = np.intersect1d(
            trans.frames + shift, pelvis.frames, return_indices=True
        )
        return trans.values[trans_rows] - pelvis.values[pelvis_rows]

    def spread(shift: int) -> float:
        """The median distance in m of the offsets from their median."""
        offset = offsets(shift)
        if len(offset):
            offset -= np.median(offset, axis=0)
        return _median_length(offset)

    away = _median_length(offsets(0))
    best_shift = min(SHIFTS, key=spread)
    actual = ""
    if not away <= NEAR_M:
        actual = f"{away:.3g} m away, or in another unit"
    elif spread(0) > max(CLOSE_M, 3 * spread(best_shift)):
        actual = f"that of other frame numbers: {best_shift:+d}"
    if actual:
        raise RawDataError(file, sequence, f"trans in m, near the pelvis in {WORLD}", actual, AGAIN)

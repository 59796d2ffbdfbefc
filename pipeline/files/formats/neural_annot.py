"""Read SMPL bodies that NeuralAnnot fitted to MPI-INF-3DHP, in the world of its own cameras.  [raw]
-> tracks -> features

    MPI-INF-3DHP_SMPL_NeuralAnnot.json      subject -> sequence -> frame -> pose 72, shape 10, trans
                                            3 (m)
    MPI-INF-3DHP_joint_3d.json              subject -> sequence -> frame -> 17 joints (mm)
    MPI-INF-3DHP_camera_1k.json             subject -> sequence -> camera -> R (3, 3), t (3,) (mm):
                                            R X + t

The first two have hundreds of MB, so only the bytes of a sequence are parsed, and each process
caches the last sequence. The bodies are checked against the release's labels, since a wrong camera,
unit or frame number would not be visible otherwise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from pipeline.cameras import pose_in_camera
from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import (
    load_json,
    load_sequence,
    numbers,
    reading,
    state_of,
    table,
)
from pipeline.skeletons import JOINTS, Doubles, Ints

FITS: Final = "MPI-INF-3DHP_SMPL_NeuralAnnot.json"
WORLD: Final = "MPI-INF-3DHP_joint_3d.json"
CAMERAS: Final = "MPI-INF-3DHP_camera_1k.json"
CALIBRATED: Final = "camera.calibration"  # the release's file of cameras
ORDER: Final = "mpi_inf_3dhp_test"  # order of the 17 joints
N_JOINTS = len(JOINTS[ORDER])
PELVIS = JOINTS[ORDER].index("hip")
KEYS: Final = ("pose", "shape", "trans")
N_POSE = 72
N_BODY = 85  # numbers of all KEYS together
CLOSE_M: Final = 0.005  # largest distance of the joints from the labels
NEAR_M: Final = 0.6  # largest distance of `trans` from the pelvis; about 0.3 m is usual
SHIFTS: Final = (-2, -1, 1, 2)  # by how many frames wrong frame numbers may be off
AGAIN: Final = "Put NeuralAnnot's three files into the raw folder as they are downloaded."


def load_fits(raw: Path, video: str, kp_3d: Doubles, calibrated: Any, rows: Ints) -> Doubles:
    """Read the fits of T frames of a video: (T, 82), pose in rad with the global orientation in the
    camera, then betas. Frames without a fit are NaN.

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
    keys = subject, number
    fitted, bodies = _load(raw / FITS, keys, N_BODY, _flatten_body, state_of(raw / FITS))
    frames, flat = _load(raw / WORLD, keys, 3 * N_JOINTS, np.ravel, state_of(raw / WORLD))
    joints = flat.reshape(-1, N_JOINTS, 3) / 1000
    labels = np.full((len(rows), N_BODY - 3), np.nan)
    if not len(fitted):
        return labels

    cameras = _load_cameras(raw / CAMERAS, keys, video, calibrated)
    _require_cameras(raw / CAMERAS, video, cameras, joints, frames, kp_3d)
    _require_bodies(raw / FITS, sequence, fitted, bodies[:, -3:], frames, joints[:, PELVIS])
    _, chosen, fit = np.intersect1d(rows, fitted, return_indices=True)
    pose = pose_in_camera(bodies[fit, :N_POSE], cameras[0].rotation)
    labels[chosen] = np.concatenate([pose, bodies[fit, N_POSE:-3]], axis=1)
    return labels


class _Camera(NamedTuple):
    """A camera, which maps a point X of the world to rotation X + translation."""

    name: str
    rotation: Doubles  # (3, 3)
    translation: Doubles  # (3,) m


def _load_cameras(file: Path, keys: tuple[int, int], video: str, calibrated: Any) -> list[_Camera]:
    """Read the cameras of a sequence; the video's own is the first."""
    stored: Any = load_json(file, do=AGAIN)
    cameras = {}
    if calibrated is not None:
        cameras[CALIBRATED] = calibrated[:3, :3], calibrated[:3, 3]
    with reading(file, "subjects, sequences and cameras", do=AGAIN):
        listed = stored.get(str(keys[0]), {}).get(str(keys[1]), {})
        for name, entry in listed.items():
            cameras[name] = entry["R"], np.divide(entry["t"], 1000)

    camera = video.rpartition("/video_")[2]
    if camera not in cameras:
        camera = CALIBRATED
    if camera not in cameras:
        raise RawDataError(file, video, "R and t", "neither", AGAIN)
    return [
        _Camera(
            name,
            numbers(file, f"{name}/R", cameras[name][0], (3, 3)),
            numbers(file, f"{name}/t", cameras[name][1], (3,)),
        )
        for name in sorted(cameras, key=camera.__ne__)
    ]


def _require_cameras(
    file: Path,
    video: str,
    cameras: Sequence[_Camera],
    joints: Doubles,
    frames: Ints,
    kp_3d: Doubles,
) -> None:
    """Raise RawDataError unless the joints, seen by the first camera, are at the labels. The error
    names the other camera, unit or frame numbers that would fit.
    """

    def distance(camera: _Camera = cameras[0], scale: float = 1, shift: int = 0) -> float:
        """The median distance in m of the joints from the labels."""
        rows = frames + shift
        labelled = (rows >= 0) & (rows < len(kp_3d))
        in_camera = scale * joints[labelled] @ camera.rotation.T + camera.translation
        return _median_length(in_camera - kp_3d[rows[labelled]])

    causes = {
        f"{WORLD}, frame numbers: the labels of {k:+d} fit": distance(shift=k) for k in SHIFTS
    }
    away = distance()
    if not away > min(CLOSE_M, *causes.values()):
        return
    for unit, scale in (("m", 1000), ("cm", 10)):
        causes[f"{WORLD}, unit: {unit} fit"] = distance(scale=scale)
    for other in cameras[1:]:
        causes[f"{CAMERAS}, camera: that of {other.name} fits"] = distance(other)
    cause = min(causes, key=causes.__getitem__)
    found = f"{away * 1000:.0f} mm away"
    if causes[cause] <= CLOSE_M:
        found += f" ({cause})"
    expected = f"joints of {WORLD} within {CLOSE_M * 1000:.0f} mm of annot3"
    raise RawDataError(file, video, expected, found, AGAIN)


def _median_length(vectors: Doubles) -> float:
    """The median length of the finite vectors among (N, ..., 3); infinity if there is none."""
    lengths = np.linalg.norm(vectors, axis=-1)
    is_finite = np.isfinite(lengths)
    return float(np.median(lengths[is_finite])) if is_finite.any() else np.inf


def _flatten_body(body: Any) -> Doubles:
    return np.hstack([body[key] for key in KEYS])


@functools.lru_cache(maxsize=2)  # one sequence of each of the two large files
def _load(
    file: Path,
    keys: tuple[int, int],
    n: int,
    flatten: Callable[[Any], Doubles],
    _state: tuple[int, int],
) -> tuple[Ints, Doubles]:
    """Read a sequence: its frames (N,), increasing, and their n numbers (N, n). `flatten` turns the
    content of a frame into n numbers.
    """
    stored = load_sequence(file, keys, "subject, sequence and frame", do=AGAIN)
    with reading(file, f"{n} numbers a frame", do=AGAIN):
        rows = [flatten(content) for content in stored.values()]
    values = table(file, [f"{keys[0]}/{keys[1]}/{frame}" for frame in stored], rows, n)
    return np.array([*stored], np.int64), values.reshape(-1, n)


def _require_bodies(
    file: Path, sequence: str, fitted: Ints, trans: Doubles, frames: Ints, pelvis: Doubles
) -> None:
    """Raise RawDataError unless the bodies' `trans` is near the pelvis, and moves with it in the
    same frames, not in frames that are shifted by SHIFTS.
    """

    def offsets(shift: int) -> Doubles:
        """The vectors (N, 3) in m from the pelvis to `trans`, if frame numbers are shifted."""
        _, fit_rows, label_rows = np.intersect1d(fitted + shift, frames, return_indices=True)
        return trans[fit_rows] - pelvis[label_rows]

    def spread(shift: int) -> float:
        """The median distance in m of the offsets from their median."""
        offset = offsets(shift)
        if len(offset):
            offset -= np.median(offset, axis=0)
        return _median_length(offset)

    away = _median_length(offsets(0))
    best = min(SHIFTS, key=spread)
    found = ""
    if not away <= NEAR_M:
        found = f"{away:.3g} m away, or in another unit"
    elif spread(0) > max(CLOSE_M, 3 * spread(best)):
        found = f"that of other frame numbers: {best:+d}"
    if found:
        raise RawDataError(file, sequence, f"trans in m, near the pelvis in {WORLD}", found, AGAIN)

"""SMPL bodies that NeuralAnnot fitted to MPI-INF-3DHP, in the world of its own cameras.  [raw] ->
tracks -> features

    MPI-INF-3DHP_SMPL_NeuralAnnot.json      subject -> sequence -> frame -> pose 72, shape 10, trans
    3 (m) MPI-INF-3DHP_joint_3d.json              subject -> sequence -> frame -> 17 joints (mm)
    MPI-INF-3DHP_camera_1k.json             subject -> sequence -> camera -> R (3, 3), t (3,) (mm):
    R X + t

The first two have hundreds of MB: only the bytes of a sequence are parsed, and each process keeps
the last one.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

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

FITS, WORLD, CAMERAS = (
    f"MPI-INF-3DHP_{name}.json" for name in ("SMPL_NeuralAnnot", "joint_3d", "camera_1k")
)
ORDER: Final = "mpi_inf_3dhp_test"  # of the 17 joints
N_JOINTS = len(JOINTS[ORDER])
PELVIS = JOINTS[ORDER].index("hip")
KEYS: Final = ("pose", "shape", "trans")
N_POSE = 72
N_BODY = 85  # numbers of pose, and of all KEYS
CLOSE_M: Final = 0.005  # from the joints to the labels
NEAR_M: Final = 0.6  # from `trans` to the pelvis: a body's origin is about 0.3 m from it
SHIFTS: Final = (-2, -1, 1, 2)  # frames that a wrong count is off by
AGAIN: Final = "Put NeuralAnnot's three files into the raw folder as they are downloaded."


def load_fits(raw: Path, video: str, kp_3d: Doubles, calibrated: Any, rows: Ints) -> Doubles:
    """(T, 82) pose, rad, its global orientation in the camera, and betas of some rows; NaN without
    a fit.

    video: such as "S1/Seq2/video_0". kp_3d: (F, 17, 3) m, all labels in the camera's axes, in
    ORDER. calibrated: (4, 4) m, the release's camera, for one that CAMERAS does not have; None if
    it is unknown.

    Raises RawDataError if the joints in the camera are not at the labels, naming the wrong camera,
    unit or frame numbers; and if the bodies are not at the joints.
    """
    sequence, _, camera = video.rpartition("/video_")
    subject, number = map(int, sequence.removeprefix("S").split("/Seq"))
    fitted, bodies = _load(
        raw / FITS, (subject, number), N_BODY, _flatten_body, state_of(raw / FITS)
    )
    frames, flat = _load(
        raw / WORLD, (subject, number), 3 * N_JOINTS, np.ravel, state_of(raw / WORLD)
    )
    joints = flat.reshape(-1, N_JOINTS, 3) / 1000
    labels = np.full((len(rows), N_BODY - 3), np.nan)
    if not len(fitted):
        return labels
    stored: Any = load_json(raw / CAMERAS, do=AGAIN)
    with reading(raw / CAMERAS, "subjects, sequences and cameras", do=AGAIN):
        listed = stored.get(str(subject), {}).get(str(number), {})
        cameras = {
            name: (entry["R"], np.divide(entry["t"], 1000)) for name, entry in listed.items()
        }
    if calibrated is not None:
        cameras = {"camera.calibration": (calibrated[:3, :3], calibrated[:3, 3]), **cameras}
    key = camera if camera in cameras else "camera.calibration"
    if key not in cameras:
        raise RawDataError(raw / CAMERAS, video, "R and t", "neither", AGAIN)
    own, *others = (
        (k, *_matrix(raw / CAMERAS, k, *cameras[k]))
        for k in (key, *(k for k in cameras if k != key))
    )

    def distance(
        camera: tuple[str, Doubles, Doubles] = own, scale: float = 1, shift: int = 0
    ) -> float:
        rows = frames + shift
        labelled = (rows >= 0) & (rows < len(kp_3d))
        apart = scale * joints[labelled] @ camera[1].T + camera[2] - kp_3d[rows[labelled]]
        return float(np.median(np.linalg.norm(apart, axis=-1))) if labelled.any() else np.inf

    causes = {
        f"{WORLD}, frame numbers: the labels of {k:+d} fit": distance(shift=k) for k in SHIFTS
    }
    if (apart := distance()) > min(CLOSE_M, *causes.values()):
        causes |= {
            f"{WORLD}, unit: {u} fit": distance(scale=s) for u, s in (("m", 1000), ("cm", 10))
        }
        causes |= {
            f"{CAMERAS}, camera: that of {other[0]} fits": distance(other) for other in others
        }
        cause = min(causes, key=causes.__getitem__)
        away = f"{apart * 1000:.0f} mm away" + (f" ({cause})" if causes[cause] <= CLOSE_M else "")
        expected = f"joints of {WORLD} within {CLOSE_M * 1000:.0f} mm of annot3"
        raise RawDataError(raw / CAMERAS, video, expected, away, AGAIN)
    _require_bodies(raw / FITS, sequence, fitted, bodies[:, -3:], frames, joints[:, PELVIS])
    _, chosen, fit = np.intersect1d(rows, fitted, return_indices=True)
    labels[chosen] = np.concatenate(
        [pose_in_camera(bodies[fit, :N_POSE], own[1]), bodies[fit, N_POSE:-3]], axis=1
    )
    return labels


def _matrix(file: Path, key: str, rotation: Any, shift: Any) -> tuple[Doubles, Doubles]:
    return numbers(file, f"{key}/R", rotation, (3, 3)), numbers(file, f"{key}/t", shift, (3,))


def _flatten_body(body: Any) -> Doubles:
    return np.hstack([body[key] for key in KEYS])


@functools.lru_cache(maxsize=2)  # of the two files
def _load(
    file: Path,
    keys: tuple[int, int],
    n: int,
    flatten: Callable[[Any], Doubles],
    _state: tuple[int, int],
) -> tuple[Ints, Doubles]:
    """A sequence's frames (N,), increasing, and (N, n) their numbers."""
    stored = load_sequence(file, keys, "subject, sequence and frame", do=AGAIN)
    with reading(file, f"{n} numbers a frame", do=AGAIN):
        rows = [flatten(content) for content in stored.values()]
    values = table(file, [f"{keys[0]}/{keys[1]}/{frame}" for frame in stored], rows, n)
    return np.array([*stored], np.int64), values.reshape(-1, n)


def _require_bodies(
    file: Path, sequence: str, fitted: Ints, trans: Doubles, frames: Ints, pelvis: Doubles
) -> None:
    """Raise RawDataError unless `trans` is near the pelvis, and follows it in the same frame."""

    def apart(shift: int) -> tuple[float, float]:
        """Median distance, m, and its spread."""
        _, fit_rows, label_rows = np.intersect1d(fitted + shift, frames, return_indices=True)
        offset = trans[fit_rows] - pelvis[label_rows] if len(fit_rows) else np.full((1, 3), np.inf)
        spread = offset - np.median(offset, axis=0) if len(fit_rows) else offset
        return float(np.median(np.linalg.norm(offset, axis=1))), float(
            np.median(np.linalg.norm(spread, axis=1))
        )

    away, spread = apart(0)
    best = min(SHIFTS, key=lambda shift: apart(shift)[1])
    found = "" if away <= NEAR_M else f"{away:.3g} m away, or in another unit"
    if not found and spread > max(CLOSE_M, 3 * apart(best)[1]):
        found = f"that of other frame numbers: {best:+d}"
    if found:
        raise RawDataError(file, sequence, f"trans in m, near the pelvis in {WORLD}", found, AGAIN)

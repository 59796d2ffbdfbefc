"""Labels of MPI-INF-3DHP: annot.mat (MATLAB v5) of train, annot_data.mat (7.3) of test.  [raw] -> tracks -> features

And Skeletool's camera.calibration: after the first line every camera has a block of 7 lines, each a name and its
numbers.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import load_mat, numbers
from pipeline.files.formats.hdf5 import load_hdf5
from pipeline.files.raw.files import read_regular
from pipeline.skeletons import JOINTS

Doubles = NDArray[np.float64]

N_CAMERAS: Final = 14  # in every annot.mat
CAMERAS: Final = (0, 1, 2, 4, 5, 6, 7, 8)  # those that are usually used: the release's vnect_cameras.zip
TRAIN, TEST = "mpi_inf_3dhp", "mpi_inf_3dhp_test"  # the skeletons of annot.mat and of annot_data.mat
AGAIN: Final = "Download it again, with the release's get_dataset.sh (train) or get_testset.sh (test)."
FIRST_LINE: Final = "Skeletool Camera Calibration File V1.0"
LARGEST: Final = 1e7  # in it


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """One person before one camera, N frames."""

    skeleton: str  # a key of JOINTS, of J joints
    kp_2d: Doubles  # (N, J, 2) px
    kp_3d: Doubles  # (N, J, 3) m, camera axes, not centred
    valid: NDArray[np.bool_] | None = None  # (N,) evaluation may use the frame; None: not known


def load_annot(file: Path, camera: int) -> Labels:
    """annot.mat before one camera. The cells of other cameras may hold anything.

    Raises RawDataError; `no_label` where there is no file.
    """
    _require_file(file)
    status = file.stat()
    cells = _cells(file, status.st_size, status.st_mtime_ns)
    shape_2d, shape_3d = ((len(JOINTS[TRAIN]), n) for n in (2, 3))
    kp_2d = numbers(file, f"annot2{{{camera + 1}}}", cells["annot2"][camera], (None, math.prod(shape_2d)))
    kp_3d = numbers(file, f"annot3{{{camera + 1}}}", cells["annot3"][camera], (len(kp_2d), math.prod(shape_3d)))
    return Labels(TRAIN, kp_2d.reshape(-1, *shape_2d), kp_3d.reshape(-1, *shape_3d) / 1000)


def load_annot_data(file: Path) -> Labels:
    """annot_data.mat of a test video: 3D of the universal skeleton, as the published figures use it.

    Raises as `load_annot` does.
    """
    _require_file(file)
    n_joints = len(JOINTS[TEST])
    stored = load_hdf5(
        file,
        {
            "annot2": [(None, 1, n_joints, 2)],
            "univ_annot3": [(None, 1, n_joints, 3)],
            "valid_frame": [(None, 1), (1, None), (None,)],
        },
    )
    counts = {key: array.size if key == "valid_frame" else len(array) for key, array in stored.items()}
    if len(set(counts.values())) != 1:
        raise RawDataError(file, "annot2", expected="one row a frame everywhere", found=f"{counts} rows", do=AGAIN)
    valid = stored["valid_frame"].reshape(-1) > 0
    return Labels(TEST, stored["annot2"][:, 0], stored["univ_annot3"][:, 0] / 1000, valid)


# Eight videos share a file of some 100 MB. The last one is kept in each process, as float32 and of the eight cameras
# alone: 60 MB for the longest sequence, however many there are. Size and time are there for when it changes.
@functools.lru_cache(maxsize=1)
def _cells(file: Path, n_bytes: int, mtime_ns: int) -> Mapping[str, Mapping[int, NDArray[Any]]]:  # noqa: ARG001
    """Variable -> camera -> its cell: float32 where it holds numbers, else as it is."""
    cells: dict[str, dict[int, NDArray[Any]]] = {}
    for key in ("annot2", "annot3"):  # one after the other: the file has several times what is used
        variables = load_mat(file, (key,), optional=("cameras",))
        stored = variables[key]
        if stored.dtype != object or stored.size != N_CAMERAS:
            expected, found = f"a cell of {N_CAMERAS} cameras", f"{stored.shape} {stored.dtype}"
            raise RawDataError(file, key, expected=expected, found=found, do=AGAIN)
        _require_order(file, variables.get("cameras"))
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is dropped as not finite
            arrays = {camera: np.asarray(stored.reshape(-1)[camera]) for camera in CAMERAS}
            cells[key] = {k: a.astype(np.float32) if a.dtype.kind in "biuf" else a for k, a in arrays.items()}
    return cells


def _require_order(file: Path, cameras: NDArray[Any] | None) -> None:
    """Row k of a cell is camera k. Where `cameras` lists as many numbers, they must be so too, from 0 or from 1."""
    if cameras is None or cameras.dtype.kind not in "biuf" or cameras.size != N_CAMERAS:
        return
    order = cameras.reshape(-1).astype(np.float64)
    if order[0] not in (0, 1) or (np.diff(order) != 1).any():
        expected, found = f"cameras 0 to {N_CAMERAS - 1} in order", str(order.tolist())
        raise RawDataError(file, "cameras", expected=expected, found=found, do=AGAIN)


def _require_file(file: Path) -> None:
    if not file.is_file():
        raise RawDataError(file, "file", expected="labels", found="no file", do=AGAIN, reason="no_label")


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """One camera."""

    intrinsics: NDArray[np.float32]  # (3, 3) px
    size: tuple[int, int]  # width, height px, of the pictures that the labels fit


def read_calibration(file: Path, camera: int, *, do: str) -> Calibration:
    """The camera of that name. Raises RawDataError, OSError where the file cannot be opened."""
    text = read_regular(file).decode("ascii", errors="replace")
    lines = [line.split() for line in text.splitlines()]
    start = next((i for i, words in enumerate(lines) if words == ["name", str(camera)]), None)
    if not text.startswith(FIRST_LINE) or start is None:
        raise RawDataError(file, "name", expected=f"a block of camera {camera}", found="none", do=do)
    block = {words[0]: words[1:] for words in lines[start : start + 7] if words}

    def values_of(key: str, n: int) -> list[float]:
        words = block.get(key, [])
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = []
        if len(values) != n or not all(abs(value) < LARGEST for value in values):  # comparisons with NaN are false
            raise RawDataError(file, key, expected=f"{n} numbers", found=" ".join(words)[:80] or "none", do=do)
        return values

    matrix = np.array(values_of("intrinsic", 16)).reshape(4, 4)[:3, :3]
    width, height = values_of("size", 2)
    return Calibration(matrix.astype(np.float32), (int(width), int(height)))

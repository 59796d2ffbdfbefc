"""MPI-INF-3DHP's label files: annot.mat, annot_data.mat, camera.calibration.  [raw] -> tracks -> features -> windows"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import RawDataError
from pipeline.formats.arrays import load_mat, numbers
from pipeline.formats.hdf5 import load_hdf5
from pipeline.raw.files import open_regular
from pipeline.skeletons import JOINTS, LARGEST

Doubles = NDArray[np.float64]

N_CAMERAS: Final = 14  # in every annot.mat and camera.calibration
CAMERAS: Final = (0, 1, 2, 4, 5, 6, 7, 8)  # those that are usually used: the release's vnect_cameras.zip
N_JOINTS: Final = len(JOINTS["mpi_inf_3dhp"])
N_TEST_JOINTS: Final = len(JOINTS["mpi_inf_3dhp_test"])
CALIBRATION: Final = "Skeletool Camera Calibration File V1.0"  # its first line
LONGEST_CALIBRATION: Final = 1 << 20  # bytes; the release's have about 7000
AGAIN: Final = "Download it again, with the release's get_dataset.sh."


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """One person before one camera, N frames."""

    skeleton: str  # a key of JOINTS, of J joints
    kp_2d: Doubles  # (N, J, 2) px
    kp_3d: Doubles  # (N, J, 3) m, camera axes, not centred
    valid: NDArray[np.bool_] | None = None  # (N,) evaluation may use the frame; None: not said

    def rows(self, kept: NDArray[np.bool_]) -> Labels:
        """The same person in the frames where `kept` (N,) is true."""
        valid = None if self.valid is None else self.valid[kept]
        return Labels(self.skeleton, self.kp_2d[kept], self.kp_3d[kept], valid)


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """What camera.calibration says of one camera."""

    intrinsics: NDArray[np.float32]  # (3, 3) px
    size: tuple[int, int]  # width, height px, of the pictures that its labels fit


def read_train(file: Path, camera: int) -> Labels:
    """What annot.mat holds of one camera. The cells of other cameras may hold anything.

    Raises RawDataError.
    """
    if not file.is_file():
        raise RawDataError(file, "file", expected="labels", found="no file", do=AGAIN, reason="no_label")
    status = file.stat()
    cells = _cells(file, status.st_size, status.st_mtime_ns)
    kp_2d = numbers(file, f"annot2{{{camera + 1}}}", cells["annot2"][camera], (None, 2 * N_JOINTS))
    kp_3d = numbers(file, f"annot3{{{camera + 1}}}", cells["annot3"][camera], (len(kp_2d), 3 * N_JOINTS))
    return Labels(
        skeleton="mpi_inf_3dhp",
        kp_2d=kp_2d.reshape(-1, N_JOINTS, 2),
        kp_3d=kp_3d.reshape(-1, N_JOINTS, 3) / 1000,
    )


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
        cells[key] = {camera: _compact(stored.reshape(-1)[camera]) for camera in CAMERAS}
    return cells


def _require_order(file: Path, cameras: NDArray[Any] | None) -> None:
    """Row k of a cell is camera k. Where `cameras` lists as many numbers, it must say so too, from 0 or from 1."""
    if cameras is None or cameras.dtype.kind not in "biuf" or cameras.size != N_CAMERAS:
        return
    listed = cameras.reshape(-1).astype(np.float64)
    if listed[0] not in (0, 1) or (np.diff(listed) != 1).any():
        expected, found = f"cameras 0 to {N_CAMERAS - 1} in order", str(listed.tolist())
        raise RawDataError(file, "cameras", expected=expected, found=found, do=AGAIN)


def _compact(cell: Any) -> NDArray[Any]:
    array = np.asarray(cell)
    if array.dtype.kind not in "biuf":
        return array
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is dropped as not finite
        return array.astype(np.float32)


def read_test(file: Path) -> Labels:
    """What annot_data.mat holds: 3D of the universal skeleton, as the published figures use it. Raises RawDataError."""
    if not file.is_file():
        do = "Download it again, with the release's get_testset.sh."
        raise RawDataError(file, "file", expected="labels", found="no file", do=do, reason="no_label")
    stored = load_hdf5(
        file,
        {
            "annot2": [(None, 1, N_TEST_JOINTS, 2)],
            "univ_annot3": [(None, 1, N_TEST_JOINTS, 3)],
            "valid_frame": [(None, 1), (1, None), (None,)],
        },
    )
    counts = {key: array.size if key == "valid_frame" else len(array) for key, array in stored.items()}
    if len(set(counts.values())) != 1:
        raise RawDataError(file, "annot2", expected="one row a frame everywhere", found=f"{counts} rows", do=AGAIN)
    return Labels(
        skeleton="mpi_inf_3dhp_test",
        kp_2d=stored["annot2"][:, 0],
        kp_3d=stored["univ_annot3"][:, 0] / 1000,
        valid=stored["valid_frame"].reshape(-1) > 0,
    )


def read_calibration(file: Path, camera: int) -> Calibration:
    """What camera.calibration says of one camera. Raises RawDataError, OSError where it cannot be opened.

    After the first line every camera has a block of 7 lines, a name and its numbers in each.
    """
    with open_regular(file) as stream:
        text = stream.read(LONGEST_CALIBRATION).decode("ascii", errors="replace")
    lines = [line.split() for line in text.splitlines()]
    start = next((i for i, words in enumerate(lines) if words == ["name", str(camera)]), None)
    if not text.startswith(CALIBRATION) or start is None:
        raise RawDataError(file, "name", expected=f"a block of camera {camera}", found="none", do=AGAIN)
    block = {words[0]: words[1:] for words in lines[start : start + 7] if words}
    matrix = _line(file, block, "intrinsic", 16).reshape(4, 4)[:3, :3]
    width, height = _line(file, block, "size", 2)
    return Calibration(matrix.astype(np.float32), (int(width), int(height)))


def _line(file: Path, block: Mapping[str, list[str]], key: str, n: int) -> Doubles:
    """The `n` numbers of a line."""
    words = block.get(key, [])
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != n or not all(abs(value) < LARGEST for value in values):  # comparisons with NaN are false
        raise RawDataError(file, key, expected=f"{n} numbers", found=" ".join(words)[:80] or "none", do=AGAIN)
    return np.array(values)

"""The label files of MPI-INF-3DHP, MATLAB files, and its cameras.  [raw] -> tracks

The reader (`pipeline.datasets.mpi_inf_3dhp`) calls `LabelledPerson.read_train` for a
training video, and `LabelledPerson.read_test` for a test video:

    annot.mat           annot2 and annot3: a cell of 14 cameras each, with (N, 56) px and (N, 84) mm
                        cameras: the number of each cell's camera; may be missing
    annot_data.mat      annot2 (N, 1, 17, 2) px, univ_annot3 (N, 1, 17, 3) mm, valid_frame (N, 1)

`Calibration.read` reads a camera of camera.calibration, a text with a block of 7 lines for each:

    name          0
      sensor      10 10
      size        2048 2048                      px
      animated    0
      intrinsic   1497.693 0 1024.704 0 ...      (4, 4), px
      extrinsic   0.9650164 0.00488022 ...       (4, 4), world to camera, mm
      radial      0
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from pipeline.datasets.shared.checks import require_labels
from pipeline.errors import RawDataError
from pipeline.files.formats.arrays import FileState, StoredArrays, load_mat, numbers
from pipeline.files.formats.hdf5 import load_hdf5
from pipeline.files.raw.files import read_regular
from pipeline.people.cameras import is_rigid
from pipeline.people.skeletons import JOINTS, Array, Bools, Doubles, Float32s

N_CAMERAS: Final = 14  # in every annot.mat
# the cameras that are usually used: those of the release's vnect_cameras.zip
CAMERAS: Final = (0, 1, 2, 4, 5, 6, 7, 8)
# skeletons (keys of JOINTS) of annot.mat and of annot_data.mat
TRAIN = "mpi_inf_3dhp"
TEST = "mpi_inf_3dhp_test"
AGAIN: Final = (
    "Download it again, with the release's get_dataset.sh (train) or get_testset.sh (test)."
)
FIRST_LINE: Final = "Skeletool Camera Calibration File V1.0"
GET_CALIBRATION: Final = "Download it again, with the release's get_dataset.sh."


@dataclass(frozen=True, slots=True, eq=False)
class LabelledPerson:
    """One person in one camera, N frames."""

    skeleton: str  # a key of JOINTS, of J joints
    kp_2d: Doubles  # (N, J, 2) px
    kp_3d: Doubles  # (N, J, 3) m, camera axes, not centred
    valid: Bools | None = None  # (N,) evaluation may use the frame; None: not known

    @classmethod
    def read_train(cls, file: Path, camera: int) -> LabelledPerson:
        """Read the labels of one camera from annot.mat.

        Raises RawDataError (`no_label`: no file).
        """
        require_labels(file, AGAIN)
        cells = _load_cells(file, FileState.read(file))  # a changed file is read again
        n_joints = len(JOINTS[TRAIN])
        cell_2d = cells["annot2"][camera]
        cell_3d = cells["annot3"][camera]
        kp_2d = numbers(file, f"annot2{{{camera + 1}}}", cell_2d, (None, n_joints * 2))
        kp_3d = numbers(file, f"annot3{{{camera + 1}}}", cell_3d, (len(kp_2d), n_joints * 3))
        kp_2d = kp_2d.reshape(-1, n_joints, 2)
        kp_3d = kp_3d.reshape(-1, n_joints, 3)
        return cls(TRAIN, kp_2d, kp_3d / 1000)

    @classmethod
    def read_test(cls, file: Path) -> LabelledPerson:
        """Read annot_data.mat of a test video, with its universal skeleton's 3D joints.

        Raises RawDataError (`no_label`: no file).
        """
        require_labels(file, AGAIN)
        n_joints = len(JOINTS[TEST])
        stored = load_hdf5(
            file,
            {
                "annot2": [(None, 1, n_joints, 2)],
                "univ_annot3": [(None, 1, n_joints, 3)],
                "valid_frame": [(None, 1), (1, None), (None,)],
            },
        )
        stored["valid_frame"] = stored["valid_frame"].reshape(-1)
        counts = {key: len(array) for key, array in stored.items()}
        if len(set(counts.values())) != 1:
            raise RawDataError(
                file, "annot2", "one row a frame everywhere", f"{counts} rows", AGAIN
            )
        valid = stored["valid_frame"] > 0
        kp_2d = stored["annot2"][:, 0]
        kp_3d = stored["univ_annot3"][:, 0]
        return cls(TEST, kp_2d, kp_3d / 1000, valid)


# Eight videos share a file of 100 MB. Each process keeps the last one, as float32 of eight cameras:
# at most 60 MB.
@functools.lru_cache(maxsize=1)
def _load_cells(file: Path, state: FileState) -> Mapping[str, Mapping[int, Array]]:  # noqa: ARG001
    """Read annot.mat: variable -> camera -> its cell, as float32 if it has numbers, else as stored.

    state: Size and time of the file. It is not used here, but is part of `lru_cache`'s key.
    """
    cells: dict[str, dict[int, Array]] = {}
    for key in ("annot2", "annot3"):  # one after the other: the file has several times what is used
        variables = load_mat(file, (key,), optional=("cameras",))
        stored = variables[key]
        if stored.dtype != object or stored.size != N_CAMERAS:
            raise RawDataError(
                file, key, f"a cell of {N_CAMERAS} cameras", f"{stored.shape} {stored.dtype}", AGAIN
            )
        _require_order(file, variables.get("cameras"))
        # what float32 cannot hold becomes infinite, and is dropped as not finite
        with np.errstate(over="ignore"):
            cells[key] = {}
            for camera in CAMERAS:
                cell = np.asarray(stored.reshape(-1)[camera])
                if cell.dtype.kind in "biuf":
                    cell = cell.astype(np.float32)
                cells[key][camera] = cell
    return cells


def _require_order(file: Path, cameras: Array | None) -> None:
    """Raise RawDataError if the variable `cameras` says that row k of a cell is not camera k.

    Its numbers must count up from 0 or from 1. A missing or unknown variable is accepted.
    """
    if cameras is None or cameras.dtype.kind not in "biuf" or cameras.size != N_CAMERAS:
        return
    order = cameras.reshape(-1).astype(np.float64)
    is_successive = (np.diff(order) == 1).all()
    if order[0] not in (0, 1) or not is_successive:
        raise RawDataError(
            file, "cameras", f"cameras 0 to {N_CAMERAS - 1} in order", str(order.tolist()), AGAIN
        )


class Calibration(NamedTuple):
    """One camera."""

    size: tuple[int, int]  # width and height (px) of the images that the labels fit
    intrinsics: Float32s  # (3, 3), px
    extrinsics: Float32s | None  # (4, 4), world to camera, m; None if they are invalid

    @classmethod
    def read(cls, file: Path, camera: int) -> Calibration:
        """Read one camera, by its number. Raises RawDataError for a missing or invalid block, and
        OSError if the file cannot be opened.
        """
        text = read_regular(file).decode("ascii", errors="replace")
        lines = [line.split() for line in text.splitlines()]
        name = ["name", str(camera)]
        if not text.startswith(FIRST_LINE) or name not in lines:
            raise RawDataError(file, "name", f"a block of camera {camera}", "none", GET_CALIBRATION)
        start = lines.index(name)
        block = {words[0]: _parse_numbers(words[1:]) for words in lines[start : start + 7] if words}
        stored = StoredArrays(file, block, GET_CALIBRATION)
        intrinsics = stored.take("intrinsic", 16, finite=True).reshape(4, 4)[:3, :3]
        width, height = stored.take("size", 2, finite=True)
        extrinsics = stored.take("extrinsic", 16, finite=True).reshape(4, 4)
        extrinsics[:3, 3] /= 1000
        world_to_camera = None
        if is_rigid(extrinsics[None])[0]:
            world_to_camera = extrinsics.astype(np.float32)
        size = int(width), int(height)
        return cls(size, intrinsics.astype(np.float32), world_to_camera)


def _parse_numbers(words: Sequence[str]) -> list[float]:
    """The numbers of a line; none if one of its words is no number."""
    try:
        return [float(word) for word in words]
    except ValueError:
        return []

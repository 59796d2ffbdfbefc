"""Points of SMPL's bodies by gender, from a folder of its files.  tracks -> [files of other programs]"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from pipeline.body import Body, PosedJoints
from pipeline.exchange.wham.layouts import REGRESSED
from pipeline.files.formats import smpl_files
from pipeline.files.formats.arrays import numbers, reading

Doubles = NDArray[np.float64]

FILE: Final = "J_regressor_wham.npy"


class Bodies:
    """The bodies whose files are in `folder`, each loaded once. Methods raise as `Body.load` does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.load = functools.cache(functools.partial(Body.load, folder))
        self._posed = functools.cache(self._posed_joints)

    def digests(self) -> dict[str, str]:
        """Gender -> sha256 of its files, for those that are there."""
        genders = [g for g in smpl_files.GENDERS if any(self.folder.glob(f"SMPL_{g.upper()}.*"))]
        return {gender: smpl_files.digest(self.folder, gender)[0] for gender in genders}

    @functools.cached_property
    def regressor(self) -> Doubles | None:
        """(31, 6890) from posed vertices to WHAM's joints; None: the folder has no such file. Raises RawDataError."""
        file = self.folder / FILE
        if not file.is_file():
            return None
        with reading(file, "an array, as numpy.save writes it", do="Copy it from WHAM's dataset/body_models again."):
            stored = np.load(file, allow_pickle=False)
        return numbers(file, FILE, stored, (REGRESSED, smpl_files.N_VERTICES))

    def joints(self, gender: str, pose: NDArray[Any], betas: NDArray[Any]) -> tuple[Doubles, Doubles]:
        """pose (n, 72) rad, betas (n, 10) -> the rest pelvis (n, 3) and, with a regressor, WHAM's joints (n, 31, 3), m,
        without translation."""
        with torch.no_grad():
            joints = self._posed(gender)(torch.tensor(betas).float(), _rotations(pose)).double().numpy()
        return joints[:, 0], joints[:, 1:]  # SMPL turns about its pelvis, which stays where it is

    def lowest(self, gender: str, pose: NDArray[Any], betas: NDArray[Any], trans: NDArray[Any]) -> float:
        """One body's largest y, m, of pose (72,), betas (10,), trans (3,): the lowest vertex where y points down."""
        shape = torch.tensor(betas[None]).float()
        with torch.no_grad():
            posed = self.load(gender)(betas=shape, rotmat=_rotations(pose[None]))
        return float(posed.verts[0, :, 1].max() + trans[1])

    def _posed_joints(self, gender: str) -> PosedJoints:
        regressor = np.zeros((0, smpl_files.N_VERTICES)) if self.regressor is None else self.regressor
        take = [0, *range(smpl_files.N_JOINTS, smpl_files.N_JOINTS + len(regressor))]
        return PosedJoints(smpl_files.load(self.folder, gender), regressor, take)


def _rotations(pose: NDArray[Any]) -> torch.Tensor:
    """(n, 72) -> (n, 24, 3, 3)."""
    rotmat = Rotation.from_rotvec(np.asarray(pose, np.float64).reshape(-1, 3)).as_matrix()
    return torch.tensor(rotmat).float().reshape(-1, smpl_files.N_JOINTS, 3, 3)

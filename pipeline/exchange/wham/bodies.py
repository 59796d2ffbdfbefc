"""Bodies that WHAM's files need: SMPL's joints and lowest vertices.  [body] -> files of other
programs

The folder has SMPL's files, and perhaps WHAM's regressor J_regressor_wham.npy.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

import numpy as np
import torch

from pipeline.body import Body, PosedJoints, rotations_of
from pipeline.files.formats import smpl_files
from pipeline.files.formats.arrays import numbers, reading
from pipeline.skeletons import Array, Doubles

_REGRESSOR_FILE: Final = "J_regressor_wham.npy"
REGRESSED: Final = 31  # its joints: 17 of COCO's, 14 of LSP's
# files that a field needs, as messages name them
SMPL_FILES: Final = "SMPL's files"
REGRESSOR_FILES: Final = f"{SMPL_FILES} with {_REGRESSOR_FILE} ({REGRESSED}, 6890)"


class Bodies:
    """Bodies of the files in `folder`, each loaded once. Methods raise what `Body.load` raises."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._load_body = functools.cache(functools.partial(Body.load, folder))
        self._load_joints = functools.cache(self._posed_joints)

    def digests(self) -> dict[str, str]:
        """Gender -> SHA-256 of its files, for existing files."""
        digests = {}
        for gender in smpl_files.GENDERS:
            if any(self._folder.glob(f"SMPL_{gender.upper()}.*")):
                digests[gender] = smpl_files.body_files(self._folder, gender).digest
        return digests

    @functools.cached_property
    def regressor(self) -> Doubles | None:
        """Regressor (31, 6890) from posed vertices to WHAM's joints; None without a file. Raises
        RawDataError.
        """
        file = self._folder / _REGRESSOR_FILE
        if not file.is_file():
            return None
        do = "Copy it from WHAM's dataset/body_models again."
        with reading(file, "an array, as numpy.save writes it", do=do):
            stored = np.load(file, allow_pickle=False)
        return numbers(file, _REGRESSOR_FILE, stored, (REGRESSED, smpl_files.N_VERTICES))

    def has(self, files: str) -> bool:
        """Whether the folder has SMPL_FILES or REGRESSOR_FILES."""
        return files == SMPL_FILES or self.regressor is not None

    def joints(self, gender: str, pose: Array, betas: Array) -> tuple[Doubles, Doubles]:
        """The pelvis (n, 3) m of the rest pose, and WHAM's joints (n, 31, 3) m without translation,
        of bodies with pose (n, 72) rad and betas (n, 10). Without a regressor there are no joints.
        """
        shape = torch.tensor(betas).float()
        with torch.no_grad():
            posed = self._load_joints(gender)(shape, rotations_of(pose))
        joints = posed.double().numpy()
        return joints[:, 0], joints[:, 1:]  # SMPL rotates about its pelvis, which does not move

    def lowest(self, gender: str, pose: Array, betas: Array, trans: Array) -> float:
        """y in m of a body's lowest vertex (y points down), for pose (72,), betas (10,), trans
        (3,).
        """
        body = self._load_body(gender)
        shape = torch.tensor(betas[None]).float()
        with torch.no_grad():
            posed = body(betas=shape, rotmat=rotations_of(pose))
        lowest = posed.verts[0, :, 1].max()
        return float(lowest + trans[1])

    def _posed_joints(self, gender: str) -> PosedJoints:
        """A gender's body that computes the pelvis and WHAM's joints."""
        regressor = self.regressor
        if regressor is None:
            regressor = np.zeros((0, smpl_files.N_VERTICES))
        body = smpl_files.load(self._folder, gender)
        n_joints = smpl_files.N_JOINTS
        regressed = range(n_joints, n_joints + len(regressor))  # they come after SMPL's own
        return PosedJoints(body, regressor, [0, *regressed])

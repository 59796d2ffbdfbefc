"""Joints of posed SMPL-X bodies, without their surface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np

from pipeline.datasets.labels.smpl import load_smplx_rest_joints
from pipeline.exchange.bodies.estimate import N_BETAS, N_BODY
from pipeline.files.formats.arrays import load_npz, numbers
from pipeline.files.raw.files import whole_file_digest
from pipeline.skeletons import JOINTS, Doubles, correspondence

N_JOINTS: Final = N_BODY // 3  # pelvis to wrists, in SMPL's order
N_FACE: Final = 9  # numbers of jaw and eyes, which come before the hands


@dataclass(frozen=True, slots=True, eq=False)
class SmplxJoints:
    """SMPL-X's skeleton. Pavlakos et al., CVPR 2019."""

    rest: Doubles  # (22, 3) m
    by_beta: Doubles  # (22, 3, 10) m
    hands: Doubles  # (90,) rad: the hands' mean pose, of fingers relative to flat ones
    digest: str

    @classmethod
    def load(cls, file: Path) -> Self:
        """Read SMPLX_NEUTRAL.npz. Raises RawDataError for another file."""
        rest, by_beta = load_smplx_rest_joints(file, N_BETAS)
        stored = load_npz(file, ("hands_meanl", "hands_meanr"))
        hands = [numbers(file, key, values, (45,)) for key, values in stored.items()]
        mean = np.concatenate(hands)
        return cls(rest[:N_JOINTS], by_beta[:N_JOINTS], mean, whole_file_digest(file))

    def joints(self, pose: Doubles, betas: Doubles, parents: Sequence[int]) -> Doubles:
        """pose (N, 66 or more) rad, betas (N, 10) -> spin49 (N, 49, 3) m without translation; NaN
        for joints that are not of the skeleton. parents: of SMPL's joints, which are the same.
        """
        from scipy.spatial.transform import Rotation  # takes 0.4 s

        n = len(pose)
        rest = self.rest + np.einsum("jcb,nb->njc", self.by_beta, betas)
        rotvec = pose[:, :N_BODY].reshape(-1, 3)
        local = Rotation.from_rotvec(rotvec).as_matrix()
        rotations = local.reshape(n, N_JOINTS, 3, 3)  # relative to the parent; then in the camera
        posed = rest.copy()
        for joint in range(1, N_JOINTS):
            parent = parents[joint]
            bone = rest[:, joint] - rest[:, parent]
            posed_bone = np.einsum("nij,nj->ni", rotations[:, parent], bone)
            posed[:, joint] = posed[:, parent] + posed_bone
            rotations[:, joint] = rotations[:, parent] @ rotations[:, joint]
        from_columns, to_columns = correspondence(JOINTS["smpl"][:N_JOINTS], "spin49")
        joints = np.full((n, len(JOINTS["spin49"]), 3), np.nan)
        joints[:, to_columns] = posed[:, from_columns]
        return joints

    def whole_pose(self, pose: Doubles) -> Doubles:
        """A pose (N, 66) with face and hands, (N, 165) rad: the hands at their mean. A whole pose
        stays as it is.
        """
        if pose.shape[1] != N_BODY:
            return pose
        face = np.zeros(N_FACE)
        face_and_hands = np.concatenate([face, self.hands])
        face_hand_poses = np.tile(face_and_hands, (len(pose), 1))
        return np.hstack([pose, face_hand_poses])

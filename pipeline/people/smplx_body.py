"""SMPL-X: shape, expression and pose -> vertices and joints, in float64.  raw -> [tracks]

As in `pipeline.people.body`, the arrays come from `smpl_files`, and smplx poses them. Axes and
units are SMPL's; `pipeline.datasets.shared.smpl` names the 55 joints.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from smplx.lbs import lbs

from pipeline.people.body import Body, Gendered
from pipeline.people.skeletons import Array, Doubles
from pipeline.people.smpl_files import Model, load_smplx

# smplx's parameters in the order of the joints
POSES: Final = ("global_orient", "body_pose", "jaw_pose", "leye_pose", "reye_pose")
HANDS: Final = {"left_hand_pose": "l", "right_hand_pose": "r"}  # endings of their arrays' keys


def load_body(folder: Path, model: Model, gender: str) -> Body | SmplxBody:
    """Load one gender of a body model. Raises what its `load` raises."""
    return (SmplxBody if model == "smplx" else Body).load(folder, gender)


class SmplxBody(Gendered):
    """SMPL-X of one gender, on the CPU."""

    read = staticmethod(load_smplx)

    def __init__(self, arrays: Mapping[str, Array], of: Callable[[str], SmplxBody]) -> None:
        """of: makes the body of another gender."""
        self._of = of
        self._arrays = arrays
        correctives = arrays["posedirs"]
        self._model = [
            torch.tensor(array)
            for array in (
                arrays["v_template"],
                arrays["shapedirs"],
                correctives.reshape(-1, correctives.shape[-1]).T.copy(),
                arrays["J_regressor"],
                arrays["parents"],
                arrays["weights"],
            )
        ]

    def posed(self, values: Mapping[str, Doubles]) -> tuple[Doubles, Doubles]:
        """Pose N bodies: joints (N, 55, 3) and vertices (N, V, 3) m, without translation.

        values: smplx's parameters (N, ...): POSES in rad, `betas` (N, 10), `expression` (N, 10),
        and for HANDS components about the model's mean hands, (N, 1 to 45).
        """
        angles = [values[name] for name in POSES]
        for name, side in HANDS.items():
            components = self._arrays[f"hands_components{side}"][: values[name].shape[1]]
            angles.append(self._arrays[f"hands_mean{side}"] + values[name] @ components)
        pose = np.concatenate(angles, axis=1).reshape(len(angles[0]), -1, 3)
        turns = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(*pose.shape, 3)
        shape = np.concatenate([values["betas"], values["expression"]], axis=1)
        tensors = torch.from_numpy(shape), torch.from_numpy(turns)
        verts, joints = lbs(*tensors, *self._model, pose2rot=False)
        return joints.numpy(), verts.numpy()

"""The interface of a model's generator.  features -> windows -> [evaluation, prediction]"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.people.rotations import matrix_to_axis_angle, rotation_6d_to_matrix
from pipeline.people.skeletons import Float32s
from vibe_model.cameras import project

if TYPE_CHECKING:
    from pipeline.people.body import Body

POSED_AT_ONCE: Final = 64  # bodies, with 5 MB of vertices
FEATURE_SIZE: Final = 2048  # ResNet-50 after its global average pool
SHAPE_SIZE: Final = 10
CAMERA_SIZE: Final = 3
# joints (..., J, 3) m, camera (..., 3) -> (..., J, 2): of `cameras`
Project = Callable[[Tensor, Tensor], Tensor]


class Estimate(NamedTuple):
    """A body and a camera for each frame, with any number of leading axes."""

    rotmat: Tensor  # (..., 24, 3, 3) relative to parents, the first one in camera axes
    shape: Tensor  # (..., 10) betas
    camera: Tensor  # (..., 3) scale, tx, ty of the weak perspective in the crop

    @classmethod
    def of_6d(cls, pose: Tensor, shape: Tensor, camera: Tensor) -> Estimate:
        """Make an estimate from rotations in 6D, (..., 144)."""
        return cls(rotation_6d_to_matrix(pose.reshape(*pose.shape[:-1], 24, 6)), shape, camera)

    def pose(
        self, body: Body, project: Project, *, eval_joints: bool, vertices: bool
    ) -> dict[str, Tensor]:
        """Pose the bodies. Any leading axes, here B, T:

        theta (B, T, 85): camera 3, pose 72 axis-angle in rad, shape 10; verts (B, T, 6890, 3) m;
        kp_3d (B, T, 49, 3) m; kp_2d (B, T, 49, 2) in [-1, 1] over the crop; rotmat (B, T, 24, 3,
        3). With `eval_joints`, kp_3d and kp_2d are the 14 joints of `common14`, by the H36M
        regressor. Without `vertices`, verts is missing: several times less work.
        """
        rotmat, shape, camera = self
        frames = camera.shape[:-1]
        flat = {"betas": shape.reshape(-1, SHAPE_SIZE), "rotmat": rotmat.reshape(-1, 24, 3, 3)}
        out: dict[str, Tensor] = {}
        if vertices:
            whole = body(**flat)
            joints = whole.joints  # (B T, J, 3)
            if eval_joints:
                joints = body.common14(whole.verts)
            out["verts"] = whole.verts.reshape(*frames, *whole.verts.shape[1:])
        else:
            joints = body.joints(**flat, order="common14" if eval_joints else "spin49")
        joints = joints.reshape(*frames, *joints.shape[1:])
        axis_angle = matrix_to_axis_angle(rotmat).flatten(-2)  # (B, T, 24, 3) -> (B, T, 72)
        theta = torch.cat((camera, axis_angle, shape), dim=-1)
        return {
            "theta": theta,
            **out,
            "kp_2d": project(joints, camera),
            "kp_3d": joints,
            "rotmat": rotmat,
        }


class VideoModel(nn.Module, ABC):
    """Video features -> one body per frame.

    The configuration's `extra_streams` are arguments by name, (B, T, (history + 1) * size), such as
    `regress(features, pr_vipe)`. `body` has the SMPL data in buffers that no checkpoint saves.
    """

    body: Body
    model_name: str = ""  # set by `models.build_generator`
    project: ClassVar[staticmethod[[Tensor, Tensor], Tensor]] = staticmethod(project)
    # steps in frames to predicted past and future bodies, such as -5 and 5
    steps: tuple[int, ...] = ()
    margin: int = 0  # frames on either side of a window that are context only
    repeats_ends: bool = False  # repeat the first and last frame of a track as context

    @property
    def device(self) -> torch.device:
        """The device of its parameters."""
        return next(self.parameters()).device

    @abstractmethod
    def regress(self, features: Tensor) -> Estimate:
        """(B, T, feature_size) -> bodies and cameras, (B, T, ...), for any T."""

    def regress_around(
        self, features: Tensor, *args: Any, **extra_streams: Any
    ) -> dict[int, Estimate]:
        """Regress the bodies of the frames, and those before and after: step -> bodies and cameras.

        Step 0 has the result of `regress`; each step of `steps` has the bodies that many frames
        later.
        """
        return {0: self.regress(features, *args, **extra_streams)}

    def regress_stills(
        self, features: Tensor, *args: Any, **extra_streams: Any
    ) -> dict[int, Estimate]:
        """`regress_around` for still images, (B, 1, feature_size), which have no neighbours."""
        return self.regress_around(features, *args, **extra_streams)

    def pose(
        self, estimate: Estimate, eval_joints: bool = False, vertices: bool = True
    ) -> dict[str, Tensor]:
        """Pose the bodies of an estimate (`Estimate.pose`), projected by the model's camera."""
        return estimate.pose(self.body, self.project, eval_joints=eval_joints, vertices=vertices)

    def pose_arrays(self, arrays: Sequence[Float32s], *names: str) -> list[Float32s]:
        """Named results of `pose` for (F, ...) rotmat, shape and camera, F at least 1."""
        parts = []
        for start in range(0, len(arrays[0]), POSED_AT_ONCE):
            few = (np.ascontiguousarray(array[start : start + POSED_AT_ONCE]) for array in arrays)
            with torch.no_grad():
                estimate = Estimate(*(torch.as_tensor(array, device=self.device) for array in few))
                out = self.pose(estimate, vertices="verts" in names)
            parts.append([out[name].float().cpu().numpy() for name in names])
        return [np.concatenate(of_name) for of_name in zip(*parts, strict=True)]


def step_name(step: int) -> str:
    """Name of a step in state dicts and files: minus5, plus5."""
    return f"{'minus' if step < 0 else 'plus'}{abs(step)}"

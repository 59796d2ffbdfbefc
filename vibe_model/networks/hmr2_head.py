"""HMR2.0's heads: from its decoder's token to a body and a camera of each frame.  features -> [bodies]

Goel et al., "Humans in 4D: Reconstructing and Tracking Humans with Transformers", ICCV 2023: 3.1. The token is the
stream `hmr2`. Names and shapes of tensors are the checkpoint's: `smpl_head.{decpose, decshape, deccam}` and means.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from vibe_model import cameras
from vibe_model.networks.video_model import CAMERA_SIZE, SHAPE_SIZE, Estimate, VideoModel

if TYPE_CHECKING:
    from pipeline.body import Body

STREAM: Final = "hmr2"  # of its features
TOKEN_SIZE: Final = 1024
CROP_PX: Final = 256  # crop of the camera; the network sees its middle, 192 px wide
POSE_SIZE: Final = 24 * 6


def project(joints: Tensor, camera: Tensor) -> Tensor:
    """`cameras.project` for HMR2.0's crop of 256 px."""
    return cameras.project(joints, camera, CROP_PX)


class Hmr2Head(VideoModel):
    """HMR2.0's token -> one body a frame, each from its own token."""

    project = staticmethod(project)

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.smpl_head = _LinearHeads()
        self.body = body

    def regress(self, features: Tensor) -> Estimate:
        """(B, T, 1024) -> bodies and cameras, (B, T, ...)."""
        pose, shape, camera = self.smpl_head(features)
        vectors = pose.unflatten(-1, (24, 2, 3))  # of each rotation, its first column and then its second
        return Estimate.of_6d(vectors.mT.flatten(-3), shape, camera)


class _LinearHeads(nn.Module):
    """(..., 1024) -> pose (..., 144) 6D, shape (..., 10), camera (..., 3): each a mean and what a layer adds to it."""

    init_body_pose: Tensor
    init_betas: Tensor
    init_cam: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.decpose = nn.Linear(TOKEN_SIZE, POSE_SIZE)
        self.decshape = nn.Linear(TOKEN_SIZE, SHAPE_SIZE)
        self.deccam = nn.Linear(TOKEN_SIZE, CAMERA_SIZE)
        for name, size in (("body_pose", POSE_SIZE), ("betas", SHAPE_SIZE), ("cam", CAMERA_SIZE)):
            self.register_buffer(f"init_{name}", torch.zeros(1, size))

    def forward(self, token: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pose = self.decpose(token) + self.init_body_pose
        return pose, self.decshape(token) + self.init_betas, self.deccam(token) + self.init_cam

"""HMR2.0's heads, as a model of its features.  features -> [networks] -> bodies"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from vibe_model import cameras
from vibe_model.networks.video_model import CAMERA_SIZE, SHAPE_SIZE, Estimate, VideoModel

if TYPE_CHECKING:
    from pipeline.people.body import Body

TOKEN_SIZE: Final = 1024  # of its features, the token of its decoder
CROP_PX: Final = 256  # crop of its camera; its network sees the middle 192 px
POSE_SIZE: Final = 24 * 6


class HMR2Head(VideoModel):
    """HMR2.0's heads (Goel et al., ICCV 2023, 3.1): a body from each frame's token, with the
    checkpoint's names.
    """

    project = staticmethod(functools.partial(cameras.project, crop_px=CROP_PX))

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.smpl_head = _LinearHeads()
        self.body = body

    def regress(self, features: Tensor) -> Estimate:
        """(B, T, 1024) -> bodies and cameras, (B, T, ...)."""
        pose, shape, camera = self.smpl_head(features)
        vectors = pose.unflatten(-1, (24, 2, 3))  # the first and second column of each rotation
        return Estimate.of_6d(vectors.mT.flatten(-3), shape, camera)


class _LinearHeads(nn.Module):
    """(..., 1024) -> pose (..., 144) 6D, shape (..., 10), camera (..., 3): each the sum of a mean
    and a layer.
    """

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

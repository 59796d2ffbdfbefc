"""Discriminator of real and predicted poses, joint by joint.  features -> windows -> [training] -> evaluation

Kanazawa et al., "End-to-end Recovery of Human Shape and Pose", CVPR 2018, section 3.2, without the shape discriminator,
as in HMMR.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Final

import torch
from torch import Tensor, nn

from vibe_model.networks import xavier

N_JOINTS: Final = 23  # SMPL's without the global rotation
JOINT_SIZE: Final = 32
POSE_SIZE: Final = 1024


class _JointHeads(nn.Module):
    """A separate linear layer for each joint: (N, 23, 32) -> (N, 23)."""

    def __init__(self) -> None:
        super().__init__()
        limit = math.sqrt(6 / (JOINT_SIZE + 1))  # Xavier of one head, 32 -> 1
        self.weight = nn.Parameter(torch.empty(N_JOINTS, JOINT_SIZE).uniform_(-limit, limit))
        self.bias = nn.Parameter(torch.zeros(N_JOINTS))

    def forward(self, joints: Tensor) -> Tensor:
        return (joints * self.weight).sum(-1) + self.bias


class PoseDiscriminator(nn.Module):
    """Scores rotations, 1 for real ones: each joint separately, and all together."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = _layers(9, JOINT_SIZE, JOINT_SIZE)
        self.joints = _JointHeads()
        self.whole = _layers(N_JOINTS * JOINT_SIZE, POSE_SIZE, POSE_SIZE, 1)

    def forward(self, rotmat: Tensor) -> Tensor:
        """(N, 23, 3, 3), without the global rotation -> (N, 24): each joint's score, then that of all joints."""
        joints = rotmat.flatten(2)  # (N, 23, 9), by rows
        for layer in self.shared:
            joints = layer(joints).relu()
        first, second, last = self.whole
        whole = last(second(first(joints.flatten(1)).relu()).relu())  # (N, 1)
        return torch.cat((self.joints(joints), whole), dim=1)


def _layers(*sizes: int) -> nn.ModuleList:
    return nn.ModuleList(xavier(n_in, n_out) for n_in, n_out in pairwise(sizes))

"""One step of HMMR's training, and its discriminator of poses.  features -> windows -> [training]
-> evaluation
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from pipeline.people.rotations import axis_angle_to_matrix
from vibe_model.hmmr import losses
from vibe_model.hmmr.config import HMMRConfig
from vibe_model.hmmr.generator import HMMR
from vibe_model.networks import xavier
from vibe_model.training.data import TrainingBatch
from vibe_model.training.process_group import ProcessGroup
from vibe_model.training.video import VideoTrainer
from vibe_model.vibe.networks import MOTION, frozen

if TYPE_CHECKING:
    from pipeline.people.body import Body


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
    """Scores rotations, 1 for real ones: each joint separately, and all together.

    Kanazawa et al., "End-to-end Recovery of Human Shape and Pose", CVPR 2018, section 3.2, without
    the shape discriminator, as in HMMR.
    """

    def __init__(self) -> None:
        super().__init__()
        self.shared = _layers(9, JOINT_SIZE, JOINT_SIZE)
        self.joints = _JointHeads()
        self.whole = _layers(N_JOINTS * JOINT_SIZE, POSE_SIZE, POSE_SIZE, 1)

    def forward(self, rotmat: Tensor) -> Tensor:
        """(N, 23, 3, 3), without the global rotation -> (N, 24): each joint's score, then that of
        all joints.
        """
        joints = rotmat.flatten(2)  # (N, 23, 9), by rows
        for layer in self.shared:
            joints = layer(joints).relu()
        first, second, last = self.whole
        whole = last(second(first(joints.flatten(1)).relu()).relu())  # (N, 1)
        return torch.cat((self.joints(joints), whole), dim=1)


def _layers(*sizes: int) -> nn.ModuleList:
    return nn.ModuleList(xavier(n_in, n_out) for n_in, n_out in pairwise(sizes))


class HMMRTrainer(VideoTrainer):
    """Trains the generator, with or without the pose discriminator."""

    config: HMMRConfig
    generator: HMMR

    def __init__(self, config: HMMRConfig, body: Body, group: ProcessGroup | None = None) -> None:
        super().__init__(config, body, group)
        self.learners = {"generator": self.learner(self.generator, "gen", lr=config.lr_generator)}
        self.discriminator: PoseDiscriminator | None = None
        if config.prior == "discriminator":
            self.discriminator = PoseDiscriminator().to(self.group.device)
            self.learners["discriminator"] = self.learner(
                self.discriminator, "disc_pose", lr=config.lr_discriminator
            )

    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """The terms of `losses.supervised`, and both sides of the pose discriminator's GAN."""
        config = self.config
        sets = self.generator.sets(batch.labels["features"].float(), precision=config.precision)
        terms = losses.supervised(
            sets,
            batch.labels,
            optimal_camera=config.optimal_camera,
            limits=(config.least_scale, config.largest_scale),
            hallucinator_target=config.hallucinator_target,
            weights=config.weights,
        )
        if self.discriminator is not None:
            fake = sets.rotations  # (N, 23, 3, 3)
            real = axis_angle_to_matrix(batch.real_theta[..., MOTION].reshape(-1, N_JOINTS, 3))
            with frozen(self.discriminator):
                for_generator = self.discriminator(fake)
            scores = self.discriminator(torch.cat((fake.detach(), real)))  # (N + M, 24)
            adversarial = losses.adversarial(for_generator)
            discriminator = losses.discriminator(scores[len(fake) :], scores[: len(fake)])
            terms["adversarial"] = config.weights["adversarial"] * adversarial
            terms["discriminator"] = config.weights["discriminator"] * discriminator
        return terms

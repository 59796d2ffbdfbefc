"""One step of HMMR's training.  features -> windows -> [training] -> evaluation"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vibe_extensions.hmmr import losses
from vibe_extensions.hmmr.config import HMMRConfig
from vibe_extensions.hmmr.discriminator import PoseDiscriminator
from vibe_extensions.hmmr.generator import HMMR
from vibe_model.rotations import axis_angle_to_matrix
from vibe_model.training.data import TrainingBatch
from vibe_model.training.trainer import ProcessGroup
from vibe_model.training.video import VideoTrainer

if TYPE_CHECKING:
    from pipeline.body import Body


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
            self.learners["discriminator"] = self.learner(self.discriminator, "disc_pose", lr=config.lr_discriminator)

    def gradients(self, batch: TrainingBatch) -> dict[str, Tensor]:
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
        ends, starts = [torch.stack(list(terms.values())).sum()], [torch.ones((), device=sets.strip.device)]
        if self.discriminator is not None:
            fake = losses.rotations(sets)
            gan_terms, fake_grad = judge(self.discriminator, fake.detach(), real_poses(batch), config.weights)
            terms |= gan_terms
            ends.append(fake)
            starts.append(fake_grad)
        torch.autograd.backward(ends, starts)
        return {name: term.detach() for name, term in terms.items()}


def judge(
    discriminator: nn.Module, fake: Tensor, real: Tensor, weights: dict[str, float]
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute both GAN losses in one pass, and accumulate the discriminator's gradients.

    Args:
        fake: (N, 23, 3, 3).
        real: (M, 23, 3, 3).

    Returns:
        The terms "adversarial" and "discriminator", and the adversarial term's gradient at `fake`, (N, 23, 3, 3).
    """
    fake = fake.requires_grad_()
    scores = discriminator(torch.cat((fake, real)))  # (N + M, 24)
    fake_scores, real_scores = scores[: len(fake)], scores[len(fake) :]
    adversarial = weights["adversarial"] * losses.adversarial(fake_scores)
    discriminator_loss = weights["discriminator"] * losses.discriminator(real_scores, fake_scores)
    (fake_grad,) = torch.autograd.grad(adversarial, fake, retain_graph=True)
    torch.autograd.backward(discriminator_loss, inputs=list(discriminator.parameters()))
    return {"adversarial": adversarial, "discriminator": discriminator_loss}, fake_grad


def real_poses(batch: TrainingBatch) -> Tensor:
    """Rotations (N, 23, 3, 3) of a batch's real poses, without the global one."""
    pose = batch.real_theta[..., 6:75]
    return axis_angle_to_matrix(pose.reshape(-1, 23, 3))

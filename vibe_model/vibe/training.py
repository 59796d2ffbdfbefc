"""One step of VIBE's training.  features -> windows -> [training] -> evaluation"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from vibe_model import runs
from vibe_model.training.data import TrainingBatch
from vibe_model.training.parallel import ProcessGroup
from vibe_model.training.video import VideoTrainer
from vibe_model.vibe.config import TrainConfig
from vibe_model.vibe.discriminator import MotionDiscriminator, build_discriminator
from vibe_model.vibe.generator import VIBE
from vibe_model.vibe.mposer import MPoser, load_mposer
from vibe_model.vibe.steps import step_gradients

if TYPE_CHECKING:
    from pipeline.body import Body


class VIBETrainer(VideoTrainer):
    """Generator and discriminator, or instead of that one a trained prior of motion, or neither."""

    config: TrainConfig
    generator: VIBE
    several_processes = True

    def __init__(self, config: TrainConfig, body: Body, group: ProcessGroup | None = None) -> None:
        """Raises CheckpointError for a prior that cannot be read, StandInMixed for one of other data than the body."""
        super().__init__(config, body, group)
        rates = {"lr": config.lr_generator, "weight_decay": config.weight_decay_generator}
        self.learners = {"generator": self.learner(self.generator, "gen", **rates)}
        self.discriminator: MotionDiscriminator | None = None
        if config.prior == "discriminator":
            self.discriminator = build_discriminator(config).to(self.group.device)
            rates = {"lr": config.lr_discriminator, "weight_decay": config.weight_decay_discriminator}
            self.learners["discriminator"] = self.learner(self.discriminator, "disc_motion", **rates)
        self.prior: MPoser | None = None
        if config.prior == "mposer" and config.mposer is not None:
            self.prior = load_mposer(config.mposer).to(self.group.device)
            runs.one_kind({f"the prior {config.mposer}": self.prior.stand_in, "the body": body.is_stand_in})

    def gradients(self, batch: TrainingBatch) -> dict[str, Tensor]:
        return step_gradients(
            self.generator,
            self.discriminator,
            batch.labels,
            batch.real_theta,
            self._weights(batch),
            prior=None if self.prior is None else self.prior.energy,
            precision=self.config.precision,
        )

    def _weights(self, batch: TrainingBatch) -> dict[str, float]:
        """The factors of this process's terms, each times its share of the labels that all processes have of the term.

        A mean over the whole batch is the sum of the processes' means, each times its share of what the mean is over.
        """
        weights = self.config.weights
        if self.group.size == 1:
            return weights
        real = 0 if batch.real_theta is None else len(batch.real_theta)
        counts = [len(batch.labels["kp_2d"]), batch.labels["w_3d"].sum(), batch.labels["w_smpl"].sum(), real]
        counts_here = torch.stack([torch.as_tensor(n, dtype=torch.float64, device=self.group.device) for n in counts])
        windows, kp_3d, smpl, discriminator_real = (
            counts_here / self.group.sum(counts_here.clone()).clamp(min=1e-12)
        ).tolist()
        share = {"kp_3d": kp_3d, "pose": smpl, "shape": smpl, "discriminator_real": discriminator_real}
        weights["discriminator_real"] = weights["discriminator"]
        return {name: weight * share.get(name, windows) for name, weight in weights.items()}

"""Losses of one step of VIBE's training.  windows -> [training]

`vibe_model.training.video` makes the `VIBETrainer` of a run. In each step, `Trainer.train_step`
calls `losses` for the weighted terms, and calls backward once on their sum; `Trainer` states what
`losses` and `counts` must return. `step_losses` computes the terms.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vibe_model.losses import adversarial_terms, generator_losses, joint_weights
from vibe_model.stand_in import require_one_kind
from vibe_model.training.data import TrainingBatch
from vibe_model.training.process_group import ProcessGroup
from vibe_model.training.video import VideoTrainer
from vibe_model.vibe.config import TrainConfig
from vibe_model.vibe.mposer import MPoser
from vibe_model.vibe.networks import MOTION, VIBE, MotionDiscriminator, frozen

if TYPE_CHECKING:
    from pipeline.people.body import Body


class VIBETrainer(VideoTrainer):
    """Trains VIBE's generator.

    By the setting `prior`, it trains together with a motion discriminator, with a motion prior that
    is already trained (`MPoser`), or alone.
    """

    config: TrainConfig
    generator: VIBE
    several_processes = True

    def __init__(self, config: TrainConfig, body: Body, group: ProcessGroup | None = None) -> None:
        """Build the networks and optimisers; load the prior.

        Raises CheckpointError for an invalid prior, and StandInMixed if only one of prior and body
        is demo data.
        """
        super().__init__(config, body, group)
        self.learners = {
            "generator": self.learner(
                self.generator,
                "gen",
                lr=config.lr_generator,
                weight_decay=config.weight_decay_generator,
            )
        }
        self.discriminator: MotionDiscriminator | None = None
        if config.prior == "discriminator":
            self.discriminator = MotionDiscriminator(
                rnn_size=config.disc_size,
                num_layers=config.disc_layers,
                feature_pool=config.disc_pool,
                attention_layers=config.attention_layers,
                attention_size=config.disc_size,
                attention_dropout=config.attention_dropout,
            ).to(self.group.device)
            self.learners["discriminator"] = self.learner(
                self.discriminator,
                "disc_motion",
                lr=config.lr_discriminator,
                weight_decay=config.weight_decay_discriminator,
            )
        self.prior: MPoser | None = None
        if config.prior == "mposer" and config.mposer is not None:
            self.prior = MPoser.load(config.mposer).to(self.group.device)
            require_one_kind(
                {f"the prior {config.mposer}": self.prior.stand_in, "the body": body.is_stand_in}
            )

    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        _, _, terms = step_losses(
            self.generator,
            self.discriminator,
            batch.labels,
            batch.real_theta,
            self.config.weights,
            prior=None if self.prior is None else self.prior.energy,
            precision=self.config.precision,
        )
        return terms

    def counts(self, batch: TrainingBatch) -> dict[str, Tensor | int]:
        # terms that are not means over windows: over labelled joints or frames, over real motion
        labels = batch.labels
        counts = {
            "kp_3d": joint_weights(labels).sum(),
            "pose": labels["w_smpl"].sum(),
            "shape": labels["w_smpl"].sum(),
        }
        if self.discriminator is not None:
            counts["discriminator_real"] = len(batch.real_theta)
        return counts


def step_losses(
    generator: VIBE,
    discriminator: nn.Module | None,
    batch: Mapping[str, Any],
    real_theta: Tensor | None,
    weights: Mapping[str, float],
    *,
    prior: Callable[[Tensor], Tensor] | None = None,
    precision: str = "fp32",
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Both losses of one step: Kocabas et al., CVPR 2020, equations 1 to 3.

    Args:
        batch: features (B, T, feature_size), float16 or float32, and the labels that
            `losses.generator_losses` takes.
        real_theta: (B', T, 85) real motion for the discriminator.
        weights: a factor for each term that is computed.
        prior: Function from generated motion (B, T, 69) to the scalar loss term "mposer", without
            its weight.
        precision: "bf16": matrix products of encoder, regressor and discriminator in bfloat16.

    Returns:
        The generator's loss, the discriminator's loss, and all weighted terms by name; each loss is
        the sum of its terms. Gradients of one loss never reach the other network's parameters.
    """
    features = torch.as_tensor(batch["features"]).float()  # stored as float16
    autocast = torch.autocast(features.device.type, torch.bfloat16, enabled=precision == "bf16")
    with autocast:
        estimate = generator.regress(features)
    predicted = generator.pose(estimate, vertices=False)
    terms = generator_losses(predicted, batch, weights)
    motion = predicted["theta"][..., MOTION]
    if prior is not None:
        terms["mposer"] = weights["mposer"] * prior(motion)
    discriminator_terms: dict[str, Tensor] = {}
    if discriminator is not None:
        if real_theta is None:
            raise ValueError("real_theta: expected real motion for the discriminator, found None")
        # As published, generated motion is scored once for each side, with separate dropout.
        every_motion = torch.cat((motion.detach(), real_theta[..., MOTION]))
        with autocast:
            with frozen(discriminator):
                for_generator = discriminator(motion).float()  # (B, 1)
            scores = discriminator(every_motion).float()  # (B + B', 1)
        fake = scores[: len(motion)]
        real = scores[len(motion) :]
        discriminator_terms = adversarial_terms(for_generator, real, fake, weights)
        terms["adversarial"] = discriminator_terms.pop("adversarial")  # the generator's side

    zero = features.new_zeros(())
    generator_loss = sum(terms.values(), zero)
    discriminator_loss = sum(discriminator_terms.values(), zero)
    return generator_loss, discriminator_loss, terms | discriminator_terms

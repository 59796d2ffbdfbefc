"""One step of VIBE's training: `step_losses` defines it, `step_gradients` is faster.  windows ->
[training]
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vibe_model import losses, runs
from vibe_model.training.data import TrainingBatch
from vibe_model.training.trainer import ProcessGroup
from vibe_model.training.video import VideoTrainer
from vibe_model.vibe.config import TrainConfig
from vibe_model.vibe.mposer import MPoser
from vibe_model.vibe.networks import MOTION, VIBE, MotionDiscriminator, frozen

if TYPE_CHECKING:
    from pipeline.body import Body

GENERATOR_TERMS: Final = ("kp_2d", "kp_3d", "pose", "shape", "adversarial", "mposer")
# Too small to change any gradient in float32, and far above float32's smallest number
_NEXT_TO_NOTHING: Final = 1e-20


class VIBETrainer(VideoTrainer):
    """Trains the generator, with a discriminator, with a trained prior of motion, or alone."""

    config: TrainConfig
    generator: VIBE
    several_processes = True

    def __init__(self, config: TrainConfig, body: Body, group: ProcessGroup | None = None) -> None:
        """Raises CheckpointError for an invalid prior, StandInMixed if only one of prior and body
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
            runs.one_kind(
                {f"the prior {config.mposer}": self.prior.stand_in, "the body": body.is_stand_in}
            )

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
        """Weights times this process's share of the labels in each term's mean."""
        weights = self.config.weights
        if self.group.size == 1:
            return weights
        real = 0 if batch.real_theta is None else len(batch.real_theta)
        counts = [
            len(batch.labels["kp_2d"]),
            batch.labels["w_3d"].sum(),
            batch.labels["w_smpl"].sum(),
            real,
        ]
        counts_here = torch.stack(
            [torch.as_tensor(n, dtype=torch.float64, device=self.group.device) for n in counts]
        )
        windows, kp_3d, smpl, discriminator_real = (
            counts_here / self.group.sum(counts_here.clone()).clamp(min=1e-12)
        ).tolist()
        share = {
            "kp_3d": kp_3d,
            "pose": smpl,
            "shape": smpl,
            "discriminator_real": discriminator_real,
        }
        weights["discriminator_real"] = weights["discriminator"]
        return {name: weight * share.get(name, windows) for name, weight in weights.items()}


def step_losses(
    generator: nn.Module,
    discriminator: nn.Module | None,
    batch: losses.Batch,
    real_theta: Tensor | NDArray[Any] | None,
    weights: Mapping[str, float],
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Both losses of one step from the same parameters: (generator loss, discriminator loss, all
    weighted terms).

    batch: features (B, T, 2048), float16 or float32, and what `losses.generator_losses` takes;
    real_theta (B', T, 85); weights: a factor for each term, as in `losses.adversarial_terms`. The
    generator loss is the sum of kp_2d, kp_3d, pose, shape and adversarial, the discriminator loss
    of discriminator_real and discriminator_fake. No gradient reaches the other network's
    parameters. Without a discriminator its terms are 0.
    """
    reference = next(generator.parameters())
    pred = generator(_features(batch, reference), vertices=False)
    terms = losses.generator_losses(pred, batch, weights) | _no_motion_terms(reference)
    if discriminator is not None:
        fake = pred["theta"][..., MOTION]
        real = _real_motion(real_theta, reference)
        with frozen(discriminator):
            adversarial = discriminator(fake)
        # As published, the fakes are scored once for each side, with separate dropout.
        terms |= losses.adversarial_terms(
            adversarial, discriminator(real), discriminator(fake.detach()), weights
        )
    discriminator_loss = terms["discriminator_real"] + terms["discriminator_fake"]
    return (
        torch.stack([terms[name] for name in GENERATOR_TERMS if name in terms]).sum(),
        discriminator_loss,
        terms,
    )


def step_gradients(
    generator: VIBE,
    discriminator: nn.Module | None,
    batch: losses.Batch,
    real_theta: Tensor | NDArray[Any] | None,
    weights: Mapping[str, float],
    *,
    prior: Callable[[Tensor], Tensor] | None = None,
    precision: str = "fp32",
) -> dict[str, Tensor]:
    """Add both losses' gradients to `.grad` of their networks' parameters. Returns all weighted
    terms, detached.

    Equals backward on both losses of `step_losses`, but the discriminator runs once over generated
    and real motion: both sides share the dropout.

    prior: (B, T, 69) generated motion -> scalar "mposer", without its weight.
    precision: "bf16": matrix products of encoder, regressor and discriminator in bfloat16.
    """
    reference = next(generator.parameters())
    autocast = torch.autocast(reference.device.type, torch.bfloat16, enabled=precision == "bf16")
    with autocast:
        estimate = generator.regress(_features(batch, reference))
    pred = generator.pose(estimate, vertices=False)
    terms = losses.generator_losses(pred, batch, weights) | _no_motion_terms(reference)
    if prior is not None:
        terms["mposer"] = weights["mposer"] * prior(pred["theta"][..., MOTION])
    ends = [torch.stack([terms[name] for name in GENERATOR_TERMS if name in terms]).sum()]
    starts = [torch.ones_like(ends[0])]
    if discriminator is not None:
        fake = pred["theta"][..., MOTION]
        real = _real_motion(real_theta, reference)
        motion = torch.cat((fake.detach(), real)).requires_grad_()
        with autocast:
            scores = discriminator(motion)  # (B + B', 1)
        adversarial_terms, motion_grad = _score_motion(motion, scores, len(fake), weights)
        terms |= adversarial_terms
        ends.append(fake)
        starts.append(motion_grad)
    torch.autograd.backward(ends, starts)
    return {name: term.detach() for name, term in terms.items()}


def _score_motion(
    motion: Tensor, scores: Tensor, n_fake: int, weights: Mapping[str, float]
) -> tuple[dict[str, Tensor], Tensor]:
    """Add the discriminator's gradients; return the motion terms, and the adversarial term's
    gradient at the fakes.

    motion: (B + B', T, 69), the B fakes first; scores: (B + B', 1). Both sides' gradients differ by
    one factor per window, the derivative by its score: one backward pass with the discriminator's
    factors is enough.
    """
    leaves = scores.detach().float().requires_grad_()
    fakes = leaves[:n_fake]
    reals = leaves[n_fake:]
    terms = losses.adversarial_terms(fakes, reals, fakes, weights)
    (for_generator,) = torch.autograd.grad(terms["adversarial"], leaves)
    (for_both,) = torch.autograd.grad(
        terms["discriminator_real"] + terms["discriminator_fake"], leaves
    )
    # The generator needs a gradient even of windows without one for the discriminator.
    for_both = torch.where(for_both.abs() < _NEXT_TO_NOTHING, _NEXT_TO_NOTHING, for_both)
    torch.autograd.backward(scores, for_both.to(scores.dtype))
    assert motion.grad is not None
    ratio = for_generator[:n_fake] / for_both[:n_fake]  # (B, 1)
    return terms, motion.grad[:n_fake] * ratio[..., None]


def _features(batch: losses.Batch, reference: Tensor) -> Tensor:
    # Move float16, then widen: half the bytes.
    return torch.as_tensor(batch["features"], device=reference.device).to(reference.dtype)


def _real_motion(real_theta: Tensor | NDArray[Any] | None, reference: Tensor) -> Tensor:
    if real_theta is None:
        raise ValueError("real_theta: expected real motion for the discriminator, found None")
    return torch.as_tensor(real_theta, dtype=reference.dtype, device=reference.device)[..., MOTION]


def _no_motion_terms(reference: Tensor) -> dict[str, Tensor]:
    return dict.fromkeys(
        ("adversarial", "discriminator_real", "discriminator_fake"), reference.new_zeros(())
    )

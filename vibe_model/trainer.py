"""One step of training, and the whole state between two steps.  features -> windows -> [training] -> evaluation"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from vibe_model import losses
from vibe_model.config import TrainConfig
from vibe_model.data import Batch
from vibe_model.discriminator import MOTION, MotionDiscriminator, frozen
from vibe_model.errors import CheckpointError
from vibe_model.generator import VIBE

if TYPE_CHECKING:
    from pipeline.body import Body


def step_losses(
    generator: nn.Module,
    discriminator: nn.Module | None,
    batch: losses.Batch,
    real_theta: Tensor | NDArray[Any] | None,
    weights: Mapping[str, float],
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """(generator loss, discriminator loss, all weighted terms): both losses of one step, from the same parameters.

    batch: features (B, T, 2048), float16 or float32, and what `losses.generator_losses` wants; real_theta (B', T, 85);
    weights: a factor for each term; "adversarial" and "discriminator" are the published 0.5 unless given. The generator
    loss is the sum of kp_2d, kp_3d, pose, shape and adversarial, the discriminator loss of discriminator_real and
    discriminator_fake. Neither loss's gradient reaches the other network's parameters. Without a discriminator its
    terms are 0.
    """
    reference = next(generator.parameters())
    # Moved as they are stored, then widened: float16 is half the bytes, and the numbers are the same.
    features = torch.as_tensor(batch["features"], device=reference.device).to(reference.dtype)
    pred = generator(features)
    terms = losses.generator_losses(pred, batch, weights)
    zero = features.new_zeros(())
    terms |= {"adversarial": zero, "discriminator_real": zero, "discriminator_fake": zero}
    if discriminator is not None:
        if real_theta is None:
            raise ValueError("real_theta: expected real motion for the discriminator, found None")
        factors = {**losses.PUBLISHED_WEIGHTS, **weights}
        real = torch.as_tensor(real_theta, dtype=reference.dtype, device=reference.device)[..., MOTION]
        fake = pred["theta"][..., MOTION]
        with frozen(discriminator):
            terms["adversarial"] = factors["adversarial"] * losses.adversarial_generator(discriminator(fake))
        # Dropout draws anew for each forward: the fakes are scored once for either side, as published.
        sides = losses.discriminator_terms(discriminator(real), discriminator(fake.detach()))
        for name, term in zip(("discriminator_real", "discriminator_fake"), sides, strict=True):
            terms[name] = factors["discriminator"] * term
    discriminator_loss = terms["discriminator_real"] + terms["discriminator_fake"]
    generator_names = ("kp_2d", "kp_3d", "pose", "shape", "adversarial")
    generator_loss = torch.stack([terms[name] for name in generator_names]).sum()
    return generator_loss, discriminator_loss, terms


@dataclass(slots=True)
class Course:
    """How far training has come. Plain numbers: it is saved with the state."""

    step: int = 0  # steps done, skipped ones included
    skipped: int = 0  # of them: loss or gradient not finite, nothing updated
    skipped_in_a_row: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # of each term over this epoch's good steps
    good_steps: int = 0  # of this epoch
    best: float | None = None  # validation PA-MPJPE, mm
    best_epoch: int | None = None
    history: list[dict[str, Any]] = field(default_factory=list)  # one entry an epoch

    def means(self) -> dict[str, float]:
        return {name: total / self.good_steps for name, total in self.sums.items()} if self.good_steps else {}


class Trainer:
    """Both networks, their optimisers and schedules, and the random state: everything that training changes."""

    def __init__(self, config: TrainConfig, body: Body, device: torch.device) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.device = device
        self.generator = build_generator(config, body).to(device)
        self.discriminator = build_discriminator(config).to(device) if config.motion else None
        self.course = Course()
        self._optimisers = {"gen_optimizer": _adam(self.generator, config.lr_generator, config.weight_decay_generator)}
        if self.discriminator is not None:
            self._optimisers["disc_motion_optimizer"] = _adam(
                self.discriminator, config.lr_discriminator, config.weight_decay_discriminator
            )
        self._schedules = {
            f"{name}_schedule": ReduceLROnPlateau(
                optimiser, mode="min", factor=config.plateau_factor, patience=config.plateau_patience
            )
            for name, optimiser in self._optimisers.items()
        }

    def train_step(self, batch: Batch) -> dict[str, float] | None:
        """Update both networks once. None when a loss or a gradient is not finite: then neither is touched."""
        self.generator.train()
        for optimiser in self._optimisers.values():
            optimiser.zero_grad(set_to_none=True)
        generator_loss, discriminator_loss, terms = step_losses(
            self.generator, self.discriminator, batch.labels, batch.real_theta, self.config.weights
        )
        generator_loss.backward()  # type: ignore[no-untyped-call]
        if self.discriminator is not None:
            discriminator_loss.backward()  # type: ignore[no-untyped-call]
        good = self._is_finite(generator_loss, discriminator_loss)
        if good:
            for optimiser in self._optimisers.values():
                optimiser.step()
        return self._account({name: float(term.detach()) for name, term in terms.items()} if good else None)

    def end_epoch(self, score: float, validation: Mapping[str, Any]) -> bool:
        """Take note of an epoch's validation PA-MPJPE in mm: schedules, history. True when it is the best so far."""
        for schedule in self._schedules.values():
            schedule.step(score)
        course = self.course
        epoch = len(course.history)
        entry = {"epoch": epoch, "step": course.step, "score": score, "losses": course.means()}
        course.history.append({**entry, "validation": dict(validation), "learning_rates": self.learning_rates()})
        course.sums, course.good_steps = {}, 0
        improved = course.best is None or score < course.best
        if improved:
            course.best, course.best_epoch = score, epoch
        return improved

    def learning_rates(self) -> dict[str, float]:
        return {name: float(optimiser.param_groups[0]["lr"]) for name, optimiser in self._optimisers.items()}

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and text only: it can be read back without running code. Holds no body data."""
        state: dict[str, Any] = {
            "gen_state_dict": weights_of(self.generator),
            **{name: optimiser.state_dict() for name, optimiser in self._optimisers.items()},
            **{name: schedule.state_dict() for name, schedule in self._schedules.items()},
            "course": asdict(self.course),
            "rng": torch.get_rng_state(),
        }
        if self.discriminator is not None:
            state["disc_motion_state_dict"] = weights_of(self.discriminator)
        if self.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`: training goes on as if it had not been stopped. Raises CheckpointError."""
        try:
            self.generator.load_state_dict(state["gen_state_dict"])
            if self.discriminator is not None:
                self.discriminator.load_state_dict(state["disc_motion_state_dict"])
            for name, optimiser in self._optimisers.items():
                optimiser.load_state_dict(state[name])
            for name, schedule in self._schedules.items():
                schedule.load_state_dict(state[name])
            self.course = Course(**state["course"])
            torch.set_rng_state(state["rng"])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"expected the state of a run of this configuration: {error}") from error

    def _is_finite(self, *step: Tensor) -> bool:
        if not all(bool(torch.isfinite(loss)) for loss in step):
            return False
        # Summed over all: one look, and on a GPU one wait, for a hundred tensors.
        return bool(torch.isfinite(torch.nn.utils.get_total_norm(self._gradients())))

    def _gradients(self) -> Iterable[Tensor]:
        networks = [network for network in (self.generator, self.discriminator) if network is not None]
        return [p.grad for network in networks for p in network.parameters() if p.grad is not None]

    def _account(self, terms: dict[str, float] | None) -> dict[str, float] | None:
        course = self.course
        course.step += 1
        if terms is None:
            course.skipped += 1
            course.skipped_in_a_row += 1
            return None
        course.skipped_in_a_row = 0
        course.good_steps += 1
        course.sums = {name: course.sums.get(name, 0.0) + value for name, value in terms.items()}
        return terms


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, without torch's notes on the modules, which would name the body's."""
    return dict(network.state_dict())


def build_generator(config: TrainConfig, body: Body) -> VIBE:
    """A generator by the configuration, with fresh parameters."""
    return VIBE(
        body,
        seqlen=config.seqlen,
        n_layers=config.n_layers,
        hidden_size=config.hidden_size,
        bidirectional=config.bidirectional,
        add_linear=config.add_linear,
        use_residual=config.use_residual,
        feature_size=config.feature_size,
        regressor_size=config.regressor_size,
    )


def build_discriminator(config: TrainConfig) -> MotionDiscriminator:
    """A discriminator by the configuration, with fresh parameters."""
    return MotionDiscriminator(
        rnn_size=config.disc_size,
        num_layers=config.disc_layers,
        feature_pool=config.disc_pool,
        attention_layers=config.attention_layers,
        attention_size=config.attention_size,
        attention_dropout=config.attention_dropout,
    )


def _adam(network: nn.Module, lr: float, weight_decay: float) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=lr, weight_decay=weight_decay)

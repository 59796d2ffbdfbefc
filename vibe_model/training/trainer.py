"""One step of training, and the whole state between two steps.  features -> windows -> [training] -> evaluation"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from vibe_model.errors import CheckpointError, ConfigError
from vibe_model.networks.discriminator import MotionDiscriminator
from vibe_model.networks.generator import VIBE
from vibe_model.settings.config import TrainConfig
from vibe_model.training.course import Course, Step
from vibe_model.training.data import Batch
from vibe_model.training.parallel import Group
from vibe_model.training.steps import step_gradients

if TYPE_CHECKING:
    from pipeline.body import Body
    from vibe_model.networks.mposer import MPoser


class Trainer:
    """Both networks, their optimisers and schedules: everything that training changes.

    Step k draws its random numbers (dropout) from a seed that is made of the configuration's, k and the process's rank:
    there is no random state to save, and nothing that happens between two steps can change the second.
    """

    def __init__(self, config: TrainConfig, body: Body, group: Group | None = None) -> None:
        torch.manual_seed(config.seed)  # the same parameters in every process
        self.config = config
        self.group = group or Group()
        device = self.group.device
        self.generator = build_generator(config, body).to(device)
        self.discriminator = build_discriminator(config).to(device) if config.prior == "discriminator" else None
        self.prior = _prior(config, device)
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

    @property
    def device(self) -> torch.device:
        return self.group.device

    def train_step(self, batch: Batch) -> Step:
        """Update both networks once, or neither when a loss or a gradient is not finite.

        batch: this process's share. Losses are means over all of it, gradients are summed over the processes.
        """
        torch.manual_seed(_step_seed(self.config.seed, self.course.step, self.group.rank))
        self.generator.train()
        for optimiser in self._optimisers.values():
            optimiser.zero_grad(set_to_none=True)
        terms = self._backward(batch)
        parameters = [parameter for network in self._networks.values() for parameter in network.parameters()]
        self.group.sum_gradients(parameters)
        step = self._measured(terms)
        if step.good:
            for optimiser in self._optimisers.values():
                optimiser.step()
        self.course.note(step)
        return step

    def end_epoch(self, score: float, validation: Mapping[str, Any]) -> bool:
        """Take note of an epoch's validation PA-MPJPE in mm: schedules, history. True when it is the best so far."""
        for schedule in self._schedules.values():
            schedule.step(score)
        return self.course.end_epoch(score, validation, self.learning_rates())

    def learning_rates(self) -> dict[str, float]:
        return {name: float(optimiser.param_groups[0]["lr"]) for name, optimiser in self._optimisers.items()}

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and text only: it can be read back without running code. Holds no body data."""
        state: dict[str, Any] = {
            "gen_state_dict": weights_of(self.generator),
            **{name: optimiser.state_dict() for name, optimiser in self._optimisers.items()},
            **{name: schedule.state_dict() for name, schedule in self._schedules.items()},
            "course": asdict(self.course),
        }
        if self.discriminator is not None:
            state["disc_motion_state_dict"] = weights_of(self.discriminator)
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
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"expected the state of a run of this configuration: {error}") from error

    @property
    def _networks(self) -> dict[str, nn.Module]:
        networks = {"generator": self.generator, "discriminator": self.discriminator}
        return {name: network for name, network in networks.items() if network is not None}

    def _backward(self, batch: Batch) -> dict[str, Tensor]:
        """Fill both networks' gradients; this process's part of every weighted term."""
        return step_gradients(
            self.generator,
            self.discriminator,
            batch.labels,
            batch.real_theta,
            self._weights(batch),
            prior=None if self.prior is None else self.prior.energy,
            precision=self.config.precision,
        )

    def _weights(self, batch: Batch) -> dict[str, float]:
        """The factors of this process's terms: with each term's share in the labels that all processes have of it.

        A mean over the whole batch is the sum of the processes' means, each times its share of what the mean is over.
        """
        weights = self.config.weights
        if self.group.size == 1:
            return weights
        real = 0 if batch.real_theta is None else len(batch.real_theta)
        counts = [len(batch.labels["kp_2d"]), batch.labels["w_3d"].sum(), batch.labels["w_smpl"].sum(), real]
        own = torch.stack([torch.as_tensor(count, dtype=torch.float64, device=self.device) for count in counts])
        shares = (own / self.group.sum(own.clone()).clamp(min=1e-12)).tolist()
        share = dict(zip(("windows", "kp_3d", "smpl", "discriminator_real"), shares, strict=True))
        share |= {"pose": share["smpl"], "shape": share["smpl"]}
        weights["discriminator_real"] = weights["discriminator"]
        return {name: weight * share.get(name, share["windows"]) for name, weight in weights.items()}

    def _measured(self, terms: Mapping[str, Tensor]) -> Step:
        """One look at all numbers of a step: on a GPU that is one wait."""
        losses = self.group.sum(torch.stack([term.detach().double() for term in terms.values()]))
        norms = [_gradient_norm(network) for network in self._networks.values()]
        numbers = torch.cat((losses, torch.stack(norms).double())).tolist()
        named = dict(zip((*terms, *self._networks), numbers, strict=True))
        return Step(
            {name: named[name] for name in terms},
            {name: named[name] for name in self._networks},
            all(map(math.isfinite, numbers)),
        )


def _gradient_norm(network: nn.Module) -> Tensor:
    return torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])


def _step_seed(*parts: int) -> int:
    """A seed of 63 bits that steps, ranks and seeds that differ share with no more than chance."""
    digest = hashlib.blake2b(struct.pack(f"<{len(parts)}q", *parts), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def _prior(config: TrainConfig, device: torch.device) -> MPoser | None:
    if config.prior != "mposer":
        return None
    if config.mposer is None:
        raise ConfigError("mposer: expected the checkpoint of a trained motion prior for prior = mposer, found none")
    from vibe_model.networks.mposer import load_mposer  # here: other runs need none

    return load_mposer(config.mposer).to(device)


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
        attention_size=config.disc_size,
        attention_dropout=config.attention_dropout,
    )


def _adam(network: nn.Module, lr: float, weight_decay: float) -> torch.optim.Adam:
    # Fused: every parameter and its two moments pass through memory once a step, not a dozen times.
    return torch.optim.Adam(network.parameters(), lr=lr, weight_decay=weight_decay, fused=True)

"""One step of training, and the whole state between two steps.  windows -> [training]"""

from __future__ import annotations

import hashlib
import math
import struct
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from vibe_model.errors import CheckpointError
from vibe_model.settings import RunConfig
from vibe_model.training.data import TrainingBatch
from vibe_model.training.parallel import ProcessGroup


class Step(NamedTuple):
    """The results of one step, of all processes together."""

    terms: dict[str, float]  # weighted losses by name
    norms: dict[str, float]  # of each network's gradient, by the network's name
    good: bool  # False: a loss or a gradient was not finite, and nothing was updated


@dataclass(slots=True)
class TrainingState:
    """Progress of a training: plain numbers, saved with the parameters."""

    step: int = 0  # steps done, skipped ones included
    skipped: int = 0  # steps with a non-finite loss or gradient, without an update
    skipped_in_a_row: int = 0
    sums: dict[str, float] = field(default_factory=dict)  # of each term over this epoch's good steps
    good_steps: int = 0  # of this epoch
    best: float | None = None  # the lowest score of an epoch
    best_epoch: int | None = None
    history: list[dict[str, Any]] = field(default_factory=list)  # one entry an epoch

    def add(self, step: Step) -> None:
        self.step += 1
        if not step.good:
            self.skipped += 1
            self.skipped_in_a_row += 1
            return
        self.skipped_in_a_row = 0
        self.good_steps += 1
        self.sums = {name: self.sums.get(name, 0.0) + value for name, value in step.terms.items()}

    def means(self) -> dict[str, float]:
        """Mean of each term over this epoch's good steps; empty without any."""
        return {name: total / self.good_steps for name, total in self.sums.items()} if self.good_steps else {}

    def end_epoch(
        self, score: float | None, validation: Mapping[str, Any], learning_rates: Mapping[str, float]
    ) -> bool:
        """Add an epoch to the history. True when its score, lower is better, is the best so far."""
        epoch = len(self.history)
        entry = {"epoch": epoch, "step": self.step, "score": score, "losses": self.means()}
        self.history.append({**entry, "validation": dict(validation), "learning_rates": dict(learning_rates)})
        self.sums, self.good_steps = {}, 0
        improved = score is not None and (self.best is None or score < self.best)
        if improved:
            self.best, self.best_epoch = score, epoch
        return improved


class Learner:
    """A network, its Adam, and its learning rate's schedule. `name`: in saved states and curves."""

    def __init__(
        self,
        config: RunConfig,
        network: nn.Module,
        name: str,
        *,
        lr: float,
        weight_decay: float = 0.0,
        fused: bool = False,
    ) -> None:
        """fused: Adam passes parameters and moments through memory once per step."""
        self.network, self.name = network, name
        self.optimiser: torch.optim.Optimizer = torch.optim.Adam(
            network.parameters(), lr=lr, weight_decay=weight_decay, fused=fused or None
        )
        self.schedule = ReduceLROnPlateau(
            self.optimiser, mode="min", factor=config.plateau_factor, patience=config.plateau_patience
        )


class Trainer(ABC):
    """Everything that training changes. Step k's random numbers depend on the seed, k and the rank only."""

    learners: Mapping[str, Learner]  # by the network's name

    def __init__(self, config: RunConfig, group: ProcessGroup | None = None) -> None:
        torch.manual_seed(config.seed)  # the same parameters in every process
        self.config, self.group = config, group or ProcessGroup()
        self.state = TrainingState()

    @abstractmethod
    def gradients(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """Add the gradients of this process's share of a batch; return its part of every weighted term."""

    def train_step(self, batch: TrainingBatch) -> Step:
        """Update all networks once, or none for a non-finite loss or gradient. batch: this process's share."""
        torch.manual_seed(_step_seed(self.config.seed, self.state.step, self.group.rank))
        learners = self.learners.values()
        for learner in learners:
            learner.network.train()
            learner.optimiser.zero_grad(set_to_none=True)
        statistics = [statistic for learner in learners for statistic in _statistics(learner.network)]
        before = [statistic.clone() for statistic in statistics]
        terms = self.gradients(batch)
        self.group.sum_gradients([p for learner in learners for p in learner.network.parameters()])
        # All numbers of a step together: a GPU is waited for once.
        losses = self.group.sum(torch.stack([term.detach().double() for term in terms.values()]))
        gradients = ([p.grad for p in learner.network.parameters() if p.grad is not None] for learner in learners)
        norms = torch.stack([nn.utils.get_total_norm(of_network) for of_network in gradients]).double()
        numbers = torch.cat((losses, norms)).tolist()
        step = Step(  # a term and a network may share a name
            dict(zip(terms, numbers[: len(terms)], strict=True)),
            dict(zip(self.learners, numbers[len(terms) :], strict=True)),
            all(map(math.isfinite, numbers)),
        )
        if step.good:
            for learner in learners:
                learner.optimiser.step()
        else:
            for statistic, old in zip(statistics, before, strict=True):
                statistic.copy_(old)
        self.state.add(step)
        return step

    def end_epoch(self, score: float | None, validation: Mapping[str, Any]) -> bool:
        """Update schedules and history. Returns whether the score is the best so far."""
        if score is not None:
            for learner in self.learners.values():
                learner.schedule.step(score)
        return self.state.end_epoch(score, validation, self.learning_rates())

    def learning_rates(self) -> dict[str, float]:
        learners = self.learners.values()
        return {f"{learner.name}_optimizer": float(learner.optimiser.param_groups[0]["lr"]) for learner in learners}

    def state_dict(self) -> dict[str, Any]:
        """Tensors, numbers and text only, which are read without running code; no body data."""
        saved: dict[str, Any] = {"training": asdict(self.state)}
        for learner in self.learners.values():
            saved[f"{learner.name}_state_dict"] = weights_of(learner.network)
            saved[f"{learner.name}_optimizer"] = learner.optimiser.state_dict()
            saved[f"{learner.name}_optimizer_schedule"] = learner.schedule.state_dict()
        return saved

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Inverse of `state_dict`: training continues as if it had not stopped. Raises CheckpointError."""
        try:
            for learner in self.learners.values():
                learner.network.load_state_dict(saved[f"{learner.name}_state_dict"])
                learner.optimiser.load_state_dict(saved[f"{learner.name}_optimizer"])
                learner.schedule.load_state_dict(saved[f"{learner.name}_optimizer_schedule"])
            self.state = TrainingState(**saved["training"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"expected the state of a run of this configuration: {error}") from error


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, without torch's metadata, which would name the body's."""
    return dict(network.state_dict())


def _statistics(network: nn.Module) -> list[Tensor]:
    """Running statistics of batch norms, which a step in training mode changes beside parameters."""
    norms = (module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm))
    return [buffer for norm in norms for buffer in norm.buffers()]


def _step_seed(*parts: int) -> int:
    """A 63-bit seed from a hash of seed, step and rank."""
    digest = hashlib.blake2b(struct.pack(f"<{len(parts)}q", *parts), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1

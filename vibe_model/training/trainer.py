"""One step of training, by one process or several, and the whole state between two steps.  windows
-> [training]

A `Trainer` has a `Learner` (network, optimiser, learning rate) for each network of a model, and the
progress of the run (`_TrainingState`). In each step, `TrainingLoop` calls `Trainer.train_step`:

1. `losses`, of the subclass, returns the weighted terms, means over this process's share of a batch
2. with several processes (`ProcessGroup`), each term is multiplied by this process's share of the
   term's items (`counts`), so that the sum over processes is the mean over the whole batch
3. one backward on the sum of the terms; then every network is updated, or none

For a term with n items, n_p of them in process p, where their sum is S_p: `losses` returns the mean
S_p / n_p, and the share is n_p / n. The product is S_p / n, and the sum of all processes' products
is the mean over all n items.
"""

from __future__ import annotations

import hashlib
import math
import struct
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, ClassVar, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from pipeline.errors import CheckpointError, ConfigError
from vibe_model.settings import RunConfig
from vibe_model.training.data import TrainingBatch
from vibe_model.training.process_group import ProcessGroup

T = TypeVar("T")


class StepResult(NamedTuple):
    """The results of one step, of all processes together."""

    terms: dict[str, float]  # weighted losses by name, such as {"kp_2d": 12.5, "pose": 3.1}
    norms: dict[str, float]  # of each network's gradient, by the network's name
    good: bool  # False: a loss or a gradient was not finite, and nothing was updated

    @property
    def loss(self) -> float | None:
        """The sum of the terms; None if nothing was updated."""
        return sum(self.terms.values()) if self.good else None


@dataclass(slots=True)
class _TrainingState:
    """Progress of a training, as plain numbers. It is saved with the parameters in last.pt."""

    step: int = 0  # steps done, skipped ones included
    skipped: int = 0  # steps with a non-finite loss or gradient, without an update
    skipped_in_a_row: int = 0
    # sum of each loss term over this epoch's good steps (those with an update)
    sums: dict[str, float] = field(default_factory=dict)
    good_steps: int = 0  # number of good steps in this epoch
    best: float | None = None  # the lowest score of an epoch
    best_epoch: int | None = None
    history: list[dict[str, Any]] = field(default_factory=list)  # one entry an epoch

    def add(self, step: StepResult) -> None:
        self.step += 1
        if not step.good:
            self.skipped += 1
            self.skipped_in_a_row += 1
            return
        self.skipped_in_a_row = 0
        self.good_steps += 1
        for name, value in step.terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def means(self) -> dict[str, float]:
        """Mean of each loss term over this epoch's good steps; empty if there are none."""
        return {name: total / self.good_steps for name, total in self.sums.items()}

    def total(self) -> float | None:
        """Sum of the terms' means; None if this epoch has no good step."""
        if not self.sums:
            return None
        return sum(self.means().values())

    def end_epoch(
        self,
        score: float | None,
        validation: Mapping[str, Any],
        learning_rates: Mapping[str, float],
    ) -> bool:
        """Add an epoch to the history, and begin the next one.

        Returns whether its score is the lowest so far. score: None if the epoch has none.
        """
        epoch = len(self.history)
        entry = {
            "epoch": epoch,
            "step": self.step,
            "score": score,
            "losses": self.means(),
            "validation": dict(validation),
            "learning_rates": dict(learning_rates),
        }
        self.history.append(entry)
        self.sums = {}
        self.good_steps = 0
        improved = False
        if score is not None:
            improved = self.best is None or score < self.best
        if improved:
            self.best = score
            self.best_epoch = epoch
        return improved


class Learner:
    """A network, its optimiser, and the schedule of its learning rate.

    name: The network's name in saved states and curves.
    """

    def __init__(
        self, config: RunConfig, network: nn.Module, name: str, optimiser: Optimizer
    ) -> None:
        self.network = network
        self.name = name
        self.optimiser = optimiser
        self.schedule = ReduceLROnPlateau(
            optimiser,
            mode="min",
            factor=config.plateau_factor,
            patience=config.plateau_patience,
        )


class Trainer(ABC):
    """Base class: the networks with their optimisers, the training state, and how a step is done.

    A subclass adds `learners` and `losses`, and if it trains in several processes, `counts`. The
    random numbers of step k, as of dropout, depend only on the seed, k and the rank, so a run that
    resumes with as many processes draws the same ones.
    """

    learners: Mapping[str, Learner]  # by the network's name
    # whether it can train in several processes, for which `counts` must be right
    several_processes: ClassVar[bool] = False

    def __init__(self, config: RunConfig, group: ProcessGroup | None = None) -> None:
        """Raises ConfigError for several processes if it trains in one only."""
        torch.manual_seed(config.seed)  # the same parameters in every process
        self.config = config
        self.group = group or ProcessGroup()
        if self.group.size > 1 and not self.several_processes:
            n = self.group.size
            raise ConfigError(f"processes: {config.name} trains in one process, found {n}")
        self.state = _TrainingState()

    @abstractmethod
    def losses(self, batch: TrainingBatch) -> dict[str, Tensor]:
        """The weighted terms of this process's share of a batch, scalars by name.

        The trainer calls backward once, on their sum, so a term trains every network on whose
        parameters it depends. Therefore the generator's adversarial term must be computed with a
        `frozen` discriminator, and the discriminator's terms with detached motion.
        """

    def counts(self, batch: TrainingBatch) -> dict[str, Tensor | int]:  # noqa: ARG002  a hook
        """Term -> number of items, in this process's share of the batch, of which it is the mean.

        Used with several processes only, to average terms over the whole batch. Terms that are
        missing here are means over windows.
        """
        return {}

    def train_step(self, batch: TrainingBatch) -> StepResult:
        """Update all networks once; none of them if a loss or a gradient is not finite.

        batch: This process's share of the batch.
        """
        torch.manual_seed(_step_seed(self.config.seed, self.state.step, self.group.rank))
        learners = self.learners.values()
        for learner in learners:
            learner.network.train()
            learner.optimiser.zero_grad(set_to_none=True)
        # for a step without an update: batch norms change in the forward pass
        statistics = _statistics([learner.network for learner in learners])
        before = [statistic.clone() for statistic in statistics]

        terms = self._forward(batch)
        parts = torch.stack(list(terms.values()))
        if self.group.size > 1:
            parts = parts * self._shares(batch, terms)
        # DistributedDataParallel divides the sum of the processes' gradients by their number. The
        # loss is the sum of their parts, so each multiplies its part by that number first.
        torch.autograd.backward(parts.sum() * self.group.size)

        step = self._collect(terms, parts.detach())
        if step.good:
            for learner in learners:
                learner.optimiser.step()
        else:
            for statistic, old in zip(statistics, before, strict=True):
                statistic.copy_(old)
        self.state.add(step)
        return step

    def _collect(self, names: Collection[str], parts: Tensor) -> StepResult:
        """Add up all processes' parts of the terms, and measure the gradients.

        parts: (terms,) this process's.
        """
        losses = self.group.sum(parts.double())
        norms = [_gradient_norm(learner.network) for learner in self.learners.values()]
        # all numbers of a step together: a GPU is waited for once
        numbers = torch.cat((losses, torch.stack(norms))).tolist()
        by_term = dict(zip(names, numbers[: len(names)], strict=True))
        by_network = dict(zip(self.learners, numbers[len(names) :], strict=True))
        return StepResult(by_term, by_network, all(map(math.isfinite, numbers)))

    @cached_property
    def _forward(self) -> Callable[[TrainingBatch], dict[str, Tensor]]:
        """`losses`; with several processes, wrapped so that backward averages the gradients."""
        if self.group.size == 1:
            return self.losses
        with warnings.catch_warnings():
            # what torch 2.14 names in its place, torch 2.8 does not have
            warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
            return DistributedDataParallel(_Losses(self), broadcast_buffers=False)

    def _shares(self, batch: TrainingBatch, terms: Iterable[str]) -> Tensor:
        """Fraction of each term's items (see `counts`) that this process has: (terms,) float32."""
        counts = self.counts(batch)
        n_windows = len(batch.labels["kp_2d"])
        device = self.group.device
        counted = []
        for name in terms:
            count = counts.get(name, n_windows)
            counted.append(torch.as_tensor(count, dtype=torch.float64, device=device))
        local = torch.stack(counted)
        total = self.group.sum(local.clone())
        return (local / total.clamp(min=1e-12)).float()

    def end_epoch(self, score: float | None, validation: Mapping[str, Any]) -> bool:
        """Update learning rates and history. Returns whether the score is the lowest so far."""
        if score is not None:
            for learner in self.learners.values():
                learner.schedule.step(score)
        return self.state.end_epoch(score, validation, self.learning_rates())

    def learning_rates(self) -> dict[str, float]:
        return {
            f"{learner.name}_optimizer": float(learner.optimiser.param_groups[0]["lr"])
            for learner in self.learners.values()
        }

    def state_dict(self) -> dict[str, Any]:
        """The whole state between two steps.

        It consists of tensors, numbers and text only, so that reading it runs no code, and contains
        no body data.
        """
        saved: dict[str, Any] = {"training": asdict(self.state)}
        for learner in self.learners.values():
            saved[f"{learner.name}_state_dict"] = weights_of(learner.network)
            saved[f"{learner.name}_optimizer"] = learner.optimiser.state_dict()
            saved[f"{learner.name}_optimizer_schedule"] = learner.schedule.state_dict()
        return saved

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore a state of `state_dict`, so that training continues as if it had not stopped.

        Raises CheckpointError if it does not fit the networks.
        """
        try:
            for learner in self.learners.values():
                learner.network.load_state_dict(saved[f"{learner.name}_state_dict"])
                learner.optimiser.load_state_dict(saved[f"{learner.name}_optimizer"])
                learner.schedule.load_state_dict(saved[f"{learner.name}_optimizer_schedule"])
            self.state = _TrainingState(**saved["training"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"expected the state of a run of this configuration: {error}"
            ) from error


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name.

    A plain dict, without torch's metadata, which would also list the body's modules.
    """
    return dict(network.state_dict())


class _Losses(nn.Module):
    """A module with all networks of a trainer, whose forward pass is the trainer's `losses`.

    DistributedDataParallel needs a module.
    """

    def __init__(self, trainer: Trainer) -> None:
        super().__init__()
        self.networks = nn.ModuleList(learner.network for learner in trainer.learners.values())
        self._trainer = trainer

    def forward(self, batch: TrainingBatch) -> dict[str, Tensor]:
        return self._trainer.losses(batch)


def _gradient_norm(network: nn.Module) -> Tensor:
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return nn.utils.get_total_norm(gradients).double()


def _statistics(networks: Iterable[nn.Module]) -> list[Tensor]:
    """Buffers of the batch norms, which a forward pass in training mode changes."""
    statistics: list[Tensor] = []
    for network in networks:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                statistics.extend(module.buffers())
    return statistics


def _step_seed(seed: int, step: int, rank: int) -> int:
    """A 63-bit seed from a hash of seed, step and rank."""
    digest = hashlib.blake2b(struct.pack("<3q", seed, step, rank), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1

"""Several processes that train as one, each on its device.  features -> windows -> [training] -> evaluation

Torch's launcher starts them; each has its share of every batch. Losses are means over the whole batch, so gradients are
summed: the same numbers as in one process, up to rounding.
"""

from __future__ import annotations

import datetime
import importlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import torch
from torch import Tensor, distributed, nn

from vibe_model.errors import ConfigError
from vibe_model.prediction.trained import device_of
from vibe_model.settings import VideoConfig

# The others wait while the first process validates and saves: maybe longer than NCCL's default of ten minutes.
PATIENCE: Final = datetime.timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The processes of a training run, seen by one of them. With one process, all methods do nothing."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))  # this process's

    @property
    def leads(self) -> bool:
        """Whether this process writes, validates and reports."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Sum over all processes, in place."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def sum_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Sum gradients over all processes, in place, in one message."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        for gradient, summed in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    def from_first(self, number: float | None) -> float | None:
        """The first process's number, for which all wait."""
        if self.size == 1:
            return number
        value = torch.tensor(number or 0.0, dtype=torch.float64, device=self.device)
        distributed.broadcast(value, src=0)
        return float(value)


def launched_processes() -> int:
    """Number of processes that torch's launcher started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1")) if distributed.is_torchelastic_launched() else 1


@contextmanager
def join_processes(device: str, processes: int) -> Iterator[ProcessGroup]:
    """Join the launcher's group; without a launcher, a group of one. Raises ConfigError for another size."""
    size = launched_processes()
    if processes > 1 and processes != size:
        raise ConfigError(
            f"processes: expected {processes}, found {size}. Start as many: "
            f"torchrun --standalone --nproc-per-node {processes} -m tasks train"
        )
    if size == 1:
        yield ProcessGroup(device=device_of(device))
        return
    device_of_rank = device_of(device, int(os.environ["LOCAL_RANK"]))
    if device_of_rank.type == "cuda":
        torch.cuda.set_device(device_of_rank)
    # The optimisers import it anyway. Imported later, it keeps the group alive, whose threads then end the finished
    # process with an error.
    importlib.import_module("torch._dynamo")
    backend, gpu = ("nccl", device_of_rank) if device_of_rank.type == "cuda" else ("gloo", None)
    distributed.init_process_group(backend, timeout=PATIENCE, device_id=gpu)  # a GPU named: NCCL starts, or fails, here
    group = ProcessGroup(distributed.get_rank(), size, device_of_rank)
    try:
        yield group
        group.from_first(0.0)  # wait for the first process
    finally:
        distributed.destroy_process_group()


def n_processes(config: VideoConfig) -> int:
    """Number of processes of a training on this machine, by its settings."""
    if config.processes:
        return config.processes
    device = device_of(config.device)
    return torch.cuda.device_count() if device == torch.device("cuda") else 1  # cuda:1 is that GPU only

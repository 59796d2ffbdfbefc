"""Processes that train one run together.  windows -> [training]"""

from __future__ import annotations

import datetime
import gc
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Self, TypeVar

import torch
from torch import Tensor, distributed

from pipeline.errors import ConfigError
from vibe_model.devices import device_of
from vibe_model.settings import VideoConfig

T = TypeVar("T")

# The others wait while the first process validates and saves: maybe longer than NCCL's default of
# ten minutes.
PATIENCE: Final = datetime.timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """The processes that train one run together, from the point of view of one of them.

    Torch's launcher (torchrun) starts the processes. Each has its own device, and trains on its
    share of every batch. Losses are means over the whole batch, so they are the same numbers as in
    one process, up to rounding. If there is only one process, `sum` and `from_first` return what
    they are given.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))  # this process's

    @staticmethod
    def launched_size() -> int:
        """Number of processes that torch's launcher started; 1 without it."""
        if not distributed.is_torchelastic_launched():
            return 1
        return int(os.environ.get("WORLD_SIZE", "1"))

    @staticmethod
    def planned_size(config: VideoConfig) -> int:
        """Number of processes of a training on this machine, by its settings."""
        if config.processes:
            return config.processes
        if device_of(config.device) == torch.device("cuda"):  # cuda:1 is that GPU only
            return torch.cuda.device_count()
        return 1

    @property
    def leads(self) -> bool:
        """Whether this process writes, validates and reports."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Add up the processes' tensors, in place. Returns `values`."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def from_first(self, value: T) -> T:
        """Return the first process's value in every process, and wait for it."""
        if self.size == 1:
            return value
        values = [value]
        distributed.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    @classmethod
    @contextmanager
    def join(cls, device: str, processes: int) -> Iterator[Self]:
        """Context in which this process belongs to the launcher's group, or without a launcher, to
        a group of one.

        processes: Expected size of the group, if above 1; ConfigError is raised for another size.
        """
        size = cls.launched_size()
        if processes > 1 and processes != size:
            raise ConfigError(
                f"processes: expected {processes}, found {size}. Start as many: "
                f"torchrun --standalone --nproc-per-node {processes} -m tasks train"
            )
        if size == 1:
            yield cls(device=device_of(device))
            return
        device_of_rank = device_of(device, int(os.environ["LOCAL_RANK"]))
        backend = "gloo"
        gpu = None
        if device_of_rank.type == "cuda":
            torch.cuda.set_device(device_of_rank)
            backend = "nccl"
            gpu = device_of_rank
        # The optimisers import it anyway. Imported while there is a group, it keeps the group alive
        # after its end, and the group's threads end the finished process with an error.
        importlib.import_module("torch._dynamo")
        # With a GPU named, NCCL starts, or fails, here.
        distributed.init_process_group(backend, timeout=PATIENCE, device_id=gpu)
        group = cls(distributed.get_rank(), size, device_of_rank)
        try:
            yield group
            group.from_first(None)  # wait for the first process
        finally:
            # A trainer holds the group by its `_forward`, and refers to itself by `_Losses`: only
            # the garbage collector frees it.
            gc.collect()
            distributed.destroy_process_group()

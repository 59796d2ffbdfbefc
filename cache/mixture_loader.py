"""The loader that `cache.torch_mixture` makes.  features -> [windows] -> training

Processes read the batches of later steps, and a thread one more. Which windows a step gets follows
from the seed and the step's number, so a saved state is this number, beside what shows that the
windows are the same ones.

This is a module of its own because only it imports PyTorch.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from multiprocessing import parent_process
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import Any, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, default_convert

from cache.errors import CacheError
from cache.mixture import Mixture, MixturePart

T = TypeVar("T")


def torch_mixture(
    parts: Sequence[MixturePart],
    *,
    seqlen: int = 16,
    rate: float | None = None,
    seed: int = 0,
    steps: int = sys.maxsize,
    rank: int = 0,
    world_size: int = 1,
    read_workers: int = 0,
) -> TorchMixture:
    """Make a loader of random batches of windows from several splits, by their weights.

    A batch is a dict of tensors by part and field: `batch["3d"]["kp_2d"]` (B, seqlen, 49, 3).
    Features have the dtype in which they are stored. Which windows a step gets depends only on the
    seed, the parts and the step, so a loop can be stopped anywhere and go on later (`state_dict`),
    with any number of processes and workers.

    Args:
        parts: each gives `count` windows to every batch.
        seqlen: frames in a window; with `rate`, times.
        rate: times a second, as of `Split.windows`; None: consecutive frames.
        steps: number of batches of the whole training, after which the loop ends.
        rank, world_size: this process and how many there are. Window i of a step, counted through
            all parts, is for rank i % world_size.
        read_workers: number of processes that read several steps ahead; 0: a thread reads one
            step ahead. They are started by forkserver, so a script needs
            `if __name__ == "__main__"`.

    Raises CacheError for a part without a window, and for splits whose fields differ in shape;
    ValueError for a rank that is not below world_size, parts of one name, and a weight of 0 or
    less. The loop raises the errors of `Split.read`, and CacheError if one of its processes was
    killed.
    """
    mixture = Mixture(parts, seqlen=seqlen, seed=seed, rank=rank, world_size=world_size, rate=rate)
    return TorchMixture(mixture, steps, read_workers)


@dataclass(eq=False)
class TorchMixture:
    """Batches of a mixture as PyTorch's tensors, from `step` on: see `cache.torch_mixture`."""

    mixture: Mixture
    """Draws and reads the windows of any step, as NumPy's arrays."""
    steps: int
    read_workers: int
    step: int = 0
    """Number of batches that the loop was given, and thereby the step of the next one."""

    def __iter__(self) -> Generator[Any, None, None]:
        return self.batches(self._read, lambda batch: batch)

    def batches(
        self, read: Callable[[int], T], prepare: Callable[[T], T]
    ) -> Generator[T, None, None]:
        """Yield batches that are read in another way: what iterating is made of.

        Args:
            read: makes the batch of a step, from `mixture`; in a worker, if there are any. Its
                arrays become tensors.
            prepare: what the thread makes of a batch, such as a copy on the GPU.
        """
        steps: Any = range(self.step, self.steps)
        loader = DataLoader(
            steps,
            batch_size=None,
            collate_fn=partial(_make, read),
            worker_init_fn=_end_with_parent,
            num_workers=self.read_workers,
            # Not forked: this process has threads, and maybe a GPU. Not spawned: such workers
            # sometimes abort while they send.
            multiprocessing_context="forkserver" if self.read_workers else None,
            generator=torch.Generator(),  # not the default one, from which dropout draws
        )
        source = map(prepare, loader)
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches") as thread:
            next_batch = thread.submit(next, source, None)
            try:
                while (batch := next_batch.result()) is not None:
                    next_batch = thread.submit(next, source, None)
                    self.step += 1
                    yield batch
            except (RuntimeError, ConnectionResetError, EOFError) as error:
                if not _was_killed(error):
                    raise
                do = "Check the machine's memory, or set read_workers = 0."
                raise CacheError(
                    f"a process exited unexpectedly, while it read batches: {error}. {do}"
                ) from error

    def _read(self, step: int) -> Any:
        return self.mixture.read(self.mixture.draw(step))

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on after the last batch that the loop was given.

        Plain numbers, texts, lists and dicts by name: the step, the seed, all settings, and digests
        of the commits of splits and streams. It is the same in all ranks.
        """
        return {"step": self.step, **self._identity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the next loop go on after the last batch that the state's loop was given.

        Raises CacheError, which names the differences, if the state is of another seed, of other
        settings, or of other rows.
        """
        found = self._identity
        differences = [
            f"{name}: saved {state.get(name)}, found {found.get(name)}"
            for name in sorted((state.keys() | found.keys()) - {"step"})
            if state.get(name) != found.get(name)
        ]
        if differences:
            raise CacheError(
                f"a state of other windows: {'; '.join(differences)}. Use the settings that it was "
                "saved with, and where a digest differs, the cache at a tag of that time."
            )
        self.step = state["step"]

    @cached_property
    def _identity(self) -> dict[str, Any]:
        """What decides the windows, without rank and workers: `state_dict` without the step."""
        mixture = self.mixture
        identity = {
            "seed": mixture.seed,
            "seqlen": mixture.seqlen,
            "rate": mixture.rate,
            # Its feature releases, not its bug fixes, may give other random orders of windows.
            "numpy": np.__version__.split(".")[:2],
        }
        for part in mixture.parts.values():
            settings = asdict(replace(part, splits={})) | {"splits": list(part.splits)}
            identity |= {f"{part.name}: {name}": value for name, value in settings.items()}
            for name, split in part.splits.items():
                identity[f"digest of {name}"] = split.manifest["digest"]
                for stream in part.all_streams:
                    manifest = split.open_stream(stream).manifest
                    identity[f"digest of {name}/{stream}"] = manifest["digest"]
        # as a state is after JSON; NumPy's numbers and ranges of rows become lists
        return dict(json.loads(json.dumps(identity, default=lambda it: it.tolist())))


def _make(read: Callable[[int], T], step: int) -> Any:
    to_tensors: Any = default_convert  # torch declares no types
    return to_tensors(read(step))


def _end_with_parent(_worker: int) -> None:
    """Let a worker end when the process that wants its batches is killed. torch watches the
    worker's own parent, which is the forkserver: this one stays as long as it has workers.
    """
    Thread(target=_exit_after, args=[parent_process()], daemon=True).start()


def _exit_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _was_killed(error: Exception) -> bool:
    """Whether DataLoader raises this because one of its processes was killed, for lack of memory
    perhaps; also while it sent a batch. torch has no type for it.
    """
    if isinstance(error, RuntimeError):
        return "exited unexpectedly" in str(error)
    return not str(error).startswith("Caught ")  # as errors do that were raised in the process

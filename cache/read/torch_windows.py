"""The dataset for PyTorch's DataLoader that `cache.torch_windows` returns.  features -> [windows]
-> training

This is a module of its own because only it imports PyTorch.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from cache.windows import Ranges

if TYPE_CHECKING:
    from cache.read.split import Split

_Item = dict[str, torch.Tensor]


class TorchWindows(Dataset[_Item]):
    """The windows of a split as a map-style dataset: see `cache.torch_windows`. Worker processes
    open the split again.

    Args:
        windows: (W, 2) of [start, stop) rows.
        reading: the arguments of `Split.read` for each window, by name.
    """

    def __init__(self, split: Split, windows: Ranges, reading: Mapping[str, Any]) -> None:
        self._split = split
        self._windows = windows
        self._reading = reading
        self._process = os.getpid()

    def __len__(self) -> int:
        return len(self._windows)

    def __getitem__(self, number: int) -> _Item:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[_Item]:
        """The windows of a batch, which are read together. DataLoader calls this method in place of
        `__getitem__`.
        """
        # After a fork, open files and connections belong to the parent: copying opens them again.
        if os.getpid() != self._process:
            self._split = copy.copy(self._split)
            self._process = os.getpid()
        chosen = self._windows[np.asarray(numbers, np.int64)]
        items: list[_Item] = [{} for _ in numbers]
        for name, array in self._split.read(chosen, **self._reading).items():
            for item, window in zip(items, torch.from_numpy(array), strict=True):
                item[name] = window
        return items

    def __repr__(self) -> str:
        return f"TorchWindows of {self._split.name}: {len(self):,} windows"

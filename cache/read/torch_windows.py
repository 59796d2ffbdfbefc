"""The dataset for PyTorch's DataLoader that `cache.torch_windows` returns.  features -> [windows]
-> training

This is a module of its own because only it imports PyTorch.
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from cache.arrays import Ints
from cache.errors import CacheChanged, CacheError
from cache.windows import Tail

if TYPE_CHECKING:
    from cache.read.split import Split

Item = dict[str, torch.Tensor]


class TorchWindows(Dataset[Item]):
    """The windows of one or more splits as a map-style dataset: see `cache.torch_windows`.

    Window numbers count through the splits in order. Worker processes open the splits again.

    Args:
        seqlen: T, the number of rows of a window.
        stride: rows between the starts of a track's windows.
        tail: what becomes of a track's last rows, as for `Split.windows`.
        reading: the arguments of `Split.read` for each window, by name.
    """

    def __init__(
        self,
        splits: Sequence[Split],
        seqlen: int,
        stride: int,
        tail: Tail,
        reading: Mapping[str, Any],
    ) -> None:
        self._splits = tuple(splits)
        self._reading = reading
        self._process = os.getpid()
        self._arguments = (seqlen, stride, tail, reading)
        self.seqlen = seqlen
        self.stride = stride
        starts: list[Ints] = []
        for split in self._splits:
            windows = split.windows(
                seqlen, stride, reading["stream"], tail, streams=reading["streams"]
            )
            starts.append(windows[:, 0])
        self._starts = np.concatenate([*starts, np.zeros(0, np.int64)])
        self._stops = np.cumsum([len(rows) for rows in starts], dtype=np.int64)
        if len(starts) > 1:
            self._require_equal_shapes()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._identity, self._splits, *self._arguments)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> Item:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[Item]:
        """The windows of a batch, in the order of `numbers`. The windows of each split are read
        together, sorted by row. DataLoader calls this method in place of `__getitem__`.
        """
        chosen = np.asarray(numbers, np.int64)
        strange = chosen[(chosen < -len(self)) | (chosen >= len(self))]
        if len(strange):
            raise IndexError(f"window {strange[0]} of {len(self)}")
        chosen = np.where(chosen < 0, chosen + len(self), chosen)
        # After a fork, open files and connections belong to the parent: copying opens splits again.
        if os.getpid() != self._process:
            self._splits = tuple(map(copy.copy, self._splits))
            self._process = os.getpid()
        items: list[Item] = [{} for _ in chosen]
        starts = self._starts[chosen]
        split_numbers = np.searchsorted(self._stops, chosen, side="right")
        for split_number in np.unique(split_numbers).tolist():
            places = np.flatnonzero(split_numbers == split_number)
            places = places[np.argsort(starts[places], kind="stable")]
            for name, array in self._read(split_number, starts[places]).items():
                for place, window in zip(places.tolist(), torch.from_numpy(array), strict=True):
                    items[place][name] = window
        return items

    def __repr__(self) -> str:
        names = ", ".join(split.name for split in self._splits)
        return f"TorchWindows of {names}: {len(self):,} of {self.seqlen} frames"

    @property
    def _identity(self) -> str:
        """A digest of all windows, to find changes when a pickled dataset is loaded."""
        return hashlib.sha256(self._stops.tobytes() + self._starts.tobytes()).hexdigest()

    def _read(self, split_number: int, starts: Ints) -> dict[str, Any]:
        windows = np.stack([starts, starts + self.seqlen], axis=1)
        return self._splits[split_number].read(windows, **self._reading)

    def _require_equal_shapes(self) -> None:
        """Raise CacheError if the first windows of the splits differ in fields or shapes."""
        expected: set[tuple[str, tuple[int, ...]]] = set()
        first_split: str | None = None
        starts = np.split(self._starts, self._stops[:-1])
        for number, split in enumerate(self._splits):
            if not len(starts[number]):
                continue
            batch = self._read(number, starts[number][:1])
            shapes = {(name, array.shape[1:]) for name, array in batch.items()}
            if first_split is None:
                first_split = split.name
                expected = shapes
            differ = {name for name, _ in shapes ^ expected}
            if differ:
                raise CacheError(
                    f"{first_split} and {split.name}: expected the same shape of each field, "
                    f"found others of {', '.join(sorted(differ))}. "
                    "They cannot be in one batch: name other `fields`, or leave one out."
                )


def _rebuild(identity: str, splits: Sequence[Split], *arguments: Any) -> TorchWindows:
    """Load a pickled dataset, made from these arguments. Raises CacheChanged if its windows are
    different now.
    """
    dataset = TorchWindows(splits, *arguments)
    if dataset._identity != identity:
        names = ", ".join(split.name for split in splits)
        raise CacheChanged(
            f"{names}: there has been a commit of a stream since the windows were cut: cut them "
            "again"
        )
    return dataset

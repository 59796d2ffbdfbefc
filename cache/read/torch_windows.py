"""The dataset for PyTorch's DataLoader that `cache.torch_windows` returns.  features -> [windows]
-> training

This is a module of its own because only it imports PyTorch.
"""

from __future__ import annotations

import copy
import itertools
import operator
import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from cache.read.batches import Batch, StreamFields
from cache.windows import Ranges

if TYPE_CHECKING:
    from cache.read.split import Split

_Item = dict[str, torch.Tensor]


class TorchWindows(Dataset[_Item]):
    """The windows of one or several splits as a map-style dataset: see `cache.torch_windows`.
    Worker processes open the splits again, in the same commits.

    Args:
        windows: of each split, (W, 2) of [start, stop) rows, all of one length, or (W, T) rows.
        dtype: of features.
        reading: the arguments `stream`, `fields`, `streams` and `history` of `Split.read`.
    """

    def __init__(
        self, splits: Sequence[Split], windows: Sequence[Ranges], dtype: Any, **reading: Any
    ) -> None:
        streams = StreamFields.parse(reading["stream"], reading["streams"], reading["history"])
        self.streams = streams.streams
        self._bfloat16: frozenset[str] = (
            frozenset()
        )  # fields to convert to what NumPy does not have
        if isinstance(dtype, torch.dtype):
            if dtype == torch.bfloat16:
                self._bfloat16 = frozenset(streams.features)
                dtype = torch.float32
            dtype = str(dtype).removeprefix("torch.")
        self._reading = {**reading, "dtype": dtype}
        self._splits = list(splits)
        self._windows = list(windows)
        self._process = os.getpid()
        for split, chosen in zip(splits, windows, strict=True):
            Batch(split, chosen, streams)  # checks the windows
            for stream in streams.streams:
                split.open_stream(stream)  # so that workers open the same commit
        self._require_equal_items()
        # (W, 2) or (W, T) of all splits, one after the other
        self._rows = np.concatenate(self._windows)
        self._split_of = np.repeat(np.arange(len(splits)), [len(chosen) for chosen in windows])

    @property
    def windows(self) -> Ranges | list[Ranges]:
        """The windows, (W, 2) of [start, stop) rows or (W, T) rows, in the order of the items; of
        several splits, a list with those of each.
        """
        return self._windows[0] if len(self._splits) == 1 else self._windows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, number: int) -> _Item:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[_Item]:
        """The windows of a batch; those of one split are read together. DataLoader calls this
        method in place of `__getitem__`.
        """
        # After a fork, open files and connections belong to the parent: copying opens them again.
        if os.getpid() != self._process:
            self._splits = [copy.copy(split) for split in self._splits]
            self._process = os.getpid()
        chosen = np.array([operator.index(number) for number in numbers], np.int64)
        windows = self._rows[chosen]
        split_of = self._split_of[chosen]
        items: list[_Item] = [{} for _ in numbers]
        for split in np.unique(split_of).tolist():
            places = np.flatnonzero(split_of == split)
            for name, array in self._splits[split].read(windows[places], **self._reading).items():
                batch = torch.from_numpy(array)
                if name in self._bfloat16:
                    batch = batch.bfloat16()
                for place, window in zip(places.tolist(), batch, strict=True):
                    items[place][name] = window.clone()  # else it would keep the whole batch
                    if name == "rows" and len(self._splits) > 1:
                        items[place]["split"] = torch.tensor(split)
        return items

    def _require_equal_items(self) -> None:
        """Raise ValueError if items of the splits would differ in form."""
        forms = {windows.shape[1] for windows in self._windows}
        if len(forms) > 1:
            raise ValueError(
                f"windows: expected (W, 2) or (W, T) of all splits, found (W, {forms})"
            )
        if forms == {2}:
            lengths = np.unique(np.diff(np.concatenate(self._windows))).tolist()
            if len(lengths) > 1:
                raise ValueError(f"windows: expected one length, found {lengths} rows")
        first = None
        for split in self._splits:
            read = split.read(np.empty((0, 2), np.int64), **self._reading)
            forms = {(name, f"{array.dtype}{array.shape[2:]}") for name, array in read.items()}
            first = first or forms
            if forms != first:
                raise ValueError(
                    f"fields: expected the same form in all splits, found {sorted(forms - first)} "
                    f"in {split.name} and {sorted(first - forms)} in {self._splits[0].name}. Name "
                    "`fields` that are equal (kp_3d_49 has the 49 joints of evaluation splits), or "
                    "leave a split out"
                )

    def __repr__(self) -> str:
        names = ", ".join(split.name for split in self._splits)
        return f"TorchWindows of {names}: {len(self):,} windows"


def tell_lag(splits: Sequence[Split], streams: Sequence[str]) -> None:
    """Warn if streams lack rows, whose windows are left out."""
    for split, stream in itertools.product(splits, streams):
        by_shard = split.rows_by_shard()
        present = np.isin(np.arange(len(by_shard)), split.open_stream(stream).shards)
        lacking = by_shard[~present].sum()
        if lacking:
            text = f"{lacking:,} rows have no features of {stream!r} yet"
            warnings.warn(f"{split.name}: {text}: their windows are left out", stacklevel=3)


def tell_rates(splits: Sequence[Split]) -> None:
    """Warn if the splits have different numbers of rows a second."""
    rates = []
    for split in splits:
        fps = split.tables["track_fps"] / split.tables["track_step"]
        rates.append(np.unique(fps[np.isfinite(fps)].round()).tolist())
    if any(rate != rates[0] for rate in rates):
        texts = [f"{split.name} {rate}" for split, rate in zip(splits, rates, strict=True)]
        text = f"windows differ in time, by rows a second: {', '.join(texts)}"
        warnings.warn(text, stacklevel=3)

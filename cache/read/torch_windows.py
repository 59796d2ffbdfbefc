"""The dataset for PyTorch's DataLoader that `cache.torch_windows` returns.  features -> [windows]
-> training

This is a module of its own because only it imports PyTorch.
"""

from __future__ import annotations

import copy
import operator
import os
import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch.utils.data import Dataset

from cache.read.batches import Batch, StreamFields
from cache.windows import Ranges

if TYPE_CHECKING:
    from cache.read.split import Split

_Item = dict[str, torch.Tensor]
_READ_AS: Final = {  # dtype of tensors with features -> that in which they are read
    torch.float16: "float16",
    torch.bfloat16: "float32",
    torch.float32: "float32",
    torch.float64: "float64",
}


class TorchWindows(Dataset[_Item]):
    """The windows of one or several splits as a map-style dataset: see `cache.torch_windows`.
    Worker processes open the splits again, in the same commits.

    Args:
        windows: of each split, (W, 2) of [start, stop) rows, all of one length.
        reading: the arguments `stream`, `fields`, `streams` and `history` of `Split.read`.
        dtype: of features.
        is_cut: whether these are all windows with features.

    Raises ValueError if items of the splits would differ in their fields, and as `Split.read` does.
    """

    def __init__(
        self,
        splits: Sequence[Split],
        windows: Sequence[Ranges],
        reading: Mapping[str, Any],
        dtype: DTypeLike | torch.dtype,
        *,
        is_cut: bool,
    ) -> None:
        self._splits = list(splits)
        self._by_split = list(windows)
        self._rows = np.concatenate(self._by_split)  # (W, 2) of all splits, one after the other
        self._split_of = np.repeat(np.arange(len(splits)), [len(chosen) for chosen in windows])
        self._reading = dict(reading)
        self._dtype = None  # of features, if NumPy does not have it
        if isinstance(dtype, torch.dtype):
            if dtype not in _READ_AS:
                raise ValueError(f"dtype is {dtype}, expected one of {[*_READ_AS]}")
            self._dtype = dtype
            dtype = _READ_AS[dtype]
        self._reading["dtype"] = dtype
        self._process = os.getpid()
        streams = StreamFields.parse(reading["stream"], reading["streams"], reading["history"])
        self._features = frozenset(streams.features)
        if streams.is_default and not any(split.has_default_stream for split in splits):
            streams = StreamFields.parse(None)
            self._reading["stream"] = None  # also if one of this name is extracted later
        for split, chosen in zip(splits, windows, strict=True):
            Batch(split, chosen, streams)  # checks the windows
            for name in streams.streams:
                split.open_stream(name)  # so that workers open the same commit
                if is_cut:
                    _tell_lag(split, name)
        self._require_equal_items()
        _tell_rates(self._splits)

    @property
    def windows(self) -> Ranges | list[Ranges]:
        """The windows (W, 2), [start, stop) rows, in the order of the items; of several splits, a
        list with those of each.
        """
        return self._by_split[0] if len(self._splits) == 1 else self._by_split

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
                if self._dtype is not None and name in self._features:
                    batch = batch.to(self._dtype)
                for place, window in zip(places.tolist(), batch, strict=True):
                    items[place][name] = window.clone()  # else it would keep the whole batch
                    if name == "rows" and len(self._splits) > 1:
                        items[place]["split"] = torch.tensor(split)
        return items

    def _require_equal_items(self) -> None:
        """Raise ValueError unless the windows have one length, and the fields of all splits one
        shape and dtype.
        """
        lengths = np.unique(np.diff(self._rows)).tolist()
        if len(lengths) > 1:
            raise ValueError(f"windows: expected one length, found {lengths} rows")
        first: dict[str, str] = {}
        for split in self._splits:
            read = split.read(np.empty((0, 2), np.int64), **self._reading)
            forms = {name: f"{array.dtype}{array.shape[2:]}" for name, array in read.items()}
            first = first or forms
            for name in first | forms:
                one, other = first.get(name, "none"), forms.get(name, "none")
                if one != other:
                    raise ValueError(
                        f"{name}: expected one form in all splits, found {one} in "
                        f"{self._splits[0].name} and {other} in {split.name}. Name `fields` that "
                        "are equal (kp_3d_49 has the 49 joints of evaluation splits), or leave a "
                        "split out"
                    )

    def __repr__(self) -> str:
        names = ", ".join(split.name for split in self._splits)
        return f"TorchWindows of {names}: {len(self):,} windows"


def _tell_lag(split: Split, stream: str) -> None:
    """Warn if a stream lacks rows of the split, whose windows are left out."""
    n_rows = split.rows_by_shard()
    present = np.isin(np.arange(len(n_rows)), split.open_stream(stream).shards)
    lacking = int(n_rows[~present].sum())
    if lacking:
        text = f"{lacking:,} rows have no features of {stream!r} yet: their windows are left out"
        warnings.warn(f"{split.name}: {text}", stacklevel=4)


def _tell_rates(splits: Sequence[Split]) -> None:
    """Warn if the splits have different numbers of rows a second."""
    rates = []
    for split in splits:
        known = split.tables["track_fps"] / split.tables["track_step"]
        rates.append(np.unique(known[np.isfinite(known)].round()).tolist())
    if any(rate != rates[0] for rate in rates):
        texts = [f"{split.name} {rate}" for split, rate in zip(splits, rates, strict=True)]
        text = "windows have different lengths in time: rows a second: "
        warnings.warn(text + ", ".join(texts), stacklevel=4)

"""Windows of a split, or of several, as a dataset for PyTorch's DataLoader.  features -> [windows]
-> training
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from cache.errors import CacheChanged, CacheError
from cache.windows import Ints, Tail

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from cache.read.split import Split

Item = dict[str, torch.Tensor]


class Reading(NamedTuple):
    """Arguments of `Split.read` for each window."""

    stream: str | None
    fields: Sequence[str] | None
    dtype: DTypeLike | Mapping[str, DTypeLike]
    streams: Sequence[str] | None
    history: Mapping[str, int] | None


class TorchWindows(Dataset[Item]):
    """The windows of one or more splits: see `cache.torch_windows`. Workers open the splits
    again.
    """

    def __init__(
        self, splits: Sequence[Split], seqlen: int, stride: int, tail: Tail, reading: Reading
    ) -> None:
        self._splits = tuple(splits)
        self._reading = reading
        self._process = os.getpid()
        self._arguments = (seqlen, stride, tail, reading)
        self.seqlen = seqlen
        starts: list[Ints] = [
            split.windows(seqlen, stride, reading.stream, tail, streams=reading.streams)[:, 0]
            for split in self._splits
        ]
        self._starts = np.concatenate(starts) if starts else np.zeros(0, np.int64)
        self._stops = np.cumsum([len(rows) for rows in starts], dtype=np.int64)
        if len(starts) > 1:
            self._require_equal_shapes(
                [(number, rows[:1]) for number, rows in enumerate(starts) if len(rows)]
            )

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self._splits, *self._arguments, self._identity)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> Item:
        return self.__getitems__([number])[0]

    def __getitems__(self, numbers: Sequence[int]) -> list[Item]:
        """The windows of a batch, in their order: read at once, those of each split in the order of
        its rows.
        """
        chosen = np.asarray(numbers, np.int64)
        if strange := [
            number for number in chosen.tolist() if not -len(self) <= number < len(self)
        ]:
            raise IndexError(f"window {strange[0]} of {len(self)}")
        chosen = np.where(chosen < 0, chosen + len(self), chosen)
        # forked: open files and connections belong to the other process
        if os.getpid() != self._process:
            self._splits = tuple(map(copy.copy, self._splits))
            self._process = os.getpid()
        items: list[Item] = [{} for _ in chosen]
        of_split = np.searchsorted(self._stops, chosen, side="right")
        for number in np.unique(of_split).tolist():
            places = np.flatnonzero(of_split == number)
            places = places[np.argsort(self._starts[chosen[places]], kind="stable")]
            starts = self._starts[chosen[places]]
            for name, array in self._read(number, starts).items():
                for place, window in zip(places.tolist(), torch.from_numpy(array), strict=True):
                    items[place][name] = window
        return items

    @property
    def _identity(self) -> str:
        return hashlib.sha256(self._stops.tobytes() + self._starts.tobytes()).hexdigest()

    def _read(self, number: int, starts: Ints) -> dict[str, Any]:
        windows = np.stack([starts, starts + self.seqlen], axis=1)
        stream, fields, dtype, streams, history = self._reading
        return self._splits[number].read(
            windows, stream, fields, dtype, streams=streams, history=history
        )

    def _require_equal_shapes(self, first_windows: Sequence[tuple[int, Ints]]) -> None:
        """Compare the shapes of a window of each split, by its number."""
        shapes: dict[int, set[tuple[str, tuple[int, ...]]]] = {}
        for number, starts in first_windows:
            shapes[number] = {
                (name, array.shape[1:]) for name, array in self._read(number, starts).items()
            }
            first = next(iter(shapes))
            if differ := {name for name, _ in shapes[number] ^ shapes[first]}:
                names = f"{self._splits[first].name} and {self._splits[number].name}"
                raise CacheError(
                    f"{names}: expected the same shape of each field, found others of "
                    f"{', '.join(sorted(differ))}. "
                    "They cannot be in one batch: name other `fields`, or leave one out."
                )


def _again(
    splits: Sequence[Split], seqlen: int, stride: int, tail: Tail, reading: Reading, identity: str
) -> TorchWindows:
    dataset = TorchWindows(splits, seqlen, stride, tail, reading)
    if dataset._identity != identity:
        names = ", ".join(split.name for split in splits)
        raise CacheChanged(
            f"{names}: there has been a commit of a stream since the windows were cut: cut them "
            "again"
        )
    return dataset

"""Whole tracks of a split, for training loops of your own; no model here reads them.  features ->
training
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from cache import Split


class Tracks(Dataset[dict[str, Any]]):
    """A dataset of whole tracks: each item is one track of F frames.

    F varies, so batches need padding or packing (`collate_fn`). An item has:

    - for each of `streams`, `<stream>` (F, dim) float32 and `<stream>_ok` (F,) bool, which is False
      for frames that could not be decoded; their features are 0
    - each of `fields`, as `Split.read` returns it: `kp_2d` (F, 49, 3) in [-1, 1] over the crop of
      the first stream, and `frame_index` (F,) int64, strictly increasing, with gaps
    - `track` and `video`, the names

    Labels that the split does not have are 0, with a confidence or weight of 0. Workers of a
    `DataLoader` open the split again. Raises CacheError for a stream that the split does not have
    and for an unknown field, and ValueError for the field `features`, which `streams` give.
    """

    def __init__(
        self,
        split: Split,
        streams: Sequence[str] = ("resnet50",),
        fields: Sequence[str] = ("kp_2d", "frame_index"),
    ) -> None:
        self.split = split
        self.streams = tuple(streams)
        for stream in self.streams:
            split.open_stream(stream)  # raises CacheError if the split lacks it
        self.fields = tuple(fields)
        # reads no row; raises CacheError for an unknown field
        split.read(np.empty((0, 2), np.int64), streams=self.streams, fields=self.fields)

    def __len__(self) -> int:
        return len(self.split.tracks)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"track {index} of {len(self)}")
        track = self.split.tracks[index]
        window = np.array([[track.start, track.stop]])
        read = self.split.read(window, streams=self.streams, fields=self.fields)
        item: dict[str, Any] = {name: torch.from_numpy(array[0]) for name, array in read.items()}
        for stream in self.streams:
            features = self.split.rows(f"features/{stream}", track.start, track.stop)
            features = features.astype(np.float32)
            ok = self.split.rows(f"features/{stream}_ok", track.start, track.stop) == 1
            features[~ok] = 0
            item[stream] = torch.from_numpy(features)
            item[f"{stream}_ok"] = torch.from_numpy(ok)
        item["track"] = track.name
        item["video"] = track.video
        return item

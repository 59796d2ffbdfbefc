"""Whole tracks as a PyTorch dataset, for a model of one's own.  features -> [tracks] -> training, prediction"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch.utils.data import Dataset

if TYPE_CHECKING:
    from cache import Split

FIELDS: Final = ("kp_2d", "frame_index")


class Tracks(Dataset[dict[str, Any]]):
    """One item a track of F frames; F varies, so a batch of several needs padding or packing (`collate_fn`).

    `<stream>` (F, dim) float32 of each of `streams`, and `<stream>_ok` (F,) bool: False where the frame could not be
    decoded, with features 0. Each of `fields` that the split has, as `Split.read` gives them: `kp_2d` (F, 49, 3) in
    [-1, 1] over the crop of the first stream, `frame_index` (F,) int64 of the source, from 0, strictly increasing: it
    shows the gaps. `track` and `video`: their names.

    Workers of a `DataLoader` open the split again. Raises CacheError for a stream that the split does not have.
    """

    def __init__(self, split: Split, streams: Sequence[str] = ("resnet50",), fields: Sequence[str] = FIELDS) -> None:
        self.split, self.streams = split, tuple(streams)
        for stream in self.streams:
            split.stream_manifest(stream)  # raises where there is none
        labels = {"kp_3d", "theta", "w_3d", "w_smpl", "valid"}
        self.fields = tuple(name for name in fields if name in split.columns or name in labels)

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
            ok = self.split.rows(f"features/{stream}_ok", track.start, track.stop) == 1
            features = self.split.rows(f"features/{stream}", track.start, track.stop).astype(np.float32)
            features[~ok] = 0
            item |= {stream: torch.from_numpy(features), f"{stream}_ok": torch.from_numpy(ok)}
        return item | {"track": track.name, "video": track.video}

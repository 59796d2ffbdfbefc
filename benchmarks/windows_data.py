"""Data of benchmarks/windows.py: a cache of three splits, and the first one's features as .npy and as HDF5."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

import cache
from cache import SplitWriter, StreamWriter, TrackRows, VideoEntry

SEQLEN: Final = 16
STREAM: Final = "resnet50"
TRACK: Final = 256  # rows
_LABELS_2D: Final = ("frame_index", "bbox", "kp_2d")
_LABELS_3D: Final = (*_LABELS_2D, "kp_3d", "has_3d", "valid")
_ALL: Final = (*_LABELS_3D, "pose", "betas", "has_smpl")
# Split -> its columns, its part of the first split's rows, its part of a training batch. As in VIBE's own mixture,
# 60% have 2D labels alone.
SPLITS: Final[dict[str, tuple[Sequence[str], float, float]]] = {
    "flat/train": (_LABELS_2D, 1.0, 0.6),
    "joints/train": (_LABELS_3D, 0.125, 0.2),
    "body/train": (_ALL, 0.25, 0.2),
}


@dataclass(frozen=True, slots=True)
class Data:
    """Where everything is."""

    root: Path  # the cache
    npy: Path
    h5: Path
    rows: int
    dim: int

    @property
    def files(self) -> list[Path]:
        return [path for path in (*self.root.rglob("*"), self.npy, self.h5) if path.is_file()]

    def split(self) -> cache.Split:
        """The split that the other files hold, too, opened anew."""
        return cache.open(self.root)["flat/train"]


def make(folder: Path, *, rows: int, dim: int) -> Data:
    """Write it all. The numbers are random, so that nothing can be guessed or compressed."""
    data = Data(folder / "cache", folder / "features.npy", folder / "features.h5", rows, dim)
    for seed, (name, (columns, part, _)) in enumerate(SPLITS.items()):
        rng = np.random.default_rng(seed)
        _write_labels(data.root, name, int(rows * part) // TRACK, columns, rng)
        with StreamWriter(data.root, name, STREAM, dim=dim, plan="random") as writer:
            for shard in writer.pending:
                numbers = np.asarray(writer.rows(shard))
                # All patterns below infinity's: every finite float16 that is not negative.
                features = rng.integers(0, 0x7C00, (len(numbers), dim), np.uint16).view(np.float16)
                keys = np.stack([numbers, numbers], axis=1).astype(np.uint64)
                writer.write(shard, features, np.ones(len(numbers), bool), keys)
            writer.commit({})
    column: Any = data.split().column(f"features/{STREAM}")
    copy = np.lib.format.open_memmap(data.npy, "w+", np.float16, (rows, dim))
    with h5py.File(data.h5, "w") as file:
        stored = file.create_dataset("features", (rows, dim), np.float16)
        for start in range(0, rows, cache.ROWS_PER_SHARD):
            some = slice(start, min(start + cache.ROWS_PER_SHARD, rows))
            copy[some] = stored[some] = column[some]
    copy.flush()
    return data


def _write_labels(root: Path, name: str, n_tracks: int, columns: Sequence[str], rng: np.random.Generator) -> None:
    with SplitWriter(root, name, columns=columns, plan="random") as writer:
        writer.begin()
        for number in range(n_tracks):
            labels = _labels(rng, number)
            rows = {column: labels[column] for column in columns}
            video = f"{number:06d}"
            track = TrackRows(name=f"{video}/0", video=video, step=1, fps=25.0, crop_scale=1.3, columns=rows)
            writer.append(VideoEntry(name=video), [track])
        writer.commit({})


def _labels(rng: np.random.Generator, number: int) -> dict[str, NDArray[Any]]:
    """One track's labels. Some are unknown, as in real ones: joints, and the body of every tenth track."""
    kp_2d = rng.random((TRACK, 49, 3), np.float32) * 500
    kp_2d[..., 2] = rng.random((TRACK, 49)) < 0.6
    kp_3d = rng.standard_normal((TRACK, 49, 4), np.float32)
    kp_3d[..., 3] = 1
    valid = np.ones(TRACK, bool)
    valid[:3] = False
    return {
        "frame_index": np.arange(TRACK),
        "bbox": rng.uniform(50, 300, (TRACK, 4)).astype(np.float32),
        "kp_2d": kp_2d,
        "kp_3d": kp_3d,
        "pose": rng.standard_normal((TRACK, 72), np.float32),
        "betas": rng.standard_normal((TRACK, 10), np.float32),
        "has_3d": np.ones(TRACK, bool),
        "has_smpl": np.full(TRACK, number % 10 != 0),
        "valid": valid,
    }

"""The ways to read windows that benchmarks/windows.py compares."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import h5py
import numpy as np
import windows_data
from numpy.typing import NDArray
from windows_data import SEQLEN, STREAM, Data

Starts = NDArray[np.int64]  # (B,) first rows
Read = Callable[[Starts, NDArray[Any]], None]  # fills (B, SEQLEN, dim)

OURS, OURS_32 = "cache, float16", "cache, float32"
SLICES, ROWS, TAKE = "memmap, a slice a window", "memmap, [rows]", "memmap, np.take into the buffer"
H5_OPEN, H5_ITEM, ZARR = "h5py, kept open", "h5py, opened per window", "zarr-python"
SLOW: Final = {OURS_32: 64_000, H5_OPEN: 2_000, H5_ITEM: 400, ZARR: 300}  # windows a round at most


def ways(data: Data) -> dict[str, Callable[[], Read]]:
    """What opens a way of reading windows, by its name."""
    return {
        OURS: lambda: _ours(data, "float16"),
        SLICES: lambda: _memmap_slices(data),
        ROWS: lambda: _memmap_rows(data),
        TAKE: lambda: _memmap_take(data),
        OURS_32: lambda: _ours(data, "float32"),
        H5_OPEN: lambda: _h5_open(data),
        H5_ITEM: lambda: _h5_item(data),
        ZARR: lambda: _zarr(data),
    }


def _ours(data: Data, dtype: str) -> Read:
    split = data.split()

    def read(starts: Starts, out: NDArray[Any]) -> None:
        windows = np.stack([starts, starts + SEQLEN], axis=1)
        split.read(windows, STREAM, fields=("features",), dtype=dtype, out={"features": out})

    return read


def _memmap_slices(data: Data) -> Read:
    rows = np.load(data.npy, mmap_mode="r")

    def read(starts: Starts, out: NDArray[Any]) -> None:
        for window, start in enumerate(starts.tolist()):
            out[window] = rows[start : start + SEQLEN]

    return read


def _memmap_rows(data: Data) -> Read:
    rows, frames = np.load(data.npy, mmap_mode="r"), np.arange(SEQLEN)

    def read(starts: Starts, out: NDArray[Any]) -> None:
        out[...] = rows[starts[:, None] + frames]

    return read


def _memmap_take(data: Data) -> Read:
    rows, frames = np.load(data.npy, mmap_mode="r"), np.arange(SEQLEN)

    def read(starts: Starts, out: NDArray[Any]) -> None:
        # Any other mode has NumPy fill a buffer of its own first.
        np.take(rows, starts[:, None] + frames, axis=0, out=out, mode="clip")

    return read


def _h5_open(data: Data) -> Read:
    rows = h5py.File(data.h5)["features"]

    def read(starts: Starts, out: NDArray[Any]) -> None:
        for window, start in enumerate(starts.tolist()):
            rows.read_direct(out[window], np.s_[start : start + SEQLEN])

    return read


def _h5_item(data: Data) -> Read:
    def read(starts: Starts, out: NDArray[Any]) -> None:
        for window, start in enumerate(starts.tolist()):
            with h5py.File(data.h5) as file:
                out[window] = file["features"][start : start + SEQLEN]

    return read


def _zarr(data: Data) -> Read:
    rows: Any = data.split().column(f"features/{STREAM}")

    def read(starts: Starts, out: NDArray[Any]) -> None:
        for window, start in enumerate(starts.tolist()):
            out[window] = rows[start : start + SEQLEN]

    return read


def draw(data: Data, n_windows: int, seed: int) -> Starts:
    """Random windows that lie each within one track: (n_windows,) first rows."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, data.rows // windows_data.TRACK, n_windows) * windows_data.TRACK
    return first + rng.integers(0, windows_data.TRACK - SEQLEN + 1, n_windows)


def read_all(read: Read, starts: Starts, out: NDArray[Any]) -> float:
    """Read them, a buffer full at a time. Returns the seconds that it took."""
    began = time.perf_counter()
    for at in range(0, len(starts) - len(out) + 1, len(out)):
        read(starts[at : at + len(out)], out)
    return time.perf_counter() - began


def buffer(way: str, batch: int, dim: int) -> NDArray[Any]:
    out = np.empty((batch, SEQLEN, dim), np.float32 if way == OURS_32 else np.float16)
    out.fill(0)  # so that no page of it is touched for the first time while the clock runs
    return out


def compare(data: Data, starts: Starts, batch: int) -> None:
    """End the benchmark unless all ways read the same numbers."""
    expected = np.load(data.npy, mmap_mode="r")[starts[:, None] + np.arange(SEQLEN)]
    for way, opened in ways(data).items():
        out = buffer(way, batch, data.dim)
        opened()(starts, out)
        if out.tobytes() != expected.astype(out.dtype).tobytes():
            raise SystemExit(f"{way} reads other numbers than the .npy file has")

"""How fast are windows read, compared with np.memmap, h5py and zarr-python in the same run?

    .venv/bin/python benchmarks/windows.py --out benchmarks/windows.md

Writes a split (2D labels, float16 features of 2048 numbers) and its features again as .npy and
HDF5. Then reads random windows of 16 frames into a given buffer, a batch of 64 at a time, ten times
as many windows as rows / 16. All ways open their files again in each round, so that page faults and
our checksums count; slow ways read fewer windows. Rounds are interleaved: A B C A B C. `--small`
makes everything tiny, for a trial run.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

import cache

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import paired, parser, report, spread, table, write_split, write_stream

SEQLEN: Final = 16
STREAM: Final = "resnet50"
TRACK: Final = 256  # rows
SPLIT: Final = "flat/train"
BATCH: Final = 64  # windows
PASSES: Final = 10  # times as many windows as rows / 16
OURS = "cache, float16"
H5 = "h5py, opened per window"
ZARR, ZARR_ROWS = (
    f"zarr-python {version('zarr')}, {way}" for way in ("a window at a time", "oindex of a batch")
)
SLOW: Final = {H5: 400, ZARR: 300, ZARR_ROWS: 600}  # windows a round at most

Starts = NDArray[np.int64]  # (B,) first rows
Read = Callable[[Starts, NDArray[Any]], object]  # fills (B, SEQLEN, dim)


@dataclass(frozen=True, slots=True)
class _Data:
    """A cache, and its split's features as .npy and HDF5."""

    folder: Path
    rows: int
    dim: int

    @property
    def npy(self) -> Path:
        return self.folder / "features.npy"

    @property
    def h5(self) -> Path:
        return self.folder / "features.h5"

    def open(self) -> cache.FeatureCache:
        return cache.open(self.folder / "cache")

    def column(self) -> Any:
        """The split's features as a Zarr array."""
        return self.open()[SPLIT].column(f"features/{STREAM}")


def make(folder: Path, *, rows: int, dim: int) -> _Data:
    """Write the cache and the copies. The numbers are random, so that nothing can be compressed."""
    data, rng = _Data(folder, rows, dim), np.random.default_rng(0)
    frames = np.arange(TRACK)
    boxes = (rng.uniform(50, 300, (TRACK, 4)).astype(np.float32) for _ in range(rows // TRACK))
    videos: Iterator[Any] = ([{"frame_index": frames, "bbox": bbox}] for bbox in boxes)
    write_split(folder / "cache", SPLIT, ("frame_index", "bbox"), videos)

    def random_floats(numbers: NDArray[np.int64]) -> NDArray[np.float16]:
        """(n, dim): bit patterns below infinity's are the finite float16 numbers that are not
        negative.
        """
        return rng.integers(0, 0x7C00, (len(numbers), dim), np.uint16).view(np.float16)

    write_stream(folder / "cache", SPLIT, STREAM, dim, random_floats)
    column = data.column()
    copy = np.lib.format.open_memmap(data.npy, "w+", np.float16, (rows, dim))
    with h5py.File(data.h5, "w") as file:
        stored = file.create_dataset("features", (rows, dim), np.float16)
        for start in range(0, rows, cache.ROWS_PER_SHARD):
            shard = slice(start, min(start + cache.ROWS_PER_SHARD, rows))
            copy[shard] = stored[shard] = column[shard]
    copy.flush()
    return data


def _positions(starts: Starts) -> NDArray[np.int64]:
    """(B, SEQLEN) rows of windows."""
    return starts[:, None] + np.arange(SEQLEN)


def ours(data: _Data) -> Read:
    split = data.open()[SPLIT]

    def read(starts: Starts, out: NDArray[Any]) -> None:
        windows = np.stack([starts, starts + SEQLEN], axis=1)
        split.read(windows, STREAM, fields=("features",), dtype="float16", out={"features": out})

    return read


def _mapped_rows(data: _Data) -> Read:
    rows = np.load(data.npy, mmap_mode="r")

    def read(starts: Starts, out: NDArray[Any]) -> None:
        out[...] = rows[_positions(starts)]

    return read


def _mapped_take(data: _Data) -> Read:
    rows = np.load(data.npy, mmap_mode="r")
    # with any other mode, NumPy first fills a buffer of its own
    return lambda starts, out: rows.take(_positions(starts), 0, out, mode="clip")


def _h5py_windows(data: _Data) -> Read:
    def read(starts: Starts, out: NDArray[Any]) -> None:
        for number, start in enumerate(starts.tolist()):
            with h5py.File(data.h5) as file:
                out[number] = file["features"][start : start + SEQLEN]

    return read


def _zarr_windows(data: _Data) -> Read:
    rows = data.column()

    def read(starts: Starts, out: NDArray[Any]) -> None:
        for number, start in enumerate(starts.tolist()):
            out[number] = rows[start : start + SEQLEN]

    return read


def _zarr_batch(data: _Data) -> Read:
    rows = data.column()

    def read(starts: Starts, out: NDArray[Any]) -> None:
        out[...] = rows.oindex[_positions(starts).ravel()].reshape(out.shape)

    return read


# each opens its files
WAYS: Final[dict[str, Callable[[_Data], Read]]] = {
    OURS: ours,
    "memmap, [rows]": _mapped_rows,
    "memmap, np.take into the buffer": _mapped_take,
    H5: _h5py_windows,
    ZARR: _zarr_windows,
    ZARR_ROWS: _zarr_batch,
}


def draw(data: _Data, n_windows: int, seed: int) -> Starts:
    """Random windows, each within one track: (n_windows,) first rows."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, data.rows // TRACK, n_windows) * TRACK
    return first + rng.integers(0, TRACK - SEQLEN + 1, n_windows)


def buffer(batch: int, dim: int) -> NDArray[np.float16]:
    out = np.empty((batch, SEQLEN, dim), np.float16)
    out.fill(0)  # touches each page before the clock runs
    return out


def compare(data: _Data, starts: Starts) -> None:
    """Check that all ways read the same numbers."""
    expected = np.load(data.npy, mmap_mode="r")[_positions(starts)]
    for way, opened in WAYS.items():
        out = buffer(len(starts), data.dim)
        opened(data)(starts, out)
        if out.tobytes() != expected.tobytes():
            raise SystemExit(f"{way} reads other numbers than the .npy file has")


def windows(data: _Data, rounds: int, clock: Callable[[], float]) -> Iterator[str]:
    """Windows a second of each way."""
    n_windows = max(data.rows // SEQLEN // BATCH, 1) * BATCH * PASSES
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    for turn in range(rounds):
        starts = draw(data, n_windows, turn)
        compare(data, starts[:BATCH])
        for way, opened in WAYS.items():
            out = buffer(BATCH, data.dim)
            n_batches = max(min(SLOW.get(way, n_windows), n_windows) // BATCH, 1)
            began = clock()
            read = opened(data)
            for batch in starts[: n_batches * BATCH].reshape(n_batches, BATCH):
                read(batch, out)
            rates[way].append(n_batches * BATCH / (clock() - began))
    yield (
        f"{data.rows:,} rows of {data.dim} float16, windows of {SEQLEN} frames, {BATCH} a batch, "
        f"one thread, warm page cache, {n_windows:,} a round (slow ways at most "
        f"{', '.join(f'{n:,}' for n in SLOW.values())}), {rounds} rounds. All ways gave the same "
        "bytes. Opening, page faults and our checksums are counted.\n"
    )
    rows = []
    for way, of_way in rates.items():
        rows.append((way, spread(of_way, ",.0f"), f"**{paired(rates[OURS], of_way):.2f}**"))
    yield from table(("", "windows/s", "ours : it"), rows)


def main() -> None:
    """Make the data, measure, print, write the report."""
    options = parser(__doc__)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument(
        "--cpu", action="store_true", help="CPU time of all threads, for a busy machine"
    )
    options.add_argument("--small", action="store_true", help="4,096 rows of 32 numbers, one round")
    args = options.parse_args()
    rows, dim, rounds = (4_096, 32, 1) if args.small else (409_600, 2048, args.rounds)
    with tempfile.TemporaryDirectory() as folder:
        data = make(Path(folder), rows=rows, dim=dim)
        clock = time.process_time if args.cpu else time.perf_counter
        about = "Random numbers, CPU time." if args.cpu else "Random numbers."
        lines = windows(data, rounds, clock)
        report(about, "How fast are windows read?", lines, args)


if __name__ == "__main__":
    main()

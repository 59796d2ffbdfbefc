"""How fast are windows read, compared with np.memmap, h5py and zarr-python in the same run?

    .venv/bin/python benchmarks/windows.py --out benchmarks/windows.md

Writes a split (2D labels, float16 features of 2048 numbers) and its features again as .npy and
HDF5. Then reads random windows of 16 frames into a given buffer, a batch at a time, `--passes`
times as many windows as rows / 16. All ways open their files again in each round, so that page
faults and our checksums count; slow ways read fewer windows. Rounds are interleaved: A B C A B C.
`--small` makes everything tiny, for a trial run.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
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
OURS = "cache, float16"
SLICES, ROWS, TAKE = "memmap, a slice a window", "memmap, [rows]", "memmap, np.take into the buffer"
H5 = "h5py, opened per window"
ZARR, ZARR_ROWS = (
    f"zarr-python {version('zarr')}, {way}" for way in ("a window at a time", "oindex of a batch")
)
SLOW: Final = {H5: 400, ZARR: 300, ZARR_ROWS: 600}  # windows a round at most

Starts = NDArray[np.int64]  # (B,) first rows
Read = Callable[[Starts, NDArray[Any]], object]  # fills (B, SEQLEN, dim)


@dataclass(frozen=True, slots=True)
class Data:
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


def make(folder: Path, *, rows: int, dim: int) -> Data:
    """Write the cache and the copies. The numbers are random, so that nothing can be compressed."""
    data, rng = Data(folder, rows, dim), np.random.default_rng(0)
    frames = np.arange(TRACK)
    boxes = (rng.uniform(50, 300, (TRACK, 4)).astype(np.float32) for _ in range(rows // TRACK))
    tracks: Iterator[Any] = ({"frame_index": frames, "bbox": bbox} for bbox in boxes)
    write_split(folder / "cache", SPLIT, ("frame_index", "bbox"), tracks)

    def random_floats(numbers: NDArray[np.int64]) -> NDArray[np.float16]:
        """(n, dim): bit patterns below infinity's are the finite float16 numbers that are not
        negative.
        """
        return rng.integers(0, 0x7C00, (len(numbers), dim), np.uint16).view(np.float16)

    write_stream(folder / "cache", SPLIT, STREAM, dim, random_floats)
    column: Any = data.open()[SPLIT].column(f"features/{STREAM}")
    copy = np.lib.format.open_memmap(data.npy, "w+", np.float16, (rows, dim))
    with h5py.File(data.h5, "w") as file:
        stored = file.create_dataset("features", (rows, dim), np.float16)
        for start in range(0, rows, cache.ROWS_PER_SHARD):
            shard = slice(start, min(start + cache.ROWS_PER_SHARD, rows))
            copy[shard] = stored[shard] = column[shard]
    copy.flush()
    return data


def ways(data: Data) -> dict[str, Callable[[], Read]]:
    """By name, a function that opens a way of reading windows."""
    frames = np.arange(SEQLEN)

    def ours() -> Read:
        split = data.open()[SPLIT]

        def read(starts: Starts, out: NDArray[Any]) -> None:
            windows = np.stack([starts, starts + SEQLEN], axis=1)
            split.read(
                windows, STREAM, fields=("features",), dtype="float16", out={"features": out}
            )

        return read

    def whole(
        source: Callable[[], Any], read: Callable[[Any, Starts, NDArray[Any]], object]
    ) -> Callable[[], Read]:
        return lambda: partial(read, source())

    def each(
        source: Callable[[], Any], window: Callable[[Any, slice], NDArray[Any]]
    ) -> Callable[[], Read]:
        def read(rows: Any, starts: Starts, out: NDArray[Any]) -> None:
            for number, start in enumerate(starts.tolist()):
                out[number] = window(rows, slice(start, start + SEQLEN))

        return whole(source, read)

    def from_h5(_: None, rows: slice) -> NDArray[Any]:
        with h5py.File(data.h5) as file:
            return np.asarray(file["features"][rows])

    def gather(rows: Any, starts: Starts, out: NDArray[Any]) -> None:
        out[...] = rows[starts[:, None] + frames]

    def gather_by_oindex(rows: Any, starts: Starts, out: NDArray[Any]) -> None:
        out[...] = rows.oindex[(starts[:, None] + frames).ravel()].reshape(out.shape)

    def mapped() -> Any:
        return np.load(data.npy, mmap_mode="r")

    def column() -> Any:
        return data.open()[SPLIT].column(f"features/{STREAM}")

    return {
        OURS: ours,
        SLICES: each(mapped, lambda rows, window: rows[window]),
        ROWS: whole(mapped, gather),
        # With any other mode, NumPy first fills a buffer of its own.
        TAKE: whole(
            mapped,
            lambda rows, starts, out: rows.take(starts[:, None] + frames, 0, out, mode="clip"),
        ),
        H5: each(lambda: None, from_h5),
        ZARR: each(column, lambda rows, window: rows[window]),
        ZARR_ROWS: whole(column, gather_by_oindex),
    }


def draw(data: Data, n_windows: int, seed: int) -> Starts:
    """Random windows, each within one track: (n_windows,) first rows."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, data.rows // TRACK, n_windows) * TRACK
    return first + rng.integers(0, TRACK - SEQLEN + 1, n_windows)


def buffer(batch: int, dim: int) -> NDArray[np.float16]:
    out = np.empty((batch, SEQLEN, dim), np.float16)
    out.fill(0)  # touches each page before the clock runs
    return out


def compare(data: Data, starts: Starts, batch: int) -> None:
    """Check that all ways read the same numbers."""
    expected = np.load(data.npy, mmap_mode="r")[starts[:, None] + np.arange(SEQLEN)]
    for way, opened in ways(data).items():
        out = buffer(batch, data.dim)
        opened()(starts, out)
        if out.tobytes() != expected.tobytes():
            raise SystemExit(f"{way} reads other numbers than the .npy file has")


def windows(
    data: Data,
    *,
    rounds: int,
    batch: int,
    passes: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[str]:
    """Windows a second of each way: in all passes, and in the first one."""

    def read_all(read: Read, starts: Starts, out: NDArray[Any]) -> None:
        for at in range(0, len(starts) - len(out) + 1, len(out)):
            read(starts[at : at + len(out)], out)

    one_pass = max(data.rows // SEQLEN // batch, 1) * batch
    first: dict[str, list[float]] = {way: [] for way in ways(data)}
    whole: dict[str, list[float]] = {way: [] for way in ways(data)}
    for turn in range(rounds):
        starts = draw(data, one_pass * passes, turn)
        compare(data, starts[:batch], batch)
        for way, opened in ways(data).items():
            out = buffer(batch, data.dim)
            count = min(SLOW[way], len(starts) // 20) if way in SLOW else len(starts)
            count = max(count // batch, 1) * batch
            early = min(one_pass, count)
            began = clock()
            read = opened()
            read_all(read, starts[:early], out)
            first[way].append(early / (clock() - began))
            read_all(read, starts[early:count], out)
            whole[way].append(count / (clock() - began))
    yield (
        f"{data.rows:,} rows of {data.dim} float16, windows of {SEQLEN} frames, {batch} a "
        "batch, one thread, warm"
    )
    yield (
        f"page cache, {one_pass * passes:,} a round ({passes} passes of {one_pass:,}; slow "
        "ways at most"
    )
    yield (
        f"{', '.join(f'{n:,}' for n in SLOW.values())}), {rounds} rounds. All ways gave the "
        "same bytes. Opening, page"
    )
    yield "faults and our checksums are counted; nearly all of these are in the first pass.\n"
    rows = [
        (
            *(way, spread(whole[way], ",.0f"), spread(first[way], ",.0f")),
            *(
                f"**{paired(whole[OURS], whole[way]):.2f}**",
                f"{paired(first[OURS], first[way]):.2f}",
            ),
        )
        for way in whole
    ]
    yield from table(("", "windows/s", "first pass", "ours : it", "first pass, ours : it"), rows)


def main() -> None:
    """Make the data, measure, print, write the report."""
    options = parser(__doc__, at="the files, 4 GB")
    options.add_argument(
        "--rows", type=int, default=409_600, help="of the split that windows are read from"
    )
    options.add_argument("--batch", type=int, default=64, help="windows a batch")
    options.add_argument(
        "--passes", type=int, default=10, help="times as many windows as rows / 16"
    )
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument(
        "--cpu", action="store_true", help="CPU time of all threads, for a busy machine"
    )
    options.add_argument("--small", action="store_true", help="4,096 rows of 32 numbers, one round")
    args = options.parse_args()
    rows, dim, rounds = (4_096, 32, 1) if args.small else (args.rows, 2048, args.rounds)
    rows = -(-rows // TRACK) * TRACK  # whole tracks
    with tempfile.TemporaryDirectory(dir=args.at) as folder:
        data = make(Path(folder), rows=rows, dim=dim)
        clock = time.process_time if args.cpu else time.perf_counter
        lines = windows(data, rounds=rounds, batch=args.batch, passes=args.passes, clock=clock)
        report(
            "Random numbers, CPU time." if args.cpu else "Random numbers.",
            "How fast are windows read?",
            list(lines),
            args,
        )


if __name__ == "__main__":
    main()

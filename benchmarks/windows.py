"""How fast are windows read? Against np.memmap, h5py and zarr-python, in one run.

    .venv/bin/python benchmarks/windows.py --out benchmarks/windows.md

Writes a split (2D labels, features float16, 2048 numbers a row) and its features again as .npy and as HDF5, then reads
random windows of 16 frames from all of them into a given buffer, a batch at a time, `--passes` times as many windows as
there are rows / 16. Every way opens its files again in every round, so page faults, and our checksums, are in the
figures; slow ways read fewer. Rounds are interleaved: A B C A B C. `--small` makes it tiny, to see that it works.
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

from benchmarks.common import paired, parser, report, spread, table

SEQLEN: Final = 16
STREAM: Final = "resnet50"
TRACK: Final = 256  # rows
SPLIT: Final = "flat/train"
OURS, OURS_32 = "cache, float16", "cache, float32"
SLICES, ROWS, TAKE = "memmap, a slice a window", "memmap, [rows]", "memmap, np.take into the buffer"
H5_OPEN, H5_ITEM = "h5py, kept open", "h5py, opened per window"
ZARR, ZARR_ROWS = (f"zarr-python {version('zarr')}, {way}" for way in ("a window at a time", "oindex of a batch"))
SLOW: Final = {OURS_32: 64_000, H5_OPEN: 2_000, H5_ITEM: 400, ZARR: 300, ZARR_ROWS: 600}  # windows a round at most

Starts = NDArray[np.int64]  # (B,) first rows
Read = Callable[[Starts, NDArray[Any]], object]  # fills (B, SEQLEN, dim)


@dataclass(frozen=True, slots=True)
class Data:
    """A cache, and the first split's features as .npy and as HDF5."""

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
    """Write it all. The numbers are random, so that nothing can be guessed or compressed."""
    data, rng = Data(folder, rows, dim), np.random.default_rng(0)
    with cache.SplitWriter(folder / "cache", SPLIT, columns=("frame_index", "bbox"), plan="random") as writer:
        writer.begin()
        for number in range(rows // TRACK):
            labels: dict[str, NDArray[Any]] = {
                "frame_index": np.arange(TRACK),
                "bbox": rng.uniform(50, 300, (TRACK, 4)).astype(np.float32),
            }
            video = f"{number:06d}"
            facts: Any = {"name": f"{video}/0", "video": video, "step": 1, "fps": 25.0, "crop_scale": 1.3}
            writer.append(cache.VideoEntry(name=video), [cache.TrackRows(**facts, columns=labels)])
        writer.commit({})
    with cache.StreamWriter(folder / "cache", SPLIT, STREAM, dim=dim, plan="random") as stream:
        for shard in stream.pending:
            numbers = np.asarray(stream.rows(shard))
            # All patterns below infinity's: every finite float16 that is not negative.
            features = rng.integers(0, 0x7C00, (len(numbers), dim), np.uint16).view(np.float16)
            keys = np.stack([numbers, numbers], axis=1).astype(np.uint64)
            stream.write(shard, features, np.ones(len(numbers), bool), keys)
        stream.commit({})
    column: Any = data.open()[SPLIT].column(f"features/{STREAM}")
    copy = np.lib.format.open_memmap(data.npy, "w+", np.float16, (rows, dim))
    with h5py.File(data.h5, "w") as file:
        stored = file.create_dataset("features", (rows, dim), np.float16)
        for start in range(0, rows, cache.ROWS_PER_SHARD):
            some = slice(start, min(start + cache.ROWS_PER_SHARD, rows))
            copy[some] = stored[some] = column[some]
    copy.flush()
    return data


def oindex_of(rows: Any) -> Read:
    """A batch's windows by one selection of rows of a zarr array."""

    def read(starts: Starts, out: NDArray[Any]) -> None:
        out[...] = rows.oindex[(starts[:, None] + np.arange(SEQLEN)).ravel()].reshape(out.shape)

    return read


def ways(data: Data) -> dict[str, Callable[[], Read]]:
    """What opens a way of reading windows, by its name."""
    frames = np.arange(SEQLEN)

    def ours(dtype: str) -> Read:
        split = data.open()[SPLIT]

        def read(starts: Starts, out: NDArray[Any]) -> None:
            windows = np.stack([starts, starts + SEQLEN], axis=1)
            split.read(windows, STREAM, fields=("features",), dtype=dtype, out={"features": out})

        return read

    def mapped(read: Callable[[Any, Starts, NDArray[Any]], object]) -> Callable[[], Read]:
        def opened() -> Read:
            rows = np.load(data.npy, mmap_mode="r")
            return lambda starts, out: read(rows, starts, out)

        return opened

    def each(window: Callable[[Any, slice], NDArray[Any]], source: Callable[[], Any]) -> Callable[[], Read]:
        def opened() -> Read:
            rows = source()

            def read(starts: Starts, out: NDArray[Any]) -> None:
                for number, start in enumerate(starts.tolist()):
                    out[number] = window(rows, slice(start, start + SEQLEN))

            return read

        return opened

    def from_h5(_: None, rows: slice) -> NDArray[Any]:
        with h5py.File(data.h5) as file:
            return np.asarray(file["features"][rows])

    def gather(rows: Any, starts: Starts, out: NDArray[Any]) -> None:
        out[...] = rows[starts[:, None] + frames]

    def column() -> Any:
        return data.open()[SPLIT].column(f"features/{STREAM}")

    return {
        OURS: lambda: ours("float16"),
        SLICES: each(lambda rows, window: rows[window], lambda: np.load(data.npy, mmap_mode="r")),
        ROWS: mapped(gather),
        # With any other mode, NumPy fills a buffer of its own first.
        TAKE: mapped(lambda rows, starts, out: rows.take(starts[:, None] + frames, axis=0, out=out, mode="clip")),
        OURS_32: lambda: ours("float32"),
        H5_OPEN: each(lambda rows, window: rows[window], lambda: h5py.File(data.h5)["features"]),
        H5_ITEM: each(from_h5, lambda: None),
        ZARR: each(lambda rows, window: rows[window], column),
        ZARR_ROWS: lambda: oindex_of(column()),
    }


def draw(data: Data, n_windows: int, seed: int) -> Starts:
    """Random windows, each within one track: (n_windows,) first rows."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, data.rows // TRACK, n_windows) * TRACK
    return first + rng.integers(0, TRACK - SEQLEN + 1, n_windows)


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


def windows(
    data: Data, *, rounds: int, batch: int, passes: int, clock: Callable[[], float] = time.perf_counter
) -> Iterator[str]:
    """Windows a second of every way: of all passes, and of the first one alone."""

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
            out = buffer(way, batch, data.dim)
            count = min(SLOW[way], len(starts) // 20) if way in SLOW else len(starts)
            count = max(count // batch, 1) * batch
            early = min(one_pass, count)
            began = clock()
            read = opened()
            read_all(read, starts[:early], out)
            first[way].append(early / (clock() - began))
            read_all(read, starts[early:count], out)
            whole[way].append(count / (clock() - began))
    yield f"{data.rows:,} rows of {data.dim} float16, windows of {SEQLEN} frames, {batch} a batch, one thread, warm"
    yield f"page cache, {one_pass * passes:,} a round ({passes} passes of {one_pass:,}; slow ways at most"
    yield f"{', '.join(f'{n:,}' for n in SLOW.values())}), {rounds} rounds. All ways gave the same bytes. Opening, page"
    yield "faults and our checksums are counted; nearly all of these are in the first pass.\n"
    rows = [
        (
            *(way, spread(whole[way], ",.0f"), spread(first[way], ",.0f")),
            *(f"**{paired(whole[OURS], whole[way]):.2f}**", f"{paired(first[OURS], first[way]):.2f}"),
        )
        for way in whole
    ]
    yield from table(("", "windows/s", "first pass", "ours : it", "first pass, ours : it"), rows)


def main() -> None:
    """Make the data, measure, print, write the report."""
    options = parser(__doc__, at="the files, 4 GB")
    options.add_argument("--rows", type=int, default=409_600, help="of the split that windows are read from")
    options.add_argument("--batch", type=int, default=64, help="windows a batch")
    options.add_argument("--passes", type=int, default=10, help="times as many windows as rows / 16")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--cpu", action="store_true", help="CPU time of all threads, for a busy machine")
    options.add_argument("--small", action="store_true", help="4,096 rows of 32 numbers, one round")
    args = options.parse_args()
    rows, dim, rounds = (4_096, 32, 1) if args.small else (args.rows, 2048, args.rounds)
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

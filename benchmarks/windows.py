"""How fast are windows read? Against np.memmap, h5py and zarr-python, in one run.

    .venv/bin/python benchmarks/windows.py

Writes a cache of three splits (features float16, 2048 numbers a row) and the features of the first one again as .npy
and as HDF5, then reads random windows of 16 frames from all of them:

- Windows: into a given buffer, a batch at a time, `--passes` times as many windows as there are rows / 16. Every way
  opens its files again in every round, so page faults, and our checksums, are in the figures; slow ways read fewer.
- Whole batches: all seven fields from three splits (60% with 2D labels alone) as tensors, features left in float16,
  beside copying as many bytes from random places of one array in memory.

Rounds are interleaved: A B C A B C. The report has the median, and the lowest and the highest round. `--out` writes the
report, `--small` makes all of it tiny, to see that it works.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

import cache

sys.path.insert(0, str(Path(__file__).parents[1]))  # where `benchmarks` is, also for a script

from benchmarks.common import report

SEQLEN: Final = 16
STREAM: Final = "resnet50"
TRACK: Final = 256  # rows
LABELS_2D: Final = ("frame_index", "bbox", "kp_2d")
LABELS_3D: Final = (*LABELS_2D, "kp_3d", "has_3d", "valid")
# Split -> its columns, its part of the first split's rows, its part of a training batch. As in VIBE's own mixture,
# 60% have 2D labels alone.
SPLITS: Final[Mapping[str, tuple[Sequence[str], float, float]]] = {
    "flat/train": (LABELS_2D, 1.0, 0.6),
    "joints/train": (LABELS_3D, 0.125, 0.2),
    "body/train": ((*LABELS_3D, "pose", "betas", "has_smpl"), 0.25, 0.2),
}
OURS, OURS_32 = "cache, float16", "cache, float32"
SLICES, ROWS, TAKE = "memmap, a slice a window", "memmap, [rows]", "memmap, np.take into the buffer"
H5_OPEN, H5_ITEM, ZARR = "h5py, kept open", "h5py, opened per window", "zarr-python"
SLOW: Final = {OURS_32: 64_000, H5_OPEN: 2_000, H5_ITEM: 400, ZARR: 300}  # windows a round at most

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
    data = Data(folder, rows, dim)
    root = folder / "cache"
    for seed, (name, (columns, part, _)) in enumerate(SPLITS.items()):
        rng = np.random.default_rng(seed)
        with cache.SplitWriter(root, name, columns=columns, plan="random") as writer:
            writer.begin()
            for number in range(int(rows * part) // TRACK):
                video, labels = f"{number:06d}", labels_of(rng, number)
                track = cache.TrackRows(
                    name=f"{video}/0",
                    video=video,
                    step=1,
                    fps=25.0,
                    crop_scale=1.3,
                    columns={column: labels[column] for column in columns},
                )
                writer.append(cache.VideoEntry(name=video), [track])
            writer.commit({})
        with cache.StreamWriter(root, name, STREAM, dim=dim, plan="random") as stream:
            for shard in stream.pending:
                numbers = np.asarray(stream.rows(shard))
                # All patterns below infinity's: every finite float16 that is not negative.
                features = rng.integers(0, 0x7C00, (len(numbers), dim), np.uint16).view(np.float16)
                keys = np.stack([numbers, numbers], axis=1).astype(np.uint64)
                stream.write(shard, features, np.ones(len(numbers), bool), keys)
            stream.commit({})
    column: Any = data.open()["flat/train"].column(f"features/{STREAM}")
    copy = np.lib.format.open_memmap(data.npy, "w+", np.float16, (rows, dim))
    with h5py.File(data.h5, "w") as file:
        stored = file.create_dataset("features", (rows, dim), np.float16)
        for start in range(0, rows, cache.ROWS_PER_SHARD):
            some = slice(start, min(start + cache.ROWS_PER_SHARD, rows))
            copy[some] = stored[some] = column[some]
    copy.flush()
    return data


def labels_of(rng: np.random.Generator, number: int) -> dict[str, NDArray[Any]]:
    """One track's labels. Some are unknown, as in real ones: joints, and the body of every tenth track."""
    kp_2d = rng.random((TRACK, 49, 3), np.float32) * 500
    kp_2d[..., 2] = rng.random((TRACK, 49)) < 0.6
    kp_3d = rng.standard_normal((TRACK, 49, 4), np.float32)
    kp_3d[..., 3] = 1
    return {
        "frame_index": np.arange(TRACK),
        "bbox": rng.uniform(50, 300, (TRACK, 4)).astype(np.float32),
        "kp_2d": kp_2d,
        "kp_3d": kp_3d,
        "pose": rng.standard_normal((TRACK, 72), np.float32),
        "betas": rng.standard_normal((TRACK, 10), np.float32),
        "has_3d": np.ones(TRACK, bool),
        "has_smpl": np.full(TRACK, number % 10 != 0),
        "valid": np.arange(TRACK) >= 3,
    }


def ways(data: Data) -> dict[str, Callable[[], Read]]:
    """What opens a way of reading windows, by its name."""
    frames = np.arange(SEQLEN)

    def ours(dtype: str) -> Read:
        split = data.open()["flat/train"]

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

    return {
        OURS: lambda: ours("float16"),
        SLICES: each(lambda rows, window: rows[window], lambda: np.load(data.npy, mmap_mode="r")),
        ROWS: mapped(gather),
        # With any other mode, NumPy fills a buffer of its own first.
        TAKE: mapped(lambda rows, starts, out: rows.take(starts[:, None] + frames, axis=0, out=out, mode="clip")),
        OURS_32: lambda: ours("float32"),
        H5_OPEN: each(lambda rows, window: rows[window], lambda: h5py.File(data.h5)["features"]),
        H5_ITEM: each(from_h5, lambda: None),
        ZARR: each(lambda rows, window: rows[window], lambda: data.open()["flat/train"].column(f"features/{STREAM}")),
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


def windows(data: Data, *, rounds: int, batch: int, passes: int) -> list[str]:
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
            began = time.perf_counter()
            read = opened()
            read_all(read, starts[:early], out)
            first[way].append(early / (time.perf_counter() - began))
            read_all(read, starts[early:count], out)
            whole[way].append(count / (time.perf_counter() - began))
    lines = [
        "## Windows",
        "",
        f"Random windows into a given buffer, warm page cache, {one_pass * passes:,} a round ({passes} passes of",
        f"{one_pass:,}; slow ways at most {', '.join(f'{n:,}' for n in SLOW.values())}), {rounds} rounds. Opening,",
        "page faults and our checksums are counted; nearly all of these are in the first pass.",
        "",
        "|  | windows/s | lowest - highest | first pass | ours : it | first pass |",
        "|---|---|---|---|---|---|",
    ]
    for way, speeds in whole.items():
        middle, early_middle = statistics.median(speeds), statistics.median(first[way])
        ratio, early_ratio = paired(whole[OURS], speeds), paired(first[OURS], first[way])
        span = f"{min(speeds):,.0f} - {max(speeds):,.0f}"
        lines += [f"| {way} | {middle:,.0f} | {span} | {early_middle:,.0f} | **{ratio:.2f}** | {early_ratio:.2f} |"]
    return lines


def paired(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median of the ratios of each round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


class Batches:
    """Whole training batches of all splits, into the same tensors each time."""

    def __init__(self, data: Data, batch: int) -> None:
        import torch

        self._as_tensor = torch.from_numpy
        self._splits = [data.open()[name] for name in SPLITS]
        self._windows = [split.windows(SEQLEN, 1, STREAM) for split in self._splits]
        ends = np.cumsum([round(batch * part) for _, _, part in SPLITS.values()])
        self._parts = [slice(a, b) for a, b in zip([0, *ends[:-1]], [*ends[:-1], batch], strict=True)]
        others = {"kp_2d": (49, 3), "kp_3d": (49, 3), "theta": (85,), "w_3d": (), "w_smpl": (), "valid": ()}
        self._arrays: dict[str, NDArray[Any]] = {
            "features": np.zeros((batch, SEQLEN, data.dim), np.float16),
            **{name: np.zeros((batch, SEQLEN, *shape), np.float32) for name, shape in others.items()},
        }
        self.n_bytes = sum(array.nbytes for array in self._arrays.values())

    def read(self, draws: NDArray[np.float64]) -> dict[str, Any]:
        """One batch; `draws` (B,) from 0 to 1 choose the windows."""
        for split, windows, part in zip(self._splits, self._windows, self._parts, strict=True):
            chosen = windows[(draws[part] * len(windows)).astype(np.int64)]
            split.read(chosen, STREAM, dtype="float16", out={name: array[part] for name, array in self._arrays.items()})
        return {name: self._as_tensor(array) for name, array in self._arrays.items()}


def whole_batches(data: Data, *, rounds: int) -> list[str]:
    """Training batches beside copies of as many bytes."""
    lines = [
        "## Whole training batches",
        "",
        "All seven fields of 3 splits in the mixture 60 : 20 : 20 (2D alone, 3D joints, 3D joints and bodies), as",
        "tensors, features in float16; and one np.copyto a window of as many bytes from random places of one array.",
        "",
        "| batch | MB | batches/s | windows/s | copied: windows/s | rate of copying |",
        "|---|---|---|---|---|---|",
    ]
    memory = np.asarray(np.load(data.npy, mmap_mode="r")).view(np.uint8).reshape(-1)
    memory[::4096].sum()  # all pages are mapped, so that copying pays for none
    for batch in (64, 256):
        batches = Batches(data, batch)
        size = min(batches.n_bytes // batch, len(memory) // 2)
        target = np.zeros((batch, size), np.uint8)
        read, copied = [], []
        for turn in range(rounds + 1):  # the first round, in which shards are opened and checked, is left out
            n_batches = max(min(20_000, data.rows) // batch, 1)
            draws = np.random.default_rng(turn).random((n_batches, batch))
            began = time.perf_counter()
            for some in draws:
                batches.read(some)
            middle = time.perf_counter()
            for some in draws:
                for window, at in enumerate((some * (len(memory) - size)).astype(np.int64).tolist()):
                    np.copyto(target[window], memory[at : at + size])
            if turn:
                read.append(n_batches * batch / (middle - began))
                copied.append(n_batches * batch / (time.perf_counter() - middle))
        speed, copying = statistics.median(read), statistics.median(copied)
        figures = f"{batches.n_bytes / 1e6:.1f} | {speed / batch:,.0f} | {speed:,.0f} | {copying:,.0f}"
        lines += [f"| {batch} | {figures} | **{paired(read, copied):.2f}** |"]
    return lines


def main() -> None:
    """Make the data, measure, print, write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=409_600, help="of the split that windows are read from")
    parser.add_argument("--batch", type=int, default=64, help="windows a batch")
    parser.add_argument("--passes", type=int, default=10, help="times as many windows as rows / 16")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="4,096 rows of 32 numbers, one round")
    parser.add_argument("--at", type=Path, help="where to make the files (5 GB); a temporary folder by default")
    parser.add_argument("--out", type=Path, help="write the report here, for example benchmarks/windows.md")
    args = parser.parse_args()
    rows, dim, rounds = (4_096, 32, 1) if args.small else (args.rows, 2048, args.rounds)
    with tempfile.TemporaryDirectory(dir=args.at) as folder:
        data = make(Path(folder), rows=rows, dim=dim)
        sections = [
            windows(data, rounds=rounds, batch=args.batch, passes=args.passes),
            whole_batches(data, rounds=2 * rounds),
        ]
    facts = f"{rows:,} rows of {dim} float16, windows of {SEQLEN} frames, {args.batch} a batch, one thread."
    lines = [facts, "", *(line for section in sections for line in (*section, ""))]
    report("All ways gave the same bytes in the same run.", "How fast are windows read?", lines, args)


if __name__ == "__main__":
    main()
